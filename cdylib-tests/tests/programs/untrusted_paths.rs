//! Every program refuses a configuration and a state directory that others may
//! write, by the one rule of `host::trust`. The programs and libraries that it
//! would run are tested where they are run: `lib/slurm/src/programs.rs`,
//! `gres-helper/tests/mock.rs`, `spank-gres`, `efa-check/tests/simulated`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cdylib_tests::modules::program;

/// Each program, with a command that needs the configuration.
const CONFIGURED: [&[&str]; 8] = [
    &["efa-check", "node"],
    &["efa-check", "healthcheck"],
    &["gres-helper", "status"],
    &["slurm-efa", "report", "1"],
    &["slurm-efa", "reconcile"],
    &["slurm-efa", "doctor"],
    &["slurm-logout", "status"],
    &["slurm-logoutd"],
];

/// Those that use the state directory.
const WITH_STATE: [&[&str]; 5] = [
    &["efa-check", "node"],
    &["slurm-efa", "reconcile"],
    &["slurm-efa", "doctor"],
    &["slurm-logout", "status"],
    &["slurm-logoutd"],
];

/// `etc/slurm-efa.toml` and `run/state` of a site of its own.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["etc", "run", "run/state"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
            set_mode(&dir.path().join(folder), 0o755);
        }
        let state = dir.path().join("run/state");
        let text = format!("state_dir = \"{}\"\n", state.display());
        let site = Self { dir };
        fs::write(site.path("etc/slurm-efa.toml"), text).unwrap();
        set_mode(&site.path("etc/slurm-efa.toml"), 0o644);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The exit code of a program with this configuration, and all it printed.
    fn run(&self, words: &[&str]) -> (Option<i32>, String) {
        let output = Command::new("timeout")
            .arg("60")
            .arg(program(words[0]))
            .args(&words[1..])
            .arg("--config")
            .arg(self.path("etc/slurm-efa.toml"))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Each of these paths, written by others in turn, is refused with advice.
fn assert_refused(programs: &[&[&str]], spoilt: &[&str]) {
    let site = Site::new();
    for words in programs {
        for name in spoilt {
            let path = fs::canonicalize(site.path(name)).unwrap();
            let before = fs::metadata(&path).unwrap().permissions();
            set_mode(&path, 0o777);
            let (code, text) = site.run(words);
            assert!(
                code.is_some_and(|code| code != 0 && code != 124),
                "{words:?}: {text}"
            );
            let advice = format!("chmod go-w {}", path.display());
            assert!(text.contains(&advice), "{words:?}, {name}: {text}");
            fs::set_permissions(&path, before).unwrap();
        }
    }
}

#[test]
fn every_program_refuses_a_configuration_that_others_may_write() {
    assert_refused(&CONFIGURED, &["etc/slurm-efa.toml"]);
}

#[test]
fn every_program_refuses_a_configuration_below_a_folder_that_others_may_write() {
    assert_refused(&CONFIGURED, &["etc", "."]);
}

#[test]
fn every_program_refuses_a_state_directory_that_others_may_write() {
    assert_refused(&WITH_STATE, &["run/state"]);
}

#[test]
fn every_program_refuses_a_state_directory_below_a_folder_that_others_may_write() {
    assert_refused(&WITH_STATE, &["run"]);
}
