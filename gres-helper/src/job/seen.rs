//! What this boot saw of its GPUs: which there are, and their XID errors.

use gpu::settings::Settings;
use gpu::shares;
use host::BootId;
use host::Deadline;
use host::printable;
use host::state_dir::{StateDir, Store};
use host::state_layout::gres::SEEN;
use serde::{Deserialize, Serialize};

use super::tier::LOCK_LIMIT;

/// XID errors that are kept.
const MOST_XIDS: usize = 256;

/// What this boot saw of its GPUs.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Seen {
    pub(super) boot: Option<BootId>,
    pub(super) uuids: Vec<String>,
    /// XID errors: UUID and number.
    #[serde(default)]
    pub xids: Vec<(String, u64)>,
}

/// What this boot saw; nothing where the file is another boot's or torn.
#[must_use]
pub fn seen(state: &StateDir) -> Seen {
    let bytes = state.read(SEEN).ok().flatten().unwrap_or_default();
    let seen: Seen = serde_json::from_slice(&bytes).unwrap_or_default();
    match BootId::current() {
        Ok(boot) if seen.boot.as_ref() == Some(&boot) => seen,
        boot => Seen {
            boot: boot.ok(),
            ..Seen::default()
        },
    }
}

/// Keeps what was seen; the lock is the caller's.
pub(super) fn keep_seen(state: &mut StateDir, seen: &Seen) {
    if let Ok(bytes) = serde_json::to_vec(seen) {
        // Without it, the next look is a first one.
        let _ = state.write(SEEN, &bytes);
    }
}

/// Takes note of XID errors.
///
/// # Errors
/// The lock is held for too long.
pub fn note_xids(state: &mut StateDir, xids: &[(String, u64)]) -> Result<(), String> {
    let lock = state.lock(shares::LOCK, Deadline::after(LOCK_LIMIT));
    let _lock = lock.map_err(|error| error.to_string())?;
    let mut seen = seen(state);
    for xid in xids {
        if seen.xids.len() < MOST_XIDS && !seen.xids.contains(xid) {
            seen.xids.push(xid.clone());
        }
    }
    keep_seen(state, &seen);
    Ok(())
}

/// Forgets XID errors, of one GPU or of all, after an administrator has reset it.
///
/// # Errors
/// They cannot be read or written, or the lock is held for too long.
pub fn forget_xids(settings: &Settings, gpu: Option<&str>) -> Result<(), String> {
    let mut state = settings.state()?;
    let lock = state.lock(shares::LOCK, Deadline::after(LOCK_LIMIT));
    let _lock = lock.map_err(|error| error.to_string())?;
    let mut seen = seen(&state);
    let before = seen.xids.len();
    seen.xids
        .retain(|(uuid, _)| gpu.is_some_and(|gpu| gpu != uuid));
    if let (Some(gpu), true) = (gpu, seen.xids.len() == before) {
        return Err(format!("no XID errors of {} are noted", printable(gpu, 80)));
    }
    let bytes = serde_json::to_vec(&seen).map_err(|error| error.to_string())?;
    state.write(SEEN, &bytes).map_err(|error| error.to_string())
}
