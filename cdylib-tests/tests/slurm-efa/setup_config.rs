//! `slurm-efa setup --config FILE` reaches every part. Needs root.

use std::fs;
use std::path::Path;

use cdylib_tests::efa_cluster;

use crate::setup::{Site, program};

#[test]
fn every_part_of_the_setup_reads_the_configuration_that_it_was_given() {
    let site = Site::new("");
    site.set_up();
    let config = site.tb.dir().join(efa_cluster::CONFIG);
    let config = config.to_str().unwrap();
    let [_, plugstack, stack] = site.texts().try_into().unwrap();
    assert!(
        plugstack.contains(&format!("spank_efa.so config={config} #")),
        "{plugstack}"
    );
    let lines = efa_cluster::lines_with(
        &stack,
        &["pam_slurm_logout.so", &format!(" config={config} #")],
    );
    assert_eq!(lines.len(), 2, "{stack}");
    let unit = "etc/systemd/system/slurm-logoutd.service.d/slurm-efa.conf";
    let drop_in = fs::read_to_string(site.path(unit)).unwrap();
    let call = format!("ExecStart=\nExecStart=/usr/sbin/slurm-logoutd --config {config}\n");
    assert!(drop_in.ends_with(&call), "{drop_in}");
    for script in [
        "prolog.d/slurm-efa-job-prolog",
        "prolog.d/efa-check-prolog",
        "efa-check-healthcheck",
    ] {
        let text = fs::read_to_string(site.path("etc/slurm-efa").join(script)).unwrap();
        let first = text.lines().next().unwrap();
        // No shell, which would cost each job a process.
        assert!(first.starts_with("#!/tmp/"), "{first}");
        assert!(first.ends_with(&format!(" --config={config}")), "{first}");
    }
    efa_cluster::step(&site.tb, &[], &["true"]);
    for state in ["state/efa-check.json", "state/last-start"] {
        assert!(site.tb.dir().join(state).exists(), "{state}");
    }
    {
        let _daemon = site.daemon();
        assert_eq!(site.doctor(), (0, Vec::new()));
    }
    assert_eq!(site.run("revert", "compute", &[]).code(), 0);
    assert!(!site.path(unit).parent().unwrap().exists());
}

#[test]
fn a_setup_by_the_usual_configuration_takes_the_other_one_out_of_every_part() {
    let site = Site::new("");
    site.set_up();
    let config = site.tb.dir().join(efa_cluster::CONFIG);
    fs::create_dir_all(site.path("etc/slurm-efa")).unwrap();
    fs::copy(&config, site.path("etc/slurm-efa/slurm-efa.toml")).unwrap();
    let (conf, root) = (site.conf(), site.tree.root.clone());
    for role in ["compute", "controller"] {
        let program = program();
        let output = site
            .tb
            .command("root", &[&program, "setup", "--role", role])
            .args(&[Path::new("--slurm-conf"), &conf, Path::new("--root"), &root])
            .output()
            .unwrap();
        assert_eq!(output.code(), 0, "{output}");
    }
    let name = config.to_str().unwrap();
    for text in site.texts() {
        assert!(!text.contains(name), "{text}");
    }
    let check = site.path("etc/slurm-efa/prolog.d/efa-check-prolog");
    assert_eq!(
        fs::read_link(check).unwrap(),
        site.path("usr/sbin/efa-check")
    );
    assert!(
        !site
            .path("etc/systemd/system/slurm-logoutd.service.d/slurm-efa.conf")
            .exists()
    );
}

#[test]
fn a_configuration_that_a_part_cannot_have_is_refused_with_the_reason() {
    let site = Site::new("");
    let before = site.texts();
    let text = fs::read_to_string(site.tb.dir().join(efa_cluster::CONFIG)).unwrap();
    let home = tempfile::tempdir_in("/root").unwrap();
    let blank = site.tb.dir().join("a b.toml");
    let hidden = home.path().join("a.toml");
    for (config, who, why) in [
        (&blank, "plugstack.conf, PAM and systemd", "use letters"),
        (&hidden, "slurm-logoutd", "ProtectHome="),
    ] {
        fs::write(config, &text).unwrap();
        let program = program();
        let set_up = |only: &str| {
            let call = site.tb.command(
                "root",
                &[&program, "setup", "--role", "compute", "--only", only],
            );
            let call = call
                .arg("--config")
                .arg(config)
                .arg("--root")
                .arg(&site.tree.root);
            call.arg("--slurm-conf")
                .arg("/nonexistent")
                .output()
                .unwrap()
        };
        let output = set_up("logout");
        assert_eq!(output.code(), 78, "{output}");
        assert!(
            output.stderr.contains(who) && output.stderr.contains(why),
            "{output}"
        );
        assert_eq!(site.texts(), before);
        // The health check can have it.
        assert_eq!(set_up("health").code(), 0);
    }
}
