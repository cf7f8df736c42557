//! The counters of the EFA devices at a job's start, kept on disk for its end.
//!
//! They are a part of the job's record with a file of their own: 32 devices'
//! counters are larger than everything else that is known of a job, and logins
//! and steps read the record. The file is written and removed under the
//! registry's lock only, and only for the start that has the record.

use std::time::Duration;

use efa::counters::Snapshot;
use host::Deadline;
use host::state_dir::{Held, StateDir, StateError, Store};
use host::state_layout::job::COUNTERS;
use slurm::JobKey;

/// How soon a reading that is not there yet is looked for again.
const POLL: Duration = Duration::from_millis(2);

/// Why a job's counters were not kept, or cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeepError {
    /// The file or its folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its content.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// This start of the job has no record.
    #[error("the job has no record, or started again")]
    NoRecord,
}

/// Writes them, under the registry's lock.
pub(crate) fn write(
    _: &Held<'_>,
    state: &StateDir,
    key: &JobKey,
    counters: &Snapshot,
) -> Result<(), KeepError> {
    let mut folder = state.folder(COUNTERS)?;
    Ok(folder.write(&key.file_name(), counters.to_json()?.as_bytes())?)
}

/// The counters at the job's start; `None` where none were kept.
///
/// # Errors
/// There are some, which cannot be read.
pub fn kept(state: &StateDir, key: &JobKey) -> Result<Option<Snapshot>, KeepError> {
    let Some(folder) = state.existing_folder(COUNTERS)? else {
        return Ok(None);
    };
    let Some(bytes) = folder.read(&key.file_name())? else {
        return Ok(None);
    };
    Ok(Some(Snapshot::from_json(&String::from_utf8_lossy(&bytes))?))
}

/// As [`kept`], for a job whose prolog has started the reading: waits for its
/// end, until `deadline`.
///
/// # Errors
/// As [`kept`].
pub fn kept_by(
    state: &StateDir,
    key: &JobKey,
    deadline: Deadline,
) -> Result<Option<Snapshot>, KeepError> {
    loop {
        let found = kept(state, key)?;
        let left = deadline.left();
        if found.is_some() || left.is_zero() {
            return Ok(found);
        }
        std::thread::sleep(left.min(POLL));
    }
}

/// Removes them, under the registry's lock; fine if there are none.
pub(crate) fn forget(_: &Held<'_>, state: &StateDir, key: &JobKey) -> Result<(), StateError> {
    match state.existing_folder(COUNTERS)? {
        Some(mut folder) => folder.remove(&key.file_name()),
        None => Ok(()),
    }
}

/// Removes those of the files that are orphans, under the registry's lock.
pub(crate) fn remove_orphans(
    _: &Held<'_>,
    state: &StateDir,
    is_orphan: impl Fn(&str) -> Result<bool, StateError>,
) -> Result<(), StateError> {
    let Some(mut folder) = state.existing_folder(COUNTERS)? else {
        return Ok(());
    };
    folder.sweep()?;
    for name in folder.names()? {
        if is_orphan(&name)? {
            folder.remove(&name)?;
        }
    }
    Ok(())
}
