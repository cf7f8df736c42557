//! `slurm-efa setup`, `revert` and `doctor` as a person meets them.

use std::path::PathBuf;

use clap::Args;
use host::date;
use slurm::node_name;
use slurm_efa::doctor;
use slurm_efa::setup::role::Role;
use slurm_efa::setup::site::{Site, Wanted};
use slurm_efa::setup::{self, SetupError};

use crate::print;

/// Something that must be there is not; this and the next as in sysexits.h.
const EX_UNAVAILABLE: u8 = 69;
/// A file cannot be written.
const EX_CANTCREAT: u8 = 73;
/// Another one is at work.
const EX_TEMPFAIL: u8 = 75;
/// Not root.
const EX_NOPERM: u8 = 77;
/// The configuration is wrong.
const EX_CONFIG: u8 = 78;
/// Something was left as it is.
const ATTENTION: u8 = 1;
/// A program refused what was written.
const REFUSED: u8 = 2;

#[derive(Debug, Args)]
pub struct SetupArguments {
    #[command(flatten)]
    edit: EditArguments,
    /// Somebody who must still be able to log in by ssh without a job
    #[arg(long, value_name = "NAME")]
    admin: Vec<String>,
    /// Lines for gres.conf, as `gres-helper generate` prints them
    #[arg(long, value_name = "FILE")]
    gres_conf: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct RevertArguments {
    #[command(flatten)]
    edit: EditArguments,
}

/// What is common to all that change files.
#[derive(Debug, Args)]
struct EditArguments {
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not tell slurmctld to read its files anew
    #[arg(long)]
    no_reconfigure: bool,
    #[command(flatten)]
    place: PlaceArguments,
}

#[derive(Debug, Args)]
pub struct DoctorArguments {
    /// Print all findings as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: PlaceArguments,
}

/// Which node, and where its files are.
#[derive(Debug, Args)]
struct PlaceArguments {
    /// What this node is for: auto reads HyperPod's files
    #[arg(long, default_value = "auto", value_parser = role)]
    role: RoleChoice,
    /// slurm.conf, instead of the one in /opt/slurm/etc, /etc/slurm, /usr/local/etc or slurmd's copy
    #[arg(long, value_name = "FILE")]
    slurm_conf: Option<PathBuf>,
    /// The configuration, instead of /etc/slurm-efa/slurm-efa.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// HyperPod's list of instances, instead of /opt/ml/config/resource_config.json
    #[arg(long, value_name = "FILE")]
    resource_config: Option<PathBuf>,
    /// HyperPod's roles, instead of /opt/ml/config/provisioning_parameters.json
    #[arg(long, value_name = "FILE")]
    provisioning_parameters: Option<PathBuf>,
    /// For tests: what stands for / for files that are not Slurm's
    #[arg(long, value_name = "DIR", hide = true)]
    root: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy)]
struct RoleChoice(Option<Role>);

fn role(text: &str) -> Result<RoleChoice, String> {
    if text == "auto" {
        return Ok(RoleChoice(None));
    }
    let role = <Role as clap::ValueEnum>::from_str(text, false);
    role.map(|it| RoleChoice(Some(it)))
        .map_err(|_| "expected auto, controller, login or compute".to_owned())
}

impl PlaceArguments {
    fn look(&self) -> Site {
        // A relative path is a convenience; programs are run in another folder.
        let absolute = |path: &Option<PathBuf>| {
            let path = path.as_ref()?;
            Some(std::path::absolute(path).unwrap_or_else(|_| path.clone()))
        };
        Site::look(Wanted {
            role: self.role.0,
            slurm_conf: absolute(&self.slurm_conf),
            config: absolute(&self.config),
            resource_config: absolute(&self.resource_config),
            provisioning: absolute(&self.provisioning_parameters),
            root: absolute(&self.root),
        })
    }
}

pub fn setup(arguments: SetupArguments) -> anyhow::Result<u8> {
    let edit = arguments.edit;
    if let Some(code) = not_root(edit.dry_run) {
        return Ok(code);
    }
    let site = edit.place.look();
    let role = site.role().map_err(SetupError::Missing)?;
    for warning in site.config.iter().flat_map(|config| &config.warnings) {
        eprintln!("slurm-efa: {warning}");
    }
    let _lock = (!edit.dry_run).then(|| setup::lock(&site)).transpose()?;
    let mut plan = setup::plan(&site, role, &arguments.admin)?;
    if let Some(fragment) = &arguments.gres_conf {
        setup::plan_gres(&site, role, &mut plan, fragment)?;
    }
    carry_out(&site, role, &plan, &edit)
}

pub fn revert(arguments: RevertArguments) -> anyhow::Result<u8> {
    let edit = arguments.edit;
    if let Some(code) = not_root(edit.dry_run) {
        return Ok(code);
    }
    let site = edit.place.look();
    let _lock = (!edit.dry_run).then(|| setup::lock(&site)).transpose()?;
    let plan = setup::plan_revert(&site)?;
    // Whose files are changed is the one to have them read anew; a package that
    // is removed does not know its role.
    let role = if setup::changes_slurm(&site, &plan) {
        Role::Controller
    } else {
        Role::Login
    };
    carry_out(&site, role, &plan, &edit)
}

fn carry_out(
    site: &Site,
    role: Role,
    plan: &setup::Plan,
    edit: &EditArguments,
) -> anyhow::Result<u8> {
    print(&plan.diff())?;
    let mut said = plan.notes.clone();
    if !edit.dry_run {
        setup::apply(site, plan)?;
        said.extend(setup::follow_up(site, role, plan, !edit.no_reconfigure));
    }
    for sentence in &said {
        eprintln!("slurm-efa: {sentence}");
    }
    let planned = edit.dry_run && !plan.changes.is_empty();
    Ok(if planned || !said.is_empty() {
        ATTENTION
    } else {
        0
    })
}

pub fn doctor(arguments: DoctorArguments) -> anyhow::Result<u8> {
    let json = arguments.json;
    let examination = doctor::examine(&arguments.place.look());
    if json {
        let node = node_name::of_this_process();
        let document = examination.document(node.as_ref(), date::now());
        print(&format!("{}\n", serde_json::to_string_pretty(&document)?))?;
    } else {
        print(&examination.to_text())?;
    }
    Ok(examination.findings.exit_code())
}

/// Anybody may look.
fn not_root(dry_run: bool) -> Option<u8> {
    // SAFETY: takes nothing, cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if root || dry_run {
        return None;
    }
    eprintln!(
        "slurm-efa: only root can change this node's set-up; --dry-run shows what it would be"
    );
    Some(EX_NOPERM)
}

pub fn exit_code(error: &SetupError) -> u8 {
    match error {
        SetupError::Missing(_) => EX_UNAVAILABLE,
        SetupError::Config(_) => EX_CONFIG,
        SetupError::File(_) => EX_CANTCREAT,
        SetupError::Refused(_) | SetupError::Stuck(..) => REFUSED,
        SetupError::Busy(_) => EX_TEMPFAIL,
    }
}
