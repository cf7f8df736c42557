//! The script that runs before the package is removed, on a tree that stands for
//! a node. What `slurm-efa revert` itself does is tested beside it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// A node's files, and programs that write down how they were called.
struct Node {
    root: TempDir,
}

impl Node {
    /// `revert` is what `slurm-efa` does when it is asked to revert.
    fn new(revert: &str) -> Self {
        let node = Self {
            root: tempfile::tempdir().unwrap(),
        };
        node.write("run/systemd/system/units", "");
        node.program(
            "slurm-efa",
            &format!("case \"$*\" in *--help) exit 0;; esac; {revert}"),
        );
        node.program("systemctl", "");
        node
    }

    fn path(&self) -> &Path {
        self.root.path()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn program(&self, name: &str, body: &str) {
        let path = format!("bin/{name}");
        let calls = self.path().join("calls");
        self.write(
            &path,
            &format!(
                "#!/bin/sh\necho \"{name} $*\" >>{}\n{body}\n",
                calls.display()
            ),
        );
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.path().join(path), mode).unwrap();
    }

    /// The package is removed; dpkg and rpm hand `argument` to the script.
    fn removed(&self, argument: &str) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"));
        let script = script.join("../packaging/scripts/before-removal.sh");
        let mut text = fs::read_to_string(script).unwrap();
        for folder in ["etc", "usr/local", "opt", "run", "var"] {
            let here = self.path().join(folder);
            text = text.replace(&format!(" /{folder}/"), &format!(" {}/", here.display()));
        }
        let path = std::env::var("PATH").unwrap();
        Command::new("sh")
            .args(["-c", &text, "sh", argument])
            .env(
                "PATH",
                format!("{}:{path}", self.path().join("bin").display()),
            )
            .output()
            .unwrap()
    }

    /// How the programs were called, without questions.
    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path().join("calls")).unwrap_or_default();
        let calls = calls.lines().filter(|it| !it.ends_with("--help"));
        calls.map(str::to_owned).collect()
    }
}

fn is_refused(output: &Output, reason: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("slurm-efa: not removed") && said.contains(reason),
        "{said}"
    );
}

#[test]
fn a_removal_reverts_all_or_nothing_and_then_stops_the_services() {
    for argument in ["remove", "0"] {
        // 1: all is taken out, and there is something to say.
        for code in [0, 1] {
            let node = Node::new(&format!("exit {code}"));
            let output = node.removed(argument);
            assert!(output.status.success(), "{output:?}");
            let calls = node.calls();
            assert_eq!(calls[0], "slurm-efa revert --all-or-nothing");
            for unit in ["slurm-logoutd.service", "gres-helper-watch.service"] {
                assert!(
                    calls.contains(&format!("systemctl stop {unit}")),
                    "{calls:?}"
                );
                assert!(
                    calls.contains(&format!("systemctl disable {unit}")),
                    "{calls:?}"
                );
            }
        }
    }
}

#[test]
fn where_revert_changes_nothing_the_package_and_its_services_stay() {
    for code in [2, 69, 73] {
        let node = Node::new(&format!("exit {code}"));
        is_refused(&node.removed("remove"), "do what is said above");
        assert_eq!(node.calls(), ["slurm-efa revert --all-or-nothing"]);
    }
}

#[test]
fn without_a_program_that_runs_lines_in_the_way_keep_the_package() {
    for (file, line) in [
        ("etc/pam.d/sshd", "account required pam_slurm_logout.so"),
        ("etc/slurm/slurm.conf", "Prolog=/etc/slurm-efa/prolog.d/*"),
        (
            "etc/nhc/nhc.conf",
            "* || { /usr/sbin/efa-check healthcheck || :; }",
        ),
        (
            "opt/slurm/etc/scripts/prolog.d/50-site",
            "/usr/sbin/efa-check prolog",
        ),
    ] {
        let node = Node::new("");
        node.program("slurm-efa", "exit 127");
        node.write(file, &format!("{line}\n"));
        is_refused(&node.removed("remove"), file);
        assert_eq!(node.calls(), Vec::<String>::new());
        node.write(file, &format!("# {line}\n"));
        assert!(node.removed("remove").status.success(), "{line}");
    }
}

#[test]
fn a_configless_node_whose_controller_still_names_the_package_is_not_reverted() {
    let node = Node::new("exit 0");
    node.write(
        "run/slurm/conf/slurm.conf",
        "Prolog=/etc/slurm-efa/prolog.d/*\n",
    );
    is_refused(
        &node.removed("remove"),
        "the configuration from the controller",
    );
    assert_eq!(node.calls(), Vec::<String>::new());
}

#[test]
fn an_upgrade_reverts_nothing() {
    for argument in ["upgrade", "1", "failed-upgrade"] {
        let node = Node::new("exit 2");
        node.write("etc/slurm/slurm.conf", "Prolog=/etc/slurm-efa/prolog.d/*\n");
        assert!(node.removed(argument).status.success());
        assert_eq!(node.calls(), Vec::<String>::new());
    }
}
