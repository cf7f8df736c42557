//! What `setup` wants of a node: it depends on the role, and on what is there.

use std::path::Path;

use host::printable;
use slurm::Release;
use slurm::conf::Disk;
use slurm::conf::reader::{self, Grammar};

use super::discover::Site;
use super::edit::{self, Lines};
use super::error::SetupError;
use super::files::{self, Content};
use super::nhc;
use super::pam;
use super::parts::{Item, Parts, Scope};
use super::paths::{
    EPILOGS, GRES_PLUGIN, HEALTHCHECK, NO_HEALTHCHECK, OLD_HEALTHCHECK, PAM_MODULE, PARTS, PLUGIN,
    PROLOGS, ROLE, SECURITY, SSHD,
};
use super::plan::Plan;
use super::prologs::{self, own_config};
use super::slurm_conf::{self, Directive};
use super::units;
use cluster::Role;
use findings::Severity;

/// The first with EnableExtraControllers.
const EXTRA_CONTROLLERS: Release = Release::new(25, 5);

/// What `setup` would do here.
///
/// # Errors
/// What is missing, for a person.
pub fn plan(
    site: &Site,
    role: Role,
    admins: &[String],
    only: Option<Parts>,
) -> Result<Plan, SetupError> {
    is_configuration_right(site)?;
    if site.slurm.release().is_none() {
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
    let scope = Scope::setup(site, only)?;
    config_reaches(site, role, scope)?;
    let mut plan = Plan {
        scope,
        slurm_user: site.slurm_user(),
        ..Plan::default()
    };
    if role == Role::Compute {
        compute(site, &mut plan)?;
        nhc::plan(site, &mut plan)?;
        logins(site, admins, &mut plan)?;
        for daemon in units::DAEMONS.iter().filter(|it| scope.makes(it.item)) {
            daemon.plan(site, &mut plan, own_config(site))?;
        }
    }
    if role == Role::Login && scope.makes(Item::EfaCheck) {
        plan.link(
            site.place(HEALTHCHECK),
            Content::Link(NO_HEALTHCHECK.into()),
        );
    }
    let mut left = false;
    if site.edits_slurm(role) {
        slurm(site, &mut plan)?;
    } else if site.has_original() && site.shared && !site.is_configless() {
        // Once the controller has done it, there is nothing to say.
        let mut wanted = Plan {
            scope,
            slurm_user: site.slurm_user(),
            ..Plan::default()
        };
        slurm(site, &mut wanted)?;
        prologs::link(site, Role::Controller, &mut wanted);
        if !wanted.changes.is_empty() {
            left = true;
            plan.notes.push(left_to_controller(site, "setup"));
        }
    }
    if !left {
        prologs::link(site, role, &mut plan);
    }
    if role != Role::Controller && scope.makes(Item::EfaCheck) {
        retire(site, &mut plan);
    }
    plan.text(&site.place(ROLE), |_| format!("{role}\n"))?;
    plan.text(&site.place(PARTS), |_| scope.record())?;
    Ok(plan)
}

/// Whether all programs accept the configuration.
pub(super) fn is_configuration_right(site: &Site) -> Result<(), SetupError> {
    let refused = site
        .mistakes
        .0
        .iter()
        .filter(|it| it.severity == Severity::Fatal);
    let refused: Vec<&str> = refused.map(|it| it.sentence.as_str()).collect();
    if !refused.is_empty() {
        return Err(SetupError::Config(format!(
            "{}; nothing was changed",
            refused.join("; ")
        )));
    }
    Ok(())
}

/// Whether each part can have the configuration's path.
pub(super) fn config_reaches(site: &Site, role: Role, scope: Scope) -> Result<(), SetupError> {
    let Some(config) = own_config(site) else {
        return Ok(());
    };
    let refused = |who: &str, why: &str| {
        let config = printable(&config.to_string_lossy(), 200);
        Err(SetupError::Config(format!(
            "--config {config} cannot be handed to {who}: {why}; nothing was changed"
        )))
    };
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "/._-+@:,=".contains(it);
    let plain = config.to_str().is_some_and(|it| it.chars().all(is_plain));
    const PLAIN: &str = "use letters, digits, and ._-+@:,= in its path";
    let in_lines = [
        Item::EfaPlugin,
        Item::GresPlugin,
        Item::Logins,
        Item::GresHelper,
    ];
    if !plain && in_lines.into_iter().any(|it| scope.makes(it)) {
        return refused("plugstack.conf, PAM and systemd", PLAIN);
    }
    if config.to_string_lossy().contains(char::is_control) {
        return refused("prolog and health check", PLAIN);
    }
    let mut daemons = units::DAEMONS.iter().filter(|it| scope.makes(it.item));
    match daemons.next() {
        Some(daemon) if role == Role::Compute && units::is_hidden(config) => refused(
            daemon.unit,
            "its unit has ProtectHome=, which hides /home, /root and /run/user from it",
        ),
        _ => Ok(()),
    }
}

/// Takes out the link of the last release, once slurm.conf no longer names it: the
/// controller may be set up after this node.
fn retire(site: &Site, plan: &mut Plan) {
    let old = site.place_text(OLD_HEALTHCHECK);
    let conf = plan.slurm_conf_after(site);
    if !conf.values("HealthCheckProgram").contains(&old.as_str()) {
        plan.link(site.place(OLD_HEALTHCHECK), Content::Nothing);
    }
}

/// What is said where Slurm's files are other nodes' too.
pub(super) fn left_to_controller(site: &Site, command: &str) -> String {
    let folder = site.slurm.slurm_conf.as_deref().and_then(Path::parent);
    let folder = folder.unwrap_or(Path::new("/")).to_string_lossy();
    format!(
        "Slurm's files in {} are not edited here, since they lie on a network file system that \
         nodes share: run `slurm-efa {command} --role controller` on the controller",
        printable(&folder, 200)
    )
}

fn compute(site: &Site, plan: &mut Plan) -> Result<(), SetupError> {
    let scope = plan.scope;
    for called in prologs::links(site)
        .into_iter()
        .filter(|it| scope.makes(it.item))
    {
        let target = site.place(called.program);
        if !target.is_file() {
            let program = printable(&target.to_string_lossy(), 200);
            return Err(SetupError::Missing(format!(
                "{program} is missing; install the package slurm-efa first; nothing was changed"
            )));
        }
        plan.link(site.place(&called.link), called.content(site));
    }
    Ok(())
}

/// PAM is edited where the site has decided how logins shall end.
fn logins(site: &Site, admins: &[String], plan: &mut Plan) -> Result<(), SetupError> {
    if !plan.scope.makes(Item::Logins) {
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
    let folder = site.place("/etc/pam.d");
    let call = module_call(site, module);
    match pam::edit(&pam::Disk, &folder, &before, &call) {
        Ok(after) => plan.text(&path, |_| after)?,
        Err(refusal) => plan.notes.push(format!(
            "{} is not edited: {refusal}",
            printable(&path.to_string_lossy(), 200)
        )),
    }
    plan.admins = admins;
    Ok(())
}

/// Our module in a line of the stack, with the configuration that it reads.
pub(super) fn module_call(site: &Site, module: String) -> String {
    match own_config(site) {
        Some(config) => format!("{module} config={}", config.to_string_lossy()),
        None => module,
    }
}

/// How our module is called in a stack: by its whole path where it lies among
/// the suite's own files or below another root, by its name where libpam finds
/// it (there the package puts it).
pub(super) fn module(site: &Site) -> Option<String> {
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

pub(super) fn slurm(site: &Site, plan: &mut Plan) -> Result<(), SetupError> {
    let (Some(conf), Some(plugstack)) = (&site.slurm.slurm_conf, site.plugstack()) else {
        return Ok(());
    };
    edit_conf(plan, &plugstack, plugins(site, Path::is_file))?;
    edit_conf(plan, conf, keys(site, plan.scope.after()))?;
    if let Some(flags) = hugetlb(site) {
        let path = conf.with_file_name("cgroup.conf");
        edit_conf(plan, &path, vec![(Item::Hugetlb, vec![flags])])?;
    }
    Ok(())
}

/// Of cgroup.conf, where hugepages are isolated and this Slurm can.
pub(super) fn hugetlb(site: &Site) -> Option<Directive> {
    let isolate = site.key("hugepages", "isolate").and_then(|it| it.as_bool());
    let release = site.slurm.release();
    let can = isolate == Some(true) && release.is_some_and(|it| it >= EXTRA_CONTROLLERS);
    can.then_some(Directive::Flags("EnableExtraControllers", &["hugetlb"]))
}

/// What a file has to say, item by item.
pub(super) type Wishes = Vec<(Item, Vec<Directive>)>;

/// Of plugstack.conf; `is_there` looks for the plugin of shared GPUs.
pub(super) fn plugins(site: &Site, is_there: impl Fn(&Path) -> bool) -> Wishes {
    let config = site.wanted.config.as_deref().map(Path::to_string_lossy);
    let arguments = config
        .map(|path| format!("config={path}"))
        .unwrap_or_default();
    let load = |path: &str| Directive::Plugin {
        path: site.place_text(path),
        arguments: arguments.clone(),
    };
    let shares = site.has_section("gres") && is_there(&site.place(GRES_PLUGIN));
    let shares = shares.then(|| load(GRES_PLUGIN));
    vec![
        (Item::EfaPlugin, vec![load(PLUGIN)]),
        (Item::GresPlugin, shares.into_iter().collect()),
    ]
}

/// Of slurm.conf, for these parts.
pub(super) fn keys(site: &Site, parts: Parts) -> Wishes {
    let program = |key, folder: &str| {
        // A folder of the site's gets links instead.
        let theirs = prologs::their_folder(site, key, folder).is_some();
        let wanted = !theirs && !prologs::runs_ours(site, key, folder, parts);
        wanted.then(|| Directive::Program {
            key,
            value: prologs::pattern(site, folder),
            several: prologs::takes_several(site),
        })
    };
    let health = Directive::HealthCheck {
        program: site.place_text(HEALTHCHECK),
        interval: "60",
    };
    let prolog = program("Prolog", PROLOGS);
    let epilog = program("Epilog", EPILOGS);
    vec![
        (
            Item::PrologFlags,
            vec![Directive::Flags("PrologFlags", prolog_flags(site))],
        ),
        (Item::HealthCheck, vec![health]),
        (Item::Prolog, prolog.into_iter().collect()),
        (Item::Epilog, epilog.into_iter().collect()),
    ]
}

/// Contain includes Alloc. It works with proctrack/cgroup only, and Slurm refuses it
/// beside NoHold (slurm.conf(5)).
fn prolog_flags(site: &Site) -> &'static [&'static str] {
    let value = |key| site.slurm.conf.value(key);
    let mut flags = value("PrologFlags").unwrap_or_default().split(',');
    let holds = !flags.any(|it| it.trim().eq_ignore_ascii_case("NoHold"));
    let proctrack = value("ProctrackType");
    let has_cgroups = proctrack.is_none_or(|it| it.eq_ignore_ascii_case("proctrack/cgroup"));
    match holds && has_cgroups {
        true => &["Alloc", "Contain"],
        false => &["Alloc"],
    }
}

/// Edits a file item by item. What is right stays where it is, and so do the lines of
/// parts that are not set up now.
fn edit_conf(plan: &mut Plan, path: &Path, wishes: Wishes) -> Result<(), SetupError> {
    let scope = plan.scope;
    let mut notes: Vec<String> = Vec::new();
    plan.text(path, |text| {
        let mut text = match scope.is_whole {
            true => Lines::without(text, |line| {
                let item = Item::of_line(path, line);
                !wishes.iter().any(|(known, _)| item == Some(*known))
            })
            .into_text(),
            false => text.to_owned(),
        };
        for (item, wishes) in wishes.iter().filter(|(item, _)| scope.touches(*item)) {
            let is = |line: &str| Item::of_line(path, line) == Some(*item);
            let rest = Lines::without(&text, is);
            let edited = match scope.wants(*item) && !wishes.is_empty() {
                true => slurm_conf::edit(&Disk, path, rest, wishes),
                false => slurm_conf::Edited {
                    text: rest.into_text(),
                    notes: Vec::new(),
                },
            };
            for note in edited.notes {
                if !notes.contains(&note) {
                    notes.push(note);
                }
            }
            if edit::ours(&edited.text, is) != edit::ours(&text, is) {
                text = edited.text;
            }
        }
        text
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
    let text = files::read_named(fragment)?;
    let Some(conf) = &site.slurm.slurm_conf else {
        return Err(SetupError::Missing(
            "no slurm.conf is found here; nothing was changed".to_owned(),
        ));
    };
    let lines = reader::logical(&text, Grammar::KeyValue);
    let lines = lines.iter().map(|it| it.written.trim().to_owned());
    let lines = lines.filter(|it| !it.is_empty()).collect();
    // The lines are asked for, with or without [gres].
    let scope = std::mem::take(&mut plan.scope);
    edit_conf(
        plan,
        &conf.with_file_name("gres.conf"),
        vec![(Item::GresConf, vec![Directive::Verbatim(lines)])],
    )?;
    plan.scope = scope;
    Ok(())
}
