//! What the tests of the EFA plugin have in common: a cluster of simulated
//! nodes with the plugin in its plugstack.conf, and a reader of environments.
//!
//! ```no_run
//! use cdylib_tests::efa_cluster::{self, Vars};
//!
//! let tb = efa_cluster::cluster("", &["p5.48xlarge"]).start()?;
//! let seen = tb.srun("alice", &["--efa-profile=p5", "env"])?;
//! assert_eq!(Vars::of(&seen.stdout).get("SLURM_EFA_DEVICES"), Some("32"));
//! # Ok::<(), cdylib_tests::testbed::Error>(())
//! ```

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::modules;
use crate::simnode::Spec;
use crate::testbed::{Builder, JobId, JobState, NodeOptions, Output, Testbed};

/// The configuration's place in a testbed, relative to its directory.
pub const CONFIG: &str = "site/slurm-efa.toml";

/// The line that lets the readers see a testbed's simulated nodes.
pub const SYSROOTS: &str = "sysroot = \"{dir}/sysroots/%n\"\n";

/// A cluster of simulated nodes, by [`Spec::named`]'s names, with the plugin
/// as `required` and a configuration that consists of [`SYSROOTS`] and `toml`.
///
/// # Panics
/// When the plugin is not built, or a name is unknown.
pub fn cluster(toml: &str, nodes: &[&str]) -> Builder {
    cluster_with("required", toml, nodes)
}

/// As [`cluster`], with the plugin as `required` or `optional`.
///
/// # Panics
/// As [`cluster`].
pub fn cluster_with(requirement: &str, toml: &str, nodes: &[&str]) -> Builder {
    assemble(requirement, toml, specs(nodes))
}

/// As [`cluster`], of any nodes.
///
/// # Panics
/// When the plugin is not built.
pub fn cluster_of(toml: &str, nodes: impl IntoIterator<Item = Spec>) -> Builder {
    assemble("required", toml, nodes)
}

/// Simulated nodes without plugin and configuration.
///
/// # Panics
/// When a name is unknown.
pub fn bare(nodes: &[&str]) -> Builder {
    with_nodes(specs(nodes))
}

fn specs(nodes: &[&str]) -> impl Iterator<Item = Spec> {
    nodes.iter().map(|name| {
        Spec::named(name).unwrap_or_else(|| panic!("no simulated node is called {name}"))
    })
}

fn with_nodes(nodes: impl IntoIterator<Item = Spec>) -> Builder {
    nodes.into_iter().fold(Testbed::builder(), |builder, spec| {
        builder.node(NodeOptions::simulated(spec))
    })
}

fn assemble(requirement: &str, toml: &str, nodes: impl IntoIterator<Item = Spec>) -> Builder {
    let plugin = modules::plugin();
    let place = plugin_of(Path::new("{dir}"));
    let builder = with_nodes(nodes)
        .prepare(move |dir| modules::put_plugin(&plugin, &dir.join("plugin")))
        .plugstack(&plugstack_line(requirement, &place))
        .file(CONFIG, &format!("{SYSROOTS}{toml}"));
    with_job_program(builder, &modules::job_program_beside(&place), CONFIG)
}

/// Where [`with_job_program`] puts what slurmd calls, relative to the testbed's
/// directory.
pub const JOB_SCRIPTS: [(&str, &str); 2] = [
    ("Prolog", "site/prolog.d/slurm-efa-job-prolog"),
    ("Epilog", "site/epilog.d/slurm-efa-job-epilog"),
];

/// Has slurmd run the program before and after each job, by a configuration whose
/// place is relative to the testbed's directory.
pub fn with_job_program(builder: Builder, program: &Path, config: &str) -> Builder {
    let script = job_script(program, config);
    JOB_SCRIPTS.iter().fold(builder, |builder, (key, place)| {
        let folder = Path::new(place).parent().unwrap_or(Path::new(""));
        builder
            .file(place, &script)
            .slurm_conf_extra(&format!("{key}={{dir}}/{}/*", folder.display()))
            .prepare(move |dir| fs::set_permissions(dir.join(place), Permissions::from_mode(0o755)))
    })
}

/// A script by which slurmd calls the program, as a site has it whose configuration
/// is not in the default place.
pub fn job_script(program: &Path, config: &str) -> String {
    format!("#!{} --config={{dir}}/{config}\n", program.display())
}

/// Where the plugin of a cluster lies, whose directory this is.
///
/// # Panics
/// When the plugin is not built.
pub fn plugin_of(dir: &Path) -> PathBuf {
    let name = modules::plugin().file_name().unwrap_or_default().to_owned();
    dir.join("plugin").join(name)
}

/// A line of plugstack.conf: `required|optional PLUGIN config=…`.
pub fn plugstack_line(requirement: &str, plugin: &Path) -> String {
    format!("{requirement} {} {}", plugin.display(), config_argument())
}

/// The plugin's argument that names [`CONFIG`]; `{dir}` is the testbed's to expand.
pub fn config_argument() -> String {
    format!("config={{dir}}/{CONFIG}")
}

/// Submits a script as alice, waits for the job's good end and returns what it printed.
///
/// # Panics
/// When sbatch refuses it or the job does not end well.
pub fn batch(tb: &Testbed, args: &[&str], script: &str) -> String {
    batch_with(tb, &[], args, script).1
}

/// As [`batch`], with additional environment; returns what sbatch said, too.
///
/// # Panics
/// As [`batch`].
pub fn batch_with(
    tb: &Testbed,
    env: &[(&str, &str)],
    args: &[&str],
    script: &str,
) -> (Output, String) {
    let command = tb.command("alice", &["sbatch", "--parsable"]).args(args);
    let command = env
        .iter()
        .fold(command, |command, (name, value)| command.env(name, value));
    let sbatch = command
        .stdin(format!("#!/bin/bash\n{script}\n"))
        .success()
        .unwrap_or_else(|error| panic!("{error}"));
    let job = JobId(sbatch.stdout.trim().parse().expect("a job id"));
    let state = tb.wait_job(job).unwrap_or_else(|error| panic!("{error}"));
    let printed = without_report(&tb.job_output(job).unwrap_or_else(|error| panic!("{error}")));
    assert_eq!(state, JobState::Completed, "job {job} printed: {printed}");
    (sbatch, printed)
}

/// What a job printed, without what is told at the end of a step or a job
/// about EFA's traffic.
pub fn without_report(text: &str) -> String {
    const STARTS: [&str; 6] = [
        "job ",
        "step ",
        "warning: job ",
        "warning: step ",
        "  ",
        "NCCL_NET=",
    ];
    let is_report = |line: &&str| {
        let said = line.strip_prefix("efa: ");
        said.is_some_and(|said| STARTS.iter().any(|start| said.starts_with(start)))
    };
    text.split_inclusive('\n')
        .filter(|line| !is_report(line))
        .collect()
}

/// Runs srun as alice with additional environment and returns what it printed.
///
/// # Panics
/// When it fails.
pub fn step(tb: &Testbed, env: &[(&str, &str)], args: &[&str]) -> Output {
    let argv: Vec<&str> = ["srun"].iter().chain(args).copied().collect();
    let output = tb
        .run("alice", &argv, env)
        .unwrap_or_else(|error| panic!("{error}"));
    assert!(output.success(), "srun {args:?}: {output}");
    output
}

/// An environment as `env` printed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vars(BTreeMap<String, String>);

impl Vars {
    /// Reads what `env` printed. No value may hold a newline.
    pub fn of(text: &str) -> Vars {
        Vars(
            text.lines()
                .filter_map(|line| line.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    /// A variable's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// What the plugin can have to do with: libfabric's, NCCL's and
    /// aws-ofi-nccl's variables, and its own, as `NAME=value` in order.
    pub fn efa(&self) -> Vec<String> {
        const PREFIXES: [&str; 6] = [
            "FI_",
            "NCCL_",
            "OFI_NCCL_",
            "NEURON_",
            "RDMAV_",
            "SLURM_EFA_",
        ];
        self.matching(|name| PREFIXES.iter().any(|prefix| name.starts_with(prefix)))
    }

    /// The variables whose names `wanted` accepts, as `NAME=value` in order.
    pub fn matching(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        self.0
            .iter()
            .filter(|(name, _)| wanted(name))
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    /// What is here and is not there, or not with the same value.
    pub fn beyond(&self, other: &Vars) -> Vec<String> {
        self.matching(|name| self.get(name) != other.get(name))
    }
}

/// The lines of `text` that hold every one of `words`.
pub fn lines_with<'t>(text: &'t str, words: &[&str]) -> Vec<&'t str> {
    text.lines()
        .filter(|line| words.iter().all(|word| line.contains(word)))
        .collect()
}

/// Checks that a command said nothing that could move a terminal's cursor.
///
/// # Panics
/// When standard error holds a control character other than a newline.
pub fn assert_harmless_stderr(output: &Output) {
    let control = |c: &char| c.is_control() && *c != '\n';
    if let Some(found) = output.stderr.chars().find(control) {
        panic!("stderr holds {found:?}: {:?}", output.stderr);
    }
}
