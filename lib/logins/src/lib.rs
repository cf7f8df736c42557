//! Logins of users on a compute node: their sessions, the jobs that they depend
//! on, when a session has to end, and how it is ended.
//!
//! Facts come from [`user_jobs`] (registry and slurmstepd sockets), [`session`]
//! (the records that the PAM module writes) and [`process`] (`/proc`). What to
//! do with them is decided in [`policy`], which has neither clock nor effects;
//! [`end`] sends signals and [`terminal`] speaks to terminals.
//!
//! Failure direction: an error in looking for jobs never ends a session. At
//! login it is the site's choice (`on_error`), but root and exempt users get
//! in whatever fails.

pub mod clock;
pub mod group;
pub mod idle;
pub mod killall;
pub mod membership;
pub mod module_arguments;
pub mod policy;
pub mod process;
pub mod session;
pub mod settings;
pub mod terminate;
pub mod tty;
pub mod user_jobs;
pub mod userns;
