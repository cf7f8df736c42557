//! The SELinux policy that the packages bring as an example: SELinux's own compiler
//! builds it on a policy as small as can be, and decides what it grants. What is
//! granted on a node is not tested: no machine here enforces.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

fn here() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn policy() -> PathBuf {
    here().join("../packaging/examples/slurm-efa.cil")
}

fn base() -> String {
    fs::read_to_string(here().join("tests/selinux/base.cil")).unwrap()
}

/// Compiles the policy on `base`; the file contexts are left in the folder.
fn compile(folder: &Path, base: &str) -> Output {
    let file = folder.join("base.cil");
    fs::write(&file, base).unwrap();
    Command::new("secilc")
        .args(["--output", "policy", "--filecontext", "contexts"])
        .args([&file, &policy()])
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| panic!("secilc: {error}; run `cargo xtask setup`"))
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// Whether sshd may do this: a rule that forbids it is one that the compiler refuses.
fn grants(target: &str, class: &str, permission: &str) -> bool {
    let never = format!("(neverallow sshd_t {target} ({class} ({permission})))");
    let output = compile(folder().path(), &format!("{}\n{never}\n", base()));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        said.contains("neverallow"),
        !output.status.success(),
        "{said}"
    );
    !output.status.success()
}

#[test]
fn the_policy_compiles_and_labels_the_state_directory() {
    let folder = folder();
    let output = compile(folder.path(), &base());
    assert!(output.status.success(), "{output:?}");
    let contexts = fs::read_to_string(folder.path().join("contexts")).unwrap();
    for run in ["/run", "/var/run"] {
        let line = format!("{run}/slurm-efa(/.*)?\tsystem_u:object_r:slurm_efa_state_t:s0");
        assert!(contexts.contains(&line), "{contexts}");
    }
}

#[test]
fn the_policy_compiles_where_a_distribution_lacks_what_others_have() {
    for lacking in [
        "unconfined_service_t",
        "initrc_t",
        "pidfile",
        "non_security_file_type",
    ] {
        let base: String = base()
            .lines()
            .filter(|line| !line.contains(&format!(" {lacking})")))
            .map(|line| format!("{line}\n"))
            .collect();
        assert!(!base.contains(lacking));
        let output = compile(folder().path(), &base);
        assert!(output.status.success(), "{lacking}: {output:?}");
    }
}

#[test]
fn sshd_may_do_what_the_pam_module_does() {
    for (target, class, permission) in [
        ("slurm_efa_state_t", "file", "read"),
        ("slurm_efa_state_t", "file", "lock"),
        ("slurm_efa_state_t", "file", "create"),
        ("slurm_efa_state_t", "file", "rename"),
        ("slurm_efa_state_t", "dir", "create"),
        ("var_spool_t", "sock_file", "write"),
        ("var_lib_t", "sock_file", "write"),
        ("unconfined_service_t", "unix_stream_socket", "connectto"),
        ("initrc_t", "unix_stream_socket", "connectto"),
        ("cgroup_t", "dir", "create"),
        ("cgroup_t", "file", "write"),
    ] {
        assert!(
            grants(target, class, permission),
            "{target} {class} {permission}"
        );
    }
}

#[test]
fn sshd_may_do_nothing_else() {
    for (target, class, permission) in [
        ("slurm_efa_state_t", "file", "execute"),
        ("var_spool_t", "file", "read"),
        ("var_spool_t", "dir", "write"),
        ("var_lib_t", "sock_file", "create"),
        ("var_run_t", "file", "write"),
        ("etc_t", "file", "write"),
        ("shadow_t", "file", "read"),
        ("user_t", "unix_stream_socket", "connectto"),
    ] {
        assert!(
            !grants(target, class, permission),
            "{target} {class} {permission}"
        );
    }
}
