//! PAM's service files (pam.d(5)): how libpam reads them, and which rules it
//! asks.
//!
//! - [`file`]: the text of one file, line by line.
//! - [`control`]: what a rule's control says to each answer of its module.
//! - [`chain`]: all rules of one phase, with the files that they include.
//! - [`flow`]: the walk of libpam over a chain, for given answers of the modules
//!   and for all that they could answer.
//!
//! Everything here is compared with the machine's libpam on generated stacks
//! (`cdylib-tests/tests/pam-slurm-logout/stacks.rs`); it agrees with Linux-PAM
//! 1.5.2. Nothing here loads libpam or a module.

pub mod chain;
pub mod control;
pub mod file;
pub mod flow;

/// What PAM asks a module for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Who is it?
    Auth,
    /// May they log in?
    Account,
    /// A new password.
    Password,
    /// Before and after.
    Session,
}

impl Phase {
    /// Its name in a file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Account => "account",
            Self::Password => "password",
            Self::Session => "session",
        }
    }
}
