//! Jobs by the numbers and names that Slurm gives them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::NodeName;

/// A job's id as Slurm counts them; the same after a requeue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(pub u32);

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A job on a node. Several slurmd on one machine share the kernel's pages and
/// so this registry; one job may run on several of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey {
    /// The job.
    pub job: JobId,
    /// Slurm's name of the node.
    pub node: NodeName,
}

impl JobKey {
    /// The name of the job's file.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{self}.json")
    }

    /// The job whose file has this name, if it is exactly such a name.
    #[must_use]
    pub fn of_file(name: &str) -> Option<Self> {
        let (job, node) = name.strip_suffix(".json")?.split_once('@')?;
        let key = Self {
            job: JobId(job.parse().ok()?),
            node: node.parse().ok()?,
        };
        // Not `+7@n1` or `07@n1`: a job has one file.
        (key.file_name() == name).then_some(key)
    }
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.job, self.node)
    }
}
