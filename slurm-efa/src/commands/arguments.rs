//! Options that several commands have.

use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use cluster::Role;
use config::ConfigError;
use slurm::NodeName;
use slurm_efa::setup::discover::{Site, Wanted};
use slurm_efa::setup::parts::{Part, Parts};

/// Which node and which site.
#[derive(Debug, Args)]
pub struct SiteArguments {
    /// This node's name in Slurm, where the configuration's paths contain %n
    #[arg(long, value_name = "NAME")]
    pub node: Option<NodeName>,
    /// The configuration, instead of /etc/slurm-efa/slurm-efa.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl SiteArguments {
    pub fn load(&self) -> Result<config::Config, ConfigError> {
        // The configuration's own rule; a relative path is a convenience.
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        config::Config::named_or_usual(self.config.as_ref().map(absolute).as_deref())
    }
}

/// What is common to all that change files.
#[derive(Debug, Args)]
pub struct EditArguments {
    /// Show what would change and what would be run, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The same, and exit with 1 if a file or link would change
    #[arg(long)]
    pub check: bool,
    /// Only these parts, separated by commas; the others stay as they are
    #[arg(long, value_name = "PARTS", value_delimiter = ',', value_parser = parts())]
    only: Vec<Part>,
    /// Do not have slurmctld read its files again
    #[arg(long)]
    pub no_reconfigure: bool,
    #[command(flatten)]
    pub place: PlaceArguments,
}

impl EditArguments {
    /// Whether it only looks.
    pub fn changes_nothing(&self) -> bool {
        self.dry_run || self.check
    }

    /// The parts that were chosen; `None` for all.
    pub fn only(&self) -> Option<Parts> {
        (!self.only.is_empty()).then(|| Parts::of(&self.only))
    }
}

/// The words of `--only`, which shells complete.
fn parts() -> impl TypedValueParser<Value = Part> {
    PossibleValuesParser::new(Part::ALL.map(Part::name)).try_map(|word| word.parse::<Part>())
}

/// Which node, and where its files are.
#[derive(Debug, Args)]
pub struct PlaceArguments {
    /// What this node is for: auto reads HyperPod's files
    #[arg(long, default_value = "auto", value_parser = roles())]
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

/// The words of `--role`, which shells complete.
fn roles() -> impl TypedValueParser<Value = RoleChoice> {
    PossibleValuesParser::new(["auto", "controller", "login", "compute"])
        .map(|word| RoleChoice(word.parse::<Role>().ok()))
}

impl PlaceArguments {
    pub fn look(&self) -> Site {
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
