//! The PAM module in the machine's libpam, without sshd: a stack from a private
//! directory, run by this process.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs;
use std::path::Path;
use std::ptr;

use cdylib_tests::modules;

type Conversation =
    extern "C" fn(c_int, *const *const c_void, *mut *mut c_void, *mut c_void) -> c_int;

#[repr(C)]
struct Conv {
    call: Option<Conversation>,
    data: *mut c_void,
}

extern "C" fn silent(
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
    *const Conv,
    *const c_char,
    *mut *mut c_void,
) -> c_int;
type Phase = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;

const SUCCESS: c_int = 0;
const MODULE_UNKNOWN: c_int = 28;

/// libpam, loaded for this program's own use only, as an interpreter does: its
/// functions are not among those that the loader offers to later objects.
struct Libpam(*mut c_void);

impl Libpam {
    fn load() -> Self {
        let flags = libc::RTLD_NOW | libc::RTLD_LOCAL;
        // SAFETY: a C string; libpam's constructors have no requirement.
        let library = unsafe { libc::dlopen(c"libpam.so.0".as_ptr(), flags) };
        assert!(!library.is_null(), "this machine has no libpam");
        // SAFETY: a C string; the result is null or an address.
        let seen = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"pam_get_item".as_ptr()) };
        assert!(seen.is_null(), "this program must not link libpam");
        Self(library)
    }

    fn symbol(&self, name: &CStr) -> *mut c_void {
        // SAFETY: an open library and a C string.
        let found = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        assert!(!found.is_null(), "{name:?}");
        found
    }

    /// What libpam answers for `user` in the phase of this function, where the
    /// stack is this one line.
    fn answer(&self, line: &str, user: &CStr, phase: &CStr, flags: c_int) -> c_int {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("service"), format!("{line}\n")).unwrap();
        let conv = Conv {
            call: Some(silent),
            data: ptr::null_mut(),
        };
        let place = CString::new(folder.path().to_str().unwrap()).unwrap();
        let mut handle = ptr::null_mut();
        let start = self.symbol(c"pam_start_confdir");
        // SAFETY: libpam exports it with this type (pam_start(3)).
        let start = unsafe { std::mem::transmute::<*mut c_void, Start>(start) };
        // SAFETY: C strings and a conversation that outlive the transaction.
        let code = unsafe {
            start(
                c"service".as_ptr(),
                user.as_ptr(),
                &raw const conv,
                place.as_ptr(),
                &raw mut handle,
            )
        };
        assert_eq!(code, SUCCESS, "pam_start_confdir");
        let call = |name: &CStr, argument: c_int| {
            // SAFETY: libpam's phases and pam_end have this type.
            let call = unsafe { std::mem::transmute::<*mut c_void, Phase>(self.symbol(name)) };
            // SAFETY: the handle of a transaction that has started.
            unsafe { call(handle, argument) }
        };
        let answer = call(phase, flags);
        assert_eq!(call(c"pam_end", answer), SUCCESS);
        answer
    }
}

/// A configuration of this test's own, and the module with it.
fn module(folder: &Path) -> String {
    let config = folder.join("slurm-efa.toml");
    let state = folder.join("state");
    fs::write(&config, format!("state_dir = {state:?}\n")).unwrap();
    let module = modules::pam_module();
    format!("{} config={}", module.display(), config.display())
}

#[test]
fn the_module_loads_into_a_program_that_keeps_libpam_to_itself() {
    let folder = tempfile::tempdir().unwrap();
    let line = format!("account required {}", module(folder.path()));
    let answer = Libpam::load().answer(&line, c"root", c"pam_acct_mgmt", 0);
    assert_eq!(answer, SUCCESS);
}

#[test]
fn a_line_of_a_type_that_the_module_lacks_is_answered_as_for_a_file_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let module = module(folder.path());
    // Any shared object without PAM's functions.
    let without = modules::mock_nvml();
    let libpam = Libpam::load();
    const ESTABLISH_CRED: c_int = 2;
    for (kind, phase, flags) in [
        ("auth", c"pam_authenticate", 0),
        ("auth", c"pam_setcred", ESTABLISH_CRED),
        ("password", c"pam_chauthtok", 0),
    ] {
        for control in ["required", "sufficient", "optional"] {
            let ours = format!("{kind} {control} {module}");
            let none = format!("{kind} {control} {}", without.display());
            let expected = libpam.answer(&none, c"root", phase, flags);
            assert_ne!(expected, SUCCESS, "{none}");
            assert_eq!(
                libpam.answer(&ours, c"root", phase, flags),
                expected,
                "{ours}"
            );
        }
        let required = format!("{kind} required {module}");
        let answer = libpam.answer(&required, c"root", phase, flags);
        assert_eq!(answer, MODULE_UNKNOWN, "{required}");
    }
}
