//! The script that stands where a link cannot: slurmd gives its programs no
//! arguments, so a link says what to do, but not by which configuration.

use std::path::{Path, PathBuf};

use super::edit::MARK;
use super::paths::MADE;

/// A call of a program with a configuration of the site's choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapper {
    /// The program.
    pub program: PathBuf,
    /// Its command.
    pub command: String,
    /// Its configuration.
    pub config: PathBuf,
}

impl Wrapper {
    /// The script.
    #[must_use]
    pub fn text(&self) -> String {
        format!("#!/bin/sh\n{MADE} {MARK}\nexec {}\n", self.call())
    }

    /// What the script runs, as a person would type it.
    #[must_use]
    pub fn call(&self) -> String {
        format!(
            "{} {} --config {}",
            quoted(&self.program),
            self.command,
            quoted(&self.config)
        )
    }

    /// The program of a script that [`Wrapper::text`] made; `None` for any other.
    #[must_use]
    pub fn program_of(text: &str) -> Option<PathBuf> {
        let mut lines = text.lines();
        let made = lines.next() == Some("#!/bin/sh")
            && lines.next().is_some_and(|line| line.starts_with(MADE));
        let call = lines.next().filter(|_| made)?.strip_prefix("exec ")?;
        let (program, _) = unquoted(call)?;
        Some(PathBuf::from(program))
    }
}

/// For sh: nothing is special between single quotes but they themselves.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', "'\\''"))
}

/// The first word of what [`quoted`] made, and the rest.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let (first, mut rest) = text.strip_prefix('\'')?.split_once('\'')?;
    let mut word = first.to_owned();
    while let Some((more, after)) = rest
        .strip_prefix("\\''")
        .and_then(|text| text.split_once('\''))
    {
        word.push('\'');
        word.push_str(more);
        rest = after;
    }
    Some((word, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    fn wrapper(program: &str, config: &str) -> Wrapper {
        Wrapper {
            program: PathBuf::from(program),
            command: "prolog".to_owned(),
            config: PathBuf::from(config),
        }
    }

    #[test]
    fn the_shell_hands_the_configurations_path_on_as_it_is() {
        for config in [
            "/srv/a b.toml",
            "/srv/it's $HOME `x` \\ \"y\".toml",
            "/srv/*",
        ] {
            let text = wrapper("/bin/echo", config).text();
            let output = Command::new("/bin/sh").args(["-c", &text]).output();
            let printed = String::from_utf8(output.unwrap().stdout).unwrap();
            assert_eq!(printed, format!("prolog --config {config}\n"));
        }
    }

    #[test]
    fn a_script_that_setup_did_not_write_is_none_of_its_own() {
        for text in ["", "#!/bin/sh\n", "#!/bin/sh\nexec '/x' prolog\n", MADE] {
            assert_eq!(Wrapper::program_of(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_script_is_read_as_it_was_written(program in "/[^\n\0]{1,20}", config in "/.{0,20}") {
            let text = wrapper(&program, &config).text();
            prop_assert_eq!(Wrapper::program_of(&text), Some(PathBuf::from(program)));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(#!/bin/sh\n)?(# Made by slurm-efa setup.\n)?(exec )?\\PC{0,30}") {
            let _ = Wrapper::program_of(&text);
        }
    }
}
