//! The programs that read a changed file judge it before it stays.

use std::path::{Path, PathBuf};

use host::printable;
use host::state_layout::DEFAULT as STATE_DIR;
use host::state_layout::setup::TRIAL_PREFIX;

use slurm::Program;

use super::discover::Site;
use super::edit;
use super::error::SetupError;
use super::files;
use super::login::{self, Verdict};
use super::paths::SSHD;
use super::plan::Plan;
use super::run;

pub(super) fn changes(plan: &Plan, path: &Path) -> bool {
    plan.changes.iter().any(|it| is_same(path, &it.path))
}

/// Whether both are one file.
pub(super) fn is_same(path: &Path, real: &Path) -> bool {
    files::resolved(path) == real
}

/// Users for whom a stack is tried: root and each administrator.
fn tried(plan: &Plan) -> impl Iterator<Item = &str> {
    std::iter::once("root").chain(plan.admins.iter().map(String::as_str))
}

/// Who accepts sshd's side of things before a change. What refuses today proves
/// nothing about our lines.
#[derive(Debug, Default)]
pub(super) struct Accepts {
    /// PAM admits each of [`tried`].
    logins: bool,
    /// The sshd that accepts its own configuration.
    sshd: Option<PathBuf>,
}

/// What is accepted today, where the plan changes sshd's stack.
pub(super) fn before_pam(site: &Site, plan: &Plan) -> Result<Accepts, SetupError> {
    if !changes(plan, &site.place(SSHD)) {
        return Ok(Accepts::default());
    }
    let sshd = match site.wanted.root {
        None => run::find("sshd"),
        Some(_) => None,
    };
    Ok(Accepts {
        logins: admits(site, plan)?,
        sshd: accepting(sshd),
    })
}

/// This sshd, if it has nothing against its own configuration.
fn accepting(sshd: Option<PathBuf>) -> Option<PathBuf> {
    sshd.filter(|sshd| accepts(sshd).is_ok())
}

fn admits(site: &Site, plan: &Plan) -> Result<bool, SetupError> {
    let folder = pam_folder(site);
    for user in tried(plan) {
        match login::ask("sshd", user, folder.as_deref()) {
            Verdict::Admitted => {}
            // Reverting cannot make it worse.
            _ if plan.admins.is_empty() => return Ok(false),
            verdict => {
                return Err(SetupError::Missing(format!(
                    "PAM does not admit {} even now ({verdict:?}), so it cannot be proven that \
                     our line locks nobody out; nothing was changed",
                    printable(user, 64)
                )));
            }
        }
    }
    Ok(true)
}

fn pam_folder(site: &Site) -> Option<PathBuf> {
    site.wanted.root.as_ref().map(|_| site.place("/etc/pam.d"))
}

/// Asks every program that reads a changed file.
pub(super) fn judge(site: &Site, plan: &Plan, before: &Accepts) -> Result<(), String> {
    if site.slurm.slurm_conf.is_some() && has(site, Program::Scontrol) {
        // Needs no controller, and reads slurm.conf first.
        let ran = run::slurms(site, Program::Scontrol, &["show", "hostnames", "n1"])?;
        if !ran.success() && plan.changes.iter().any(|it| is_slurms(site, &it.path)) {
            return Err(format!(
                "Slurm refuses slurm.conf: {}",
                run::complaint(&ran)
            ));
        }
    }
    let plugstack = site.plugstack();
    if let Some(path) = plugstack.filter(|path| changes(plan, path) && path.exists())
        && has(site, Program::Srun)
    {
        let ran = run::slurms(site, Program::Srun, &["--help"])?;
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let ours = edit::has_ours(&text);
        if !ran.success() || (ours && !ran.stdout.contains("--efa-profile")) {
            return Err(format!(
                "srun does not load the plugin: {}",
                run::complaint(&ran)
            ));
        }
    }
    judge_cgroup(site, plan)?;
    if changes(plan, &site.place(SSHD)) {
        judge_logins(site, plan, before)?;
    }
    Ok(())
}

fn has(site: &Site, program: Program) -> bool {
    site.slurm.programs.find(program).is_some()
}

/// Whether a plan changes files that Slurm reads.
#[must_use]
pub fn changes_slurm(site: &Site, plan: &Plan) -> bool {
    plan.changes.iter().any(|it| is_slurms(site, &it.path))
}

pub(super) fn is_slurms(site: &Site, path: &Path) -> bool {
    let folder = site.slurm.slurm_conf.as_deref().and_then(Path::parent);
    let folder = folder.and_then(|it| std::fs::canonicalize(it).ok());
    // slurm.conf and plugstack.conf may themselves be links to another folder.
    let mut named = site
        .slurm
        .slurm_conf
        .iter()
        .cloned()
        .chain(site.plugstack());
    folder.is_some_and(|folder| path.starts_with(folder)) || named.any(|it| is_same(&it, path))
}

/// cgroup.conf is read by slurmd alone: `slurmd -G` reads it beside a slurm.conf
/// of one made-up node, and neither starts nor asks anything.
fn judge_cgroup(site: &Site, plan: &Plan) -> Result<(), String> {
    let Some(path) = site
        .slurm
        .slurm_conf
        .as_ref()
        .map(|it| it.with_file_name("cgroup.conf"))
    else {
        return Ok(());
    };
    let (true, Some(slurmd)) = (
        changes(plan, &path),
        site.slurm.programs.find(Program::Slurmd),
    ) else {
        return Ok(());
    };
    let folder = site
        .place(STATE_DIR)
        .join(format!("{TRIAL_PREFIX}{}", std::process::id()));
    let conf = folder.join("slurm.conf");
    let one =
        "ClusterName=try\nSlurmctldHost=localhost\nNodeName=try\nPartitionName=try Nodes=try\n";
    let written = std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(&conf, one))
        .and_then(|()| std::fs::copy(&path, folder.join("cgroup.conf")));
    let ran = match written {
        Ok(_) => run::run(slurmd, &["-G", "-N", "try", "-f", &conf.to_string_lossy()]),
        Err(error) => Err(format!("cgroup.conf cannot be tried: {error}")),
    };
    // It lies in /run, and the next one has another name.
    let _ = std::fs::remove_dir_all(&folder);
    let ran = ran?;
    if ran.success() {
        Ok(())
    } else {
        Err(format!(
            "Slurm refuses cgroup.conf: {}",
            run::complaint(&ran)
        ))
    }
}

fn judge_logins(site: &Site, plan: &Plan, before: &Accepts) -> Result<(), String> {
    let folder = pam_folder(site);
    for user in tried(plan).filter(|_| before.logins) {
        match login::ask("sshd", user, folder.as_deref()) {
            Verdict::Admitted => {}
            verdict => {
                return Err(format!(
                    "with our line PAM would not admit {} ({verdict:?})",
                    printable(user, 64)
                ));
            }
        }
    }
    before.sshd.as_deref().map_or(Ok(()), accepts)
}

/// Asks sshd about its own configuration. One that its socket starts complains as
/// long as nobody is logged in: /run/sshd is made for a connection.
fn accepts(sshd: &Path) -> Result<(), String> {
    let ran = run::run(sshd, &["-t"])?;
    match ran.success() {
        true => Ok(()),
        false => Err(format!(
            "sshd refuses its configuration: {}",
            run::complaint(&ran)
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::setup::discover::Wanted;

    #[test]
    fn an_sshd_that_complains_before_the_change_does_not_judge_it() {
        let dir = tempfile::tempdir().unwrap();
        let sshd = dir.path().join("sshd");
        let complains =
            "#!/bin/sh\necho Missing privilege separation directory: /run/sshd >&2\nexit 255\n";
        fs::write(&sshd, complains).unwrap();
        fs::set_permissions(&sshd, fs::Permissions::from_mode(0o755)).unwrap();
        let reason = accepts(&sshd).unwrap_err();
        assert!(reason.contains("/run/sshd"), "{reason}");
        let site = Site::look(Wanted::default());
        let judged = |sshd| {
            let before = Accepts {
                logins: false,
                sshd,
            };
            judge_logins(&site, &Plan::default(), &before)
        };
        assert_eq!(judged(accepting(Some(sshd.clone()))), Ok(()));
        // One that accepted it before the change does.
        assert_eq!(judged(Some(sshd)), Err(reason));
    }
}
