//! `spank_gres.so`: a job's share in its environment, and its fence.
//!
//! Everything happens in slurmstepd, as root: `init_post_opt` reads how many
//! shards Slurm gave the step and sets the environment; `user_init` speaks;
//! `task_init_privileged`, in the child that becomes the task and is in the
//! job's cgroup already, sets the fence. No hook but that one ends anything.

// Stricter than the workspace: see clippy.toml.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::print_stdout,
        clippy::print_stderr,
        clippy::exit,
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::disallowed_macros,
        clippy::allow_attributes_without_reason
    )
)]
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        clippy::disallowed_macros,
        reason = "a test runs in a process of its own"
    )
)]

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::DEFAULT_PATH;
use host::Deadline;
use host::exec::Call;
use host::printable;
use host::process::ProcessIdentity;
use host::{Pid, Uid};
use slurm::job_cgroup;
use slurm::job_cgroup::Place;
use slurm::{JobId, JobKey};
use spank::{Context, Outcome, Overwrite, Plugin, Spank, SpankError, StepId, log};

use gpu::mps;
use gpu::settings::{Settings, Shards, WantedTier};
use gpu::shares;
use gpu::shares::{Record, Tier};

/// How long the record's lock is waited for: a task waits with it.
const LOCK_LIMIT: Duration = Duration::from_secs(20);

/// What a user could set to weaken the server's limits.
const LOOSENING: [&str; 2] = [
    "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT",
    "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
];

/// The plugin's state in one process.
pub struct Gres {
    config: Option<PathBuf>,
    wrong: Option<String>,
    share: Option<Share>,
    /// Words for the user.
    words: Vec<String>,
}

/// A step with shards.
struct Share {
    settings: Settings,
    key: JobKey,
    uid: Uid,
    fence: Fence,
}

#[derive(PartialEq, Eq)]
enum Fence {
    /// There is none to set.
    None,
    /// Set it.
    Set,
    /// There should be one and cannot: the tasks fail with this sentence.
    Missing(String),
}

impl Plugin for Gres {
    fn load(words: &[OsString]) -> Self {
        let mut plugin = Self {
            config: None,
            wrong: None,
            share: None,
            words: Vec::new(),
        };
        for word in words {
            match word.as_bytes().strip_prefix(b"config=") {
                Some(path) => plugin.config = Some(std::ffi::OsStr::from_bytes(path).into()),
                None => plugin.wrong = Some(printable(&word.to_string_lossy(), 64)),
            }
        }
        plugin
    }

    fn init_post_opt(&mut self, spank: &mut Spank<'_>, context: Context) -> Outcome {
        if context == Context::Remote {
            // Never an error: on a node it would drain it.
            if let Err(reason) = self.serve(spank) {
                log::error(&format!("spank_gres: {reason}"));
                self.words
                    .push(format!("warning: the GPU share is not set up: {reason}"));
            }
        }
        Ok(())
    }

    fn user_init(&mut self, _: &mut Spank<'_>) -> Outcome {
        for words in &self.words {
            log::user(&format!("gres: {words}"));
        }
        Ok(())
    }

    fn task_init_privileged(&mut self, _: &mut Spank<'_>) -> Outcome {
        let Some(share) = &self.share else {
            return Ok(());
        };
        let failed = match &share.fence {
            Fence::None => {
                share.note_sluid();
                return Ok(());
            }
            Fence::Missing(reason) => reason.clone(),
            Fence::Set => {
                share.note_sluid();
                match share.fence() {
                    Ok(()) => return Ok(()),
                    Err(reason) => reason,
                }
            }
        };
        if share.settings.gres.require_fence {
            log::user(&format!(
                "gres: error: this job's GPU share cannot be fenced, which this site requires: \
                 {failed}; tell the administrator"
            ));
            // An error from an `optional` plugin would be ignored and the task
            // would run. This child exists only to become the task.
            spank::end_task();
        }
        log::user(&format!(
            "gres: warning: the GPU share is counted but not fenced: {failed}"
        ));
        Ok(())
    }
}

impl Gres {
    fn serve(&mut self, spank: &mut Spank<'_>) -> Result<(), String> {
        let failed = |error: SpankError| error.to_string();
        if spank.step_id().map_err(failed)? == StepId::Extern {
            return Ok(());
        }
        // Slurm sets this, or removes it, where GresTypes has shards; else it
        // is whatever the user says, and gives nothing but a line in a record.
        let shards = match spank.env("SLURM_SHARDS_ON_NODE").map_err(failed)? {
            Some(text) => Some(shards(&text).ok_or("SLURM_SHARDS_ON_NODE is no count")?),
            None => None,
        };
        if let Some(word) = &self.wrong {
            return Err(format!(
                "plugstack.conf: spank_gres.so takes config=FILE, not \"{word}\""
            ));
        }
        let settings = Settings::load(self.config.as_deref(), None)?;
        let key = JobKey {
            job: JobId(spank.job_id().map_err(failed)?.0),
            node: settings.named()?.clone(),
        };
        let uid = Uid(spank.uid().map_err(failed)?.0);
        let Some(shards) = shards else {
            return serve_whole(spank, &settings, &key, uid);
        };
        let served = serve_shards(spank, &settings, &key, uid, shards);
        // Whatever went wrong, the share is then not fenced.
        let (fence, result) = match served {
            Ok(fence) => (fence, Ok(())),
            Err(reason) => (Fence::Missing(reason.clone()), Err(reason)),
        };
        self.share = Some(Share {
            settings,
            key,
            uid,
            fence,
        });
        result
    }
}

fn serve_shards(
    spank: &mut Spank<'_>,
    settings: &Settings,
    key: &JobKey,
    uid: Uid,
    shards: u64,
) -> Result<Fence, String> {
    let mut state = settings.state()?;
    let deadline = Deadline::after(LOCK_LIMIT);
    let start = shares::recorded_start(&settings.state_dir, key);
    let record = shares::change(&mut state, key, uid, start.as_ref(), deadline, |record| {
        record.seen = true;
        // A step may have less than its job, never more.
        record.shards = Some(record.shards.unwrap_or(0).max(shards));
        if let (None, Shards::Size(mib)) = (record.shard_mib, settings.gres.shards) {
            record.shard_mib = Some(mib);
        }
    })?;
    set_environment(spank, settings, &record, Some(shards)).map_err(|error| error.to_string())?;
    Ok(fence(settings, &record))
}

/// A job with whole GPUs: the prolog, which cannot tell it from one with shards,
/// may have put its GPU under MPS. Then its programs must find the daemon.
fn serve_whole(
    spank: &mut Spank<'_>,
    settings: &Settings,
    key: &JobKey,
    uid: Uid,
) -> Result<(), String> {
    if settings.gres.tier != WantedTier::Mps {
        return Ok(());
    }
    let mut state = settings.state()?;
    if shares::get(&state, key)?.is_none_or(|record| record.tier != Tier::Mps) {
        return Ok(());
    }
    let deadline = Deadline::after(LOCK_LIMIT);
    let start = shares::recorded_start(&settings.state_dir, key);
    let start = start.as_ref();
    let record = shares::change(&mut state, key, uid, start, deadline, |record| {
        record.seen = true;
    })?;
    set_environment(spank, settings, &record, None).map_err(|error| error.to_string())
}

fn set_environment(
    spank: &mut Spank<'_>,
    settings: &Settings,
    record: &Record,
    shards: Option<u64>,
) -> Result<(), SpankError> {
    let share = shards.and_then(|shards| record.shard_mib?.checked_mul(shards));
    match share {
        Some(mib) => spank.set_env("SLURM_GPU_SHARE_MIB", &mib.to_string(), Overwrite::Yes)?,
        // What the user says is not a share.
        None => spank.unset_env("SLURM_GPU_SHARE_MIB")?,
    }
    if let (Tier::Mps, [gpu]) = (record.tier, record.gpus.as_slice()) {
        let (pipe, log) = mps::directories(settings, gpu, record.uid);
        for (name, path) in [
            ("CUDA_MPS_PIPE_DIRECTORY", pipe),
            ("CUDA_MPS_LOG_DIRECTORY", log),
        ] {
            spank.set_env(name, path.as_os_str().as_bytes(), Overwrite::Yes)?;
        }
        for name in LOOSENING {
            spank.unset_env(name)?;
        }
    }
    Ok(())
}

/// What is to be done about a job's fence.
fn fence(settings: &Settings, record: &Record) -> Fence {
    if let Some(reason) = &record.refused {
        return Fence::Missing(reason.clone());
    }
    match record.wants {
        Tier::Mps | Tier::Cgroup => Fence::Set,
        Tier::CountOnly if matches!(settings.gres.tier, WantedTier::Mps | WantedTier::Cgroup) => {
            Fence::Missing("the prolog did not run, or could not tell the job's GPU".to_owned())
        }
        Tier::CountOnly | Tier::Watchdog if settings.gres.require_fence => Fence::Missing(
            "no tier that limits memory is configured, or the prolog did not run".to_owned(),
        ),
        Tier::CountOnly | Tier::Watchdog | Tier::Mig => Fence::None,
    }
}

/// A count of shards as Slurm writes it.
fn shards(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let count = digits.then(|| text.parse().ok())??;
    (1..=shares::MOST_SHARDS).contains(&count).then_some(count)
}

impl Share {
    /// From 26.05 on a cgroup may not tell the job's number: from inside, it
    /// is known whose it is.
    fn note_sluid(&self) {
        let own = ProcessIdentity::of(Pid::own()).ok().flatten();
        let Some(Place::Sluid(name)) = own.and_then(job_cgroup::of_process) else {
            return;
        };
        let start = shares::recorded_start(&self.settings.state_dir, &self.key);
        let noted = self.settings.state().and_then(|mut state| {
            let (start, deadline) = (start.as_ref(), Deadline::after(LOCK_LIMIT));
            shares::change(&mut state, &self.key, self.uid, start, deadline, |record| {
                record.sluid = Some(name);
            })
        });
        if let Err(reason) = noted {
            log::error(&format!("spank_gres: {reason}"));
        }
    }

    fn fence(&self) -> Result<(), String> {
        // NVML can hang, so another process asks it.
        let limit = self.settings.gres.nvml_limit * 3 + LOCK_LIMIT;
        let mut call = Call::to(&self.settings.gres.helper).map_err(|error| error.to_string())?;
        // The default file may be missing; one that was named may not.
        if self.settings.config != Path::new(DEFAULT_PATH) {
            call = call.arg("--config").arg(&self.settings.config);
        }
        let said = call
            .args(["--node-name", self.key.node.as_str(), "fence"])
            .args([self.key.job.to_string(), std::process::id().to_string()])
            .run(limit)
            .map_err(|error| error.to_string())?;
        let helper = self.settings.gres.helper.display();
        if said.success() {
            return Ok(());
        }
        let words = said.stderr.lines().next().unwrap_or_default();
        let words = words.strip_prefix("gres-helper: ").unwrap_or(words);
        Err(match said.status {
            Some(_) => printable(words, 400),
            None => format!("{helper} did not end within {} s", limit.as_secs()),
        })
    }
}

/// The release, for `slurm-efa doctor`, which reads it from the file.
#[used]
static RELEASE: &str = concat!("slurm-efa-release=", env!("CARGO_PKG_VERSION"), "=");

spank::plugin! {
    name: "spank_gres",
    plugin: Gres,
    hooks: [init_post_opt, user_init, task_init_privileged],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_that_others_may_change_is_not_run() {
        use std::fs::{Permissions, create_dir, set_permissions, write};
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("bin");
        let (helper, config) = (folder.join("gres-helper"), dir.path().join("gres.toml"));
        create_dir(&folder).unwrap();
        write(&helper, "#!/bin/sh\n").unwrap();
        write(
            &config,
            format!("[gres]\nhelper = \"{}\"\n", helper.display()),
        )
        .unwrap();
        let set_mode = |path: &Path, mode| {
            set_permissions(path, Permissions::from_mode(mode)).unwrap();
        };
        set_mode(&folder, 0o755);
        set_mode(&helper, 0o755);
        let node: slurm::NodeName = "n1".parse().unwrap();
        let share = Share {
            settings: Settings::load(Some(&config), Some(node.clone())).unwrap(),
            key: JobKey {
                job: JobId(1),
                node,
            },
            uid: Uid(1000),
            fence: Fence::Set,
        };
        assert_eq!(share.fence(), Ok(()));
        for spoilt in [helper.as_path(), &folder] {
            set_mode(spoilt, 0o777);
            let reason = share.fence().unwrap_err();
            assert!(reason.contains("not run, because others"), "{reason}");
            set_mode(spoilt, 0o755);
        }
    }

    #[test]
    fn only_a_plain_count_is_one() {
        assert_eq!(shards(b"3"), Some(3));
        for text in [
            &b""[..],
            b"0",
            b"-1",
            b"+1",
            b" 1",
            b"1e3",
            b"99999999999999999999",
            b"\xff",
            b"65537",
        ] {
            assert_eq!(shards(text), None, "{text:?}");
        }
    }
}
