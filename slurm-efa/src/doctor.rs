//! `slurm-efa doctor`: is everything as `setup` leaves it, and does it work?
//! Looks and asks, and changes nothing.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cli::called;
use findings::{Document, Finding, Findings, Remedies, Severity, Show};
use host::Deadline;
use host::printable;
use host::state_dir::{StateDir, StateError};
use host::state_layout::gres;
use host::state_layout::login::DAEMON_LOCK;
use serde::Serialize;
use slurm::NodeName;
use slurm::conf::{Disk, Plugstack, glob};

use crate::setup::role::Role;
use crate::setup::site::Site;
use crate::setup::{self, login, pam, run};

/// All that was looked at.
#[derive(Debug)]
pub struct Examination {
    /// The node's role.
    pub role: Option<Role>,
    /// In the order of the looks.
    pub findings: Findings,
}

/// The key of the JSON document beside those of every [`Document`].
#[derive(Debug, Serialize)]
pub struct Keys {
    role: Option<Role>,
}

/// A finding, with the keys that it had up to 0.1, for one release.
#[derive(Debug, Serialize)]
pub struct ShownFinding<'a> {
    #[serde(flatten)]
    finding: &'a Finding,
    grade: Severity,
    evidence: &'a str,
}

/// What one look found.
type Look = Result<String, (Severity, String, String)>;

fn fatal(evidence: impl Into<String>, remedy: impl Into<String>) -> Look {
    Err((Severity::Fatal, evidence.into(), remedy.into()))
}

fn warning(evidence: impl Into<String>, remedy: impl Into<String>) -> Look {
    Err((Severity::Warning, evidence.into(), remedy.into()))
}

fn unknown(evidence: impl Into<String>, remedy: impl Into<String>) -> Look {
    Err((Severity::Unknown, evidence.into(), remedy.into()))
}

const SETUP: &str = "run `slurm-efa setup` here";
const SETUP_CONTROLLER: &str = "run `slurm-efa setup` on the controller";
const GRES: &str = "put the controller's [gres] into this node's slurm-efa.toml and run \
                    `slurm-efa setup` here, or take Epilog out of slurm.conf";
const REINSTALL: &str = "install the package slurm-efa again";

/// Looks at everything that the node's role has to do with.
#[must_use]
pub fn examine(site: &Site) -> Examination {
    let role = site.role();
    let mut all = Examination {
        role: role.as_ref().ok().copied(),
        findings: Findings::default(),
    };
    all.add(
        "role",
        match &role {
            Ok(role) => Ok(role.to_string()),
            Err(error) => unknown(error.clone(), "say it with --role"),
        },
    );
    all.add("configuration", configuration(site));
    all.add("slurm", slurm(site));
    if site.slurm_conf.is_some() {
        all.add("slurm-conf", slurm_conf(site));
        all.add("plugstack", plugstack(site));
        all.add("plugin-file", plugin_file(site));
        all.add("plugin-loaded", plugin_loaded(site));
        all.add("plugstack-includes", plugstack_includes(site));
        all.add("prolog-flags", prolog_flags(site));
        all.add("prolog", program_key(site, "Prolog", setup::PROLOGS));
        all.add("health-check", health_check(site));
        if site.has_section("gres") {
            all.add("epilog", program_key(site, "Epilog", setup::EPILOGS));
        }
    }
    if all.role == Some(Role::Compute) {
        all.add(
            "prolog-programs",
            folder(
                site,
                setup::PROLOGS,
                Some(&called::EFA_CHECK.link("prolog")),
                SETUP,
            ),
        );
        if site.slurm_conf.is_some() {
            all.add("prolog-others", others(site));
        }
        all.add("health-program", executable(&site.place(setup::WATCH)));
        all.add("expectation", recorded(site));
        let gres = site.has_section("gres");
        // Slurm goes by its own file, whatever this node's configuration says.
        if gres || names_epilogs(site) {
            let needed = gres.then(|| called::GRES_HELPER.link("epilog"));
            let remedy = if gres { SETUP } else { GRES };
            let programs = folder(site, setup::EPILOGS, needed.as_deref(), remedy);
            all.add("epilog-programs", programs);
        }
        if gres {
            all.add("gres-watch", gres_watch(site));
        }
        if site.has_section("gres") || Path::new("/proc/driver/nvidia/version").exists() {
            all.add("nvml", nvml());
        }
        all.logins(site);
    }
    all.add("state", state(site));
    all.add("left-over", left_over(site));
    all
}

impl Examination {
    fn add(&mut self, id: &'static str, look: Look) {
        let (severity, evidence, remedy) = match look {
            Ok(evidence) => (Severity::Ok, evidence, None),
            Err((severity, evidence, remedy)) => (severity, evidence, Some(remedy)),
        };
        self.findings.0.push(Finding {
            id,
            severity,
            subject: None,
            sentence: printable(&evidence, 600),
            remedy,
        });
    }

    fn logins(&mut self, site: &Site) {
        let stack = Stack::read(site);
        let ours = stack
            .as_ref()
            .is_ok_and(|stack| stack.first(MODULE_ACCOUNT).is_some());
        if !site.has_section("logout") && !ours {
            return;
        }
        match &stack {
            Err(error) => self.add("pam", unknown(error.clone(), "correct the stack by hand")),
            Ok(stack) => {
                self.add("pam", stack.account());
                self.add("pam-session", stack.session());
                self.add("pam-adopt", stack.adopt());
                self.add("pam-module", stack.module(site));
            }
        }
        self.add("logoutd", logoutd(site));
    }

    /// For a person: a line for each, and what to do below.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.findings.text(Show::All, Remedies::Shown)
    }

    /// For a program.
    #[must_use]
    pub fn document<'a>(
        &'a self,
        node: Option<&'a NodeName>,
        unix: u64,
    ) -> Document<'a, ShownFinding<'a>, Keys> {
        let shown = |finding: &'a Finding| ShownFinding {
            finding,
            grade: finding.severity,
            evidence: &finding.sentence,
        };
        let node = node.map(NodeName::as_str);
        self.findings
            .document(node, unix, shown, Keys { role: self.role })
    }
}

fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy(), 300)
}

fn configuration(site: &Site) -> Look {
    let config = match &site.config {
        Ok(config) => config,
        Err(error) => {
            return fatal(
                error.clone(),
                "correct the file; until then jobs that ask for a profile are refused",
            );
        }
    };
    let problems = site.config_problems();
    if !problems.is_empty() {
        return fatal(
            problems.join("; "),
            "correct the file; until then the programs that read these keys refuse it",
        );
    }
    if let Some(problem) = report_folder(site, config) {
        return warning(
            problem,
            "make the folder, or mount it, so that only root may write it; until then records of \
             jobs are only in the node's log",
        );
    }
    if !config.warnings.is_empty() {
        let warnings = config.warnings.iter().map(ToString::to_string);
        return warning(
            warnings.collect::<Vec<_>>().join("; "),
            "write the new spelling before the next release is installed",
        );
    }
    Ok(shown(&config.path))
}

/// Why the site's folder of records cannot be used on this node. Only compute
/// nodes write there.
fn report_folder(site: &Site, config: &config::Config) -> Option<String> {
    if site.role() != Ok(Role::Compute) {
        return None;
    }
    let settings = config::sections::report::Settings::of(config).ok()?;
    // One that depends on the node's name is not looked for.
    let folder = settings.folder(None).ok()??;
    let reason = match StateDir::open_existing(&folder) {
        Ok(Some(_)) => return None,
        Ok(None) => "there is no such folder".to_owned(),
        Err(error) => error.to_string(),
    };
    let (key, line) = match config.line_of(&["report", "dir"]) {
        Some(line) => ("[report] `dir`", line),
        None => ("`report_dir`", config.line_of(&["report_dir"])?),
    };
    let (path, folder) = (shown(&config.path), shown(&folder));
    Some(format!("{path}:{line}: {key}: {folder}: {reason}"))
}

fn slurm(site: &Site) -> Look {
    let Some((year, month)) = site.release else {
        return fatal(
            "neither slurmd nor scontrol says its release",
            "install Slurm, or look on another node",
        );
    };
    let conf = site.slurm_conf.as_deref().map(shown);
    let Some(conf) = conf else {
        return fatal(
            "no slurm.conf is found, nor a configless node's copy",
            "start slurmd, or name the file with --slurm-conf",
        );
    };
    Ok(format!("{year}.{month:02}, {conf}"))
}

fn slurm_conf(site: &Site) -> Look {
    let Some(scontrol) = site.program("scontrol") else {
        return unknown("there is no scontrol", "install Slurm's client programs");
    };
    match run::run(
        &scontrol,
        &["show", "hostnames", "n1"],
        site.slurm_conf.as_deref(),
    ) {
        Ok(ran) if ran.success() => Ok("Slurm's own programs take it".to_owned()),
        Ok(ran) => fatal(
            run::complaint(&ran),
            "correct the line; every Slurm command fails until then",
        ),
        Err(error) => unknown(error, "look again"),
    }
}

fn read_plugstack(site: &Site) -> Option<(PathBuf, Plugstack)> {
    let path = site.plugstack()?;
    let stack = Plugstack::read(&Disk, &path).ok()?;
    Some((path, stack))
}

/// The path of our plugin in plugstack.conf.
fn plugin_path(site: &Site) -> Option<PathBuf> {
    let (_, stack) = read_plugstack(site)?;
    let plugin = stack.plugin("spank_efa.so")?;
    Some(PathBuf::from(&plugin.path))
}

fn plugstack(site: &Site) -> Look {
    let Some((path, _)) = read_plugstack(site) else {
        let path = site.plugstack().unwrap_or_default();
        return fatal(format!("{} cannot be read", shown(&path)), SETUP_CONTROLLER);
    };
    let copy = path.components().any(|it| it.as_os_str() == "conf-cache");
    match plugin_path(site) {
        Some(plugin) if plugin.is_absolute() => {
            Ok(format!("{} in {}", shown(&plugin), shown(&path)))
        }
        Some(plugin) => warning(
            format!("{} is a relative path in {}", shown(&plugin), shown(&path)),
            "give the whole path: Slurm looks for a relative one in its own PluginDir",
        ),
        None if copy => fatal(
            format!(
                "no line for spank_efa.so in {}, slurmd's copy",
                shown(&path)
            ),
            "run `slurm-efa setup` on the controller, and there `scontrol reconfigure`",
        ),
        None => fatal(
            format!("no line for spank_efa.so in {}", shown(&path)),
            SETUP_CONTROLLER,
        ),
    }
}

fn plugin_file(site: &Site) -> Look {
    let Some(path) = plugin_path(site) else {
        return unknown("plugstack.conf names no plugin of ours", SETUP_CONTROLLER);
    };
    let meta = match fs::metadata(&path) {
        Ok(meta) => meta,
        Err(error) => return fatal(format!("{}: {error}", shown(&path)), REINSTALL),
    };
    if meta.uid() != 0 || meta.mode() & 0o022 != 0 {
        return fatal(
            format!(
                "{} belongs to uid {} with mode {:o}: others can change what root runs",
                shown(&path),
                meta.uid(),
                meta.mode() & 0o7777
            ),
            format!("chown root: {0}; chmod 644 {0}", shown(&path)),
        );
    }
    let mut start = [0; 4];
    let read = File::open(&path).and_then(|mut file| file.read_exact(&mut start));
    if read.is_err() || start != *b"\x7fELF" {
        return fatal(format!("{} is no shared library", shown(&path)), REINSTALL);
    }
    Ok(format!("{}, {} bytes", shown(&path), meta.len()))
}

/// The proof that this Slurm, of this release, loads it: its own help names the
/// option.
fn plugin_loaded(site: &Site) -> Look {
    let Some(srun) = site.program("srun") else {
        return unknown("there is no srun", "install Slurm's client programs");
    };
    let ran = match run::run(&srun, &["--help"], site.slurm_conf.as_deref()) {
        Ok(ran) => ran,
        Err(error) => return unknown(error, "look again"),
    };
    let spank = ran
        .stderr
        .lines()
        .find(|line| line.contains("plugin") || line.contains("spank"));
    let why = spank.map_or_else(|| run::complaint(&ran), |line| printable(line, 300));
    if !ran.stdout.contains("--efa-profile") {
        return fatal(
            format!("srun --help does not name --efa-profile: {why}"),
            "see what Slurm says; `Incompatible plugin version` wants a newer package",
        );
    }
    if let Some(line) = spank {
        return warning(
            format!("srun complains of a plugin: {}", printable(line, 300)),
            "correct or remove that line of plugstack.conf",
        );
    }
    Ok("srun --help names --efa-profile".to_owned())
}

/// Slurm ignores an include that matches nothing, without a word.
fn plugstack_includes(site: &Site) -> Look {
    let Some((_, stack)) = read_plugstack(site) else {
        return unknown("plugstack.conf cannot be read", SETUP_CONTROLLER);
    };
    let mut includes = stack.includes.iter();
    let empty = includes.find(|include| include.files.is_empty());
    match empty {
        Some(include) => warning(
            format!(
                "`include {}` matches no file, which Slurm ignores in silence",
                printable(&include.pattern, 200)
            ),
            "put the plugin's own line into plugstack.conf: configless nodes do not get included files",
        ),
        None => Ok("each include matches a file".to_owned()),
    }
}

fn prolog_flags(site: &Site) -> Look {
    let flags = site.conf.value("PrologFlags").unwrap_or_default();
    let has = |wanted: &str| {
        flags
            .split(',')
            .any(|it| it.trim().eq_ignore_ascii_case(wanted))
    };
    if has("Alloc") || has("Contain") || has("X11") {
        return Ok(format!("PrologFlags={flags}"));
    }
    warning(
        format!(
            "PrologFlags={flags} has neither Alloc nor Contain: the prolog runs with the first step only"
        ),
        SETUP_CONTROLLER,
    )
}

fn program_key(site: &Site, key: &str, folder: &str) -> Look {
    let values = site.conf.values(key);
    // Before 24.11 only the last counts.
    let several = site.release.is_some_and(|it| it >= (24, 11));
    let counted: &[&str] = if several {
        &values
    } else {
        values.last().map_or(&[], std::slice::from_ref)
    };
    let ours = site.place_text(folder);
    if counted.iter().any(|it| it.starts_with(&ours)) {
        return Ok(format!("{key}={ours}/*"));
    }
    let seen = values.join(", ");
    if seen.is_empty() {
        return fatal(format!("there is no {key}"), SETUP_CONTROLLER);
    }
    if setup::runs_ours(site, key, folder) {
        return Ok(format!("{key}={seen} has slurm-efa's links"));
    }
    warning(
        format!("{key}={seen} is not ours"),
        format!("have it run each program of {folder}, and fail when one fails"),
    )
}

fn health_check(site: &Site) -> Look {
    let program = site.conf.value("HealthCheckProgram").unwrap_or_default();
    let interval = site.conf.value("HealthCheckInterval").unwrap_or_default();
    if program.is_empty() {
        return fatal("there is no HealthCheckProgram", SETUP_CONTROLLER);
    }
    if program != site.place_text(setup::WATCH) {
        return warning(
            format!("HealthCheckProgram={program} is not ours"),
            format!("have it run {}", setup::WATCH),
        );
    }
    if interval.parse::<u32>().unwrap_or_default() == 0 {
        return fatal(
            "HealthCheckInterval is 0, so it never runs",
            SETUP_CONTROLLER,
        );
    }
    Ok(format!("{program} every {interval} s"))
}

fn executable(path: &Path) -> Look {
    match fs::metadata(path) {
        Ok(meta) if !meta.is_file() => fatal(format!("{} is no file", shown(path)), SETUP),
        Ok(meta) if meta.permissions().mode() & 0o100 == 0 => fatal(
            format!("{} cannot be executed", shown(path)),
            format!("chmod 755 {}", shown(path)),
        ),
        Ok(_) => Ok(shown(path)),
        Err(error) => fatal(format!("{}: {error}", shown(path)), SETUP),
    }
}

/// Every program of a folder runs, and one that fails drains the node; so does a
/// pattern that matches none.
fn folder(site: &Site, folder: &str, needed: Option<&str>, remedy: &str) -> Look {
    let place = site.place(folder);
    let names = |entry: fs::DirEntry| entry.file_name().into_string().ok();
    let entries = fs::read_dir(&place).into_iter().flatten().flatten();
    let mut found: Vec<String> = entries.filter_map(names).collect();
    found.retain(|name| !name.starts_with('.'));
    found.sort();
    match needed {
        Some(needed) if !found.iter().any(|name| name == needed) => {
            return fatal(format!("{needed} is missing in {}", shown(&place)), remedy);
        }
        None if found.is_empty() => {
            return fatal(format!("there is no program in {}", shown(&place)), remedy);
        }
        _ => {}
    }
    for name in &found {
        executable(&place.join(name))?;
    }
    Ok(format!("{}: {}", shown(&place), found.join(", ")))
}

fn names_epilogs(site: &Site) -> bool {
    let epilogs = site.place_text(setup::EPILOGS);
    let values = site.conf.values("Epilog");
    values.iter().any(|it| it.starts_with(&epilogs))
}

/// Prologs and epilogs of others: one that is missing drains the node, too.
fn others(site: &Site) -> Look {
    let (prologs, epilogs) = (
        site.place_text(setup::PROLOGS),
        site.place_text(setup::EPILOGS),
    );
    let mut seen = Vec::new();
    for key in ["Prolog", "Epilog"] {
        for value in site.conf.values(key) {
            if value.starts_with(&prologs) || value.starts_with(&epilogs) {
                continue;
            }
            let folder = site.slurm_conf.as_deref().and_then(Path::parent);
            let folder = folder.unwrap_or(Path::new("/"));
            let mut programs = glob::matching(&Disk, folder, value).unwrap_or_default();
            programs.retain(|program| program.is_file());
            if programs.is_empty() {
                return fatal(
                    format!(
                        "{key}={value} matches nothing here, which drains the node with the next job"
                    ),
                    "install it here, or correct slurm.conf",
                );
            }
            for program in programs {
                executable(&program)?;
                seen.push(shown(&program));
            }
        }
    }
    Ok(if seen.is_empty() {
        "none".to_owned()
    } else {
        seen.join(", ")
    })
}

/// Where efa-check keeps what it expects.
#[must_use]
pub fn expectation(site: &Site) -> PathBuf {
    let path = site.key("health", "record");
    let path = path.as_ref().and_then(|it| it.as_str());
    // A path with the node's name is of a test cluster; efa-check knows it.
    match path {
        Some(path) if !path.contains('%') => PathBuf::from(path),
        _ => site.place("/var/lib/slurm-efa/efa-expected.json"),
    }
}

/// The type of this machine, if it can be read.
fn this_type(site: &Site) -> Option<String> {
    let sysroot = site.config.as_ref().ok()?.sysroot(None).ok()?;
    let instance = efa::instance_types::detect(&sysroot).ok()?;
    Some(instance.as_str().to_owned())
}

fn recorded(site: &Site) -> Look {
    let instance = this_type(site);
    match site.key("health", "expected_devices") {
        // A number for each type says nothing of a type that it does not name.
        Some(toml::Value::Table(counts)) => {
            let count = instance.as_ref().and_then(|it| counts.get(it.as_str()));
            if let (Some(count), Some(instance)) = (count, &instance) {
                return Ok(format!("expected_devices of {instance} = {count}"));
            }
        }
        Some(count) => return Ok(format!("expected_devices = {count}")),
        None => {}
    }
    let path = expectation(site);
    const RECORD: &str = "while the node is healthy: efa-check record";
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => return warning(format!("{}: {error}", shown(&path)), RECORD),
    };
    let record: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    // efa-check does not use a record of another type.
    let of = record
        .as_ref()
        .and_then(|it| it.get("instance_type")?.as_str());
    if let (Some(of), Some(instance)) = (of, &instance)
        && of != instance
    {
        return warning(
            format!("{} is of a {of}, and this is a {instance}", shown(&path)),
            RECORD,
        );
    }
    let devices = record
        .as_ref()
        .and_then(|it| Some(it.get("devices")?.as_array()?.len()));
    match devices {
        Some(devices) => Ok(format!("{devices} devices in {}", shown(&path))),
        None => warning(format!("{} is not understood", shown(&path)), RECORD),
    }
}

fn nvml() -> Look {
    let Ok(program) = std::env::current_exe() else {
        return unknown("this program does not find itself", "look again");
    };
    match run::run(&program, &[login::NVML], None)
        .map(|ran| ran.status.and_then(|status| status.code()))
    {
        Ok(Some(0)) => Ok("libnvidia-ml.so.1 reaches its driver".to_owned()),
        Ok(Some(login::NO_LIBRARY)) => warning(
            "there is no libnvidia-ml.so.1",
            "install NVIDIA's driver of the right version",
        ),
        Ok(Some(code)) => warning(
            format!("nvmlInit_v2 answers {code}"),
            "see what nvidia-smi and dmesg say; the driver may have to be loaded",
        ),
        _ => unknown(
            "NVML did not answer in 30 s",
            "see dmesg: the driver may hang",
        ),
    }
}

/// sshd's stack with what it includes, in order.
struct Stack {
    rules: Vec<(pam::Phase, String, String)>,
}

const MODULE_ACCOUNT: (pam::Phase, &str) = (pam::Phase::Account, pam::MODULE);

impl Stack {
    fn read(site: &Site) -> Result<Self, String> {
        let mut stack = Self { rules: Vec::new() };
        stack.follow(site, "sshd", None, 8)?;
        Ok(stack)
    }

    fn follow(
        &mut self,
        site: &Site,
        file: &str,
        only: Option<pam::Phase>,
        deeper: u8,
    ) -> Result<(), String> {
        let path = site.place("/etc/pam.d").join(file);
        let text =
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", shown(&path)))?;
        let rules = pam::rules(&text).map_err(|error| format!("{}: {error}", shown(&path)))?;
        for (_, rule) in rules {
            match rule {
                pam::Rule::Include(file) if deeper > 0 => {
                    self.follow(site, &file, only, deeper - 1)?
                }
                pam::Rule::Include(_) => {}
                pam::Rule::Phase { phase, .. } if only.is_some_and(|it| it != phase) => {}
                pam::Rule::Phase {
                    phase,
                    control,
                    target,
                    ..
                } if matches!(control.as_str(), "include" | "substack") => {
                    if deeper > 0 {
                        self.follow(site, &target, Some(phase), deeper - 1)?;
                    }
                }
                pam::Rule::Phase {
                    phase,
                    control,
                    target,
                    ..
                } => {
                    self.rules.push((phase, control, target));
                }
            }
        }
        Ok(())
    }

    fn first(&self, (phase, module): (pam::Phase, &str)) -> Option<usize> {
        let mut rules = self.rules.iter();
        rules.position(|(it, _, target)| *it == phase && target.ends_with(module))
    }

    fn account(&self) -> Look {
        let Some(at) = self.first(MODULE_ACCOUNT) else {
            return fatal(
                "sshd's account lines do not name pam_slurm_logout.so",
                SETUP,
            );
        };
        let before = self.rules.iter().take(at);
        let mut before = before.filter(|(phase, ..)| *phase == pam::Phase::Account);
        let early = before
            .find(|(_, control, _)| control == "sufficient" || control.contains("success=done"));
        if let Some((_, control, target)) = early {
            return fatal(
                format!(
                    "`account {control} {target}` stands before pam_slurm_logout.so, which then is not asked"
                ),
                "move our account line before it",
            );
        }
        match self.rules.get(at).map(|(_, control, _)| control.as_str()) {
            Some("required" | "requisite") => {
                Ok("account: before all that could end the stack".to_owned())
            }
            _ => warning(
                "the account line is neither required nor requisite, so it refuses nobody",
                "make it `account required pam_slurm_logout.so`",
            ),
        }
    }

    fn session(&self) -> Look {
        let Some(at) = self.first((pam::Phase::Session, pam::MODULE)) else {
            return fatal(
                "sshd's session lines do not name pam_slurm_logout.so, so no login is ended",
                SETUP,
            );
        };
        for module in ["pam_loginuid.so", "pam_systemd.so"] {
            if self
                .first((pam::Phase::Session, module))
                .is_some_and(|it| it > at)
            {
                return fatal(
                    format!(
                        "{module} stands behind pam_slurm_logout.so, which records what it sets"
                    ),
                    "move our session line to the end",
                );
            }
        }
        Ok("session: behind pam_loginuid and pam_systemd".to_owned())
    }

    fn adopt(&self) -> Look {
        let Some(adopt) = self.first((pam::Phase::Account, "pam_slurm_adopt.so")) else {
            return Ok("pam_slurm_adopt is not used".to_owned());
        };
        if self
            .first((pam::Phase::Session, "pam_systemd.so"))
            .is_some()
        {
            return warning(
                "pam_systemd takes sessions out of the job that pam_slurm_adopt put them into",
                "take pam_systemd out of the session lines, or do without pam_slurm_adopt",
            );
        }
        if self.first(MODULE_ACCOUNT).is_some_and(|ours| ours > adopt) {
            return warning(
                "pam_slurm_adopt stands before pam_slurm_logout.so",
                "move our account line before it",
            );
        }
        Ok("pam_slurm_adopt stands behind pam_slurm_logout.so".to_owned())
    }

    fn module(&self, site: &Site) -> Look {
        let rule = self
            .rules
            .iter()
            .find(|(.., target)| target.ends_with(pam::MODULE));
        let target = rule.map_or(pam::MODULE, |(.., target)| target.as_str());
        let places: Vec<PathBuf> = if target.starts_with('/') {
            vec![PathBuf::from(target)]
        } else {
            setup::SECURITY
                .iter()
                .map(|it| site.place(it).join(target))
                .collect()
        };
        match places.iter().find(|path| path.is_file()) {
            Some(path) => Ok(shown(path)),
            None => fatal(
                format!(
                    "{} is not installed: a required line without its module refuses everybody",
                    pam::MODULE
                ),
                REINSTALL,
            ),
        }
    }
}

fn logoutd(site: &Site) -> Look {
    const START: &str = "systemctl enable --now slurm-logoutd";
    const DEAD: &str = "slurm-logoutd does not run, so no login is ended";
    match lives(site, "", DAEMON_LOCK) {
        Ok(true) => Ok("slurm-logoutd holds its lock".to_owned()),
        Ok(false) => fatal(DEAD, START),
        Err(error) => unknown(error, START),
    }
}

fn gres_watch(site: &Site) -> Look {
    const START: &str = "systemctl enable --now gres-helper-watch";
    const DEAD: &str = "gres-helper watch does not run: a job over its share is not noticed, and \
                        XID errors are not remembered";
    match lives(site, gres::FOLDER, gres::WATCH_LOCK) {
        Ok(true) => Ok("gres-helper watch holds its lock".to_owned()),
        Ok(false) => warning(DEAD, START),
        Err(error) => unknown(error, START),
    }
}

/// Whether a daemon lives: it holds a lock in this folder of the state directory.
fn lives(site: &Site, folder: &str, lock: &str) -> Result<bool, String> {
    let Some(place) = state_dir(site) else {
        return Err(NO_STATE_DIR.to_owned());
    };
    let dir = match StateDir::open_existing(&place.join(folder)) {
        Ok(Some(dir)) if dir.path().join(lock).exists() => dir,
        _ => return Ok(false),
    };
    match dir.lock(lock, Deadline::after(Duration::ZERO)) {
        Err(StateError::Busy { .. }) => Ok(true),
        Ok(_) => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

const NO_STATE_DIR: &str = "state_dir was not looked at: the configuration cannot be read, or its \
                            place depends on the node's name";

fn state_dir(site: &Site) -> Option<PathBuf> {
    let config = site.config.as_ref().ok()?;
    let path = config.state_dir(None).ok()?;
    let default = path == Path::new(config::DEFAULT_STATE_DIR);
    Some(if default {
        site.place(config::DEFAULT_STATE_DIR)
    } else {
        path
    })
}

/// Whether root's files can be believed.
fn state(site: &Site) -> Look {
    let Some(path) = state_dir(site) else {
        return unknown(
            NO_STATE_DIR,
            "correct the configuration, and look by hand at a state_dir with %n: root's alone",
        );
    };
    match StateDir::open_existing(&path) {
        Ok(Some(_)) => Ok(format!("{} is root's alone", shown(&path))),
        Ok(None) => Ok(format!("{} is made with the first job", shown(&path))),
        Err(error) => fatal(
            error.to_string(),
            format!("chown root: {0}; chmod 755 {0}", shown(&path)),
        ),
    }
}

fn left_over(site: &Site) -> Look {
    let mut paths = vec![site.place(setup::SSHD)];
    paths.extend(site.slurm_conf.clone());
    paths.extend(site.plugstack());
    let real = paths
        .iter()
        .map(|it| fs::canonicalize(it).unwrap_or_else(|_| it.clone()));
    match real.into_iter().find(|path| setup::files::is_left(path)) {
        Some(path) => warning(
            format!("a set-up was interrupted while it changed {}", shown(&path)),
            "run `slurm-efa setup` again",
        ),
        None => Ok("no set-up was interrupted".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examined(severities: &[Severity]) -> Examination {
        let mut all = Examination {
            role: None,
            findings: Findings::default(),
        };
        for severity in severities {
            let look = match severity {
                Severity::Ok => Ok("seen".to_owned()),
                Severity::Warning => warning("seen", "look"),
                Severity::Unknown => unknown("seen", "look"),
                Severity::Fatal => fatal("seen", "look"),
            };
            all.add("slurm", look);
        }
        all
    }

    #[test]
    fn the_exit_code_is_that_of_the_worst_finding() {
        use Severity::{Fatal, Ok, Unknown, Warning};
        for (severities, code) in [
            (&[Ok] as &[Severity], 0),
            (&[Ok, Warning], 1),
            (&[Unknown, Ok], 3),
            (&[Warning, Unknown], 3),
            (&[Unknown, Warning, Fatal], 2),
        ] {
            let examination = examined(severities);
            assert_eq!(examination.findings.exit_code(), code, "{severities:?}");
        }
    }

    #[test]
    fn a_finding_in_json_has_the_keys_of_the_last_release_too() {
        let examination = examined(&[Severity::Unknown]);
        let node: NodeName = "n1".parse().unwrap();
        let document = examination.document(Some(&node), 0);
        let expected = serde_json::json!({
            "version": 1,
            "node": "n1",
            "time": "1970-01-01T00:00:00Z",
            "severity": "unknown",
            "findings": [{
                "id": "slurm",
                "severity": "unknown",
                "sentence": "seen",
                "remedy": "look",
                "grade": "unknown",
                "evidence": "seen",
            }],
            "role": null,
        });
        assert_eq!(serde_json::to_value(document).unwrap(), expected);
    }
}
