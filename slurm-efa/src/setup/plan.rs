//! The changes that a setup or a revert would make, and how a person sees them.

use std::path::{Path, PathBuf};

use cli::called;
use host::{Uid, printable};
use slurm::conf::{Disk, Overlay, SlurmConf};

use super::discover::Site;
use super::edit;
use super::error::SetupError;
use super::files::{self, Change, Content};
use super::parts::Scope;
use super::paths::MADE;
use super::wrapper::Wrapper;

/// What shall become of the files, and what is to be said.
#[derive(Debug, Default)]
pub struct Plan {
    /// In the order in which they are made.
    pub changes: Vec<Change>,
    /// Sentences: what was left as it is, and what to do.
    pub notes: Vec<String>,
    /// Which parts it is about.
    pub(super) scope: Scope,
    /// Who must still be able to log in.
    pub(super) admins: Vec<String>,
    /// Whether it takes out what another one put in.
    pub(super) reverts: bool,
    /// What a revert lets stay, since Slurm still asks for it.
    pub(super) stays: Vec<&'static str>,
    /// To whom Slurm's files may belong besides root.
    pub(super) slurm_user: Option<Uid>,
}

impl Plan {
    /// Whether sshd asks pam_slurm_logout once this is carried out.
    #[must_use]
    pub fn edits_logins(&self) -> bool {
        !self.admins.is_empty()
    }

    /// What will change, for a person: a unified diff of each file, and each link.
    #[must_use]
    pub fn diff(&self) -> String {
        let shown = |path: &Path| printable(&path.to_string_lossy(), 300);
        let text = |content| match content {
            &Content::Text(ref text) | &Content::Script(ref text) => Some(text.as_str()),
            Content::Link(_) | Content::Nothing => None,
        };
        let mut all = String::new();
        for Change {
            path,
            before,
            after,
        } in &self.changes
        {
            let path = shown(path);
            let (old, new) = (text(before), text(after));
            if let Content::Link(target) = before {
                all += &format!("-{path} -> {}\n", shown(target));
            }
            if old.is_some() || new.is_some() {
                all += &edit::diff(&path, old, new);
            }
            if let Content::Link(target) = after {
                all += &format!("+{path} -> {}\n", shown(target));
            }
        }
        all
    }

    pub(super) fn text(
        &mut self,
        path: &Path,
        made: impl FnOnce(&str) -> String,
    ) -> Result<(), SetupError> {
        let (path, before) = files::read_of(path, self.slurm_user)?;
        let new = matches!(before, Content::Nothing);
        let text = if let Content::Text(it) = &before {
            it
        } else {
            ""
        };
        let is_made = text.starts_with(MADE);
        let body = match text.split_once('\n') {
            Some((_, body)) if is_made => body,
            _ => text,
        };
        let after = made(body);
        let has_ours = edit::has_ours(&after);
        let after = if after.trim().is_empty() && (new || is_made) {
            Content::Nothing
        } else if has_ours && (new || is_made) {
            Content::Text(format!("{MADE} {}\n{after}", edit::MARK))
        } else {
            Content::Text(after)
        };
        if after != before {
            self.changes.push(Change {
                path,
                before,
                after,
            });
        }
        Ok(())
    }

    /// A file that is setup's alone, or none. Another one of this name stays.
    pub(super) fn made(&mut self, path: &Path, text: Option<String>) -> Result<(), SetupError> {
        let (path, before) = files::read(path)?;
        let after = text.map_or(Content::Nothing, Content::Text);
        if matches!(&before, Content::Text(text) if !text.starts_with(MADE)) {
            if after != Content::Nothing {
                self.notes.push(format!(
                    "{} stays, since setup did not make it",
                    printable(&path.to_string_lossy(), 200)
                ));
            }
        } else if after != before {
            self.changes.push(Change {
                path,
                before,
                after,
            });
        }
        Ok(())
    }

    /// What slurm.conf says once this is done.
    pub(super) fn slurm_conf_after(&self, site: &Site) -> SlurmConf {
        let conf = site.slurm.slurm_conf.as_deref();
        let change = conf.and_then(|conf| {
            let mut changes = self.changes.iter();
            Some((conf, changes.find(|it| files::resolved(conf) == it.path)?))
        });
        let Some((conf, change)) = change else {
            return site.slurm.conf.clone();
        };
        let text = match &change.after {
            Content::Text(text) => text,
            Content::Script(_) | Content::Link(_) | Content::Nothing => "",
        };
        let files = Overlay {
            path: conf,
            text,
            under: &Disk,
        };
        SlurmConf::read(&files, conf).unwrap_or_default()
    }

    /// Says something once.
    pub(super) fn note(&mut self, sentence: String) {
        if !self.notes.contains(&sentence) {
            self.notes.push(sentence);
        }
    }

    pub(super) fn link(&mut self, path: PathBuf, after: Content) {
        let before = files::program(&path);
        // A wrapper of the site's, say. Revert has nothing to do with it.
        if before == Content::Nothing && path.symlink_metadata().is_ok() {
            let wanted = match after {
                Content::Link(target) => format!(
                    "{} in its place, under this name",
                    printable(&target.to_string_lossy(), 200)
                ),
                Content::Script(text) | Content::Text(text) => {
                    let name = path.file_name().unwrap_or_default();
                    let mut programs = called::PROGRAMS.iter();
                    let command = programs.find_map(|it| it.command(name));
                    let wrapper = Wrapper::of(&text, command.unwrap_or_default());
                    let call = wrapper.map(|it| it.call());
                    printable(&call.unwrap_or_default(), 400)
                }
                Content::Nothing => return,
            };
            self.notes.push(format!(
                "{} stays, since set-up did not make it; have it run {wanted}",
                printable(&path.to_string_lossy(), 200),
            ));
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
