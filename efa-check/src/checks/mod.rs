//! Every check, as data, and how each judges what was seen. Nothing here reads
//! anything or knows the time.
//!
//! ```text
//! table.rs     every check: its name, severity, source, remedy
//! facts.rs     what a check may use
//! devices.rs, counters.rs, software.rs, limits.rs   how each judges
//! ```

mod counters;
mod date;
mod devices;
mod facts;
mod limits;
mod software;
mod table;

pub use facts::{CheckOutcome, Facts};
pub use findings::Severity;
pub use table::{CHECKS, Check, find, markdown};
