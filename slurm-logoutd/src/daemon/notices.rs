//! Who was warned, and the deadline: kept in files, so that they survive the
//! daemon.

use std::collections::BTreeMap;

use host::state_dir::{StateDir, StateError, Store};
use host::state_layout::login::NOTICES;
use host::{BootId, Uid};
use logins::clock::BootTime;
use logins::policy::Notice;
use logins::session::Session;
use serde::{Deserialize, Serialize};

/// A user's notice, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NoticeRecord {
    pub(super) boot: BootId,
    pub(super) uid: Uid,
    pub(crate) notice: Notice,
    /// Given by a dry run, which told nobody.
    #[serde(default)]
    pub(super) dry: bool,
    /// When the user was seen with a job last.
    #[serde(default)]
    pub(crate) had_job: Option<BootTime>,
}

pub(super) fn notice_name(uid: Uid) -> String {
    format!("{uid}.json")
}

/// Whether a notice still holds for these sessions of a user without a job:
/// one that it told is there, and no later one had a job, which would have
/// cancelled it while no daemon looked.
pub(super) fn holds(notice: Notice, sessions: &[Session]) -> bool {
    let later = |it: &Session| it.opened > notice.since;
    let had_job = |it: &Session| later(it) && !it.jobs.is_empty();
    !sessions.iter().all(later) && !sessions.iter().any(had_job)
}

/// By uid: what was said, and when a job was seen last.
pub(super) type Earlier = (BTreeMap<Uid, Notice>, BTreeMap<Uid, BootTime>);

/// The notices of this boot; the others are removed, and so are those of a dry
/// run, of which no user knows, unless this is one.
pub(super) fn read_notices(
    dir: &mut StateDir,
    boot: &BootId,
    dry_run: bool,
) -> Result<Earlier, StateError> {
    let mut notices = BTreeMap::new();
    let mut had_job = BTreeMap::new();
    for name in dir.names()? {
        let kept = dir.read(&name)?;
        let kept = kept.and_then(|bytes| serde_json::from_slice::<NoticeRecord>(&bytes).ok());
        match kept {
            Some(kept) if kept.boot == *boot && name == notice_name(kept.uid) => {
                had_job.extend(kept.had_job.map(|then| (kept.uid, then)));
                if kept.dry && !dry_run {
                    dir.remove(&name)?;
                } else {
                    notices.insert(kept.uid, kept.notice);
                }
            }
            _ => dir.remove(&name)?,
        }
    }
    Ok((notices, had_job))
}

/// The notices that are in force, for `slurm-logout status`.
///
/// # Errors
/// They cannot be read.
pub(crate) fn kept(state: &StateDir) -> Result<BTreeMap<Uid, NoticeRecord>, StateError> {
    let mut notices = BTreeMap::new();
    let Some(dir) = state.existing_folder(NOTICES)? else {
        return Ok(notices);
    };
    for name in dir.names()? {
        let kept = dir.read(&name)?;
        if let Some(kept) =
            kept.and_then(|bytes| serde_json::from_slice::<NoticeRecord>(&bytes).ok())
        {
            notices.insert(kept.uid, kept);
        }
    }
    Ok(notices)
}
