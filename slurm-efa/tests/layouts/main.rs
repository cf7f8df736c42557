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
use machine::Machine;

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
fn thirty_machines_and_more_are_described() {
    assert!(descriptions().len() >= 30);
    assert!(Path::new(FOLDER).join("parts").is_dir());
}
