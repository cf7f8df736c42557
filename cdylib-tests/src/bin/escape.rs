//! What a user may try in order to outlive a login. Each process holds a lock
//! on LOCK, which is free when the last of them has ended, and ends by itself
//! after [`LONGEST`].
//!
//! ```text
//! escape chain MICROSECONDS LOCK   each generation forks the next one and ends
//! escape uid all|real LOCK         in a user namespace, with a subordinate uid
//! ```

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// No attack lasts longer, whatever becomes of the test.
const LONGEST: Duration = Duration::from_secs(60);

/// A uid in the namespace that `--map-auto` gives a subordinate one outside.
const SUBORDINATE: libc::uid_t = 7;

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("escape: {error}");
            ExitCode::from(64)
        }
    }
}

fn run(arguments: &[String]) -> io::Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [attack, how, lock] = words[..] else {
        return Err(io::Error::other("usage: escape chain|uid HOW LOCK"));
    };
    let until = Instant::now() + LONGEST;
    // Nobody closes it: the lock lasts as long as a process has it open.
    let mut lock = std::mem::ManuallyDrop::new(File::create(lock)?);
    // SAFETY: an open descriptor, which exec and fork hand on with its lock.
    call(unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) })?;
    for signal in [libc::SIGHUP, libc::SIGTERM, libc::SIGINT] {
        // SAFETY: SIG_IGN is a valid disposition of each of these.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // From now on it is locked.
    lock.write_all(b"locked")?;
    match attack {
        "chain" => chain(how.parse().map_err(io::Error::other)?, until),
        "uid" => uid(how, until),
        _ => Err(io::Error::other("neither chain nor uid")),
    }
}

fn chain(micros: u64, until: Instant) -> io::Result<()> {
    while Instant::now() < until {
        // SAFETY: this process has one thread, so the child may go on as it was.
        if call(unsafe { libc::fork() })? != 0 {
            return Ok(());
        }
        // SAFETY: takes nothing; a child leads no group, so it does not fail.
        call(unsafe { libc::setsid() })?;
        std::thread::sleep(Duration::from_micros(micros));
    }
    Ok(())
}

fn uid(how: &str, until: Instant) -> io::Result<()> {
    let (real, effective) = match how {
        "all" => (SUBORDINATE, SUBORDINATE),
        // 0 in the namespace is the user outside.
        "real" => (SUBORDINATE, 0),
        _ => return Err(io::Error::other("neither all nor real")),
    };
    // SAFETY: plain integers.
    call(unsafe { libc::setresuid(real, effective, effective) })?;
    // A name to wait for: that of the command line is the user's own.
    let name = CString::new(format!("escaped-{how}"))?;
    // SAFETY: a C string that the kernel copies.
    call(unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) })?;
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
    Ok(())
}

fn call(result: libc::c_int) -> io::Result<libc::c_int> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        other => Ok(other),
    }
}
