//! Every path under the state directory, and the version of each format there.
//!
//! This is the one place that spells these names; a test below searches the
//! sources for a second one. (Tests from outside, in a crate's `tests/`, name what
//! an administrator finds there.) Everything lies in a tmpfs and ends with the boot.
//! Each name says who writes it, who reads it and when it goes. Every directory
//! has a file `.lock` as well, which is held while the directory changes (see
//! [`state_dir`](crate::state_dir)).
//!
//! ```text
//! /run/slurm-efa/
//! ├── jobs/            JOB@NODE.json
//! ├── counters/        JOB@NODE.json
//! ├── hugepages/       JOB@NODE.json  baseline.json
//! ├── latest/          UID
//! ├── counter-readers.lock
//! ├── last-start       hugepages.lock
//! ├── sessions/        PID-START.json
//! ├── logout/          UID.json
//! ├── logoutd.lock     setup.lock
//! ├── efa-check.json   efa-check*.lock
//! └── gres/            job-JOB@NODE.json  mps-GPU.json  mps/GPU-UID/{pipe,log}/
//!                      seen.json  watch.json  mig-before.json  *.lock
//! ```

/// The state directory, unless the configuration names another one.
pub const DEFAULT: &str = "/run/slurm-efa";

/// What belongs to a job. `JOB@NODE.json` in each directory is of that job on
/// that node, and only the store of `lib/jobs` removes what is of a job that is
/// gone.
pub mod job {
    /// The directory of the job records. The plugin's prolog writes a record;
    /// steps and gres-helper's prolog add to it; logins, steps and the daemon
    /// read it; the epilog or a sweep removes it. Its `.lock` is the lock of
    /// everything that is kept for a job.
    pub const RECORDS: &str = "jobs";
    /// The version of a job record.
    pub const RECORD_VERSION: u32 = 1;

    /// The directory of the EFA counters at each job's start. The plugin's
    /// prolog writes them; the job's steps and its epilog read them; they go
    /// with the job's record. They are the devices' counters in JSON, whose
    /// version is that of `lib/efa`.
    pub const COUNTERS: &str = "counters";

    /// The directory of the hugepages ledger. A reconciliation (prolog, epilog,
    /// `slurm-efa reconcile`) writes a job's entry and removes it once that job
    /// is gone; efa-check reads the sum.
    pub const LEDGER: &str = "hugepages";
    /// In the ledger: the pages of the administrator and of the jobs together.
    /// A reconciliation writes it and removes it when no job has pages.
    pub const LEDGER_BASELINE: &str = "baseline.json";
    /// The version of the ledger's files.
    pub const LEDGER_VERSION: u32 = 1;
    /// Held during a reconciliation, which may take seconds. Never removed.
    pub const LEDGER_LOCK: &str = "hugepages.lock";

    /// The number of the job that started last. The plugin's prolog writes it;
    /// steps and epilog read whether another job started after theirs. Each
    /// start replaces it.
    pub const LAST_START: &str = "last-start";

    /// The directory of each user's latest job, in a file of the user's number.
    /// The plugin's prolog writes it; a login reads it; it goes with that job.
    pub const LATEST: &str = "latest";
}

/// What belongs to the processes that read counters.
pub mod counters {
    /// Each such process locks one byte of it for each device while it reads
    /// that device's counters; another reader finds by that lock
    /// which process hangs there. Never removed.
    pub const READERS: &str = "counter-readers.lock";
}

/// What belongs to logins.
pub mod login {
    /// The directory of the sessions. The PAM module writes one when it opens;
    /// slurm-logoutd and `slurm-logout` read it; the daemon removes it when no
    /// process of that session is left.
    pub const SESSIONS: &str = "sessions";
    /// The version of a session's file.
    pub const SESSION_VERSION: u32 = 1;

    /// The directory of the deadlines that users were warned of. slurm-logoutd
    /// writes, reads and removes them; `slurm-logout` reads them.
    pub const NOTICES: &str = "logout";

    /// Held by slurm-logoutd as long as it runs. Never removed.
    pub const DAEMON_LOCK: &str = "logoutd.lock";
}

/// What belongs to efa-check.
pub mod health {
    /// The last round: counters, devices that were seen, the active test.
    /// efa-check writes and reads it; it counts for one boot.
    pub const ROUNDS: &str = "efa-check.json";
    /// The version of that file.
    pub const ROUNDS_VERSION: u32 = 2;
    /// Held while that file is replaced.
    pub const ROUNDS_LOCK: &str = "efa-check.lock";
    /// Held by the process that tests an idle node's devices.
    pub const LOOPBACK_LOCK: &str = "efa-check-loopback.lock";
    /// Held by efa-check's process that asks Slurm.
    pub const SLURM_LOCK: &str = "efa-check-slurm.lock";
    /// Held by the one process that waits for that.
    pub const SLURM_NEXT_LOCK: &str = "efa-check-slurm-next.lock";
}

/// What belongs to shared GPUs, in the directory [`gres::FOLDER`].
pub mod gres {
    /// The directory of everything below.
    pub const FOLDER: &str = "gres";
    /// Held by everyone who changes shares, compute modes or MPS daemons, which
    /// may take seconds. Never removed.
    pub const LOCK: &str = "lock";

    /// How the file of a job's share begins; a job's file name follows.
    /// gres-helper's prolog and `spank_gres.so` write it; gres-helper reads it;
    /// gres-helper's epilog, or a sweep, removes it once its MPS daemon has let
    /// the job go.
    pub const SHARE_PREFIX: &str = "job-";
    /// The version of a share.
    pub const SHARE_VERSION: u32 = 1;

    /// How the file of a GPU's MPS daemon begins; the GPU's UUID and `.json`
    /// follow. Written when the daemon starts, removed when its last job leaves.
    pub const MPS_PREFIX: &str = "mps-";
    /// The directory of the MPS daemons' directories, `GPU-UID` each.
    pub const MPS: &str = "mps";
    /// In each: CUDA_MPS_PIPE_DIRECTORY and CUDA_MPS_LOG_DIRECTORY.
    pub const MPS_FOLDERS: [&str; 2] = ["pipe", "log"];

    /// GPUs and XID errors that were seen since the boot. gres-helper's prolog
    /// and watch write it.
    pub const SEEN: &str = "seen.json";
    /// What the last sample of `gres-helper watch` found.
    pub const WATCH: &str = "watch.json";
    /// Held by `gres-helper watch` as long as it runs.
    pub const WATCH_LOCK: &str = "watch.lock";
    /// The MIG layouts before the last apply: the way back.
    pub const MIG_BEFORE: &str = "mig-before.json";
    /// Held by gres-helper's process that asks Slurm.
    pub const SLURM_LOCK: &str = "slurm.lock";
    /// Held by the one process that waits for that.
    pub const SLURM_NEXT_LOCK: &str = "slurm-next.lock";
}

/// What belongs to `slurm-efa setup`.
pub mod setup {
    /// Held by a setup or a revert. Never removed.
    pub const LOCK: &str = "setup.lock";
    /// How the directory begins in which slurmd tries a new cgroup.conf; the
    /// process' number follows. Removed after the try.
    pub const TRIAL_PREFIX: &str = "try-";
}

#[cfg(test)]
mod tests {
    use super::{gres, health, job, login, setup};
    use std::fs;
    use std::path::{Path, PathBuf};

    /// Names that mean nothing else: no other string may have one as a word of
    /// a path.
    const UNMISTAKABLE: [&str; 18] = [
        job::LEDGER_BASELINE,
        job::LEDGER_LOCK,
        job::LAST_START,
        login::DAEMON_LOCK,
        health::ROUNDS,
        health::ROUNDS_LOCK,
        health::LOOPBACK_LOCK,
        health::SLURM_LOCK,
        health::SLURM_NEXT_LOCK,
        gres::SEEN,
        gres::WATCH,
        gres::WATCH_LOCK,
        gres::MIG_BEFORE,
        gres::SLURM_LOCK,
        gres::SLURM_NEXT_LOCK,
        gres::MPS_PREFIX,
        setup::LOCK,
        setup::TRIAL_PREFIX,
    ];

    /// Names that are words of the language, too: no other string with one may
    /// be used as the name of a file or a directory.
    const WORDS: [&str; 10] = [
        job::RECORDS,
        job::COUNTERS,
        job::LEDGER,
        job::LATEST,
        login::SESSIONS,
        login::NOTICES,
        gres::FOLDER,
        gres::LOCK,
        gres::SHARE_PREFIX,
        gres::MPS,
    ];

    /// What stands before a string that is used as such a name.
    const USES: [&str; 6] = [
        "join(\"",
        "folder(\"",
        ".lock(\"",
        ": &str = \"",
        "_prefix(\"",
        "path(\"state/",
    ];

    /// Other paths with the same words, and tests of the directory itself.
    const OTHERS: [(&str, &str); 2] = [
        ("cdylib-tests/src/kernel_pages.rs", "join(\"hugepages\")"),
        ("lib/host/src/state_dir.rs", "\"lock\""),
    ];

    fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                sources(&path, found);
            } else if name.ends_with(".rs") {
                found.push(path);
            }
        }
    }

    /// The name of the state directory that a line of code spells.
    fn spelled(line: &str) -> Option<&'static str> {
        let code = line.split("//").next().unwrap_or_default();
        let ends_word = |rest: &str| rest.starts_with(['"', '/', '{']);
        let word = |name: &&&str| {
            code.match_indices(**name).any(|(at, _)| {
                let (before, rest) = (&code[..at], &code[at + name.len()..]);
                before.ends_with(['"', '/']) && (name.ends_with('-') || ends_word(rest))
            })
        };
        let used = |name: &&&str| {
            let mut uses = USES.iter().flat_map(|before| code.match_indices(before));
            uses.any(|(at, before)| {
                let rest = code[at + before.len()..].strip_prefix(**name);
                rest.is_some_and(|rest| name.ends_with('-') || ends_word(rest))
            })
        };
        let unmistakable = UNMISTAKABLE.iter().find(word);
        unmistakable.or_else(|| WORDS.iter().find(used)).copied()
    }

    #[test]
    fn no_other_source_spells_a_path_of_the_state_directory() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut files = Vec::new();
        sources(&root, &mut files);
        assert!(files.len() > 100, "{}", files.len());
        let mut wrong = Vec::new();
        for file in files {
            let name = file.strip_prefix(&root).unwrap().to_string_lossy();
            let outside = name.contains("/tests/") || name.starts_with("fuzz/");
            if outside || name == "lib/host/src/state_layout.rs" {
                continue;
            }
            let text = fs::read_to_string(&file).unwrap();
            for (number, line) in text.lines().enumerate().filter(|(_, it)| it.contains('"')) {
                let known = |other: &&(&str, &str)| name == other.0 && line.contains(other.1);
                if OTHERS.iter().any(|other| known(&other)) {
                    continue;
                }
                if let Some(spelled) = spelled(line) {
                    wrong.push(format!("{name}:{}: {spelled}", number + 1));
                }
            }
        }
        assert!(
            wrong.is_empty(),
            "take these from host::state_layout:\n{}",
            wrong.join("\n")
        );
    }

    #[test]
    fn a_spelled_path_is_found_in_every_way_to_use_one() {
        for line in [
            "const FOLDER: &str = \"jobs\";",
            "state.folder(\"gres\")",
            "dir.join(\"hugepages\").join(name)",
            "fs::read(state.join(\"hugepages/baseline.json\"))",
            "state.lock(\"setup.lock\", deadline)",
            "name.strip_prefix(\"job-\")",
            "format!(\"mps-{gpu}.json\")",
            "node.path(\"state/gres/watch.lock\")",
        ] {
            assert!(spelled(line).is_some(), "{line}");
        }
        for line in [
            "config.section(\"hugepages\")",
            "// in jobs/ of the state directory",
            "dir.join(\"logout.toml\")",
        ] {
            assert_eq!(spelled(line), None, "{line}");
        }
    }
}
