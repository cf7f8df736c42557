//! One file for each command, and what several of them need.

pub mod completions;
pub mod epilog;
pub mod fence;
pub mod for_job;
pub mod forget_xids;
pub mod generate;
pub mod machine;
pub mod metrics;
pub mod mig;
pub mod output;
pub mod place;
pub mod prolog;
pub mod shards;
pub mod status;
pub mod verify;
pub mod watch;
