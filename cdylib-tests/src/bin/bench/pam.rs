//! A program that logs in through the machine's libpam, many times in one
//! process: what a module costs, and whether it leaves something behind.

use cdylib_tests::statistics::median;
use std::ffi::{CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::time::Instant;

use crate::Outcome;

#[repr(C)]
struct Conversation {
    call: unsafe extern "C" fn(c_int, *const c_void, *mut *mut c_void, *mut c_void) -> c_int,
    data: *mut c_void,
}

/// Nobody listens.
unsafe extern "C" fn deaf(
    _: c_int,
    _: *const c_void,
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

/// Prints `account open close` in microseconds, medians, then what the process
/// has grown by: descriptors, and KiB of memory.
///
/// # Errors
/// When libpam has no `pam_start_confdir`, or a login is refused.
pub fn run(confdir: &Path, service: &str, user: &str, rounds: u32) -> Outcome {
    // SAFETY: a C string; libpam has no constructor that matters.
    let library =
        unsafe { libc::dlopen(c"libpam.so.0".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if library.is_null() {
        return Err("libpam.so.0 cannot be loaded".into());
    }
    let symbol = |name: &std::ffi::CStr| {
        // SAFETY: the library is open and the name is a C string.
        let found = unsafe { libc::dlsym(library, name.as_ptr()) };
        (!found.is_null())
            .then_some(found)
            .ok_or_else(|| format!("libpam has no {}", name.to_string_lossy()))
    };
    let start = symbol(c"pam_start_confdir")?;
    // SAFETY: libpam exports this function with this type (pam_start(3)).
    let start = unsafe { std::mem::transmute::<*mut c_void, Start>(start) };
    let phase = |name| -> Result<Phase, String> {
        let found = symbol(name)?;
        // SAFETY: these functions of libpam all have this type.
        Ok(unsafe { std::mem::transmute::<*mut c_void, Phase>(found) })
    };
    let (account, end) = (phase(c"pam_acct_mgmt")?, phase(c"pam_end")?);
    let (open, close) = (phase(c"pam_open_session")?, phase(c"pam_close_session")?);
    let (service, user) = (CString::new(service)?, CString::new(user)?);
    let confdir = CString::new(confdir.as_os_str().as_bytes())?;
    let conversation = Conversation {
        call: deaf,
        data: ptr::null_mut(),
    };
    // Filled now, so that it does not count as grown.
    let mut times = [0; 3].map(|_| vec![f64::NAN; rounds as usize]);
    let mut before = (0, 0);
    for round in 0..rounds {
        let mut handle = ptr::null_mut();
        // SAFETY: all pointers are valid, and outlive the handle.
        let code = unsafe {
            start(
                service.as_ptr(),
                user.as_ptr(),
                &raw const conversation,
                confdir.as_ptr(),
                &raw mut handle,
            )
        };
        if code != 0 {
            return Err(format!("pam_start_confdir: {code}").into());
        }
        for (index, call) in [account, open, close].into_iter().enumerate() {
            let begun = Instant::now();
            // SAFETY: the handle is libpam's, from pam_start_confdir.
            let code = unsafe { call(handle, 0) };
            times[index][round as usize] = begun.elapsed().as_secs_f64() * 1e6;
            if code != 0 {
                return Err(format!("phase {index}: PAM's code {code}").into());
            }
        }
        // SAFETY: as above; it is not used again.
        unsafe { end(handle, 0) };
        // The first rounds fill caches of the C library.
        if round == rounds / 4 {
            before = held()?;
        }
    }
    let after = held()?;
    println!(
        "{} {} {} {} {}",
        median(&times[0]),
        median(&times[1]),
        median(&times[2]),
        after.0 - before.0,
        after.1 - before.1
    );
    Ok(())
}

/// Descriptors, and resident memory in KiB.
fn held() -> Outcome<(i64, i64)> {
    let fds = i64::try_from(std::fs::read_dir("/proc/self/fd")?.count())?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    Ok((fds, kib.ok_or("no VmRSS")?))
}
