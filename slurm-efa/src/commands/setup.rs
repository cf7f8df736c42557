//! `slurm-efa setup`.

use std::path::PathBuf;

use clap::Args;
use cluster::Role;
use findings::Severity;
use slurm_efa::doctor;
use slurm_efa::setup::parts::Part;
use slurm_efa::setup::print as lines;
use slurm_efa::setup::{SetupError, apply, desired};

use super::arguments::EditArguments;
use super::edit;
use super::exit::WrongUse;
use super::output::print;

#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    edit: EditArguments,
    /// Somebody who must still be able to log in by ssh without a job
    #[arg(long, value_name = "NAME")]
    admin: Vec<String>,
    /// Print the lines that each file needs, for files that another tool owns, and change nothing
    #[arg(long, conflicts_with_all = ["dry_run", "check", "gres_conf"])]
    print: bool,
    /// Lines for gres.conf, as `gres-helper generate` prints them
    #[arg(long, value_name = "FILE")]
    gres_conf: Option<PathBuf>,
}

pub fn run(arguments: Arguments) -> anyhow::Result<u8> {
    let edit = arguments.edit;
    if let Some(code) = edit::not_root(arguments.print || edit.changes_nothing()) {
        return Ok(code);
    }
    let others_only = edit.only().is_some_and(|it| !it.has(Part::Gres));
    if arguments.gres_conf.is_some() && others_only {
        let sentence = "--gres-conf FILE is of the part gres, which --only leaves out";
        return Err(WrongUse(sentence.to_owned()).into());
    }
    let site = edit.place.look();
    let role = site.role().map_err(SetupError::Missing)?;
    for finding in &site.mistakes.0 {
        // What is fatal ends the set-up.
        if finding.severity == Severity::Warning {
            eprintln!("slurm-efa: {}", finding.sentence);
        }
    }
    if arguments.print {
        print(&lines::lines(&site, role, edit.only())?)?;
        return Ok(0);
    }
    let _lock = (!edit.changes_nothing())
        .then(|| apply::lock(&site))
        .transpose()?;
    let mut plan = desired::plan(&site, role, &arguments.admin, edit.only())?;
    if let Some(fragment) = &arguments.gres_conf {
        desired::plan_gres(&site, role, &mut plan, fragment)?;
    }
    let code = edit::carry_out(&site, role, &plan, &edit, next(role))?;
    let refuses = site.key("logout", "require_job") != Some(toml::Value::Boolean(false));
    if plan.edits_logins()
        && refuses
        && let Some(advice) = doctor::penalties(&site)
    {
        eprintln!("slurm-efa: {advice}");
    }
    Ok(code)
}

/// What an administrator does after the setup of a node of this role.
fn next(role: Role) -> &'static str {
    match role {
        Role::Compute => {
            "once every compute node is set up, run `slurm-efa setup` on the controller"
        }
        Role::Login => "run `slurm-efa doctor` here",
        Role::Controller => "run `slurm-efa doctor` here and on a compute node",
    }
}
