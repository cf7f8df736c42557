//! Commands as on a terminal: shown, run, their output shown and checked.

use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering};

use cdylib_tests::testbed::{Cmd, JobId, Output, Testbed};

/// Columns of the transcript.
const WIDTH: usize = 100;
/// What output and text are indented by.
const INDENT: &str = "    ";

/// How a scene ends.
pub type Outcome = Result<(), Box<dyn Error>>;

/// One user's terminal on the testbed.
pub struct Stage<'tb> {
    /// The cluster.
    pub testbed: &'tb Testbed,
}

impl<'tb> Stage<'tb> {
    pub fn new(testbed: &'tb Testbed) -> Self {
        Self { testbed }
    }

    /// Whose terminal it is: alice's, or that of the only user there is.
    pub fn user(&self) -> &str {
        let users = self.testbed.users();
        &users[usize::from(users.len() > 1)].name
    }

    /// Who keeps the cluster: root, or the only user there is.
    pub fn admin(&self) -> &str {
        &self.testbed.users()[0].name
    }

    /// Begins a section, with the next number.
    pub fn title(&self, title: &str, text: &str) {
        static SCENES: AtomicU32 = AtomicU32::new(1);
        let number = SCENES.fetch_add(1, Ordering::Relaxed);
        println!("\n\n== {number}. {title}\n\n{text}");
    }

    /// Says what the next command shows.
    pub fn say(&self, text: &str) {
        println!("\n{text}");
    }

    /// Puts a file into the user's home.
    pub fn write(&self, name: &str, text: &str) -> Outcome {
        self.testbed
            .command(self.user(), &["tee", name])
            .stdin(text)
            .success()?;
        Ok(())
    }

    /// Runs one line in the user's shell, with everything it prints in one
    /// stream, as on a terminal.
    pub fn run(&self, line: &str) -> Result<Output, Box<dyn Error>> {
        println!("\n  $ {line}");
        self.print(self.shell(self.user(), "", line))
    }

    /// As [`Stage::run`], as root, with what a root's shell knows beforehand.
    pub fn run_as_root(&self, known: &str, line: &str) -> Result<Output, Box<dyn Error>> {
        println!("\n  # {line}");
        self.print(self.shell("root", known, line))
    }

    /// As [`Stage::run`], in the administrator's shell and the testbed's own
    /// directory.
    pub fn administer(&self, line: &str) -> Result<Output, Box<dyn Error>> {
        println!("\n  # {line}");
        let command = self.shell(self.admin(), "", line).cwd(self.testbed.dir());
        self.print(command)
    }

    fn shell(&self, user: &str, known: &str, line: &str) -> Cmd<'tb> {
        let script = format!("exec 2>&1\n{known}\n{line}");
        self.testbed.command(user, &["bash", "-c", &script])
    }

    fn print(&self, command: Cmd<'_>) -> Result<Output, Box<dyn Error>> {
        let output = command.output()?;
        let place = self.testbed.dir().display().to_string();
        for line in output.stdout.replace(&place, "/…").lines() {
            fold(line);
        }
        if !output.success() {
            println!("{INDENT}[exit status {}]", output.code());
        }
        Ok(output)
    }

    /// Shows a command that was run in another way, and what it printed, as
    /// far as a person would see it.
    pub fn show(&self, line: &str, output: &Output) {
        println!("\n  $ {line}");
        let text = format!("{}{}", output.stdout, output.stderr);
        let seen = text.replace('\r', "");
        let noise = |line: &&str| !line.starts_with("Warning: Permanently added");
        for line in seen.lines().filter(noise) {
            fold(&plain(line));
        }
        if !output.success() {
            println!("{INDENT}[exit status {}]", output.code());
        }
    }

    /// Submits with `line` and waits until the job is over.
    pub fn submit(&self, line: &str) -> Result<JobId, Box<dyn Error>> {
        let output = self.run(line)?;
        let id = output
            .stdout
            .lines()
            .find_map(|line| line.strip_prefix("Submitted batch job ")?.parse().ok())
            .map(JobId)
            .ok_or("the job above should have been submitted")?;
        self.testbed.wait_job(id)?;
        Ok(id)
    }
}

/// Ends the demo if something is not as the text says.
pub fn expect(holds: bool, what: &str) -> Outcome {
    if holds {
        Ok(())
    } else {
        Err(format!("the output above does not show what it should: {what}").into())
    }
}

/// Every one of `lines` stands in `text`, a whole line each.
pub fn expect_lines(text: &str, lines: &[&str]) -> Outcome {
    for wanted in lines {
        expect(
            text.lines().any(|line| line == *wanted),
            &format!("the line \"{wanted}\""),
        )?;
    }
    Ok(())
}

/// None of the variables is in an environment that `env` printed, labelled or not.
pub fn expect_unset(text: &str, variables: &[&str]) -> Outcome {
    for variable in variables {
        expect(
            !text.contains(&format!("{variable}=")),
            &format!("no {variable}"),
        )?;
    }
    Ok(())
}

/// Prints a line of output, continued below where it is too long.
fn fold(line: &str) {
    let mut indent = INDENT.len();
    let mut rest = line;
    while rest.chars().count() + indent > WIDTH {
        let room = WIDTH - indent;
        let limit = rest
            .char_indices()
            .nth(room)
            .map_or(rest.len(), |(at, _)| at);
        let cut = rest[..limit].rfind(' ').filter(|at| *at > 0);
        let (head, tail) = rest.split_at(cut.unwrap_or(limit));
        println!("{:indent$}{head}", "");
        indent = INDENT.len() + 4;
        rest = tail.trim_start();
    }
    println!("{:indent$}{rest}", "");
}

/// A line without what steers a terminal: bash switches bracketed paste.
fn plain(line: &str) -> String {
    let mut clean = line.to_owned();
    for sequence in ["\x1b[?2004h", "\x1b[?2004l"] {
        clean = clean.replace(sequence, "");
    }
    clean.chars().filter(|c| !c.is_control()).collect()
}
