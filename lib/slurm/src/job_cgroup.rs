//! Which job a process belongs to, by its control group.
//!
//! | release | a line of `/proc/PID/cgroup` |
//! |---|---|
//! | cgroup v1 | `5:freezer:/slurm[_NODE]/uid_U/job_J/step_S/…` |
//! | cgroup v2 | `0::/system.slice/[NODE_]slurmstepd.scope/job_J/step_S/…` |
//! | v2 from 26.05 | `…/slurmstepd.scope/s5K1…/…`: a SLUID, unless `CgroupJobIdPaths=yes` |
//!
//! A container may add directories below; a job may not leave what is above.
//! systemd lets users make groups of any name below `user.slice`, so nothing
//! there is believed, and of what remains the first group of Slurm's counts: a
//! job can make a directory named `job_1` inside its own.
//!
//! A SLUID does not tell the job's number, but what runs in the job can write
//! down which SLUID is whose.

use std::path::PathBuf;

use crate::JobId;
use crate::stepd_sockets::number;
use host::Pid;
use host::process::{ProcessIdentity, read};

/// A job's group, as its directory is named.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The job's number.
    Job(JobId),
    /// Another name of it, from 26.05 on.
    Sluid(String),
}

/// Where a line of `/proc/PID/cgroup` leads into what is Slurm's.
struct Slurms<'a> {
    /// The v1 controllers of the hierarchy; none: the unified one.
    controllers: &'a str,
    /// Above the group that names the job.
    above: Vec<&'a str>,
    /// The name of that group, if there is one.
    group: Option<&'a str>,
}

impl<'a> Slurms<'a> {
    fn of_line(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(3, |byte| *byte == b':').skip(1);
        let controllers = std::str::from_utf8(fields.next()?).ok()?;
        if controllers.contains(['/', '.']) {
            return None;
        }
        // A job may give what is below its group any name.
        let parts = fields.next()?.strip_prefix(b"/")?.split(|b| *b == b'/');
        let mut parts = parts.map(|part| std::str::from_utf8(part).unwrap_or("\u{fffd}"));
        let mut above = Vec::new();
        loop {
            let part = parts.next()?;
            above.push(part);
            match part {
                "user.slice" | ".." => return None,
                _ if controllers.is_empty() => {
                    if part == "slurmstepd.scope" || part.ends_with("_slurmstepd.scope") {
                        break;
                    }
                }
                // A named hierarchy is systemd's, and users' in part.
                _ if controllers.starts_with("name=") => return None,
                _ => {
                    if part == "slurm" || part.starts_with("slurm_") {
                        let user = parts.next()?;
                        number(user.strip_prefix("uid_")?)?;
                        above.push(user);
                        break;
                    }
                }
            }
        }
        let group = parts.next();
        Some(Self {
            controllers,
            above,
            group,
        })
    }

    fn place(&self) -> Option<Place> {
        let group = self.group?;
        if let Some(job) = group.strip_prefix("job_") {
            return Some(Place::Job(JobId(number(job)?)));
        }
        let sluid = self.controllers.is_empty() && is_sluid(group);
        sluid.then(|| Place::Sluid(group.to_owned()))
    }

    /// The job's group, below its hierarchy's mount.
    fn directory(&self) -> Option<PathBuf> {
        self.place()?;
        let parts = self.above.iter().chain(&self.group);
        // An absolute part would replace what is before it.
        Some(parts.filter(|part| !part.is_empty()).collect())
    }
}

/// An `s` and 13 characters of Crockford's base 32.
fn is_sluid(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_uppercase();
    name.len() == 14 && name.starts_with('s') && name.bytes().skip(1).all(plain)
}

fn lines(text: &[u8]) -> impl Iterator<Item = Slurms<'_>> {
    let lines = text.split(|byte| *byte == b'\n');
    lines.filter_map(Slurms::of_line)
}

/// The job that the text of `/proc/PID/cgroup` places the process into.
#[must_use]
pub fn place(text: &[u8]) -> Option<Place> {
    lines(text).find_map(|line| line.place())
}

/// Whether the process is in a group of Slurm's, be it a job's or one that
/// Slurm keeps for itself.
#[must_use]
pub fn is_slurms(text: &[u8]) -> bool {
    lines(text).next().is_some()
}

/// The job's group in the unified hierarchy, below its mount.
#[must_use]
pub fn unified_directory(text: &[u8]) -> Option<PathBuf> {
    let unified = lines(text).find(|line| line.controllers.is_empty())?;
    unified.directory()
}

/// Where a process belongs, if it is still that process after the look.
#[must_use]
pub fn of_process(identity: ProcessIdentity) -> Option<Place> {
    let place = place(&read(identity.pid, "cgroup").ok()??)?;
    identity.is_alive().then_some(place)
}

/// The directory of the job that a process belongs to, below `/sys/fs/cgroup`.
#[must_use]
pub fn job_directory(pid: Pid) -> Option<PathBuf> {
    let text = read(pid, "cgroup").ok()??;
    directories(&text).into_iter().find(|path| path.is_dir())
}

/// Where the job's directory may be, v2 first.
fn directories(text: &[u8]) -> Vec<PathBuf> {
    let mut found: Vec<_> = lines(text)
        .filter_map(|line| {
            let mount = PathBuf::from("/sys/fs/cgroup").join(line.controllers);
            Some((!line.controllers.is_empty(), mount.join(line.directory()?)))
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
            (
                "1:cpu:/\n0::/system.slice/n1_slurmstepd.scope/job_3/step_0",
                job(3),
            ),
            (
                "0::/system.slice/slurmstepd.scope/s5K1ABCD234XYZ/step_0",
                Some(Place::Sluid("s5K1ABCD234XYZ".to_owned())),
            ),
            (
                "0::/system.slice/slurmstepd.scope/job_9/step_0/user/task_0/docker/abc",
                job(9),
            ),
        ] {
            assert_eq!(place(text.as_bytes()), expected, "{text}");
            assert!(is_slurms(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_looks_like_a_job_but_is_none_belongs_to_none() {
        for text in [
            "0::/user.slice/user-1000.slice/session-3.scope",
            "0::/system.slice/slurmd.service",
            "5:freezer:/slurm",
            "1:cpu:/slurm/uid_x/job_7",
            "0::/slurm/uid_1/job_7",
            "4:cpu:/system.slice/slurmstepd.scope/job_7",
            "0::/system.slice/notslurmstepd.scope/job_7",
            "0::/../system.slice/slurmstepd.scope/job_7",
            "",
            "::",
        ] {
            assert_eq!(place(text.as_bytes()), None, "{text}");
            assert!(!is_slurms(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_group_that_a_user_made_is_no_job_whatever_it_is_called() {
        let user = "/user.slice/user-20001.slice/user@20001.service";
        for group in [
            "0::USER/slurmstepd.scope/job_7",
            "0::USER/n1_slurmstepd.scope/job_7/step_0",
            "5:freezer:USER/slurm/uid_20001/job_7",
            "1:name=systemd:USER/slurm/uid_20001/job_7",
            "1:name=systemd:/slurm/uid_20001/job_7",
        ] {
            let text = group.replace("USER", user);
            assert_eq!(place(text.as_bytes()), None, "{text}");
            assert!(!is_slurms(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_slurm_keeps_for_itself_is_slurms_and_no_job() {
        for text in [
            "0::/system.slice/slurmstepd.scope/system",
            "0::/slurmstepd.scope/job_+7",
            "0::/system.slice/slurmstepd.scope",
            "5:freezer:/slurm/uid_20001",
        ] {
            assert_eq!(place(text.as_bytes()), None, "{text}");
            assert!(is_slurms(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_directory_that_a_job_made_itself_names_no_other_job() {
        for text in [
            &b"0::/system.slice/slurmstepd.scope/job_3/step_0/slurmstepd.scope/job_1"[..],
            b"5:memory:/slurm/uid_1/job_3/step_0/slurm/uid_2/job_1",
            b"0::/system.slice/slurmstepd.scope/job_3/\xff/user.slice/job_1",
        ] {
            assert_eq!(place(text), Some(Place::Job(JobId(3))));
        }
    }

    #[test]
    fn a_jobs_directory_is_that_of_the_job_and_not_of_the_step() {
        let text =
            b"5:memory:/slurm/uid_1/job_3/step_0/task_0\n0::/a/slurmstepd.scope/job_3/step_0";
        let found = directories(text);
        assert_eq!(
            found,
            [
                PathBuf::from("/sys/fs/cgroup/a/slurmstepd.scope/job_3"),
                PathBuf::from("/sys/fs/cgroup/memory/slurm/uid_1/job_3"),
            ]
        );
        let unified = PathBuf::from("a/slurmstepd.scope/job_3");
        assert_eq!(unified_directory(text), Some(unified));
        assert_eq!(unified_directory(b"5:memory:/slurm/uid_1/job_3"), None);
    }

    proptest! {
        #[test]
        fn no_text_panics_or_leads_out_of_the_hierarchy(text in "[0-9:/a-z_.\n]{0,120}") {
            let _ = is_slurms(text.as_bytes());
            for directory in directories(text.as_bytes()) {
                prop_assert!(directory.starts_with("/sys/fs/cgroup"));
                prop_assert!(directory.components().all(|part| part.as_os_str() != ".."));
            }
        }
    }
}
