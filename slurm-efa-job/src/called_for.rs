//! Which job Slurm runs this for, by the environment of its Prolog= and Epilog=.

use std::ffi::OsString;
use std::path::PathBuf;

use host::{Gid, Uid};
use slurm::{JobId, NodeName};

/// A job on a node, by slurmd's word; a user can forge none of these variables.
#[derive(Debug, PartialEq, Eq)]
pub struct CalledFor {
    pub job: JobId,
    pub node: NodeName,
    pub uid: Uid,
    /// `None` where this release does not name it.
    pub gid: Option<Gid>,
    /// The configuration, if it is not the default one.
    pub config: Option<PathBuf>,
}

impl CalledFor {
    /// `env` looks a variable up.
    pub fn of(
        config: Option<PathBuf>,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, String> {
        let text = |name: &str| env(name)?.into_string().ok();
        let number = |name: &str| text(name)?.parse().ok();
        let missing =
            |name: &str| format!("{name} is not set: call this as Slurm's Prolog= or Epilog=");
        let node = text("SLURMD_NODENAME").and_then(|name| name.parse().ok());
        Ok(Self {
            job: JobId(number("SLURM_JOB_ID").ok_or_else(|| missing("SLURM_JOB_ID"))?),
            node: node.ok_or_else(|| missing("SLURMD_NODENAME"))?,
            uid: Uid(number("SLURM_JOB_UID").ok_or_else(|| missing("SLURM_JOB_UID"))?),
            gid: number("SLURM_JOB_GID").map(Gid),
            config,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<CalledFor, String> {
        CalledFor::of(None, |name| {
            let found = variables.iter().find(|(it, _)| *it == name);
            found.map(|(_, value)| value.into())
        })
    }

    #[test]
    fn a_release_that_does_not_name_the_group_has_jobs_all_the_same() {
        let job = of(&[
            ("SLURMD_NODENAME", "n1"),
            ("SLURM_JOB_ID", "7"),
            ("SLURM_JOB_UID", "1000"),
        ]);
        let job = job.unwrap();
        assert_eq!((job.job, job.uid, job.gid), (JobId(7), Uid(1000), None));
    }

    #[test]
    fn what_is_no_prolog_is_refused_by_the_variable_that_it_lacks() {
        let error = of(&[("SLURM_JOB_ID", "7"), ("SLURM_JOB_UID", "-1")]);
        assert!(error.unwrap_err().contains("SLURMD_NODENAME"));
        let error = of(&[("SLURMD_NODENAME", "n1"), ("SLURM_JOB_ID", "7x")]);
        assert!(error.unwrap_err().contains("SLURM_JOB_ID"));
    }
}
