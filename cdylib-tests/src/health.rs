//! efa-check on a testbed: a cluster that it looks after, an adapter that
//! breaks, and what becomes of the node.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::efa_cluster;
use crate::testbed::{Builder, Error, JobState, LIMIT, Output, Progress, Testbed};

/// The line of slurm.conf that makes efa-check the prolog.
pub const PROLOG: &str = "Prolog={dir}/site/prolog";

/// Those that make it the health check, as often as Slurm allows. So often
/// that slurmctld never comes to its pings: a node that was resumed stays
/// `idle*` and gets no job.
pub const HEALTHCHECK: &str = "HealthCheckProgram={dir}/site/healthcheck\nHealthCheckInterval=1";

/// Adds efa-check to a cluster of simulated nodes: `site/prolog`, which also
/// writes down how long it took (see [`prolog_took`]), `site/healthcheck`, and a
/// configuration with `health` as its section. `slurm_conf` is [`PROLOG`],
/// [`HEALTHCHECK`] or anything else.
pub fn guarded(builder: Builder, program: &Path, health: &str, slurm_conf: &str) -> Builder {
    let program = program.display();
    let call = |what| format!("{program} {what} --config {{dir}}/{}", efa_cluster::CONFIG);
    let (prolog, healthcheck) = (call("prolog"), call("healthcheck"));
    builder
        .file(
            "site/prolog",
            &format!(
                "#!/bin/sh\nstart=$(date +%s%N)\n{prolog}\ncode=$?\n\
                 echo $((($(date +%s%N) - start) / 1000000)) >>{{dir}}/took-$SLURMD_NODENAME\n\
                 exit $code\n"
            ),
        )
        .file("site/healthcheck", &format!("#!/bin/sh\nexec {healthcheck}\n"))
        .file(efa_cluster::CONFIG, &config(health))
        .prepare(|dir| {
            for script in ["site/prolog", "site/healthcheck"] {
                fs::set_permissions(dir.join(script), fs::Permissions::from_mode(0o755))?;
            }
            Ok(())
        })
        // A requeued batch job waits until its old credential has expired,
        // which takes two minutes by default.
        .slurm_conf_extra(&format!(
            "AuthInfo=socket={{dir}}/munge/socket,cred_expire=5\n\
             SchedulerParameters=nohold_on_prolog_fail,batch_sched_delay=0,sched_interval=1,bf_interval=1\n\
             {slurm_conf}"
        ))
}

/// A configuration whose `[health]` section consists of what a testbed needs
/// and of `health`.
#[must_use]
pub fn config(health: &str) -> String {
    format!(
        "{}state_dir = \"{{dir}}/efa/%n\"\n[health]\nrecord = \"{{dir}}/record/%n.json\"\n\
         slurm_conf = \"{{dir}}/slurm.conf\"\n{health}\n",
        efa_cluster::SYSROOTS
    )
}

/// Runs efa-check as root on a node, with what slurmd gives a health check.
///
/// # Errors
/// When it cannot be started or does not end.
pub fn check(tb: &Testbed, program: &Path, node: &str, command: &str) -> Result<Output, Error> {
    let config = tb.dir().join(efa_cluster::CONFIG);
    let argv = [
        program.as_os_str(),
        command.as_ref(),
        "--config".as_ref(),
        config.as_os_str(),
    ];
    tb.command("root", &argv)
        .env("SLURMD_NODENAME", node)
        .output()
}

/// An adapter that left the bus.
#[derive(Debug)]
pub struct Broken {
    link: PathBuf,
    aside: PathBuf,
}

impl Broken {
    /// Puts it back.
    ///
    /// # Errors
    /// The system's.
    pub fn repair(&self) -> io::Result<()> {
        fs::rename(&self.aside, &self.link)
    }
}

/// Takes an adapter of a node away, as a bus error would.
///
/// # Errors
/// When there is no such adapter.
pub fn break_adapter(tb: &Testbed, node: &str, adapter: &str) -> io::Result<Broken> {
    let link = device(tb, node, adapter);
    let aside = tb.dir().join(format!("aside-{node}"));
    fs::rename(&link, &aside)?;
    Ok(Broken { link, aside })
}

/// Where an adapter of a node lies.
#[must_use]
pub fn device(tb: &Testbed, node: &str, adapter: &str) -> PathBuf {
    tb.sysroot(node).join("sys/class/infiniband").join(adapter)
}

/// Waits until a node's reason and its being drained are as wanted; returns
/// the reason.
///
/// # Errors
/// [`Error::Timeout`], with the last state.
pub fn wait_node(
    tb: &Testbed,
    node: &str,
    what: &str,
    wanted: fn(&str, bool) -> bool,
) -> Result<String, Error> {
    tb.wait_until(what, LIMIT, || {
        let state = tb.node_state(node)?;
        Ok(if wanted(&state.reason, state.is_drained()) {
            Progress::Done(state.reason)
        } else {
            Progress::Waiting(format!("{state:?}"))
        })
    })
}

/// Waits until efa-check has drained a node; returns the reason.
///
/// # Errors
/// As [`wait_node`].
pub fn drained_by_us(tb: &Testbed, node: &str) -> Result<String, Error> {
    wait_node(tb, node, "our drain", |reason, drained| {
        drained && reason.starts_with("EFA: ")
    })
}

/// Waits for the end of every process of efa-check that talks to Slurm.
///
/// # Errors
/// When one does not end.
pub fn wait_for_speakers(tb: &Testbed) -> Result<(), Error> {
    // The pattern does not match itself in this shell's own arguments.
    let script = "while grep -qs 'slurm-speake[r]' /proc/[0-9]*/cmdline; do sleep 0.05; done";
    tb.command("root", &["/bin/sh", "-c", script])
        .success()
        .map(drop)
}

/// A batch job of one node: its end, and where it ran.
///
/// # Errors
/// When sbatch refuses it, or it does not end.
pub fn run_job(tb: &Testbed) -> Result<(JobState, String), Error> {
    let job = tb.sbatch("alice", "#!/bin/bash\necho $SLURMD_NODENAME\n", &["-N1"])?;
    Ok((tb.wait_job(job)?, tb.job_output(job)?))
}

/// How long each prolog of a node took, in milliseconds.
#[must_use]
pub fn prolog_took(tb: &Testbed, node: &str) -> Vec<u64> {
    let text = fs::read_to_string(tb.dir().join(format!("took-{node}"))).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}
