//! A machine in one text: a header, its files, and what set-up changes in them.
//!
//! ```text
//! # What it is; where its shape is known from.
//! roles: compute controller      in the order in which it is set up
//! slurm: 23.11                   the release of its programs
//! conf: /etc/slurm/slurm.conf    which slurm.conf its Slurm reads
//! shared: yes                    slurm.conf's folder is on a network file system
//! with: pam-debian nhc           files of parts/, which other machines have, too
//! note: HealthCheckProgram=…     a sentence of set-up, in order
//! doctor: warning epilog         what doctor finds all the same
//! == /etc/slurm/slurm.conf
//! the text of a file; {root} is the folder that stands for /
//! == /etc/slurm/crlf.conf (crlf)
//! == /etc/slurm/unfinished.conf (no newline at end)
//! == /opt/slurm/etc -> ../elsewhere
//! ++ /etc/slurm/slurm.conf
//! -a line that is put aside
//! +a line that is added
//! ++ /opt/slurm/etc/prolog.d/50-x -> /usr/sbin/x
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use cluster::Role;

use crate::FOLDER;
use crate::machine::Entry;

#[derive(Debug, Default)]
pub struct Description {
    pub path: PathBuf,
    pub name: String,
    pub roles: Vec<Option<Role>>,
    pub slurm: String,
    pub conf: String,
    pub shared: bool,
    pub files: BTreeMap<String, Entry>,
    pub notes: Vec<String>,
    pub findings: Vec<String>,
    pub changes: BTreeMap<String, Vec<String>>,
}

impl Description {
    pub fn read(path: &Path) -> Self {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut description = Self {
            path: path.to_owned(),
            name,
            ..Self::default()
        };
        description.take(path);
        assert!(!description.roles.is_empty(), "{}", path.display());
        description
    }

    fn take(&mut self, path: &Path) {
        let text =
            fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut sections = sections(&text);
        let (_, header) = sections.remove(0);
        for line in header.lines().filter(|it| !it.starts_with('#')) {
            let (key, value) = line
                .split_once(": ")
                .unwrap_or_else(|| panic!("{}: {line}", path.display()));
            self.header(key, value);
        }
        for (title, text) in sections {
            let (kind, rest) = title.split_at(3);
            let (name, target) = match rest.split_once(" -> ") {
                Some((name, target)) => (name, Some(target)),
                None => (rest, None),
            };
            if kind == "++ " {
                let lines = match target {
                    Some(target) => vec![format!("-> {target}")],
                    None => text.lines().map(str::to_owned).collect(),
                };
                self.changes.insert(name.to_owned(), lines);
                continue;
            }
            let (name, entry) = match (target, name.split_once(" (")) {
                (Some(target), _) => (name, Entry::Link(target.to_owned())),
                (None, Some((name, "crlf)"))) => (name, Entry::Text(text.replace('\n', "\r\n"))),
                (None, Some((name, _))) => {
                    (name, Entry::Text(text.trim_end_matches('\n').to_owned()))
                }
                (None, None) => (name, Entry::Text(text)),
            };
            self.files.insert(name.to_owned(), entry);
        }
    }

    fn header(&mut self, key: &str, value: &str) {
        match key {
            "roles" => {
                // `auto` is what the machine's own files say.
                self.roles = value.split(' ').map(|it| it.parse().ok()).collect();
            }
            "slurm" => self.slurm = value.to_owned(),
            "conf" => self.conf = value.to_owned(),
            "shared" => self.shared = value == "yes",
            "note" => self.notes.push(value.to_owned()),
            "doctor" => self.findings.push(value.to_owned()),
            "with" => {
                for part in value.split(' ') {
                    self.take(&Path::new(FOLDER).join(format!("parts/{part}.part")));
                }
            }
            _ => panic!("{}: {key}", self.path.display()),
        }
    }

    /// Writes the description again with what was seen.
    pub fn write(
        &self,
        notes: &[String],
        findings: &[String],
        changes: &BTreeMap<String, Vec<String>>,
    ) {
        let old = fs::read_to_string(&self.path).unwrap();
        let mut text = String::new();
        for (at, (title, body)) in sections(&old).into_iter().enumerate() {
            match at {
                0 => {
                    let seen =
                        |line: &&str| !line.starts_with("note: ") && !line.starts_with("doctor: ");
                    for line in body.lines().filter(seen) {
                        let _ = writeln!(text, "{line}");
                    }
                    for note in notes {
                        let _ = writeln!(text, "note: {note}");
                    }
                    for finding in findings {
                        let _ = writeln!(text, "doctor: {finding}");
                    }
                }
                _ if title.starts_with("++ ") => {}
                _ => {
                    let _ = write!(text, "{title}\n{body}");
                }
            }
        }
        for (name, lines) in changes {
            match lines.first().filter(|it| it.starts_with("-> ")) {
                Some(target) => {
                    let _ = writeln!(text, "++ {name} {target}");
                }
                None => {
                    let _ = writeln!(text, "++ {name}\n{}", lines.join("\n"));
                }
            }
        }
        fs::write(&self.path, text).unwrap();
    }
}

/// The header without a title, then each section with its title.
fn sections(text: &str) -> Vec<(String, String)> {
    let mut all = vec![(String::new(), String::new())];
    for line in text.lines() {
        if line.starts_with("== ") || line.starts_with("++ ") {
            all.push((line.to_owned(), String::new()));
        } else {
            let (_, body) = all.last_mut().unwrap();
            body.push_str(line);
            body.push('\n');
        }
    }
    all
}
