//! The completions that packages install.

use clap::Command;
use clap_complete::Shell;

/// The script for a shell, without hidden commands and options.
#[must_use]
pub fn script(shell: Shell, command: &Command, name: &str) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut visible(command), name, &mut script);
    let script = String::from_utf8_lossy(&script);
    // clap_complete 4.6 takes a dash in the program's name for the border of a
    // subcommand in one of two places, so bash completed the first word only.
    let (root, torn) = (name.replace('-', "__"), name.replace('-', "__subcmd__"));
    script.replace(&format!("{torn}__subcmd__"), &format!("{root}__subcmd__"))
}

/// The same command without what is hidden.
fn visible(command: &Command) -> Command {
    let arguments = command.get_arguments().filter(|it| !it.is_hide_set());
    let commands = command.get_subcommands().filter(|it| !it.is_hide_set());
    let mut shown = Command::new(command.get_name().to_owned())
        .args(arguments.cloned())
        .subcommands(commands.map(visible));
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    match command.get_version() {
        Some(version) => shown.version(version.to_owned()),
        None => shown,
    }
}
