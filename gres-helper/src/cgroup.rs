//! Which job a process belongs to, by its cgroup.
//!
//! | release | path |
//! |---|---|
//! | cgroup v1 | `…/slurm[_node]/uid_U/job_J/step_S/…` |
//! | cgroup v2 | `…/slurmstepd.scope/job_J/step_S/…` |
//! | v2 from 26.05 | `…/slurmstepd.scope/s5K1…/…`: a SLUID, unless `CgroupJobIdPaths=yes` |
//!
//! A container may add directories below; a job may not leave what is above.
//! A SLUID does not tell the job's number, but the plugin, which runs in the
//! job, writes down which SLUID is whose.

use std::path::PathBuf;

use node::process::{Life, Pid, read};
use node::registry::JobId;

/// A job's directory, as a cgroup's path names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The job's number.
    Job(JobId),
    /// Another name of it, from 26.05 on.
    Sluid(String),
}

/// Reads `/proc/PID/cgroup`'s text. Only directories right below Slurm's own
/// count: a job can make a directory named `job_1` inside its cgroup.
#[must_use]
pub fn place(text: &str) -> Option<Place> {
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (_, path) = rest.split_once(':')?;
        let mut parts = path.split('/');
        while let Some(part) = parts.next() {
            if part == "slurmstepd.scope" {
                return below_scope(parts.next()?);
            }
            if part == "slurm" || part.starts_with("slurm_") {
                let uid = parts.next()?.strip_prefix("uid_")?;
                number(uid)?;
                return Some(Place::Job(JobId(number(
                    parts.next()?.strip_prefix("job_")?,
                )?)));
            }
        }
        None
    })
}

fn below_scope(part: &str) -> Option<Place> {
    if let Some(job) = part.strip_prefix("job_") {
        return Some(Place::Job(JobId(number(job)?)));
    }
    is_sluid(part).then(|| Place::Sluid(part.to_owned()))
}

/// An `s` and 13 characters of Crockford's base 32.
fn is_sluid(part: &str) -> bool {
    part.len() == 14
        && part.starts_with('s')
        && part
            .bytes()
            .skip(1)
            .all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
}

/// Digits only: `parse` would also take a `+`.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

/// Where a process belongs, if it is still that process after the look.
#[must_use]
pub fn of_process(life: Life) -> Option<Place> {
    let place = place(&text(life.pid)?)?;
    life.goes_on().then_some(place)
}

fn text(pid: Pid) -> Option<String> {
    let bytes = read(pid, "cgroup").ok()??;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The directory of the job that a process belongs to, below `/sys/fs/cgroup`.
#[must_use]
pub fn job_directory(pid: Pid) -> Option<PathBuf> {
    directories(&text(pid)?)
        .into_iter()
        .find(|path| path.is_dir())
}

/// Where the job's directory may be, v2 first.
fn directories(text: &str) -> Vec<PathBuf> {
    let mut found: Vec<(bool, PathBuf)> = text
        .lines()
        .filter_map(|line| {
            place(line)?;
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let mut kept = PathBuf::from("/sys/fs/cgroup");
            kept.push(controllers);
            for part in path.split('/').filter(|part| !part.is_empty()) {
                if part == ".." {
                    return None;
                }
                kept.push(part);
                if part.starts_with("job_") || is_sluid(part) {
                    return Some((!controllers.is_empty(), kept));
                }
            }
            None
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_job_is_found_in_the_paths_of_every_release() {
        let job = |n| Some(Place::Job(JobId(n)));
        for (text, expected) in [
            (
                "12:freezer:/slurm/uid_1000/job_7/step_0\n0::/init.scope",
                job(7),
            ),
            ("3:devices:/slurm_n1/uid_0/job_12/step_extern", job(12)),
            (
                "0::/system.slice/slurmstepd.scope/job_3/step_0/user/task_0",
                job(3),
            ),
            ("0::/system.slice/n1_slurmstepd.scope/job_3", None),
            (
                "0::/system.slice/slurmstepd.scope/s5K1ABCD234XYZ/step_0",
                Some(Place::Sluid("s5K1ABCD234XYZ".to_owned())),
            ),
            (
                "0::/system.slice/slurmstepd.scope/job_9/step_0/user/task_0/docker/abc",
                job(9),
            ),
            ("0::/user.slice/user-1000.slice", None),
            ("1:cpu:/slurm/uid_x/job_7", None),
            ("0::/slurmstepd.scope/job_+7", None),
            ("0::/slurmstepd.scope/system/x", None),
        ] {
            assert_eq!(place(text), expected, "{text}");
        }
    }

    #[test]
    fn a_directory_that_a_job_made_itself_names_no_other_job() {
        let text = "0::/system.slice/slurmstepd.scope/job_3/step_0/slurmstepd.scope/job_1";
        assert_eq!(place(text), Some(Place::Job(JobId(3))));
        let text = "0::/slurm/uid_1/job_3/step_0/slurm/uid_2/job_1";
        assert_eq!(place(text), Some(Place::Job(JobId(3))));
    }

    #[test]
    fn a_jobs_directory_is_that_of_the_job_and_not_of_the_step() {
        let text = "5:memory:/slurm/uid_1/job_3/step_0/task_0\n0::/a/slurmstepd.scope/job_3/step_0";
        let found = directories(text);
        assert_eq!(
            found[0],
            PathBuf::from("/sys/fs/cgroup/a/slurmstepd.scope/job_3")
        );
        assert_eq!(
            found[1],
            PathBuf::from("/sys/fs/cgroup/memory/slurm/uid_1/job_3")
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[0-9:/a-z_.\n]{0,120}") {
            let _ = place(&text);
            let _ = directories(&text);
        }
    }
}
