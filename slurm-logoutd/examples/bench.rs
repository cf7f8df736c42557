//! How long one look of slurm-logoutd takes with 1,000 sessions and 500 jobs:
//! `cargo run --release -p pam-slurm-logout --example bench`, as root.
//!
//! The sessions are real processes; the jobs are records of the registry. A
//! user of each second session has a job.

use std::error::Error;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Instant;

use host::BootId;
use host::process::ProcessIdentity;
use host::state_dir::StateDir;
use host::{Gid, Pid, Uid};
use jobs::registry::{Job, Registry, Start};
use logins::session::{PamItems, Records, Session};
use logins::settings::Settings;
use slurm::{JobId, JobKey};
use slurm_logoutd::daemon::Daemon;

const SESSIONS: u32 = 1000;
const JOBS: u32 = 500;
const ROUNDS: usize = 21;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::temp_dir().join(format!("slurm-logout-bench.{}", std::process::id()));
    let mut children = Vec::new();
    let outcome = measure(&dir, &mut children);
    for child in &mut children {
        child.kill()?;
        child.wait()?;
    }
    std::fs::remove_dir_all(&dir)?;
    outcome
}

fn measure(dir: &Path, children: &mut Vec<Child>) -> Result<(), Box<dyn Error>> {
    let (state_dir, spool) = (dir.join("state"), dir.join("spool"));
    std::fs::create_dir_all(&spool)?;
    let boot = BootId::current()?;
    let state = StateDir::open(&state_dir)?;
    let (mut records, mut registry) = (Records::open(&state)?, Registry::open(&state)?);
    for index in 0..SESSIONS {
        let child = Command::new("sleep").arg("3600").spawn()?;
        let identity = ProcessIdentity::of(Pid(child.id()))?.ok_or("sleep has ended")?;
        children.push(child);
        let uid = 100_000 + index;
        let user = format!("user{index}");
        records.put(&Session::new(
            boot.clone(),
            Uid(uid),
            &user,
            identity,
            PamItems::default(),
        ))?;
        if index < JOBS {
            let key = JobKey {
                job: JobId(index + 1),
                node: "n1".parse()?,
            };
            let start = Start::now(boot.clone())?;
            registry.put(&Job::new(&key, start, Uid(uid), Gid(uid), spool.clone()))?;
        }
    }
    let config = config::parse("[logout]\ngrace = \"1h\"", Path::new("/bench.toml"))?;
    let settings = Settings {
        state_dir,
        spool_dir: Some(spool),
        ..Settings::of(&config)?
    };
    let mut daemon = Daemon::new(settings)?;
    let begun = Instant::now();
    daemon.turn();
    let first = begun.elapsed();
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            daemon.turn();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!(
        "{SESSIONS} sessions, {JOBS} jobs: first look, with notices for those without a job: \
         {first:.1?}; later looks: median {:.1?}, longest {:.1?}",
        times[ROUNDS / 2],
        times[ROUNDS - 1]
    );
    Ok(())
}
