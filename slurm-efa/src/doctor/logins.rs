//! sshd's PAM stack.

use std::fs;
use std::path::PathBuf;

use super::look::{Look, REINSTALL, SETUP, fatal, shown, warning};
use crate::setup::discover::Site;
use crate::setup::{pam, paths};

/// sshd's stack with what it includes, in order.
pub(super) struct Stack {
    rules: Vec<(pam::Phase, String, String)>,
}

pub(super) const MODULE_ACCOUNT: (pam::Phase, &str) = (pam::Phase::Account, pam::MODULE);

impl Stack {
    pub(super) fn read(site: &Site) -> Result<Self, String> {
        let mut stack = Self { rules: Vec::new() };
        stack.follow(site, "sshd", None, 8)?;
        Ok(stack)
    }

    pub(super) fn follow(
        &mut self,
        site: &Site,
        file: &str,
        only: Option<pam::Phase>,
        deeper: u8,
    ) -> Result<(), String> {
        let path = site.place("/etc/pam.d").join(file);
        let text =
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", shown(&path)))?;
        let rules = pam::rules(&text).map_err(|error| format!("{}: {error}", shown(&path)))?;
        for (_, rule) in rules {
            match rule {
                pam::Rule::Include(file) if deeper > 0 => {
                    self.follow(site, &file, only, deeper - 1)?
                }
                pam::Rule::Include(_) => {}
                pam::Rule::Phase { phase, .. } if only.is_some_and(|it| it != phase) => {}
                pam::Rule::Phase {
                    phase,
                    control,
                    target,
                    ..
                } if matches!(control.as_str(), "include" | "substack") => {
                    if deeper > 0 {
                        self.follow(site, &target, Some(phase), deeper - 1)?;
                    }
                }
                pam::Rule::Phase {
                    phase,
                    control,
                    target,
                    ..
                } => {
                    self.rules.push((phase, control, target));
                }
            }
        }
        Ok(())
    }

    pub(super) fn first(&self, (phase, module): (pam::Phase, &str)) -> Option<usize> {
        let mut rules = self.rules.iter();
        rules.position(|(it, _, target)| *it == phase && target.ends_with(module))
    }

    pub(super) fn account(&self) -> Look {
        let Some(at) = self.first(MODULE_ACCOUNT) else {
            return fatal(
                "sshd's account lines do not name pam_slurm_logout.so",
                SETUP,
            );
        };
        let before = self.rules.iter().take(at);
        let mut before = before.filter(|(phase, ..)| *phase == pam::Phase::Account);
        let early = before
            .find(|(_, control, _)| control == "sufficient" || control.contains("success=done"));
        if let Some((_, control, target)) = early {
            return fatal(
                format!(
                    "`account {control} {target}` stands before pam_slurm_logout.so, which then is not asked"
                ),
                "move our account line before it",
            );
        }
        match self.rules.get(at).map(|(_, control, _)| control.as_str()) {
            Some("required" | "requisite") => {
                Ok("account: before all that could end the stack".to_owned())
            }
            _ => warning(
                "the account line is neither required nor requisite, so it refuses nobody",
                "make it `account required pam_slurm_logout.so`",
            ),
        }
    }

    pub(super) fn session(&self) -> Look {
        let Some(at) = self.first((pam::Phase::Session, pam::MODULE)) else {
            return fatal(
                "sshd's session lines do not name pam_slurm_logout.so, so no login is ended",
                SETUP,
            );
        };
        for module in ["pam_loginuid.so", "pam_systemd.so"] {
            if self
                .first((pam::Phase::Session, module))
                .is_some_and(|it| it > at)
            {
                return fatal(
                    format!(
                        "{module} stands behind pam_slurm_logout.so, which records what it sets"
                    ),
                    "move our session line to the end",
                );
            }
        }
        Ok("session: behind pam_loginuid and pam_systemd".to_owned())
    }

    pub(super) fn adopt(&self) -> Look {
        let Some(adopt) = self.first((pam::Phase::Account, "pam_slurm_adopt.so")) else {
            return Ok("pam_slurm_adopt is not used".to_owned());
        };
        if self
            .first((pam::Phase::Session, "pam_systemd.so"))
            .is_some()
        {
            return warning(
                "pam_systemd takes sessions out of the job that pam_slurm_adopt put them into",
                "take pam_systemd out of the session lines, or do without pam_slurm_adopt",
            );
        }
        if self.first(MODULE_ACCOUNT).is_some_and(|ours| ours > adopt) {
            return warning(
                "pam_slurm_adopt stands before pam_slurm_logout.so",
                "move our account line before it",
            );
        }
        Ok("pam_slurm_adopt stands behind pam_slurm_logout.so".to_owned())
    }

    pub(super) fn module(&self, site: &Site) -> Look {
        let rule = self
            .rules
            .iter()
            .find(|(.., target)| target.ends_with(pam::MODULE));
        let target = rule.map_or(pam::MODULE, |(.., target)| target.as_str());
        let places: Vec<PathBuf> = if target.starts_with('/') {
            vec![PathBuf::from(target)]
        } else {
            paths::SECURITY
                .iter()
                .map(|it| site.place(it).join(target))
                .collect()
        };
        match places.iter().find(|path| path.is_file()) {
            Some(path) => Ok(shown(path)),
            None => fatal(
                format!(
                    "{} is not installed: a required line without its module refuses everybody",
                    pam::MODULE
                ),
                REINSTALL,
            ),
        }
    }
}
