//! Where this node's Slurm keeps what is compared and looked up.

use std::path::{Path, PathBuf};

use gpu::settings::Settings;
use slurm::conf::{Disk, GresConf};
use slurm::installation;
use slurm::{Installation, NodeName};

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
    let configured = settings.spool_dir.clone().map(Ok);
    let spool = configured.unwrap_or_else(|| slurm.spool_dir(node));
    spool.unwrap_or_else(|_| PathBuf::from("/nonexistent"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the sockets lie, by this `[gres]` and slurm.conf.
    fn spool(gres: &str, slurm_conf: &str) -> PathBuf {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("slurm.conf");
        std::fs::write(&path, slurm_conf).unwrap();
        let node: NodeName = "n1".parse().unwrap();
        let config = config::parse(&format!("[gres]\n{gres}\n"), &path).unwrap();
        let settings = Settings::of(&config, Some(node.clone())).unwrap();
        spool_dir(&settings, &Installation::discover(Some(&path)), &node)
    }

    #[test]
    fn a_spool_directory_that_the_site_names_wins_even_if_it_is_slurms_default() {
        let conf = "SlurmdSpoolDir=/spool/%n\n";
        let default = "spool_dir = '/var/spool/slurmd'";
        assert_eq!(spool("", conf), Path::new("/spool/n1"));
        assert_eq!(spool(default, conf), Path::new("/var/spool/slurmd"));
        assert_eq!(spool("spool_dir = '/s/%n'", conf), Path::new("/s/n1"));
    }

    #[test]
    fn where_nobody_knows_the_spool_directory_no_job_is_looked_for() {
        let unknown = spool("", "SlurmdSpoolDir=/spool/%x\n");
        assert_eq!(unknown, Path::new("/nonexistent"));
    }
}
