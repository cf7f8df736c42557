//! Programs of others, which root runs only where [`host::trust`] believes them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use host::exec::{Call, Said};
use host::printable;

/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Where programs are looked for: root's environment is not asked.
const FOLDERS: [&str; 8] = [
    "/opt/slurm/bin",
    "/opt/slurm/sbin",
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// Its last complaint, for a sentence.
#[must_use]
pub fn complaint(said: &Said) -> String {
    let mut lines = said.stderr.lines().filter(|line| !line.trim().is_empty());
    match lines.next_back() {
        Some(line) => printable(line, 300),
        None => match said.status.and_then(|status| status.code()) {
            Some(code) => format!("exit code {code}"),
            None => format!("it was ended by a signal or after {} s", LIMIT.as_secs()),
        },
    }
}

/// Where a program is, looked for first beside the configuration of Slurm: that
/// in `/opt/slurm-24.11/etc` has its programs in `/opt/slurm-24.11/bin`.
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

/// Runs a program to its end.
///
/// # Errors
/// Others may change it, or it cannot be started; for a person.
pub fn run(program: &Path, arguments: &[&str], slurm_conf: Option<&Path>) -> Result<Said, String> {
    let call = || {
        let call = Call::to(program)?
            .args(arguments)
            .env("PATH", FOLDERS.join(":"));
        match slurm_conf {
            Some(path) => call.env("SLURM_CONF", path),
            None => call,
        }
        .run(LIMIT)
    };
    call().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn as_root_a_program_of_slurm_that_others_may_change_is_not_run() {
        for name in ["srun", "scontrol", "slurmd"] {
            let dir = tempfile::tempdir().unwrap();
            for folder in ["etc", "bin"] {
                fs::create_dir(dir.path().join(folder)).unwrap();
                set_mode(&dir.path().join(folder), 0o755);
            }
            let conf = dir.path().join("etc/slurm.conf");
            let program = dir.path().join("bin").join(name);
            fs::write(&program, "#!/bin/sh\necho $SLURM_CONF $1\n").unwrap();
            set_mode(&program, 0o755);
            let found = find(name, Some(&conf)).unwrap();
            assert_eq!(found, program);
            let said = run(&found, &["--help"], Some(&conf)).unwrap();
            assert_eq!(said.stdout, format!("{} --help\n", conf.display()));
            let folder = program.parent().unwrap();
            for spoilt in [program.as_path(), folder, dir.path()] {
                set_mode(spoilt, 0o777);
                let reason = run(&found, &["--help"], Some(&conf)).unwrap_err();
                assert!(reason.contains("not run, because "), "{reason}");
                assert!(reason.contains("chmod go-w"), "{reason}");
                set_mode(spoilt, 0o755);
            }
            std::os::unix::fs::chown(folder, Some(20_001), None).unwrap();
            let reason = run(&found, &["--help"], Some(&conf)).unwrap_err();
            assert!(reason.contains("uid 20001"), "{reason}");
        }
    }
}
