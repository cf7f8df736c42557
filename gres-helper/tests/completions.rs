//! What shells complete, by asking bash, zsh and fish.

use std::path::Path;

use cdylib_tests::completions::assert_offered;

fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_gres-helper"))
}

#[test]
fn shells_complete_commands_options_and_values() {
    assert_offered(program(), &["gen"], &["generate"]);
    assert_offered(program(), &["mig", "ro"], &["rollback"]);
    assert_offered(program(), &["verify", "--off"], &["--offline"]);
    let files = ["gres", "slurm", "cgroup"];
    assert_offered(program(), &["generate", "--file", ""], &files);
}

#[test]
fn no_shell_offers_a_hidden_command() {
    for hidden in ["fence", "compl"] {
        assert_offered(program(), &[hidden], &[]);
    }
}
