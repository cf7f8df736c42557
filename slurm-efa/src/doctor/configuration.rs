//! slurm-efa.toml.

use std::path::{Path, PathBuf};

use cli::called;
use config::DEFAULT_PATH;
use findings::Findings;
use host::printable;
use pam_stack::chain::Kind;
use slurm::conf::{Disk, Plugstack};

use super::logins::Stack;
use super::look::{Look, warning};
use crate::setup::files::{self, Content};
use crate::setup::parts::{Item, Parts};
use crate::setup::units::DAEMONS;
use crate::setup::wrapper::Wrapper;
use crate::setup::{pam, paths, prologs};

use crate::configuration::check;
use crate::setup::discover::Site;
use cluster::Role;

/// A finding for each mistake, or one that there is none. The folders that the
/// file names are looked for on compute nodes: only they use them.
pub(super) fn configuration(site: &Site) -> Findings {
    let mut findings = site.mistakes.clone();
    if let Ok(config) = &site.config {
        if site.role() == Ok(Role::Compute) {
            findings.0.extend(check::places(config, None).0);
        }
        if findings.0.is_empty() {
            findings.0.push(check::nothing(&config.path));
        }
    }
    findings
}

/// Whether all that reads slurm-efa.toml on this node reads the same file.
pub(super) fn in_force(site: &Site, parts: Parts) -> Look {
    let wanted = prologs::own_config(site).unwrap_or(Path::new(DEFAULT_PATH));
    let mut readers = of_plugins(site);
    if site.role() == Ok(Role::Compute) {
        readers.extend(of_scripts(site));
        readers.extend(of_logins(site));
        let daemons = DAEMONS.iter().filter(|it| it.item.parts().meets(parts));
        let daemons = daemons.filter(|it| {
            let section = if it.item == Item::Logins {
                "logout"
            } else {
                "gres"
            };
            site.has_section(section)
        });
        readers.extend(daemons.map(|it| (format!("the unit {}", it.unit), it.config(site))));
    }
    let config = |it: &Option<PathBuf>| it.clone().unwrap_or_else(|| DEFAULT_PATH.into());
    let shown = |path: &Path| printable(&path.to_string_lossy(), 200);
    let others: Vec<String> = readers
        .iter()
        .filter(|(_, it)| config(it) != wanted)
        .map(|(reader, it)| format!("{reader} reads {}", shown(&config(it))))
        .collect();
    if others.is_empty() {
        return Ok(format!("all parts read {}", shown(wanted)));
    }
    let option = prologs::own_config(site).map(|it| format!(" --config {}", shown(it)));
    warning(
        format!("{}, not {}", others.join("; "), shown(wanted)),
        format!(
            "run `slurm-efa setup{}` here, or `slurm-efa doctor --config FILE` with the file that \
             they should read",
            option.unwrap_or_default()
        ),
    )
}

/// Something that reads a configuration: what, and which where it is not the usual one.
type Reader = (String, Option<PathBuf>);

fn of_plugins(site: &Site) -> Vec<Reader> {
    let stack = site
        .plugstack()
        .and_then(|it| Plugstack::read(&Disk, &it).ok());
    let Some(stack) = stack else {
        return Vec::new();
    };
    let names = ["spank_efa.so", "spank_gres.so"].into_iter();
    let plugins = names.filter_map(|name| Some((name, stack.plugin(name)?)));
    plugins
        .map(|(name, plugin)| {
            let mut words = plugin.arguments.iter();
            let config = words.find_map(|it| it.strip_prefix("config="));
            (name.to_owned(), config.map(PathBuf::from))
        })
        .collect()
}

/// The programs that slurmd runs by our links and scripts.
fn of_scripts(site: &Site) -> Vec<Reader> {
    let mut places = vec![site.place(paths::HEALTHCHECK)];
    for (folder, command) in [(paths::PROLOGS, "prolog"), (paths::EPILOGS, "epilog")] {
        let programs = called::PROGRAMS.iter();
        places.extend(programs.map(|it| site.place(folder).join(it.link(command))));
    }
    let reader = |path: PathBuf| {
        let config = match files::program(&path) {
            Content::Link(_) => None,
            Content::Script(text) => Some(Wrapper::of(&text, "")?.config),
            _ => return None,
        };
        let name = path.file_name()?.to_string_lossy().into_owned();
        Some((name, config))
    };
    places.into_iter().filter_map(reader).collect()
}

fn of_logins(site: &Site) -> Vec<Reader> {
    let Ok(stack) = Stack::read(site) else {
        return Vec::new();
    };
    let arguments = stack.links().filter_map(|link| match &link.kind {
        Kind::Module { arguments, .. } if link.calls(pam::MODULE) => Some(arguments),
        _ => None,
    });
    arguments
        .map(|it| {
            let config = it
                .split_whitespace()
                .find_map(|it| it.strip_prefix("config="));
            let reader = format!("{} in sshd's PAM stack", pam::MODULE);
            (reader, config.map(PathBuf::from))
        })
        .collect()
}
