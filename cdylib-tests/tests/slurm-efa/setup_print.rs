//! `slurm-efa setup --print`, whose lines another tool writes. Needs root.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cdylib_tests::efa_cluster;

use crate::setup::{Site, program};

/// The lines by file, and by the place that is said after its name.
fn printed(site: &Site, role: &str, more: &[&str]) -> BTreeMap<(PathBuf, String), String> {
    let output = site.run("setup", role, &[&["--print"], more].concat());
    assert_eq!(output.code(), 0, "{output}");
    assert_eq!(output.stderr, "", "{output}");
    let mut files = BTreeMap::new();
    for block in output.stdout.split("\n\n") {
        let (head, lines) = block.split_once('\n').unwrap_or((block, ""));
        let head = head.strip_prefix("# ").unwrap_or_else(|| panic!("{block}"));
        let (path, place) = head.split_once(": ").unwrap_or((head, ""));
        let key = (PathBuf::from(path), place.to_owned());
        files.insert(key, format!("{}\n", lines.trim_end()));
    }
    files
}

/// Puts what was printed into the files, as Ansible does.
fn paste(files: BTreeMap<(PathBuf, String), String>) {
    for ((path, place), lines) in files {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let before = fs::read_to_string(&path).unwrap_or_default();
        let text = match place.as_str() {
            "before its first account line" => format!("{lines}{before}"),
            "an executable file" => lines,
            _ => format!("{before}{lines}"),
        };
        let mode = if place == "an executable file" {
            0o755
        } else {
            0o644
        };
        fs::write(&path, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(&path, mode).unwrap();
    }
}

#[test]
fn what_is_printed_is_what_setup_would_write_and_leaves_it_nothing_to_do() {
    let site = Site::new("");
    let before = site.texts();
    let roles = ["compute", "controller"];
    // The site's template of slurm.conf sets the flags once.
    let own = |text: &str| text.replace("\nPrologFlags=", "\n# PrologFlags=");
    // Both have Slurm's files here.
    let mut files = printed(&site, "compute", &[]);
    files.extend(printed(&site, "controller", &[]));
    assert_eq!(site.texts(), before);
    fs::write(site.conf(), own(&before[0])).unwrap();
    paste(files);
    let pasted = site.texts();
    for role in roles {
        let output = site.run("setup", role, &[]);
        assert_eq!(output.code(), 0, "{role}: {output}");
    }
    assert_eq!(site.texts(), pasted);
    {
        let _daemon = site.daemon();
        assert_eq!(site.doctor(), (0, Vec::new()));
    }
    // A template that is rendered again keeps its lines.
    let again = printed(&site, "controller", &[]);
    let (conf, plugstack) = (site.conf(), site.plugstack());
    let of = |path: &Path| again[&(path.to_owned(), String::new())].clone();
    for key in [
        "PrologFlags=",
        "Prolog=",
        "Epilog=",
        "HealthCheckProgram=",
        "HealthCheckInterval=",
    ] {
        assert!(
            of(&conf).contains(&format!("\n{key}")) || of(&conf).starts_with(key),
            "{key}"
        );
    }
    assert!(of(&plugstack).starts_with("optional "));
    let config = fs::read_to_string(&plugstack).unwrap();
    assert!(config.contains(efa_cluster::CONFIG), "{config}");
}

#[test]
fn a_part_alone_is_printed_alone() {
    let site = Site::new("");
    let files = printed(&site, "controller", &["--only", "health"]);
    let names: Vec<&Path> = files.keys().map(|(path, _)| path.as_path()).collect();
    assert_eq!(names, [site.conf()]);
    assert!(files.values().all(|lines| !lines.contains("Epilog=")));
    let files = printed(&site, "compute", &["--only", "logout"]);
    let sshd = files
        .keys()
        .filter(|(path, _)| path.ends_with("etc/pam.d/sshd"));
    assert_eq!(sshd.count(), 2);
    assert!(
        !files
            .keys()
            .any(|(path, _)| path.ends_with("efa-check-prolog"))
    );
}

#[test]
fn without_root_and_without_slurm_the_lines_are_printed() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(
        dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let mut command = std::process::Command::new(program());
    command.args([
        "setup",
        "--print",
        "--role",
        "controller",
        "--slurm-conf",
        "/nonexistent/slurm.conf",
    ]);
    command.arg("--root").arg(dir.path());
    std::os::unix::process::CommandExt::uid(&mut command, 65534);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("slurm.conf\nPrologFlags=Alloc,Contain\nHealthCheckProgram="),
        "{text}"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
