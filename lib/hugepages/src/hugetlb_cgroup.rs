//! The kernel's own fence: the hugetlb controller limits how many hugepages the
//! processes of a control group may map, so that one job cannot take what was
//! set aside for another.
//!
//! Slurm puts its steps into no group of the hugetlb controller's v1 hierarchy,
//! so there each job gets a group of ours, `slurm-efa/<job>@<node>`, which its
//! tasks enter. With v2 a job's own group, which Slurm made, is limited. The
//! controller must be on from the root down to it. systemd does not know it and
//! leaves it alone; Slurm turns it on from 25.05 with
//! `EnableExtraControllers=hugetlb` in cgroup.conf; where nobody has, we do.
//!
//! What enters a job by another way than as a task (logins) is limited with v2
//! only.
//!
//! Source: Documentation/admin-guide/cgroup-v1/hugetlb.rst and cgroup-v2.rst.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use config::size::{Bytes, PageSize};
use host::sysroot::shown;
use host::{ReadError, Sysroot};
use jobs::Existence;
use jobs::sweep::{Remains, View};
use slurm::JobKey;
use slurm::job_cgroup::unified_directory;

/// The parent of the jobs' groups in a v1 hierarchy.
const OURS: &str = "slurm-efa";

/// What a group may turn on, and what is on for the groups in it.
const CONTROLLERS: &str = "cgroup.controllers";
const SUBTREE: &str = "cgroup.subtree_control";

const MOUNTS: &str = "proc/self/mountinfo";
const CGROUPS: &str = "proc/self/cgroup";

/// Most that is read of the two; hosts with many containers have long ones.
const LARGEST: usize = 1024 * 1024;

/// Where the hugetlb controller is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Controller {
    /// In a hierarchy of version 1, mounted here.
    V1(PathBuf),
    /// In the unified hierarchy, mounted here, which is all there is.
    V2(PathBuf),
}

/// Why a job is not fenced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IsolateError {
    /// The kernel's files cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The process is in no step of Slurm's.
    #[error(
        "the process is in no control group of a step; cgroup.conf needs CgroupPlugin=cgroup/v2 or autodetect, and ProctrackType=proctrack/cgroup"
    )]
    NoStep,
    /// The unified hierarchy has no hugetlb controller.
    #[error(
        "{}: the hugetlb controller is not among {}; the kernel has none, or it is mounted as v1",
        shown(mount),
        CONTROLLERS
    )]
    NoController {
        /// Where the hierarchy is mounted.
        mount: PathBuf,
    },
    /// The system refused.
    #[error("cannot {action} {}: {source}", shown(path))]
    Io {
        /// `make`, `write`.
        action: &'static str,
        /// The group or file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

impl Controller {
    /// Looks for it; `None` where the kernel has none or nobody mounted it.
    ///
    /// # Errors
    /// The mounts cannot be read.
    pub fn find() -> Result<Option<Self>, ReadError> {
        Ok(Self::of_mounts(
            &Sysroot::real().read_bounded(MOUNTS, LARGEST)?,
        ))
    }

    /// Reads proc(5)'s mountinfo. A v1 hierarchy with the controller wins; the
    /// unified one counts only where Slurm's jobs are in it, which is where no
    /// v1 hierarchy is mounted at all.
    #[must_use]
    pub fn of_mounts(text: &str) -> Option<Self> {
        let mut unified = None;
        let mut has_v1 = false;
        for line in text.lines() {
            let Some((before, after)) = line.split_once(" - ") else {
                continue;
            };
            let Some(place) = before.split(' ').nth(4) else {
                continue;
            };
            let mut words = after.split(' ');
            match (words.next(), words.nth(1)) {
                (Some("cgroup"), Some(options)) => {
                    has_v1 = true;
                    if options.split(',').any(|option| option == "hugetlb") {
                        return Some(Self::V1(PathBuf::from(place)));
                    }
                }
                (Some("cgroup2"), _) if unified.is_none() => {
                    unified = Some(Self::V2(PathBuf::from(place)));
                }
                _ => {}
            }
        }
        unified.filter(|_| !has_v1)
    }

    /// In the prolog: makes the job's group with its limits. Nothing to do
    /// with v2, where Slurm makes the group later.
    ///
    /// # Errors
    /// The job is not fenced.
    pub fn prepare(&self, key: &JobKey, limits: &[(PageSize, Bytes)]) -> Result<(), IsolateError> {
        let Self::V1(mount) = self else {
            return Ok(());
        };
        let group = group(mount, key);
        for dir in [mount.join(OURS), group.clone()] {
            match fs::create_dir(&dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(refused("make", dir, error));
                }
                _ => {}
            }
        }
        limit(&group, limits, "limit_in_bytes")
    }

    /// In a task that is still root: puts it under its job's limits.
    ///
    /// # Errors
    /// The task is not fenced.
    pub fn enter(&self, key: &JobKey, limits: &[(PageSize, Bytes)]) -> Result<(), IsolateError> {
        match self {
            // 0 is the process that writes.
            Self::V1(mount) => write(&group(mount, key).join("cgroup.procs"), "0"),
            Self::V2(mount) => {
                let text = Sysroot::real().read_bounded(CGROUPS, LARGEST)?;
                let job = unified_directory(text.as_bytes()).ok_or(IsolateError::NoStep)?;
                enable(mount, &job)?;
                limit(&mount.join(job), limits, "max")
            }
        }
    }

    /// Removes the groups of jobs that are gone. One that still has processes
    /// stays, with its limits.
    fn remove_groups(&self, exists: &mut dyn FnMut(&JobKey) -> Existence) {
        let Self::V1(mount) = self else {
            return;
        };
        // Listed first: a prolog records its job before it makes the group.
        let Ok(groups) = fs::read_dir(mount.join(OURS)) else {
            return;
        };
        for group in groups.flatten() {
            let name = group.file_name();
            let key = name
                .to_str()
                .and_then(|name| JobKey::of_file(&format!("{name}.json")));
            if key.is_some_and(|key| exists(&key) == Existence::Gone) {
                let _ = fs::remove_dir(group.path());
            }
        }
    }
}

/// The jobs' groups as a part of the one sweep.
pub struct Groups;

impl Remains for Groups {
    fn sweep(&mut self, view: &View<'_>) -> Result<(), String> {
        let controller = match Controller::find() {
            Ok(Some(controller)) if view.registry.is_some() => controller,
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        };
        let mut index = view.index();
        controller.remove_groups(&mut |key| view.existence(&mut index, key, None));
        Ok(())
    }
}

/// Turns the controller on for the groups in each ancestor of the job's, from
/// the root down; where it is on already nothing is written.
fn enable(mount: &Path, job: &Path) -> Result<(), IsolateError> {
    if !has_word(&mount.join(CONTROLLERS)) {
        let mount = mount.to_owned();
        return Err(IsolateError::NoController { mount });
    }
    let mut ancestors: Vec<&Path> = job.ancestors().skip(1).collect();
    ancestors.reverse();
    for ancestor in ancestors {
        let file = mount.join(ancestor).join(SUBTREE);
        if !has_word(&file) {
            write(&file, "+hugetlb")?;
        }
    }
    Ok(())
}

/// Whether the file of controllers names ours.
fn has_word(file: &Path) -> bool {
    let text = Sysroot::real().read_small(&file.to_string_lossy());
    text.is_ok_and(|text| text.split_ascii_whitespace().any(|word| word == "hugetlb"))
}

fn group(mount: &Path, key: &JobKey) -> PathBuf {
    mount.join(OURS).join(key.to_string())
}

/// The kernel's name of a page size in the controller's files.
fn name(size: PageSize) -> &'static str {
    match size {
        PageSize::TwoMiB => "2MB",
        PageSize::OneGiB => "1GB",
    }
}

/// Sets the limits of each size that the kernel has: of reservations, which
/// makes mmap(2) fail (libfabric then takes normal pages), and of use, which
/// ends a process with SIGBUS, for kernels before 5.7 and mappings that reserve
/// nothing.
fn limit(group: &Path, limits: &[(PageSize, Bytes)], file: &str) -> Result<(), IsolateError> {
    for (size, bytes) in limits {
        for kind in ["rsvd.", ""] {
            let file = group.join(format!("hugetlb.{}.{kind}{file}", name(*size)));
            match write(&file, &bytes.0.to_string()) {
                Err(IsolateError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    Ok(())
}

fn write(path: &Path, value: &str) -> Result<(), IsolateError> {
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|source| refused("write", path.to_owned(), source))
}

fn refused(action: &'static str, path: PathBuf, source: io::Error) -> IsolateError {
    IsolateError::Io {
        action,
        path,
        source,
    }
}

/// What slurmd says when it starts, if the fence that the site wants cannot be.
#[must_use]
pub fn complaint() -> Option<String> {
    match Controller::find() {
        Ok(Some(_)) => None,
        Ok(None) => Some(
            "isolate = true in [hugepages], but no hugetlb controller is mounted where Slurm's \
             jobs are: they are not kept from each other's hugepages"
                .to_owned(),
        ),
        Err(error) => Some(format!(
            "isolate = true in [hugepages] cannot be kept: {error}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const V1: &str = "25 30 0:22 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n\
        33 25 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        34 25 0:30 / /sys/fs/cgroup/hugetlb rw shared:9 - cgroup cgroup rw,hugetlb\n\
        35 25 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    #[test]
    fn the_v1_hierarchy_that_has_the_controller_is_found() {
        let mount = PathBuf::from("/sys/fs/cgroup/hugetlb");
        assert_eq!(Controller::of_mounts(V1), Some(Controller::V1(mount)));
    }

    #[test]
    fn in_a_mixed_set_up_the_unified_hierarchy_does_not_hold_slurms_jobs() {
        let lines = V1.lines().filter(|line| !line.contains("hugetlb"));
        let without = lines.collect::<Vec<_>>().join("\n");
        assert_eq!(Controller::of_mounts(&without), None);
    }

    #[test]
    fn a_unified_hierarchy_alone_is_found() {
        let line = "35 25 0:31 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let mount = PathBuf::from("/sys/fs/cgroup");
        assert_eq!(Controller::of_mounts(line), Some(Controller::V2(mount)));
    }

    #[test]
    fn with_v2_the_controller_is_turned_on_above_the_job_and_nowhere_else() {
        let mount = tempfile::tempdir().unwrap();
        let job = Path::new("system.slice/slurmstepd.scope/job_7");
        fs::create_dir_all(mount.path().join(job)).unwrap();
        let file = |group: &str| mount.path().join(group).join(SUBTREE);
        let groups = ["", "system.slice", "system.slice/slurmstepd.scope"];
        for group in groups
            .iter()
            .chain([&"system.slice/slurmstepd.scope/job_7"])
        {
            fs::write(file(group), "cpu memory\n").unwrap();
        }
        let error = enable(mount.path(), job).unwrap_err();
        assert!(
            matches!(error, IsolateError::NoController { .. }),
            "{error}"
        );

        fs::write(mount.path().join(CONTROLLERS), "cpu memory hugetlb pids\n").unwrap();
        fs::write(file(""), "cpu hugetlb memory\n").unwrap();
        enable(mount.path(), job).unwrap();
        let texts = groups.map(|group| fs::read_to_string(file(group)).unwrap());
        assert_eq!(texts[0], "cpu hugetlb memory\n", "it was on");
        // The kernel would add the word; a plain file is overwritten in place.
        assert!(texts[1].starts_with("+hugetlb"), "{texts:?}");
        assert!(texts[2].starts_with("+hugetlb"), "{texts:?}");
        let own = fs::read_to_string(file("system.slice/slurmstepd.scope/job_7")).unwrap();
        assert_eq!(own, "cpu memory\n");
    }

    proptest! {
        #[test]
        fn whatever_the_kernel_says_nothing_panics(text in "(.| - |cgroup|/|step_|\n){0,80}") {
            let _ = Controller::of_mounts(&text);
        }
    }
}
