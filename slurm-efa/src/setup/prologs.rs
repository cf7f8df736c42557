//! The programs of this suite that slurmd calls, and the folders of links by which
//! it does: those of set-up, or one of the site's own.

use std::path::Path;

use cli::called;
use config::DEFAULT_PATH;

use super::discover::Site;
use super::files::Content;
use super::parts::{Item, Parts};
use super::paths::{EFA_CHECK, EPILOGS, GRES_HELPERS, HEALTHCHECK, JOB_PROGRAM, PROLOGS};
use super::wrapper::Wrapper;

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

/// A link to a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// The program's path.
    pub program: String,
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
        (plain(path) && plain(extension)).then(|| Self {
            path: path.to_owned(),
            extension: extension.to_owned(),
        })
    }

    /// The command that makes this link in the folder. Sites number the programs
    /// of such a folder.
    pub(super) fn command(&self, link: &Link) -> String {
        let (Self { path, extension }, Link { name, program }) = (self, link);
        format!("ln -s {program} {path}/50-{name}{extension}")
    }
}

/// Those of our links for `Prolog` or `Epilog` that the site's own folder lacks,
/// under whatever number; all of them where the key names no folder.
pub(super) fn missing_links(site: &Site, key: &str, folder: &str, parts: Parts) -> Vec<Link> {
    let ours = format!("{}/*", site.place_text(folder));
    let mut values = site.slurm.conf.values(key);
    values.retain(|it| *it != ours);
    let theirs = values.last().copied().and_then(Folder::of);
    let names: Vec<std::ffi::OsString> = theirs
        .and_then(|it| std::fs::read_dir(it.path).ok())
        .map(|entries| entries.flatten().map(|it| it.file_name()).collect())
        .unwrap_or_default();
    let command = key.to_ascii_lowercase();
    let there = |link: &str| {
        let program = called::PROGRAMS.iter().find(|it| it.link(&command) == link);
        program.is_some_and(|it| names.iter().any(|name| it.command(name) == Some(&command)))
    };
    links(site)
        .into_iter()
        .filter(|called| called.item.parts().meets(parts))
        .filter_map(|called| {
            let name = called.link.strip_prefix(folder)?.strip_prefix('/')?;
            (!there(name)).then(|| Link {
                name: name.to_owned(),
                // The script, where there is one, says by which configuration.
                program: site.place_text(match own_config(site) {
                    Some(_) => &called.link,
                    None => called.program,
                }),
            })
        })
        .collect()
}

/// Whether the site's own folder of prologs or epilogs has all links of these parts.
#[must_use]
pub fn runs_ours(site: &Site, key: &str, folder: &str, parts: Parts) -> bool {
    missing_links(site, key, folder, parts).is_empty()
}
