//! `slurm-efa setup`, `doctor` and `revert` on a real Slurm, a real libpam, and
//! a tree that stands for the rest of the system. Needs root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cdylib_tests::sigkill::{End, killed_after};
use cdylib_tests::testbed::{Output, Testbed};
use cdylib_tests::{efa_cluster, modules};
use host::Deadline;
use host::state_dir::{Lock, StateDir};
use serde_json::Value;

const PAM: &str = "/usr/lib/x86_64-linux-gnu/security";

const SSHD: &str = "@include common-auth\naccount    required     pam_nologin.so\n\
                    @include common-account\nsession    required     pam_loginuid.so\n\
                    @include common-session\n@include common-password\n";

pub(crate) fn program() -> String {
    modules::program("slurm-efa").display().to_string()
}

/// A tree that stands for a node's system, with the package installed.
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
}

impl Tree {
    fn new(root: PathBuf) -> Self {
        let tree = Self { root };
        tree.install(&modules::plugin(), "usr/lib/slurm-efa/spank_efa.so");
        tree.install(&modules::program("efa-check"), "usr/sbin/efa-check");
        let job = modules::program("slurm-efa-job");
        tree.install(&job, "usr/lib/slurm-efa/slurm-efa-job");
        tree.module("pam_permit.so");
        fs::create_dir_all(tree.path("var/log/slurm-efa")).unwrap();
        tree.write("etc/pam.d/sshd", SSHD);
        for (file, phase) in [
            ("common-auth", "auth"),
            ("common-account", "account"),
            ("common-password", "password"),
            ("common-session", "session"),
        ] {
            let text = format!("{phase} required pam_permit.so\n");
            tree.write(&format!("etc/pam.d/{file}"), &text);
        }
        tree
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn install(&self, from: &Path, name: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(from, &path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// One of libpam's own modules in the place of ours.
    fn module(&self, name: &str) {
        let ours = "usr/lib/slurm-efa/pam_slurm_logout.so";
        self.install(&Path::new(PAM).join(name), ours);
    }
}

/// A cluster of one node, and its system.
pub(crate) struct Site {
    pub(crate) tb: Testbed,
    pub(crate) tree: Tree,
}

impl std::ops::Deref for Site {
    type Target = Tree;

    fn deref(&self) -> &Tree {
        &self.tree
    }
}

impl Site {
    pub(crate) fn new(extra: &str) -> Self {
        let tb = efa_cluster::bare(&["p5.48xlarge"])
            .slurm_conf_extra(extra)
            .file(
                efa_cluster::CONFIG,
                "sysroot = \"{dir}/sysroots/n1\"\nstate_dir = \"{dir}/state\"\n[health]\nrecord = \"{dir}/record.json\"\ndisable = [\"memlock\"]\n\
                 [logout]\nexempt_users = [\"daemon\"]\nspool_dir = \"{dir}/spool/%n\"\n",
            )
            .start()
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(tb.nodes(), ["n1"]);
        let tree = Tree::new(tb.dir().join("root"));
        Self { tb, tree }
    }

    pub(crate) fn conf(&self) -> PathBuf {
        self.tb.dir().join("slurm.conf")
    }

    pub(crate) fn plugstack(&self) -> PathBuf {
        self.tb.dir().join("plugstack.conf")
    }

    pub(crate) fn run(&self, command: &str, role: &str, more: &[&str]) -> Output {
        let config = self.tb.dir().join(efa_cluster::CONFIG);
        let program = program();
        let (conf, root) = (self.conf(), self.root.clone());
        let paths = [
            ("--slurm-conf", &conf),
            ("--config", &config),
            ("--root", &root),
        ];
        let mut call = self
            .tb
            .command("root", &[&program, command, "--role", role]);
        for (option, path) in paths {
            call = call.arg(option).arg(path);
        }
        call.args(more).output().unwrap()
    }

    /// On a node whose slurm.conf is the controller's: a copy.
    pub(crate) fn revert_of_a_node(&self, more: &[&str]) -> Output {
        let cache = self.tb.dir().join("conf-cache");
        fs::create_dir(&cache).unwrap();
        fs::copy(self.conf(), cache.join("slurm.conf")).unwrap();
        let copy = cache.join("slurm.conf").to_string_lossy().into_owned();
        let root = self.root.to_string_lossy().into_owned();
        self.tb
            .command("root", &[&program(), "revert", "--role", "compute"])
            .args(&["--slurm-conf", &copy, "--root", &root])
            .args(more)
            .output()
            .unwrap()
    }

    pub(crate) fn set_up(&self) {
        for role in ["compute", "controller"] {
            let output = self.run("setup", role, &[]);
            assert_eq!(output.code(), 0, "{role}: {output}");
        }
    }

    /// Every text that set-up may change.
    pub(crate) fn texts(&self) -> Vec<String> {
        [self.conf(), self.plugstack(), self.path("etc/pam.d/sshd")]
            .iter()
            .map(|path| fs::read_to_string(path).unwrap_or_default())
            .collect()
    }

    /// What holds while slurm-logoutd lives.
    pub(crate) fn daemon(&self) -> Lock {
        let state = StateDir::open(&self.tb.dir().join("state")).unwrap();
        state
            .lock("logoutd.lock", Deadline::after(std::time::Duration::ZERO))
            .unwrap()
    }

    /// The exit code, and the ids of what is not as it should be.
    pub(crate) fn doctor(&self) -> (i32, Vec<String>) {
        let (code, remedies) = self.remedies();
        (code, remedies.into_iter().map(|(id, _)| id).collect())
    }

    /// The exit code, and what to do about what is not as it should be, by its id.
    fn remedies(&self) -> (i32, Vec<(String, String)>) {
        let output = self.run("doctor", "compute", &["--json", "--node", "n1"]);
        let document: Value = serde_json::from_str(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output}"));
        let findings = document["findings"].as_array().unwrap();
        let ill = findings.iter().filter(|it| it["severity"] != "ok");
        let ill = ill.map(|it| {
            let text = |key: &str| it[key].as_str().unwrap_or_else(|| panic!("no {key}: {it}"));
            assert!(!text("sentence").is_empty(), "{it}");
            (text("id").to_owned(), text("remedy").to_owned())
        });
        (output.code(), ill.collect())
    }

    /// Types what a remedy says, where it is a command that a test may run; whether it
    /// is one.
    fn typed(&self, remedy: &str) -> bool {
        let sets_up = remedy.contains("`slurm-efa setup`");
        let reconfigures = remedy.contains("scontrol reconfigure") && !remedy.contains("write ");
        if sets_up {
            self.set_up();
        }
        if reconfigures {
            self.tb.scontrol(&["reconfigure"]).unwrap();
        }
        sets_up || reconfigures
    }
}

pub(crate) fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(
        text.contains(from),
        "{} lacks {from}: {text}",
        path.display()
    );
    fs::write(path, text.replace(from, to)).unwrap();
}

pub(crate) fn append(path: &Path, line: &str) {
    let text = fs::read_to_string(path).unwrap();
    fs::write(path, format!("{text}{line}\n")).unwrap();
}

#[test]
fn a_node_that_was_set_up_runs_jobs_with_a_profile_and_gets_every_byte_back() {
    let site = Site::new("");
    let before = site.texts();
    for (option, code) in [("--dry-run", 0), ("--check", 1)] {
        let planned = site.run("setup", "controller", &[option]);
        assert_eq!(planned.code(), code, "{planned}");
        let plugstack = site.plugstack().display().to_string();
        for line in [
            &format!("\n+++ {plugstack}\n@@ "),
            "\n+optional ",
            "\nwill run: scontrol reconfigure\n",
            "\nnext: run the same without --dry-run or --check",
        ] {
            assert!(planned.stdout.contains(line), "{line}: {planned}");
        }
    }
    assert_eq!(site.texts(), before);

    site.set_up();
    let after = site.texts();
    assert_ne!(after, before);
    let planned = site.run("setup", "controller", &["--check"]);
    assert_eq!(planned.code(), 0, "{planned}");
    assert!(
        planned
            .stdout
            .ends_with("next: nothing; no file would change\n"),
        "{planned}"
    );
    site.set_up();
    assert_eq!(site.texts(), after, "a second set-up changed something");

    let seen = efa_cluster::step(&site.tb, &[], &["--efa-profile=p5", "env"]);
    assert_eq!(
        efa_cluster::Vars::of(&seen.stdout).get("SLURM_EFA_DEVICES"),
        Some("32")
    );
    let config = site.tb.scontrol(&["show", "config"]).unwrap().stdout;
    for ours in ["prolog.d/*", "epilog.d/*", "efa-check-healthcheck"] {
        let lines = efa_cluster::lines_with(&config, &[ours]);
        assert_eq!(lines.len(), 1, "{ours} is not in force: {lines:?}");
    }

    for role in ["controller", "compute"] {
        let output = site.run("revert", role, &[]);
        assert_eq!(output.code(), 0, "{role}: {output}");
    }
    assert_eq!(site.texts(), before);
    let config = site.tb.scontrol(&["show", "config"]).unwrap().stdout;
    assert!(!config.contains("prolog.d/*"), "slurmctld still has ours");
    assert!(!site.path("etc/slurm-efa/efa-check-healthcheck").exists());
    assert!(!site.path("etc/slurm-efa/prolog.d").exists());
    assert!(!site.path("etc/slurm-efa/epilog.d").exists());
}

#[test]
fn a_node_that_the_last_release_set_up_has_its_jobs_recorded_after_set_up_only() {
    let site = Site::new("");
    site.set_up();
    // As it was: the plugin had hooks for prolog and epilog.
    fs::remove_file(site.path("etc/slurm-efa/prolog.d/slurm-efa-job-prolog")).unwrap();
    fs::remove_dir_all(site.path("etc/slurm-efa/epilog.d")).unwrap();
    replace(&site.conf(), "Epilog=", "#");
    site.tb.scontrol(&["reconfigure"]).unwrap();
    let recorded = site.tb.dir().join("state/last-start");
    efa_cluster::step(&site.tb, &[], &["true"]);
    assert!(!recorded.exists());
    let doctor = site.run("doctor", "compute", &[]);
    assert_eq!(doctor.code(), 2, "{doctor}");
    for missing in ["slurm-efa-job-prolog", "slurm-efa-job-epilog"] {
        let found = doctor.stdout.contains(&format!("{missing} is missing in"));
        assert!(found, "{doctor}");
    }
    let why = "Without it no job gets hugepages, and none is reported as a whole";
    assert_eq!(doctor.stdout.matches(why).count(), 2, "{doctor}");
    site.set_up();
    efa_cluster::step(&site.tb, &[], &["true"]);
    assert!(recorded.exists());
}

#[test]
fn the_prolog_uses_the_configuration_that_the_node_was_set_up_with() {
    let site = Site::new("");
    site.set_up();
    let state = site.tb.dir().join("state/efa-check.json");
    assert!(!state.exists());
    efa_cluster::step(&site.tb, &[], &["true"]);
    assert!(state.exists(), "efa-check kept its state elsewhere");
}

#[test]
fn a_folder_of_prologs_of_the_sites_runs_ours_until_they_are_reverted() {
    let site = Site::new("");
    let folder = site.tb.dir().join("prologs");
    fs::create_dir(&folder).unwrap();
    let theirs = folder.join("90-site");
    fs::write(&theirs, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o755)).unwrap();
    // The last value of slurm.conf counts; before 24.11 Slurm has one prolog only.
    append(&site.conf(), &format!("Prolog={}/*", folder.display()));
    site.set_up();
    let names = || {
        let entries = fs::read_dir(&folder).unwrap();
        let names = entries.map(|it| it.unwrap().file_name().into_string().unwrap());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let ours = ["50-efa-check-prolog", "50-slurm-efa-job-prolog"];
    let all = ours.iter().chain(&["90-site"]).map(|it| (*it).to_owned());
    assert_eq!(names(), all.collect());
    // Both were called before the job.
    efa_cluster::step(&site.tb, &[], &["true"]);
    for written in ["state/efa-check.json", "state/last-start"] {
        assert!(site.tb.dir().join(written).exists(), "{written}");
    }
    let output = site.run("doctor", "controller", &[]);
    let lines = efa_cluster::lines_with(&output.stdout, &["ok ", " prolog "]);
    assert_eq!(lines.len(), 1, "{output}");
    for role in ["controller", "compute"] {
        let output = site.run("revert", role, &[]);
        assert_eq!(output.code(), 0, "{role}: {output}");
    }
    assert_eq!(names(), ["90-site".to_owned()].into());
}

#[test]
fn the_role_of_the_last_set_up_is_known_until_it_is_reverted() {
    let site = Site::new("");
    let role = || {
        let output = site.run("doctor", "auto", &["--json"]);
        let document: Value = serde_json::from_str(&output.stdout).unwrap();
        document["role"].clone()
    };
    assert_eq!(role(), Value::Null);
    assert_eq!(site.run("setup", "compute", &[]).code(), 0);
    assert_eq!(role(), "compute");
    site.write("var/lib/slurm-efa/role", "worker\n");
    assert_eq!(role(), Value::Null, "a role was made up");
    assert_eq!(site.run("setup", "login", &[]).code(), 0);
    assert_eq!(role(), "login");
    // Slurm's files are the controller's to edit, and this node has them.
    assert_eq!(site.run("revert", "auto", &[]).code(), 0);
    assert_eq!(role(), Value::Null);
}

#[test]
fn the_set_up_of_a_node_with_a_missing_adapter_records_no_number_of_devices() {
    let site = Site::new("");
    let devices = site.tb.dir().join("sysroots/n1/sys/class/infiniband");
    let lost = fs::read_dir(&devices).unwrap().next().unwrap().unwrap();
    fs::rename(lost.path(), site.tb.dir().join("lost")).unwrap();
    let output = site.run("setup", "compute", &[]);
    assert_eq!(output.code(), 1, "{output}");
    for words in [
        "the number of this node's EFA devices is not recorded",
        "31 EFA devices are present, but a p5.48xlarge can have 32",
        "run `efa-check baseline --expect 31",
    ] {
        assert!(output.stderr.contains(words), "{words}: {output}");
    }
    let record = site.tb.dir().join("record.json");
    assert!(!record.exists());
    // All else is set up.
    assert!(
        site.path("etc/slurm-efa/prolog.d/efa-check-prolog")
            .exists()
    );
    fs::rename(site.tb.dir().join("lost"), lost.path()).unwrap();
    assert_eq!(site.run("setup", "compute", &[]).code(), 0);
    assert!(record.exists());
}

#[test]
fn a_login_nodes_slurmd_finds_a_health_check_that_finds_nothing() {
    let site = Site::new("");
    assert_eq!(site.run("setup", "login", &[]).code(), 0);
    let check = site.path("etc/slurm-efa/efa-check-healthcheck");
    assert!(Command::new(&check).status().unwrap().success());
    // A node that becomes another's gets the real one.
    assert_eq!(site.run("setup", "compute", &[]).code(), 0);
    let script = fs::read_to_string(&check).unwrap();
    let program = site.path("usr/sbin/efa-check");
    assert!(script.contains(program.to_str().unwrap()), "{script}");
}

#[test]
fn a_pam_line_that_would_lock_the_administrator_out_is_put_back_with_all_else() {
    let site = Site::new("");
    let before = site.texts();
    site.module("pam_deny.so");
    let output = site.run("setup", "compute", &[]);
    assert_eq!(output.code(), 2, "{output}");
    assert!(
        output.stderr.contains("PAM would not admit root"),
        "{output}"
    );
    assert!(
        output.stderr.contains("everything was put back"),
        "{output}"
    );
    assert_eq!(site.texts(), before);
    assert!(
        !site
            .path("etc/slurm-efa/prolog.d/efa-check-prolog")
            .exists()
    );
}

#[test]
fn a_stack_that_is_not_understood_is_left_and_the_rest_is_set_up() {
    let site = Site::new("");
    let odd = format!("{SSHD}acccount required pam_permit.so\n");
    site.write("etc/pam.d/sshd", &odd);
    let output = site.run("setup", "compute", &[]);
    assert_eq!(output.code(), 1, "{output}");
    assert!(output.stderr.contains("line 7"), "{output}");
    assert_eq!(site.texts()[2], odd);
    assert!(
        site.path("etc/slurm-efa/prolog.d/efa-check-prolog")
            .exists()
    );
}

#[test]
fn a_stack_that_admits_nobody_now_proves_nothing_and_is_left() {
    let site = Site::new("");
    let refusing = SSHD.replace("pam_nologin.so", "pam_deny.so");
    site.write("etc/pam.d/sshd", &refusing);
    let output = site.run("setup", "compute", &[]);
    assert_eq!(output.code(), 69, "{output}");
    assert_eq!(site.texts()[2], refusing);
}

#[test]
fn what_slurm_refuses_is_put_back() {
    let site = Site::new("");
    // The plugin of another machine: Slurm cannot load it.
    site.write("usr/lib/slurm-efa/spank_efa.so", "not ELF");
    let before = site.texts();
    let output = site.run("setup", "controller", &[]);
    assert_eq!(output.code(), 2, "{output}");
    assert!(
        output.stderr.contains("srun does not load the plugin"),
        "{output}"
    );
    assert_eq!(site.texts(), before);
    let backups = fs::read_dir(site.path("var/lib/slurm-efa/backups")).unwrap();
    assert_eq!(backups.count(), 0, "copies of what is as it was");
}

#[test]
fn what_slurm_refuses_is_put_back_also_where_the_file_is_new_and_its_folder_a_link() {
    let site = Site::new("");
    site.write("usr/lib/slurm-efa/spank_efa.so", "not ELF");
    // As /opt/slurm -> /opt/slurm-24.11.
    let folder = site.tb.dir().to_string_lossy().into_owned();
    std::os::unix::fs::symlink(&folder, site.tb.dir().join("linked")).unwrap();
    let key = format!("PlugStackConfig={folder}/");
    replace(&site.conf(), &key, &format!("{key}linked/"));
    fs::remove_file(site.plugstack()).unwrap();
    let before = site.texts();
    let output = site.run("setup", "controller", &[]);
    assert_eq!(output.code(), 2, "{output}");
    assert!(
        output.stderr.contains("srun does not load the plugin"),
        "{output}"
    );
    assert_eq!(site.texts(), before);
    assert!(!site.plugstack().exists());
}

#[test]
fn a_program_of_the_sites_in_the_place_of_our_link_outlives_set_up_and_what_puts_it_back() {
    let site = Site::new("");
    let name = "etc/slurm-efa/prolog.d/efa-check-prolog";
    let wrapper = "#!/bin/sh\nexec /usr/sbin/efa-check prolog\n";
    site.write(name, wrapper);
    let text = || fs::read_to_string(site.path(name)).unwrap();
    let output = site.run("setup", "compute", &[]);
    assert_eq!(output.code(), 1, "{output}");
    assert!(output.stderr.contains("efa-check-prolog stays"), "{output}");
    assert_eq!(text(), wrapper);
    assert_eq!(site.run("revert", "compute", &[]).code(), 0);
    assert_eq!(text(), wrapper);
    site.module("pam_deny.so");
    assert_eq!(site.run("setup", "compute", &[]).code(), 2);
    assert_eq!(text(), wrapper);
}

#[test]
fn without_package_or_slurm_conf_there_is_a_sentence_and_nothing_is_changed() {
    let site = Site::new("");
    let before = site.texts();
    fs::remove_file(site.path("usr/lib/slurm-efa/spank_efa.so")).unwrap();
    for role in ["compute", "controller", "login"] {
        let output = site.run("setup", role, &[]);
        assert_eq!(output.code(), 69, "{output}");
        assert!(output.stderr.contains("install the package"), "{output}");
    }
    assert_eq!(site.texts(), before);
}

#[test]
fn a_prolog_of_the_sites_stays_and_it_is_said_how_to_have_both() {
    let site = Site::new("Prolog=/bin/true");
    let output = site.run("setup", "controller", &[]);
    // Slurm 22.05 takes one; see slurm_conf's unit tests for later releases.
    assert_eq!(output.code(), 1, "{output}");
    assert!(output.stderr.contains("Prolog=/bin/true stays"), "{output}");
    assert!(!site.texts()[0].contains("prolog.d"));
}

#[test]
fn lines_for_gres_conf_are_put_in_without_their_comments() {
    let site = Site::new("");
    let fragment = site.path("gres");
    fs::write(
        &fragment,
        "# Made on n1\nNodeName=n1 Name=gpu \\\n File=/dev/nvidia[0-7]\n",
    )
    .unwrap();
    let fragment = fragment.to_string_lossy().into_owned();
    let output = site.run(
        "setup",
        "controller",
        &["--dry-run", "--gres-conf", &fragment],
    );
    let ours = "NodeName=n1 Name=gpu  File=/dev/nvidia[0-7] # slurm-efa";
    assert!(output.stdout.contains(ours), "{output}");
    assert!(!output.stdout.contains("Made on n1"), "{output}");
}

#[test]
fn links_stay_as_long_as_slurm_asks_for_them() {
    let site = Site::new("SlurmctldParameters=enable_configless");
    site.set_up();
    let output = site.revert_of_a_node(&[]);
    assert_eq!(output.code(), 1, "{output}");
    assert!(
        output.stderr.contains("revert on the controller first"),
        "{output}"
    );
    assert!(
        site.path("etc/slurm-efa/prolog.d/efa-check-prolog")
            .exists()
    );
}

#[test]
fn on_a_full_disk_nothing_is_changed() {
    let site = Site::new("");
    // The copy for people fits exactly, and the longer new file does not.
    let text = fs::read_to_string(site.conf()).unwrap();
    let blocks = text.len() / 512 + 1;
    let padding = "#".repeat(blocks * 512 - text.len() - 1);
    fs::write(site.conf(), format!("{text}{padding}\n")).unwrap();
    let before = site.texts();
    for limit in [blocks, 0] {
        let limited = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$@\"");
        let (conf, root) = (site.conf(), site.root.clone());
        let config = site.tb.dir().join(efa_cluster::CONFIG);
        let output = site
            .tb
            .command("root", &["/bin/sh", "-c", &limited, "full"])
            .args(&[&program(), "setup", "--role", "controller"])
            .args(&["--slurm-conf".as_ref(), conf.as_os_str()])
            .args(&["--config".as_ref(), config.as_os_str()])
            .args(&["--root".as_ref(), root.as_os_str()])
            .output()
            .unwrap();
        assert_eq!(output.code(), 73, "{output}");
        assert!(output.stderr.contains("nothing was changed"), "{output}");
        assert_eq!(site.texts(), before);
        let names = fs::read_dir(site.tb.dir()).unwrap();
        let left = names.filter(|it| {
            let name = it.as_ref().unwrap().file_name();
            name.to_string_lossy().contains("slurm-efa-new")
        });
        assert_eq!(left.count(), 0);
    }
}

#[test]
fn a_set_up_killed_anywhere_leaves_each_file_old_or_new_and_the_next_one_finishes() {
    let dir = tempfile::tempdir().unwrap();
    let tree = Tree::new(dir.path().join("root"));
    let config = dir.path().join("slurm-efa.toml");
    let record = dir.path().join("record.json");
    fs::write(&record, "{}").unwrap();
    let text = format!(
        "[health]\nrecord = \"{}\"\n[logout]\nexempt_users = [\"daemon\"]\n",
        record.display()
    );
    fs::write(&config, text).unwrap();
    let set_up = || {
        let mut command = Command::new(program());
        command.args(["setup", "--role", "compute", "--slurm-conf", "/nonexistent"]);
        command
            .arg("--config")
            .arg(&config)
            .arg("--root")
            .arg(&tree.root);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let sshd = tree.path("etc/pam.d/sshd");
    let link = tree.path("etc/slurm-efa/prolog.d/efa-check-prolog");
    assert_eq!(set_up().status().unwrap().code(), Some(0));
    let new = fs::read_to_string(&sshd).unwrap();
    assert_ne!(new, SSHD);
    // Every fifth of its calls; `files` has the order of its effects.
    let (mut calls, mut killed) = (1, 0);
    loop {
        fs::write(&sshd, SSHD).unwrap();
        let _ = fs::remove_file(&link);
        let end = killed_after(calls, &mut set_up()).unwrap();
        let seen = fs::read_to_string(&sshd).unwrap();
        assert!(seen == SSHD || seen == new, "after {calls} calls: {seen}");
        if end != End::Killed {
            break;
        }
        (calls, killed) = (calls + 5, killed + 1);
    }
    assert!(killed > 20, "it was killed {killed} times only");
    assert_eq!(set_up().status().unwrap().code(), Some(0));
    assert_eq!(fs::read_to_string(&sshd).unwrap(), new);
    assert!(link.exists());
    let left = fs::read_dir(sshd.parent().unwrap()).unwrap();
    let left = left.filter(|it| {
        it.as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with('.')
    });
    assert_eq!(left.count(), 0);
}

/// What somebody may do to a node, and the finding that names it.
type Sabotage = (&'static str, &'static str, fn(&Site));

const SABOTAGES: &[Sabotage] = &[
    ("plugstack", "the line is gone", |site| {
        fs::write(site.plugstack(), "").unwrap();
    }),
    ("plugstack", "the path is relative", |site| {
        let folder = site.path("usr/lib/slurm-efa/");
        replace(&site.plugstack(), &folder.to_string_lossy(), "");
    }),
    ("plugin-file", "the plugin is not installed", |site| {
        fs::remove_file(site.path("usr/lib/slurm-efa/spank_efa.so")).unwrap();
    }),
    ("plugin-file", "the plugin is a torn download", |site| {
        site.write("usr/lib/slurm-efa/spank_efa.so", "<html>");
    }),
    ("plugin-file", "everybody can write the plugin", |site| {
        let path = site.path("usr/lib/slurm-efa/spank_efa.so");
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }),
    ("plugin-loaded", "the plugin is another library", |site| {
        let library = Path::new(PAM).join("pam_permit.so");
        site.install(&library, "usr/lib/slurm-efa/spank_efa.so");
    }),
    ("plugin-loaded", "another plugin is missing", |site| {
        append(&site.plugstack(), "optional /nowhere/pyxis.so");
    }),
    ("plugstack-includes", "an include matches nothing", |site| {
        append(&site.plugstack(), "include /nowhere/*.conf");
    }),
    ("slurm-conf", "slurm.conf has a key that is none", |site| {
        append(&site.conf(), "Prologgg=/x");
    }),
    ("prolog-flags", "PrologFlags are gone", |site| {
        replace(&site.conf(), "PrologFlags=", "#");
    }),
    ("prolog", "a start script deleted the prolog", |site| {
        replace(&site.conf(), "Prolog=", "#");
    }),
    ("prolog", "a start script set its own prolog", |site| {
        append(&site.conf(), "Prolog=/bin/true");
    }),
    (
        "prolog-others",
        "a prolog of the site's is not on this node",
        |site| {
            append(&site.conf(), "Prolog=/nowhere/prolog.sh");
        },
    ),
    (
        "prolog-programs",
        "the folder of prologs is empty",
        |site| {
            fs::remove_file(site.path("etc/slurm-efa/prolog.d/efa-check-prolog")).unwrap();
        },
    ),
    ("prolog-programs", "efa-check was removed", |site| {
        fs::remove_file(site.path("usr/sbin/efa-check")).unwrap();
    }),
    ("prolog-programs", "efa-check cannot be executed", |site| {
        let path = site.path("usr/sbin/efa-check");
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }),
    ("prolog-programs", "the last release set it up", |site| {
        fs::remove_file(site.path("etc/slurm-efa/prolog.d/slurm-efa-job-prolog")).unwrap();
    }),
    ("epilog", "a start script deleted the epilog", |site| {
        replace(&site.conf(), "Epilog=", "#");
    }),
    (
        "epilog-programs",
        "slurm.conf names a folder of epilogs that is not there",
        |site| {
            fs::remove_dir_all(site.path("etc/slurm-efa/epilog.d")).unwrap();
        },
    ),
    ("health-check", "HealthCheckProgram is gone", |site| {
        replace(&site.conf(), "HealthCheckProgram=", "#");
    }),
    (
        "health-check",
        "HealthCheckProgram has its name of the last release",
        |site| {
            replace(&site.conf(), "efa-check-healthcheck", "efa-check-watch");
        },
    ),
    ("health-check", "the interval is 0", |site| {
        replace(
            &site.conf(),
            "HealthCheckInterval=60",
            "HealthCheckInterval=0",
        );
    }),
    (
        "health-program",
        "the link of the health check is gone",
        |site| {
            fs::remove_file(site.path("etc/slurm-efa/efa-check-healthcheck")).unwrap();
        },
    ),
    ("expectation", "nothing was recorded", |site| {
        fs::remove_file(site.tb.dir().join("record.json")).unwrap();
    }),
    ("expectation", "the record is torn", |site| {
        fs::write(site.tb.dir().join("record.json"), "{\"devices\": [").unwrap();
    }),
    ("expectation", "the record is of another type", |site| {
        let record = site.tb.dir().join("record.json");
        replace(&record, "p5.48xlarge", "p4d.24xlarge");
    }),
    (
        "expectation",
        "the configuration names another type only",
        |site| {
            fs::remove_file(site.tb.dir().join("record.json")).unwrap();
            let counts = "[health]\nexpected_devices = { \"p4d.24xlarge\" = 4 }\n";
            replace(
                &site.tb.dir().join(efa_cluster::CONFIG),
                "[health]\n",
                counts,
            );
        },
    ),
    ("state", "the configuration cannot be read", |site| {
        append(&site.tb.dir().join(efa_cluster::CONFIG), "= 1");
    }),
    ("configuration", "the configuration has a slip", |site| {
        append(&site.tb.dir().join(efa_cluster::CONFIG), "= 1");
    }),
    (
        "configuration",
        "everybody can write the configuration",
        |site| {
            let path = site.tb.dir().join(efa_cluster::CONFIG);
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        },
    ),
    (
        "configuration-in-force",
        "PAM reads another configuration",
        |site| {
            let sshd = site.path("etc/pam.d/sshd");
            replace(&sshd, "slurm-efa.toml #", "other.toml #");
        },
    ),
    (
        "configuration-in-force",
        "slurm-logoutd reads the usual configuration",
        |site| {
            let folder = site.path("etc/systemd/system/slurm-logoutd.service.d");
            fs::remove_dir_all(folder).unwrap();
        },
    ),
    (
        "configuration-in-force",
        "the prolog reads another configuration",
        |site| {
            let script = site.path("etc/slurm-efa/prolog.d/efa-check-prolog");
            replace(&script, "slurm-efa.toml", "other.toml");
        },
    ),
    ("pam", "the account line is gone", |site| {
        replace(
            &site.path("etc/pam.d/sshd"),
            "account    required     /",
            "#",
        );
    }),
    ("pam", "a sufficient line comes before ours", |site| {
        let sshd = fs::read_to_string(site.path("etc/pam.d/sshd")).unwrap();
        let text = format!("account sufficient pam_localuser.so\n{sshd}");
        site.write("etc/pam.d/sshd", &text);
    }),
    ("pam", "the stack is not understood", |site| {
        append(
            &site.path("etc/pam.d/sshd"),
            "acccount required pam_permit.so",
        );
    }),
    (
        "pam-session",
        "pam_systemd comes after our session line",
        |site| {
            append(
                &site.path("etc/pam.d/sshd"),
                "session optional pam_systemd.so",
            );
        },
    ),
    (
        "pam-session",
        "a sufficient line in an included file ends the session stack before ours",
        |site| {
            append(
                &site.path("etc/pam.d/common-session"),
                "session sufficient pam_unix.so",
            );
        },
    ),
    ("pam-session", "a session line jumps over ours", |site| {
        replace(
            &site.path("etc/pam.d/sshd"),
            "session    optional     /",
            "session [success=1 default=ignore] pam_succeed_if.so uid = 0\nsession    optional     /",
        );
    }),
    (
        "pam-adopt",
        "pam_slurm_adopt is used with pam_systemd",
        |site| {
            append(
                &site.path("etc/pam.d/common-session"),
                "session optional pam_systemd.so",
            );
            append(
                &site.path("etc/pam.d/common-account"),
                "account required pam_slurm_adopt.so",
            );
        },
    ),
    ("pam-module", "the module is not installed", |site| {
        fs::remove_file(site.path("usr/lib/slurm-efa/pam_slurm_logout.so")).unwrap();
    }),
    ("state", "everybody can write the state", |site| {
        let path = site.tb.dir().join("state");
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }),
    ("left-over", "a set-up was killed", |site| {
        fs::write(site.tb.dir().join(".slurm.conf.slurm-efa-old"), "").unwrap();
    }),
    (
        "users-read",
        "only root can read the configuration",
        |site| {
            close(&site.tb.dir().join(efa_cluster::CONFIG), 0o640);
        },
    ),
    (
        "users-read",
        "only root can read a file that plugstack.conf includes",
        |site| {
            let left = site.path("plugstack.conf.d/left-over.conf");
            site.write("plugstack.conf.d/left-over.conf", "# Nothing.\n");
            append(&site.plugstack(), &format!("include {}", left.display()));
            close(&left, 0o600);
        },
    ),
    (
        "plugin-loaded",
        "the same, and every srun of a user fails",
        |site| {
            let left = site.path("plugstack.conf.d/left-over.conf");
            site.write("plugstack.conf.d/left-over.conf", "# Nothing.\n");
            append(&site.plugstack(), &format!("include {}", left.display()));
            close(&left, 0o600);
        },
    ),
    (
        "users-read",
        "only root can enter the folder of the plugins",
        |site| {
            close(&site.path("usr/lib/slurm-efa"), 0o700);
        },
    ),
    ("munge", "munge does not answer", |site| {
        replace(&site.conf(), "munge/socket", "munge/no-socket");
    }),
    ("slurmctld", "nobody listens on slurmctld's port", |site| {
        let conf = fs::read_to_string(site.conf()).unwrap();
        let port = conf
            .lines()
            .find(|it| it.starts_with("SlurmctldPort="))
            .unwrap();
        replace(&site.conf(), port, "SlurmctldPort=1");
    }),
    (
        "reconfigured",
        "slurmctld has not read the prolog of slurm.conf",
        |site| {
            append(&site.conf(), "Prolog=/bin/true");
        },
    ),
    (
        "reconfigured",
        "slurmctld has not read the health check of slurm.conf",
        |site| {
            append(&site.conf(), "HealthCheckProgram=/bin/true");
        },
    ),
    (
        "accounting-enforce",
        "limits are to be enforced, and there is no slurmdbd",
        |site| {
            append(&site.conf(), "AccountingStorageEnforce=limits");
        },
    ),
    ("health-states", "busy nodes are not checked", |site| {
        append(&site.conf(), "HealthCheckNodeState=IDLE");
    }),
    (
        "job-log",
        "the folder of the log of jobs is missing",
        |site| {
            fs::remove_dir(site.path("var/log/slurm-efa")).unwrap();
        },
    ),
    (
        "spool-dir",
        "logins look for jobs where slurmd has none",
        |site| {
            let config = site.tb.dir().join(efa_cluster::CONFIG);
            let spool = format!("{}/spool/%n", site.tb.dir().display());
            replace(&config, &spool, "/var/spool/slurmd");
        },
    ),
    (
        "configuration",
        "the spool directory of the configuration is missing",
        |site| {
            let config = site.tb.dir().join(efa_cluster::CONFIG);
            replace(&config, "/spool/%n", "/sool");
        },
    ),
    ("versions", "the plugin is of an older release", |site| {
        let plugin = site.path("usr/lib/slurm-efa/spank_efa.so");
        let mut bytes = fs::read(&plugin).unwrap();
        let mark = concat!("slurm-efa-release=", env!("CARGO_PKG_VERSION")).as_bytes();
        let at = bytes.windows(mark.len()).position(|it| it == mark).unwrap();
        bytes[at + mark.len() - 1] = b'x';
        fs::write(&plugin, bytes).unwrap();
    }),
    ("versions", "efa-check is of an older release", |site| {
        // Whatever it is asked, it gives its release.
        let path = site.path("usr/sbin/efa-check");
        fs::write(&path, "#!/bin/sh\necho efa-check 0.1.0\n").unwrap();
    }),
    ("versions", "slurm-efa-job is of an older release", |site| {
        let path = site.path("usr/lib/slurm-efa/slurm-efa-job");
        fs::write(&path, "#!/bin/sh\necho slurm-efa-job 0.1.0\n").unwrap();
    }),
    (
        "versions",
        "the plugin of shared GPUs is of an older release",
        |site| {
            let plugin = "usr/lib/slurm-efa/spank_gres.so";
            site.write(plugin, "\x7fELF slurm-efa-release=0.1.9= and more");
        },
    ),
    ("versions", "PAM's module is of an older release", |site| {
        let path = site.path("usr/lib/slurm-efa/pam_slurm_logout.so");
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend_from_slice(b"slurm-efa-release=0.1.9=");
        fs::write(&path, bytes).unwrap();
    }),
    ("selinux", "SELinux enforces", |site| {
        site.write("sys/fs/selinux/enforce", "1\n");
    }),
    ("outlive", "a user may linger", |site| {
        site.write("var/lib/systemd/linger/alice", "");
    }),
    ("outlive", "a user has a crontab", |site| {
        site.write("var/spool/cron/crontabs/alice", "@reboot /bin/true\n");
    }),
    ("outlive", "a user has a job of at", |site| {
        site.write("var/spool/cron/atjobs/a0000101", "#!/bin/sh\n");
        let job = site.path("var/spool/cron/atjobs/a0000101");
        std::os::unix::fs::chown(job, Some(65534), None).unwrap();
    }),
];

/// What somebody may do to a Slurm that runs, and how it is undone.
type LiveSabotage = (&'static str, &'static str, fn(&Site), fn(&Site));

const LIVE_SABOTAGES: &[LiveSabotage] = &[
    (
        "efa-check",
        "an adapter is lost",
        |site| {
            let lost = fs::read_dir(devices(site)).unwrap().next().unwrap();
            let aside = site.tb.dir().join("lost");
            fs::rename(lost.unwrap().path(), aside).unwrap();
        },
        |site| {
            let aside = site.tb.dir().join("lost");
            fs::rename(aside, devices(site).join("back")).unwrap();
        },
    ),
    (
        "node-state",
        "an administrator drained the node",
        |site| {
            let drain = ["update", "NodeName=n1", "State=DRAIN", "Reason=new fan"];
            site.tb.scontrol(&drain).unwrap();
        },
        |site| {
            site.tb
                .scontrol(&["update", "NodeName=n1", "State=RESUME"])
                .unwrap();
        },
    ),
    (
        "slurmd",
        "slurmd was killed",
        |site| site.tb.kill_slurmd("n1").unwrap(),
        |site| site.tb.start_slurmd("n1").unwrap(),
    ),
];

fn devices(site: &Site) -> PathBuf {
    site.tb.dir().join("sysroots/n1/sys/class/infiniband")
}

fn close(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Copies what a sabotage may touch, or puts it back.
fn copy(site: &Site, from: &Path, to: &Path) {
    let config = efa_cluster::CONFIG.split('/').next().unwrap();
    for name in [
        "root",
        "state",
        config,
        "slurm.conf",
        "plugstack.conf",
        "record.json",
    ] {
        let status = Command::new("/bin/sh")
            .args([
                "-c",
                "rm -rf \"$2/$3\" && cp -a \"$1/$3\" \"$2/$3\"",
                "copy",
            ])
            .arg(from)
            .arg(to)
            .arg(name)
            .status()
            .unwrap();
        assert!(status.success(), "{name}");
    }
    let left = site.tb.dir().join(".slurm.conf.slurm-efa-old");
    assert!(fs::remove_file(&left).is_ok() || !left.exists());
}

#[test]
fn the_doctor_finds_nothing_after_set_up_and_each_sabotage_one_by_one() {
    let site = Site::new("");
    site.set_up();
    {
        let _daemon = site.daemon();
        assert_eq!(site.doctor(), (0, Vec::new()));
    }
    let (code, ill) = site.doctor();
    assert_eq!(
        (code, ill),
        (2, vec!["logoutd".to_owned()]),
        "no daemon lives"
    );

    let aside = site.tb.dir().join("aside");
    fs::create_dir(&aside).unwrap();
    copy(&site, site.tb.dir(), &aside);
    for (id, what, sabotage) in SABOTAGES {
        copy(&site, &aside, site.tb.dir());
        let _daemon = site.daemon();
        sabotage(&site);
        let (code, ill) = site.doctor();
        assert!(ill.iter().any(|it| it == id), "{what}: only {ill:?}");
        assert!((1..=3).contains(&code), "{what}: {code}");
    }
}

#[test]
fn a_remedy_that_is_a_command_works_when_it_is_typed() {
    let site = Site::new("");
    site.set_up();
    let aside = site.tb.dir().join("aside");
    fs::create_dir(&aside).unwrap();
    copy(&site, site.tb.dir(), &aside);
    let mut typed = 0;
    for (id, what, sabotage) in SABOTAGES {
        copy(&site, &aside, site.tb.dir());
        site.tb.scontrol(&["reconfigure"]).unwrap();
        let _daemon = site.daemon();
        sabotage(&site);
        let (_, remedies) = site.remedies();
        let remedy = remedies.iter().find(|it| it.0 == *id);
        let (_, remedy) = remedy.unwrap_or_else(|| panic!("{what}: {remedies:?}"));
        if site.typed(remedy) {
            typed += 1;
            let (_, left) = site.remedies();
            let left = left.iter().find(|it| it.0 == *id);
            assert_eq!(left, None, "{what}: still there after: {remedy}");
        }
    }
    assert!(typed >= 10, "{typed} remedies only are commands");
}

#[test]
fn the_doctor_finds_what_is_done_to_a_slurm_that_runs() {
    let site = Site::new("");
    site.set_up();
    let _daemon = site.daemon();
    for (id, what, sabotage, undo) in LIVE_SABOTAGES {
        sabotage(&site);
        let (code, ill) = site.doctor();
        assert!(ill.iter().any(|it| it == id), "{what}: only {ill:?}");
        assert!((1..=3).contains(&code), "{what}: {code}");
        undo(&site);
    }
}

#[test]
fn a_check_at_submission_that_slurmctld_could_not_load_is_fatal_before_it_is_started_again() {
    let site = Site::new("");
    site.set_up();
    let job_submit = || {
        let output = site.run("doctor", "controller", &["--json"]);
        let document: Value = serde_json::from_str(&output.stdout).unwrap();
        let mut findings = document["findings"].as_array().unwrap().iter();
        let found = findings.find(|it| it["id"] == "job-submit").cloned();
        found.map(|it| (it["severity"].clone(), it["sentence"].to_string()))
    };
    assert_eq!(job_submit(), None, "none is configured");

    append(&site.conf(), "JobSubmitPlugins=nowhere");
    let (severity, sentence) = job_submit().unwrap();
    assert_eq!(severity, "fatal");
    assert!(
        sentence.contains("no job_submit_nowhere.so in /"),
        "{sentence}"
    );

    replace(&site.conf(), "=nowhere", "=lua");
    let (severity, sentence) = job_submit().unwrap();
    assert_eq!(severity, "fatal");
    assert!(sentence.contains("no job_submit.lua in "), "{sentence}");

    fs::write(site.tb.dir().join("job_submit.lua"), "").unwrap();
    let (severity, sentence) = job_submit().unwrap();
    assert_eq!(severity, "warning");
    assert!(sentence.contains("slurmctld has none"), "{sentence}");
}

#[test]
fn forty_sabotages_and_more_are_tried() {
    assert!(SABOTAGES.len() + LIVE_SABOTAGES.len() >= 55);
}

#[test]
fn an_empty_folder_of_plugins_as_debian_ships_it_is_no_finding() {
    let site = Site::new("");
    site.set_up();
    let _daemon = site.daemon();
    let folder = site.path("etc/slurm/plugstack.conf.d");
    fs::create_dir_all(&folder).unwrap();
    append(
        &site.plugstack(),
        &format!("include {}/*.conf", folder.display()),
    );
    assert_eq!(site.doctor(), (0, Vec::new()));
}

#[test]
fn selinux_that_enforces_with_our_policy_module_is_no_finding() {
    let site = Site::new("");
    site.set_up();
    let _daemon = site.daemon();
    site.write("sys/fs/selinux/enforce", "1\n");
    assert_eq!(site.doctor().1, ["selinux"]);
    let module = "var/lib/selinux/targeted/active/modules/400/slurm-efa";
    fs::create_dir_all(site.path(module)).unwrap();
    assert_eq!(site.doctor(), (0, Vec::new()));
}

#[test]
fn the_doctor_shows_the_line_of_slurms_error_that_names_the_mistake() {
    let site = Site::new("");
    site.set_up();
    append(&site.conf(), "Prologgg=/x");
    let output = site.run("doctor", "compute", &[]);
    let line = efa_cluster::lines_with(&output.stdout, &["FATAL", " slurm-conf "]);
    assert!(line.concat().contains("Prologgg"), "{output}");
}

#[test]
fn doctor_and_efa_check_exit_alike_for_a_warning_beside_an_unknown_finding() {
    let site = Site::new("");
    site.set_up();
    let config = site.tb.dir().join(efa_cluster::CONFIG);
    // Without the node's name the doctor does not find state_dir; a record of
    // another type is a warning.
    let text = fs::read_to_string(&config).unwrap();
    let state_dir = |name: &str| format!("state_dir = \"{}/{name}\"", site.tb.dir().display());
    let text = text.replace(&state_dir("state"), &state_dir("state-%n"));
    fs::write(&config, text).unwrap();
    replace(
        &site.tb.dir().join("record.json"),
        "p5.48xlarge",
        "p4d.24xlarge",
    );
    let examined = site.doctor();
    assert_eq!(examined.0, 3, "{examined:?}");
    // efa-check cannot check GPUDirect without p2p, and misses Amazon's libfabric.
    let sysroot = site.tb.dir().join("sysroots/n1");
    for device in fs::read_dir(sysroot.join("sys/class/infiniband")).unwrap() {
        let _ = fs::remove_file(device.unwrap().path().join("device/p2p"));
    }
    fs::remove_dir_all(sysroot.join("opt/amazon")).unwrap();
    let program = site.path("usr/sbin/efa-check").display().to_string();
    let config = config.display().to_string();
    let call = [&program, "node", "--node-name", "n1", "--config", &config];
    let checked = site.tb.command("root", &call).output().unwrap();
    for severity in ["WARNING", "UNKNOWN"] {
        assert!(checked.stdout.contains(severity), "{checked}");
    }
    assert_eq!(checked.code(), examined.0, "{checked}");
}

#[test]
fn auto_takes_the_role_from_hyperpods_files() {
    let site = Site::new("");
    let resources = |address: &str| {
        let text = r#"{"ClusterConfig": {"ClusterName": "ml"}, "InstanceGroups": [
            {"Name": "workers", "InstanceType": "ml.p5.48xlarge",
             "Instances": [{"CustomerIpAddress": "ADDRESS"}]}]}"#;
        let text = text.replace("ADDRESS", address);
        site.write("opt/ml/config/resource_config.json", &text);
    };
    // TEST-NET-2 (RFC 5737) is nobody's; the other one is the testbed's own.
    resources("198.51.100.1");
    site.write(
        "opt/ml/config/provisioning_parameters.json",
        r#"{"controller_group": "head", "login_group": ""}"#,
    );
    let output = site.run("setup", "auto", &[]);
    assert_eq!(output.code(), 69, "{output}");
    assert!(
        output.stderr.contains("none of the 1 addresses"),
        "{output}"
    );
    resources("192.0.2.1");
    let output = site.run("setup", "auto", &[]);
    assert_eq!(output.code(), 0, "{output}");
    assert!(
        site.path("etc/slurm-efa/efa-check-healthcheck").exists(),
        "a worker of a cluster without login group is not a compute node"
    );
}

#[test]
fn auto_takes_the_role_from_the_groups_node_types_where_there_are_no_parameters() {
    let site = Site::new("");
    site.write(
        "opt/ml/config/resource_config.json",
        r#"{"InstanceGroups": [{"Name": "workers", "SlurmConfig": {"NodeType": "Compute"},
            "Instances": [{"CustomerIpAddress": "192.0.2.1"}]}]}"#,
    );
    let output = site.run("setup", "auto", &[]);
    assert_eq!(output.code(), 0, "{output}");
    assert!(site.path("etc/slurm-efa/efa-check-healthcheck").exists());
}
