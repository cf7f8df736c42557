//! MIG: plan → snapshot → apply → verify, and back to the snapshot whenever
//! any of it fails.
//!
//! A change of the mode (which may need a reset) and a change of the layout
//! are separate steps. A layout is changed only on a GPU without processes.

mod apply;
mod layout;
mod plan;
mod snapshot;
pub mod spec;

pub use apply::{Applied, apply, bring};
pub use layout::{Cell, Layout, Slot, devices, layout, words};
pub use plan::{Plan, Step, busy, plan};
pub use snapshot::{back, close, keep};
