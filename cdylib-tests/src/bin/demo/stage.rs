//! Commands as on a terminal: shown, run, their output shown and checked.

use std::error::Error;

use cdylib_tests::testbed::{JobId, Output, Testbed};

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

    /// Begins a section.
    pub fn title(&self, title: &str, text: &str) {
        println!("\n\n== {title}\n\n{text}");
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
        self.run_as(self.user(), "", line)
    }

    /// As [`Stage::run`], as root, with what a root's shell knows beforehand.
    pub fn run_as_root(&self, known: &str, line: &str) -> Result<Output, Box<dyn Error>> {
        println!("\n  # {line}");
        self.run_as("root", known, line)
    }

    fn run_as(&self, user: &str, known: &str, line: &str) -> Result<Output, Box<dyn Error>> {
        let script = format!("exec 2>&1\n{known}\n{line}");
        let output = self
            .testbed
            .command(user, &["bash", "-c", &script])
            .output()?;
        let place = self.testbed.dir().display().to_string();
        for line in output.stdout.replace(&place, "/…").lines() {
            fold(line);
        }
        if !output.success() {
            println!("{INDENT}[exit status {}]", output.code());
        }
        Ok(output)
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
