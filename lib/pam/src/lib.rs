//! libpam's C interface: the functions that the module calls.
//!
//! They are looked up in the host, which has libpam by definition, and not
//! linked: building needs no libpam for each target, and the module loads
//! wherever a libpam of any version is. The crate `pam-bindings` links it,
//! and lacks `pam_putenv`; see docs/logout.md.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{self, NonNull};

/// What an entry point returns to libpam; `security/_pam_types.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Verdict {
    /// Yes.
    Success = 0,
    /// No.
    PermissionDenied = 6,
    /// The session cannot be opened.
    SessionError = 14,
    /// This module has no opinion.
    Ignore = 25,
}

/// `PAM_SILENT`: no messages to the user.
pub const SILENT: c_int = 0x8000;

/// Items of `pam_get_item`.
#[derive(Debug, Clone, Copy)]
#[repr(i32)]
pub enum Item {
    /// `PAM_SERVICE`
    Service = 1,
    /// `PAM_USER`
    User = 2,
    /// `PAM_TTY`
    Tty = 3,
    /// `PAM_RHOST`
    RemoteHost = 4,
}

const CONVERSATION: c_int = 5;
const ERROR_MSG: c_int = 3;

/// Longest item that is read, in bytes.
const LONGEST: usize = 4096;

#[repr(C)]
struct Message {
    style: c_int,
    text: *const c_char,
}

#[repr(C)]
struct Response {
    text: *mut c_char,
    code: c_int,
}

#[repr(C)]
struct Conversation {
    call: Option<
        unsafe extern "C" fn(c_int, *mut *const Message, *mut *mut Response, *mut c_void) -> c_int,
    >,
    data: *mut c_void,
}

type GetItem = unsafe extern "C" fn(*const c_void, c_int, *mut *const c_void) -> c_int;
type PutEnv = unsafe extern "C" fn(*mut c_void, *const c_char) -> c_int;

/// A PAM transaction, for the duration of one call of an entry point.
#[derive(Debug)]
pub struct Handle(NonNull<c_void>);

impl Handle {
    /// The handle that libpam gave an entry point; `None` if it is null.
    ///
    /// # Safety
    /// `raw` is null or libpam's handle, and used only during the entry
    /// point's call, by this thread.
    #[must_use]
    pub unsafe fn new(raw: *mut c_void) -> Option<Self> {
        NonNull::new(raw).map(Self)
    }

    /// An item as text; bytes that are not UTF-8 are replaced. `None` if it is
    /// not set, is absurdly long, or libpam has none.
    #[must_use]
    pub fn item(&self, item: Item) -> Option<String> {
        let value = self.raw_item(item as c_int)?;
        bounded(value.cast())
    }

    fn raw_item(&self, item: c_int) -> Option<*const c_void> {
        let symbol = symbol(c"pam_get_item")?;
        // SAFETY: libpam exports this function with this type (pam_get_item(3)).
        let get_item = unsafe { std::mem::transmute::<*mut c_void, GetItem>(symbol) };
        let mut value: *const c_void = ptr::null();
        // SAFETY: the handle is libpam's, and `value` is writable for the call;
        // the item stays libpam's and is only read.
        let code = unsafe { get_item(self.0.as_ptr(), item, &raw mut value) };
        (code == 0 && !value.is_null()).then_some(value)
    }

    /// Sets a variable of the session's environment; whether it was set.
    pub fn putenv(&self, name: &str, value: &str) -> bool {
        let Ok(pair) = CString::new(format!("{name}={value}")) else {
            return false;
        };
        let Some(symbol) = symbol(c"pam_putenv") else {
            return false;
        };
        // SAFETY: libpam exports this function with this type (pam_putenv(3)).
        let putenv = unsafe { std::mem::transmute::<*mut c_void, PutEnv>(symbol) };
        // SAFETY: the handle is libpam's; it copies the pair.
        unsafe { putenv(self.0.as_ptr(), pair.as_ptr()) == 0 }
    }

    /// Tells the user, through the program that asks for the login; one line
    /// each, since some programs show the first line only.
    pub fn tell(&self, text: &str) {
        for line in text.lines() {
            self.tell_line(line);
        }
    }

    fn tell_line(&self, line: &str) {
        let Some(conversation) = self.raw_item(CONVERSATION) else {
            return;
        };
        // SAFETY: PAM_CONV is a `struct pam_conv` that outlives this call
        // (pam_conv(3)).
        let conversation = unsafe { &*conversation.cast::<Conversation>() };
        let (Some(call), Ok(line)) = (conversation.call, CString::new(line)) else {
            return;
        };
        let message = Message {
            style: ERROR_MSG,
            text: line.as_ptr(),
        };
        let mut messages: *const Message = &raw const message;
        let mut responses: *mut Response = ptr::null_mut();
        // SAFETY: one message, as announced; all pointers are valid during the
        // call, and `data` is what the program wants to get back.
        let code = unsafe { call(1, &raw mut messages, &raw mut responses, conversation.data) };
        let Some(response) = NonNull::new(responses).filter(|_| code == 0) else {
            return;
        };
        // SAFETY: after success, the program has left an array of one response,
        // made by malloc, to us (pam_conv(3)).
        let text = unsafe { response.as_ref() }.text;
        // SAFETY: null or from malloc, and ours.
        unsafe { libc::free(text.cast()) };
        // SAFETY: as above.
        unsafe { libc::free(response.as_ptr().cast()) };
    }
}

/// A C string of libpam as text, if it is not absurdly long.
fn bounded(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: libpam's strings end in NUL, before which strnlen stops.
    let length = unsafe { libc::strnlen(text, LONGEST) };
    if length == LONGEST {
        return None;
    }
    // SAFETY: strnlen has seen this many bytes before the NUL.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), length) };
    Some(String::from_utf8_lossy(bytes).into_owned())
}

/// A function of the libpam that has called us.
fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: a C string; the result is null or an address.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if !found.is_null() {
        return Some(found);
    }
    // A program such as an interpreter may have loaded libpam for itself only.
    let flags = libc::RTLD_NOLOAD | libc::RTLD_LAZY;
    // SAFETY: with RTLD_NOLOAD nothing is loaded; libpam is there already and
    // stays, since it is calling us.
    let library = unsafe { libc::dlopen(c"libpam.so.0".as_ptr(), flags) };
    if library.is_null() {
        return None;
    }
    // SAFETY: as above.
    let found = unsafe { libc::dlsym(library, name.as_ptr()) };
    // SAFETY: gives back what dlopen counted; the library stays loaded.
    unsafe { libc::dlclose(library) };
    (!found.is_null()).then_some(found)
}

/// Writes to the system's log, as pam_syslog(3) does.
pub fn log(level: c_int, text: &str) {
    let Ok(text) = CString::new(format!("pam_slurm_logout: {text}").replace('\0', "?")) else {
        return;
    };
    // SAFETY: the format takes one C string.
    unsafe { libc::syslog(libc::LOG_AUTHPRIV | level, c"%s".as_ptr(), text.as_ptr()) };
}
