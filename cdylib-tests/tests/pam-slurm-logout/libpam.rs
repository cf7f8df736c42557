//! The PAM module in the machine's libpam, without sshd: a stack from a private
//! directory, run by this process.

use std::ffi::{CStr, c_int};
use std::fs;
use std::path::Path;

use cdylib_tests::libpam::{Libpam, SUCCESS, Scope};
use cdylib_tests::modules;

const MODULE_UNKNOWN: c_int = 28;

/// libpam, loaded for this program's own use only, as an interpreter does: its
/// functions are not among those that the loader offers to later objects.
fn private_libpam() -> Libpam {
    let libpam = Libpam::load(Scope::Local).unwrap();
    // SAFETY: a C string; the result is null or an address.
    let seen = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"pam_get_item".as_ptr()) };
    assert!(seen.is_null(), "this program must not link libpam");
    libpam
}

/// What libpam answers for root in this phase, where the stack is this one line.
fn answer(libpam: &Libpam, line: &str, phase: &CStr, flags: c_int) -> c_int {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("service"), format!("{line}\n")).unwrap();
    let mut login = libpam.start(folder.path(), "service", "root").unwrap();
    login.call(phase, flags).unwrap()
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
    let code = answer(&private_libpam(), &line, c"pam_acct_mgmt", 0);
    assert_eq!(code, SUCCESS);
}

#[test]
fn a_line_of_a_type_that_the_module_lacks_is_answered_as_for_a_file_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let module = module(folder.path());
    // Any shared object without PAM's functions.
    let without = modules::mock_nvml();
    let libpam = private_libpam();
    const ESTABLISH_CRED: c_int = 2;
    for (kind, phase, flags) in [
        ("auth", c"pam_authenticate", 0),
        ("auth", c"pam_setcred", ESTABLISH_CRED),
        ("password", c"pam_chauthtok", 0),
    ] {
        for control in ["required", "sufficient", "optional"] {
            let ours = format!("{kind} {control} {module}");
            let none = format!("{kind} {control} {}", without.display());
            let expected = answer(&libpam, &none, phase, flags);
            assert_ne!(expected, SUCCESS, "{none}");
            assert_eq!(answer(&libpam, &ours, phase, flags), expected, "{ours}");
        }
        let required = format!("{kind} required {module}");
        let code = answer(&libpam, &required, phase, flags);
        assert_eq!(code, MODULE_UNKNOWN, "{required}");
    }
}
