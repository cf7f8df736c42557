//! The completions that packages install.

use clap::Command;
use clap_complete::Shell;

/// The script for a shell, without hidden commands and options.
#[must_use]
pub fn script(shell: Shell, command: &Command, name: &str) -> String {
    let mut script = Vec::new();
    let mut command = visible(command);
    clap_complete::generate(shell, &mut command, name, &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if shell == Shell::Fish {
        script.push_str(&fish_values(&command, name, &[]));
    }
    // clap_complete 4.6 takes a dash in the program's name for the border of a
    // subcommand in one of two places, so bash completed the first word only.
    let (root, torn) = (name.replace('-', "__"), name.replace('-', "__subcmd__"));
    script.replace(&format!("{torn}__subcmd__"), &format!("{root}__subcmd__"))
}

/// clap_complete 4.6 offers fish the values of options only, not those of arguments
/// without a name. `path` leads to the command.
fn fish_values(command: &Command, name: &str, path: &[&str]) -> String {
    let function = name.replace('-', "_");
    let mut lines = String::new();
    if let Some((first, below)) = path.split_first() {
        let mut condition = format!("__fish_{function}_using_subcommand {first}");
        for command in below {
            condition.push_str(&format!("; and __fish_seen_subcommand_from {command}"));
        }
        for argument in command.get_positionals() {
            let values = argument.get_possible_values();
            let values: Vec<&str> = values.iter().map(|it| it.get_name()).collect();
            if !values.is_empty() {
                let values = values.join(" ");
                lines.push_str(&format!(
                    "complete -c {name} -n \"{condition}\" -f -a \"{values}\"\n"
                ));
            }
        }
    }
    for below in command.get_subcommands() {
        let path: Vec<&str> = path.iter().copied().chain([below.get_name()]).collect();
        lines.push_str(&fish_values(below, name, &path));
    }
    lines
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
