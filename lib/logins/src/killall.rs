//! Kills all processes of a uid at once, where a session has no group: `kill(-1)`
//! as that user, which no process can outrun by forking.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use host::{Pid, Uid};

use crate::membership::User;
use crate::process::Processes;

/// Nobody has this uid, so nobody but root can signal the process that has it.
const UNUSED: libc::uid_t = libc::uid_t::MAX - 1;

/// Kills everything that runs as the user, and as those of the user's
/// subordinate uids that `targets` have; only if nothing but these targets runs
/// as that uid.
///
/// # Errors
/// For a person to read: why not.
pub fn of_user(user: &User, all: &Processes, targets: &BTreeSet<Pid>) -> Result<(), String> {
    let alive = || all.iter().filter(|it| !it.zombie);
    let mut uids: BTreeSet<Uid> = alive()
        .filter(|it| targets.contains(&it.identity.pid))
        .map(|it| it.uids.real())
        .filter(|uid| user.has_subordinate(*uid))
        .collect();
    uids.insert(user.uid);
    for uid in uids {
        // kill(2) compares with the real and the saved uid.
        let mut theirs = alive().filter(|it| [it.uids.real(), it.uids.saved()].contains(&uid));
        if let Some(other) = theirs.find(|it| !targets.contains(&it.identity.pid)) {
            let pid = other.identity.pid.0;
            return Err(format!(
                "process {pid} of uid {uid} belongs to none of these sessions"
            ));
        }
        of_uid(uid).map_err(|error| format!("kill(-1) as uid {uid}: {error}"))?;
    }
    Ok(())
}

fn of_uid(uid: Uid) -> io::Result<()> {
    let Uid(uid) = uid;
    // Root and init, and what a failure would make of it.
    if uid == 0 || uid == UNUSED || uid == libc::uid_t::MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let kill = move || {
        // SAFETY: plain integers; the child has one thread, whose uids these
        // are. Only the effective uid is the user's: the kernel compares that
        // one, and the user may not signal this process.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, UNUSED, uid, UNUSED) };
        if result == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: geteuid takes nothing and does not fail.
        if unsafe { libc::geteuid() } != uid {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        // SAFETY: plain integers. The kernel spares init and this process; what
        // it reaches is what the effective uid may signal.
        let result = unsafe { libc::kill(-1, libc::SIGKILL) };
        match io::Error::last_os_error().raw_os_error() {
            // Nobody is left.
            _ if result == 0 => {}
            Some(libc::ESRCH) => {}
            _ => return Err(io::Error::last_os_error()),
        }
        // Nothing is to be run: this ends the child.
        Err(io::Error::from_raw_os_error(libc::ECANCELED))
    };
    let mut child = Command::new("/proc/self/exe");
    child
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: the closure makes system calls only and does not allocate.
    unsafe { child.pre_exec(kill) };
    match child.spawn() {
        Err(error) if error.raw_os_error() == Some(libc::ECANCELED) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("the child went on")),
    }
}
