//! sshd's PAM stack.

use std::path::PathBuf;

use pam_stack::Phase;
use pam_stack::chain::{self, Kind, Link};
use pam_stack::control::{Action, Code};
use pam_stack::flow::End;

use super::look::{Look, REINSTALL, SETUP, fatal, shown, warning};
use crate::setup::discover::Site;
use crate::setup::{pam, paths};

/// sshd's account and session rules with what they include, in order.
pub(super) struct Stack {
    account: Vec<Link>,
    session: Vec<Link>,
}

impl Stack {
    pub(super) fn read(site: &Site) -> Result<Self, String> {
        let folder = site.place("/etc/pam.d");
        let chain = |phase| {
            chain::read(&pam::Disk, &folder, pam::SSHD, phase).map_err(|error| error.to_string())
        };
        Ok(Self {
            account: chain(Phase::Account)?,
            session: chain(Phase::Session)?,
        })
    }

    /// All rules.
    pub(super) fn links(&self) -> impl Iterator<Item = &Link> {
        self.account.iter().chain(&self.session)
    }

    /// Whether the account rules call our module.
    pub(super) fn has_ours(&self) -> bool {
        first(&self.account, pam::MODULE).is_some()
    }

    pub(super) fn account(&self) -> Look {
        let Some(at) = first(&self.account, pam::MODULE) else {
            return fatal(
                "sshd's account lines do not name pam_slurm_logout.so",
                SETUP,
            );
        };
        if let Some(link) = pam::passed_over(&self.account, at, End::Success) {
            return fatal(
                format!(
                    "{} may admit a user before pam_slurm_logout.so is asked",
                    place(link)
                ),
                "move the account line of pam_slurm_logout.so before it",
            );
        }
        match self.account.get(at).is_some_and(refuses) {
            true => Ok("account: no login is admitted without pam_slurm_logout.so".to_owned()),
            false => warning(
                "the control of the account line lets a refusal pass, so it refuses nobody",
                "make it `account required pam_slurm_logout.so`",
            ),
        }
    }

    pub(super) fn session(&self) -> Look {
        let Some(at) = first(&self.session, pam::MODULE) else {
            return fatal(
                "sshd's session lines do not name pam_slurm_logout.so, so no login is ended",
                SETUP,
            );
        };
        for module in ["pam_loginuid.so", "pam_systemd.so"] {
            if first(&self.session, module).is_some_and(|it| it > at) {
                return fatal(
                    format!("{module} comes after pam_slurm_logout.so, which records what it sets"),
                    "move the session line of pam_slurm_logout.so to the end",
                );
            }
        }
        if let Some(link) = pam::passed_over(&self.session, at, End::Success) {
            return fatal(
                format!(
                    "{} may end the session stack before pam_slurm_logout.so is asked, or jump \
                     over it: such a login does not end with its job",
                    place(link)
                ),
                "move the session line of pam_slurm_logout.so before it, but after \
                 pam_loginuid.so and pam_systemd.so",
            );
        }
        // sshd goes on after a session phase that fails.
        if let Some(link) = pam::passed_over(&self.session, at, End::Any) {
            return warning(
                format!(
                    "where {} fails, pam_slurm_logout.so is not asked: such a login does not end \
                     with its job",
                    place(link)
                ),
                "make that line `required` instead of `requisite`",
            );
        }
        Ok("session: every login is recorded, after pam_loginuid and pam_systemd".to_owned())
    }

    pub(super) fn adopt(&self) -> Look {
        let Some(adopt) = first(&self.account, "pam_slurm_adopt.so") else {
            return Ok("pam_slurm_adopt is not used".to_owned());
        };
        if first(&self.session, "pam_systemd.so").is_some() {
            return warning(
                "pam_systemd takes sessions out of the job that pam_slurm_adopt put them into",
                "take pam_systemd out of the session lines, or do without pam_slurm_adopt",
            );
        }
        if first(&self.account, pam::MODULE).is_some_and(|ours| ours > adopt) {
            return warning(
                "pam_slurm_adopt stands before pam_slurm_logout.so",
                "move our account line before it",
            );
        }
        Ok("pam_slurm_adopt stands behind pam_slurm_logout.so".to_owned())
    }

    pub(super) fn module(&self, site: &Site) -> Look {
        let mut rules = self.account.iter().chain(&self.session);
        let target = rules.find_map(|link| match &link.kind {
            Kind::Module { module, .. } if link.calls(pam::MODULE) => Some(module.as_str()),
            _ => None,
        });
        let target = target.unwrap_or(pam::MODULE);
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

/// The first rule that calls this module.
fn first(chain: &[Link], module: &str) -> Option<usize> {
    chain.iter().position(|link| link.calls(module))
}

/// Whether a module that refuses here fails the stack.
fn refuses(link: &Link) -> bool {
    match &link.kind {
        Kind::Substack => false,
        Kind::Module { control, .. } => {
            matches!(control.action(Code::PERM_DENIED), Action::Bad | Action::Die)
        }
    }
}

/// What a person finds a rule by.
fn place(link: &Link) -> String {
    let module = match &link.kind {
        Kind::Substack => "substack",
        Kind::Module { module, .. } => module,
    };
    format!(
        "line {} of {} ({})",
        link.line,
        shown(&link.file),
        host::printable(module, 100)
    )
}
