//! Where this machine's Slurm is: its slurm.conf, and what that says of other
//! places. Discovered once by a command or a hook, and handed down.

use std::path::{Path, PathBuf};

use crate::NodeName;
use crate::conf::{Disk, SlurmConf};

/// Where slurm.conf is looked for: HyperPod's and ParallelCluster's place,
/// RHEL's and Debian's, Debian's former, that of a Slurm built from its sources
/// without a prefix, then what a configless slurmd or client keeps.
const SLURM_CONFS: [&str; 7] = [
    "/opt/slurm/etc/slurm.conf",
    "/etc/slurm/slurm.conf",
    "/etc/slurm-llnl/slurm.conf",
    "/usr/local/etc/slurm.conf",
    "/run/slurm/conf/slurm.conf",
    "/var/spool/slurmd/conf-cache/slurm.conf",
    "/var/lib/slurm/slurmd/conf-cache/slurm.conf",
];

/// The Slurm of this machine.
#[derive(Debug, Clone, Default)]
pub struct Installation {
    /// The slurm.conf that its programs read, if there is one.
    pub slurm_conf: Option<PathBuf>,
    /// What it says; nothing where it cannot be read.
    pub conf: SlurmConf,
    /// Why `conf` says nothing.
    unreadable: Option<String>,
}

impl Installation {
    /// Looks for slurm.conf. One that is named is not looked for elsewhere.
    #[must_use]
    pub fn discover(named: Option<&Path>) -> Self {
        Self::first_of(named, SLURM_CONFS.iter().map(Path::new))
    }

    fn first_of<'a>(named: Option<&Path>, mut usual: impl Iterator<Item = &'a Path>) -> Self {
        let path = match named {
            Some(path) => Some(path).filter(|path| path.is_file()),
            None => usual.find(|path| path.is_file()),
        };
        let mut found = Self {
            slurm_conf: path.map(Path::to_owned),
            ..Self::default()
        };
        match path.map(|path| SlurmConf::read(&Disk, path)) {
            Some(Ok(conf)) => found.conf = conf,
            Some(Err(error)) => found.unreadable = Some(error.to_string()),
            None => found.unreadable = Some("no slurm.conf is found".to_owned()),
        }
        found
    }

    /// `SlurmdSpoolDir` of the node.
    ///
    /// # Errors
    /// It is unknown, for a person. Never read that as Slurm's default.
    pub fn spool_dir(&self, node: &NodeName) -> Result<PathBuf, String> {
        match &self.unreadable {
            Some(reason) => Err(reason.clone()),
            None => self.conf.spool_dir(node),
        }
    }

    /// Where gres.conf or another file beside slurm.conf is, as slurmd reads it:
    /// in a configless node's cache, else beside slurm.conf.
    #[must_use]
    pub fn sister(&self, name: &str, spool: Option<&Path>) -> Option<PathBuf> {
        let cache = spool.map(|spool| spool.join("conf-cache").join(name));
        let beside = self.slurm_conf.as_ref().map(|it| it.with_file_name(name));
        let mut places = [cache, beside].into_iter().flatten();
        places.find(|path| path.is_file())
    }
}

/// The `SLURM_CONF` that slurmd gives to its prolog, epilog and steps. A job's
/// own variables reach a prolog as `SPANK_…` only, so it is not the user's.
#[must_use]
pub fn slurm_conf_of_environment() -> Option<PathBuf> {
    let path = std::env::var_os("SLURM_CONF").map(PathBuf::from);
    path.filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn found(dir: &Path, named: Option<&str>) -> Installation {
        let usual = ["a/slurm.conf", "b/slurm.conf"].map(|name| dir.join(name));
        let named = named.map(|name| dir.join(name));
        Installation::first_of(named.as_deref(), usual.iter().map(PathBuf::as_path))
    }

    fn write(dir: &Path, name: &str, text: &str) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn the_first_usual_place_with_a_file_counts() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "b/slurm.conf", "SlurmdSpoolDir=/s/%n\n");
        let slurm = found(dir.path(), None);
        assert_eq!(slurm.slurm_conf, Some(dir.path().join("b/slurm.conf")));
        let spool = slurm.spool_dir(&"n1".parse().unwrap());
        assert_eq!(spool, Ok("/s/n1".into()));
    }

    #[test]
    fn a_named_file_that_is_missing_is_not_looked_for_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a/slurm.conf", "");
        let slurm = found(dir.path(), Some("gone.conf"));
        assert_eq!(slurm.slurm_conf, None);
    }

    #[test]
    fn without_slurm_conf_the_spool_directory_is_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let spool = found(dir.path(), None).spool_dir(&"n1".parse().unwrap());
        assert_eq!(spool, Err("no slurm.conf is found".to_owned()));
    }

    #[test]
    fn gres_conf_of_a_configless_node_is_the_one_in_its_cache() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a/slurm.conf", "");
        write(dir.path(), "a/gres.conf", "");
        let slurm = found(dir.path(), None);
        let spool = dir.path().join("spool");
        let sister = |spool| slurm.sister("gres.conf", spool);
        assert_eq!(sister(Some(&*spool)), Some(dir.path().join("a/gres.conf")));
        write(dir.path(), "spool/conf-cache/gres.conf", "");
        assert_eq!(
            sister(Some(&*spool)),
            Some(spool.join("conf-cache/gres.conf"))
        );
        assert_eq!(slurm.sister("none.conf", None), None);
    }
}
