//! What the tests of shared GPUs have in common: a node with made-up GPUs,
//! whose files `gres-helper` generated before Slurm started.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use mock_nvml::{Here, Machine};

use crate::modules;
use crate::simnode::Spec;
use crate::testbed::{Builder, NodeOptions, Output, Running, Testbed};

/// The generated gres.conf, relative to the testbed's directory.
pub const GENERATED: &str = "gres.conf";

/// The configuration's place in a testbed, relative to its directory.
pub const CONFIG: &str = "site/gres.toml";

/// A link to the program under test, relative to the testbed's directory.
const HELPER: &str = "gres-helper";

/// The control program of MPS, in a testbed's directory.
const MPS_CONTROL: &str = "nvidia-cuda-mps-control";

/// Where library and machine are, relative to the testbed's directory.
const NVML: &str = "nvml";

/// Four GPUs of three models, and the types that are made of their names.
pub const MIXED: &str = "mixed";
const MIXED_GPUS: [(&str, &str); 4] = [
    (
        "NVIDIA RTX PRO 6000 Blackwell Server Edition",
        "rtx_pro_6000",
    ),
    (
        "NVIDIA RTX PRO 6000 Blackwell Server Edition",
        "rtx_pro_6000",
    ),
    ("NVIDIA A100-SXM4-40GB", "a100-sxm4-40gb"),
    ("NVIDIA A100-SXM4-80GB", "a100-sxm4-80gb"),
];

/// The files under test, and the Slurm that they are tested on.
#[derive(Debug, Clone)]
pub struct Site {
    /// The program.
    pub helper: PathBuf,
    /// The plugin.
    pub plugin: PathBuf,
    /// Another Debian's root, if not this machine's Slurm.
    pub root: Option<PathBuf>,
}

impl Site {
    /// What `make modules` built, on this machine's Slurm.
    ///
    /// # Panics
    /// When something is not built.
    pub fn built() -> Self {
        Self {
            helper: modules::program("gres-helper"),
            plugin: modules::gres_plugin(),
            root: None,
        }
    }
}

/// One node, n1, with a machine of this model (or `H100x4`, or [`MIXED`]), shards of 10
/// GiB, the plugin, prolog and epilog, and these lines in `[gres]`.
///
/// # Panics
/// When something is not built, or the model is unknown.
pub fn cluster(model: &str, toml: &str) -> Builder {
    cluster_without(model, toml, &[])
}

/// As [`cluster`], with a library that lacks these functions.
///
/// # Panics
/// As [`cluster`].
pub fn cluster_without(model: &str, toml: &str, symbols: &[&'static str]) -> Builder {
    cluster_of(Site::built(), model, toml, symbols)
}

/// As [`cluster_without`], of these files on this Slurm.
///
/// # Panics
/// As [`cluster`].
pub fn cluster_of(site: Site, model: &str, toml: &str, symbols: &[&'static str]) -> Builder {
    let Site {
        helper,
        plugin,
        root,
    } = site;
    let node = NodeOptions::simulated(Spec::named("p5.48xlarge").unwrap_or_else(|| panic!("p5")));
    let mut machine = match model {
        "H100x4" | MIXED => Machine::model("8xH100", node.cpus()),
        other => Machine::model(other, node.cpus()),
    }
    .unwrap_or_else(|| panic!("no machine is called {model}"));
    if matches!(model, "H100x4" | MIXED) {
        machine.gpus.truncate(4);
    }
    let kind = if model.ends_with("L40S") {
        "l40s"
    } else {
        "h100"
    };
    let count = machine.gpus.len();
    let shards = if kind == "l40s" { 4 } else { 7 } * count;
    let mut gres = format!("gpu:{kind}:{count},shard:{shards}");
    if model == MIXED {
        for (gpu, (name, _)) in machine.gpus.iter_mut().zip(MIXED_GPUS) {
            name.clone_into(&mut gpu.name);
        }
        let kinds = MIXED_GPUS
            .map(|(_, kind)| format!("gpu:{kind}:1"))
            .join(",");
        gres = format!("{kinds},shard:{shards}");
    }
    let script = |verb: &str| {
        format!(
            "#!/bin/sh\nexec {} --config {{dir}}/{CONFIG} {verb}\n",
            helper.display()
        )
    };
    let text = format!(
        "sysroot = \"{{dir}}/sysroots/%n\"\nstate_dir = \"{{dir}}/run-%n\"\n[gres]\n\
         nvml_library = \"{{dir}}/{NVML}/libnvidia-ml.so.1\"\nspool_dir = \"{{dir}}/spool/%n\"\n\
         helper = \"{{dir}}/{HELPER}\"\nmps_control = \"{{dir}}/{MPS_CONTROL}\"\n\
         shard_size = \"10G\"\n{toml}",
    );
    let symbols = symbols.to_vec();
    let builder = match root {
        Some(root) => Testbed::builder().root(root).bind(&helper).bind(&plugin),
        None => Testbed::builder(),
    };
    builder
        .node(NodeOptions {
            gres: Some(gres),
            ..node
        })
        .slurm_conf_extra("GresTypes=gpu,shard\nProlog={dir}/prolog.sh\nEpilog={dir}/epilog.sh\n")
        .plugstack(&format!(
            "required {} config={{dir}}/{CONFIG}",
            plugin.display()
        ))
        .file(CONFIG, &text)
        .file("prolog.sh", &script("prolog"))
        .file("epilog.sh", &script("epilog"))
        .prepare(move |dir| prepare(dir, &machine, &helper, &symbols))
}

/// Device nodes, NVML and the generated gres.conf.
fn prepare(dir: &Path, machine: &Machine, helper: &Path, symbols: &[&str]) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for script in ["prolog.sh", "epilog.sh"] {
        fs::set_permissions(dir.join(script), fs::Permissions::from_mode(0o755))?;
    }
    let devices = dir.join("sysroots/n1/dev");
    fs::create_dir_all(&devices)?;
    for gpu in &machine.gpus {
        // Slurm takes no other file for a GPU than a character device.
        let minor = gpu.minor.to_string();
        let made = Command::new("mknod")
            .arg(devices.join(format!("nvidia{minor}")))
            .args(["c", "195", &minor])
            .status()?;
        if !made.success() {
            return Err(io::Error::other("mknod failed"));
        }
    }
    mock_nvml::install_without(&modules::mock_nvml(), &dir.join(NVML), machine, symbols)?;
    let said = Command::new(helper)
        .arg("--config")
        .arg(dir.join(CONFIG))
        .args(["--node-name", "n1", "generate", "--file", "gres"])
        .output()?;
    if !said.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&said.stderr)));
    }
    modules::put(helper, dir)?;
    modules::put(&modules::program(MPS_CONTROL), dir)?;
    fs::write(dir.join(GENERATED), said.stdout)
}

/// The machine of such a testbed.
pub fn nvml(tb: &Testbed) -> Here {
    Here(tb.dir().join(NVML))
}

fn argv(tb: &Testbed, args: &[&str]) -> Vec<String> {
    let config = tb.dir().join(CONFIG).display().to_string();
    let helper = tb.dir().join(HELPER).display().to_string();
    let mut argv = vec![helper, "--config".to_owned(), config];
    argv.extend(["--node-name".to_owned(), "n1".to_owned()]);
    argv.extend(args.iter().map(|arg| (*arg).to_owned()));
    argv
}

/// Runs `gres-helper` as root on the node.
///
/// # Panics
/// When it does not start or end.
pub fn helper(tb: &Testbed, args: &[&str]) -> Output {
    let output = tb.command("root", &argv(tb, args)).output();
    output.unwrap_or_else(|error| panic!("{error}"))
}

/// Starts `gres-helper` as root on the node; dropping it ends it.
///
/// # Panics
/// When it does not start.
pub fn spawn<'tb>(tb: &'tb Testbed, args: &[&str]) -> Running<'tb> {
    let running = tb.command("root", &argv(tb, args)).spawn();
    running.unwrap_or_else(|error| panic!("{error}"))
}
