//! SIGKILL after each system call that a program makes, one by one.
//!
//! [`sweep`] runs a program again and again, each time letting it make one
//! system call more, until it lives to its end. By ptrace(2) the program stops
//! when a call returns, with its effect done and nothing after it, and dies
//! there: no moment between two effects is left out.

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};

use libc::{c_int, c_uint, c_void, pid_t};

/// How a run under the harness ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Killed after so many system calls.
    Killed,
    /// It made fewer and ended by itself.
    Lived(ExitStatus),
}

/// Runs `command` and kills it when its system call number `calls` (from 1)
/// returns. exec(2) itself, which is not the program's own, is not counted.
///
/// The program must be one process of one thread; a child of its own would go
/// on untraced.
///
/// # Errors
/// It cannot be started or traced.
pub fn killed_after(calls: usize, command: &mut Command) -> io::Result<End> {
    run(calls, command, |_| Ok(true))
}

/// The same, counting only system calls that may change anything outside the
/// program: for one that reads hundreds of files, where killing it after each
/// of them would leave the same world behind.
///
/// # Errors
/// As [`killed_after`]; also a kernel before 5.3.
pub fn killed_after_change(changes: usize, command: &mut Command) -> io::Result<End> {
    run(changes, command, |pid| Ok(may_change(&call(pid)?)))
}

fn run(
    calls: usize,
    command: &mut Command,
    counted: impl Fn(pid_t) -> io::Result<bool>,
) -> io::Result<End> {
    // SAFETY: between fork and exec only ptrace(2) is called, a bare system
    // call, which is async-signal-safe.
    unsafe { command.pre_exec(|| ptrace(libc::PTRACE_TRACEME, 0, 0)) };
    let child = command.spawn()?;
    let pid = pid_t::try_from(child.id()).map_err(io::Error::other)?;
    // From here on only `wait` reaps the child, so that its number stays its own.
    let outcome = trace(pid, calls, counted);
    if outcome.is_err() {
        kill(pid)?;
    }
    outcome
}

/// Calls `each` with the numbers from 1 on, as often as `each` says that the
/// program was killed. Returns how many system calls it makes.
///
/// # Errors
/// Those of `each`.
pub fn sweep<E>(mut each: impl FnMut(usize) -> Result<End, E>) -> Result<usize, E> {
    for calls in 1.. {
        if each(calls)? != End::Killed {
            return Ok(calls - 1);
        }
    }
    Ok(usize::MAX)
}

/// `counted` is asked about each call on its way in.
fn trace(pid: pid_t, calls: usize, counted: impl Fn(pid_t) -> io::Result<bool>) -> io::Result<End> {
    // The SIGTRAP of exec.
    if let Some(status) = wait(pid)?.ended() {
        return Ok(End::Lived(status));
    }
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
    ptrace(libc::PTRACE_SETOPTIONS, pid, options as usize)?;
    let mut left = calls;
    // Stops at calls come in pairs: on the way in, on the way out.
    let mut inside = false;
    let mut counts = false;
    let mut signal = 0;
    loop {
        ptrace(libc::PTRACE_SYSCALL, pid, signal)?;
        let state = wait(pid)?;
        if let Some(status) = state.ended() {
            return Ok(End::Lived(status));
        }
        signal = 0;
        match state.stopped_by() {
            SYSCALL => {
                inside = !inside;
                if inside {
                    counts = counted(pid)?;
                } else {
                    left -= usize::from(counts);
                }
            }
            other => signal = usize::try_from(other).unwrap_or(0),
        }
        if left == 0 {
            kill(pid)?;
            return Ok(End::Killed);
        }
    }
}

/// The signal of a stop at a system call, with `PTRACE_O_TRACESYSGOOD`.
const SYSCALL: c_int = libc::SIGTRAP | 0x80;

/// What waitpid(2) said.
struct State(c_int);

impl State {
    fn ended(&self) -> Option<ExitStatus> {
        use std::os::unix::process::ExitStatusExt;
        let ended = libc::WIFEXITED(self.0) || libc::WIFSIGNALED(self.0);
        ended.then(|| ExitStatus::from_raw(self.0))
    }

    fn stopped_by(&self) -> c_int {
        libc::WSTOPSIG(self.0)
    }
}

fn wait(pid: pid_t) -> io::Result<State> {
    let mut status = 0;
    // SAFETY: waitpid(2) writes to `status`, which lives; any `pid` is valid.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    if waited == pid {
        Ok(State(status))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Kills our child and reaps it.
fn kill(pid: pid_t) -> io::Result<()> {
    // SAFETY: kill(2) has no preconditions; the child is ours and not reaped.
    if unsafe { libc::kill(pid, libc::SIGKILL) } != 0 {
        return Err(io::Error::last_os_error());
    }
    while wait(pid)?.ended().is_none() {}
    Ok(())
}

/// A system call on its way in.
struct Call {
    number: u64,
    arguments: [u64; 6],
}

fn call(pid: pid_t) -> io::Result<Call> {
    let mut info = MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    let size: *mut c_void = std::ptr::without_provenance_mut(size_of_val(&info));
    // SAFETY: GET_SYSCALL_INFO writes at most the size that its address tells
    // to `info`, which has that size.
    let written =
        unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size, info.as_mut_ptr()) };
    if written < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeroes are a valid value of this struct of numbers.
    let info = unsafe { info.assume_init() };
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return Err(io::Error::other("not on the way into a system call"));
    }
    // SAFETY: of the union the kernel has filled in what `op` names.
    let entry = unsafe { info.u.entry };
    Ok(Call {
        number: entry.nr,
        arguments: entry.args,
    })
}

/// Whether it may change anything outside the program. Calls that are not known
/// here do.
fn may_change(call: &Call) -> bool {
    let Ok(number) = libc::c_long::try_from(call.number) else {
        return true;
    };
    if number == libc::SYS_openat {
        let flags = call.arguments[2];
        let creates = libc::O_CREAT | libc::O_TRUNC;
        return flags & u64::from(creates.unsigned_abs()) != 0;
    }
    !CHANGE_NOTHING.contains(&number)
}

const CHANGE_NOTHING: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_getdents64,
    libc::SYS_geteuid,
    libc::SYS_getrandom,
    libc::SYS_lseek,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_newfstatat,
    libc::SYS_pidfd_open,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_sigaltstack,
    libc::SYS_statfs,
    libc::SYS_statx,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
];

/// ptrace(2) of the requests that take a number, or nothing, as their data.
fn ptrace(request: c_uint, pid: pid_t, data: usize) -> io::Result<()> {
    let nothing: *mut c_void = std::ptr::null_mut();
    let data = data as *mut c_void;
    // SAFETY: TRACEME, SETOPTIONS and SYSCALL read no memory of ours: the
    // address is ignored, and the data is a number.
    match unsafe { libc::ptrace(request, pid, nothing, data) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_program_is_killed_after_every_call_in_turn_and_lives_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let mut there = Vec::new();
        let calls = sweep(|calls| {
            let _ = fs::remove_file(&file);
            let end = killed_after(calls, Command::new("touch").arg(&file))?;
            there.push(file.exists());
            match end {
                End::Lived(status) => assert!(status.success()),
                End::Killed => {}
            }
            io::Result::Ok(end)
        })
        .unwrap();
        assert!(calls > 10, "{calls}");
        // There is one first call after which the file exists, and from then on
        // it does.
        let first = there.iter().position(|it| *it).unwrap();
        assert!(first > 0 && first < calls, "{first} of {calls}");
        assert!(there[first..].iter().all(|it| *it));
    }

    #[test]
    fn only_calls_that_may_change_something_are_counted_if_so_asked() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        let mut there = Vec::new();
        let changes = sweep(|changes| {
            let _ = fs::remove_file(&file);
            let end = killed_after_change(changes, Command::new("touch").arg(&file))?;
            there.push(file.exists());
            io::Result::Ok(end)
        })
        .unwrap();
        let calls = sweep(|calls| killed_after(calls, Command::new("touch").arg(&file))).unwrap();
        assert!(changes > 0 && changes < calls / 2, "{changes} of {calls}");
        // Making the file is one of them.
        assert!(there.windows(2).any(|pair| pair == [false, true]) || there[0]);
    }

    #[test]
    fn a_programs_own_end_is_told() {
        let end = killed_after(usize::MAX, &mut Command::new("false")).unwrap();
        assert!(matches!(end, End::Lived(status) if status.code() == Some(1)));
    }
}
