//! What is done once for each job on each node: prolog and epilog of a
//! job that asks for nothing, and 5128 hugepages (the figure of AWS' EKS guide)
//! against a bare `echo` into the same file; a ledger of a thousand jobs.

use cdylib_tests::comparison::children_cpu;
use cdylib_tests::modules::job_program_beside;
use cdylib_tests::statistics::median;
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cdylib_tests::kernel_pages;
use cdylib_tests::pages::{copies, key, prolog};
use host::BootId;
use host::Deadline;
use host::Sysroot;
use host::state_dir::StateDir;
use hugepages::ledger::Ledger;
use hugepages::{Claim, HugePages, KernelPools, PageClaim, PageSize, Spread, machine, reconcile};
use jobs::Existence;
use jobs::registry::Start;
use slurm::{JobId, JobKey};

use crate::Outcome;

const PAGES: u64 = 5128;
const ROUNDS: usize = 9;
const JOBS: u32 = 500;
const ENTRIES: u32 = 1000;
const GLOBAL: &str = "/proc/sys/vm/nr_hugepages";

/// Measures and prints.
///
/// # Errors
/// When a program fails, or the kernel has not enough memory.
pub fn measure(plugin: &Path) -> Outcome {
    // SAFETY: geteuid takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        println!("\nProlog, epilog and hugepages were not measured: that needs root.");
        return Ok(());
    }
    programs(plugin)?;
    ledger()?;
    pages()
}

/// The program alone, as slurmd starts it.
fn programs(plugin: &Path) -> Outcome {
    let dir = tempfile::tempdir_in("/run")?;
    let config = dir.path().join("slurm-efa.toml");
    let state = dir.path().join("state");
    fs::write(&config, format!("state_dir = \"{}\"\n", state.display()))?;
    let slurm = dir.path().join("slurm.conf");
    fs::write(&slurm, "SlurmdSpoolDir=/var/spool/slurmd\n")?;
    let program = job_program_beside(plugin);
    let job = |program: &Path, arguments: [&str; 2]| -> Outcome {
        for argument in arguments {
            let status = Command::new(program)
                .args([argument, "--config"])
                .arg(&config)
                .envs([("SLURMD_NODENAME", "n1"), ("SLURM_JOB_ID", "1")])
                .envs([("SLURM_JOB_UID", "1000"), ("SLURM_JOB_GID", "1000")])
                .env("SLURM_CONF", &slurm)
                .status()?;
            if !status.success() {
                return Err(format!("{}: {status}", program.display()).into());
            }
        }
        Ok(())
    };
    let mean = |program: &Path| -> Outcome<f64> {
        let before = children_cpu()?;
        for _ in 0..JOBS {
            job(program, ["prolog", "epilog"])?;
        }
        Ok((children_cpu()? - before).as_secs_f64() * 1e3 / f64::from(JOBS))
    };
    println!(
        "\nProlog and epilog of a job that asks for nothing, CPU of the two processes: {:.3} ms; of \
         `true` in their place: {:.3} ms (means of {JOBS})",
        mean(&program)?,
        mean(Path::new("/bin/true"))?,
    );
    Ok(())
}

/// This process' user and system time.
fn cpu() -> Outcome<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: clock_gettime(2) writes to the structure, which is ours.
    if unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(Duration::new(
        u64::try_from(time.tv_sec)?,
        u32::try_from(time.tv_nsec)?,
    ))
}

fn pages() -> Outcome {
    let _alone = kernel_pages::alone()?;
    if kernel_pages::mebibytes()? != 0 {
        println!("Hugepages were not measured: this machine has some set aside already.");
        return Ok(());
    }
    let dir = tempfile::tempdir_in("/run")?;
    let state = StateDir::open(dir.path())?;
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    // A job's way compacts memory and tries again: it makes room for both.
    for _ in 0..3 {
        if job(&state).is_ok() {
            break;
        }
    }
    for _ in 0..ROUNDS {
        bare.push(timed(echo)?);
        ours.push(timed(|| job(&state))?);
    }
    let (bare, ours) = (median(&bare), median(&ours));
    println!(
        "{PAGES} hugepages of 2 MiB, reserved and given back: {ours:.1} ms with ledger and lock, \
         {bare:.1} ms by echo, ratio {:.2} (medians of {ROUNDS})",
        ours / bare
    );
    Ok(())
}

fn timed(work: impl FnOnce() -> Outcome) -> Outcome<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// The CPU time, ms: of work that waits for nothing, and steadier.
fn cpu_of(work: impl FnOnce() -> Outcome) -> Outcome<f64> {
    let start = cpu()?;
    work()?;
    Ok((cpu()? - start).as_secs_f64() * 1e3)
}

fn echo() -> Outcome {
    fs::write(GLOBAL, PAGES.to_string())?;
    let got: u64 = fs::read_to_string(GLOBAL)?.trim().parse()?;
    fs::write(GLOBAL, "0")?;
    expect_all(got)
}

fn expect_all(got: u64) -> Outcome {
    if got == PAGES {
        return Ok(());
    }
    Err(format!("the kernel gave only {got} of {PAGES} hugepages; free 11 GiB of memory").into())
}

/// What prolog and epilog do for a job with pages.
fn job(state: &StateDir) -> Outcome {
    let claim = Claim {
        key: JobKey {
            job: JobId(1),
            node: "n1".parse()?,
        },
        start: Start::now(BootId::current()?)?,
        spool_dir: "/var/spool/slurmd".into(),
        wishes: vec![PageClaim {
            size: PageSize::TwoMiB,
            pages: HugePages(PAGES),
            spread: Spread::Even,
        }],
    };
    let step = |claim: Option<&Claim>| -> Outcome<u64> {
        let deadline = Deadline::after(Duration::from_secs(60));
        let report = reconcile(
            &mut Ledger::open(state, deadline)?,
            &mut KernelPools::new(Sysroot::real())?,
            &BootId::current()?,
            &mut |_, _| Existence::Gone,
            claim,
            deadline,
        )?;
        let got = report.claimed.map(|entry| entry.total(PageSize::TwoMiB).0);
        Ok(got.unwrap_or(0))
    };
    let got = step(Some(&claim))?;
    step(None)?;
    expect_all(got)
}

/// A reconciliation that finds nothing to do, with a thousand jobs that have
/// an entry and a record each, against nothing but reading the same files.
fn ledger() -> Outcome {
    let _alone = kernel_pages::alone()?;
    let dir = tempfile::tempdir_in("/run")?;
    let (state, spool) = (dir.path().join("state"), dir.path().join("spool"));
    fs::create_dir(&spool)?;
    prolog(&state, &spool, 1, 0)?;
    copies(&state, 1, 2..=ENTRIES)?;
    let files: Vec<PathBuf> = ["hugepages", "jobs"]
        .iter()
        .flat_map(|folder| {
            (1..=ENTRIES).map(move |job| Path::new(folder).join(key(job).file_name()))
        })
        .map(|file| state.join(file))
        .collect();
    let state = StateDir::open(&state)?;
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(cpu_of(|| {
            for file in &files {
                black_box(fs::read(file)?);
            }
            Ok(())
        })?);
        ours.push(cpu_of(|| {
            let deadline = Deadline::after(Duration::from_secs(60));
            let report = machine::settle(&state, None, None, deadline)?;
            match report.dropped.is_empty() && report.unclear.is_empty() {
                true => Ok(()),
                false => Err("a job with a record was not found".into()),
            }
        })?);
    }
    let (bare, ours) = (median(&bare), median(&ours));
    println!(
        "Reconciliation with {ENTRIES} jobs: {ours:.1} ms of CPU; a bare read of their {} files: \
         {bare:.1} ms, ratio {:.2} (medians of {ROUNDS})",
        files.len(),
        ours / bare
    );
    Ok(())
}
