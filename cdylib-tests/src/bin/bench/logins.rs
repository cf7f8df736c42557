//! Logins: pam_slurm_logout beside pam_slurm_adopt and pam_slurm, in one run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cdylib_tests::logins::{Logins, Site};
use cdylib_tests::statistics::median;
use cdylib_tests::testbed::{JobState, NodeOptions, Progress, Testbed};
use host::BootId;
use host::state_dir::StateDir;
use jobs::registry::{Job, Registry, Start};
use slurm::{JobId, JobKey};

use crate::Outcome;

/// Jobs on the node.
const JOBS: [usize; 3] = [1, 20, 200];
/// Logins of each measurement.
const ROUNDS: u32 = 200;
/// Logins, of three calls each, after which nothing may have grown.
const MANY: u32 = 350_000;
/// Ends of jobs that are measured.
const ENDS: usize = 7;
/// How long the resting daemon is watched.
const REST: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(120);

/// Our module where the plugin's prolog records each job.
const RECORDED: &str = "with_the_plugin";

/// Debian's modules, from libpam-slurm-adopt and libpam-slurm.
const PEERS: [(&str, &str); 2] = [
    ("pam_slurm_adopt", "/lib/security/pam_slurm_adopt.so"),
    ("pam_slurm", "/lib/security/pam_slurm.so"),
];

/// Measures and prints.
///
/// # Errors
/// When a login or a job fails.
pub fn measure() -> Outcome {
    // SAFETY: geteuid takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        println!("\nLogins were not measured: that needs root; run `sudo make bench`.");
        return Ok(());
    }
    let release = |name: &str| -> Outcome<PathBuf> {
        let program = std::env::current_exe()?;
        let file = program.with_file_name(name);
        file.is_file()
            .then_some(file)
            .ok_or_else(|| format!("{name} is not built; run `make bench`").into())
    };
    let module = release("libpam_slurm_logout.so")?;
    let daemon = release("slurm-logoutd")?;
    latencies(&module)?;
    ends(&module, &daemon)?;
    Ok(())
}

fn latencies(module: &Path) -> Outcome {
    println!("\n\nA login, microseconds (median of {ROUNDS} in one process)\n");
    println!(
        "{:<18}{:>6}{:>12}{:>12}{:>12}",
        "module", "jobs", "account", "open", "close"
    );
    // Slurm gives each job a core.
    let big = NodeOptions {
        sockets: 2,
        cores_per_socket: 128,
        ..NodeOptions::default()
    };
    let tb = Testbed::builder().node(big).start()?;
    let dir = tb.dir().to_owned();
    let here = dir.display();
    fs::create_dir_all(dir.join("pam.d"))?;
    fs::write(
        dir.join("logout.toml"),
        format!("[logout]\nnode_name = \"n1\"\nspool_dir = \"{here}/spool/n1\"\n"),
    )?;
    fs::write(
        dir.join("recorded.toml"),
        format!(
            "state_dir = \"{here}/state\"\n[logout]\nnode_name = \"n1\"\n\
             spool_dir = \"{here}/spool/n1\"\n"
        ),
    )?;
    let ours = |config: &str| format!("{} config={here}/{config}.toml", module.display());
    let write = |name: &str, account: &str, session: &str| {
        let text = format!("account required {account}\nsession required {session}\n");
        fs::write(dir.join("pam.d").join(name), text)
    };
    write("pam_permit", "pam_permit.so", "pam_permit.so")?;
    write("pam_slurm_logout", &ours("logout"), &ours("logout"))?;
    write(RECORDED, &ours("recorded"), &ours("recorded"))?;
    let mut services = vec!["pam_permit", "pam_slurm_logout", RECORDED];
    for (name, path) in PEERS {
        if Path::new(path).exists() {
            write(name, &peer(name, path, name), "pam_permit.so")?;
            services.push(name);
        } else {
            println!("{name}: not measured, {path} is not installed");
        }
    }
    let mut running = 0;
    for jobs in JOBS {
        let more = format!("--array=1-{}", jobs - running);
        let options = ["-n1", "--mem=64", "--output=/dev/null", more.as_str()];
        // Whose login it is has the oldest: the others' are looked at first.
        let user = if running == 0 { "alice" } else { "bob" };
        tb.sbatch(user, "#!/bin/bash\nexec sleep 86400\n", &options)?;
        running = jobs;
        let queue = tb.wait_until("the jobs to run", LIMIT, || {
            let queue = ["squeue", "-h", "-r", "-t", "R", "-o", "%A %u"];
            let jobs_and_users = tb.command("root", &queue).output()?.stdout;
            Ok(if jobs_and_users.lines().count() == jobs {
                Progress::Done(jobs_and_users)
            } else {
                Progress::Waiting(jobs_and_users)
            })
        })?;
        record(&tb, &queue)?;
        for service in &services {
            let seen = match login(&tb, service, ROUNDS) {
                Ok(seen) => seen,
                Err(error) => {
                    let reason = error.to_string();
                    let own = reason.lines().find(|line| line.starts_with("bench: "));
                    let reason = own.or(reason.lines().next()).unwrap_or_default();
                    println!("{service:<18}{jobs:>6}  not measured: {reason}");
                    continue;
                }
            };
            println!(
                "{service:<18}{jobs:>6}{:>12.0}{:>12.0}{:>12.0}",
                seen[0], seen[1], seen[2]
            );
        }
        if jobs == 1 {
            let seen = login(&tb, "pam_slurm_logout", MANY)?;
            println!(
                "  grown in {} of {MANY} logins: {} descriptors, {} KiB",
                MANY / 4 * 3,
                seen[3],
                seen[4]
            );
        }
    }
    Ok(())
}

/// Writes what the prologs of these jobs would have written. `queue`: a line of
/// number and user for each.
fn record(tb: &Testbed, queue: &str) -> Outcome {
    let mut state = StateDir::open(&tb.dir().join("state"))?;
    let mut registry = Registry::open(&state)?;
    for line in queue.lines() {
        let (id, user) = line.split_once(' ').ok_or("squeue named no user")?;
        let key = JobKey {
            job: JobId(id.parse()?),
            node: "n1".parse()?,
        };
        let user = tb.user(user)?;
        let start = Start::now(BootId::current()?)?;
        let spool = tb.dir().join("spool/n1");
        let mut job = Job::new(&key, start, host::Uid(user.uid), host::Gid(user.gid), spool);
        job.contained = true;
        registry.begin(&mut state, &job)?;
    }
    Ok(())
}

/// A rival's line. Here the node's name is not the host's; for another service
/// than sshd, pam_slurm_adopt does nothing unless it is told to.
fn peer(name: &str, path: &str, service: &str) -> String {
    match name {
        "pam_slurm_adopt" => format!("{path} nodename=n1 service={service}"),
        _ => path.to_owned(),
    }
}

fn login(tb: &Testbed, service: &str, rounds: u32) -> Outcome<Vec<f64>> {
    let seen = tb
        .command("root", &[std::env::current_exe()?])
        .arg("pam")
        .arg(tb.dir().join("pam.d"))
        .args(&[service, "alice", &rounds.to_string()])
        .timeout(LIMIT * 4)
        .success()?;
    let numbers: Result<Vec<f64>, _> = seen.stdout.split_whitespace().map(str::parse).collect();
    Ok(numbers?)
}

fn ends(module: &Path, daemon: &Path) -> Outcome {
    println!(
        "\n\nFrom the end of the job to the client's closed connection, grace 0 (ms, median of {ENDS})\n"
    );
    println!(
        "{:<18}{:>22}{:>26}",
        "module", "after scancel", "after the last socket"
    );
    let tb = Testbed::builder().start()?;
    let site = Site {
        module: module.to_owned(),
        ..Site::with("grace = \"0\"")
    };
    let logins = Logins::start(&tb, &site)?;
    let script = "exec \"$2\" --config \"$1/site/slurm-efa.toml\" 2>>\"$1/log/logoutd.log\"";
    let daemon = tb
        .command("root", &["sh", "-c", script, "sh"])
        .arg(tb.dir())
        .arg(daemon)
        .timeout(LIMIT * 4)
        .spawn()?;
    logins.wait("slurm-logoutd", || {
        Ok(logins
            .command(&["status", "--json"])
            .output()?
            .stdout
            .contains("\"daemon\": true"))
    })?;
    let seen = one_end(&logins)?;
    println!("{:<18}{:>22.1}{:>26.1}", "pam_slurm_logout", seen.0, seen.1);
    rest(&logins)?;
    drop(daemon);
    let (name, path) = PEERS[0];
    if Path::new(path).exists() {
        let stack = format!(
            "auth required pam_permit.so\naccount required {}\nsession required pam_loginuid.so\n",
            peer(name, path, "sshd")
        );
        fs::write(tb.dir().join("pam.d/sshd"), stack)?;
        let seen = one_end(&logins)?;
        println!("{name:<18}{:>22.1}{:>26.1}", seen.0, seen.1);
    }
    Ok(())
}

/// Milliseconds to the client's end, from scancel and from the last socket's end.
fn one_end(logins: &Logins<'_>) -> Outcome<(f64, f64)> {
    let spool = logins.tb.dir().join("spool/n1");
    let (mut all, mut own) = (Vec::new(), Vec::new());
    for _ in 0..ENDS {
        let job = logins.job("alice")?;
        let mut client = logins.ssh("alice", &["sleep", "3600"]).spawn()?;
        logins.wait_process("alice", "sleep 3600")?;
        let begun = Instant::now();
        logins.tb.scancel(job)?;
        let mut last = None;
        while !client.ended()? {
            let live = fs::read_dir(&spool)?
                .flatten()
                .any(|entry| entry.file_name().to_string_lossy().starts_with("n1_"));
            if !live && last.is_none() {
                last = Some(Instant::now());
            }
            if begun.elapsed() > LIMIT {
                return Err("the client's connection was not closed".into());
            }
            std::thread::sleep(Duration::from_micros(500));
        }
        all.push(begun.elapsed().as_secs_f64() * 1e3);
        own.push(last.map_or(0.0, |last| last.elapsed().as_secs_f64() * 1e3));
        logins.tb.wait_job_until(job, LIMIT, JobState::is_final)?;
        logins.tb.wait_idle()?;
    }
    Ok((median(&all), median(&own)))
}

/// What the daemon holds and does while a job and a login rest.
fn rest(logins: &Logins<'_>) -> Outcome {
    let job = logins.job("alice")?;
    let client = logins.ssh("alice", &["sleep", "3600"]).spawn()?;
    logins.wait_process("alice", "sleep 3600")?;
    let look = "pid=$(pgrep -x slurm-logoutd); \
                awk '/VmRSS|voluntary_ctxt/ {print $2}' /proc/$pid/status";
    let look = || -> Outcome<Vec<i64>> {
        let seen = logins
            .tb
            .command("root", &["sh", "-c", look])
            .success()?
            .stdout;
        Ok(seen
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?)
    };
    // Its answer to the new session is not rest.
    std::thread::sleep(Duration::from_secs(2));
    let before = look()?;
    std::thread::sleep(REST);
    let after = look()?;
    println!(
        "\nslurm-logoutd at rest with a job and a login: {:.1} MiB resident, {} wake-ups in {} s\n",
        after[0] as f64 / 1024.0,
        after[1] - before[1],
        REST.as_secs()
    );
    drop(client);
    logins.tb.scancel(job)?;
    logins.tb.wait_idle()?;
    Ok(())
}
