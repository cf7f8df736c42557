//! `slurm-efa setup` and `slurm-efa revert`: this node's part of the set-up, and
//! back. What is wished for depends on the role; see docs/hyperpod.md.
//!
//! Look, plan, show; then change all files together, judge the result by the
//! programs that read them, and put everything back if one refuses.

pub mod edit;
pub mod files;
pub mod login;
pub mod pam;
pub mod role;
pub mod run;
pub mod site;
pub mod slurm_conf;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use cli::called;
use host::Deadline;
use host::printable;
use host::state_dir::{Lock, StateDir};
use host::state_layout::DEFAULT as STATE_DIR;
use host::state_layout::setup::{LOCK, TRIAL_PREFIX};
use slurm::conf::reader::{self, Grammar};
use slurm::conf::{Disk, Overlay, SlurmConf};

use edit::Lines;
use files::{Change, Content};
use login::Verdict;
use role::Role;
use site::Site;
use slurm_conf::{Folder, Link, Wish};

/// Where the plugin is installed.
pub const PLUGIN: &str = "/usr/lib/slurm-efa/spank_efa.so";
/// Where that of shared GPUs is.
pub const GRES_PLUGIN: &str = "/usr/lib/slurm-efa/spank_gres.so";
/// Links to the programs that slurmd runs before a job, a folder of ours, since
/// Slurm takes a pattern but no arguments. **A pattern that matches nothing fails
/// the prolog and drains the node** (22.05, 24.11), so nodes come before the
/// controller.
pub const PROLOGS: &str = "/etc/slurm-efa/prolog.d";
/// The same after a job.
pub const EPILOGS: &str = "/etc/slurm-efa/epilog.d";
/// The health check.
pub const WATCH: &str = "/etc/slurm-efa/efa-check-watch";
/// What the health check is on a node without jobs, whose slurmd calls it all
/// the same (HyperPod's login nodes), and without it complains at each round.
const NO_WATCH: &str = "/bin/true";
/// PAM's stack of sshd.
pub const SSHD: &str = "/etc/pam.d/sshd";
/// Where the programs are.
pub const EFA_CHECK: &str = "/usr/sbin/efa-check";
/// Where the other may be.
const GRES_HELPERS: [&str; 2] = ["/usr/sbin/gres-helper", "/usr/bin/gres-helper"];
/// Where PAM's module is installed: the same path on every distribution.
pub const PAM_MODULE: &str = "/usr/lib/slurm-efa/pam_slurm_logout.so";
/// The role that the last set-up had: what told it may be gone (HyperPod's
/// lifecycle files lie in /tmp), and `doctor` wants to know it.
pub const ROLE: &str = "/var/lib/slurm-efa/role";
/// Copies of what was changed.
const BACKUPS: &str = "/var/lib/slurm-efa/backups";
/// Where PAM's own modules are, and ours if somebody put it there.
pub const SECURITY: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/security",
    "/usr/lib/aarch64-linux-gnu/security",
    "/usr/lib64/security",
    "/usr/lib/security",
];
/// The first line of a file that we made.
const MADE: &str = "# Made by slurm-efa setup.";
/// How long another set-up is waited for.
const LOCK_LIMIT: Duration = Duration::from_secs(30);
/// The first release that takes several lines of Prolog and Epilog: read in the
/// sources of 24.11.5; 22.05.8 lets the last one win.
const SEVERAL_PROLOGS: site::Release = (24, 11);
/// The first with EnableExtraControllers.
const EXTRA_CONTROLLERS: site::Release = (25, 5);

/// Why nothing was changed, or everything put back.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Something that must be there is not.
    #[error("{0}")]
    Missing(String),
    /// The configuration cannot be read.
    #[error("{0}")]
    Config(String),
    /// Nothing was changed.
    #[error("{0}; nothing was changed")]
    File(#[from] files::FileError),
    /// A program refused what was written.
    #[error("{0}; everything was put back")]
    Refused(String),
    /// The same, and it could not be put back.
    #[error("{0}; it could not be put back: {1}; the files before are in {2}")]
    Stuck(String, String, String),
    /// Another one is at work.
    #[error("{0}")]
    Busy(String),
}

/// What shall become of the files, and what is to be said.
#[derive(Debug, Default)]
pub struct Plan {
    /// In the order in which they are made.
    pub changes: Vec<Change>,
    /// Sentences: what was left as it is, and what to do.
    pub notes: Vec<String>,
    /// Who must still be able to log in.
    admins: Vec<String>,
    /// Whether it takes out what another one put in.
    reverts: bool,
    /// What a revert lets stay, since Slurm still asks for it.
    stays: Vec<&'static str>,
}

impl Plan {
    /// What will change, for a person.
    #[must_use]
    pub fn diff(&self) -> String {
        let shown = |path: &Path| printable(&path.to_string_lossy(), 300);
        let mut text = String::new();
        for change in &self.changes {
            let path = shown(&change.path);
            text += &match (&change.before, &change.after) {
                (before, Content::Text(after)) => {
                    let before = if let Content::Text(it) = before {
                        it
                    } else {
                        ""
                    };
                    format!("{path}\n{}", printable_lines(&edit::diff(before, after)))
                }
                (_, Content::Link(target)) => format!("{path} -> {}\n", shown(target)),
                (_, Content::Nothing) => format!("{path} is removed\n"),
            };
        }
        text
    }

    fn text(&mut self, path: &Path, made: impl FnOnce(&str) -> String) -> Result<(), SetupError> {
        let (path, before) = files::read(path)?;
        let new = matches!(before, Content::Nothing);
        let text = if let Content::Text(it) = &before {
            it
        } else {
            ""
        };
        let mut after = made(text);
        if edit::has_ours(&after) && (new || text.starts_with(MADE)) {
            let mut lines = format!("{MADE} {}\n", edit::MARK);
            lines.push_str(&after);
            after = lines;
        }
        let changed = if new {
            !after.is_empty()
        } else {
            after != *text
        };
        if changed {
            self.changes.push(Change {
                path,
                before,
                after: Content::Text(after),
            });
        }
        Ok(())
    }

    fn link(&mut self, path: PathBuf, after: Content) {
        let before = files::link(&path);
        // A wrapper of the site's, say. Revert has nothing to do with it.
        if before == Content::Nothing && path.symlink_metadata().is_ok() {
            if let Content::Link(target) = after {
                self.notes.push(format!(
                    "{} stays, since set-up did not make it; have it run {} in its place, under \
                     this name",
                    printable(&path.to_string_lossy(), 200),
                    printable(&target.to_string_lossy(), 200)
                ));
            }
            return;
        }
        if before != after {
            self.changes.push(Change {
                path,
                before,
                after,
            });
        }
    }
}

/// What `setup` would do here.
///
/// # Errors
/// What is missing, for a person.
pub fn plan(site: &Site, role: Role, admins: &[String]) -> Result<Plan, SetupError> {
    let problems = site.config_problems();
    if !problems.is_empty() {
        return Err(SetupError::Config(format!(
            "{}; nothing was changed",
            problems.join("; ")
        )));
    }
    if site.release.is_none() {
        return Err(SetupError::Missing(
            "no Slurm is found here (in /opt/slurm, /usr/local or /usr); install it, or run \
             this again when it is; nothing was changed"
                .to_owned(),
        ));
    }
    if role == Role::Controller && !site.has_original() {
        return Err(SetupError::Missing(
            "there is no slurm.conf yet; run this again when there is (on HyperPod behind \
             start_slurm.sh), or name it with --slurm-conf; nothing was changed"
                .to_owned(),
        ));
    }
    let plugin = site.place(PLUGIN);
    if !plugin.is_file() {
        let plugin = printable(&plugin.to_string_lossy(), 200);
        return Err(SetupError::Missing(format!(
            "{plugin} is missing; install the package slurm-efa first; nothing was changed"
        )));
    }
    let mut plan = Plan::default();
    if role == Role::Compute {
        compute(site, &mut plan)?;
        logins(site, admins, &mut plan)?;
    }
    if role == Role::Login {
        plan.link(site.place(WATCH), Content::Link(NO_WATCH.into()));
    }
    if site.edits_slurm(role) {
        slurm(site, &mut plan)?;
    } else if site.has_original() && site.shared && !site.is_configless() {
        // Once the controller has done it, there is nothing to say.
        let mut wanted = Plan::default();
        slurm(site, &mut wanted)?;
        if !wanted.changes.is_empty() {
            plan.notes.push(left_to_controller(site, "setup"));
        }
    }
    plan.text(&site.place(ROLE), |_| format!("{role}\n"))?;
    Ok(plan)
}

/// What is said where Slurm's files are other nodes' too.
fn left_to_controller(site: &Site, command: &str) -> String {
    let folder = site.slurm_conf.as_deref().and_then(Path::parent);
    let folder = folder.unwrap_or(Path::new("/")).to_string_lossy();
    format!(
        "Slurm's files in {} are not edited here, since they lie on a network file system that \
         nodes share: run `slurm-efa {command} --role controller` on the controller",
        printable(&folder, 200)
    )
}

/// Programs of this suite that slurmd runs on this node.
fn links(site: &Site) -> Vec<(String, &'static str)> {
    let mut links = vec![
        (
            format!("{PROLOGS}/{}", called::EFA_CHECK.link("prolog")),
            EFA_CHECK,
        ),
        (WATCH.to_owned(), EFA_CHECK),
    ];
    if site.has_section("gres") {
        let there = GRES_HELPERS.into_iter().find(|it| site.place(it).is_file());
        let helper = there.unwrap_or(GRES_HELPERS[0]);
        for (folder, command) in [(PROLOGS, "prolog"), (EPILOGS, "epilog")] {
            let link = called::GRES_HELPER.link(command);
            links.push((format!("{folder}/{link}"), helper));
        }
    }
    links
}

fn compute(site: &Site, plan: &mut Plan) -> Result<(), SetupError> {
    for (link, program) in links(site) {
        let target = site.place(program);
        if !target.is_file() {
            let program = printable(&target.to_string_lossy(), 200);
            return Err(SetupError::Missing(format!(
                "{program} is missing; install the package slurm-efa first; nothing was changed"
            )));
        }
        plan.link(site.place(&link), Content::Link(target));
    }
    Ok(())
}

/// PAM is edited where the site has decided how logins shall end.
fn logins(site: &Site, admins: &[String], plan: &mut Plan) -> Result<(), SetupError> {
    if !site.has_section("logout") {
        return Ok(());
    }
    let mut admins = admins.to_vec();
    if admins.is_empty() {
        let exempt = site.key("logout", "exempt_users");
        let exempt = exempt
            .as_ref()
            .and_then(|it| it.as_array())
            .into_iter()
            .flatten();
        admins.extend(
            exempt
                .filter_map(|it| it.as_str())
                .take(1)
                .map(str::to_owned),
        );
    }
    let path = site.place(SSHD);
    if admins.is_empty() {
        plan.notes.push(format!(
            "{} is not edited: name an administrator who must still be able to log in without a \
             job, by --admin NAME or exempt_users in [logout]",
            printable(&path.to_string_lossy(), 200)
        ));
        return Ok(());
    }
    let Some(module) = module(site) else {
        plan.notes.push(format!(
            "{SSHD} is not edited: {} is not installed",
            pam::MODULE
        ));
        return Ok(());
    };
    let (_, before) = files::read(&path)?;
    let Content::Text(before) = before else {
        plan.notes
            .push(format!("{SSHD} is not there, so logins are not judged"));
        return Ok(());
    };
    match pam::edit(&before, &module) {
        Ok(after) => plan.text(&path, |_| after)?,
        Err(refusal) => plan.notes.push(format!(
            "{} is not edited: {refusal}",
            printable(&path.to_string_lossy(), 200)
        )),
    }
    plan.admins = admins;
    Ok(())
}

/// How our module is called in a stack: by its whole path where it lies among
/// the suite's own files or below another root, by its name where libpam finds
/// it (there the package puts it).
fn module(site: &Site) -> Option<String> {
    if site.place(PAM_MODULE).is_file() {
        return Some(site.place_text(PAM_MODULE));
    }
    let folder = SECURITY
        .iter()
        .find(|folder| site.place(folder).join(pam::MODULE).is_file())?;
    Some(match site.wanted.root {
        Some(_) => site.place_text(&format!("{folder}/{}", pam::MODULE)),
        None => pam::MODULE.to_owned(),
    })
}

fn slurm(site: &Site, plan: &mut Plan) -> Result<(), SetupError> {
    let (Some(conf), Some(plugstack)) = (&site.slurm_conf, site.plugstack()) else {
        return Ok(());
    };
    let gres = site.has_section("gres");
    let config = site.wanted.config.as_deref().map(Path::to_string_lossy);
    let arguments = config
        .map(|path| format!("config={path}"))
        .unwrap_or_default();
    let load = |path: &str, arguments: &str| Wish::Plugin {
        path: site.place_text(path),
        arguments: arguments.to_owned(),
    };
    let mut plugins = vec![load(PLUGIN, &arguments)];
    if gres && site.place(GRES_PLUGIN).is_file() {
        plugins.push(load(GRES_PLUGIN, &arguments));
    }
    edit_conf(plan, &plugstack, &plugins)?;

    let several = site.release.is_some_and(|it| it >= SEVERAL_PROLOGS);
    let program = |key, folder: &str| Wish::Program {
        key,
        value: format!("{}/*", site.place_text(folder)),
        several,
        links: missing_links(site, key, folder),
    };
    let mut wishes = vec![
        // Contain works with proctrack/cgroup only, and includes Alloc.
        if has_cgroups(site) {
            Wish::Flags("PrologFlags", &["Alloc", "Contain"])
        } else {
            Wish::Flags("PrologFlags", &["Alloc"])
        },
        Wish::HealthCheck {
            program: site.place_text(WATCH),
            interval: "60",
        },
    ];
    if !runs_ours(site, "Prolog", PROLOGS) {
        wishes.push(program("Prolog", PROLOGS));
    }
    if gres && !runs_ours(site, "Epilog", EPILOGS) {
        wishes.push(program("Epilog", EPILOGS));
    }
    edit_conf(plan, conf, &wishes)?;

    let isolate = site.key("hugepages", "isolate").and_then(|it| it.as_bool());
    if isolate == Some(true) && site.release.is_some_and(|it| it >= EXTRA_CONTROLLERS) {
        let wishes = [Wish::Flags("EnableExtraControllers", &["hugetlb"])];
        edit_conf(plan, &conf.with_file_name("cgroup.conf"), &wishes)?;
    }
    Ok(())
}

/// Those of our links for `Prolog` or `Epilog` that the site's own folder lacks,
/// under whatever number; all of them where the key names no folder.
fn missing_links(site: &Site, key: &str, folder: &str) -> Vec<Link> {
    let ours = format!("{}/*", site.place_text(folder));
    let mut values = site.conf.values(key);
    values.retain(|it| *it != ours);
    let theirs = values.last().copied().and_then(Folder::of);
    let names: Vec<std::ffi::OsString> = theirs
        .and_then(|it| std::fs::read_dir(it.path).ok())
        .map(|entries| entries.flatten().map(|it| it.file_name()).collect())
        .unwrap_or_default();
    let command = key.to_ascii_lowercase();
    let there = |link: &str| {
        let programs = [called::EFA_CHECK, called::GRES_HELPER];
        let program = programs.iter().find(|it| it.link(&command) == link);
        program.is_some_and(|it| names.iter().any(|name| it.command(name) == Some(&command)))
    };
    links(site)
        .into_iter()
        .filter_map(|(path, program)| {
            let name = path.strip_prefix(folder)?.strip_prefix('/')?.to_owned();
            (!there(&name)).then(|| Link {
                name,
                program: site.place_text(program),
            })
        })
        .collect()
}

/// Whether the site's own folder of prologs or epilogs has all our links.
#[must_use]
pub fn runs_ours(site: &Site, key: &str, folder: &str) -> bool {
    missing_links(site, key, folder).is_empty()
}

fn has_cgroups(site: &Site) -> bool {
    let proctrack = site.conf.value("ProctrackType");
    proctrack.is_none_or(|it| it.eq_ignore_ascii_case("proctrack/cgroup"))
}

fn edit_conf(plan: &mut Plan, path: &Path, wishes: &[Wish]) -> Result<(), SetupError> {
    let mut notes = Vec::new();
    plan.text(path, |text| {
        let edited = slurm_conf::edit(&Disk, path, text, wishes);
        notes = edited.notes;
        edited.text
    })?;
    plan.notes.extend(notes);
    Ok(())
}

/// Puts lines of somebody else's making into gres.conf: what `gres-helper
/// generate` printed on the nodes.
///
/// # Errors
/// The file cannot be read.
pub fn plan_gres(
    site: &Site,
    role: Role,
    plan: &mut Plan,
    fragment: &Path,
) -> Result<(), SetupError> {
    if site.has_original() && site.shared && !site.edits_slurm(role) {
        let note = left_to_controller(site, "setup --gres-conf FILE");
        plan.notes.push(note);
        return Ok(());
    }
    let (_, content) = files::read(fragment)?;
    let (Content::Text(text), Some(conf)) = (content, &site.slurm_conf) else {
        let shown = printable(&fragment.to_string_lossy(), 200);
        return Err(SetupError::Missing(format!(
            "{shown} is missing; nothing was changed"
        )));
    };
    let lines = reader::logical(&text, Grammar::KeyValue);
    let lines = lines.iter().map(|it| it.written.trim().to_owned());
    let lines = lines.filter(|it| !it.is_empty()).collect();
    edit_conf(
        plan,
        &conf.with_file_name("gres.conf"),
        &[Wish::Verbatim(lines)],
    )
}

/// What `revert` would do here: everything of ours out, nothing else.
///
/// # Errors
/// A file cannot be read.
pub fn plan_revert(site: &Site) -> Result<Plan, SetupError> {
    let mut plan = Plan {
        reverts: true,
        ..Plan::default()
    };
    let left = site.has_original() && site.shared && site.role() != Ok(Role::Controller);
    // What Slurm reads once this is done.
    let mut conf_after = site.conf.clone();
    // The controller's lines go before what they name.
    for path in texts(site) {
        let (path, before) = files::read(&path)?;
        let Content::Text(text) = &before else {
            continue;
        };
        if !edit::has_ours(text) {
            continue;
        }
        if left && is_slurms(site, &path) {
            let note = left_to_controller(site, "revert");
            if !plan.notes.contains(&note) {
                plan.notes.push(note);
            }
            continue;
        }
        let lines = Lines::theirs(text);
        let empty = lines.is_empty();
        let theirs = lines.into_text();
        if let Some(conf) = site.slurm_conf.as_deref().filter(|it| is_same(it, &path)) {
            let files = Overlay {
                path: conf,
                text: &theirs,
                under: &Disk,
            };
            conf_after = SlurmConf::read(&files, conf).unwrap_or_default();
        }
        let after = if empty && text.starts_with(MADE) {
            Content::Nothing
        } else {
            Content::Text(theirs)
        };
        plan.changes.push(Change {
            path,
            before,
            after,
        });
    }
    // A node whose prolog or epilog is gone while Slurm still asks for it is
    // drained, so its links stay until the controller is reverted.
    let asked = |place: &str| {
        let place = site.place_text(place);
        let mut keys = ["Prolog", "Epilog", "HealthCheckProgram"].into_iter();
        keys.find(|key| {
            let values = conf_after.values(key);
            values.iter().any(|it| it.starts_with(&place))
        })
    };
    let prologs = [called::EFA_CHECK, called::GRES_HELPER]
        .map(|it| format!("{PROLOGS}/{}", it.link("prolog")));
    let epilog = format!("{EPILOGS}/{}", called::GRES_HELPER.link("epilog"));
    for (place, links) in [
        (PROLOGS, prologs.to_vec()),
        (EPILOGS, vec![epilog]),
        (WATCH, vec![WATCH.to_owned()]),
    ] {
        if let Some(key) = asked(place) {
            plan.notes.push(format!(
                "{place} stays, since this cluster's slurm.conf still names it as {key}: revert on \
                 the controller first, then here"
            ));
            plan.stays.push(place);
            continue;
        }
        for link in links {
            plan.link(site.place(&link), Content::Nothing);
        }
    }
    if !plan.stays.is_empty() {
        return Ok(plan);
    }
    let (path, before) = files::read(&site.place(ROLE))?;
    if before != Content::Nothing {
        plan.changes.push(Change {
            path,
            before,
            after: Content::Nothing,
        });
    }
    Ok(plan)
}

/// Whether both are one file.
fn is_same(path: &Path, real: &Path) -> bool {
    files::resolved(path) == real
}

/// Every text file that may have something of ours.
fn texts(site: &Site) -> Vec<PathBuf> {
    let mut paths = vec![site.place(SSHD)];
    if let Some(conf) = site.slurm_conf.as_ref().filter(|_| site.has_original()) {
        paths.push(conf.clone());
        paths.extend(site.plugstack());
        paths.push(conf.with_file_name("cgroup.conf"));
        paths.push(conf.with_file_name("gres.conf"));
    }
    paths
}

/// Takes the lock of set-ups.
///
/// # Errors
/// Another one has it.
pub fn lock(site: &Site) -> Result<Lock, SetupError> {
    let busy = |error: host::state_dir::StateError| SetupError::Busy(error.to_string());
    let state = StateDir::open(&site.place(STATE_DIR)).map_err(busy)?;
    state.lock(LOCK, Deadline::after(LOCK_LIMIT)).map_err(busy)
}

/// Makes a plan true, or puts everything back.
///
/// # Errors
/// What refused.
pub fn apply(site: &Site, plan: &Plan) -> Result<(), SetupError> {
    let backup = site.place(BACKUPS).join(stamp());
    for change in &plan.changes {
        files::sweep_path(&change.path);
    }
    let admits = before_pam(site, plan)?;
    if !plan.changes.is_empty() {
        files::back_up(&backup, &plan.changes)?;
    }
    let made = files::make(plan.changes.clone())?;
    match judge(site, plan, admits) {
        Ok(()) => {
            made.keep();
            remove_empty(site, plan);
            Ok(())
        }
        Err(reason) => match made.put_back() {
            Ok(()) => Err(SetupError::Refused(reason)),
            Err(error) => Err(SetupError::Stuck(
                reason,
                error.to_string(),
                backup.to_string_lossy().into_owned(),
            )),
        },
    }
}

/// A folder that set-up made for its links goes with the last of them. One with
/// programs of the site's is not empty and stays.
fn remove_empty(site: &Site, plan: &Plan) {
    for folder in [PROLOGS, EPILOGS].map(|it| site.place(it)) {
        let links = plan
            .changes
            .iter()
            .filter(|it| it.path.starts_with(&folder));
        if links.into_iter().any(|it| it.after == Content::Nothing) {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

fn stamp() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seconds = now.map(|it| it.as_secs()).unwrap_or_default();
    format!("{seconds}-{}", std::process::id())
}

fn changes(plan: &Plan, path: &Path) -> bool {
    plan.changes.iter().any(|it| is_same(path, &it.path))
}

/// Users for whom a stack is tried: root and each administrator.
fn tried(plan: &Plan) -> impl Iterator<Item = &str> {
    std::iter::once("root").chain(plan.admins.iter().map(String::as_str))
}

/// Whether each of [`tried`] is admitted by today's stack: what refuses someone
/// today proves nothing about our line.
fn before_pam(site: &Site, plan: &Plan) -> Result<bool, SetupError> {
    if !changes(plan, &site.place(SSHD)) {
        return Ok(false);
    }
    let folder = pam_folder(site);
    for user in tried(plan) {
        match login::ask("sshd", user, folder.as_deref()) {
            Verdict::Admitted => {}
            // Reverting cannot make it worse.
            _ if plan.admins.is_empty() => return Ok(false),
            verdict => {
                return Err(SetupError::Missing(format!(
                    "PAM does not admit {} even now ({verdict:?}), so it cannot be proven that \
                     our line locks nobody out; nothing was changed",
                    printable(user, 64)
                )));
            }
        }
    }
    Ok(true)
}

fn pam_folder(site: &Site) -> Option<PathBuf> {
    site.wanted.root.as_ref().map(|_| site.place("/etc/pam.d"))
}

/// Asks every program that reads a changed file.
fn judge(site: &Site, plan: &Plan, admits: bool) -> Result<(), String> {
    if let (Some(conf), Some(scontrol)) = (&site.slurm_conf, site.program("scontrol")) {
        // Needs no controller, and reads slurm.conf first.
        let ran = run::run(&scontrol, &["show", "hostnames", "n1"], Some(conf))?;
        if !ran.success() && plan.changes.iter().any(|it| is_slurms(site, &it.path)) {
            return Err(format!(
                "Slurm refuses slurm.conf: {}",
                run::complaint(&ran)
            ));
        }
    }
    let plugstack = site.plugstack();
    if let Some(path) = plugstack.filter(|path| changes(plan, path) && path.exists())
        && let Some(srun) = site.program("srun")
    {
        let ran = run::run(&srun, &["--help"], site.slurm_conf.as_deref())?;
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let ours = edit::has_ours(&text);
        if !ran.success() || (ours && !ran.stdout.contains("--efa-profile")) {
            return Err(format!(
                "srun does not load the plugin: {}",
                run::complaint(&ran)
            ));
        }
    }
    judge_cgroup(site, plan)?;
    if changes(plan, &site.place(SSHD)) {
        judge_logins(site, plan, admits)?;
    }
    Ok(())
}

/// Whether a plan changes files that Slurm reads.
#[must_use]
pub fn changes_slurm(site: &Site, plan: &Plan) -> bool {
    plan.changes.iter().any(|it| is_slurms(site, &it.path))
}

fn is_slurms(site: &Site, path: &Path) -> bool {
    let folder = site.slurm_conf.as_deref().and_then(Path::parent);
    let folder = folder.and_then(|it| std::fs::canonicalize(it).ok());
    // slurm.conf and plugstack.conf may themselves be links to another folder.
    let mut named = site.slurm_conf.iter().cloned().chain(site.plugstack());
    folder.is_some_and(|folder| path.starts_with(folder)) || named.any(|it| is_same(&it, path))
}

/// cgroup.conf is read by slurmd alone: `slurmd -G` reads it beside a slurm.conf
/// of one made-up node, and neither starts nor asks anything.
fn judge_cgroup(site: &Site, plan: &Plan) -> Result<(), String> {
    let Some(path) = site
        .slurm_conf
        .as_ref()
        .map(|it| it.with_file_name("cgroup.conf"))
    else {
        return Ok(());
    };
    let (true, Some(slurmd)) = (changes(plan, &path), site.program("slurmd")) else {
        return Ok(());
    };
    let folder = site
        .place(STATE_DIR)
        .join(format!("{TRIAL_PREFIX}{}", std::process::id()));
    let conf = folder.join("slurm.conf");
    let one =
        "ClusterName=try\nSlurmctldHost=localhost\nNodeName=try\nPartitionName=try Nodes=try\n";
    let written = std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(&conf, one))
        .and_then(|()| std::fs::copy(&path, folder.join("cgroup.conf")));
    let ran = match written {
        Ok(_) => run::run(
            &slurmd,
            &["-G", "-N", "try", "-f", &conf.to_string_lossy()],
            None,
        ),
        Err(error) => Err(format!("cgroup.conf cannot be tried: {error}")),
    };
    // It lies in /run, and the next one has another name.
    let _ = std::fs::remove_dir_all(&folder);
    let ran = ran?;
    if ran.success() {
        Ok(())
    } else {
        Err(format!(
            "Slurm refuses cgroup.conf: {}",
            run::complaint(&ran)
        ))
    }
}

fn judge_logins(site: &Site, plan: &Plan, admits: bool) -> Result<(), String> {
    let folder = pam_folder(site);
    for user in tried(plan).filter(|_| admits) {
        match login::ask("sshd", user, folder.as_deref()) {
            Verdict::Admitted => {}
            verdict => {
                return Err(format!(
                    "with our line PAM would not admit {} ({verdict:?})",
                    printable(user, 64)
                ));
            }
        }
    }
    if site.wanted.root.is_none()
        && let Some(sshd) = run::find("sshd", None)
    {
        let ran = run::run(&sshd, &["-t"], None)?;
        if !ran.success() {
            return Err(format!(
                "sshd refuses its configuration: {}",
                run::complaint(&ran)
            ));
        }
    }
    Ok(())
}

/// What follows once the files are in place; each that fails is told, and
/// undoes nothing.
#[must_use]
pub fn follow_up(site: &Site, role: Role, plan: &Plan, reconfigure: bool) -> Vec<String> {
    let mut said = Vec::new();
    // Also where nothing changed: another node may have, of files that all share.
    if reconfigure && role == Role::Controller {
        said.extend(ask_controller(site).err());
    }
    if role == Role::Compute {
        said.extend(record(site).err());
    }
    let sshd = site.place(SSHD);
    let stack = std::fs::read_to_string(&sshd).unwrap_or_default();
    let gres = role == Role::Compute && site.has_section("gres");
    let units = units(plan, changes(plan, &sshd), &stack, gres);
    for unit in units.start {
        said.extend(start(site, unit).err());
    }
    for unit in units.stop {
        stop(site, unit);
    }
    said
}

const LOGOUTD: &str = "slurm-logoutd";
const GRES_WATCH: &str = "gres-helper-watch";

/// Which daemons shall run from now on, and which no longer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Units {
    start: Vec<&'static str>,
    stop: Vec<&'static str>,
}

/// What follows from a plan: `edited` says whether sshd's stack was among its
/// changes, `stack` is its text now, and `gres` whether this node shares GPUs.
fn units(plan: &Plan, edited: bool, stack: &str, gres: bool) -> Units {
    let mut units = Units::default();
    // By the new text: a revert changes the stack, too.
    let judged = stack.lines().any(|line| {
        let rule = line.split('#').next().unwrap_or_default();
        rule.contains(pam::MODULE)
    });
    if plan.reverts {
        // Lines of the site's own still need the daemon.
        if !judged {
            units.stop.push(LOGOUTD);
        }
        if !plan.stays.iter().any(|it| [PROLOGS, EPILOGS].contains(it)) {
            units.stop.push(GRES_WATCH);
        }
        return units;
    }
    if edited && judged {
        units.start.push(LOGOUTD);
    }
    if gres {
        units.start.push(GRES_WATCH);
    }
    units
}

/// Starts a daemon now and at each boot, where systemd runs.
fn start(site: &Site, unit: &str) -> Result<(), String> {
    if site.wanted.root.is_some() || !Path::new("/run/systemd/system").is_dir() {
        return Ok(());
    }
    let Some(systemctl) = run::find("systemctl", None) else {
        return Ok(());
    };
    let ran = run::run(&systemctl, &["enable", "--now", unit], None)?;
    if ran.success() {
        return Ok(());
    }
    Err(format!("{unit} was not started: {}", run::complaint(&ran)))
}

/// Stops a daemon, now and for the next boot. On a node that never had it,
/// systemd complains, and there is nothing to do.
fn stop(site: &Site, unit: &str) {
    if site.wanted.root.is_some() || !Path::new("/run/systemd/system").is_dir() {
        return;
    }
    if let Some(systemctl) = run::find("systemctl", None) {
        let _ = run::run(&systemctl, &["disable", "--now", unit], None);
    }
}

/// slurmctld reads its files anew and hands them to configless nodes. No daemon
/// is restarted.
fn ask_controller(site: &Site) -> Result<(), String> {
    let scontrol = site.program("scontrol").ok_or("there is no scontrol")?;
    let ran = run::run(&scontrol, &["reconfigure"], site.slurm_conf.as_deref())?;
    if ran.success() {
        return Ok(());
    }
    Err(format!(
        "slurmctld did not read its files anew ({}); run `scontrol reconfigure` when it is up",
        run::complaint(&ran)
    ))
}

/// What efa-check expects from now on, unless it knows.
fn record(site: &Site) -> Result<(), String> {
    if crate::doctor::expectation(site).exists() {
        return Ok(());
    }
    let program = site.place(EFA_CHECK);
    let config = site.wanted.config.as_deref().map(Path::to_string_lossy);
    let mut arguments = vec!["record"];
    arguments.extend(config.as_deref().map(|_| "--config"));
    arguments.extend(config.as_deref());
    let ran = run::run(&program, &arguments, None)?;
    if ran.success() {
        return Ok(());
    }
    Err(format!(
        "the number of this node's EFA devices is not recorded: {}",
        run::complaint(&ran)
    ))
}

fn printable_lines(text: &str) -> String {
    text.lines()
        .map(|line| format!("{}\n", printable(line, 400)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    use config::Config;
    use config::MissingIs;

    /// A node without Slurm's programs, whose slurm.conf is `conf`.
    fn site(dir: &Path, role: Role, conf: &str) -> Site {
        let root = dir.join("root");
        let there = [PLUGIN, EFA_CHECK].map(|it| root.join(it.trim_start_matches('/')));
        for path in there {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let slurm_conf = dir.join("etc/slurm.conf");
        fs::create_dir_all(dir.join("etc")).unwrap();
        fs::write(&slurm_conf, conf).unwrap();
        let config = Config::load(&dir.join("none.toml"), MissingIs::Default);
        Site {
            wanted: site::Wanted {
                role: Some(role),
                root: Some(root),
                ..site::Wanted::default()
            },
            slurm_conf: Some(slurm_conf),
            shared: false,
            conf: SlurmConf::read(&Disk, &dir.join("etc/slurm.conf")).unwrap(),
            release: Some((24, 11)),
            config: config.map_err(|error| error.to_string()),
        }
    }

    fn changed(plan: &Plan) -> Vec<String> {
        let name = |it: &Change| it.path.file_name().unwrap().to_string_lossy().into_owned();
        plan.changes.iter().map(name).collect()
    }

    #[test]
    fn a_daemon_starts_where_the_new_stack_names_the_module_and_stops_with_the_last_line() {
        let names = "account required pam_slurm_logout.so # slurm-efa\n";
        let set_up = Plan::default();
        let revert = Plan {
            reverts: true,
            ..Plan::default()
        };
        let both = vec![LOGOUTD, GRES_WATCH];
        let of = |start: &[&'static str], stop: &[&'static str]| Units {
            start: start.to_vec(),
            stop: stop.to_vec(),
        };
        assert_eq!(units(&set_up, true, names, false), of(&[LOGOUTD], &[]));
        assert_eq!(units(&set_up, true, names, true), of(&both, &[]));
        assert_eq!(units(&set_up, false, names, false), of(&[], &[]));
        let off = format!("# {names}");
        assert_eq!(units(&set_up, true, &off, false), of(&[], &[]));
        for edited in [false, true] {
            assert_eq!(units(&revert, edited, "", true), of(&[], &both));
            assert_eq!(units(&revert, edited, &off, false), of(&[], &both));
            // The site's own line still needs the daemon.
            assert_eq!(units(&revert, edited, names, true), of(&[], &[GRES_WATCH]));
        }
        for (place, stop) in [(EPILOGS, &both[..1]), (PROLOGS, &both[..1]), (WATCH, &both)] {
            let kept = Plan {
                reverts: true,
                stays: vec![place],
                ..Plan::default()
            };
            assert_eq!(units(&kept, true, "", true), of(&[], stop), "{place}");
        }
    }

    #[test]
    fn a_revert_leaves_each_link_that_slurm_still_asks_for_and_takes_out_the_others() {
        let links = [
            (
                "Prolog",
                PROLOGS,
                vec!["efa-check-prolog", "gres-helper-prolog"],
            ),
            ("Epilog", EPILOGS, vec!["gres-helper-epilog"]),
            ("HealthCheckProgram", WATCH, vec!["efa-check-watch"]),
        ];
        for (key, place, kept) in &links {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("root");
            let place = root.join(place.trim_start_matches('/'));
            let pattern = if *key == "HealthCheckProgram" {
                ""
            } else {
                "/*"
            };
            // A line without our mark: nobody takes it out here.
            let conf = format!("{key}={}{pattern}\n", place.display());
            let site = site(dir.path(), Role::Compute, &conf);
            for (_, folder, names) in &links {
                for name in names {
                    let folder = site.place(folder);
                    let path = if folder.ends_with(name) {
                        folder
                    } else {
                        folder.join(name)
                    };
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    std::os::unix::fs::symlink("x", path).unwrap();
                }
            }
            let plan = plan_revert(&site).unwrap();
            let all = links.iter().flat_map(|(.., names)| names);
            let gone: Vec<&str> = all.copied().filter(|it| !kept.contains(it)).collect();
            assert_eq!(changed(&plan), gone, "{key}");
            assert_eq!(plan.notes.len(), 1, "{:?}", plan.notes);
            assert!(plan.notes[0].contains("revert on the controller first"));
        }
    }

    #[test]
    fn a_revert_that_takes_the_lines_out_leaves_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let site = site(dir.path(), Role::Controller, "");
        let mut set_up = Plan::default();
        slurm(&site, &mut set_up).unwrap();
        files::make(set_up.changes).unwrap().keep();
        let conf = site.slurm_conf.clone().unwrap();
        let site = Site {
            conf: SlurmConf::read(&Disk, &conf).unwrap(),
            ..site
        };
        assert!(site.conf.value("Prolog").unwrap().contains("prolog.d"));
        let plan = plan_revert(&site).unwrap();
        assert_eq!(changed(&plan), ["slurm.conf", "plugstack.conf"]);
        assert_eq!(plan.notes, Vec::<String>::new());
    }

    #[test]
    fn what_nodes_share_is_edited_by_the_controller_alone() {
        let dir = tempfile::tempdir().unwrap();
        let with = |role, shared| {
            let conf = dir.path().join("etc/slurm.conf");
            let text = fs::read_to_string(conf).unwrap_or_default();
            Site {
                shared,
                ..site(dir.path(), role, &text)
            }
        };
        let ours = |plan: &Plan| {
            let slurms = ["slurm.conf", "plugstack.conf"];
            changed(plan).iter().any(|it| slurms.contains(&it.as_str()))
        };
        let say = "--role controller` on the controller";
        let others = [Role::Compute, Role::Login];
        for role in others {
            let plan = plan(&with(role, true), role, &[]).unwrap();
            assert!(!ours(&plan), "{role}: {:?}", plan.changes);
            assert!(plan.notes[0].contains(say), "{:?}", plan.notes);
            assert!(ours(&super::plan(&with(role, false), role, &[]).unwrap()));
        }
        let controller = plan(&with(Role::Controller, true), Role::Controller, &[]).unwrap();
        assert!(ours(&controller));
        files::make(controller.changes).unwrap().keep();
        for role in others {
            // The controller has done it: there is nothing to say.
            let plan = plan(&with(role, true), role, &[]).unwrap();
            assert_eq!(plan.notes, Vec::<String>::new(), "{role}");
            let revert = plan_revert(&with(role, true)).unwrap();
            assert!(!ours(&revert), "{role}: {:?}", revert.changes);
            assert!(revert.notes[0].contains(say), "{:?}", revert.notes);
            assert_eq!(revert.stays, [PROLOGS, WATCH], "{role}");
        }
        // A package that is removed may not know the role: then it is not the
        // controller's.
        fs::remove_file(dir.path().join("root").join(&ROLE[1..])).unwrap();
        let mut unknown = with(Role::Compute, true);
        unknown.wanted.role = None;
        assert!(!ours(&plan_revert(&unknown).unwrap()));
        assert!(ours(&plan_revert(&with(Role::Controller, true)).unwrap()));
    }

    #[test]
    fn a_program_of_the_sites_in_the_place_of_a_link_stays_and_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let site = site(dir.path(), Role::Compute, "");
        let wrapper = site.place(PROLOGS).join("efa-check-prolog");
        fs::create_dir_all(wrapper.parent().unwrap()).unwrap();
        fs::write(&wrapper, "#!/bin/sh\n").unwrap();
        let plan = plan(&site, Role::Compute, &[]).unwrap();
        assert!(!changed(&plan).contains(&"efa-check-prolog".to_owned()));
        assert!(plan.notes[0].contains("efa-check-prolog stays"));
        let revert = plan_revert(&site).unwrap();
        assert_eq!(changed(&revert), Vec::<String>::new());
        assert_eq!(revert.notes, Vec::<String>::new());
    }
}
