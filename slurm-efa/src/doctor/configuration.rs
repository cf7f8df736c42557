//! slurm-efa.toml.

use host::state_dir::StateDir;

use super::look::{Look, fatal, shown, warning};
use crate::setup::discover::Site;
use cluster::Role;

pub(super) fn configuration(site: &Site) -> Look {
    let config = match &site.config {
        Ok(config) => config,
        Err(error) => {
            return fatal(
                error.clone(),
                "correct the file; until then jobs that ask for a profile are refused",
            );
        }
    };
    let problems = site.config_problems();
    if !problems.is_empty() {
        return fatal(
            problems.join("; "),
            "correct the file; until then the programs that read these keys refuse it",
        );
    }
    if let Some(problem) = report_folder(site, config) {
        return warning(
            problem,
            "make the folder, or mount it, so that only root may write it; until then records of \
             jobs are only in the node's log",
        );
    }
    if !config.warnings.is_empty() {
        let warnings = config.warnings.iter().map(ToString::to_string);
        return warning(
            warnings.collect::<Vec<_>>().join("; "),
            "write the new spelling before the next release is installed",
        );
    }
    Ok(shown(&config.path))
}

/// Why the site's folder of records cannot be used on this node. Only compute
/// nodes write there.
fn report_folder(site: &Site, config: &config::Config) -> Option<String> {
    if site.role() != Ok(Role::Compute) {
        return None;
    }
    let settings = config::sections::report::Settings::of(config).ok()?;
    // One that depends on the node's name is not looked for.
    let folder = settings.folder(None).ok()??;
    let reason = match StateDir::open_existing(&folder) {
        Ok(Some(_)) => return None,
        Ok(None) => "there is no such folder".to_owned(),
        Err(error) => error.to_string(),
    };
    let (key, line) = match config.line_of(&["report", "dir"]) {
        Some(line) => ("[report] `dir`", line),
        None => ("`report_dir`", config.line_of(&["report_dir"])?),
    };
    let (path, folder) = (shown(&config.path), shown(&folder));
    Some(format!("{path}:{line}: {key}: {folder}: {reason}"))
}
