//! The chores of this workspace that are more than one command; the Makefile
//! names them all.

mod bindings;
mod changelog;
mod cluster_model;
mod command;
mod configuration;
mod deny;
mod dist;
mod elf;
mod package;
mod roots;
mod setup;
mod venv;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::dist::Variant;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Install what a Debian or Ubuntu machine with only Rust lacks
    Setup {
        /// What the machine is to be made ready for
        #[arg(long = "for", value_enum, default_value = "test")]
        purpose: setup::Purpose,
    },
    /// Build and check the shipped files: target/dist/<arch>/
    Dist {
        /// Build the modules of the matrix instead, which can panic in any hook:
        /// target/dist-test/<arch>/
        #[arg(long)]
        inject: bool,
        /// Only for this machine's processor
        #[arg(long)]
        here: bool,
    },
    /// Make the packages anew from target/dist/<arch>/, as `dist` does at its end
    Package {
        /// The version that they are to have, to try out an upgrade
        #[arg(long, value_name = "X.Y.Z", default_value = package::VERSION)]
        package_version: String,
        /// Where to put them instead of target/dist/
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
    },
    /// Write lib/spank/src/bindings.rs from Slurm's headers
    Bindings {
        /// The directory that holds slurm/spank.h
        #[arg(long, value_name = "DIR", default_value = "/usr/include")]
        headers: PathBuf,
        /// Compare instead of writing: do the bindings in the tree hold for these headers?
        #[arg(long)]
        check: bool,
    },
    /// Make the Debian roots of the release matrix, or these: /var/cache/slurm-efa/roots/,
    /// or $SLURM_EFA_CACHE/roots/
    Roots {
        /// Print a line for each root, `SLURM SUITE DIRECTORY`, instead of making any
        #[arg(long)]
        list: bool,
        /// Debian suites, `machine`, which boots, or `driver`; all suites by default
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// Write lib/cluster/src/model.rs from botocore's model of CreateCluster
    ClusterModel {
        /// Compare instead of writing
        #[arg(long)]
        check: bool,
    },
    /// Write the shipped slurm-efa.toml and its manual page from lib/config/src/reference.rs
    Configuration {
        /// Compare instead of writing
        #[arg(long)]
        check: bool,
    },
    /// Write CHANGELOG.md from packaging/changelog.yaml
    Changelog,
    /// Check licences, sources and bans of the dependencies, as CI does
    CiDeny,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().chore {
        Chore::Setup { purpose } => setup::setup(purpose),
        Chore::Dist { inject: true, here } => dist::dist(Variant::Inject, here).map(drop),
        Chore::Dist {
            inject: false,
            here,
        } => dist::dist(Variant::Shipped, here).and_then(|made| {
            package::package(&made, package::VERSION, &dist::dist_dir(Variant::Shipped))
        }),
        Chore::Package {
            package_version,
            into,
        } => {
            let into = into.unwrap_or_else(|| dist::dist_dir(Variant::Shipped));
            package::package(&package::built(), &package_version, &into)
        }
        Chore::Bindings { headers, check } => bindings::bindings(&headers, check),
        Chore::Roots { list, names } => roots::roots(&names, list),
        Chore::ClusterModel { check } => cluster_model::cluster_model(check),
        Chore::Configuration { check } => configuration::configuration(check),
        Chore::Changelog => changelog::changelog(),
        Chore::CiDeny => deny::deny(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
