//! `watch`: what jobs take of their GPUs' memory against their shares.
//!
//! This sees and accounts; it protects nobody. A job that takes more than its
//! share has already done so when it is seen.

mod account;
mod daemon;
mod held;

pub use account::{Account, Taken, account, judge};
pub use daemon::{run, runs};
pub use held::{Held, Places, held};
