//! The programs that slurmd runs: prologs, epilogs and the health check.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cli::called;
use cluster::Role;
use slurm::conf::{Disk, glob};

use super::look::{Look, REINSTALL, SETUP, SETUP_CONTROLLER, fatal, shown, unknown, warning};
use crate::setup::discover::Site;
use crate::setup::files::{self, Content};
use crate::setup::nhc;
use crate::setup::parts::Parts;
use crate::setup::paths;
use crate::setup::prologs;
use crate::setup::wrapper::Wrapper;

pub(super) fn program_key(site: &Site, key: &str, folder: &str) -> Look {
    let values = site.slurm.conf.values(key);
    let counted: &[&str] = if prologs::takes_several(site) {
        &values
    } else {
        values.last().map_or(&[], std::slice::from_ref)
    };
    let ours = site.place_text(folder);
    if counted.iter().any(|it| it.starts_with(&ours)) {
        return Ok(format!("{key}={ours}/*"));
    }
    let seen = values.join(", ");
    if seen.is_empty() {
        return fatal(format!("there is no {key}"), SETUP_CONTROLLER);
    }
    let parts = Parts::recorded(site).unwrap_or(Parts::ALL);
    if prologs::runs_ours(site, key, folder, parts) {
        return Ok(format!("{key}={seen} runs slurm-efa's programs"));
    }
    let lacking = format!("{key}={seen} does not run slurm-efa's programs");
    match prologs::their_folder(site, key, folder) {
        // Nodes have their own.
        Some(theirs) if site.role() != Ok(Role::Compute) && !Path::new(&theirs.path).is_dir() => {
            Ok(format!("{key}={seen}, which is not on this node"))
        }
        Some(theirs) if site.is_shared(Path::new(&theirs.path)) => {
            warning(lacking, SETUP_CONTROLLER)
        }
        Some(_) => warning(lacking, SETUP),
        None => warning(
            lacking,
            format!("add to it: {}", prologs::line_for_script(&ours)),
        ),
    }
}

pub(super) fn health_check(site: &Site) -> Look {
    let program = site
        .slurm
        .conf
        .value("HealthCheckProgram")
        .unwrap_or_default();
    let interval = site
        .slurm
        .conf
        .value("HealthCheckInterval")
        .unwrap_or_default();
    if program.is_empty() {
        return fatal("there is no HealthCheckProgram", SETUP_CONTROLLER);
    }
    if called::EFA_CHECK.is_old_link(program.as_ref()) {
        return warning(
            format!(
                "HealthCheckProgram={program} is the old name of {}, which the next release will \
                 not have",
                paths::HEALTHCHECK
            ),
            "run `slurm-efa setup` on each node, then on the controller; a line that setup did not \
             write must be changed by hand",
        );
    }
    if nhc::is_nhc(program) {
        return health_check_of_nhc(site, program, interval);
    }
    if program != site.place_text(paths::HEALTHCHECK) {
        return warning(
            format!("HealthCheckProgram={program} is not ours"),
            format!("have it run {}", paths::HEALTHCHECK),
        );
    }
    if interval.parse::<u32>().unwrap_or_default() == 0 {
        return fatal(
            "HealthCheckInterval is 0, so it never runs",
            SETUP_CONTROLLER,
        );
    }
    Ok(format!("{program} every {interval} s"))
}

/// NHC is Slurm's health check, and calls ours by a line of its configuration.
fn health_check_of_nhc(site: &Site, program: &str, interval: &str) -> Look {
    if interval.parse::<u32>().unwrap_or_default() == 0 {
        return warning(
            format!("HealthCheckInterval is 0, so {program} never runs, nor efa-check"),
            "set HealthCheckInterval where HealthCheckProgram is set",
        );
    }
    let calls = format!("{program} every {interval} s, which calls efa-check by nhc.conf");
    if site.role() != Ok(Role::Compute) {
        // Only nodes with jobs have the line.
        return Ok(calls);
    }
    let conf = site.place(paths::NHC_CONF);
    match files::read(&conf) {
        Ok((_, Content::Text(text))) if nhc::calls_ours(&text) => Ok(calls),
        Ok((_, Content::Text(_))) => warning(
            format!(
                "{program} does not call efa-check: {} has no line for it",
                shown(&conf)
            ),
            SETUP,
        ),
        _ => unknown(
            format!(
                "{program} may not call efa-check: {} cannot be read",
                shown(&conf)
            ),
            SETUP,
        ),
    }
}

/// The link that slurmd runs here: until the controller is set up again, that of
/// the last release.
pub(super) fn health_link(site: &Site) -> &'static str {
    let old = site.place_text(paths::OLD_HEALTHCHECK);
    match site.slurm.conf.value("HealthCheckProgram") {
        Some(program) if program == old => paths::OLD_HEALTHCHECK,
        _ => paths::HEALTHCHECK,
    }
}

pub(super) fn executable(path: &Path) -> Look {
    match fs::metadata(path) {
        Ok(meta) if !meta.is_file() => fatal(format!("{} is no file", shown(path)), SETUP),
        Ok(meta) if meta.permissions().mode() & 0o100 == 0 => fatal(
            format!("{} cannot be executed", shown(path)),
            format!("chmod 755 {}", shown(path)),
        ),
        Ok(_) => match files::program(path) {
            Content::Script(text) => match Wrapper::of(&text, "") {
                Some(wrapper) => executable(&wrapper.program).map(|_| shown(path)),
                None => Ok(shown(path)),
            },
            _ => Ok(shown(path)),
        },
        Err(error) => missing(path, &error),
    }
}

/// A link that setup makes, or what it leads to.
fn missing(path: &Path, error: &io::Error) -> Look {
    match fs::read_link(path) {
        Ok(program) => fatal(
            format!("{} leads to {}: {error}", shown(path), shown(&program)),
            REINSTALL,
        ),
        Err(_) if path.to_string_lossy().contains("/etc/slurm-efa/") => {
            fatal(format!("{}: {error}", shown(path)), SETUP)
        }
        Err(_) => fatal(format!("{}: {error}", shown(path)), REINSTALL),
    }
}

/// Every program of a folder runs, and one that fails drains the node; so does a
/// pattern that matches none.
pub(super) fn folder(site: &Site, folder: &str, needed: &[String], remedy: &str) -> Look {
    let place = site.place(folder);
    let names = |entry: fs::DirEntry| entry.file_name().into_string().ok();
    let entries = fs::read_dir(&place).into_iter().flatten().flatten();
    let mut found: Vec<String> = entries.filter_map(names).collect();
    found.retain(|name| !name.starts_with('.'));
    found.sort();
    if let Some(missing) = needed.iter().find(|name| !found.contains(name)) {
        let why = match missing.starts_with(called::SLURM_EFA_JOB.name) {
            true => {
                ". Without it no job gets hugepages, and none is reported as a whole at its end"
            }
            false => "",
        };
        let missing = format!("{missing} is missing in {}{why}", shown(&place));
        return fatal(missing, remedy);
    }
    if found.is_empty() {
        return fatal(format!("there is no program in {}", shown(&place)), remedy);
    }
    for name in &found {
        executable(&place.join(name))?;
    }
    Ok(format!("{}: {}", shown(&place), found.join(", ")))
}

/// Prologs and epilogs of others: one that is missing drains the node, too.
pub(super) fn others(site: &Site) -> Look {
    let (prologs, epilogs) = (
        site.place_text(paths::PROLOGS),
        site.place_text(paths::EPILOGS),
    );
    let mut seen = Vec::new();
    for key in ["Prolog", "Epilog"] {
        for value in site.slurm.conf.values(key) {
            if value.starts_with(&prologs) || value.starts_with(&epilogs) {
                continue;
            }
            let folder = site.slurm.slurm_conf.as_deref().and_then(Path::parent);
            let folder = folder.unwrap_or(Path::new("/"));
            let mut programs = glob::matching(&Disk, folder, value).unwrap_or_default();
            programs.retain(|program| program.is_file());
            if programs.is_empty() {
                return fatal(
                    format!(
                        "{key}={value} matches nothing here, which drains the node with the next job"
                    ),
                    "install it here, or correct slurm.conf",
                );
            }
            for program in programs {
                executable(&program)?;
                seen.push(shown(&program));
            }
        }
    }
    Ok(if seen.is_empty() {
        "none".to_owned()
    } else {
        seen.join(", ")
    })
}
