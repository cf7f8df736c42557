//! A PAM module for tests: it writes its name to a file and answers what its
//! line says.
//!
//! `pam_answer.so FILE NAME CODE`

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where something is wrong with the line: an answer that no test gives.
const WRONG_LINE: c_int = 4;

fn answer(arguments: &[&CStr]) -> Option<c_int> {
    let [file, name, code, ..] = arguments else {
        return None;
    };
    let file = Path::new(std::ffi::OsStr::from_bytes(file.to_bytes()));
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(file)
        .ok()?;
    writeln!(file, "{}", name.to_str().ok()?).ok()?;
    code.to_str().ok()?.parse().ok()
}

/// # Safety
/// `argv` has `argc` C strings, as libpam promises its modules.
unsafe fn asked(argc: c_int, argv: *const *const c_char) -> c_int {
    let count = usize::try_from(argc).unwrap_or(0);
    let arguments: Vec<&CStr> = (0..count)
        .map(|index| {
            // SAFETY: the caller promises that many pointers.
            let pointer = unsafe { argv.add(index) };
            // SAFETY: as above.
            let argument = unsafe { *pointer };
            // SAFETY: each of them is a C string that lives as long as the call.
            unsafe { CStr::from_ptr(argument) }
        })
        .collect();
    answer(&arguments).unwrap_or(WRONG_LINE)
}

macro_rules! phases {
    ($($name:ident)*) => {$(
        /// # Safety
        /// As libpam calls it: `argv` has `argc` C strings.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            _handle: *mut c_void,
            _flags: c_int,
            argc: c_int,
            argv: *const *const c_char,
        ) -> c_int {
            // SAFETY: libpam gives `argc` C strings.
            unsafe { asked(argc, argv) }
        }
    )*};
}

phases! {
    pam_sm_authenticate pam_sm_setcred pam_sm_acct_mgmt pam_sm_chauthtok
    pam_sm_open_session pam_sm_close_session
}
