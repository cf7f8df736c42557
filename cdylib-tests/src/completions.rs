//! What a shell offers when its user presses TAB, by asking the shell itself.

use std::fs;
use std::path::Path;
use std::process::Command;

/// The shells that packages bring completions for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

/// All of them.
pub const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// Calls the function that the script registers, as readline does.
const BASH: &str = r#"
    source "$FOLDER/script"
    function=$(complete -p "$1") && function=${function##*-F } && function=${function%% *}
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    "$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    printf '%s\n' "${COMPREPLY[@]}"
"#;

const FISH: &str = r#"source "$FOLDER/script"; complete -C "$argv""#;

/// An interactive zsh on a terminal of its own, in which TAB is pressed.
const ZSH: &str = r#"
    zmodload zsh/zpty
    zpty shell "zsh -f -i"
    zpty -w shell "source $FOLDER/inside"
    zpty -w -n shell "$*"$'\t'
    while zpty -r shell text; do
        [[ $text == *'THAT IS ALL'* ]] && break
    done
    zpty -d shell
    cat "$FOLDER/offered"
"#;

/// In that shell: what is handed to the completion system is written down, too.
const INSIDE_ZSH: &str = r#"
    PROMPT= RPROMPT=
    setopt no_beep
    fpath=("$FOLDER/functions" $fpath)
    autoload -Uz compinit && compinit -u -d "$FOLDER/dump"
    compadd() {
        local -a found
        if (( ${argv[(I)-[OAD]]} )); then
            builtin compadd "$@"
            return
        fi
        builtin compadd -A found "$@"
        (( $#found )) && print -rl -- $found >>"$FOLDER/offered"
        builtin compadd "$@"
    }
    finish() { print 'THAT IS ALL' }
    comppostfuncs=(finish)
"#;

/// What `shell` offers for the last of these words after the name of `program`, in
/// alphabetical order.
///
/// # Panics
/// The shell or the program cannot be run, or one of them complains.
#[must_use]
pub fn offered(shell: Shell, program: &Path, words: &[&str]) -> Vec<String> {
    let name = program.file_name().expect("a program").to_string_lossy();
    let folder = tempfile::tempdir().expect("a folder");
    let file = |path: &str, text: &[u8]| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    };
    let shells = match shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
    };
    let script = Command::new(program)
        .args(["completions", shells])
        .output()
        .expect("the program");
    assert!(script.status.success(), "{script:?}");
    file("script", &script.stdout);
    file(&format!("functions/_{name}"), &script.stdout);
    file("inside", INSIDE_ZSH.as_bytes());
    file("offered", b"");
    let mut command = Command::new(shells);
    match shell {
        Shell::Bash => command
            .args(["--norc", "-c", BASH, "bash", &name])
            .args(words),
        Shell::Zsh => command.args(["-f", "-c", ZSH, "zsh", &name]).args(words),
        Shell::Fish => {
            let line: Vec<&str> = [name.as_ref()].iter().chain(words).copied().collect();
            command.args(["--no-config", "-c", FISH, &line.join(" ")])
        }
    };
    let output = command
        .env("FOLDER", folder.path())
        .env("HOME", folder.path())
        .env("TERM", "dumb")
        .current_dir(folder.path())
        .output()
        .unwrap_or_else(|error| panic!("{shells}: {error}; run `cargo xtask setup`"));
    assert!(output.stderr.is_empty(), "{shell:?} {words:?}: {output:?}");
    let text = String::from_utf8_lossy(&output.stdout);
    // fish adds a description.
    let values = text.lines().map(|it| it.split('\t').next().unwrap_or(it));
    let mut values: Vec<String> = values
        .filter(|it| !it.is_empty())
        .map(str::to_owned)
        .collect();
    values.sort();
    values.dedup();
    values
}

/// Asserts what every shell offers, and that nothing else is offered.
///
/// # Panics
/// One of them offers something else.
pub fn assert_offered(program: &Path, words: &[&str], expected: &[&str]) {
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    for shell in SHELLS {
        assert_eq!(
            offered(shell, program, words),
            expected,
            "{shell:?} {words:?}"
        );
    }
}
