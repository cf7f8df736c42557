//! `/etc/slurm-efa/slurm-efa.toml`.
//!
//! The file decides what root does and what every job gets, so it is read only
//! where [`host::trust`] believes it. A symbolic link on the way, such as
//! HyperPod's `/opt/slurm`, is followed under the same rule.

#![forbid(unsafe_code)]

mod error;
mod file;
mod keys;
mod old_spelling;
mod problems;
pub mod reference;
pub mod sections;
mod source;
pub mod values;

pub use error::ConfigError;
pub use file::{Config, DEFAULT_PATH, DEFAULT_STATE_DIR, MissingIs, examine, examine_text, parse};
pub use old_spelling::Warning;
pub use sections::profile::{Memlock, ProfileConfig};
pub use sections::top_level::Harmful;
pub use values::size;
