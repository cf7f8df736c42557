//! A folder that stands for the machine of a description, with the package
//! installed there. No program judges set-up there, but this machine's scontrol can
//! read slurm.conf.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use cluster::Role;
use findings::Severity;
use slurm::conf::{Disk, SlurmConf};
use slurm::{Installation, Release};
use slurm_efa::doctor;
use slurm_efa::setup::discover::{Site, Wanted};
use slurm_efa::setup::edit::{ASIDE, MARK, without_ours};
use slurm_efa::setup::parts::{Part, Parts};
use slurm_efa::setup::{Plan, desired, files, revert};

use crate::description::Description;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    Text(String),
    Link(String),
}

/// What every installation has; a program must be executable.
const PACKAGE: [&str; 4] = [
    "/usr/lib/slurm-efa/spank_efa.so",
    "/usr/lib/slurm-efa/slurm-efa-job",
    "/usr/lib/slurm-efa/pam_slurm_logout.so",
    "/usr/sbin/efa-check",
];

/// What is set-up's own on a compute node; doctor looks at it.
const OWN: [&str; 2] = ["/etc/slurm-efa/", "/var/lib/slurm-efa/"];

pub struct Machine<'a> {
    description: &'a Description,
    folder: tempfile::TempDir,
}

impl<'a> Machine<'a> {
    pub fn new(description: &'a Description) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machine = Self {
            description,
            folder,
        };
        for path in PACKAGE {
            machine.make(path, &Entry::Text("\x7fELF".to_owned()));
        }
        for (path, entry) in &description.files {
            machine.make(path, entry);
        }
        machine
    }

    fn root(&self) -> String {
        self.folder.path().to_string_lossy().into_owned()
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    fn make(&self, name: &str, entry: &Entry) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match entry {
            Entry::Link(target) => symlink(target.replace("{root}", &self.root()), path).unwrap(),
            Entry::Text(text) => {
                fs::write(&path, text.replace("{root}", &self.root())).unwrap();
                let program = text.starts_with("#!") || text.starts_with("\x7fELF");
                let mode = if program { 0o755 } else { 0o644 };
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
    }

    fn site(&self, role: Option<Role>) -> Site {
        let conf = self.path(&self.description.conf);
        let mut site = Site::look(Wanted {
            role,
            slurm_conf: Some(conf.clone()),
            root: Some(self.folder.path().to_owned()),
            ..Wanted::default()
        });
        let read = SlurmConf::read(&Disk, &conf).unwrap_or_default();
        let release = Release::parse(&format!("slurm {}", self.description.slurm)).unwrap();
        site.slurm = Installation::known(conf, read, Some(release));
        site.shared = self.description.shared;
        site
    }

    /// Sets the machine up for each of its roles; what is said about it.
    pub fn set_up(&self) -> Vec<String> {
        self.try_set_up().unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same, or why it is not begun.
    pub fn try_set_up(&self) -> Result<Vec<String>, String> {
        let shown = |it: &str| it.replace(&self.root(), "");
        let mut notes = Vec::new();
        for role in &self.description.roles {
            let site = self.site(*role);
            let role = site.role().unwrap();
            let plan = desired::plan(&site, role, &["root".to_owned()], None);
            let plan = plan.map_err(|error| shown(&error.to_string()))?;
            notes.extend(self.carry_out(plan));
        }
        Ok(notes)
    }

    /// Whether its Slurm's files are a copy of the controller's.
    fn has_copy(&self) -> bool {
        !self.site(None).has_original()
    }

    /// Its own files: not its copy of the controller's.
    pub fn own_files(&self) -> BTreeMap<String, Entry> {
        let mut files = self.files();
        if self.has_copy() {
            let folder = Path::new(&self.description.conf).parent().unwrap();
            files.retain(|path, _| !Path::new(path).starts_with(folder));
        }
        files
    }

    /// On the controller first.
    pub fn revert(&self) {
        if self.has_copy() {
            let folder = self.path(&self.description.conf).with_file_name("");
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let text = fs::read_to_string(&path).unwrap();
                fs::write(path, without_ours(&text)).unwrap();
            }
        }
        let mut roles = self.description.roles.clone();
        roles.sort_by_key(|role| *role != Some(Role::Controller));
        for role in &roles {
            let plan = revert::plan_revert(&self.site(*role), None).unwrap();
            self.carry_out(plan);
        }
    }

    /// Takes back one part.
    pub fn revert_only(&self, part: Part) {
        let site = self.site(self.description.roles[0]);
        let plan = revert::plan_revert(&site, Some(Parts::of(&[part]))).unwrap();
        self.carry_out(plan);
    }

    fn carry_out(&self, plan: Plan) -> Vec<String> {
        files::make(plan.changes).unwrap().keep();
        let notes = plan.notes.iter();
        notes.map(|it| it.replace(&self.root(), "")).collect()
    }

    /// What doctor finds wrong with the files: severity and id.
    pub fn findings(&self) -> Vec<String> {
        let mut all = Vec::new();
        for role in &self.description.roles {
            let findings = doctor::of_files(&self.site(*role)).0;
            all.extend(
                findings
                    .iter()
                    .filter(|it| it.severity != Severity::Ok)
                    .map(|it| {
                        let sentence = it.sentence.replace(&self.root(), "");
                        let severity = format!("{:?}", it.severity).to_lowercase();
                        format!("{severity} {}: {sentence}", it.id)
                    }),
            );
        }
        let mut seen = BTreeSet::new();
        all.retain(|it| seen.insert(it.clone()));
        all
    }

    /// Whether this machine's Slurm reads slurm.conf without an error.
    pub fn scontrol(&self) -> Result<(), String> {
        let said = Command::new("scontrol")
            .args(["show", "hostnames", "n1"])
            .env("SLURM_CONF", self.path(&self.description.conf))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&said.stderr).into_owned();
        match said.status.success() && !errors.contains("error") {
            true => Ok(()),
            false => Err(errors),
        }
    }

    /// All files and links.
    pub fn files(&self) -> BTreeMap<String, Entry> {
        let mut all = BTreeMap::new();
        self.walk(self.folder.path(), &mut all);
        all
    }

    fn walk(&self, folder: &Path, all: &mut BTreeMap<String, Entry>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let shown = |path: &Path| path.to_string_lossy().replace(&self.root(), "");
            if let Ok(target) = fs::read_link(&path) {
                all.insert(shown(&path), Entry::Link(shown(&target)));
            } else if path.is_dir() {
                self.walk(&path, all);
            } else {
                let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
                all.insert(shown(&path), Entry::Text(text));
            }
        }
    }

    /// What came since then and went, as a description has it.
    pub fn changes_since(&self, before: &BTreeMap<String, Entry>) -> BTreeMap<String, Vec<String>> {
        let after = self.files();
        let mut changes = BTreeMap::new();
        for (path, entry) in &after {
            let own = OWN.iter().any(|it| path.starts_with(it));
            if own || before.get(path) == Some(entry) {
                continue;
            }
            let lines = match entry {
                Entry::Link(target) => vec![format!("-> {target}")],
                Entry::Text(text) => text.lines().filter_map(|line| self.change(line)).collect(),
            };
            changes.insert(path.clone(), lines);
        }
        for gone in before.keys().filter(|path| !after.contains_key(*path)) {
            changes.insert(gone.clone(), vec!["is gone".to_owned()]);
        }
        changes
    }

    fn change(&self, line: &str) -> Option<String> {
        let line = line.trim_end_matches('\r').replace(&self.root(), "");
        match (line.strip_prefix(ASIDE), line.strip_suffix(MARK)) {
            (Some(theirs), _) => Some(format!("-{theirs}")),
            (None, Some(ours)) => Some(format!("+{}", ours.trim_end())),
            (None, None) => None,
        }
    }
}
