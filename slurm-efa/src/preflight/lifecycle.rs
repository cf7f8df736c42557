//! Lifecycle scripts: what CreateCluster says of them, and their folder.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cluster::create_cluster::Lifecycle;
use cluster::json::Document;
use cluster::{FoundText, Mode, Spot};
use host::{Sysroot, printable};

use super::look::{Fault, File, Look, Outcome, Scripts, fault};

/// Largest file of the folder that is read, in bytes.
const LARGEST: usize = 4 * 1024 * 1024;

/// The parameters, beside the scripts that read them.
pub(super) const PARAMETERS: &str = "provisioning_parameters.json";

/// What AWS's base scripts run, and where they call the steps.
const STEPS: &str = "lifecycle_script.py";

/// This suite's step; the package has it in /usr/share/slurm-efa/lifecycle.
const OURS: &str = "install_slurm_efa.sh";

/// Users with their numbers, which add_users.sh of the base scripts reads.
const USERS: &str = "shared_users.txt";

fn shown(text: &FoundText) -> String {
    printable(&text.value, 120)
}

fn in_folder(name: &str, sentence: String) -> Fault {
    Fault {
        file: File::Lifecycle,
        at: Spot {
            pointer: name.to_owned(),
            offset: 0,
        },
        sentence,
    }
}

/// Each configuration of lifecycle scripts.
fn configs<'l>(look: &'l Look<'_>) -> impl Iterator<Item = &'l Lifecycle> {
    let groups = look.cluster.groups.iter();
    groups.filter_map(|group| group.lifecycle.as_ref())
}

pub(super) fn config(look: &Look<'_>) -> Outcome {
    if look.cluster.mode() != Mode::Lifecycle {
        return Ok(Vec::new());
    }
    let lacks = look.cluster.groups.iter().filter_map(|group| {
        let name = group.shown();
        let Some(config) = &group.lifecycle else {
            let sentence = format!(
                "group {name} has no LifeCycleConfig, and without Orchestrator.Slurm nothing else \
                 sets Slurm up"
            );
            return Some(fault(&group.at, sentence));
        };
        let key = match (&config.source, &config.on_create) {
            (None, _) => "SourceS3Uri",
            (_, None) => "OnCreate",
            _ => return None,
        };
        let sentence = format!("the LifeCycleConfig of group {name} has no {key}");
        Some(fault(&config.at, sentence))
    });
    Ok(lacks.collect())
}

pub(super) fn one_source(look: &Look<'_>) -> Outcome {
    let mut sources = configs(look).filter_map(|it| it.source.as_ref());
    let Some(first) = sources.next() else {
        return Ok(Vec::new());
    };
    let bare = |text: &FoundText| text.value.trim_end_matches('/').to_owned();
    let other = sources.find(|it| bare(it) != bare(first));
    Ok(other
        .map(|it| {
            let (one, other) = (shown(first), shown(it));
            let sentence = format!("groups get their scripts from {one} and from {other}");
            fault(&it.at, sentence)
        })
        .into_iter()
        .collect())
}

pub(super) fn bucket(look: &Look<'_>) -> Outcome {
    let mut seen = BTreeSet::new();
    let sources = configs(look).filter_map(|it| it.source.as_ref());
    let other = sources.filter(|source| {
        let rest = source.value.strip_prefix("s3://");
        rest.is_some_and(|rest| !rest.starts_with("sagemaker-")) && seen.insert(&source.value)
    });
    let other = other.map(|it| {
        let sentence = format!(
            "the bucket of {} does not begin with sagemaker-, and AWS's managed policy for the \
             nodes' role allows only such",
            shown(it)
        );
        fault(&it.at, sentence)
    });
    Ok(other.collect())
}

/// What was given of the scripts, or why nothing was looked at.
fn given<'l>(look: &'l Look<'_>) -> Result<&'l Scripts, String> {
    let scripts = look.input.lifecycle.as_ref();
    scripts.ok_or_else(|| "the lifecycle scripts were not given (--lifecycle)".to_owned())
}

/// The folder, or why it was not looked at.
fn folder<'l>(look: &'l Look<'_>) -> Result<&'l Path, String> {
    match given(look)? {
        Scripts::Folder(folder) => Ok(folder),
        Scripts::Listing(listing) => Err(format!(
            "{} has the names of the scripts, not the scripts",
            listing.name
        )),
    }
}

/// Whether a file is among the scripts. One that cannot be read is.
fn is_there(look: &Look<'_>, name: &str) -> Result<bool, String> {
    match given(look)? {
        Scripts::Folder(folder) => Ok(text(folder, name).map_or(true, |text| text.is_some())),
        Scripts::Listing(listing) => {
            let sources = configs(look).filter_map(|it| it.source.as_ref());
            let mut prefixes = sources.map(|source| {
                let path = source.value.trim_start_matches("s3://").split_once('/');
                let prefix = path.map_or("", |(_, prefix)| prefix.trim_end_matches('/'));
                match prefix {
                    "" => name.to_owned(),
                    prefix => format!("{prefix}/{name}"),
                }
            });
            Ok(prefixes.any(|key| listing.keys.contains(&key)))
        }
    }
}

/// The text of a file of the folder; `None` if there is none.
fn text(folder: &Path, name: &str) -> Result<Option<String>, String> {
    match Sysroot::new(folder.to_owned()).read_bounded(name, LARGEST) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// The scripts that CreateCluster names, each once, by the same name.
fn entries<'l>(look: &'l Look<'_>) -> BTreeMap<&'l str, &'l FoundText> {
    let names = configs(look).flat_map(|it| it.on_create.iter().chain(&it.on_init_complete));
    names.map(|it| (it.value.as_str(), it)).collect()
}

/// Whether a name leads out of the folder.
fn leads_out(name: &str) -> bool {
    name.starts_with('/') || name.split('/').any(|part| part == "..")
}

pub(super) fn on_create(look: &Look<'_>) -> Outcome {
    given(look)?;
    let mut faults = Vec::new();
    for (name, found) in entries(look) {
        let shown = shown(found);
        if leads_out(name) {
            let sentence = format!("{shown} leads out of the folder of lifecycle scripts");
            faults.push(fault(&found.at, sentence));
        } else if !is_there(look, name)? {
            let sentence = format!("{shown} is not among the lifecycle scripts");
            faults.push(fault(&found.at, sentence));
        }
    }
    Ok(faults)
}

/// Names of the scripts that are looked at: those that CreateCluster names, and
/// the others at the top and in `utils/`.
fn scripts(look: &Look<'_>, folder: &Path) -> BTreeSet<String> {
    let root = Sysroot::new(folder.to_owned());
    let below = |dir: &'static str, prefix: &'static str| {
        let names = root.list(dir).unwrap_or_default().into_iter();
        names.map(move |name| format!("{prefix}{name}"))
    };
    let is_script = |name: &String| name.ends_with(".sh") || name.ends_with(".py");
    let entries = entries(look).into_keys().filter(|it| !leads_out(it));
    below(".", "")
        .chain(below("utils", "utils/"))
        .filter(is_script)
        .chain(entries.map(str::to_owned))
        .collect()
}

pub(super) fn readable(look: &Look<'_>) -> Outcome {
    let folder = folder(look)?;
    let mut faults = Vec::new();
    for name in scripts(look, folder) {
        if let Err(error) = text(folder, &name) {
            let name = printable(&name, 120);
            let sentence = format!("{name} is not a text that can be run: {error}");
            faults.push(in_folder(&name, sentence));
        }
    }
    Ok(faults)
}

pub(super) fn line_ends(look: &Look<'_>) -> Outcome {
    let folder = folder(look)?;
    let mut faults = Vec::new();
    for name in scripts(look, folder) {
        if let Ok(Some(text)) = text(folder, &name)
            && let Some(line) = text.split('\n').position(|line| line.ends_with('\r'))
        {
            let (name, line) = (printable(&name, 120), line + 1);
            let sentence = format!("{name} has CR LF at the end of line {line}; bash refuses it");
            faults.push(in_folder(&name, sentence));
        }
    }
    Ok(faults)
}

pub(super) fn interpreter(look: &Look<'_>) -> Outcome {
    let folder = folder(look)?;
    let mut faults = Vec::new();
    for (name, found) in entries(look) {
        if let Ok(Some(text)) = text(folder, name)
            && !leads_out(name)
            && !text.starts_with("#!")
        {
            let sentence = format!("{} does not begin with #! and an interpreter", shown(found));
            faults.push(in_folder(&shown(found), sentence));
        }
    }
    Ok(faults)
}

pub(super) fn parameters_there(look: &Look<'_>) -> Outcome {
    if look.cluster.mode() != Mode::Lifecycle {
        return Ok(Vec::new());
    }
    if is_there(look, PARAMETERS)? {
        return Ok(Vec::new());
    }
    let sentence = format!("{PARAMETERS} is not beside the scripts, which need it");
    Ok(vec![in_folder(PARAMETERS, sentence)])
}

pub(super) fn parameters_same(look: &Look<'_>) -> Outcome {
    let given = look.input.provisioning.as_ref();
    let Some(Ok(given)) = given.map(|source| source.document.as_ref()) else {
        return Ok(Vec::new());
    };
    let Some(text) = text(folder(look)?, PARAMETERS)? else {
        return Ok(Vec::new());
    };
    let same = Document::parse(text).is_ok_and(|there| there.root.is_same(&given.root));
    let sentence = format!("{PARAMETERS} in the folder is not the same as --provisioning");
    Ok((!same)
        .then(|| in_folder(PARAMETERS, sentence))
        .into_iter()
        .collect())
}

/// The lines of a script that are not comments, with their numbers.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate();
    lines
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.starts_with('#'))
}

fn calls(text: &str, script: &str) -> Vec<usize> {
    let calling = lines(text).filter(|(_, line)| line.contains(script));
    calling.map(|(number, _)| number).collect()
}

pub(super) fn step(look: &Look<'_>) -> Outcome {
    let folder = folder(look)?;
    let called = scripts(look, folder).iter().any(|name| {
        // The step's own file says its name, too.
        let is_itself = name.ends_with(OURS);
        !is_itself
            && text(folder, name).is_ok_and(|it| it.is_some_and(|it| !calls(&it, OURS).is_empty()))
    });
    let sentence = format!("no script of the folder calls {OURS}, so nodes get no slurm-efa");
    Ok((!called)
        .then(|| in_folder(OURS, sentence))
        .into_iter()
        .collect())
}

pub(super) fn step_order(look: &Look<'_>) -> Outcome {
    let folder = folder(look)?;
    let Some(text) = text(folder, STEPS)? else {
        return Ok(Vec::new());
    };
    let ours = calls(&text, OURS);
    let start = calls(&text, "start_slurm.sh");
    let (Some(first), Some(last), Some(start)) = (ours.first(), ours.last(), start.first()) else {
        return Ok(Vec::new());
    };
    let mut faults = Vec::new();
    if last < start {
        let sentence = format!(
            "{OURS} is called only before start_slurm.sh (line {start}), which deletes Prolog from \
             the controller's slurm.conf"
        );
        faults.push(in_folder(STEPS, sentence));
    }
    if first > start {
        let sentence = format!(
            "{OURS} is called only after start_slurm.sh (line {start}): a compute node whose slurmd \
             is up before its prolog is there is drained by its first job"
        );
        faults.push(in_folder(STEPS, sentence));
    }
    Ok(faults)
}

/// Scripts of the base scripts that write plugstack.conf or restart services
/// after slurm-efa's lines are in place.
const CONTAINERS: [&str; 2] = ["install_docker.sh", "install_enroot_pyxis.sh"];

pub(super) fn after_containers(look: &Look<'_>) -> Outcome {
    let folder = folder(look)?;
    let Some(text) = text(folder, STEPS)? else {
        return Ok(Vec::new());
    };
    let Some(last) = calls(&text, OURS).last().copied() else {
        return Ok(Vec::new());
    };
    let later = CONTAINERS.into_iter().filter_map(|script| {
        let line = calls(&text, script).into_iter().find(|line| *line > last)?;
        let sentence = format!(
            "{OURS} is called last in line {last}, before {script} (line {line}), which can write \
             plugstack.conf again"
        );
        Some(in_folder(STEPS, sentence))
    });
    Ok(later.collect())
}

pub(super) fn users(look: &Look<'_>) -> Outcome {
    let Some(text) = text(folder(look)?, USERS)? else {
        return Ok(Vec::new());
    };
    let (mut names, mut numbers) = (BTreeMap::new(), BTreeMap::new());
    let mut faults = Vec::new();
    for (line, user) in lines(&text).filter(|(_, line)| !line.is_empty()) {
        let mut wrong = |sentence: String| {
            faults.push(in_folder(USERS, format!("line {line}: {sentence}")));
        };
        let fields: Vec<&str> = user.split(',').map(str::trim).collect();
        let &[name, uid, _] = fields.as_slice() else {
            wrong("expected name,uid,home".to_owned());
            continue;
        };
        let shown = printable(name, 40);
        if !is_user_name(name) {
            wrong(format!("\"{shown}\" is not a valid user name"));
        }
        if let Some(other) = names.insert(name.to_owned(), line) {
            wrong(format!("{shown} is in line {other} as well"));
        }
        let Ok(uid) = uid.parse::<u32>() else {
            wrong(format!("\"{}\" is not a uid", printable(uid, 40)));
            continue;
        };
        if let Some(other) = numbers.insert(uid, line) {
            wrong(format!("uid {uid} is in line {other} as well"));
        } else if uid < 1000 {
            wrong(format!(
                "uid {uid} is one of the system's, which are below 1000"
            ));
        } else if uid == 1000 && name != "ubuntu" && name != "ec2-user" {
            wrong("uid 1000 is that of the image's own user, ubuntu or ec2-user".to_owned());
        } else if (65534..=65535).contains(&uid) {
            wrong(format!("uid {uid} is that of nobody"));
        }
    }
    Ok(faults)
}

/// As useradd accepts them on Debian, Ubuntu and Amazon Linux.
fn is_user_name(name: &str) -> bool {
    let mut chars = name.chars();
    let first = chars.next();
    first.is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && name.len() <= 32
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c))
}

pub(super) fn auto_resume(look: &Look<'_>) -> Outcome {
    let folder = folder(look)?;
    let recovery = look.cluster.node_recovery.as_ref();
    if recovery.is_some_and(|it| it.value == "None") {
        return Ok(Vec::new());
    }
    let sets_gres = scripts(look, folder).iter().any(|name| {
        text(folder, name).is_ok_and(|it| it.is_some_and(|it| it.contains("GresTypes")))
    });
    let images = look
        .cluster
        .groups
        .iter()
        .filter_map(|it| it.image.as_ref());
    let own = images.filter(|it| sets_gres && it.value.starts_with("ami-"));
    let own = own.map(|it| {
        let sentence = format!(
            "the scripts set GresTypes, and auto-resume works with GRES from images of 2024-08-20 \
             on; the date of {} is not in the files",
            shown(it)
        );
        fault(&it.at, sentence)
    });
    Ok(own.collect())
}
