//! Where this node's Slurm keeps what is compared and looked up.

use std::path::{Path, PathBuf};

use gpu::settings::Settings;
use slurm::conf::{Disk, GresConf};
use slurm::installation;
use slurm::{Installation, NodeName};

/// What `spool_dir` of `[gres]` is unless the site sets it: Slurm's default.
const USUAL_SPOOL: &str = "/var/spool/slurmd";

/// Where the running gres.conf lies: the site's word, a configless node's
/// cache, beside slurm.conf, the distributions' place.
#[must_use]
pub fn gres_conf_path(configured: Option<&Path>, settings: &Settings) -> PathBuf {
    if let Some(path) = configured {
        return path.to_owned();
    }
    let slurm = slurm();
    let node = settings.node.as_ref();
    let spool = node.map(|node| spool_dir(settings, &slurm, node));
    slurm
        .sister("gres.conf", spool.as_deref())
        .unwrap_or_else(|| PathBuf::from("/etc/slurm/gres.conf"))
}

/// The running gres.conf, if it can be read.
#[must_use]
pub fn running_gres_conf(settings: &Settings) -> Option<GresConf> {
    let path = gres_conf_path(settings.gres.gres_conf.as_deref(), settings);
    GresConf::read(&Disk, &path, settings.node.as_ref()?).ok()
}

/// The Slurm of this machine. `watch` may start before slurmd has its files, so
/// it is asked for whenever something is looked up.
#[must_use]
pub fn slurm() -> Installation {
    Installation::discover(installation::slurm_conf_of_environment().as_deref())
}

/// Where the sockets of the node's steps lie: the site's own place, else what
/// slurm.conf says. Where nobody knows, a place without any, so that no job
/// counts as gone.
#[must_use]
pub fn spool_dir(settings: &Settings, slurm: &Installation, node: &NodeName) -> PathBuf {
    if settings.spool_dir != Path::new(USUAL_SPOOL) {
        return settings.spool_dir.clone();
    }
    let spool = slurm.spool_dir(node);
    spool.unwrap_or_else(|_| PathBuf::from("/nonexistent"))
}
