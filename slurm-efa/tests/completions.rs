//! What shells complete, by asking bash, zsh and fish.

use std::path::Path;

use cdylib_tests::completions::{SHELLS, assert_offered, offered};

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_slurm-efa"))
}

#[test]
fn shells_complete_a_command() {
    assert_offered(program(), &["doc"], &["doctor"]);
}

#[test]
fn shells_complete_an_option_of_a_command() {
    assert_offered(program(), &["setup", "--dry"], &["--dry-run"]);
}

#[test]
fn shells_complete_a_command_below_a_command() {
    assert_offered(program(), &["config", "sch"], &["schema"]);
}

#[test]
fn shells_complete_the_roles() {
    let roles = ["auto", "controller", "login", "compute"];
    assert_offered(program(), &["doctor", "--role", ""], &roles);
    assert_offered(program(), &["setup", "--role", "con"], &["controller"]);
}

#[test]
fn no_shell_offers_a_hidden_command_or_option() {
    for shell in SHELLS {
        let commands = offered(shell, program(), &[""]);
        assert!(
            commands.contains(&"doctor".to_owned()),
            "{shell:?}: {commands:?}"
        );
        for hidden in [
            "pam-check",
            "nvml-check",
            "completions",
            "provisioning-root",
        ] {
            let hidden = hidden.to_owned();
            assert!(!commands.contains(&hidden), "{shell:?}: {commands:?}");
        }
    }
    assert_offered(program(), &["setup", "--root"], &[]);
    assert_offered(program(), &["com"], &[]);
}

#[test]
fn no_shell_offers_the_name_of_an_argument_as_its_value() {
    for shell in SHELLS {
        for words in [["report", ""].as_slice(), &["config", "check", ""]] {
            let values = offered(shell, program(), words);
            let placeholder = |it: &String| it.starts_with(['<', '[']);
            assert!(!values.iter().any(placeholder), "{shell:?}: {values:?}");
        }
    }
}

#[test]
fn shells_complete_the_parts_of_a_setup() {
    let parts = ["profiles", "hugepages", "health", "logout", "gres"];
    assert_offered(program(), &["setup", "--only", ""], &parts);
    assert_offered(program(), &["revert", "--only", "hu"], &["hugepages"]);
}
