//! `gres-helper generate`.

use clap::ValueEnum;
use gpu::settings::Settings;
use gres_helper::generate;
use slurm::NodeName;

use super::machine::wanted;
use super::output::print;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    Gres,
    Slurm,
    Cgroup,
}

pub fn run(
    settings: &Settings,
    node: Option<&NodeName>,
    part: Option<Part>,
    mig: bool,
) -> Result<u8, String> {
    let node = match node {
        Some(node) => node,
        None => settings.named()?,
    };
    let (machine, wanted) = wanted(settings)?;
    if mig && !machine.gpus.iter().any(gpu::inventory::Gpu::in_mig_mode) {
        return Err("no GPU is divided by MIG; `gres-helper mig apply` does so".to_owned());
    }
    let gres = generate::gres_conf(&wanted, node);
    let slurm = generate::slurm_conf(&wanted, node);
    print(&match part {
        Some(Part::Gres) => gres,
        Some(Part::Slurm) => slurm,
        Some(Part::Cgroup) => generate::CGROUP_CONF.to_owned(),
        None => format!(
            "# gres.conf\n{gres}\n# slurm.conf\n{slurm}\n# cgroup.conf\n{}",
            generate::CGROUP_CONF
        ),
    });
    Ok(0)
}
