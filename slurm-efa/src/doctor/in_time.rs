//! A look with a time limit: it is made in a child, so that a file system that does
//! not answer keeps the child, and not doctor.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Most bytes of a result that are read.
const LARGEST: u64 = 4 * 1024 * 1024;

/// How long a child that was killed may take to end.
const AFTER_KILL: Duration = Duration::from_millis(200);

/// What `look` finds; `None` where it does not end in time. A child that even
/// SIGKILL does not end is left to init.
pub fn in_time<T: Serialize + DeserializeOwned>(
    limit: Duration,
    look: impl FnOnce() -> T,
) -> Option<T> {
    let Ok((ours, theirs)) = UnixStream::pair() else {
        return Some(look());
    };
    // SAFETY: doctor has one thread, so the child is a whole copy of it; it ends by
    // _exit and returns to no caller.
    match unsafe { libc::fork() } {
        -1 => Some(look()),
        0 => {
            drop(ours);
            let seen = catch_unwind(AssertUnwindSafe(look));
            let told = seen.is_ok_and(|seen| serde_json::to_writer(&theirs, &seen).is_ok());
            // SAFETY: ends this process; what the parent has at its exit is its own.
            unsafe { libc::_exit(i32::from(!told)) }
        }
        child => {
            drop(theirs);
            let seen = read(ours, Instant::now() + limit);
            end(child);
            seen
        }
    }
}

/// The child's result, if all of it comes in time.
fn read<T: DeserializeOwned>(mut from: UnixStream, deadline: Instant) -> Option<T> {
    let mut bytes = Vec::new();
    let mut part = [0; 8192];
    loop {
        let left = deadline.checked_duration_since(Instant::now())?;
        // A limit of 0 is none.
        let left = left.max(Duration::from_millis(1));
        from.set_read_timeout(Some(left)).ok()?;
        match from.read(&mut part) {
            Ok(0) => return serde_json::from_slice(&bytes).ok(),
            Ok(count) => bytes.extend_from_slice(part.get(..count)?),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
        if bytes.len() as u64 > LARGEST {
            return None;
        }
    }
}

/// Ends the child, if it can be ended.
fn end(child: libc::pid_t) {
    // SAFETY: our child, which nobody has waited for: the number is still its own.
    unsafe { libc::kill(child, libc::SIGKILL) };
    let deadline = Instant::now() + AFTER_KILL;
    loop {
        // SAFETY: waits for our child only, and takes no status.
        let ended = unsafe { libc::waitpid(child, std::ptr::null_mut(), libc::WNOHANG) };
        if ended != 0 || Instant::now() >= deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_a_look_finds_comes_back() {
        let found = in_time(LONG, || "x".repeat(100_000));
        assert_eq!(found.map(|it| it.len()), Some(100_000));
    }

    #[test]
    fn a_look_that_does_not_end_costs_the_limit() {
        let start = Instant::now();
        let found = in_time(Duration::from_millis(50), || {
            std::thread::sleep(LONG);
            1
        });
        assert_eq!(found, None);
        assert!(start.elapsed() < LONG / 2);
    }

    #[test]
    fn a_look_that_panics_finds_nothing() {
        let found: Option<u8> = in_time(LONG, || panic!("on purpose"));
        assert_eq!(found, None);
    }
}
