//! A program that logs in through the machine's libpam, many times in one
//! process: what a module costs, and whether it leaves something behind.

use std::path::Path;
use std::time::Instant;

use cdylib_tests::libpam::{Libpam, SUCCESS, Scope};
use cdylib_tests::statistics::median;

use crate::Outcome;

/// Prints `account open close` in microseconds, medians, then what the process
/// has grown by: descriptors, and KiB of memory.
///
/// # Errors
/// When libpam has no `pam_start_confdir`, or a login is refused.
pub fn run(confdir: &Path, service: &str, user: &str, rounds: u32) -> Outcome {
    let libpam = Libpam::load(Scope::Global)?;
    // Filled now, so that it does not count as grown.
    let mut times = [0; 3].map(|_| vec![f64::NAN; rounds as usize]);
    let mut before = (0, 0);
    for round in 0..rounds {
        let mut login = libpam.start(confdir, service, user)?;
        let phases = [c"pam_acct_mgmt", c"pam_open_session", c"pam_close_session"];
        for (phase, times) in phases.into_iter().zip(&mut times) {
            let begun = Instant::now();
            let code = login.call(phase, 0)?;
            times[round as usize] = begun.elapsed().as_secs_f64() * 1e6;
            if code != SUCCESS {
                return Err(format!("{phase:?}: PAM's code {code}").into());
            }
        }
        drop(login);
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
