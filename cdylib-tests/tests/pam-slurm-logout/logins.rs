//! The PAM module and slurm-logoutd on a real sshd and a real Slurm.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cdylib_tests::logins::{self, CLIENT, Logins, STATE, Site};
use cdylib_tests::testbed::{JobState, LIMIT, Running, Testbed};
use cdylib_tests::{efa_cluster, modules};

const NO_GRACE: &str = "grace = \"0\"";

fn testbed() -> Testbed {
    Testbed::builder().start().unwrap()
}

/// A session of alice's that is open and used by `sleep SECONDS`.
fn sleeper<'tb>(logins: &Logins<'tb>, user: &str, seconds: &str) -> Running<'tb> {
    let client = logins.ssh(user, &["sleep", seconds]).spawn().unwrap();
    logins
        .wait_process(user, &format!("sleep {seconds}"))
        .unwrap();
    client
}

fn wait_nothing_left(logins: &Logins<'_>, user: &str) {
    logins
        .wait(&format!("nothing of {user} to be left"), || {
            Ok(logins.processes(user)?.trim().is_empty())
        })
        .unwrap();
}

#[test]
fn without_a_job_the_client_is_told_why_and_how_to_get_in() {
    let tb = testbed();
    let logins = Logins::start(&tb, &Site::default()).unwrap();
    let refused = logins.ssh("alice", &["true"]).output().unwrap();
    assert!(!refused.success());
    for words in [
        "Access to n1 is refused",
        "no job running",
        "salloc, sbatch or srun",
    ] {
        assert!(refused.stderr.contains(words), "{refused}");
    }
    let root = logins.ssh("root", &["true"]).output().unwrap();
    assert!(root.success(), "{root}\n{}", logins.log("sshd"));

    let job = logins.job("alice").unwrap();
    let admitted = logins.ssh("alice", &["echo", "$SLURM_JOB_ID"]).output();
    let admitted = admitted.unwrap();
    assert!(admitted.success(), "{admitted}\n{}", logins.log("sshd"));
    assert_eq!(admitted.stdout.trim(), job.to_string());
    tb.restart_slurmd("n1").unwrap();
    let later = logins.ssh("alice", &["true"]).output().unwrap();
    assert!(later.success(), "after a restart of slurmd: {later}");
    tb.scontrol(&["suspend", &job.to_string()]).unwrap();
    let suspended = logins.ssh("alice", &["true"]).output().unwrap();
    // What is frozen cannot be killed, and would hold the testbed's end up.
    tb.scontrol(&["resume", &job.to_string()]).unwrap();
    assert!(suspended.success(), "with a suspended job: {suspended}");
}

#[test]
fn a_login_by_keyboard_interactive_is_refused_recorded_and_ended_like_any() {
    let tb = testbed();
    let site = Site {
        sshd: "Match User alice\nKbdInteractiveAuthentication yes\n\
               AuthenticationMethods keyboard-interactive"
            .to_owned(),
        ..Site::with(NO_GRACE)
    };
    let logins = Logins::start(&tb, &site).unwrap();
    let _daemon = logins.daemon().unwrap();
    let options = [
        "-o",
        "BatchMode=no",
        "-o",
        "PreferredAuthentications=keyboard-interactive",
    ];
    let ssh = |script: &str| logins.ssh_with("alice", &options, &[script]);
    let refused = ssh("true").output().unwrap();
    assert!(!refused.success());
    assert!(
        refused.stderr.contains("Access to n1 is refused"),
        "{refused}\n{}",
        logins.log("sshd")
    );
    let job = logins.job("alice").unwrap();
    let admitted = ssh("echo $SLURM_JOB_ID").output().unwrap();
    assert_eq!(
        admitted.stdout.trim(),
        job.to_string(),
        "{admitted}\n{}",
        logins.log("sshd")
    );
    let mut client = ssh("sleep 3600").spawn().unwrap();
    logins.wait_process("alice", "sleep 3600").unwrap();
    tb.scancel(job).unwrap();
    logins.wait_end("the session", &mut client).unwrap();
    wait_nothing_left(&logins, "alice");
}

#[test]
fn with_the_plugin_a_job_counts_from_its_prolog_to_its_epilog_even_without_a_step() {
    let tb = efa_cluster::cluster("", &["p5.48xlarge"])
        .without_contain()
        .slurm_conf_extra("PrologFlags=Alloc")
        .prepare(|dir| {
            // Slurm runs it after the other, whose name comes later.
            let path = dir.join("site/prolog.d/a-site");
            let script = "#!/bin/sh\nuntil [ -e \"${0%/*}/../../go\" ]; do sleep 0.1; done\n";
            fs::write(&path, script)?;
            fs::set_permissions(path, Permissions::from_mode(0o755))
        })
        .start()
        .unwrap();
    let site = Site {
        state: tb.dir().join("state"),
        ..Site::with(NO_GRACE)
    };
    let logins = Logins::start(&tb, &site).unwrap();
    let _daemon = logins.daemon().unwrap();
    let count = |dir: &Path, part: &str| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name());
        names
            .filter(|name| name.to_string_lossy().contains(part))
            .count()
    };
    let jobs = site.state.join("jobs");
    let salloc = tb.command("alice", &["salloc", "--no-shell", "-n1"]);
    let salloc = salloc.timeout(LIMIT).spawn().unwrap();
    logins
        .wait("the prolog", || Ok(count(&jobs, "@n1") == 1))
        .unwrap();
    let mut client = sleeper(&logins, "alice", "3600");

    fs::write(tb.dir().join("go"), "").unwrap();
    let granted = salloc.wait().unwrap();
    assert!(granted.success(), "{granted}");
    assert_eq!(count(&tb.dir().join("spool/n1"), "n1_"), 0, "it has a step");
    let id = logins.ssh("alice", &["echo", "$SLURM_JOB_ID"]).output();
    let id = id.unwrap();
    assert!(granted.stderr.contains(id.stdout.trim()), "{granted}\n{id}");
    assert!(!id.stdout.trim().is_empty() && !client.ended().unwrap());

    tb.command("alice", &["scancel", id.stdout.trim()])
        .success()
        .unwrap();
    logins.wait_end("the session", &mut client).unwrap();
    assert_eq!(count(&jobs, "@n1"), 0, "its record is there");
    wait_nothing_left(&logins, "alice");
}

#[test]
fn every_kind_of_session_lives_with_the_second_job_and_ends_with_the_last() {
    let tb = testbed();
    let site = Site::with("grace = \"1s\"");
    let logins = Logins::start(&tb, &site).unwrap();
    let _daemon = logins.daemon().unwrap();
    let first = logins.job("alice").unwrap();
    let second = logins.job("alice").unwrap();

    let mut clients: Vec<(&str, Running<'_>)> = Vec::new();
    let shell = logins.ssh_with("alice", &["-tt"], &[]).spawn().unwrap();
    clients.push(("scp", transfer(&logins)));
    clients.push(("command", sleeper(&logins, "alice", "3601")));
    // At its prompt, sftp does not notice the end; its server's is looked for.
    let _sftp = sftp(&logins);
    let forward = ["-N", "-L", "9999:127.0.0.1:2222"];
    clients.push((
        "forward",
        logins.ssh_with("alice", &forward, &[]).spawn().unwrap(),
    ));
    let socket = tb.dir().join("ssh/control").display().to_string();
    let master = ["-M", "-N", "-S", &socket];
    fs::set_permissions(tb.dir().join("ssh"), Permissions::from_mode(0o777)).unwrap();
    clients.push((
        "master",
        logins.ssh_with("alice", &master, &[]).spawn().unwrap(),
    ));
    logins
        .wait("the master", || Ok(Path::new(&socket).exists()))
        .unwrap();
    for seconds in ["3602", "3603", "3604"] {
        let channel = logins.ssh_with("alice", &["-S", &socket], &["sleep", seconds]);
        clients.push(("channel", channel.spawn().unwrap()));
        logins
            .wait_process("alice", &format!("sleep {seconds}"))
            .unwrap();
    }
    for leave in [
        "tmux -L t new-session -d 'sleep 3605'",
        // As a server of an editor does it: no terminal, a session of its own.
        "(setsid sh -c 'sleep 3606 & exec sleep 3607' </dev/null >/dev/null 2>&1 &)",
        "nohup sleep 3608 </dev/null >/dev/null 2>&1 &",
    ] {
        assert!(logins.ssh("alice", &[leave]).output().unwrap().success());
    }
    for left in ["sleep 3605", "sleep 3606", "sleep 3607", "sleep 3608"] {
        logins.wait_process("alice", left).unwrap();
    }
    logins
        .wait("six connections", || {
            Ok(logins.status()?.matches("\"connected\": true").count() == 6)
        })
        .unwrap();
    let mut bystander = {
        logins.job("bob").unwrap();
        sleeper(&logins, "bob", "3609")
    };
    let mut of_root = sleeper(&logins, "root", "3610");

    tb.scancel(first).unwrap();
    logins
        .wait("the first job to be gone", || {
            let status = logins.status()?;
            Ok(!status.contains(&format!("\n        {first},")))
        })
        .unwrap();
    for (kind, client) in &mut clients {
        assert!(
            !client.ended().unwrap(),
            "{kind} has ended with the first job"
        );
    }
    assert!(!logins.log("logoutd").contains("no job is left"));

    tb.scancel(second).unwrap();
    for (kind, client) in &mut clients {
        logins.wait_end(kind, client).unwrap();
    }
    let said = shell.wait().unwrap().stdout;
    for words in ["your last job on n1 has ended", "ends in 1 s", "ends now"] {
        assert!(said.contains(words), "{words:?} is not in {said:?}");
    }
    wait_nothing_left(&logins, "alice");
    assert!(!bystander.ended().unwrap() && !of_root.ended().unwrap());
    logins
        .wait("the records to be gone", || {
            Ok(!logins.status()?.contains("\"user\": \"alice\""))
        })
        .unwrap();
}

fn transfer<'tb>(logins: &Logins<'tb>) -> Running<'tb> {
    let big = logins.tb.dir().join("ssh/big");
    fs::File::create(&big).unwrap().set_len(1 << 30).unwrap();
    let script = "exec scp -q -l 800 -F \"$0/ssh/client\" \"$0/ssh/big\" alice@n1:/dev/null";
    let client = logins
        .tb
        .command(CLIENT, &["bash", "-c", script])
        .arg(logins.tb.dir());
    let client = client.timeout(LIMIT * 4).spawn().unwrap();
    logins.wait_process("alice", "sftp-server").unwrap();
    client
}

fn sftp<'tb>(logins: &Logins<'tb>) -> Running<'tb> {
    let script = "exec sftp -q -F \"$0/ssh/client\" alice@n1 < <(exec sleep 3600 2>/dev/null)";
    let client = logins
        .tb
        .command(CLIENT, &["bash", "-c", script])
        .arg(logins.tb.dir());
    client.timeout(LIMIT * 4).spawn().unwrap()
}

#[test]
fn however_the_job_ends_the_session_does_too() {
    let tb = Testbed::builder()
        .nodes(1)
        .slurm_conf_extra("PreemptType=preempt/partition_prio\nPreemptMode=CANCEL")
        .start()
        .unwrap();
    let high = [
        "create",
        "PartitionName=high",
        "Nodes=n1",
        "PriorityTier=100",
    ];
    tb.scontrol(&high).unwrap();
    let logins = Logins::start(&tb, &Site::with(NO_GRACE)).unwrap();
    let _daemon = logins.daemon().unwrap();
    let whole = ["--exclusive", "--no-requeue"];
    let waits = |end: &str| format!("#!/bin/bash\nuntil [ -e ~/go ]; do sleep 0.1; done\n{end}\n");
    let go = tb.user("alice").unwrap().home.join("go");
    type End<'a> = Box<dyn Fn(cdylib_tests::testbed::JobId) + 'a>;
    let touch = || -> End<'_> { Box::new(|_| fs::write(&go, "").unwrap()) };
    let ends: Vec<(JobState, &str, End<'_>)> = vec![
        (JobState::Completed, "true", touch()),
        (JobState::Failed, "exit 3", touch()),
        (
            JobState::Cancelled,
            "",
            Box::new(|job| tb.scancel(job).unwrap()),
        ),
        (
            JobState::Timeout,
            "",
            Box::new(|job| {
                let end = format!("EndTime={}", "now");
                tb.scontrol(&["update", &format!("JobId={job}"), &end])
                    .unwrap();
            }),
        ),
        (
            JobState::Preempted,
            "",
            Box::new(|_| {
                let high = ["-phigh", "--exclusive", "-n1"];
                tb.sbatch("bob", "#!/bin/bash\ntrue\n", &high).unwrap();
            }),
        ),
    ];
    for (state, script, end) in ends {
        let _ = fs::remove_file(&go);
        let job = logins.job_with("alice", &waits(script), &whole).unwrap();
        let mut client = sleeper(&logins, "alice", "3600");
        end(job);
        logins.wait_end(&format!("{state:?}"), &mut client).unwrap();
        assert_eq!(tb.wait_job(job).unwrap(), state);
        wait_nothing_left(&logins, "alice");
        logins
            .wait("an empty queue", || Ok(tb.queue_len()? == 0))
            .unwrap();
    }

    // The node fails: nobody is left to tidy up, so the socket stays.
    logins.job("alice").unwrap();
    let mut client = sleeper(&logins, "alice", "3600");
    tb.stop_slurmd("n1").unwrap();
    tb.command("root", &["pkill", "-9", "^slurmstepd"])
        .success()
        .unwrap();
    logins.wait_end("node failure", &mut client).unwrap();
}

#[test]
fn nobody_escapes_and_nobody_else_is_harmed() {
    let tb = testbed();
    let site = Site {
        sshd: "AcceptEnv *\nPermitUserEnvironment yes".to_owned(),
        ..Site::with(NO_GRACE)
    };
    let logins = Logins::start(&tb, &site).unwrap();
    let _daemon = logins.daemon().unwrap();
    let job = logins.job("alice").unwrap();
    logins.job("bob").unwrap();
    let mut bystander = sleeper(&logins, "bob", "3700");
    let mut of_root = sleeper(&logins, "root", "3701");
    let escapes = [
        // Stops the process of sshd that serves it, and itself.
        "kill -STOP $PPID; exec sleep 3711",
        "kill -STOP $$; exec sleep 3711",
        "trap '' HUP TERM INT; while :; do sleep 1; done",
        "exec -a 'sshd: bob [priv]' sleep 3712",
        "exec -a 'slurmstepd: [1.0]) S 1 1 (' sleep 3713",
        "(setsid setsid sh -c '(sleep 3714 &) ; exec sleep 3715' &) ; sleep 3716",
        // Without any terminal or stream, and with all odd names set.
        "exec >&- 2>&- <&-; sleep 3717",
        "trap '' HUP TERM; while :; do (sleep 1 &); sleep 0.05; done",
    ];
    let odd = "SetEnv=PAM_USER=root PAM_SERVICE=\u{1b}[2J PAM_TTY=/dev/sda SSH_CONNECTION=x \
               SSH_TTY=/dev/pts/0 SLURM_JOB_ID=999999 XDG_SESSION_ID=../1";
    let mut clients: Vec<Running<'_>> = escapes
        .iter()
        .map(|escape| {
            let bash = format!("bash -c {}", quoted(escape));
            logins
                .ssh_with("alice", &["-o", odd], &[&bash])
                .spawn()
                .unwrap()
        })
        .collect();
    for part in [
        "sleep 3711",
        "sshd: bob [priv]",
        "slurmstepd: [1.0])",
        "3714",
        "3717",
    ] {
        logins.wait_process("alice", part).unwrap();
    }
    logins
        .wait("all sessions to be recorded", || {
            Ok(logins.status()?.matches("\"user\": \"alice\"").count() == escapes.len())
        })
        .unwrap();
    // Somebody who is not root can add no records.
    let fake = format!("echo x > {STATE}/sessions/1-1.json || ln -s /etc {STATE}/sessions/x");
    let faked = tb.command("alice", &["sh", "-c", &fake]).output().unwrap();
    assert!(!faked.success(), "{faked}");

    tb.scancel(job).unwrap();
    for (client, escape) in clients.iter_mut().zip(escapes) {
        logins.wait_end(escape, client).unwrap();
    }
    wait_nothing_left(&logins, "alice");
    assert!(!bystander.ended().unwrap() && !of_root.ended().unwrap());
    assert!(!logins.log("logoutd").contains('\u{1b}'));
}

#[test]
fn a_variable_of_the_users_own_names_no_session_that_logind_shall_end() {
    let tb = testbed();
    let logins = Logins::start(&tb, &Site::default()).unwrap();
    logins.job("alice").unwrap();
    let file = tb.user("alice").unwrap().home.join(".pam_environment");
    fs::write(file, "XDG_SESSION_ID DEFAULT=4711\n").unwrap();
    let login = "echo $XDG_SESSION_ID; exec sleep 3600";
    let client = logins.ssh("alice", &[login]).spawn().unwrap();
    logins.wait_process("alice", "sleep 3600").unwrap();
    let cat = format!("cat {STATE}/sessions/*.json");
    let records = tb.command("root", &["sh", "-c", &cat]).success().unwrap();
    let named = records.stdout.contains("\"4711\"") || records.stdout.contains("session-4711");
    assert!(!named, "{records}");
    logins.command(&["end", "alice"]).success().unwrap();
    let said = client.wait().unwrap().stdout;
    assert_eq!(said.trim(), "4711", "libpam's environment had it");
}

/// Programs of alice's that try to outlive her sessions.
struct Escapes<'tb> {
    /// What each is, and the lock that it holds as long as it lives.
    locks: Vec<(String, PathBuf)>,
    /// Clients that stay connected.
    connected: Vec<Running<'tb>>,
}

impl<'tb> Escapes<'tb> {
    /// Starts each attack twice: once in a session that stays connected, once
    /// in one that it leaves behind.
    fn start(logins: &Logins<'tb>) -> Self {
        let tb = logins.tb;
        let program = tb.dir().join("escape");
        fs::copy(modules::test_program("escape"), &program).unwrap();
        let folder = tb.dir().join("locks");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
        let namespace = "unshare --user --map-root-user --map-auto";
        let mut escapes = Self {
            locks: Vec::new(),
            connected: Vec::new(),
        };
        let mut left = Vec::new();
        for (name, by, attack) in [
            ("chain-0.3ms", "", "chain 300"),
            ("chain-2ms", "", "chain 2000"),
            ("chain-20ms", "", "chain 20000"),
            ("uid-all", namespace, "uid all"),
            ("uid-real", namespace, "uid real"),
        ] {
            for connected in [true, false] {
                let name = format!("{name}-{}", if connected { "connected" } else { "left" });
                let lock = folder.join(&name);
                let line = format!(
                    "setsid {by} {} {attack} {}",
                    program.display(),
                    lock.display()
                );
                let script = if connected {
                    format!("{line} & exec sleep 3600")
                } else {
                    format!(
                        "({line} </dev/null >/dev/null 2>&1 &) ; until [ -s {} ]; do sleep 0.01; done",
                        lock.display()
                    )
                };
                let client = logins.ssh("alice", &[&script]).spawn().unwrap();
                if connected {
                    escapes.connected.push(client);
                } else {
                    left.push(client);
                }
                escapes.locks.push((name, lock));
            }
        }
        logins
            .wait("all to run", || {
                Ok(escapes.alive().len() == escapes.locks.len())
            })
            .unwrap();
        for client in &mut left {
            logins
                .wait_end("a session that is left behind", client)
                .unwrap();
        }
        escapes
    }

    /// Those that hold their lock: exact, however fast they fork.
    fn alive(&self) -> Vec<&str> {
        let held = |path: &Path| logins::is_locked(path).unwrap_or(false);
        let alive = self.locks.iter().filter(|(_, lock)| held(lock));
        alive.map(|(name, _)| name.as_str()).collect()
    }
}

/// Of alice's escapes, none is alive once the daemon has reported the end; bob
/// and root see nothing of it.
fn no_escape_outlives_the_report(site: &Site, prepare: &str) {
    let tb = testbed();
    let _unified = Unified(&tb);
    tb.command("root", &["sh", "-c", prepare])
        .success()
        .unwrap();
    let logins = Logins::start(&tb, site).unwrap();
    let _daemon = logins.daemon().unwrap();
    let job = logins.job("alice").unwrap();
    logins.job("bob").unwrap();
    let mut bystander = sleeper(&logins, "bob", "3700");
    let mut of_root = sleeper(&logins, "root", "3701");
    let escapes = Escapes::start(&logins);
    tb.scancel(job).unwrap();
    logins
        .wait("the report", || {
            let log = logins.log("logoutd");
            let reports = [" sessions ended", "nothing of ", "survive SIGKILL"];
            Ok(reports.iter().any(|report| log.contains(report)))
        })
        .unwrap();
    let alive = escapes.alive();
    let log = logins.log("logoutd");
    assert!(alive.is_empty(), "alive: {alive:?}\n{log}");
    assert!(log.contains("sessions ended"), "{log}");
    wait_nothing_left(&logins, "alice");
    assert!(!bystander.ended().unwrap() && !of_root.ended().unwrap());
    logins
        .wait("the records to be gone", || {
            Ok(!logins.status()?.contains("\"user\": \"alice\""))
        })
        .unwrap();
    let count = "ls -d /sys/fs/cgroup/*/slurm-efa-logins/*-* 2>/dev/null | wc -l";
    let groups = tb.command("root", &["sh", "-c", count]).success().unwrap();
    let bobs = usize::from(prepare != NO_GROUP);
    assert_eq!(groups.stdout.trim(), bobs.to_string(), "groups are left");
}

#[test]
fn no_fork_chain_or_subordinate_uid_outlives_its_session() {
    no_escape_outlives_the_report(&Site::with(NO_GRACE), "true");
}

#[test]
fn no_fork_chain_or_subordinate_uid_outlives_its_user_with_leftovers_user() {
    let site = Site::with("grace = \"0\"\nleftovers = \"user\"");
    no_escape_outlives_the_report(&site, "true");
}

#[test]
fn no_fork_chain_or_subordinate_uid_outlives_its_session_under_cgroup_v2() {
    no_escape_outlives_the_report(&Site::with(NO_GRACE), UNIFIED);
}

#[test]
fn no_fork_chain_or_subordinate_uid_outlives_its_user_without_a_control_group() {
    let site = Site::with("grace = \"0\"\nleftovers = \"user\"");
    no_escape_outlives_the_report(&site, NO_GROUP);
}

/// Groups of sessions cannot be made.
const NO_GROUP: &str = "dir=/sys/fs/cgroup/freezer/slurm-efa-logins; \
                        mkdir $dir && mount -t tmpfs -o ro none $dir";

/// Part of cgroup v2 beside v1, as in systemd's hybrid layout.
const UNIFIED: &str = "mkdir -p /run/v2 /sys/fs/cgroup/unified && mount -t cgroup2 none /run/v2 && \
                       dir=/run/v2/slurm-efa-tb.$(readlink /proc/self/ns/pid | tr -dc 0-9) && \
                       mkdir $dir && mount --bind $dir /sys/fs/cgroup/unified";

/// What ends with the part of cgroup v2 that a test has.
struct Unified<'tb>(&'tb Testbed);

impl Drop for Unified<'_> {
    fn drop(&mut self) {
        let script = "dir=/run/v2/slurm-efa-tb.$(readlink /proc/self/ns/pid | tr -dc 0-9); \
                      [ -d $dir ] || exit 0; echo 1 >$dir/cgroup.kill; n=0; \
                      while [ -d $dir ] && [ $n -lt 100 ]; do sleep 0.05; n=$((n + 1)); \
                      find $dir -depth -type d -exec rmdir {} \\; 2>/dev/null; done; :";
        let _ = self.0.command("root", &["sh", "-c", script]).output();
    }
}

#[test]
fn root_and_another_user_in_a_sessions_control_group_live_on_after_it() {
    for prepare in ["true", UNIFIED] {
        let tb = testbed();
        let _unified = Unified(&tb);
        tb.command("root", &["sh", "-c", prepare])
            .success()
            .unwrap();
        let logins = Logins::start(&tb, &Site::with(NO_GRACE)).unwrap();
        let _daemon = logins.daemon().unwrap();
        let job = logins.job("alice").unwrap();
        let mut alice = sleeper(&logins, "alice", "3730");
        // As sudo and su leave processes in the session of who called them.
        let enter = "for dir in /sys/fs/cgroup/*/slurm-efa-logins/*-*; do \
                     echo $$ >$dir/cgroup.procs && touch $0/in.$1 && break; done; \
                     exec setpriv --reuid $1 --clear-groups sh -c \
                     'until [ -e $0/go ]; do sleep 0.05; done' $0";
        let mut spared: Vec<Running<'_>> = ["0", "20002"]
            .iter()
            .map(|uid| {
                let client = tb.command("root", &["sh", "-c", enter]).arg(tb.dir());
                let client = client.arg(uid).timeout(LIMIT).spawn().unwrap();
                let inside = tb.dir().join(format!("in.{uid}"));
                logins
                    .wait("it to be in the group", || Ok(inside.exists()))
                    .unwrap();
                client
            })
            .collect();
        tb.scancel(job).unwrap();
        logins.wait_end("the session", &mut alice).unwrap();
        logins
            .wait("the report", || {
                Ok(logins.log("logoutd").contains("sessions ended"))
            })
            .unwrap();
        wait_nothing_left(&logins, "alice");
        for process in &mut spared {
            assert!(!process.ended().unwrap(), "{}", logins.log("logoutd"));
        }
        // They are not frozen either.
        fs::write(tb.dir().join("go"), "").unwrap();
        for process in &mut spared {
            logins.wait_end("what was spared", process).unwrap();
        }
    }
}

#[test]
fn what_an_idle_session_left_behind_ends_with_the_last_job() {
    let tb = testbed();
    let logins = Logins::start(&tb, &Site::with("grace = \"0\"\nidle_after = \"1s\"")).unwrap();
    let _daemon = logins.daemon().unwrap();
    let job = logins.job("alice").unwrap();
    let leave = "(setsid sleep 3741 </dev/null >/dev/null 2>&1 &); exec sleep 3740";
    let mut idle = logins.ssh("alice", &[leave]).spawn().unwrap();
    logins.wait_process("alice", "sleep 3741").unwrap();
    logins.wait_end("the idle session", &mut idle).unwrap();
    logins
        .wait("the report", || {
            Ok(logins.log("logoutd").contains("sessions ended"))
        })
        .unwrap();
    let left = logins.processes("alice").unwrap();
    assert!(left.contains("sleep 3741"), "{left}");
    tb.scancel(job).unwrap();
    wait_nothing_left(&logins, "alice");
}

#[test]
fn a_terminal_that_stands_still_or_is_closed_holds_nobody_up() {
    let tb = testbed();
    let logins = Logins::start(&tb, &Site::with("grace = \"1s\"")).unwrap();
    let _daemon = logins.daemon().unwrap();
    let job = logins.job("alice").unwrap();
    let on_terminal = |script: &str, seconds: &str| {
        let shell = ["-tt"];
        let client = logins.ssh_with("alice", &shell, &[script]).spawn().unwrap();
        logins
            .wait_process("alice", &format!("sleep {seconds}"))
            .unwrap();
        client
    };
    // What Ctrl-S does, by the user's own program: writing to it waits.
    let still = "perl -MPOSIX -e 'tcflow(1, TCOOFF)'; exec sleep 3621";
    let still = on_terminal(still, "3621");
    let closed = on_terminal("exec sleep 3622 <&- >&- 2>&-", "3622");
    let plain = on_terminal("exec sleep 3623", "3623");
    tb.scancel(job).unwrap();
    for (kind, mut client) in [("still", still), ("closed", closed)] {
        logins.wait_end(kind, &mut client).unwrap();
    }
    let said = plain.wait().unwrap().stdout;
    assert!(said.contains("ends now"), "{said:?}");
    wait_nothing_left(&logins, "alice");
}

#[test]
fn a_flood_of_events_in_the_spool_directory_hides_no_end_of_a_job() {
    let tb = testbed();
    let logins = Logins::start(&tb, &Site::with(NO_GRACE)).unwrap();
    let _daemon = logins.daemon().unwrap();
    let job = logins.job("alice").unwrap();
    let mut client = sleeper(&logins, "alice", "3600");
    let script = "cd \"$1\"; while :; do : >.flood && rm .flood; done";
    let flood = tb
        .command("root", &["sh", "-c", script, "sh"])
        .arg(tb.dir().join("spool/n1"));
    let _flood = flood.timeout(LIMIT * 2).spawn().unwrap();
    tb.scancel(job).unwrap();
    logins.wait_end("the session", &mut client).unwrap();
    wait_nothing_left(&logins, "alice");
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[test]
fn a_new_job_within_the_grace_keeps_the_session_and_says_so() {
    let tb = testbed();
    let logins = Logins::start(&tb, &Site::with("grace = \"10m\"")).unwrap();
    let _daemon = logins.daemon().unwrap();
    let job = logins.job("alice").unwrap();
    let mut shell = logins.ssh_with("alice", &["-tt"], &[]).spawn().unwrap();
    logins.wait_process("alice", "-bash").unwrap();
    tb.scancel(job).unwrap();
    logins
        .wait("the warning", || {
            Ok(logins.log("logoutd").contains("end in 600 s"))
        })
        .unwrap();
    assert!(logins.status().unwrap().contains("\"ends_in_s\": 5"));
    logins.job("alice").unwrap();
    logins
        .wait("the end of it", || {
            Ok(logins.log("logoutd").contains("the sessions stay"))
        })
        .unwrap();
    assert!(!shell.ended().unwrap());
    assert!(logins.status().unwrap().contains("\"ends_in_s\": null"));
    let ended = logins.command(&["end", "alice"]).output().unwrap();
    assert!(ended.success(), "{ended}");
    let said = shell.wait().unwrap().stdout;
    assert!(said.contains("this login stays"), "{said:?}");
}

#[test]
fn a_deadline_survives_the_daemon_and_two_daemons_do_not_run() {
    let tb = testbed();
    let logins = Logins::start(&tb, &Site::with("grace = \"10m\"")).unwrap();
    let daemon = logins.daemon().unwrap();
    let twin = tb
        .command("root", &[modules::program("slurm-logoutd")])
        .arg("--config")
        .arg(tb.dir().join("site/slurm-efa.toml"))
        .output()
        .unwrap();
    assert!(
        twin.stderr.contains("another process has held this lock"),
        "{twin}"
    );
    let job = logins.job("alice").unwrap();
    let mut client = sleeper(&logins, "alice", "3600");
    tb.scancel(job).unwrap();
    logins
        .wait("the warning", || {
            Ok(logins.log("logoutd").contains("end in 600 s"))
        })
        .unwrap();
    let notice = || {
        let cat = format!("cat {STATE}/logout/20001.json");
        tb.command("root", &["sh", "-c", &cat])
            .success()
            .unwrap()
            .stdout
    };
    let before = notice();
    drop(daemon);
    let daemon = logins.daemon().unwrap();
    assert_eq!(notice(), before, "the deadline is the same");
    assert_eq!(logins.log("logoutd").matches("no job is left").count(), 1);
    assert!(!client.ended().unwrap());
    drop(daemon);

    // While no daemon runs, the deadline passes.
    let past = "sed -i 's/\"deadline\":[0-9]*/\"deadline\":1/' /run/slurm-efa/logout/20001.json";
    tb.command("root", &["sh", "-c", past]).success().unwrap();
    let _daemon = logins.daemon().unwrap();
    logins.wait_end("the session", &mut client).unwrap();
    wait_nothing_left(&logins, "alice");
}

#[test]
fn what_a_daemon_that_was_killed_began_to_end_the_next_one_ends() {
    let tb = testbed();
    let logins = Logins::start(&tb, &Site::with(NO_GRACE)).unwrap();
    let daemon = logins.daemon().unwrap();
    let job = logins.job("alice").unwrap();
    logins.job("bob").unwrap();
    let mut bystander = sleeper(&logins, "bob", "3602");
    let stubborn = quoted("trap '' HUP TERM; while :; do sleep 3601; done");
    let mut client = logins
        .ssh("alice", &["bash", "-c", &stubborn])
        .spawn()
        .unwrap();
    logins.wait_process("alice", "sleep 3601").unwrap();
    tb.scancel(job).unwrap();
    logins
        .wait("the first step", || {
            Ok(logins.log("logoutd").contains("HangUp for"))
        })
        .unwrap();
    drop(daemon);
    assert!(!logins.log("logoutd").contains("sessions ended"));
    let _daemon = logins.daemon().unwrap();
    logins.wait_end("the session", &mut client).unwrap();
    wait_nothing_left(&logins, "alice");
    assert!(!bystander.ended().unwrap());
}

#[test]
fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    let tb = testbed();
    let site = Site::with("grace = \"0\"\ndry_run = true\nexempt_users = [\"bob\"]");
    let logins = Logins::start(&tb, &site).unwrap();
    let _daemon = logins.daemon().unwrap();
    let job = logins.job("alice").unwrap();
    let mut client = sleeper(&logins, "alice", "3600");
    let mut exempt = sleeper(&logins, "bob", "3601");
    tb.scancel(job).unwrap();
    logins
        .wait("the word", || {
            Ok(logins.log("logoutd").contains("dry run: alice: would end"))
        })
        .unwrap();
    let sweep = logins
        .command(&["sweep", "--dry-run"])
        .success()
        .unwrap()
        .stdout;
    assert!(
        sweep.contains("would end: alice") && sweep.contains("stays: bob"),
        "{sweep}"
    );
    assert!(!client.ended().unwrap());
    let refused = logins.command(&["end", "root"]).output().unwrap();
    assert!(!refused.success());
    logins.command(&["end", "alice"]).success().unwrap();
    logins.wait_end("alice's session", &mut client).unwrap();
    assert!(!exempt.ended().unwrap());
}

#[test]
fn an_idle_session_ends_while_a_job_runs_and_a_used_one_outlives_the_job_until_it_is_idle() {
    let tb = testbed();
    let site = Site::with("grace = \"1s\"\nidle_after = \"2s\"\nspare_active = true");
    let logins = Logins::start(&tb, &site).unwrap();
    let _daemon = logins.daemon().unwrap();
    let job = logins.job("alice").unwrap();
    let work = "until [ -e ~/stop ]; do echo busy; sleep 0.05; done; exec sleep 3621";
    let mut used = logins.ssh("alice", &[work]).spawn().unwrap();
    let mut idle = sleeper(&logins, "alice", "3620");
    let mut exempt = sleeper(&logins, "root", "3622");
    logins.wait_end("the idle session", &mut idle).unwrap();
    assert!(logins.log("logoutd").contains("still idle, ending it"));
    assert!(!used.ended().unwrap() && !exempt.ended().unwrap());

    tb.scancel(job).unwrap();
    logins
        .wait("the deadline to pass", || {
            Ok(logins.log("logoutd").contains("they stay until idle"))
        })
        .unwrap();
    assert!(!used.ended().unwrap());
    fs::write(tb.user("alice").unwrap().home.join("stop"), "").unwrap();
    logins.wait_end("the session", &mut used).unwrap();
    wait_nothing_left(&logins, "alice");
    assert!(!exempt.ended().unwrap());
}

#[test]
fn a_session_that_is_used_after_the_warning_stays_however_seldom_sessions_are_looked_at() {
    let tb = testbed();
    // Looked at every two seconds, which is longer than the grace.
    let logins = Logins::start(&tb, &Site::with("grace = \"1s\"\nidle_after = \"8s\"")).unwrap();
    let _daemon = logins.daemon().unwrap();
    logins.job("alice").unwrap();
    let waits = "mkfifo ~/pipe; read x <~/pipe; head -c 100000 /dev/zero; exec sleep 3640";
    let mut used = logins.ssh("alice", &[waits]).spawn().unwrap();
    logins
        .wait("the warning", || {
            Ok(logins.log("logoutd").contains("idle for 8 s"))
        })
        .unwrap();
    // Not with the look that warned, but between that and the next one.
    std::thread::sleep(std::time::Duration::from_millis(300));
    fs::write(tb.user("alice").unwrap().home.join("pipe"), "\n").unwrap();
    logins
        .wait("the second look", || {
            Ok(logins.log("logoutd").contains("used again, it stays"))
        })
        .unwrap();
    assert!(!used.ended().unwrap());
    assert!(!logins.log("logoutd").contains("still idle"));
    logins.wait_end("it, once idle", &mut used).unwrap();
}

#[test]
fn what_cannot_be_looked_up_ends_no_session_and_refuses_or_admits_as_the_site_chose() {
    let tb = testbed();
    let site = Site::with(NO_GRACE);
    let logins = Logins::start(&tb, &site).unwrap();
    let _daemon = logins.daemon().unwrap();
    let job = logins.job("alice").unwrap();
    let mut client = sleeper(&logins, "alice", "3600");
    // A record that cannot be read: it could be anybody's job.
    let tear = format!("echo '{{' > {STATE}/jobs/77@n1.json");
    tb.command("root", &["sh", "-c", &tear]).success().unwrap();
    tb.scancel(job).unwrap();
    tb.wait_job(job).unwrap();
    logins
        .wait("the doubt", || {
            Ok(logins
                .log("logoutd")
                .contains("no session ends because of this"))
        })
        .unwrap();
    logins
        .wait("the job to be gone", || {
            Ok(logins.status()?.contains("\"presence\": \"unknown\""))
        })
        .unwrap();
    assert!(!client.ended().unwrap());
    let denied = logins.ssh("bob", &["true"]).output().unwrap();
    assert!(denied.stderr.contains("cannot be found out"), "{denied}");
    assert!(logins.ssh("root", &["true"]).output().unwrap().success());
    let allow = Site {
        arguments: "on_error=allow".to_owned(),
        ..site.clone()
    };
    logins::configure(&tb, &allow).unwrap();
    assert!(logins.ssh("bob", &["true"]).output().unwrap().success());
    // Once it is put right, what was due happens.
    let mend = format!("rm {STATE}/jobs/77@n1.json");
    tb.command("root", &["sh", "-c", &mend]).success().unwrap();
    logins.wait_end("alice's session", &mut client).unwrap();

    // A configuration with an error.
    fs::write(tb.dir().join("site/slurm-efa.toml"), "grace\n").unwrap();
    assert!(logins.ssh("bob", &["true"]).output().unwrap().success());
    assert!(logins.ssh("root", &["true"]).output().unwrap().success());
    logins::configure(
        &tb,
        &Site {
            arguments: "exempt_users=bob".to_owned(),
            ..site
        },
    )
    .unwrap();
    fs::write(tb.dir().join("site/slurm-efa.toml"), "grace\n").unwrap();
    assert!(
        logins.ssh("bob", &["true"]).output().unwrap().success(),
        "exempt by argument"
    );
    assert!(!logins.ssh("alice", &["true"]).output().unwrap().success());
}

#[test]
fn a_panic_in_any_phase_leaves_sshd_serving_and_goes_by_on_error() {
    let tb = testbed();
    let logins = Logins::start(&tb, &Site::default()).unwrap();
    logins.job("alice").unwrap();
    for (phase, on_error, admitted) in [
        ("account", "deny", false),
        ("account", "allow", true),
        ("open_session", "deny", false),
        ("open_session", "allow", true),
        ("close_session", "deny", true),
    ] {
        let site = Site {
            module: modules::pam_injected(),
            arguments: format!("panic={phase} on_error={on_error}"),
            ..Site::default()
        };
        logins::configure(&tb, &site).unwrap();
        let login = logins.ssh("alice", &["echo", "in"]).output().unwrap();
        let seen = login.stdout.contains("in");
        assert_eq!(
            seen,
            admitted,
            "{phase} {on_error}: {login}\n{}",
            logins.log("sshd")
        );
        let root = logins.ssh("root", &["true"]).output().unwrap();
        assert!(root.success(), "{phase} {on_error}: {root}");
        logins::configure(&tb, &Site::default()).unwrap();
        let next = logins.ssh("alice", &["true"]).output().unwrap();
        assert!(
            next.success(),
            "the next login after a panic in {phase}: {next}"
        );
    }
}

#[test]
fn ten_thousand_records_are_read_and_a_flood_of_them_is_swept_away() {
    let tb = testbed();
    let logins = Logins::start(&tb, &Site::with(NO_GRACE)).unwrap();
    let job = logins.job("alice").unwrap();
    let mut client = sleeper(&logins, "alice", "3600");
    // Records of processes that are long gone, in the form of a real one.
    let init = tb.init_pid().unwrap();
    let folder = format!("/proc/{init}/root{STATE}/sessions");
    let folder = Path::new(&folder);
    let mut entries = fs::read_dir(folder).unwrap().flatten();
    let is_record = |entry: &fs::DirEntry| !entry.file_name().as_encoded_bytes().starts_with(b".");
    let entry = entries.find(is_record).unwrap();
    let (name, text) = (entry.file_name(), fs::read_to_string(entry.path()).unwrap());
    let (pid, rest) = name.to_str().unwrap().split_once('-').unwrap();
    for other in 5_000_000..5_010_000 {
        // Or they would count as left by the session that is real.
        let text = text.replace("\"audit\":", "\"audit\":1");
        let text = text.replace(&format!("\"pid\":{pid},"), &format!("\"pid\":{other},"));
        fs::write(folder.join(format!("{other}-{rest}")), text).unwrap();
    }
    let _daemon = logins.daemon().unwrap();
    logins
        .wait("the records to be swept", || {
            Ok(logins.status()?.matches("\"user\"").count() == 1)
        })
        .unwrap();
    assert!(!client.ended().unwrap());
    tb.scancel(job).unwrap();
    logins.wait_end("the session", &mut client).unwrap();
}
