//! Every path of the packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::facts::{Format, NAME};
use crate::command;
use crate::configuration::SCHEMA;
use crate::dist::{ARTIFACTS, Artifact, InstallDir};

/// A path that a package installs.
pub struct Entry {
    pub path: String,
    pub form: Form,
    pub mode: u32,
    /// The one format that has it; none: both do.
    pub only: Option<Format>,
}

/// What it is.
pub enum Form {
    File(Vec<u8>),
    /// An administrator's change of it outlives upgrades.
    Config(Vec<u8>),
    Licence(Vec<u8>),
    Document(Vec<u8>),
    Link(String),
    Folder,
}

impl Entry {
    fn new(path: impl Into<String>, form: Form) -> Self {
        Self {
            path: path.into(),
            mode: match form {
                Form::Folder => 0o755,
                Form::Link(_) => 0o777,
                _ => 0o644,
            },
            form,
            only: None,
        }
    }

    fn only(self, format: Format) -> Self {
        Self {
            only: Some(format),
            ..self
        }
    }

    /// What is in it, of a file.
    pub fn content(&self) -> Option<&[u8]> {
        match &self.form {
            Form::File(content)
            | Form::Config(content)
            | Form::Licence(content)
            | Form::Document(content) => Some(content),
            Form::Link(_) | Form::Folder => None,
        }
    }
}

/// A folder of `packaging/` whose files are installed under their own names: a
/// new file there needs no line here.
struct Folder {
    name: &'static str,
    installed: &'static str,
    form: fn(Vec<u8>) -> Form,
    mode: u32,
}

const FOLDERS: &[Folder] = &[
    Folder {
        name: "etc",
        installed: "/etc/slurm-efa",
        form: Form::Config,
        mode: 0o644,
    },
    Folder {
        name: "logrotate.d",
        installed: "/etc/logrotate.d",
        form: Form::Config,
        mode: 0o644,
    },
    Folder {
        name: "systemd",
        installed: "/usr/lib/systemd/system",
        form: Form::File,
        mode: 0o644,
    },
    Folder {
        name: "tmpfiles.d",
        installed: "/usr/lib/tmpfiles.d",
        form: Form::File,
        mode: 0o644,
    },
    Folder {
        name: "examples",
        installed: "/usr/share/doc/slurm-efa/examples",
        form: Form::Document,
        mode: 0o644,
    },
    Folder {
        name: "lifecycle",
        installed: "/usr/share/slurm-efa/lifecycle",
        form: Form::File,
        mode: 0o755,
    },
];

/// Folders that are this package's alone; removal takes them with it.
const OWNED: &[&str] = &[
    "/etc/slurm-efa",
    "/usr/lib/slurm-efa",
    "/usr/share/doc/slurm-efa",
    "/usr/share/doc/slurm-efa/docs",
    "/usr/share/doc/slurm-efa/examples",
    "/usr/share/slurm-efa",
    "/usr/share/slurm-efa/lifecycle",
    "/var/log/slurm-efa",
];

/// What is not in the tree, but made by a build.
pub trait Made {
    /// The content of a program or module for `arch`.
    fn artifact(&self, arch: &str, artifact: &Artifact) -> Result<Vec<u8>>;

    /// What a program prints.
    fn printed(&self, artifact: &Artifact, arguments: &[&str]) -> Result<Vec<u8>>;

    /// The licences of the crates that are linked in.
    fn third_party(&self) -> Result<Vec<u8>>;
}

/// Everything in the packages for `arch`.
///
/// # Errors
/// When something is not built, or cannot be read or generated.
pub fn entries(arch: &str, made: &impl Made) -> Result<Vec<Entry>> {
    let packaging = command::workspace().join("packaging");
    let mut entries: Vec<Entry> = OWNED
        .iter()
        .map(|path| Entry::new(*path, Form::Folder))
        .collect();
    for artifact in ARTIFACTS {
        entries.extend(programs(arch, artifact, made)?);
    }
    for folder in FOLDERS {
        for file in files(&packaging.join(folder.name))? {
            let path = format!("{}/{}", folder.installed, name(&file));
            entries.push(Entry {
                mode: folder.mode,
                ..Entry::new(path, (folder.form)(read(&file)?))
            });
        }
    }
    for file in files(&packaging.join("man"))? {
        let name = name(&file);
        let section = name.rsplit('.').next().unwrap_or_default();
        let folder = format!("/usr/share/man/man{section}");
        let content = Form::Document(gzip(&file)?);
        entries.push(Entry::new(format!("{folder}/{name}.gz"), content));
        // Links to a program have its manual page.
        let program = name.trim_end_matches(&format!(".{section}")).to_owned();
        let artifact = ARTIFACTS.iter().find(|it| it.shipped == program);
        entries.extend(artifact.iter().flat_map(|it| it.links).map(|link| {
            let page = Form::Link(format!("{name}.gz"));
            Entry::new(format!("{folder}/{link}.{section}.gz"), page)
        }));
    }
    entries.extend(documents(&packaging, made)?);
    entries.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(entries)
}

/// A built file, its other names, and its completions.
fn programs(arch: &str, artifact: &Artifact, made: &impl Made) -> Result<Vec<Entry>> {
    let content = made.artifact(arch, artifact)?;
    let shipped = artifact.shipped;
    let mut entries = Vec::new();
    for (directory, only) in directories(arch, artifact.place) {
        entries.push(Entry {
            mode: artifact.mode(),
            only,
            ..Entry::new(
                format!("{directory}/{shipped}"),
                Form::File(content.clone()),
            )
        });
        entries.extend(artifact.links.iter().map(|link| Entry {
            only,
            ..Entry::new(
                format!("{directory}/{link}"),
                Form::Link(shipped.to_owned()),
            )
        }));
    }
    if shipped == "slurm-efa" {
        let schema = made.printed(artifact, &["config", "schema"])?;
        entries.push(Entry::new(SCHEMA, Form::File(schema)));
    }
    if artifact.completes {
        let script = |shell: &str| -> Result<Form> {
            let script = made.printed(artifact, &["completions", shell])?;
            Ok(Form::File(script))
        };
        let share = "/usr/share";
        entries.extend([
            Entry::new(
                format!("{share}/bash-completion/completions/{shipped}"),
                script("bash")?,
            ),
            Entry::new(
                format!("{share}/fish/vendor_completions.d/{shipped}.fish"),
                script("fish")?,
            ),
            Entry::new(
                format!("{share}/zsh/vendor-completions/_{shipped}"),
                script("zsh")?,
            )
            .only(Format::Deb),
            Entry::new(
                format!("{share}/zsh/site-functions/_{shipped}"),
                script("zsh")?,
            )
            .only(Format::Rpm),
        ]);
    }
    Ok(entries)
}

/// The folders that a place means, and in which format.
fn directories(arch: &str, place: InstallDir) -> Vec<(String, Option<Format>)> {
    match place {
        InstallDir::At(directory) => vec![(directory.to_owned(), None)],
        InstallDir::Security => vec![
            (
                format!("/usr/lib/{arch}-linux-gnu/security"),
                Some(Format::Deb),
            ),
            ("/usr/lib64/security".to_owned(), Some(Format::Rpm)),
        ],
    }
}

/// Documents and licences.
fn documents(packaging: &Path, made: &impl Made) -> Result<Vec<Entry>> {
    let workspace = command::workspace();
    let doc = format!("/usr/share/doc/{NAME}");
    let licences = format!("/usr/share/licenses/{NAME}");
    let third_party = made.third_party()?;
    let mut entries = vec![
        Entry::new(
            format!("{doc}/README.md"),
            Form::Document(read(&workspace.join("README.md"))?),
        ),
        Entry::new(
            format!("{doc}/copyright"),
            Form::File(read(&packaging.join("deb/copyright"))?),
        )
        .only(Format::Deb),
        Entry::new(
            format!("{doc}/third-party.txt"),
            Form::File(third_party.clone()),
        )
        .only(Format::Deb),
        Entry::new(&licences, Form::Folder).only(Format::Rpm),
        Entry::new(
            format!("{licences}/third-party.txt"),
            Form::Licence(third_party),
        )
        .only(Format::Rpm),
    ];
    for licence in ["LICENSE-APACHE", "LICENSE-MIT"] {
        let text = Form::Licence(read(&workspace.join(licence))?);
        entries.push(Entry::new(format!("{licences}/{licence}"), text).only(Format::Rpm));
    }
    for file in files(&workspace.join("docs"))? {
        let path = format!("{doc}/docs/{}", name(&file));
        entries.push(Entry::new(path, Form::Document(read(&file)?)));
    }
    let overrides = packaging.join("deb/lintian-overrides");
    if overrides.is_file() {
        let path = format!("/usr/share/lintian/overrides/{NAME}");
        entries.push(Entry::new(path, Form::File(read(&overrides)?)).only(Format::Deb));
    }
    Ok(entries)
}

/// The regular files of a folder, in order; none where there is no folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry?.path();
        if path.is_file() && !name(&path).starts_with('.') {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

pub(super) fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("{} cannot be read", file.display()))
}

/// As Debian asks of manual pages: as small as can be, without a time in it.
fn gzip(file: &Path) -> Result<Vec<u8>> {
    let output = Command::new("gzip")
        .args(["-9", "--no-name", "--stdout"])
        .arg(file)
        .output()
        .context("gzip could not be started")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("gzip failed on {}: {}", file.display(), said.trim());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pam_module_lies_where_each_distribution_looks_for_it() {
        let expected = [
            ("/usr/lib/aarch64-linux-gnu/security", Some(Format::Deb)),
            ("/usr/lib64/security", Some(Format::Rpm)),
        ];
        let expected = expected.map(|(path, only)| (path.to_owned(), only));
        assert_eq!(directories("aarch64", InstallDir::Security), expected);
    }
}
