//! The program on simulated nodes, as a prolog, a health check or a person
//! would call it.

mod commands;
mod defects;
mod mutations;
mod rebind;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cdylib_tests::simnode::{SimNode, Spec};
use cdylib_tests::stuck::Stuck;
use serde_json::Value;

/// A simulated node with a configuration, a state and a record of its own.
struct Node {
    /// Gone before the folder that it lies in.
    stuck: Option<Stuck>,
    dir: tempfile::TempDir,
    /// What `sim` lies in: memory where there is such a place, since a tree has
    /// thousands of files.
    _tree: tempfile::TempDir,
    sim: SimNode,
}

impl Node {
    fn new(spec: &Spec) -> Node {
        let dir = tempfile::tempdir().unwrap();
        let tree = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let tree = tree.unwrap();
        let sim = SimNode::build(&tree.path().join("root"), spec).unwrap();
        // For a program that runs as somebody else.
        fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let _tree = tree;
        let node = Node {
            stuck: None,
            dir,
            _tree,
            sim,
        };
        node.configure("");
        node
    }

    fn named(name: &str) -> Node {
        Node::new(&Spec::named(name).unwrap())
    }

    /// Writes the configuration; `health` is the text of its section.
    fn configure(&self, health: &str) {
        self.configure_all("", health);
    }

    fn configure_all(&self, top: &str, health: &str) {
        let (dir, root) = (self.dir.path().display(), self.sim.root().display());
        // What a busy machine takes longer for must not look like a defect, and
        // nobody shall go on asking this machine's own Slurm for ten minutes.
        let mut quiet = String::new();
        for (key, value) in [("probe_limit", "60s"), ("scontrol", "/nonexistent")] {
            if !health.contains(&format!("{key} =")) {
                quiet.push_str(&format!("{key} = \"{value}\"\n"));
            }
        }
        let text = format!(
            "sysroot = \"{root}\"\nstate_dir = \"{dir}/state\"\n{top}\n[health]\n\
             record = \"{dir}/record/efa.json\"\n{quiet}{health}\n"
        );
        fs::write(self.config(), text).unwrap();
    }

    fn config(&self) -> PathBuf {
        self.path("slurm-efa.toml")
    }

    fn path(&self, rel: &str) -> PathBuf {
        self.dir.path().join(rel)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_efa-check"));
        command
            .args(args)
            .arg("--config")
            .arg(self.config())
            .env_clear()
            .env("SLURMD_NODENAME", "n1");
        command
    }

    fn run(&self, args: &[&str]) -> Said {
        said(&mut self.command(args))
    }

    /// What `node` finds: `check: severity`, without those that are fine.
    fn findings(&self) -> Vec<String> {
        let said = self.run(&["node", "--json"]);
        let report: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{said:?}"));
        let code = match report["severity"].as_str().unwrap() {
            "ok" => 0,
            "warning" => 1,
            "fatal" => 2,
            "unknown" => 3,
            other => panic!("{other}"),
        };
        assert_eq!(said.code, code, "{said:?}");
        report["findings"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|finding| finding["severity"] != "ok")
            .map(|f| format!("{}: {}", f["id"], f["severity"]).replace('"', ""))
            .collect()
    }

    fn counter(&self, device: usize, counter: &str) -> PathBuf {
        let name = &self.sim.devices()[device];
        let base = self.sim.path("sys/class/infiniband").join(name);
        let port = base.join("ports/1/hw_counters").join(counter);
        if port.exists() {
            port
        } else {
            base.join("hw_counters").join(counter)
        }
    }

    /// Makes the reader of a counter hang in the kernel, as the driver does when
    /// the device is dead.
    fn hang(&mut self, device: usize, counter: &str) {
        let place = self.path("stuck");
        let stuck = self.stuck.get_or_insert_with(|| {
            fs::create_dir(&place).unwrap();
            Stuck::mount(&place).unwrap_or_else(|error| panic!("{error}"))
        });
        let file = stuck.file();
        let counter = self.counter(device, counter);
        fs::remove_file(&counter).unwrap();
        std::os::unix::fs::symlink(file, counter).unwrap();
    }

    fn add(&self, device: usize, counter: &str, more: u64) {
        let name = self.sim.devices()[device].clone();
        let value = self.sim.counter(&name, counter).unwrap();
        self.sim.set_counter(&name, counter, value + more).unwrap();
    }
}

#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

fn said(command: &mut Command) -> Said {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    Said {
        code: status.code().unwrap_or(-1),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

fn fifo(path: &Path) {
    let _ = fs::remove_file(path);
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// Waits for something that another process does.
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = std::time::Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed().as_secs() < 30, "{what} did not happen");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// The processes whose command line is like this.
fn processes(is_it: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if is_it(&String::from_utf8_lossy(&line)) {
            found.push(entry.file_name().into_string().unwrap());
        }
    }
    found.sort();
    found
}
