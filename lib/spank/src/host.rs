//! The functions of the Slurm that loaded us, found with `dlsym`.
//!
//! rustc links shared objects with `BIND_NOW`: a direct reference to one
//! function that one release lacks would make `dlopen` fail there. Looking
//! every function up keeps the list of undefined symbols free of Slurm's, and
//! lets the same code load into a test program that has no Slurm at all.

use std::ffi::{CStr, OsStr, c_char, c_int, c_long, c_void};
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::SpankError;
use crate::bindings::{self, spank_context_t, spank_err_t, spank_item_t, spank_option, spank_t};

/// Looks `name` up in the global scope of the process.
fn find(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: dlsym(3) accepts RTLD_DEFAULT and any NUL-terminated name, and
    // returns null when nothing in the global scope has that name.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}

/// `slurm_api_version()` of the host, or `None` where there is no libslurm.
///
/// Kept apart from [`Host`]: the constructor calls it and must not allocate.
pub fn slurm_api_version() -> Option<c_long> {
    let address = find(c"slurm_api_version")?;
    // SAFETY: libslurm has exported `long slurm_api_version(void)` with this
    // signature in every release since 1.0; the address is a function's.
    let function: unsafe extern "C" fn() -> c_long = unsafe { std::mem::transmute(address) };
    // SAFETY: the function takes nothing, returns a constant and has no preconditions.
    Some(unsafe { function() })
}

/// The file that this plugin was loaded from, as its host named it.
#[must_use]
pub fn own_file() -> Option<PathBuf> {
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    let here: fn() -> Option<PathBuf> = own_file;
    // SAFETY: dladdr(3) takes any address and fills in the structure, which is ours.
    if unsafe { libc::dladdr(here as *const c_void, info.as_mut_ptr()) } == 0 {
        return None;
    }
    // SAFETY: all zeros is a valid value of it, and dladdr has filled it in.
    let info = unsafe { info.assume_init() };
    if info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: dladdr(3): a NUL-terminated name that lives as long as the object,
    // which is never unloaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}

/// Declares the table and, for each entry, a compile-time check that its type
/// is the one that bindgen read from `spank.h`.
macro_rules! host_functions {
    ($($name:ident : $type:ty;)*) => {
        $(const _: $type = bindings::$name;)*

        /// The functions of the host. A field is `None` where the host lacks the symbol.
        #[derive(Default)]
        pub(crate) struct Host {
            $($name: Option<$type>,)*
        }

        impl Host {
            fn look_up() -> Self {
                Self {
                    $($name: {
                        const NAME: &str = concat!(stringify!($name), "\0");
                        CStr::from_bytes_with_nul(NAME.as_bytes()).ok().and_then(find).map(|address| {
                            // SAFETY: a symbol of this name in a Slurm host is the function
                            // that spank.h declares; the const above proves that the type
                            // used here is that declaration's.
                            unsafe { std::mem::transmute::<*mut c_void, $type>(address) }
                        })
                    },)*
                }
            }

            $(pub(crate) fn $name(&self) -> Result<$type, SpankError> {
                self.$name.ok_or(SpankError::MissingSymbol(stringify!($name)))
            })*
        }
    };
}

host_functions! {
    spank_context: unsafe extern "C" fn() -> spank_context_t;
    spank_option_register: unsafe extern "C" fn(spank_t, *mut spank_option) -> spank_err_t;
    spank_get_item: unsafe extern "C" fn(spank_t, spank_item_t, ...) -> spank_err_t;
    spank_getenv: unsafe extern "C" fn(spank_t, *const c_char, *mut c_char, c_int) -> spank_err_t;
    spank_setenv: unsafe extern "C" fn(spank_t, *const c_char, *const c_char, c_int) -> spank_err_t;
    spank_unsetenv: unsafe extern "C" fn(spank_t, *const c_char) -> spank_err_t;
    spank_job_control_getenv: unsafe extern "C" fn(spank_t, *const c_char, *mut c_char, c_int) -> spank_err_t;
    spank_job_control_setenv: unsafe extern "C" fn(spank_t, *const c_char, *const c_char, c_int) -> spank_err_t;
    slurm_error: unsafe extern "C" fn(*const c_char, ...);
    slurm_info: unsafe extern "C" fn(*const c_char, ...);
    slurm_debug: unsafe extern "C" fn(*const c_char, ...);
    slurm_spank_log: unsafe extern "C" fn(*const c_char, ...);
}

/// The host's functions, looked up at the first use.
pub(crate) fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(Host::look_up)
}
