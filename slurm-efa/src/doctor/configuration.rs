//! slurm-efa.toml.

use findings::Findings;

use crate::configuration::check;
use crate::setup::discover::Site;
use cluster::Role;

/// A finding for each mistake, or one that there is none. The folders that the
/// file names are looked for on compute nodes: only they use them.
pub(super) fn configuration(site: &Site) -> Findings {
    let mut findings = site.mistakes.clone();
    if let Ok(config) = &site.config {
        if site.role() == Ok(Role::Compute) {
            findings.0.extend(check::places(config, None).0);
        }
        if findings.0.is_empty() {
            findings.0.push(check::nothing(&config.path));
        }
    }
    findings
}
