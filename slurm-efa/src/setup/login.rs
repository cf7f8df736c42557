//! Would PAM let a user in? Asked of libpam itself, in a process of its own,
//! since a module may hang, crash or end it.
//!
//! Only the account phase is asked: opening a session has effects (homes are
//! made, scripts run), and our line there is `optional`, so it cannot refuse.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;

use super::run;

/// The hidden command; see [`child`].
pub const COMMAND: &str = "pam-check";

/// `PAM_SUCCESS` of Linux-PAM.
const SUCCESS: c_int = 0;
/// `PAM_CONV_ERR`.
const CONV_ERR: c_int = 19;
/// `PAM_TTY`, which sshd sets to `ssh`.
const TTY: c_int = 3;
/// `PAM_RHOST`.
const RHOST: c_int = 4;
/// `PAM_SILENT`.
const SILENT: c_int = 0x8000;

/// What libpam says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They may log in.
    Admitted,
    /// They may not; PAM's number.
    Refused(i32),
    /// This libpam cannot read a stack from another folder (before 1.4).
    NoOtherFolder,
    /// It could not be asked.
    Unknown,
}

/// Asks whether `user` would be admitted by the stack `service` in `folder`, or
/// the system's.
#[must_use]
pub fn ask(service: &str, user: &str, folder: Option<&Path>) -> Verdict {
    let Ok(program) = std::env::current_exe() else {
        return Verdict::Unknown;
    };
    let folder = folder.map(|it| it.to_string_lossy().into_owned());
    let mut arguments = vec![COMMAND, service, user];
    arguments.extend(folder.as_deref());
    match run::run(&program, &arguments)
        .ok()
        .and_then(|ran| ran.status?.code())
    {
        Some(0) => Verdict::Admitted,
        Some(NO_FOLDER) => Verdict::NoOtherFolder,
        Some(code) if (FIRST..NO_FOLDER).contains(&code) => Verdict::Refused(code - FIRST),
        _ => Verdict::Unknown,
    }
}

/// Exit codes of the child: this and PAM's number, which is below 64.
const FIRST: i32 = 100;
const NO_FOLDER: i32 = 200;
const FAILED: i32 = 201;

type Conversation =
    unsafe extern "C" fn(c_int, *mut *const c_void, *mut *mut c_void, *mut c_void) -> c_int;

/// `struct pam_conv` of Linux-PAM.
#[repr(C)]
struct Conv {
    conv: Conversation,
    appdata: *mut c_void,
}

/// Nobody is there to be asked or told.
unsafe extern "C" fn nobody(
    _: c_int,
    _: *mut *const c_void,
    _: *mut *mut c_void,
    _: *mut c_void,
) -> c_int {
    CONV_ERR
}

type Start =
    unsafe extern "C" fn(*const c_char, *const c_char, *const Conv, *mut *mut c_void) -> c_int;
type StartConfdir = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    *const Conv,
    *const c_char,
    *mut *mut c_void,
) -> c_int;
type SetItem = unsafe extern "C" fn(*mut c_void, c_int, *const c_void) -> c_int;
type Act = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;

/// The child's part: `pam-check SERVICE USER [FOLDER]`. Its exit code.
#[must_use]
pub fn child(service: &str, user: &str, folder: Option<&str>) -> i32 {
    let text = |it: &str| CString::new(it).ok();
    let (Some(service), Some(user)) = (text(service), text(user)) else {
        return FAILED;
    };
    // SAFETY: dlopen takes a terminated string; libpam's constructors are run
    // in a process that does nothing else.
    let library = unsafe { libc::dlopen(c"libpam.so.0".as_ptr(), libc::RTLD_NOW) };
    if library.is_null() {
        return FAILED;
    }
    let conv = Conv {
        conv: nobody,
        appdata: ptr::null_mut(),
    };
    let mut handle: *mut c_void = ptr::null_mut();
    let started = match folder {
        None => {
            let Some(start) = symbol(library, c"pam_start") else {
                return FAILED;
            };
            // SAFETY: pam_start(3) has this type; a data pointer and a function
            // pointer have one size on Linux.
            let start = unsafe { std::mem::transmute::<*mut c_void, Start>(start) };
            // SAFETY: the strings are terminated, and they and `conv` outlive
            // the handle, which is never used after this function.
            unsafe {
                start(
                    service.as_ptr(),
                    user.as_ptr(),
                    &raw const conv,
                    &raw mut handle,
                )
            }
        }
        Some(folder) => {
            let Some(start) = symbol(library, c"pam_start_confdir") else {
                return NO_FOLDER;
            };
            let Some(folder) = text(folder) else {
                return FAILED;
            };
            // SAFETY: pam_start_confdir(3) has this type; as above.
            let start = unsafe { std::mem::transmute::<*mut c_void, StartConfdir>(start) };
            // SAFETY: as pam_start; the folder's name is copied by libpam.
            unsafe {
                start(
                    service.as_ptr(),
                    user.as_ptr(),
                    &raw const conv,
                    folder.as_ptr(),
                    &raw mut handle,
                )
            }
        }
    };
    if started != SUCCESS || handle.is_null() {
        return FIRST + started.clamp(1, 63);
    }
    let (Some(set_item), Some(account)) = (
        symbol(library, c"pam_set_item"),
        symbol(library, c"pam_acct_mgmt"),
    ) else {
        return FAILED;
    };
    // SAFETY: pam_set_item(3) has this type; as above.
    let set_item = unsafe { std::mem::transmute::<*mut c_void, SetItem>(set_item) };
    // SAFETY: pam_acct_mgmt(3) has this type; as above.
    let account = unsafe { std::mem::transmute::<*mut c_void, Act>(account) };
    for (item, value) in [(TTY, c"ssh"), (RHOST, c"localhost")] {
        // SAFETY: the handle is live, and libpam copies the terminated string.
        unsafe { set_item(handle, item, value.as_ptr().cast()) };
    }
    // SAFETY: the handle is live. It is not ended: the process is about to be.
    let verdict = unsafe { account(handle, SILENT) };
    if verdict == SUCCESS {
        0
    } else {
        FIRST + verdict.clamp(1, 63)
    }
}

fn symbol(library: *mut c_void, name: &CStr) -> Option<*mut c_void> {
    // SAFETY: `library` was opened and is never closed; the name is terminated.
    let found = unsafe { libc::dlsym(library, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// The hidden command that asks NVML; see [`nvml_child`].
pub const NVML: &str = "nvml-check";

/// Loads NVIDIA's library and lets it look for its driver. The exit code: 0,
/// NVML's number, [`NO_LIBRARY`].
#[must_use]
pub fn nvml_child() -> i32 {
    // SAFETY: dlopen takes a terminated string; the library's constructors run
    // in a process that does nothing else.
    let library = unsafe { libc::dlopen(c"libnvidia-ml.so.1".as_ptr(), libc::RTLD_NOW) };
    if library.is_null() {
        return NO_LIBRARY;
    }
    let Some(init) = symbol(library, c"nvmlInit_v2") else {
        return NO_LIBRARY;
    };
    // SAFETY: nvmlInit_v2 takes nothing and returns an int (NVML's reference).
    let init = unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> c_int>(init) };
    // SAFETY: it may be called at any time.
    let result = unsafe { init() };
    result.clamp(0, 99)
}

/// There is no libnvidia-ml.so.1.
pub const NO_LIBRARY: i32 = 100;
