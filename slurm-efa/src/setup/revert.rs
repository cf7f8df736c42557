//! What `revert` takes out: everything that setup put in, and nothing else.

use std::path::{Path, PathBuf};

use slurm::conf::SlurmConf;

use super::desired::left_to_controller;
use super::discover::Site;
use super::edit::{self, Lines};
use super::error::SetupError;
use super::files::{self, Change, Content};
use super::parts::{Item, Parts, Scope};
use super::paths::{EPILOGS, HEALTHCHECK, OLD_HEALTHCHECK, PARTS, PROLOGS, ROLE};
use super::plan::Plan;
use super::prologs;
use super::units;
use super::verify::is_slurms;
use cli::called;
use cluster::Role;

/// What `revert` would do here: everything of ours out, or these parts, and nothing
/// else.
///
/// # Errors
/// A file cannot be read.
pub fn plan_revert(site: &Site, only: Option<Parts>) -> Result<Plan, SetupError> {
    let scope = Scope::revert(site, only);
    let mut plan = Plan {
        scope,
        reverts: true,
        slurm_user: site.slurm_user(),
        ..Plan::default()
    };
    let left = site.has_original() && site.shared && site.role() != Ok(Role::Controller);
    // The controller's lines go before what they name.
    for path in site.edited(None) {
        let (real, before) = files::read_of(&path, plan.slurm_user)?;
        let Content::Text(text) = &before else {
            continue;
        };
        let goes = |line: &str| match Item::of_line(&path, line) {
            Some(item) => scope.takes(item),
            None => scope.is_whole,
        };
        if !edit::has_ours(text) || (!scope.is_whole && edit::ours(text, goes).is_empty()) {
            continue;
        }
        if left && is_slurms(site, &real) {
            let note = left_to_controller(site, "revert");
            if !plan.notes.contains(&note) {
                plan.notes.push(note);
            }
            continue;
        }
        plan.text(&path, |text| match scope.is_whole {
            true => edit::without_ours(text),
            false => Lines::without(text, goes).into_text(),
        })?;
    }
    prologs::unlink(site, &mut plan);
    links(site, &mut plan);
    for daemon in units::DAEMONS.iter().filter(|it| scope.takes(it.item)) {
        daemon.plan(site, &mut plan, None)?;
    }
    if !plan.stays.is_empty() {
        return Ok(plan);
    }
    if !scope.is_whole {
        if Parts::recorded(site).is_some() {
            plan.text(&site.place(PARTS), |_| scope.record())?;
        }
        return Ok(plan);
    }
    for path in [ROLE, PARTS] {
        let (path, before) = files::read(&site.place(path))?;
        if before != Content::Nothing {
            plan.changes.push(Change {
                path,
                before,
                after: Content::Nothing,
            });
        }
    }
    Ok(plan)
}

/// Plans the way back of the links. A node whose prolog or epilog is gone while
/// Slurm still asks for it is drained, so those stay until the controller is
/// reverted.
fn links(site: &Site, plan: &mut Plan) {
    let scope = plan.scope;
    // What Slurm reads once this is done.
    let conf = plan.slurm_conf_after(site);
    for (place, command) in [
        (PROLOGS, Some("prolog")),
        (EPILOGS, Some("epilog")),
        (HEALTHCHECK, None),
        (OLD_HEALTHCHECK, None),
    ] {
        if plan.stays.contains(&place) {
            continue;
        }
        let links: Vec<PathBuf> = match command {
            None if scope.takes(Item::EfaCheck) => vec![site.place(place)],
            None => Vec::new(),
            Some(command) => {
                let programs = called::PROGRAMS.iter();
                let programs = programs.filter(|it| {
                    it.commands.contains(&command) && scope.takes(Item::of_program(it))
                });
                programs
                    .map(|it| site.place(place).join(it.link(command)))
                    .collect()
            }
        };
        let stay_filled = !scope.is_whole && has_others(&site.place(place), &links);
        let named = asked(site, &conf, place);
        if let Some(key) = named.filter(|_| !links.is_empty() && !stay_filled) {
            plan.notes.push(format!(
                "{place} stays, since this cluster's slurm.conf still names it as {key}: revert on \
                 the controller first, then here"
            ));
            plan.stays.push(place);
            continue;
        }
        for link in links {
            plan.link(link, Content::Nothing);
        }
    }
}

/// The key by which Slurm asks for a program or a folder of ours.
fn asked(site: &Site, conf: &SlurmConf, place: &str) -> Option<&'static str> {
    let place = site.place_text(place);
    let mut keys = ["Prolog", "Epilog", "HealthCheckProgram"].into_iter();
    keys.find(|key| {
        let values = conf.values(key);
        values.iter().any(|it| it.starts_with(&place))
    })
}

/// Whether a folder has programs that Slurm's pattern matches besides these links.
fn has_others(folder: &Path, links: &[PathBuf]) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut visible = entries.filter(|it| !it.file_name().as_encoded_bytes().starts_with(b"."));
    visible.any(|it| !links.contains(&it.path()))
}

#[cfg(test)]
mod tests {
    use config::{Config, MissingIs};
    use findings::Findings;
    use slurm::conf::Disk;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::setup::desired::plan;
    use crate::setup::desired::slurm;
    use crate::setup::discover;
    use crate::setup::paths::{EFA_CHECK, JOB_PROGRAM, PLUGIN};
    use crate::setup::wrapper::Wrapper;
    use slurm::{Installation, Release};

    fn installation(conf: &Path) -> Installation {
        let read = SlurmConf::read(&Disk, conf).unwrap();
        Installation::known(conf.to_owned(), read, Some(Release::new(24, 11)))
    }

    /// A node without Slurm's programs, whose slurm.conf is `conf`.
    fn site(dir: &Path, role: Role, conf: &str) -> Site {
        let root = dir.join("root");
        let there =
            [PLUGIN, EFA_CHECK, JOB_PROGRAM].map(|it| root.join(it.trim_start_matches('/')));
        for path in there {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let slurm_conf = dir.join("etc/slurm.conf");
        fs::create_dir_all(dir.join("etc")).unwrap();
        fs::write(&slurm_conf, conf).unwrap();
        let config = Config::load(&dir.join("none.toml"), MissingIs::Default);
        Site {
            wanted: discover::Wanted {
                role: Some(role),
                root: Some(root),
                ..discover::Wanted::default()
            },
            slurm: installation(&dir.join("etc/slurm.conf")),
            shared: false,
            config: config.map_err(|error| error.to_string()),
            mistakes: Findings::default(),
        }
    }

    fn changed(plan: &Plan) -> Vec<String> {
        let name = |it: &Change| it.path.file_name().unwrap().to_string_lossy().into_owned();
        plan.changes.iter().map(name).collect()
    }

    #[test]
    fn a_revert_leaves_each_link_that_slurm_still_asks_for_and_takes_out_the_others() {
        let links = [
            (
                "Prolog",
                PROLOGS,
                vec![
                    "slurm-efa-job-prolog",
                    "efa-check-prolog",
                    "gres-helper-prolog",
                ],
            ),
            (
                "Epilog",
                EPILOGS,
                vec!["slurm-efa-job-epilog", "gres-helper-epilog"],
            ),
            (
                "HealthCheckProgram",
                HEALTHCHECK,
                vec!["efa-check-healthcheck"],
            ),
        ];
        for (key, place, kept) in &links {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("root");
            let place = root.join(place.trim_start_matches('/'));
            let pattern = if *key == "HealthCheckProgram" {
                ""
            } else {
                "/*"
            };
            // A line without our mark: nobody takes it out here.
            let conf = format!("{key}={}{pattern}\n", place.display());
            let site = site(dir.path(), Role::Compute, &conf);
            for (_, folder, names) in &links {
                for name in names {
                    let folder = site.place(folder);
                    let path = if folder.ends_with(name) {
                        folder
                    } else {
                        folder.join(name)
                    };
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    std::os::unix::fs::symlink("x", path).unwrap();
                }
            }
            let plan = plan_revert(&site, None).unwrap();
            let all = links.iter().flat_map(|(.., names)| names);
            let gone: Vec<&str> = all.copied().filter(|it| !kept.contains(it)).collect();
            assert_eq!(changed(&plan), gone, "{key}");
            assert_eq!(plan.notes.len(), 1, "{:?}", plan.notes);
            assert!(plan.notes[0].contains("revert on the controller first"));
        }
    }

    #[test]
    fn a_revert_that_takes_the_lines_out_leaves_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let site = site(dir.path(), Role::Controller, "");
        let mut set_up = Plan::default();
        slurm(&site, &mut set_up).unwrap();
        files::make(set_up.changes).unwrap().keep();
        let conf = site.slurm.slurm_conf.clone().unwrap();
        let site = Site {
            slurm: installation(&conf),
            ..site
        };
        assert!(
            site.slurm
                .conf
                .value("Prolog")
                .unwrap()
                .contains("prolog.d")
        );
        let plan = plan_revert(&site, None).unwrap();
        assert_eq!(changed(&plan), ["slurm.conf", "plugstack.conf"]);
        assert_eq!(plan.notes, Vec::<String>::new());
    }

    #[test]
    fn slurmd_calls_by_links_or_by_scripts_that_name_a_configuration_of_the_sites() {
        let dir = tempfile::tempdir().unwrap();
        let with = |config: Option<&str>| {
            let text = fs::read_to_string(dir.path().join("etc/slurm.conf")).unwrap_or_default();
            let mut site = site(dir.path(), Role::Compute, &text);
            site.wanted.config = config.map(Into::into);
            site
        };
        let set_up = |config| {
            let plan = plan(&with(config), Role::Compute, &[], None).unwrap();
            assert_eq!(plan.notes, Vec::<String>::new());
            files::make(plan.changes).unwrap().keep();
        };
        let place = |name: &str| dir.path().join("root").join(&name[1..]);
        let programs = [
            place(&format!("{PROLOGS}/efa-check-prolog")),
            place(HEALTHCHECK),
        ];
        for config in [None, Some(config::DEFAULT_PATH)] {
            set_up(config);
            for path in &programs {
                assert_eq!(fs::read_link(path).unwrap(), place(EFA_CHECK));
            }
        }
        set_up(Some("/srv/site.toml"));
        for (path, command) in programs.iter().zip(["prolog", "healthcheck"]) {
            let script = fs::read_to_string(path).unwrap();
            let wrapper = Wrapper::of(&script, command).unwrap();
            assert_eq!(wrapper.program, place(EFA_CHECK));
            assert_eq!(wrapper.config, Path::new("/srv/site.toml"));
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o755);
        }
        let again = plan(&with(Some("/srv/site.toml")), Role::Compute, &[], None).unwrap();
        assert!(again.changes.is_empty(), "{:?}", again.changes);
        let revert = plan_revert(&with(None), None).unwrap();
        files::make(revert.changes).unwrap().keep();
        assert!(programs.iter().all(|path| !path.exists()));
    }

    #[test]
    fn the_health_check_of_the_last_release_stays_until_slurm_conf_names_todays() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("etc/slurm.conf");
        let planned = |role| {
            let text = fs::read_to_string(&conf).unwrap_or_default();
            let site = Site {
                shared: true,
                ..site(dir.path(), role, &text)
            };
            plan(&site, role, &[], None).unwrap()
        };
        files::make(planned(Role::Controller).changes)
            .unwrap()
            .keep();
        // As setup of the last release left it.
        let text = fs::read_to_string(&conf).unwrap();
        assert!(text.contains(HEALTHCHECK));
        fs::write(&conf, text.replace(HEALTHCHECK, OLD_HEALTHCHECK)).unwrap();
        let old = dir.path().join("root").join(&OLD_HEALTHCHECK[1..]);
        fs::create_dir_all(old.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("x", &old).unwrap();

        let node = planned(Role::Compute);
        assert!(changed(&node).contains(&"efa-check-healthcheck".to_owned()));
        assert!(!changed(&node).contains(&"efa-check-watch".to_owned()));
        let controller = planned(Role::Controller);
        files::make(controller.changes).unwrap().keep();
        let text = fs::read_to_string(&conf).unwrap();
        assert!(text.contains(HEALTHCHECK) && !text.contains(OLD_HEALTHCHECK));
        for role in [Role::Compute, Role::Login] {
            let node = planned(role);
            assert!(
                changed(&node).contains(&"efa-check-watch".to_owned()),
                "{role}"
            );
        }
    }

    #[test]
    fn what_nodes_share_is_edited_by_the_controller_alone() {
        let dir = tempfile::tempdir().unwrap();
        let with = |role, shared| {
            let conf = dir.path().join("etc/slurm.conf");
            let text = fs::read_to_string(conf).unwrap_or_default();
            Site {
                shared,
                ..site(dir.path(), role, &text)
            }
        };
        let ours = |plan: &Plan| {
            let slurms = ["slurm.conf", "plugstack.conf"];
            changed(plan).iter().any(|it| slurms.contains(&it.as_str()))
        };
        let say = "--role controller` on the controller";
        let others = [Role::Compute, Role::Login];
        for role in others {
            let plan = plan(&with(role, true), role, &[], None).unwrap();
            assert!(!ours(&plan), "{role}: {:?}", plan.changes);
            assert!(plan.notes[0].contains(say), "{:?}", plan.notes);
            assert!(ours(
                &crate::setup::desired::plan(&with(role, false), role, &[], None).unwrap()
            ));
        }
        let controller = plan(&with(Role::Controller, true), Role::Controller, &[], None).unwrap();
        assert!(ours(&controller));
        files::make(controller.changes).unwrap().keep();
        for role in others {
            // The controller has done it: there is nothing to say.
            let plan = plan(&with(role, true), role, &[], None).unwrap();
            assert_eq!(plan.notes, Vec::<String>::new(), "{role}");
            let revert = plan_revert(&with(role, true), None).unwrap();
            assert!(!ours(&revert), "{role}: {:?}", revert.changes);
            assert!(revert.notes[0].contains(say), "{:?}", revert.notes);
            assert_eq!(revert.stays, [PROLOGS, EPILOGS, HEALTHCHECK], "{role}");
        }
        // A package that is removed may not know the role: then it is not the
        // controller's.
        fs::remove_file(dir.path().join("root").join(&ROLE[1..])).unwrap();
        let mut unknown = with(Role::Compute, true);
        unknown.wanted.role = None;
        assert!(!ours(&plan_revert(&unknown, None).unwrap()));
        assert!(ours(
            &plan_revert(&with(Role::Controller, true), None).unwrap()
        ));
    }

    #[test]
    fn a_program_of_the_sites_in_the_place_of_a_link_stays_and_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let site = site(dir.path(), Role::Compute, "");
        let wrapper = site.place(PROLOGS).join("efa-check-prolog");
        fs::create_dir_all(wrapper.parent().unwrap()).unwrap();
        fs::write(&wrapper, "#!/bin/sh\n").unwrap();
        let plan = plan(&site, Role::Compute, &[], None).unwrap();
        assert!(!changed(&plan).contains(&"efa-check-prolog".to_owned()));
        assert!(plan.notes[0].contains("efa-check-prolog stays"));
        let revert = plan_revert(&site, None).unwrap();
        assert_eq!(changed(&revert), Vec::<String>::new());
        assert_eq!(revert.notes, Vec::<String>::new());
    }
}
