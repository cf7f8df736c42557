//! What shells complete, by asking bash, zsh and fish.

use std::path::Path;

use cdylib_tests::completions::{SHELLS, assert_offered, offered};
use efa_check::checks::CHECKS;

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_efa-check"))
}

#[test]
fn shells_complete_commands_and_options() {
    assert_offered(program(), &["ping"], &["pingpong"]);
    assert_offered(program(), &["node", "--verb"], &["--verbose"]);
}

#[test]
fn shells_complete_the_names_of_all_checks() {
    let all: Vec<&str> = CHECKS.iter().map(|check| check.id).collect();
    for shell in SHELLS {
        let values = offered(shell, program(), &["explain", ""]);
        for id in &all {
            assert!(
                values.iter().any(|it| it == id),
                "{shell:?}: no {id} in {values:?}"
            );
        }
    }
    assert_offered(program(), &["explain", "device-c"], &["device-count"]);
}

#[test]
fn no_shell_offers_a_hidden_command() {
    for hidden in ["watch", "record", "compl"] {
        assert_offered(program(), &[hidden], &[]);
    }
}
