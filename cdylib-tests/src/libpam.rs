//! The machine's libpam, called as an application calls it: one transaction at
//! a time, over a folder of service files of the test's own (pam_start(3)).

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// What libpam answers where a stack succeeds (`PAM_SUCCESS`).
pub const SUCCESS: c_int = 0;

#[repr(C)]
struct Conversation {
    call: unsafe extern "C" fn(c_int, *const *const c_void, *mut *mut c_void, *mut c_void) -> c_int,
    data: *mut c_void,
}

/// Nobody answers a module's questions.
unsafe extern "C" fn deaf(
    _: c_int,
    _: *const *const c_void,
    _: *mut *mut c_void,
    _: *mut c_void,
) -> c_int {
    19 // PAM_CONV_ERR
}

type Start = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const Conversation,
    *const c_char,
    *mut *mut c_void,
) -> c_int;
type Phase = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;

/// Who else may use libpam's functions once it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Whatever is loaded later, as where the application links libpam.
    Global,
    /// Only who asks for them, as where an interpreter loads it.
    Local,
}

/// A loaded libpam.
#[derive(Debug)]
pub struct Libpam(*mut c_void);

impl Libpam {
    /// Loads it.
    ///
    /// # Errors
    /// This machine has none.
    pub fn load(scope: Scope) -> io::Result<Self> {
        let scope = match scope {
            Scope::Global => libc::RTLD_GLOBAL,
            Scope::Local => libc::RTLD_LOCAL,
        };
        // SAFETY: a C string; libpam's constructors have no requirement.
        let library = unsafe { libc::dlopen(c"libpam.so.0".as_ptr(), libc::RTLD_NOW | scope) };
        match library.is_null() {
            true => Err(io::Error::other("libpam.so.0 cannot be loaded")),
            false => Ok(Self(library)),
        }
    }

    fn symbol(&self, name: &CStr) -> io::Result<*mut c_void> {
        // SAFETY: an open library and a C string.
        let found = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        match found.is_null() {
            true => Err(io::Error::other(format!("libpam has no {name:?}"))),
            false => Ok(found),
        }
    }

    fn phase(&self, name: &CStr) -> io::Result<Phase> {
        let found = self.symbol(name)?;
        // SAFETY: libpam's phases and pam_end have this type.
        Ok(unsafe { std::mem::transmute::<*mut c_void, Phase>(found) })
    }

    /// Starts a transaction for this user over the files in `confdir`.
    ///
    /// # Errors
    /// libpam is older than 1.5 (no `pam_start_confdir`), or refuses.
    pub fn start(&self, confdir: &Path, service: &str, user: &str) -> io::Result<Transaction<'_>> {
        let start = self.symbol(c"pam_start_confdir")?;
        // SAFETY: libpam exports it with this type (pam_start(3)).
        let start = unsafe { std::mem::transmute::<*mut c_void, Start>(start) };
        let (service, user) = (CString::new(service)?, CString::new(user)?);
        let confdir = CString::new(confdir.as_os_str().as_bytes())?;
        let conversation = Box::new(Conversation {
            call: deaf,
            data: ptr::null_mut(),
        });
        let mut handle = ptr::null_mut();
        // SAFETY: all pointers are valid; libpam copies the strings and the
        // conversation.
        let code = unsafe {
            start(
                service.as_ptr(),
                user.as_ptr(),
                &raw const *conversation,
                confdir.as_ptr(),
                &raw mut handle,
            )
        };
        if code != SUCCESS {
            return Err(io::Error::other(format!(
                "pam_start_confdir: PAM's code {code}"
            )));
        }
        Ok(Transaction {
            libpam: self,
            handle,
            last: SUCCESS,
        })
    }
}

/// A transaction that has started; it ends when it is dropped.
#[derive(Debug)]
pub struct Transaction<'a> {
    libpam: &'a Libpam,
    handle: *mut c_void,
    last: c_int,
}

impl Transaction<'_> {
    /// Calls a phase, `pam_acct_mgmt` say, and returns PAM's code.
    ///
    /// # Errors
    /// libpam has no such function.
    pub fn call(&mut self, phase: &CStr, flags: c_int) -> io::Result<c_int> {
        let phase = self.libpam.phase(phase)?;
        // SAFETY: the handle of a transaction that has started.
        self.last = unsafe { phase(self.handle, flags) };
        Ok(self.last)
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if let Ok(end) = self.libpam.phase(c"pam_end") {
            // SAFETY: as above; the handle is not used again.
            unsafe { end(self.handle, self.last) };
        }
    }
}
