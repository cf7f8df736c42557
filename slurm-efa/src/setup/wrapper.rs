//! The script that stands where a link cannot: slurmd gives its programs no
//! arguments, so a link says what to do, but not by which configuration.

use std::path::{Path, PathBuf};

use cli::called::CONFIG;

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
    /// The script. Its first line names the program itself, since a shell would cost
    /// each job a process; sh runs what such a line cannot say.
    #[must_use]
    pub fn text(&self) -> String {
        match self.interpreter() {
            Some(line) => format!("{line}\n{MADE} {MARK}\n"),
            None => format!("#!/bin/sh\n{MADE} {MARK}\nexec {}\n", self.call()),
        }
    }

    /// The first line by which the kernel runs the program itself: it takes one
    /// argument, without blanks at its end, and no longer line.
    fn interpreter(&self) -> Option<String> {
        let (program, config) = (self.program.to_str()?, self.config.to_str()?);
        let line = format!("#!{program} {CONFIG}{config}");
        let plain = !program.contains(char::is_whitespace)
            && !config.contains(char::is_control)
            && config.trim_end() == config;
        (plain && line.len() <= LONGEST).then_some(line)
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

    /// A script that [`Wrapper::text`] made, by its text; `None` for any other. The
    /// command is that of its name.
    #[must_use]
    pub fn of(text: &str, command: &str) -> Option<Self> {
        let mut lines = text.lines();
        let first = lines.next()?.strip_prefix("#!")?;
        lines.next().filter(|line| line.starts_with(MADE))?;
        let (program, config) = match first {
            "/bin/sh" => {
                let call = lines.next()?.strip_prefix("exec ")?;
                let (program, rest) = unquoted(call)?;
                let (_, config) = rest.split_once(" --config ")?;
                (program, unquoted(config)?.0)
            }
            _ => {
                let (program, argument) = first.split_once(' ')?;
                let config = argument.strip_prefix(CONFIG)?;
                (program.to_owned(), config.to_owned())
            }
        };
        Some(Self {
            program: PathBuf::from(program),
            command: command.to_owned(),
            config: PathBuf::from(config),
        })
    }
}

/// The longest first line of a script that all kernels in use read, without its line
/// break: before Linux 5.1 they cut off what is longer, later ones take 255 bytes.
const LONGEST: usize = 126;

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
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    fn wrapper(program: &str, config: &str) -> Wrapper {
        Wrapper {
            program: PathBuf::from(program),
            command: "prolog".to_owned(),
            config: PathBuf::from(config),
        }
    }

    /// What a script hands to its program.
    fn run(wrapper: &Wrapper) -> String {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("efa-check-prolog");
        fs::write(&script, wrapper.text()).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        // Another test may be between fork and exec, and have it open for writing.
        let output = loop {
            match Command::new(&script).output() {
                Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => {}
                output => break output.unwrap(),
            }
        };
        let printed = String::from_utf8(output.stdout).unwrap();
        printed.replace(&*script.to_string_lossy(), "SCRIPT")
    }

    #[test]
    fn the_kernel_hands_the_configurations_path_on_as_it_is_without_a_shell() {
        let longest = format!(
            "/srv/{}",
            "x".repeat(LONGEST - "#!/bin/echo --config=/srv/".len())
        );
        for config in [
            "/srv/a b.toml",
            "/srv/it's $HOME `x` \\ \"y\".toml",
            "/srv/*",
            &longest,
        ] {
            let wrapper = wrapper("/bin/echo", config);
            assert!(wrapper.text().starts_with("#!/bin/echo "), "{config}");
            assert_eq!(run(&wrapper), format!("--config={config} SCRIPT\n"));
        }
    }

    #[test]
    fn what_no_first_line_can_say_is_handed_on_by_the_shell() {
        let long = format!("/srv/{}", "x".repeat(LONGEST));
        for config in ["/srv/it's $HOME `x` ", "/srv/a\tb", &long] {
            let wrapper = wrapper("/bin/echo", config);
            assert!(wrapper.text().starts_with("#!/bin/sh\n"), "{config}");
            assert_eq!(run(&wrapper), format!("prolog --config {config}\n"));
        }
    }

    #[test]
    fn a_script_that_setup_did_not_write_is_none_of_its_own() {
        for text in ["", "#!/bin/sh\n", "#!/bin/sh\nexec '/x' prolog\n", MADE] {
            assert_eq!(Wrapper::of(text, "prolog"), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_script_is_read_as_it_was_written(program in "/[^\n\r\0]{1,20}", config in "/[^\n\r\0]{0,140}") {
            let wrapper = wrapper(&program, &config);
            prop_assert_eq!(Wrapper::of(&wrapper.text(), "prolog"), Some(wrapper));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(#!/bin/sh\n|#!/x --config=/y\n)?(# Made by slurm-efa setup.\n)?(exec )?\\PC{0,30}") {
            let _ = Wrapper::of(&text, "prolog");
        }
    }
}
