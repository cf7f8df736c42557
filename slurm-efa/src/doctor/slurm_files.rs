//! Slurm itself, and its slurm.conf.

use super::look::{Look, SETUP_CONTROLLER, fatal, shown, unknown, warning};
use crate::setup::discover::Site;
use crate::setup::run;

pub(super) fn slurm(site: &Site) -> Look {
    let Some((year, month)) = site.release else {
        return fatal(
            "neither slurmd nor scontrol says its release",
            "install Slurm, or look on another node",
        );
    };
    let conf = site.slurm_conf.as_deref().map(shown);
    let Some(conf) = conf else {
        return fatal(
            "no slurm.conf is found, nor a configless node's copy",
            "start slurmd, or name the file with --slurm-conf",
        );
    };
    Ok(format!("{year}.{month:02}, {conf}"))
}

pub(super) fn slurm_conf(site: &Site) -> Look {
    let Some(scontrol) = site.program("scontrol") else {
        return unknown("there is no scontrol", "install Slurm's client programs");
    };
    match run::run(
        &scontrol,
        &["show", "hostnames", "n1"],
        site.slurm_conf.as_deref(),
    ) {
        Ok(ran) if ran.success() => Ok("Slurm's own programs take it".to_owned()),
        Ok(ran) => fatal(
            run::complaint(&ran),
            "correct the line; every Slurm command fails until then",
        ),
        Err(error) => unknown(error, "look again"),
    }
}

pub(super) fn prolog_flags(site: &Site) -> Look {
    let flags = site.conf.value("PrologFlags").unwrap_or_default();
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
