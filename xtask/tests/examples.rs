//! The examples that the packages bring, each read by the program that it is for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging")
}

fn example(name: &str) -> PathBuf {
    packaging().join("examples").join(name)
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}; run `cargo xtask setup`, which installs it")
    })
}

fn passes(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The lines of an NHC configuration that check something: what comes after the
/// nodes that it is for.
fn nhc_checks(text: &str) -> Vec<&str> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|it| !it.starts_with('#'));
    lines
        .filter_map(|line| Some(line.split_once("||")?.1.trim()))
        .collect()
}

fn check_syntax(file: &Path) {
    let shell = |file: &Path| {
        passes(Command::new("bash").arg("-n").arg(file));
        passes(
            Command::new("shellcheck")
                .args(["--shell", "bash"])
                .arg(file),
        );
    };
    let yaml = |file: &Path| {
        const LOAD: &str = "import sys, yaml; yaml.safe_load(open(sys.argv[1]))";
        passes(Command::new("python3").args(["-c", LOAD]).arg(file));
    };
    match file.file_name().unwrap().to_str().unwrap() {
        name if name.ends_with(".sh") || name.ends_with(".sbatch") => shell(file),
        name if name.ends_with(".lua") => {
            passes(Command::new("luac5.4").arg("-p").arg(file));
        }
        "ansible.yml" => {
            yaml(file);
            passes(
                Command::new("ansible-playbook")
                    .arg("--syntax-check")
                    .arg(file),
            );
        }
        name if name.ends_with(".yaml") => yaml(file),
        "nhc.conf" => {
            let text = fs::read_to_string(file).unwrap();
            let checks = nhc_checks(&text);
            assert_eq!(checks.len(), 1, "{text}");
            passes(Command::new("bash").args(["-n", "-c", checks[0]]));
        }
        // Below, and in selinux.rs.
        "on_create.patch" | "slurm-efa.cil" => {}
        name => panic!("{name}: nothing checks the syntax of this example"),
    }
}

#[test]
fn every_example_and_script_is_accepted_by_what_reads_it() {
    for folder in ["examples", "lifecycle", "scripts"] {
        for entry in fs::read_dir(packaging().join(folder)).unwrap() {
            check_syntax(&entry.unwrap().path());
        }
    }
}

/// The end of a `main` in the shape of AWS's base scripts.
const LIFECYCLE: &str = r#"#!/usr/bin/env python
def main(args):
    params = ProvisioningParameters(args.provisioning_parameters)
    ExecuteBashScript("./add_users.sh").run()
    if params.workload_manager == "slurm":
        node_type = SlurmNodeType.COMPUTE_NODE
        ExecuteBashScript("./utils/motd.sh").run(node_type)

        ExecuteBashScript("./start_slurm.sh").run(node_type, ",".join(controllers))

        if Config.enable_docker_enroot_pyxis:
            ExecuteBashScript("./utils/install_docker.sh").run()
            ExecuteBashScript("./utils/install_enroot_pyxis.sh").run(node_type)

        if Config.enable_pam_slurm_adopt:
            ExecuteBashScript("./utils/slurm_fix_plugstackconf.sh").run()

    print("[INFO]: Success: All provisioning scripts completed")


if __name__ == "__main__":
    main(parse())
"#;

/// Applied to the base scripts with `program`, the script that comes out.
fn patched(program: &str, arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("lifecycle_script.py");
    fs::write(&script, LIFECYCLE).unwrap();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .arg(fs::canonicalize(example("on_create.patch")).unwrap())
        .current_dir(folder.path())
        // Not the repository that the temporary folder may be in.
        .env("GIT_CEILING_DIRECTORIES", folder.path().parent().unwrap());
    passes(&mut command);
    fs::read_to_string(script).unwrap()
}

#[test]
fn the_patch_applies_to_base_scripts_that_have_changed_around_it() {
    let script = patched("git", &["apply"]);
    let at = |text: &str| {
        let all: Vec<usize> = script.match_indices(text).map(|it| it.0).collect();
        assert!(!all.is_empty(), "{text}: {script}");
        all
    };
    let ours = at("./utils/install_slurm_efa.sh");
    let start = at("./start_slurm.sh")[0];
    assert_eq!(ours.len(), 2);
    assert!(ours[0] < start, "nodes have their prologs before slurmd");
    let last = at("./utils/slurm_fix_plugstackconf.sh")[0];
    assert!(ours[1] > last, "nothing writes Slurm's files afterwards");
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("it.py"), &script).unwrap();
    passes(
        Command::new("python3")
            .args(["-m", "py_compile", "it.py"])
            .current_dir(folder.path()),
    );
    assert_eq!(patched("patch", &["-p1", "-i"]), script);
}

/// What `job_submit.lua` does with a job: its verdict, and what the user reads.
fn submitted(job: &str) -> (String, String) {
    let script = format!(
        r#"
        slurm = {{ SUCCESS = 0, ERROR = -1, log_user = function(...) print(string.format(...)) end }}
        dofile("{}")
        print("verdict " .. slurm_job_submit({job}, {{}}, 1000))
        "#,
        example("job_submit.lua").display()
    );
    let output = passes(Command::new("lua5.4").args(["-e", &script]));
    let (said, verdict) = output.trim().rsplit_once("verdict ").unwrap();
    (verdict.to_owned(), said.to_owned())
}

#[test]
fn the_lua_example_refuses_each_variable_that_always_aborts_libfabric_and_no_other() {
    use profiles::rules::{Effect, HARMFUL, Match};
    let aborts = HARMFUL
        .iter()
        .filter(|it| it.effect == Effect::Abort && matches!(it.matches, Match::Present));
    let aborts: Vec<&str> = aborts.map(|it| it.variable).collect();
    assert!(aborts.len() >= 3);
    for name in &aborts {
        let job = format!(r#"{{ script = "x", environment = {{ {name} = "1" }} }}"#);
        let (verdict, said) = submitted(&job);
        assert_eq!(verdict, "-1", "{name}");
        assert!(said.contains(name), "{said}");
    }
    let text = fs::read_to_string(example("job_submit.lua")).unwrap();
    let list = text
        .lines()
        .find(|it| it.starts_with("local ABORTS"))
        .unwrap();
    assert_eq!(list.matches("FI_").count(), aborts.len(), "{list}");
    // srun brings no environment and has been checked by the plugin.
    assert_eq!(submitted("{ environment = nil }").0, "0");
}

#[test]
fn the_lua_example_advises_a_profile_only_where_one_is_missing() {
    let gpus = r#"script = "x", min_nodes = 2, tres_per_node = "gres/gpu:8""#;
    let option = r#"spank_job_env = { [0] = "_SLURM_SPANK_OPTION_spank_efa_efa_profile=p5" }"#;
    let advice = "--efa-profile=auto";
    assert!(submitted(&format!("{{ {gpus} }}")).1.contains(advice));
    for job in [
        format!("{{ {gpus}, {option} }}"),
        format!("{{ {} }}", gpus.replace('2', "1")),
        r#"{ script = "x", min_nodes = 4294967294, tres_per_node = "gpu:1" }"#.to_owned(),
        r#"{ script = "x", min_nodes = 2 }"#.to_owned(),
    ] {
        let (verdict, said) = submitted(&job);
        assert_eq!((verdict.as_str(), said.as_str()), ("0", ""), "{job}");
    }
}

/// Whether NHC's check passes when `efa-check` ends with this code.
fn nhc_passes(check: &str, code: i32) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("efa-check");
    fs::write(&program, format!("#!/bin/sh\nexit {code}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(check.contains("/usr/sbin/efa-check"), "{check}");
    let check = check.replace("/usr/sbin/efa-check", &program.to_string_lossy());
    let script = format!("die() {{ return \"$1\"; }}\n{check}");
    run(Command::new("bash").args(["-c", &script]))
        .status
        .success()
}

#[test]
fn nhc_drains_no_node_for_what_efa_check_could_not_tell() {
    let text = fs::read_to_string(example("nhc.conf")).unwrap();
    let check = nhc_checks(&text)[0];
    for code in [0, 1, 2, 3, 78] {
        assert!(nhc_passes(check, code), "exit code {code}");
    }
    // The other way, where NHC drains: for a fatal finding alone.
    let other = text.replace("#* ||", "* ||");
    let other = nhc_checks(&other)[1];
    for code in [0, 1, 2, 3, 78] {
        assert_eq!(nhc_passes(other, code), code != 2, "exit code {code}");
    }
}
