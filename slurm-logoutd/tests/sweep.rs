//! slurm-logout's sweep, which is slurm-logoutd's work done once, is killed
//! after each system call that changes anything; the next one ends what it should, and
//! neither ends anything else. Needs root.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use cdylib_tests::sigkill::{End, killed_after_change, sweep};
use host::BootId;
use host::process::ProcessIdentity;
use host::state_dir::{StateDir, Store};
use host::{Pid, Uid};
use logins::session::{PamItems, Records, Session};

/// Whose last job has ended, and who still has one. No accounts: nobody else's
/// processes are theirs.
const ALICE: u32 = 64_001;
const BOB: u32 = 64_002;

/// A node of its own: state, spool and configuration.
struct Node {
    dir: tempfile::TempDir,
}

/// A login: its leader, a shell in it, and that shell's program.
struct Login {
    leader: Child,
    program: ProcessIdentity,
}

impl Node {
    fn new() -> Self {
        let node = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let here = node.dir.path().display();
        fs::create_dir(node.path("spool")).unwrap();
        fs::write(
            node.path("slurm-efa.toml"),
            format!(
                "state_dir = \"{here}/state\"\n[logout]\nnode_name = \"n1\"\n\
                 spool_dir = \"{here}/spool\"\ngrace = \"0\"\n"
            ),
        )
        .unwrap();
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn state(&self) -> StateDir {
        StateDir::open(&self.path("state")).unwrap()
    }

    /// Bob's job, which answers for as long as the test runs.
    fn job_of_bob(&self) {
        let listener = UnixListener::bind(self.path("spool/n1_7.4294967292")).unwrap();
        thread::spawn(move || {
            while let Ok((mut client, _)) = listener.accept() {
                let _ = client.read_exact(&mut [0; 12]);
                for number in [40 << 8, BOB, 2] {
                    let _ = std::io::Write::write_all(&mut client, &number.to_ne_bytes());
                }
            }
        });
    }

    /// Somebody logs in.
    fn login(&self, uid: u32, exempt: bool) -> Login {
        let mut leader = Command::new("sh")
            .args(["-c", "sh -c 'sleep 86400 & echo $!; wait'; :"])
            .uid(uid)
            .gid(uid)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut program = String::new();
        let mut stdout = leader.stdout.take().unwrap();
        while !program.ends_with('\n') {
            let mut byte = [0];
            stdout.read_exact(&mut byte).unwrap();
            program.push(char::from(byte[0]));
        }
        let boot = BootId::current().unwrap();
        let identity = ProcessIdentity::of(Pid(leader.id())).unwrap().unwrap();
        let mut session = Session::new(boot, Uid(uid), "somebody", identity, PamItems::default());
        session.exempt = exempt;
        Records::open(&self.state()).unwrap().put(&session).unwrap();
        let program = Pid(program.trim().parse().unwrap());
        Login {
            leader,
            program: ProcessIdentity::of(program).unwrap().unwrap(),
        }
    }

    fn sweep(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slurm-logout"));
        command
            .arg("--config")
            .arg(self.path("slurm-efa.toml"))
            .arg("sweep")
            .stderr(Stdio::null());
        command
    }

    fn records(&self) -> usize {
        let records = Records::open(&self.state()).unwrap();
        let (sessions, problems) = records.list().unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        sessions.len()
    }
}

impl Login {
    fn is_alive(&mut self) -> bool {
        self.leader.try_wait().unwrap().is_none() && self.program.is_alive()
    }

    fn ended(&mut self) -> bool {
        self.leader.try_wait().unwrap().is_some() && !self.program.is_alive()
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        // The program's end is that of the shell, and the shell's the leader's.
        let _ = self.program.signal(rustix::process::Signal::KILL);
        let _ = self.leader.kill();
        let _ = self.leader.wait();
    }
}

#[test]
fn a_sweep_killed_anywhere_ends_nobody_wrongly_and_the_next_one_ends_what_is_left() {
    let node = Node::new();
    node.job_of_bob();
    let mut bob = node.login(BOB, false);
    let mut exempt = node.login(ALICE, true);
    let changes = sweep(|changes| {
        let mut alice = node.login(ALICE, false);
        let end = killed_after_change(changes, &mut node.sweep()).unwrap();
        assert!(bob.is_alive() && exempt.is_alive(), "{changes}");
        if end == End::Killed {
            let next = node.sweep().status().unwrap();
            assert!(next.success(), "{changes}: {next}");
        }
        assert!(alice.ended(), "{changes}: the session goes on");
        assert!(bob.is_alive() && exempt.is_alive(), "{changes}");
        // Nothing of it is left that a later login could be taken for.
        assert_eq!(node.records(), 2, "{changes}");
        let notices = node.state().folder("logout").unwrap().names().unwrap();
        assert_eq!(notices, [""; 0], "{changes}");
        for folder in ["sessions", "logout"] {
            let left = fs::read_dir(node.path("state").join(folder)).unwrap();
            let torn = left.flatten().filter(|it| {
                let name = it.file_name();
                name.as_encoded_bytes().starts_with(b".tmp.")
            });
            assert_eq!(torn.count(), 0, "{changes}: {folder}");
        }
        Ok::<_, ()>(end)
    })
    .unwrap();
    println!("killed after each of {changes} changes");
    assert!(changes > 20, "{changes}: it was not the program");
}
