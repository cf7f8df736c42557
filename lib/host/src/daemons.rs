//! Daemons of root, found in `/proc`.
//!
//! Any user may call a process by any name. So a daemon is a process whose four
//! user numbers are all root's and whose executable has the daemon's name. Nobody but
//! root can start one: a set-user-id program keeps its user's number or has
//! another file, and root in a user namespace has another number here. Whose file it is
//! does not matter: root chose to run it.
//!
//! A pid file would have to be found by slurm.conf, and can be of a daemon that is
//! gone.

use crate::{Pid, Sysroot, Uid};

/// A process that runs as root and is called so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Daemon {
    /// Its number.
    pub pid: Pid,
    /// It is certainly this node's: its executable could be seen, which takes root, and
    /// it is in the PID namespace of who looks. A container may have a daemon of the
    /// same name, and a process that was called so by a link to another program may be
    /// waiting for a password.
    pub is_nodes: bool,
}

/// The kernel keeps so much of a process' name.
const LONGEST_NAME: usize = 15;

/// A file of a process that is read has at most so many bytes.
const LARGEST: usize = 16 * 1024;

/// Processes that are looked at. A node of 192 CPUs has some 2000 of the kernel's
/// alone.
const MOST: usize = 65_536;

/// Every daemon of this name; `None` where the processes cannot be listed.
#[must_use]
pub fn of_root(sysroot: &Sysroot, name: &str) -> Option<Vec<Daemon>> {
    let pids = processes(sysroot)?.into_iter();
    Some(pids.filter_map(|pid| daemon(sysroot, pid, name)).collect())
}

/// The processes whose four user numbers are this user's; `None` where the processes
/// cannot be listed.
#[must_use]
pub fn of_user(sysroot: &Sysroot, uid: Uid) -> Option<Vec<Pid>> {
    let is_users = |pid: &Pid| {
        let status = of_process(sysroot, *pid, "status");
        status.is_some_and(|status| is_of(uid, &status))
    };
    let mut pids = processes(sysroot)?;
    pids.retain(is_users);
    Some(pids)
}

fn processes(sysroot: &Sysroot) -> Option<Vec<Pid>> {
    let mut pids = Vec::new();
    for entry in std::fs::read_dir(sysroot.path("proc")).ok()? {
        if pids.len() == MOST {
            return None;
        }
        let pid = entry.ok()?.file_name();
        pids.extend(pid.to_str().and_then(|pid| pid.parse().ok()).map(Pid));
    }
    Some(pids)
}

/// A file of a process.
#[must_use]
pub fn of_process(sysroot: &Sysroot, pid: Pid, file: &str) -> Option<String> {
    let place = format!("proc/{pid}/{file}");
    sysroot.read_bounded(&place, LARGEST).ok()
}

fn daemon(sysroot: &Sysroot, pid: Pid, name: &str) -> Option<Daemon> {
    let called = of_process(sysroot, pid, "comm")?;
    let is_so_called = called.trim_end() == name.get(..LONGEST_NAME).unwrap_or(name);
    if !is_so_called || !is_of(Uid::ROOT, &of_process(sysroot, pid, "status")?) {
        return None;
    }
    let link = |what: &str| sysroot.link_target_name(&format!("proc/{what}"));
    let exe = link(&format!("{pid}/exe"));
    // After an upgrade the kernel shows `slurmd (deleted)`. Debian's Slurm is an
    // alternative: /usr/sbin/slurmd leads to slurmd-wlm.
    let file = |exe: &String| {
        exe.split(' ')
            .next()
            .map(|it| it.strip_suffix("-wlm").unwrap_or(it) == name)
    };
    let runs = exe.as_ref().and_then(file);
    let namespaces = (link(&format!("{pid}/ns/pid")), link("self/ns/pid"));
    let is_elsewhere = matches!(&namespaces, (Some(its), Some(mine)) if its != mine);
    (runs != Some(false)).then_some(Daemon {
        pid,
        is_nodes: runs == Some(true) && !is_elsewhere,
    })
}

/// Reads `/proc/PID/status`, whose numbers are as the reader's user namespace has
/// them.
fn is_of(uid: Uid, status: &str) -> bool {
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let mut uids = uids.unwrap_or_default().split_ascii_whitespace();
    let four: [Option<u32>; 4] = std::array::from_fn(|_| uids.next()?.parse().ok());
    four == [Some(uid.0); 4] && uids.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::process::CommandExt as _;
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};

    #[test]
    fn only_four_numbers_of_root_are_roots() {
        for (uids, is) in [
            ("0\t0\t0\t0", true),
            ("1000\t0\t0\t0", false),
            ("0\t1000\t0\t0", false),
            ("0\t0\t0\t1000", false),
            ("0\t0\t0", false),
            ("0\t0\t0\t0\t0", false),
            ("", false),
        ] {
            assert_eq!(
                is_of(Uid::ROOT, &format!("Name:\tx\nUid:\t{uids}\n")),
                is,
                "{uids}"
            );
        }
        assert!(!is_of(Uid::ROOT, "Name:\tx\n"));
    }

    /// A program of its own name that waits until its input ends, and a process of it.
    struct Waits {
        child: Child,
        _folder: tempfile::TempDir,
    }

    impl Drop for Waits {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    fn copied(folder: &Path, name: &str) -> PathBuf {
        let program = folder.join(name);
        fs::copy("/bin/sh", &program).unwrap();
        program
    }

    /// Starts a command that ends with such a program, which says a line when it runs.
    fn waits(folder: tempfile::TempDir, command: &mut Command) -> Waits {
        use std::io::{BufRead as _, BufReader, Write as _};
        command.args(["-c", "read line && echo $line && read line"]);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(b"here\n").unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.as_mut().unwrap());
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "here\n");
        Waits {
            child,
            _folder: folder,
        }
    }

    fn folder() -> tempfile::TempDir {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    #[test]
    fn as_root_a_daemon_of_root_is_found_also_after_its_file_was_replaced() {
        let folder = folder();
        let program = copied(folder.path(), "zz-daemon-one");
        let running = waits(folder, &mut Command::new(&program));
        let found = || of_root(&Sysroot::real(), "zz-daemon-one").unwrap();
        let expected = [Daemon {
            pid: Pid(running.child.id()),
            is_nodes: true,
        }];
        assert_eq!(found(), expected);
        fs::remove_file(&program).unwrap();
        assert_eq!(found(), expected);
    }

    #[test]
    fn as_root_no_process_of_a_user_is_taken_for_a_daemon() {
        let own = folder();
        let program = copied(own.path(), "zz-daemon-two");
        let _own = waits(own, Command::new(&program).uid(20001).gid(20001));
        let mapped = folder();
        let program = copied(mapped.path(), "zz-daemon-two");
        // Root in a user namespace and a PID namespace.
        let mut command = Command::new("unshare");
        command.args([
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--kill-child",
        ]);
        let _mapped = waits(mapped, command.arg(&program).uid(20001).gid(20001));
        assert_eq!(of_root(&Sysroot::real(), "zz-daemon-two"), Some(Vec::new()));
    }

    #[test]
    fn as_root_a_daemon_in_another_pid_namespace_is_not_the_nodes() {
        let folder = folder();
        let program = copied(folder.path(), "zz-daemon-three");
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--fork", "--kill-child"])
            .arg(&program);
        let _running = waits(folder, &mut command);
        let found = of_root(&Sysroot::real(), "zz-daemon-three").unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(!found[0].is_nodes);
    }

    #[test]
    fn as_root_a_daemon_of_debians_alternatives_is_found_by_the_name_of_its_link() {
        let folder = folder();
        let program = copied(folder.path(), "zz-daemon-six-wlm");
        let link = folder.path().join("zz-daemon-six");
        std::os::unix::fs::symlink(program, &link).unwrap();
        let running = waits(folder, &mut Command::new(&link));
        let expected = [Daemon {
            pid: Pid(running.child.id()),
            is_nodes: true,
        }];
        let found = of_root(&Sysroot::real(), "zz-daemon-six");
        assert_eq!(found.unwrap(), expected);
    }

    #[test]
    fn as_root_another_program_of_root_that_is_called_so_by_a_link_is_none() {
        let folder = folder();
        let program = copied(folder.path(), "zz-other");
        let link = folder.path().join("zz-daemon-four");
        std::os::unix::fs::symlink(program, &link).unwrap();
        let running = waits(folder, &mut Command::new(&link));
        let called = of_process(&Sysroot::real(), Pid(running.child.id()), "comm");
        assert_eq!(called.as_deref(), Some("zz-daemon-four"));
        assert_eq!(
            of_root(&Sysroot::real(), "zz-daemon-four"),
            Some(Vec::new())
        );
    }

    #[test]
    fn a_daemon_whose_executable_cannot_be_seen_may_be_anothers() {
        let dir = tempfile::tempdir().unwrap();
        let process = dir.path().join("proc/7");
        fs::create_dir_all(&process).unwrap();
        fs::write(process.join("comm"), "slurmd\n").unwrap();
        fs::write(process.join("status"), "Uid:\t0\t0\t0\t0\n").unwrap();
        let found = of_root(&Sysroot::new(dir.path().into()), "slurmd").unwrap();
        let unsure = Daemon {
            pid: Pid(7),
            is_nodes: false,
        };
        assert_eq!(found, [unsure]);
    }
}
