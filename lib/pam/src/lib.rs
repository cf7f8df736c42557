//! What the PAM module says to libpam.
//!
//! Hooks, handle, items and conversation are those of the crate
//! [`pam_bindings`]; what it lacks is here: the session's environment, items as
//! bounded text, messages of several lines, and the system's log.
//!
//! The module is linked against a stub of libpam (`build.rs`) and runs with the
//! libpam that loads it.

use std::ffi::{CStr, CString, c_char, c_int};

pub use pam_bindings::constants::{PAM_SILENT, PamFlag, PamResultCode};
pub use pam_bindings::items::{RHost, Service, Tty, User};
pub use pam_bindings::module::{PamHandle, PamHooks};
pub use pam_bindings::pam_hooks;

use pam_bindings::constants::PAM_ERROR_MSG;
use pam_bindings::conv::Conv;
use pam_bindings::items::Item;

/// Longest item that is read, in bytes.
const LONGEST: usize = 4096;

unsafe extern "C" {
    fn pam_putenv(handle: *mut PamHandle, pair: *const c_char) -> c_int;
}

/// What a PAM transaction offers besides the methods of [`PamHandle`].
pub trait Transaction {
    /// An item as text; bytes that are not UTF-8 are replaced. `None` if it is
    /// not set, is absurdly long, or libpam refuses.
    fn text<'a, T>(&'a self) -> Option<String>
    where
        T: Item<'a> + std::ops::Deref<Target = &'a CStr>;

    /// Sets a variable of the session's environment; whether it was set.
    fn putenv(&mut self, name: &str, value: &str) -> bool;

    /// Sends the user a text through the program that asks for the login; one
    /// message for each line, since some programs show the first line only.
    fn tell(&self, text: &str);
}

impl Transaction for PamHandle {
    fn text<'a, T>(&'a self) -> Option<String>
    where
        T: Item<'a> + std::ops::Deref<Target = &'a CStr>,
    {
        let item: T = self.get_item().ok()??;
        (item.count_bytes() < LONGEST).then(|| item.to_string_lossy().into_owned())
    }

    fn putenv(&mut self, name: &str, value: &str) -> bool {
        let Ok(pair) = CString::new(format!("{name}={value}")) else {
            return false;
        };
        // SAFETY: the handle is libpam's, which copies the C string
        // (pam_putenv(3)).
        unsafe { pam_putenv(self, pair.as_ptr()) == 0 }
    }

    fn tell(&self, text: &str) {
        let Ok(Some(conversation)) = self.get_item::<Conv<'_>>() else {
            return;
        };
        for line in text.lines() {
            // A program that shows no messages is not a reason to do otherwise.
            let _ = conversation.send(PAM_ERROR_MSG, line);
        }
    }
}

/// Writes to the system's log, as pam_syslog(3) does.
pub fn log(level: c_int, text: &str) {
    let Ok(text) = CString::new(format!("pam_slurm_logout: {text}").replace('\0', "?")) else {
        return;
    };
    // SAFETY: the format takes one C string.
    unsafe { libc::syslog(libc::LOG_AUTHPRIV | level, c"%s".as_ptr(), text.as_ptr()) };
}
