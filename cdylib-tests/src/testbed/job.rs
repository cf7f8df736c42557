//! Jobs and nodes as `scontrol` shows them.

use std::collections::BTreeMap;
use std::fmt;

/// A job id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u32);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A job's state, by the names of `scontrol show job`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the names are Slurm's own: squeue(1), JOB STATE CODES"
)]
pub enum JobState {
    Pending,
    Configuring,
    Running,
    Suspended,
    Completing,
    Completed,
    Cancelled,
    Failed,
    Timeout,
    NodeFail,
    Preempted,
    BootFail,
    Deadline,
    OutOfMemory,
    /// A name that this list does not have.
    Other(String),
}

impl JobState {
    fn parse(name: &str) -> JobState {
        match name {
            "PENDING" => JobState::Pending,
            "CONFIGURING" => JobState::Configuring,
            "RUNNING" => JobState::Running,
            "SUSPENDED" => JobState::Suspended,
            "COMPLETING" => JobState::Completing,
            "COMPLETED" => JobState::Completed,
            "CANCELLED" => JobState::Cancelled,
            "FAILED" => JobState::Failed,
            "TIMEOUT" => JobState::Timeout,
            "NODE_FAIL" => JobState::NodeFail,
            "PREEMPTED" => JobState::Preempted,
            "BOOT_FAIL" => JobState::BootFail,
            "DEADLINE" => JobState::Deadline,
            "OUT_OF_MEMORY" => JobState::OutOfMemory,
            other => JobState::Other(other.to_owned()),
        }
    }

    /// Is the job over?
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            JobState::Completed
                | JobState::Cancelled
                | JobState::Failed
                | JobState::Timeout
                | JobState::NodeFail
                | JobState::Preempted
                | JobState::BootFail
                | JobState::Deadline
                | JobState::OutOfMemory
        )
    }
}

/// One line of `scontrol show job -o`.
#[derive(Debug, Clone)]
pub struct Job {
    fields: BTreeMap<String, String>,
}

impl Job {
    pub(super) fn parse(line: &str) -> Job {
        Job {
            fields: parse_fields(line),
        }
    }

    /// A field by Slurm's name for it, e.g. `Reason`.
    pub fn get(&self, field: &str) -> Option<&str> {
        self.fields.get(field).map(String::as_str)
    }

    /// The state.
    pub fn state(&self) -> JobState {
        JobState::parse(self.get("JobState").unwrap_or_default())
    }

    /// Exit code and signal, of `ExitCode=code:signal`.
    pub fn exit_code(&self) -> Option<(i32, i32)> {
        let (code, signal) = self.get("ExitCode")?.split_once(':')?;
        Some((code.parse().ok()?, signal.parse().ok()?))
    }
}

/// A node's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Slurm's words, e.g. `IDLE` or `IDLE+DRAIN`.
    pub state: String,
    /// The reason somebody gave, empty if none.
    pub reason: String,
}

impl NodeState {
    pub(super) fn parse(line: &str) -> NodeState {
        let fields = parse_fields(line);
        let field = |name| fields.get(name).cloned().unwrap_or_default();
        NodeState {
            state: field("State"),
            reason: field("Reason"),
        }
    }

    /// Is the node drained or being drained?
    pub fn is_drained(&self) -> bool {
        self.state.contains("DRAIN")
    }
}

/// Splits `A=1 B=two words C=3`. A value runs to the next word that looks like
/// `Name=`, because Slurm quotes nothing; so a value that itself holds such a
/// word is cut there.
fn parse_fields(line: &str) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let mut current: Option<(String, String)> = None;
    for word in line.trim().split(' ') {
        match word.split_once('=') {
            Some((name, value)) if is_name(name) => {
                fields.extend(current.take());
                current = Some((name.to_owned(), value.to_owned()));
            }
            _ => {
                if let Some((_, value)) = &mut current {
                    value.push(' ');
                    value.push_str(word);
                }
            }
        }
    }
    fields.extend(current);
    fields
        .into_iter()
        .map(|(name, value): (String, String)| (name, value.trim_end().to_owned()))
        .collect()
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase())
        && word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | ':' | '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_line_is_split_into_fields_with_spaces_in_values() {
        let job = Job::parse(
            "JobId=3 JobName=a UserId=alice(20001) JobState=PENDING \
             Reason=Nodes required for job are DOWN, DRAINED ExitCode=1:0 Comment= ",
        );
        assert_eq!(job.state(), JobState::Pending);
        assert_eq!(
            job.get("Reason"),
            Some("Nodes required for job are DOWN, DRAINED")
        );
        assert_eq!(job.exit_code(), Some((1, 0)));
        assert_eq!(job.get("Comment"), Some(""));
    }

    #[test]
    fn a_drained_node_shows_its_state_and_reason() {
        let node = NodeState::parse(
            "NodeName=n1 State=IDLE+DRAIN ThreadsPerCore=1 \
             Reason=batch job complete failure [root@2026-01-01T00:00:00]",
        );
        assert!(node.is_drained());
        assert!(node.reason.starts_with("batch job complete failure"));
    }
}
