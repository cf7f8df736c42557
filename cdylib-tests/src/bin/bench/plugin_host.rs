//! A program that loads a SPANK plugin and calls its hooks, without Slurm: the
//! functions that a plugin looks up are exported by this very executable.
//!
//! What it does itself is as little as possible, and is not counted: see
//! [`crate::instructions`].

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use crate::Outcome;

/// The program that is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// The user's side.
    Srun,
    /// The node's side.
    Slurmstepd,
}

impl Role {
    /// `S_CTX_…` of spank.h.
    fn context(self) -> u32 {
        match self {
            Self::Srun => 1,
            Self::Slurmstepd => 2,
        }
    }

    /// The hooks that are called, in Slurm's order.
    fn hooks(self) -> &'static [&'static CStr] {
        match self {
            Self::Srun => &[c"slurm_spank_init", c"slurm_spank_init_post_opt"],
            Self::Slurmstepd => &[
                c"slurm_spank_init",
                c"slurm_spank_init_post_opt",
                c"slurm_spank_user_init",
                c"slurm_spank_task_init",
            ],
        }
    }
}

/// The environment of the played job: name and value as C strings.
static ENVIRONMENT: Mutex<Vec<(CString, CString)>> = Mutex::new(Vec::new());
/// `S_CTX_…` of spank.h.
static CONTEXT: AtomicU32 = AtomicU32::new(0);
/// The callback of the options; the plugin has one for all.
static CALLBACK: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

type HookFn = unsafe extern "C" fn(*mut c_void, c_int, *mut *mut c_char) -> c_int;
type CallbackFn = unsafe extern "C" fn(c_int, *const c_char, c_int) -> c_int;

/// How many variables the environment of a played job has besides PATH: about
/// as many as Slurm gives to a step.
const VARIABLES: usize = 60;

/// Loads `plugin` and calls the hooks of `role`.
///
/// # Errors
/// When the plugin cannot be loaded, or a hook fails.
pub fn run(plugin: &Path, role: Role, word: &str, profile: Option<&str>) -> Outcome {
    CONTEXT.store(role.context(), Ordering::Relaxed);
    fill_environment()?;
    let hooks = hooks_of(plugin, role.hooks())?;
    let mut word = CString::new(word)?.into_bytes_with_nul();
    let profile = profile.map(CString::new).transpose()?;
    let failed = bench_hooks(&hooks, word.as_mut_ptr().cast(), profile.as_deref(), role);
    if failed != 0 {
        return Err(format!("hook number {failed} failed").into());
    }
    expect_profile(role, profile.is_some())
}

fn hooks_of(plugin: &Path, names: &[&CStr]) -> Outcome<Vec<HookFn>> {
    let path = CString::new(plugin.as_os_str().as_bytes())?;
    let object = bench_load(&path);
    if object.is_null() {
        return Err(format!("{} cannot be loaded", plugin.display()).into());
    }
    let mut hooks = Vec::new();
    for name in names {
        // SAFETY: the handle is dlopen's and the name NUL-terminated: dlsym(3).
        let address = unsafe { libc::dlsym(object, name.as_ptr()) };
        if address.is_null() {
            return Err(format!("the plugin has no {}", name.to_string_lossy()).into());
        }
        // SAFETY: spank(7): functions of these names have this signature.
        hooks.push(unsafe { std::mem::transmute::<*mut c_void, HookFn>(address) });
    }
    Ok(hooks)
}

/// A measurement of hooks that did nothing would be worth nothing.
fn expect_profile(role: Role, asked: bool) -> Outcome {
    let set = lock(&ENVIRONMENT)
        .iter()
        .any(|(name, _)| name.as_c_str() == c"SLURM_EFA_PROFILE");
    let ran = !CALLBACK.load(Ordering::Relaxed).is_null();
    if !ran || set != (asked && role == Role::Slurmstepd) {
        return Err("the hooks did not do what they do under Slurm".into());
    }
    Ok(())
}

/// Counted: loading the object. A name that callgrind knows.
#[unsafe(no_mangle)]
#[inline(never)]
fn bench_load(path: &CStr) -> *mut c_void {
    // SAFETY: a NUL-terminated path. The object's constructors run: it is the
    // plugin that is to be measured.
    unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) }
}

/// Counted: the hooks, in Slurm's order. Returns the number of the hook that
/// failed, from 1, or 0.
#[unsafe(no_mangle)]
#[inline(never)]
fn bench_hooks(hooks: &[HookFn], word: *mut c_char, profile: Option<&CStr>, role: Role) -> usize {
    let mut words = [word];
    for (number, hook) in (1..).zip(hooks) {
        // SAFETY: the arguments are those of spank(7): a handle that only our
        // own functions see, and one word that outlives the call.
        if unsafe { hook(std::ptr::null_mut(), 1, words.as_mut_ptr()) } != 0 {
            return number;
        }
        let callback = CALLBACK.load(Ordering::Relaxed);
        if let Some(profile) = profile.filter(|_| number == 1 && !callback.is_null()) {
            // SAFETY: the plugin registered this function with this signature.
            let callback = unsafe { std::mem::transmute::<*mut c_void, CallbackFn>(callback) };
            let remote = c_int::from(role == Role::Slurmstepd);
            // SAFETY: option 0 is --efa-profile; its value outlives the call.
            unsafe { callback(0, profile.as_ptr(), remote) };
        }
    }
    0
}

fn fill_environment() -> Outcome {
    let mut environment = lock(&ENVIRONMENT);
    // Room for what a profile sets, so that the list is not moved.
    environment.reserve(2 * VARIABLES);
    environment.push((CString::new("PATH")?, CString::new("/usr/bin:/bin")?));
    for number in 0..VARIABLES {
        environment.push((
            CString::new(format!("SLURM_VARIABLE_{number}"))?,
            CString::new("12345")?,
        ));
    }
    Ok(())
}

fn lock<T>(list: &'static Mutex<T>) -> std::sync::MutexGuard<'static, T> {
    list.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

// ------------------------------------------------- what libslurm would export

/// `ESPANK_…` of spank.h, 22.05.
const BAD_ARGUMENT: c_int = 3001;
const NO_SUCH_VARIABLE: c_int = 3004;
const NO_SPACE: c_int = 3005;

/// The API number of Slurm 22.05.
#[unsafe(no_mangle)]
extern "C" fn slurm_api_version() -> c_long {
    38 << 16
}

#[unsafe(no_mangle)]
extern "C" fn spank_context() -> c_uint {
    CONTEXT.load(Ordering::Relaxed)
}

/// The start of spank.h's `struct spank_option`, up to what is wanted.
#[repr(C)]
struct SpankOption {
    texts: [*mut c_char; 3],
    has_arg: c_int,
    val: c_int,
    callback: *mut c_void,
}

#[unsafe(no_mangle)]
unsafe extern "C" fn spank_option_register(_: *mut c_void, option: *const SpankOption) -> c_int {
    // SAFETY: spank.h: `option` points at one such structure.
    let option = unsafe { &*option };
    CALLBACK.store(option.callback, Ordering::Relaxed);
    0
}

/// Variadic in spank.h. On x86_64 and aarch64 Linux a pointer is passed alike
/// to a variadic and to a plain C function, and here it is always one.
#[unsafe(no_mangle)]
unsafe extern "C" fn spank_get_item(_: *mut c_void, item: c_uint, value: *mut u32) -> c_int {
    let known = match item {
        // S_JOB_UID, S_JOB_GID, S_JOB_ID, S_JOB_STEPID, S_JOB_NNODES, S_JOB_NODEID
        0 | 1 => 1000,
        2 | 4 => 1,
        3 | 5 => 0,
        _ => return BAD_ARGUMENT,
    };
    // SAFETY: spank.h: these items take a pointer to 32 writable bits.
    unsafe { value.write(known) };
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn spank_getenv(
    _: *mut c_void,
    name: *const c_char,
    buffer: *mut c_char,
    length: c_int,
) -> c_int {
    // SAFETY: spank.h: a NUL-terminated name.
    let name = unsafe { CStr::from_ptr(name) };
    let environment = lock(&ENVIRONMENT);
    let Some((_, value)) = environment
        .iter()
        .find(|(listed, _)| listed.as_c_str() == name)
    else {
        return NO_SUCH_VARIABLE;
    };
    let bytes = value.as_bytes_with_nul();
    if usize::try_from(length).unwrap_or(0) < bytes.len() {
        return NO_SPACE;
    }
    // SAFETY: spank.h: the buffer has `length` writable bytes, which is enough.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), buffer, bytes.len()) };
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn spank_setenv(
    _: *mut c_void,
    name: *const c_char,
    value: *const c_char,
    _overwrite: c_int,
) -> c_int {
    // SAFETY: spank.h: a NUL-terminated name.
    let name = unsafe { CStr::from_ptr(name) };
    // SAFETY: spank.h: a NUL-terminated value.
    let value = unsafe { CStr::from_ptr(value) };
    let mut environment = lock(&ENVIRONMENT);
    environment.retain(|(listed, _)| listed.as_c_str() != name);
    environment.push((name.to_owned(), value.to_owned()));
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn spank_unsetenv(_: *mut c_void, name: *const c_char) -> c_int {
    // SAFETY: spank.h: a NUL-terminated name.
    let name = unsafe { CStr::from_ptr(name) };
    lock(&ENVIRONMENT).retain(|(listed, _)| listed.as_c_str() != name);
    0
}

/// The plugin's one call of each of these passes a format and one string.
fn print(text: *const c_char) {
    // SAFETY: the plugin passes "%s" and a NUL-terminated string.
    let text = unsafe { CStr::from_ptr(text) };
    eprintln!("{}", text.to_string_lossy());
}

#[unsafe(no_mangle)]
extern "C" fn slurm_error(_format: *const c_char, text: *const c_char) {
    print(text);
}

#[unsafe(no_mangle)]
extern "C" fn slurm_info(_format: *const c_char, text: *const c_char) {
    print(text);
}

#[unsafe(no_mangle)]
extern "C" fn slurm_debug(_format: *const c_char, _text: *const c_char) {}

#[unsafe(no_mangle)]
extern "C" fn slurm_spank_log(_format: *const c_char, text: *const c_char) {
    print(text);
}
