//! Where this machine's Slurm is: its slurm.conf, what that says of other
//! places, and its programs. Discovered once by a command or a hook, and handed
//! down.
//!
//! slurm.conf may lie on a file system that hangs. So a login never discovers:
//! it looks at [`USUAL_SPOOLS`].

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use host::exec::Call;

use crate::conf::{Disk, SlurmConf};
use crate::programs::{self, Program, ProgramError, Programs};
use crate::{NodeName, Release, node_name};

/// Where slurmd's spool directory is on a node whose slurm.conf is not asked:
/// Slurm's own default and Debian's.
pub const USUAL_SPOOLS: [&str; 2] = ["/var/spool/slurmd", "/var/lib/slurm/slurmd"];

/// How long a program may take to report its release.
const RELEASE_LIMIT: Duration = Duration::from_secs(30);

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
    /// Slurm's name of this node, if its process or the machine has one.
    pub node: Option<NodeName>,
    /// Its programs.
    pub programs: Programs,
    /// Why `conf` says nothing.
    unreadable: Option<String>,
    release: OnceLock<Option<Release>>,
}

impl Installation {
    /// Looks for slurm.conf. One that is named is not looked for elsewhere.
    #[must_use]
    pub fn discover(named: Option<&Path>) -> Self {
        Self::first_of(named, SLURM_CONFS.iter().map(Path::new))
    }

    /// One that is known already: by its slurm.conf, what that says, and the
    /// release of its programs.
    #[must_use]
    pub fn known(slurm_conf: PathBuf, conf: SlurmConf, release: Option<Release>) -> Self {
        Self {
            programs: Programs::beside(Some(&slurm_conf)),
            slurm_conf: Some(slurm_conf),
            conf,
            release: OnceLock::from(release),
            ..Self::default()
        }
    }

    fn first_of<'a>(named: Option<&Path>, mut usual: impl Iterator<Item = &'a Path>) -> Self {
        let path = match named {
            Some(path) => Some(path).filter(|path| path.is_file()),
            None => usual.find(|path| path.is_file()),
        };
        let mut found = Self {
            slurm_conf: path.map(Path::to_owned),
            programs: Programs::beside(path),
            node: node_name::of_this_process(),
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

    /// Why nothing is known of what slurm.conf says.
    #[must_use]
    pub fn unreadable(&self) -> Option<&str> {
        self.unreadable.as_deref()
    }

    /// The folder of the files that slurmd of a configless node got from its
    /// controller.
    ///
    /// # Errors
    /// As [`Installation::spool_dir`].
    pub fn conf_cache(&self, node: &NodeName) -> Result<PathBuf, String> {
        Ok(self.spool_dir(node)?.join("conf-cache"))
    }

    /// A program of this Slurm, about to be run with this slurm.conf.
    ///
    /// # Errors
    /// There is none, or none that root may believe.
    pub fn call(&self, program: Program) -> Result<Call, ProgramError> {
        let call = Call::of(&self.programs.trusted(program)?);
        let call = call.env("PATH", programs::FOLDERS.join(":"));
        Ok(match &self.slurm_conf {
            Some(path) => call.env("SLURM_CONF", path),
            None => call,
        })
    }

    /// The release of the programs, which are asked once: for a command only,
    /// since they may take their time.
    #[must_use]
    pub fn release(&self) -> Option<Release> {
        let ask = |program, option| {
            let said = self.call(program).ok()?.arg(option).run(RELEASE_LIMIT);
            Release::parse(&said.ok()?.stdout)
        };
        // The daemons report it without a slurm.conf (20.11 to 26.05), the
        // clients only with one.
        *self.release.get_or_init(|| {
            ask(Program::Slurmd, "-V")
                .or_else(|| ask(Program::Slurmctld, "-V"))
                .or_else(|| ask(Program::Scontrol, "--version"))
        })
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
    use std::os::unix::fs::PermissionsExt;

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

    /// A Slurm whose daemon reports `text`, and a slurm.conf of its own.
    fn reporting(dir: &Path, text: &str) -> Installation {
        write(dir, "etc/slurm.conf", "");
        write(dir, "sbin/slurmd", &format!("#!/bin/sh\n{text}\n"));
        for (path, mode) in [("sbin", 0o755), ("sbin/slurmd", 0o755)] {
            fs::set_permissions(dir.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        Installation::discover(Some(&dir.join("etc/slurm.conf")))
    }

    #[test]
    fn the_release_is_that_of_the_programs_beside_slurm_conf() {
        let dir = tempfile::tempdir().unwrap();
        let slurm = reporting(dir.path(), "echo slurm 23.02.7");
        assert_eq!(slurm.release(), Some(Release::new(23, 2)));
        fs::remove_file(dir.path().join("sbin/slurmd")).unwrap();
        assert_eq!(slurm.release(), Some(Release::new(23, 2)));
    }

    #[test]
    fn a_program_is_run_with_the_slurm_conf_that_was_discovered() {
        let dir = tempfile::tempdir().unwrap();
        let slurm = reporting(dir.path(), "echo $SLURM_CONF");
        let call = slurm.call(Program::Slurmd).unwrap();
        let said = call.run(Duration::from_secs(20)).unwrap();
        let conf = dir.path().join("etc/slurm.conf");
        assert_eq!(said.stdout, format!("{}\n", conf.display()));
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
