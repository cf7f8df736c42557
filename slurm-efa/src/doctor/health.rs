//! What efa-check says of the node, and where records of jobs go.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::sections::report;
use findings::Severity;
use host::printable;

use super::look::{Look, SETUP_CONTROLLER, shown, unknown, warning};
use super::merge::Document;
use crate::setup::discover::Site;
use crate::setup::paths::{
    EFA_CHECK, GRES_HELPERS, GRES_PLUGIN, JOB_PROGRAM, LOGOUTD, PAM_MODULE, PLUGIN,
};
use crate::setup::run;

/// The release of this program, which the others should have.
const OURS: &str = env!("CARGO_PKG_VERSION");

/// efa-check's own verdict, with its severity.
pub(super) fn efa_check(site: &Site) -> Look {
    const AGAIN: &str = "run `efa-check node` and see what it says";
    let program = site.place(EFA_CHECK);
    if !program.is_file() {
        return unknown(
            "efa-check is not installed",
            "install the package slurm-efa again",
        );
    }
    let config = site.wanted.config.as_ref().map(|it| it.to_string_lossy());
    let mut arguments = vec!["node", "--json"];
    if let Some(config) = &config {
        arguments.extend(["--config", config]);
    }
    if let Some(node) = &site.slurm.node {
        arguments.extend(["--node-name", node.as_str()]);
    }
    let ran = match run::run(&program, &arguments) {
        Ok(ran) => ran,
        Err(error) => return unknown(error, AGAIN),
    };
    let Ok(report) = serde_json::from_str::<Document>(&ran.stdout) else {
        return unknown(format!("efa-check: {}", run::complaint(&ran)), AGAIN);
    };
    let worst = report.findings.iter().max_by_key(|it| it.severity);
    match worst.filter(|it| it.severity != Severity::Ok) {
        None => Ok("efa-check finds nothing".to_owned()),
        Some(found) => Err((
            found.severity,
            format!("efa-check: {}", printable(&found.sentence, 400)),
            found.remedy.clone().unwrap_or_else(|| AGAIN.to_owned()),
        )),
    }
}

/// Which nodes slurmd runs the health check on.
pub(super) fn node_state_of_checks(site: &Site) -> Look {
    let states = site
        .slurm
        .conf
        .value("HealthCheckNodeState")
        .unwrap_or("ANY");
    let any = |it: &str| it.trim().eq_ignore_ascii_case("ANY");
    if states.split(',').any(any) || states.eq_ignore_ascii_case("CYCLE") {
        return Ok(format!("HealthCheckNodeState={states}"));
    }
    warning(
        format!(
            "HealthCheckNodeState={}: nodes in other states are not checked",
            printable(states, 100)
        ),
        "write HealthCheckNodeState=ANY into slurm.conf, and run `scontrol reconfigure`",
    )
}

/// The folder of the node's log of jobs.
pub(super) fn log_folder(site: &Site) -> Look {
    let settings = site
        .config
        .as_ref()
        .ok()
        .and_then(|config| report::Settings::of(config).ok());
    let node = site.slurm.node.as_ref();
    let Some(log) = settings.and_then(|it| it.log(node).ok()) else {
        return unknown(
            "the log of jobs was not looked at",
            "correct the configuration, or say the node's name with --node",
        );
    };
    let log = match log == Path::new(report::DEFAULT_LOG) {
        true => site.place(report::DEFAULT_LOG),
        false => log,
    };
    let folder = log.parent().unwrap_or(Path::new("/"));
    match fs::metadata(folder) {
        Ok(meta) if meta.is_dir() => Ok(shown(&log)),
        Ok(_) => warning(
            format!("{} is not a folder, so no job is logged", shown(folder)),
            "set `log` in [report] of slurm-efa.toml",
        ),
        Err(error) => warning(
            format!("{}: {error}; no job is logged", shown(folder)),
            format!("install -d -m 755 {}", shown(folder)),
        ),
    }
}

/// How long a program may take to say its release: there are several.
const VERSION_LIMIT: Duration = Duration::from_secs(5);

/// The releases of the programs and modules, against that of this program.
pub(super) fn versions(site: &Site) -> Look {
    let [first, second] = GRES_HELPERS;
    let programs = [EFA_CHECK, JOB_PROGRAM, first, second, LOGOUTD];
    let mut seen = 0;
    for program in programs.map(|it| site.place(it)) {
        // One that cannot be run is another finding's.
        let Some(version) = version_of(&program) else {
            continue;
        };
        if version != OURS {
            return other_version(&program, &version);
        }
        seen += 1;
    }
    for module in modules(site) {
        let Some(version) = version_in(&module) else {
            continue;
        };
        if version != OURS {
            return other_version(&module, &version);
        }
        seen += 1;
    }
    Ok(format!("{seen} programs and modules are of release {OURS}"))
}

/// The modules that Slurm and PAM load: where they are named, else where the package
/// has them.
fn modules(site: &Site) -> [PathBuf; 3] {
    let named = |file: &str, packaged: &str| {
        super::plugin::path_of(site, file).unwrap_or_else(|| site.place(packaged))
    };
    [
        named("spank_efa.so", PLUGIN),
        named("spank_gres.so", GRES_PLUGIN),
        site.place(PAM_MODULE),
    ]
}

fn version_of(program: &Path) -> Option<String> {
    if !program.is_file() {
        return None;
    }
    let said = run::run_for(program, &["--version"], VERSION_LIMIT).ok()?;
    let version = said.stdout.split_whitespace().nth(1).unwrap_or_default();
    said.success().then(|| version.to_owned())
}

fn other_version(file: &Path, version: &str) -> Look {
    warning(
        format!(
            "{} is of release {}, and slurm-efa of {OURS}",
            shown(file),
            printable(version, 40)
        ),
        "install the package slurm-efa again; on HyperPod, on every node and in the image",
    )
}

/// What a plugin says of its release, in its file.
fn version_in(plugin: &Path) -> Option<String> {
    const MARK: &[u8] = b"slurm-efa-release";
    /// Ours has 1.6 MB.
    const LARGEST: u64 = 256 << 20;
    let file = File::open(plugin).ok()?.take(LARGEST);
    let mut parts = BufReader::new(file).split(b'=');
    parts
        .find(|part| part.as_ref().is_ok_and(|it| it.ends_with(MARK)))?
        .ok()?;
    let version = parts.next()?.ok()?;
    let graphic = version
        .iter()
        .take(40)
        .take_while(|it| it.is_ascii_graphic());
    Some(graphic.map(|it| char::from(*it)).collect())
}

/// Where semodule keeps the module, by the priority of `semodule -i`.
const MODULE_STORES: [&str; 3] = [
    "/var/lib/selinux/default/active/modules/400/slurm-efa",
    "/var/lib/selinux/targeted/active/modules/400/slurm-efa",
    "/etc/selinux/targeted/active/modules/400/slurm-efa",
];

/// Whether SELinux may refuse what the PAM module does. Slurm's own daemons are not
/// confined by the distributions' policies, sshd is.
pub(super) fn selinux(site: &Site) -> Look {
    const POLICY: &str = "/usr/share/doc/slurm-efa/examples/slurm-efa.cil";
    match fs::read_to_string(site.place("/sys/fs/selinux/enforce")) {
        Ok(mode) if mode.trim() != "1" => Ok("SELinux is permissive".to_owned()),
        Err(_) => Ok("SELinux is not in use".to_owned()),
        Ok(_) if !site.has_section("logout") => {
            Ok("SELinux enforces; without [logout] nothing of slurm-efa is in sshd".to_owned())
        }
        Ok(_) if MODULE_STORES.iter().any(|it| site.place(it).is_dir()) => {
            Ok("SELinux enforces, with the policy module slurm-efa".to_owned())
        }
        Ok(_) => warning(
            "SELinux enforces and has no policy module slurm-efa: it may refuse what the PAM \
             module does in sshd",
            format!("semodule -i {POLICY}; then look for denials: ausearch -m avc -ts recent"),
        ),
    }
}

/// Whether slurm-efa and slurmd mean the same folder.
pub(super) fn spool_dir(site: &Site, section: &str, defaults: &[&str]) -> Look {
    let Some(node) = &site.slurm.node else {
        return unknown(
            "the node's name in Slurm is not known",
            "say it with --node",
        );
    };
    let slurms = match site.slurm.spool_dir(node) {
        Ok(slurms) => slurms,
        Err(error) => return unknown(error, SETUP_CONTROLLER),
    };
    let set = site.key(section, "spool_dir");
    let set = set.as_ref().and_then(toml::Value::as_str);
    let agrees = match set {
        Some(set) => slurm::node_name::expand(set, Some(node)).is_ok_and(|it| it == slurms),
        // gres-helper reads slurm.conf itself.
        None => defaults.is_empty() || defaults.iter().any(|it| Path::new(it) == slurms),
    };
    if agrees {
        return Ok(format!(
            "[{section}] knows SlurmdSpoolDir={}",
            shown(&slurms)
        ));
    }
    let ours = set.map_or_else(|| defaults.join(" and "), |it| printable(it, 200));
    super::look::fatal(
        format!(
            "[{section}] looks for jobs in {ours}, but SlurmdSpoolDir is {}, so no job is found",
            shown(&slurms)
        ),
        format!("write spool_dir = \"{}\" into [{section}]", shown(&slurms)),
    )
}
