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

/// Whether doctor has read all of slurm.conf and plugstack.conf: what the others find
/// depends on it.
pub(super) fn read_whole(site: &Site) -> Look {
    if let Some(reason) = site.slurm.unreadable() {
        return unknown(
            format!("{reason}; so what slurm.conf says is not known"),
            "make it a file that root can read; what generates it may have failed",
        );
    }
    let conf = &site.slurm.conf;
    // One that cannot be read at all is another finding's.
    let stack = super::plugin::read_plugstack(site).ok();
    let mut includes = conf.includes.len();
    let mut problems: Vec<String> = conf.problems.iter().map(ToString::to_string).collect();
    if let Some((_, stack)) = stack {
        includes += stack.includes.len();
        problems.extend(stack.problems.iter().map(ToString::to_string));
    }
    match problems.as_slice() {
        [] => Ok(format!(
            "slurm.conf, plugstack.conf and {includes} includes were read"
        )),
        [first, others @ ..] => {
            let others = match others.len() {
                0 => String::new(),
                count => format!(" ({count} more like it)"),
            };
            unknown(
                format!("{first}{others}; so what it includes is not known"),
                "correct that line, or what it includes",
            )
        }
    }
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
