//! `pam_slurm_logout.so`, `slurm-logoutd` and `slurm-logout`: logins on a
//! compute node end when the user's jobs do.
//!
//! | who runs it | what |
//! |---|---|
//! | sshd, as root | [`pam`]: admits or refuses a login, records it |
//! | root's daemon | [`daemon`]: watches, warns, ends |
//! | an administrator | the command `slurm-logout`, with [`report`] |
//!
//! Facts come from [`jobs`] (registry and slurmstepd sockets), [`session`]
//! (the records that the module writes) and [`process`] (`/proc`). What to do
//! with them is decided in [`policy`], which has neither clock nor effects;
//! whose a process is, in [`membership`];
//! [`end`] sends signals and [`terminal`] speaks to terminals.
//!
//! Failure direction: an error in looking for jobs never ends a session. At
//! login it is the site's choice (`on_error`), but root and exempt users get
//! in whatever fails.

pub mod activity;
pub mod clock;
pub mod daemon;
pub mod end;
pub mod group;
pub mod jobs;
pub mod killall;
pub mod membership;
pub mod pam;
pub mod policy;
pub mod process;
pub mod report;
pub mod session;
pub mod settings;
pub mod terminal;
pub mod userns;
