//! A plugin as a Rust type, and the glue from Slurm's entry points to it.

use std::ffi::{CStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;
use std::sync::{Mutex, MutexGuard, TryLockError};

use guard::guard;

use crate::bindings::{spank_opt_cb_f, spank_t};
use crate::log;
use crate::option::{OptionSpec, OptionValue, Origin, lies_in_environment};
use crate::spank::{Context, Spank};

/// Slurm's entry points, in the order in which a job meets them.
///
/// Source: spank(7) and runs of 20.11 to 26.05.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Right after loading: srun, sbatch, salloc (user); slurmd, slurmstepd (root).
    Init,
    /// `slurmstepd spank prolog`, root. [`Hook::Init`] is not called in this process.
    JobProlog,
    /// After options were processed: srun, sbatch, salloc (user); slurmstepd (root).
    InitPostOpt,
    /// srun, once the step exists.
    LocalUserInit,
    /// slurmstepd, with the user's effective ids. Not in the extern step.
    UserInit,
    /// The forked child of slurmstepd, still root. Not in the extern step.
    TaskInitPrivileged,
    /// The same child, now the user. Not in the extern step.
    TaskInit,
    /// slurmstepd (root), after each fork.
    TaskPostFork,
    /// slurmstepd (root), after each task's end.
    TaskExit,
    /// `slurmstepd spank epilog`, root. [`Hook::Init`] is not called in this process.
    JobEpilog,
    /// slurmd stops, root.
    SlurmdExit,
    /// srun, sbatch, salloc (user) or slurmstepd (root) is about to end.
    Exit,
}

impl Hook {
    /// The name in Slurm's documentation, without the `slurm_spank_` prefix.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::JobProlog => "job_prolog",
            Self::InitPostOpt => "init_post_opt",
            Self::LocalUserInit => "local_user_init",
            Self::UserInit => "user_init",
            Self::TaskInitPrivileged => "task_init_privileged",
            Self::TaskInit => "task_init",
            Self::TaskPostFork => "task_post_fork",
            Self::TaskExit => "task_exit",
            Self::JobEpilog => "job_epilog",
            Self::SlurmdExit => "slurmd_exit",
            Self::Exit => "exit",
        }
    }

    /// What a panic in this hook returns to Slurm.
    ///
    /// −1 where it fails only what its own user asked for: a submission
    /// ([`Hook::InitPostOpt`] in a client) or a task. 0 everywhere else: a
    /// failed `init`, `init_post_opt` or `user_init` on a node drains it for a
    /// batch job, a failed prolog or epilog drains it always, and a failed
    /// `init` in slurmd stops the daemon.
    pub fn verdict_on_panic(self, context: Option<Context>) -> c_int {
        match (self, context) {
            (Self::TaskInitPrivileged | Self::TaskInit, _) => -1,
            (Self::InitPostOpt, Some(context)) if context.is_client() => -1,
            _ => 0,
        }
    }
}

/// Why a hook failed, in words for the person who will read them. The glue
/// logs the text through Slurm (in a client: on the user's stderr).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub String);

/// What a hook answers: `Ok` is 0 to Slurm, `Err` is logged and becomes −1.
///
/// Mind where −1 drains the node; see [`Hook::verdict_on_panic`].
pub type Outcome = Result<(), Failure>;

/// A SPANK plugin. Implement the hooks that it has and list them in [`crate::plugin!`].
///
/// One value lives in each process that loads the plugin; a task's forked
/// child has its own copy.
#[allow(unused_variables)]
pub trait Plugin: Sized + Send + 'static {
    /// The options it adds to srun, sbatch and salloc. Registered in
    /// [`Hook::Init`] of clients and slurmstepd.
    const OPTIONS: &'static [OptionSpec] = &[];

    /// Makes the value at the first hook of a process. `arguments` are the
    /// words behind the path in plugstack.conf. No I/O here: slurmd, srun and
    /// every step pay for it.
    fn load(arguments: &[OsString]) -> Self;

    /// An option was given; `index` is its place in [`Plugin::OPTIONS`]. Called
    /// once for each place that names it (`#SBATCH`, environment, command
    /// line, in this order), so the last call wins. In a heterogeneous job or
    /// step Slurm does so for each component, followed by
    /// [`Hook::InitPostOpt`]; from the second component on, sbatch and salloc
    /// have put the value of the one before into the environment.
    fn option(&mut self, index: usize, value: OptionValue<'_>, origin: Origin) -> Outcome {
        Ok(())
    }

    /// See [`Hook::Init`].
    fn init(&mut self, spank: &mut Spank<'_>, context: Context) -> Outcome {
        Ok(())
    }

    /// See [`Hook::JobProlog`].
    fn job_prolog(&mut self, spank: &mut Spank<'_>) -> Outcome {
        Ok(())
    }

    /// See [`Hook::InitPostOpt`].
    fn init_post_opt(&mut self, spank: &mut Spank<'_>, context: Context) -> Outcome {
        Ok(())
    }

    /// See [`Hook::LocalUserInit`].
    fn local_user_init(&mut self, spank: &mut Spank<'_>) -> Outcome {
        Ok(())
    }

    /// See [`Hook::UserInit`].
    fn user_init(&mut self, spank: &mut Spank<'_>) -> Outcome {
        Ok(())
    }

    /// See [`Hook::TaskInitPrivileged`].
    fn task_init_privileged(&mut self, spank: &mut Spank<'_>) -> Outcome {
        Ok(())
    }

    /// See [`Hook::TaskInit`].
    fn task_init(&mut self, spank: &mut Spank<'_>) -> Outcome {
        Ok(())
    }

    /// See [`Hook::TaskPostFork`].
    fn task_post_fork(&mut self, spank: &mut Spank<'_>) -> Outcome {
        Ok(())
    }

    /// See [`Hook::TaskExit`].
    fn task_exit(&mut self, spank: &mut Spank<'_>) -> Outcome {
        Ok(())
    }

    /// See [`Hook::JobEpilog`].
    fn job_epilog(&mut self, spank: &mut Spank<'_>) -> Outcome {
        Ok(())
    }

    /// See [`Hook::SlurmdExit`].
    fn slurmd_exit(&mut self, spank: &mut Spank<'_>) -> Outcome {
        Ok(())
    }

    /// See [`Hook::Exit`].
    fn exit(&mut self, spank: &mut Spank<'_>) -> Outcome {
        Ok(())
    }
}

/// Holds a plugin's value between hooks. Made by [`crate::plugin!`].
pub struct State<P>(Mutex<Option<P>>);

impl<P> State<P> {
    /// Empty until the first hook.
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// The lock, without ever waiting: Slurm calls hooks one after another, so
    /// a held lock can only be one that a fork left behind, and waiting for it
    /// would hang the step. A panic does not make the value unusable.
    fn enter(&self) -> Option<MutexGuard<'_, Option<P>>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl<P> Default for State<P> {
    fn default() -> Self {
        Self::new()
    }
}

/// # Safety
/// `argv` has `argc` valid NUL-terminated strings, or is null.
unsafe fn arguments(argc: c_int, argv: *mut *mut c_char) -> Vec<OsString> {
    let count = if argv.is_null() {
        0
    } else {
        usize::try_from(argc).unwrap_or(0)
    };
    (0..count)
        .filter_map(|i| {
            // SAFETY: i < argc, and the array has argc elements.
            let place = unsafe { argv.add(i) };
            // SAFETY: `place` points at an element of the array.
            let argument = unsafe { place.read() };
            // SAFETY: each non-null element is a NUL-terminated string.
            (!argument.is_null()).then(|| unsafe { CStr::from_ptr(argument) })
        })
        .map(|text| OsString::from_vec(text.to_bytes().to_vec()))
        .collect()
}

fn to_c(hook: &str, outcome: Outcome) -> c_int {
    match outcome {
        Ok(()) => 0,
        Err(Failure(message)) => {
            if message.is_empty() {
                log::debug(&format!("{hook} failed"));
            } else {
                log::error(&message);
            }
            -1
        }
    }
}

/// Runs one hook. Called by the functions that [`crate::plugin!`] exports.
///
/// # Safety
/// The arguments are those that Slurm passed to the hook.
pub unsafe fn call<P: Plugin>(
    state: &State<P>,
    hook: Hook,
    raw: spank_t,
    argc: c_int,
    argv: *mut *mut c_char,
    callback: spank_opt_cb_f,
) -> c_int {
    let context = Context::current();
    let verdict = hook.verdict_on_panic(context);
    let outcome = guard(hook.name(), log::error, || {
        let Some(mut slot) = state.enter() else {
            log::error(&format!(
                "{}: entered while another hook runs; nothing was done",
                hook.name()
            ));
            return verdict;
        };
        // SAFETY: Slurm passes argc words in argv.
        let plugin = slot.get_or_insert_with(|| P::load(&unsafe { arguments(argc, argv) }));
        // SAFETY: `raw` is this hook's handle; the value is dropped before the hook returns.
        let spank = &mut unsafe { Spank::new(raw) };
        let Some(context) = context else {
            log::error(&format!(
                "{}: Slurm does not say which program this is; nothing was done",
                hook.name()
            ));
            return 0;
        };
        let outcome = match hook {
            Hook::Init => {
                if context.is_client() || context == Context::Remote {
                    for (index, option) in P::OPTIONS.iter().enumerate() {
                        if let Err(error) = spank.register_option(index, option, callback) {
                            let name = option.name.to_string_lossy();
                            log::error(&format!("option --{name} cannot be offered: {error}"));
                        }
                    }
                }
                plugin.init(spank, context)
            }
            Hook::JobProlog => plugin.job_prolog(spank),
            Hook::InitPostOpt => plugin.init_post_opt(spank, context),
            Hook::LocalUserInit => plugin.local_user_init(spank),
            Hook::UserInit => plugin.user_init(spank),
            Hook::TaskInitPrivileged => plugin.task_init_privileged(spank),
            Hook::TaskInit => plugin.task_init(spank),
            Hook::TaskPostFork => plugin.task_post_fork(spank),
            Hook::TaskExit => plugin.task_exit(spank),
            Hook::JobEpilog => plugin.job_epilog(spank),
            Hook::SlurmdExit => plugin.slurmd_exit(spank),
            Hook::Exit => plugin.exit(spank),
        };
        to_c(hook.name(), outcome)
    });
    outcome.unwrap_or(verdict)
}

/// Runs the option callback. Called by the function that [`crate::plugin!`] makes.
///
/// A panic refuses the submission in a client; on a node Slurm only logs it.
///
/// # Safety
/// The arguments are those that Slurm passed to the callback.
pub unsafe fn option_callback<P: Plugin>(
    state: &State<P>,
    index: c_int,
    value: *const c_char,
    remote: c_int,
) -> c_int {
    let outcome = guard("option", log::error, || {
        let Some(mut slot) = state.enter() else {
            return -1;
        };
        let (Some(plugin), Ok(index)) = (slot.as_mut(), usize::try_from(index)) else {
            return -1;
        };
        let Some(option) = P::OPTIONS.get(index) else {
            return -1;
        };
        let origin = if remote != 0 {
            Origin::Node
        // SAFETY: a client reads its options in its main thread, before it starts another.
        } else if unsafe { lies_in_environment(value) } {
            Origin::Environment
        } else {
            Origin::Client
        };
        // SAFETY: Slurm passes null or a NUL-terminated string that lives until we return.
        let value = (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) });
        to_c("option", plugin.option(index, option.value(value), origin))
    });
    outcome.unwrap_or(-1)
}

/// Ends the forked child that would become a task, with exit code 1. Only for
/// [`Hook::TaskInitPrivileged`] and [`Hook::TaskInit`].
///
/// Returning an error from these hooks does the same in a `required` plugin,
/// and nothing at all in an `optional` one.
pub fn end_task() -> ! {
    // SAFETY: _exit(2) ends this child at once and runs no handler of the
    // slurmstepd that it was forked from.
    unsafe { libc::_exit(1) }
}

/// Exports a [`Plugin`] to Slurm: its name, its type, its version (filled in
/// when the object is loaded, see [`crate::release`]), `init`, and the hooks
/// listed, nothing else. Slurm looks hooks up by name, and one that exists
/// costs: a plugin with `job_prolog` makes Slurm run a process for every job.
///
/// ```text
/// spank::plugin! {
///     name: "spank_example",
///     plugin: Example,
///     hooks: [init_post_opt, task_init],
/// }
/// ```
#[macro_export]
macro_rules! plugin {
    (name: $name:literal, plugin: $plugin:ty, hooks: [$($hook:ident),* $(,)?] $(,)?) => {
        #[allow(non_upper_case_globals, missing_docs)]
        mod spank_exports {
            use super::*;
            use ::core::sync::atomic::AtomicU32;
            use $crate::__private::{c_char, c_int, spank_t};

            #[unsafe(no_mangle)]
            pub static plugin_name: [u8; concat!($name, "\0").len()] =
                $crate::__private::bytes(concat!($name, "\0"));
            #[unsafe(no_mangle)]
            pub static plugin_type: [u8; 6] = *b"spank\0";
            /// Read by Slurm after the constructor below has run.
            #[unsafe(no_mangle)]
            pub static plugin_version: AtomicU32 = AtomicU32::new(0);

            extern "C" fn announce() {
                $crate::release::announce(&plugin_version);
            }
            // SAFETY: .init_array holds pointers to functions that the dynamic
            // linker calls once, with arguments that a C function may ignore.
            #[used]
            #[unsafe(link_section = ".init_array")]
            static CONSTRUCTOR: extern "C" fn() = announce;

            static STATE: $crate::State<$plugin> = $crate::State::new();

            unsafe extern "C" fn option(index: c_int, value: *const c_char, remote: c_int) -> c_int {
                // SAFETY: the arguments are Slurm's, passed on unchanged.
                unsafe { $crate::option_callback(&STATE, index, value, remote) }
            }

            $crate::plugin!(@export init STATE option);
            $($crate::plugin!(@export $hook STATE option);)*
        }
    };
    (@export init $s:ident $o:ident) => { $crate::plugin!(@fn slurm_spank_init Init $s $o); };
    (@export job_prolog $s:ident $o:ident) => { $crate::plugin!(@fn slurm_spank_job_prolog JobProlog $s $o); };
    (@export init_post_opt $s:ident $o:ident) => { $crate::plugin!(@fn slurm_spank_init_post_opt InitPostOpt $s $o); };
    (@export local_user_init $s:ident $o:ident) => { $crate::plugin!(@fn slurm_spank_local_user_init LocalUserInit $s $o); };
    (@export user_init $s:ident $o:ident) => { $crate::plugin!(@fn slurm_spank_user_init UserInit $s $o); };
    (@export task_init_privileged $s:ident $o:ident) => { $crate::plugin!(@fn slurm_spank_task_init_privileged TaskInitPrivileged $s $o); };
    (@export task_init $s:ident $o:ident) => { $crate::plugin!(@fn slurm_spank_task_init TaskInit $s $o); };
    (@export task_post_fork $s:ident $o:ident) => { $crate::plugin!(@fn slurm_spank_task_post_fork TaskPostFork $s $o); };
    (@export task_exit $s:ident $o:ident) => { $crate::plugin!(@fn slurm_spank_task_exit TaskExit $s $o); };
    (@export job_epilog $s:ident $o:ident) => { $crate::plugin!(@fn slurm_spank_job_epilog JobEpilog $s $o); };
    (@export slurmd_exit $s:ident $o:ident) => { $crate::plugin!(@fn slurm_spank_slurmd_exit SlurmdExit $s $o); };
    (@export exit $s:ident $o:ident) => { $crate::plugin!(@fn slurm_spank_exit Exit $s $o); };
    (@fn $symbol:ident $hook:ident $state:ident $option:ident) => {
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $symbol(spank: spank_t, argc: c_int, argv: *mut *mut c_char) -> c_int {
            // SAFETY: the arguments are Slurm's, passed on unchanged.
            unsafe { $crate::call(&$state, $crate::Hook::$hook, spank, argc, argv, Some($option)) }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_fails_only_what_its_own_user_asked_for() {
        assert_eq!(
            Hook::InitPostOpt.verdict_on_panic(Some(Context::Allocator)),
            -1
        );
        assert_eq!(Hook::InitPostOpt.verdict_on_panic(Some(Context::Remote)), 0);
        assert_eq!(Hook::TaskInit.verdict_on_panic(Some(Context::Remote)), -1);
        for hook in [
            Hook::Init,
            Hook::JobProlog,
            Hook::JobEpilog,
            Hook::UserInit,
            Hook::SlurmdExit,
            Hook::Exit,
        ] {
            assert_eq!(
                hook.verdict_on_panic(Some(Context::Remote)),
                0,
                "{}",
                hook.name()
            );
        }
    }

    #[test]
    fn a_state_left_by_a_panic_is_used_on() {
        let state = State::<u32>(Mutex::new(Some(5)));
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _held = state.0.lock();
            panic!("on purpose");
        }));
        assert_eq!(state.enter().as_deref(), Some(&Some(5)));
    }
}
