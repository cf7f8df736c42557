//! `slurm-efa revert --all-or-nothing`, which removal of the package runs. As root,
//! on a tree that stands for a node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const MARKED: &str = "optional /usr/lib/slurm-efa/spank_efa.so # slurm-efa\n";

/// A controller that was set up, without Slurm's programs.
fn node() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("etc/slurm/slurm.conf", "ClusterName=c\nSlurmctldHost=h\n");
    write("etc/slurm/plugstack.conf", MARKED);
    write("etc/pam.d/su", "auth required pam_unix.so\n");
    root
}

fn plugstack(root: &Path) -> PathBuf {
    root.join("etc/slurm/plugstack.conf")
}

fn revert(root: &Path, options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_slurm-efa"))
        .args([
            "revert",
            "--role",
            "controller",
            "--no-reconfigure",
            "--root",
        ])
        .arg(root)
        .arg("--slurm-conf")
        .arg(root.join("etc/slurm/slurm.conf"))
        .args(options)
        .output()
        .unwrap()
}

#[test]
fn as_root_a_file_in_the_way_is_named_and_nothing_is_changed() {
    let root = node();
    let site = root.path().join("etc/pam.d/su");
    fs::write(
        &site,
        "auth required pam_unix.so\naccount required pam_slurm_logout.so\n",
    )
    .unwrap();
    let output = revert(root.path(), &["--all-or-nothing"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    let line = format!("{}: line 2 names a file of slurm-efa", site.display());
    assert!(
        said.contains(&line) && said.contains("nothing was changed"),
        "{said}"
    );
    assert_eq!(fs::read_to_string(plugstack(root.path())).unwrap(), MARKED);

    fs::write(&site, "auth required pam_unix.so\n").unwrap();
    let output = revert(root.path(), &["--all-or-nothing"]);
    assert!(
        output.status.code().is_some_and(|code| code < 2),
        "{output:?}"
    );
    let left = fs::read_to_string(plugstack(root.path())).unwrap_or_default();
    assert_eq!(left, "");
}

#[test]
fn as_root_a_revert_by_hand_takes_out_its_own_lines_whatever_else_is_there() {
    let root = node();
    fs::write(
        root.path().join("etc/pam.d/su"),
        "account required pam_slurm_logout.so\n",
    )
    .unwrap();
    let output = revert(root.path(), &[]);
    assert!(
        output.status.code().is_some_and(|code| code < 2),
        "{output:?}"
    );
    assert_eq!(
        fs::read_to_string(plugstack(root.path())).unwrap_or_default(),
        ""
    );
}
