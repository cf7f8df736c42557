//! What shells complete, by asking bash, zsh and fish.

use std::path::Path;

use cdylib_tests::completions::assert_offered;

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_slurm-logout"))
}

#[test]
fn shells_complete_commands_and_options() {
    assert_offered(program(), &["sw"], &["sweep"]);
    assert_offered(program(), &["status", "--js"], &["--json"]);
}

#[test]
fn no_shell_offers_a_hidden_command() {
    assert_offered(program(), &["compl"], &[]);
}
