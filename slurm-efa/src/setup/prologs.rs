//! The programs of this suite that slurmd calls, and the folders of links by which
//! it does: those of set-up, or one of the site's own.
//!
//! ParallelCluster and others have a folder of numbered programs as `Prolog` and
//! `Epilog`. Ours are linked there, as 50 of 99: Slurm runs a folder in the reverse
//! order of names, so ParallelCluster's own check of GPUs, 90, comes before. A
//! folder that nodes share gets its links from the controller, as slurm.conf does.

use std::path::{Path, PathBuf};

use cli::called;
use cluster::Role;
use config::DEFAULT_PATH;
use host::{Sysroot, printable};
use slurm::Release;

use super::discover::Site;
use super::files::Content;
use super::parts::{Item, Parts};
use super::paths::{EFA_CHECK, EPILOGS, GRES_HELPERS, HEALTHCHECK, JOB_PROGRAM, PROLOGS};
use super::plan::Plan;
use super::wrapper::Wrapper;

/// The first release that takes several lines of Prolog and Epilog: read in the
/// sources of 24.11.5; 22.05.8 lets the last one win.
const SEVERAL: Release = Release::new(24, 11);

/// The keys, and set-up's own folders.
const KEYS: [(&str, &str); 2] = [("Prolog", PROLOGS), ("Epilog", EPILOGS)];

/// Largest script of the site's that is read, in bytes.
const LARGEST_SCRIPT: usize = 1024 * 1024;

/// A program of this suite that slurmd runs on this node.
pub(super) struct Called {
    /// The path by which slurmd calls it.
    pub(super) link: String,
    pub(super) program: &'static str,
    command: &'static str,
    pub(super) item: Item,
}

impl Called {
    /// What stands at its path: a link, which stands for the command, or a script
    /// where the site's configuration has another place than the default.
    pub(super) fn content(&self, site: &Site) -> Content {
        let program = site.place(self.program);
        match own_config(site) {
            Some(config) => Content::Script(
                Wrapper {
                    program,
                    command: self.command.to_owned(),
                    config: config.to_owned(),
                }
                .text(),
            ),
            None => Content::Link(program),
        }
    }
}

/// The configuration, if programs do not find it by themselves.
pub(crate) fn own_config(site: &Site) -> Option<&Path> {
    let given = site.wanted.config.as_deref();
    given.filter(|path| *path != Path::new(DEFAULT_PATH))
}

/// The programs of this suite that slurmd runs on this node.
pub(super) fn links(site: &Site) -> Vec<Called> {
    let called = |folder: &str, name: called::Program, program, command| Called {
        link: format!("{folder}/{}", name.link(command)),
        program,
        command,
        item: Item::of_program(&name),
    };
    let job = |folder, command| called(folder, called::SLURM_EFA_JOB, JOB_PROGRAM, command);
    let mut links = vec![
        job(PROLOGS, "prolog"),
        job(EPILOGS, "epilog"),
        called(PROLOGS, called::EFA_CHECK, EFA_CHECK, "prolog"),
        Called {
            link: HEALTHCHECK.to_owned(),
            program: EFA_CHECK,
            command: "healthcheck",
            item: Item::EfaCheck,
        },
    ];
    if site.has_section("gres") {
        let there = GRES_HELPERS.into_iter().find(|it| site.place(it).is_file());
        let helper = there.unwrap_or(GRES_HELPERS[0]);
        for (folder, command) in [(PROLOGS, "prolog"), (EPILOGS, "epilog")] {
            links.push(called(folder, called::GRES_HELPER, helper, command));
        }
    }
    links
}

/// A folder all of whose programs slurmd runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// The folder.
    pub path: String,
    /// What the programs' names end in.
    pub extension: String,
}

impl Folder {
    /// The folder of a pattern such as `/opt/slurm/etc/prolog.d/*`; `None` where
    /// the value is no such pattern.
    #[must_use]
    pub fn of(pattern: &str) -> Option<Self> {
        let (path, names) = pattern.rsplit_once('/')?;
        let extension = names.strip_prefix('*')?;
        let plain = |text: &str| !text.contains(['*', '?', '[', '{', '\\']);
        (path.starts_with('/') && plain(path) && plain(extension)).then(|| Self {
            path: path.to_owned(),
            extension: extension.to_owned(),
        })
    }
}

/// Whether this Slurm takes several lines of Prolog and Epilog.
#[must_use]
pub fn takes_several(site: &Site) -> bool {
    site.slurm.release().is_some_and(|it| it >= SEVERAL)
}

/// The value of a key that is the site's own, and counts.
fn theirs<'a>(site: &'a Site, key: &str, ours: &str) -> Option<&'a str> {
    let ours = pattern(site, ours);
    let values = site.slurm.conf.values(key);
    values.into_iter().rev().find(|it| *it != ours)
}

/// The value of a key by which Slurm runs a folder of set-up's.
pub(super) fn pattern(site: &Site, ours: &str) -> String {
    format!("{}/*", site.place_text(ours))
}

/// The site's own folder, where ours are linked for this key. A line of ours that a
/// set-up before put beside theirs stays.
#[must_use]
pub fn their_folder(site: &Site, key: &str, ours: &str) -> Option<Folder> {
    let values = site.slurm.conf.values(key);
    let beside = takes_several(site) && values.contains(&&*pattern(site, ours));
    theirs(site, key, ours)
        .filter(|_| !beside)
        .and_then(Folder::of)
}

/// A link of ours in a folder of the site's.
struct Link {
    path: PathBuf,
    target: PathBuf,
    item: Item,
}

/// What in a folder of the site's has the name of a program of ours, under whatever
/// number: the program, its path, and its target if set-up or a person linked it.
fn there(
    site: &Site,
    folder: &Folder,
    key: &str,
) -> Vec<(called::Program, PathBuf, Option<PathBuf>)> {
    let command = key.to_ascii_lowercase();
    let entries = std::fs::read_dir(&folder.path)
        .into_iter()
        .flatten()
        .flatten();
    let named = entries.filter_map(|entry| {
        let name = entry.file_name();
        let mut programs = called::PROGRAMS.into_iter();
        let program = programs.find(|it| it.command(&name) == Some(&*command))?;
        let target = std::fs::read_link(entry.path()).ok();
        Some((program, entry.path(), target.filter(|it| is_ours(site, it))))
    });
    named.collect()
}

/// Whether a link leads to a program of ours, or to a link of set-up's.
fn is_ours(site: &Site, target: &Path) -> bool {
    let mut programs = [JOB_PROGRAM, EFA_CHECK].into_iter().chain(GRES_HELPERS);
    let mut folders = [PROLOGS, EPILOGS].into_iter();
    programs.any(|it| site.place(it) == target)
        || folders.any(|it| target.starts_with(site.place(it)))
}

/// The links for a key that a folder of the site's lacks.
fn missing(site: &Site, folder: &Folder, key: &str, ours: &str, parts: Parts) -> Vec<Link> {
    let there = there(site, folder, key);
    let mut missing = Vec::new();
    for called in wanted(site, ours, parts) {
        // The script, where there is one, says by which configuration.
        let target = site.place(match own_config(site) {
            Some(_) => &called.link,
            None => called.program,
        });
        let name = called.link.rsplit('/').next().unwrap_or_default();
        let command = key.to_ascii_lowercase();
        let mut same = there.iter().filter(|(it, ..)| it.link(&command) == name);
        let path = match same.next() {
            // A program of the site's own, or a link that is right.
            Some((_, _, None)) => continue,
            Some((_, _, Some(there))) if *there == target => continue,
            Some((_, path, _)) => path.clone(),
            None => Path::new(&folder.path).join(format!("50-{name}{}", folder.extension)),
        };
        missing.push(Link {
            path,
            target,
            item: called.item,
        });
    }
    missing
}

/// The programs that Slurm calls by a folder of set-up's for these parts.
fn wanted(site: &Site, ours: &str, parts: Parts) -> Vec<Called> {
    let mut all = links(site);
    all.retain(|it| it.item.parts().meets(parts) && Path::new(&it.link).starts_with(ours));
    all
}

/// Whether what the site has for a key runs all programs of these parts: its folder
/// has their links, or its script names set-up's folder.
#[must_use]
pub fn runs_ours(site: &Site, key: &str, ours: &str, parts: Parts) -> bool {
    if wanted(site, ours, parts).is_empty() {
        return true;
    }
    match their_folder(site, key, ours) {
        Some(folder) => missing(site, &folder, key, ours, parts).is_empty(),
        None => theirs(site, key, ours).is_some_and(|it| names(it, &site.place_text(ours))),
    }
}

/// Whether a line of a script that is no comment names this folder.
fn names(script: &str, folder: &str) -> bool {
    let text = Sysroot::real().read_bounded(script, LARGEST_SCRIPT);
    let text = text.unwrap_or_default();
    let mut lines = text.lines().filter(|it| !it.trim_start().starts_with('#'));
    lines.any(|line| line.contains(folder))
}

/// What a script of the site's needs to run the programs of a folder, in Slurm's
/// own order.
#[must_use]
pub fn line_for_script(folder: &str) -> String {
    format!("for program in $(ls -r {folder}/*); do \"$program\" || exit 1; done")
}

/// Links ours into the site's own folders. Nodes have theirs, or share one.
pub(super) fn link(site: &Site, role: Role, plan: &mut Plan) {
    if role == Role::Login {
        return;
    }
    for (key, ours) in KEYS {
        let Some(folder) = their_folder(site, key, ours) else {
            continue;
        };
        let mut missing = missing(site, &folder, key, ours, plan.scope.after());
        missing.retain(|it| plan.scope.makes(it.item));
        let place = Path::new(&folder.path);
        let shown = printable(&folder.path, 200);
        if missing.is_empty() {
            continue;
        }
        if role != Role::Controller && site.is_shared(place) {
            plan.note(format!(
                "{shown} lacks the links of slurm-efa, and nodes share it: run `slurm-efa setup \
                 --role controller` on the controller"
            ));
        } else if place.is_dir() {
            for link in missing {
                plan.link(link.path, Content::Link(link.target));
            }
        } else if role == Role::Compute {
            plan.note(format!(
                "{key} names {shown}, which is not there: Slurm drains a node without it"
            ));
        }
    }
}

/// Takes our links out of the site's own folders. Those that nodes share stay until
/// the controller is reverted, and with them what they lead to.
pub(super) fn unlink(site: &Site, plan: &mut Plan) {
    let scope = plan.scope;
    for (key, ours) in KEYS {
        let values = site.slurm.conf.values(key).into_iter();
        for folder in values.filter_map(Folder::of) {
            let place = Path::new(&folder.path);
            if place == site.place(ours) {
                continue;
            }
            for (program, path, target) in there(site, &folder, key) {
                if target.is_none() || !scope.takes(Item::of_program(&program)) {
                    continue;
                }
                if !site.is_shared(place) || site.role() == Ok(Role::Controller) {
                    plan.link(path, Content::Nothing);
                    continue;
                }
                plan.note(format!(
                    "{ours} stays, since nodes share links to it or its programs in {}: run \
                     `slurm-efa revert --role controller` on the controller first, then revert here",
                    printable(&folder.path, 200)
                ));
                if !plan.stays.contains(&ours) {
                    plan.stays.push(ours);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_a_plain_path_and_a_star() {
        let folder = Folder::of("/opt/slurm/etc/scripts/prolog.d/*.sh").unwrap();
        assert_eq!(folder.path, "/opt/slurm/etc/scripts/prolog.d");
        assert_eq!(folder.extension, ".sh");
        for other in [
            "/opt/*/prolog.sh",
            "/opt/prolog.d/[0-9]*",
            "/opt/*/*",
            "*",
            "prolog.d/*",
            "/opt/prolog.sh",
        ] {
            assert_eq!(Folder::of(other), None, "{other}");
        }
    }

    #[test]
    fn a_script_runs_ours_in_slurms_order_and_fails_with_the_first_that_fails() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("prolog.d");
        std::fs::create_dir(&folder).unwrap();
        let ran = dir.path().join("ran");
        for (name, code) in [("slurm-efa-job", 0), ("gres-helper", 3), ("efa-check", 0)] {
            let path = folder.join(name);
            let script = format!("#!/bin/sh\necho {name} >> {}\nexit {code}\n", ran.display());
            std::fs::write(&path, script).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(path, mode).unwrap();
        }
        let script = dir.path().join("prolog.sh");
        let folder = folder.to_string_lossy();
        let line = line_for_script(&folder);
        std::fs::write(&script, format!("#!/bin/sh\n{line}\nexit 0\n")).unwrap();
        assert!(names(&script.to_string_lossy(), &folder));
        let status = std::process::Command::new("sh").arg(&script).status();
        assert_eq!(status.unwrap().code(), Some(1));
        let ran = std::fs::read_to_string(ran).unwrap();
        assert_eq!(ran, "slurm-efa-job\ngres-helper\n");
        std::fs::write(&script, format!("#!/bin/sh\n# {line}\n")).unwrap();
        assert!(!names(&script.to_string_lossy(), &folder));
    }
}
