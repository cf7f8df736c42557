//! The counters of the EFA devices at a job's start, kept on disk for its end:
//! a file for each job, beside its record in the [registry](crate::registry).

use efa::counters::Snapshot;
use host::state_dir::{StateDir, StateError, Store};
use host::state_layout::job::{COUNTERS, RECORDS};
use slurm::JobKey;

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
}

/// Keeps the counters at a job's start. The job must have its record already:
/// counters of jobs without one are removed here.
///
/// # Errors
/// The job ends without knowing what it moved.
pub fn keep(state: &StateDir, key: &JobKey, counters: &Snapshot) -> Result<(), KeepError> {
    let text = counters.to_json()?;
    let folder = state.folder(COUNTERS)?;
    let held = folder.hold()?;
    // Another prolog's counters appear after its record, and only while nobody
    // else holds the folder: those without a record were left behind.
    let _ = held.sweep();
    if let Some(jobs) = state.existing_folder(RECORDS)? {
        for name in folder.names()? {
            if jobs.read(&name)?.is_none() {
                held.remove(&name)?;
            }
        }
    }
    held.write(&key.file_name(), text.as_bytes())?;
    Ok(())
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

/// Removes them; fine if there are none.
///
/// # Errors
/// They stay, until the next job's are kept.
pub fn forget(state: &StateDir, key: &JobKey) -> Result<(), StateError> {
    match state.existing_folder(COUNTERS)? {
        Some(folder) => folder.hold()?.remove(&key.file_name()),
        None => Ok(()),
    }
}
