//! What a shell completes, by asking it.

use std::process::Command;

fn script(shell: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_slurm-efa"))
        .args(["completions", shell])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What bash offers for the last of these words.
fn completed(words: &[&str]) -> Vec<String> {
    const ASK: &str = r#"
        eval "$SCRIPT"
        function=$(complete -p slurm-efa) && function=${function##*-F } && function=${function%% *}
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        "$function" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let output = Command::new("bash")
        .args(["--norc", "-c", ASK, "bash", "slurm-efa"])
        .args(words)
        .env("SCRIPT", script("bash"))
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    let offered = String::from_utf8(output.stdout).unwrap();
    offered.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_a_command() {
    assert_eq!(completed(&["doc"]), ["doctor"]);
}

#[test]
fn bash_completes_an_option_of_a_command() {
    assert_eq!(completed(&["setup", "--dry"]), ["--dry-run"]);
}

#[test]
fn bash_completes_a_command_below_a_command() {
    assert_eq!(completed(&["config", "sch"]), ["schema"]);
}

#[test]
fn bash_completes_the_roles() {
    let roles = ["auto", "controller", "login", "compute"];
    assert_eq!(completed(&["doctor", "--role", ""]), roles);
    assert_eq!(completed(&["setup", "--role", "con"]), ["controller"]);
}

#[test]
fn bash_completes_the_parts_of_a_setup() {
    let parts = ["profiles", "hugepages", "health", "logout", "gres"];
    assert_eq!(completed(&["setup", "--only", ""]), parts);
    assert_eq!(completed(&["revert", "--only", "hu"]), ["hugepages"]);
}

#[test]
fn no_shell_completes_a_hidden_command_or_option() {
    for shell in ["bash", "zsh", "fish"] {
        let script = script(shell);
        assert!(script.contains("doctor"), "{shell}");
        for hidden in [
            "pam-check",
            "nvml-check",
            "completions",
            "provisioning-root",
        ] {
            assert!(!script.contains(hidden), "{shell}: {hidden}");
        }
    }
    assert_eq!(completed(&["setup", "--root"]), [""]);
}

#[test]
fn the_scripts_of_zsh_and_fish_have_the_roles() {
    for shell in ["zsh", "fish"] {
        let script = script(shell);
        for role in ["controller", "login", "compute"] {
            assert!(script.contains(role), "{shell}: {role}");
        }
    }
}
