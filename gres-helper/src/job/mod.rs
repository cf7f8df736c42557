//! `prolog`, `epilog` and `fence`: what is done for a job.
//!
//! Failure direction: only a GPU that is not fit for any job is a failure of
//! the prolog or epilog, since that drains the node. What this job's share
//! lacks is written into its record, and the plugin tells its user.

mod epilog;
mod fence;
mod look;
mod prolog;
mod seen;
mod tier;

pub use epilog::{epilog, owner};
pub use fence::fence;
pub use look::{Outcome, look};
pub use prolog::prolog;
pub use seen::{Seen, forget_xids, note_xids, seen};
pub use tier::wanted_tier;
