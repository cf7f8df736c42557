//! Slurm itself, and its slurm.conf.

use slurm::Program;

use super::look::{Look, SETUP_CONTROLLER, fatal, shown, unknown, warning};
use crate::setup::discover::Site;
use crate::setup::run;

pub(super) fn slurm(site: &Site) -> Look {
    let Some(release) = site.slurm.release() else {
        return fatal(
            "neither slurmd nor scontrol says its release",
            "install Slurm, or look on another node",
        );
    };
    let conf = site.slurm.slurm_conf.as_deref().map(shown);
    let Some(conf) = conf else {
        return fatal(
            "no slurm.conf is found, nor a configless node's copy",
            "start slurmd, or name the file with --slurm-conf",
        );
    };
    Ok(format!("{release}, {conf}"))
}

pub(super) fn slurm_conf(site: &Site) -> Look {
    if site.slurm.programs.find(Program::Scontrol).is_none() {
        return unknown("there is no scontrol", "install Slurm's client programs");
    }
    match run::slurms(site, Program::Scontrol, &["show", "hostnames", "n1"]) {
        Ok(ran) if ran.success() => Ok("Slurm's own programs take it".to_owned()),
        Ok(ran) => fatal(
            run::complaint(&ran),
            "correct the line; every Slurm command fails until then",
        ),
        Err(error) => unknown(error, "look again"),
    }
}

pub(super) fn prolog_flags(site: &Site) -> Look {
    let flags = site.slurm.conf.value("PrologFlags").unwrap_or_default();
    let has = |wanted: &str| {
        flags
            .split(',')
            .any(|it| it.trim().eq_ignore_ascii_case(wanted))
    };
    if has("Alloc") || has("Contain") || has("X11") {
        return Ok(format!("PrologFlags={flags}"));
    }
    warning(
        format!(
            "PrologFlags={flags} has neither Alloc nor Contain: the prolog runs with the first step only"
        ),
        SETUP_CONTROLLER,
    )
}
