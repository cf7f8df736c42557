//! Configurations in the shape of those that clusters have: `setup` twice is
//! `setup` once, `revert` gives back every byte, `doctor` finds nothing wrong with
//! the files in between, and what changes is what the description says.
//!
//! One file beside this one for each machine; `description.rs` has the format. To
//! add one, write its header and files, then let
//! `SLURM_EFA_DESCRIBE=1 cargo test -p slurm-efa --test layouts` write down what
//! set-up does there, and read that.

mod bad_input;
mod description;
mod machine;

use std::path::Path;

use description::Description;
use machine::{Entry, Machine};
use slurm_efa::setup::parts::Part;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/layouts");

fn descriptions() -> Vec<Description> {
    let mut paths: Vec<_> = std::fs::read_dir(FOLDER)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == "layout"))
        .collect();
    paths.sort();
    paths.iter().map(|path| Description::read(path)).collect()
}

/// Calls `judge` for each machine, and fails with all that it complains of.
fn each(judge: impl Fn(&Description, &Machine) -> Result<(), String>) {
    let wrong: Vec<String> = descriptions()
        .iter()
        .filter_map(|description| {
            let machine = Machine::new(description);
            let complaint = judge(description, &machine).err()?;
            Some(format!("{}: {complaint}", description.name))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, one: &T, other: &T) -> Result<(), String> {
    match one == other {
        true => Ok(()),
        false => Err(format!("{what}:\n{one:#?}\n{other:#?}")),
    }
}

#[test]
fn setup_changes_what_the_description_says_and_leaves_all_else() {
    each(|description, machine| {
        let before = machine.files();
        let notes = machine.set_up();
        let changes = machine.changes_since(&before);
        if std::env::var_os("SLURM_EFA_DESCRIBE").is_some() {
            description.write(&notes, &machine.findings(), &changes);
            return Ok(());
        }
        same("notes", &description.notes, &notes)?;
        same("changes", &description.changes, &changes)
    });
}

#[test]
fn a_second_setup_changes_nothing() {
    each(|_, machine| {
        let first = machine.set_up();
        let once = machine.files();
        let second = machine.set_up();
        same("notes", &first, &second)?;
        same("files", &once, &machine.files())
    });
}

#[test]
fn revert_gives_back_every_byte() {
    each(|_, machine| {
        let before = machine.own_files();
        machine.set_up();
        machine.revert();
        same("files", &before, &machine.own_files())
    });
}

#[test]
fn doctor_finds_nothing_wrong_with_the_files_after_setup() {
    each(|description, machine| {
        machine.set_up();
        same("findings", &description.findings, &machine.findings())
    });
}

#[test]
fn slurms_own_scontrol_accepts_slurm_conf_before_setup_and_after() {
    each(|_, machine| {
        machine
            .scontrol()
            .map_err(|said| format!("before: {said}"))?;
        machine.set_up();
        machine.scontrol().map_err(|said| format!("after: {said}"))
    });
}

#[test]
fn lines_that_an_earlier_release_put_beside_the_sites_folder_stay_and_it_gets_no_links() {
    let path = Path::new(FOLDER).join("pcluster-head-24.11.layout");
    let mut description = Description::read(&path);
    let conf = description.files.get_mut(&description.conf).unwrap();
    let Entry::Text(text) = conf else {
        unreachable!();
    };
    for key in ["prolog", "epilog"] {
        let folder = format!("{{root}}/etc/slurm-efa/{key}.d");
        text.push_str(&format!("{key}={folder}/* # slurm-efa\n"));
    }
    let machine = Machine::new(&description);
    let before = machine.files();
    machine.set_up();
    let changes = machine.changes_since(&before);
    let links = changes.keys().filter(|path| path.contains("/scripts/"));
    assert_eq!(links.count(), 0, "{changes:#?}");
    let ours = &changes[&description.conf];
    assert!(ours.contains(&"+Prolog=/etc/slurm-efa/prolog.d/*".to_owned()));
}

#[test]
fn a_part_that_is_reverted_takes_only_its_link_out_of_the_sites_folder() {
    let path = Path::new(FOLDER).join("pcluster-head.layout");
    let description = Description::read(&path);
    let machine = Machine::new(&description);
    machine.set_up();
    let before = machine.files();
    machine.revert_only(Part::Health);
    let gone: Vec<String> = machine
        .changes_since(&before)
        .into_iter()
        .filter_map(|(path, lines)| (lines == ["is gone"]).then_some(path))
        .collect();
    assert_eq!(
        gone,
        ["/opt/slurm/etc/scripts/prolog.d/50-efa-check-prolog"]
    );
}

#[test]
fn thirty_machines_and_more_are_described() {
    assert!(descriptions().len() >= 30);
    assert!(Path::new(FOLDER).join("parts").is_dir());
}
