//! `slurm-efa setup --only` and `revert --only` on a real Slurm. Needs root.

use std::fs;

use cdylib_tests::efa_cluster;

use crate::setup::Site;

const ROLES: [&str; 2] = ["compute", "controller"];

fn on_both(site: &Site, command: &str, roles: [&str; 2], only: &str) {
    for role in roles {
        let output = site.run(command, role, &["--only", only]);
        assert_eq!(output.code(), 0, "{command} {role} --only {only}: {output}");
    }
}

fn in_force(site: &Site) -> String {
    site.tb.scontrol(&["show", "config"]).unwrap().stdout
}

#[test]
fn with_the_health_part_alone_slurm_runs_efa_check_and_nothing_else_and_the_doctor_agrees() {
    let site = Site::new("");
    let before = site.texts();
    on_both(&site, "setup", ROLES, "health");
    let config = in_force(&site);
    assert!(config.contains("efa-check-healthcheck"), "{config}");
    assert!(config.contains("slurm-efa/prolog.d/*"), "{config}");
    assert!(!config.contains("epilog.d"), "{config}");
    assert_eq!(site.texts()[1..], before[1..], "more than slurm.conf");
    let prologs = fs::read_dir(site.path("etc/slurm-efa/prolog.d")).unwrap();
    let names: Vec<_> = prologs.map(|it| it.unwrap().file_name()).collect();
    assert_eq!(names, ["efa-check-prolog"]);
    efa_cluster::step(&site.tb, &[], &["true"]);
    assert!(site.tb.dir().join("state/efa-check.json").exists());
    assert_eq!(site.doctor(), (0, Vec::new()));
    on_both(&site, "revert", ["controller", "compute"], "health");
    assert_eq!(site.texts(), before);
    assert!(!site.path("etc/slurm-efa/prolog.d").exists());
    assert!(!site.path("var/lib/slurm-efa/parts").exists());
}

#[test]
fn a_part_that_is_taken_back_leaves_the_others_at_work() {
    let site = Site::new("");
    on_both(&site, "setup", ROLES, "profiles,hugepages");
    let before = site.texts();
    on_both(&site, "setup", ROLES, "health,logout");
    assert_ne!(site.texts(), before);
    {
        let _daemon = site.daemon();
        assert_eq!(site.doctor(), (0, Vec::new()));
    }
    on_both(&site, "revert", ["controller", "compute"], "health,logout");
    assert_eq!(site.texts(), before);
    assert_eq!(site.doctor(), (0, Vec::new()));
    let seen = efa_cluster::step(&site.tb, &[], &["--efa-profile=p5", "env"]);
    let devices = efa_cluster::Vars::of(&seen.stdout)
        .get("SLURM_EFA_DEVICES")
        .map(str::to_owned);
    assert_eq!(devices.as_deref(), Some("32"));
    assert!(!in_force(&site).contains("healthcheck"));
}

#[test]
fn a_health_check_that_slurm_still_asks_for_stays_on_the_node() {
    let site = Site::new("SlurmctldParameters=enable_configless");
    site.set_up();
    let output = site.run("revert", "compute", &["--only", "health", "--dry-run"]);
    // The controller's file is here, too: its lines go in the same plan.
    let link = site.path("etc/slurm-efa/efa-check-healthcheck");
    let gone = format!("--- {}\n+++ /dev/null\n", link.display());
    assert!(output.stdout.contains(&gone), "{output}");
    let output = site.revert_of_a_node(&["--only", "health"]);
    assert_eq!(output.code(), 1, "{output}");
    assert!(
        output.stderr.contains("revert on the controller first"),
        "{output}"
    );
    assert!(site.path("etc/slurm-efa/efa-check-healthcheck").exists());
    // slurm-efa-job's link keeps the folder filled.
    let prologs = site.path("etc/slurm-efa/prolog.d");
    assert!(!prologs.join("efa-check-prolog").exists());
    assert!(prologs.join("slurm-efa-job-prolog").exists());
}

#[test]
fn a_part_without_its_section_is_refused() {
    let site = Site::new("");
    let before = site.texts();
    let output = site.run("setup", "compute", &["--only", "gres"]);
    assert_eq!(output.code(), 69, "{output}");
    assert!(output.stderr.contains("no [gres]"), "{output}");
    let output = site.run("setup", "compute", &["--only", "helth"]);
    assert_eq!(output.code(), 64, "{output}");
    let gres = ["--only", "health", "--gres-conf", "/x"];
    let output = site.run("setup", "controller", &gres);
    assert_eq!(output.code(), 64, "{output}");
    assert_eq!(site.texts(), before);
}
