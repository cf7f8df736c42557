//! Slurm's programs: where they are, found without the environment, and
//! whether root may run them.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use host::exec::{self, ExecError};
use host::trust::TrustedProgram;

/// Where programs are looked for: ParallelCluster's and HyperPod's place, what
/// was built by hand, then packages.
pub const FOLDERS: [&str; 10] = [
    "/opt/slurm/bin",
    "/opt/slurm/sbin",
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/local/slurm/sbin",
    "/usr/local/slurm/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// One of Slurm's programs that this suite runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// For administrators' questions and changes.
    Scontrol,
    /// The client that starts steps.
    Srun,
    /// For slurmdbd's accounts.
    Sacctmgr,
    /// The daemon of a node.
    Slurmd,
    /// The daemon of a controller.
    Slurmctld,
}

impl Program {
    const COUNT: usize = 5;

    /// Its file's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scontrol => "scontrol",
            Self::Srun => "srun",
            Self::Sacctmgr => "sacctmgr",
            Self::Slurmd => "slurmd",
            Self::Slurmctld => "slurmctld",
        }
    }
}

/// Why a program of Slurm is not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// It is in none of the places.
    #[error("there is no {name} in any of {}", FOLDERS.join(", "))]
    Missing {
        /// Its file's name.
        name: &'static str,
    },
    /// Others than root could have put it there.
    #[error(transparent)]
    Refused(#[from] ExecError),
}

/// Slurm's programs of one installation. Each is looked for once.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    slurm_conf: Option<PathBuf>,
    found: [OnceLock<Option<PathBuf>>; Program::COUNT],
}

impl Programs {
    /// Those of the Slurm that this slurm.conf belongs to.
    #[must_use]
    pub fn beside(slurm_conf: Option<&Path>) -> Self {
        Self {
            slurm_conf: slurm_conf.map(Path::to_owned),
            found: Default::default(),
        }
    }

    /// Where a program is, whether or not root may run it.
    #[must_use]
    pub fn find(&self, program: Program) -> Option<&Path> {
        let search = || find(program.name(), self.slurm_conf.as_deref());
        self.found[program as usize].get_or_init(search).as_deref()
    }

    /// A program that [`host::trust`] believes.
    ///
    /// # Errors
    /// See [`ProgramError`].
    pub fn trusted(&self, program: Program) -> Result<TrustedProgram, ProgramError> {
        let name = program.name();
        let path = self.find(program).ok_or(ProgramError::Missing { name })?;
        Ok(exec::program(path)?)
    }
}

/// Where a program of this name is, Slurm's or another: first beside the
/// slurm.conf, since the one in `/opt/slurm-24.11/etc` has its programs in
/// `/opt/slurm-24.11/bin`.
#[must_use]
pub fn find(name: &str, slurm_conf: Option<&Path>) -> Option<PathBuf> {
    let folder = slurm_conf.and_then(Path::parent);
    // Any other place says nothing about programs.
    let prefix = folder
        .filter(|it| it.ends_with("etc"))
        .and_then(Path::parent);
    let own = prefix
        .into_iter()
        .flat_map(|prefix| [prefix.join("bin"), prefix.join("sbin")]);
    own.chain(FOLDERS.iter().map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    const ALL: [Program; Program::COUNT] = [
        Program::Scontrol,
        Program::Srun,
        Program::Sacctmgr,
        Program::Slurmd,
        Program::Slurmctld,
    ];

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A Slurm with every program, by its slurm.conf.
    fn slurm() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["etc", "bin", "sbin"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
            set_mode(&dir.path().join(folder), 0o755);
        }
        for program in ALL {
            let path = dir.path().join("bin").join(program.name());
            fs::write(&path, "#!/bin/sh\n").unwrap();
            set_mode(&path, 0o755);
        }
        let conf = dir.path().join("etc/slurm.conf");
        (dir, conf)
    }

    #[test]
    fn programs_are_those_beside_slurm_conf() {
        let (dir, conf) = slurm();
        let programs = Programs::beside(Some(&conf));
        for program in ALL {
            let path = dir.path().join("bin").join(program.name());
            assert_eq!(programs.find(program), Some(&*path));
            assert_eq!(programs.trusted(program).unwrap().named(), path);
        }
    }

    #[test]
    fn a_program_of_slurm_that_others_may_change_is_refused() {
        let (dir, conf) = slurm();
        for program in ALL {
            let programs = Programs::beside(Some(&conf));
            let path = dir.path().join("bin").join(program.name());
            for spoilt in [&path, &dir.path().join("bin"), dir.path()] {
                set_mode(spoilt, 0o777);
                let reason = programs.trusted(program).unwrap_err().to_string();
                assert!(reason.contains("not run, because "), "{reason}");
                assert!(reason.contains("chmod go-w"), "{reason}");
                set_mode(spoilt, 0o755);
            }
            assert!(programs.trusted(program).is_ok());
        }
    }
}
