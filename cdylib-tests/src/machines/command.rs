//! Programs of the machine that runs the test.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Verdict;
use crate::testbed::{Output, collect};

/// Runs a command to its end.
///
/// # Errors
/// It cannot be started, or does not end within the limit.
pub fn run(mut command: Command, limit: Duration, shown: &str) -> Verdict<Output> {
    let started = Instant::now();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let collected = collect(&mut child, started + limit)?;
    if !collected.ended {
        // Fails only when it has ended in the meantime.
        let _ = child.kill();
    }
    let status = child.wait()?;
    let [stdout_bytes, stderr_bytes] = collected.streams;
    let output = Output {
        status,
        stdout: String::from_utf8_lossy(&stdout_bytes).into_owned(),
        stderr: String::from_utf8_lossy(&stderr_bytes).into_owned(),
        stdout_bytes,
        took: started.elapsed(),
    };
    if !collected.ended {
        return Err(format!("after {limit:?} still at work: {shown}\n{output}").into());
    }
    Ok(output)
}

/// As [`run`], and it must succeed.
///
/// # Errors
/// With its words.
pub fn succeed(command: Command, limit: Duration, shown: &str) -> Verdict {
    let output = run(command, limit, shown)?;
    if !output.success() {
        return Err(format!("{shown}: {output}").into());
    }
    Ok(())
}

/// A script of the shell, to which these paths are its arguments.
///
/// # Errors
/// It fails, or takes longer than a minute.
pub fn shell(script: &str, arguments: &[&Path]) -> Verdict {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).args(arguments);
    succeed(command, Duration::from_secs(60), script)
}
