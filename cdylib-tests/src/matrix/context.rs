//! What the rows of one release share.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::efa_cluster;
use crate::modules;
use crate::testbed::{Builder, Testbed};

/// The nodes of every cluster: n1, n2, n3.
pub(super) const NODES: [&str; 3] = ["p5.48xlarge", "p4d_old_stack", "g5.8xlarge"];

/// What a row says.
pub(super) type Verdict = Result<(), Box<dyn Error>>;

/// A behaviour that every release must show.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) check: fn(&Context) -> Verdict,
}

/// A release and its Debian root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Release {
    /// As Slurm's makers call it, e.g. `22.05`.
    pub(super) slurm: String,
    pub(super) root: PathBuf,
}

/// What the rows of one release share.
pub(super) struct Context {
    pub(super) release: Release,
    /// The plugin as it is shipped.
    pub(super) plugin: PathBuf,
    /// The same, able to panic in any hook.
    pub(super) injected: PathBuf,
    /// A cluster of [`NODES`] that loads `plugin`.
    pub(super) tb: Testbed,
}

impl Context {
    pub(super) fn new(release: &Release) -> Result<Self, Box<dyn Error>> {
        let (plugin, injected) = (modules::shipped(), modules::shipped_injected());
        let tb = cluster(release, &NODES, &plugin).start()?;
        Ok(Self {
            release: release.clone(),
            plugin,
            injected,
            tb,
        })
    }
}

impl Context {
    /// So that what a row left behind fails one row after it, not all.
    pub(super) fn end_all_jobs(&self) {
        for user in ["alice", "bob", "carol"] {
            let _ = self.tb.run("root", &["scancel", "--user", user], &[]);
        }
    }
}

/// A maximum that lets a job ask for more than a node has.
pub(super) const SITE: &str = "[hugepages]\nmax = \"1024T\"\n";

/// A cluster of simulated nodes under that release's Slurm, with `plugin` as
/// `required`.
pub(super) fn cluster(release: &Release, nodes: &[&str], plugin: &Path) -> Builder {
    let logout = ["pam_slurm_logout.so", "slurm-logoutd", "slurm-logout"];
    let builder = logout
        .iter()
        .fold(efa_cluster::bare(nodes), |builder, name| {
            builder.bind(modules::shipped_file(name))
        });
    let program = modules::job_program_beside(plugin);
    let builder = builder
        .root(&release.root)
        .bind(plugin)
        .bind(&program)
        .bind(modules::reader_beside(plugin))
        .plugstack(&efa_cluster::plugstack_line("required", plugin))
        .file(
            efa_cluster::CONFIG,
            &format!("{}{SITE}", efa_cluster::SYSROOTS),
        );
    efa_cluster::with_job_program(builder, &program, efa_cluster::CONFIG)
}

pub(super) fn xtask(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .arg("xtask")
        .args(arguments);
    cargo
}
