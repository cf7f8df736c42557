//! Files that nobody means to write: set-up says which file and line it cannot use,
//! in bounded time, and leaves everything as it is.

use std::collections::BTreeMap;
use std::fs;

use cluster::Role;

use crate::description::Description;
use crate::machine::{Entry, Machine};

const CONF: &str = "/etc/slurm/slurm.conf";
const PLUGSTACK: &str = "/etc/slurm/plugstack.conf";
const SSHD: &str = "/etc/pam.d/sshd";

/// A node that is compute node and controller, with these files.
fn node(files: &[(&str, String)]) -> Description {
    let conf = "ClusterName=bad\nSlurmctldHost=head\n".to_owned();
    let named = |(name, text): &(&str, String)| ((*name).to_owned(), Entry::Text(text.clone()));
    let mut all = BTreeMap::from([(CONF.to_owned(), Entry::Text(conf))]);
    all.extend(files.iter().map(named));
    Description {
        name: "bad input".to_owned(),
        roles: vec![Some(Role::Compute), Some(Role::Controller)],
        slurm: "23.11".to_owned(),
        conf: CONF.to_owned(),
        files: all,
        ..Description::default()
    }
}

/// The sentences of set-up.
fn said(files: &[(&str, String)]) -> Vec<String> {
    let description = node(files);
    Machine::new(&description).set_up()
}

/// Why set-up does not begin; no file has changed.
fn refused(files: &[(&str, String)]) -> String {
    let description = node(files);
    let machine = Machine::new(&description);
    let before = machine.files();
    let reason = machine.try_set_up().unwrap_err();
    assert_eq!(machine.files(), before);
    reason
}

fn comments(megabytes: usize) -> String {
    "# a comment of 32 characters.....\n".repeat(megabytes * 1024 * 1024 / 34)
}

#[test]
fn a_file_of_ten_megabytes_is_named_and_not_edited() {
    for file in [CONF, PLUGSTACK] {
        let reason = refused(&[(file, comments(10))]);
        assert!(reason.contains(file), "{reason}");
        assert!(reason.contains("larger than 4 MiB"), "{reason}");
    }
}

#[test]
fn a_hundred_thousand_lines_are_set_up_and_given_back() {
    let lines: Vec<String> = (0..100_000)
        .map(|n| format!("NodeName=n{n} CPUs=1"))
        .collect();
    let text = Entry::Text(format!("ClusterName=bad\n{}", lines.join("\n")));
    let mut description = node(&[]);
    description.roles = vec![Some(Role::Controller)];
    description.files.insert(CONF.to_owned(), text.clone());
    let machine = Machine::new(&description);
    assert_eq!(machine.set_up(), Vec::<String>::new());
    assert!(machine.files()[CONF] != text);
    machine.revert();
    assert!(machine.files()[CONF] == text, "a byte is lost");
}

#[test]
fn an_include_that_leads_back_is_named_with_its_line() {
    let conf = "ClusterName=bad\n\ninclude site.conf\n".to_owned();
    let site = "# Site\ninclude slurm.conf\n".to_owned();
    let said = said(&[(CONF, conf), ("/etc/slurm/site.conf", site)]);
    let named = "/etc/slurm/site.conf line 2: include slurm.conf: ";
    let note = said.iter().find(|it| it.starts_with(named));
    assert!(note.is_some_and(|it| it.contains("circle")), "{said:?}");
}

#[test]
fn an_include_that_cannot_be_read_is_named_with_its_line() {
    for (text, why) in [(None, "no such file"), (Some(comments(10)), "larger than")] {
        let conf = "ClusterName=bad\ninclude big.conf\n".to_owned();
        let mut files = vec![(CONF, conf)];
        files.extend(text.map(|text| ("/etc/slurm/big.conf", text)));
        let said = said(&files);
        let named = "/etc/slurm/slurm.conf line 2: include big.conf: ";
        let note = said.iter().find(|it| it.starts_with(named));
        assert!(note.is_some_and(|it| it.contains(why)), "{why}: {said:?}");
    }
}

#[test]
fn a_pattern_of_a_hundred_thousand_files_is_named_with_its_line() {
    let plugstack = "# Plugins\ninclude ps.d/*\n".to_owned();
    let description = node(&[(PLUGSTACK, plugstack)]);
    let machine = Machine::new(&description);
    let folder = machine.path("/etc/slurm/ps.d");
    fs::create_dir(&folder).unwrap();
    for n in 0..100_000 {
        fs::File::create(folder.join(format!("{n}.conf"))).unwrap();
    }
    let said = machine.set_up();
    let named = "/etc/slurm/plugstack.conf line 2: include ps.d/*: ";
    assert!(said.iter().any(|it| it.starts_with(named)), "{said:?}");
}

#[test]
fn names_with_blanks_and_line_breaks_are_read_and_shown_on_one_line() {
    let said = said(&[
        (PLUGSTACK, "include ps.d/*\n".to_owned()),
        // Circles, under other names each time.
        (
            "/etc/slurm/ps.d/a blank\nand a line break.conf",
            "include ../plugstack.conf\n".to_owned(),
        ),
    ]);
    let named = "ps.d/a blank\\nand a line break.conf line 1: include ../plugstack.conf: ";
    assert!(said.iter().any(|it| it.contains(named)), "{said:?}");
    assert!(!said.iter().any(|it| it.contains('\n')), "{said:?}");
}

#[test]
fn a_stack_that_includes_itself_is_named_and_not_edited() {
    let sshd = "account include common\nsession include common\n".to_owned();
    let common = "account include sshd\nsession required pam_unix.so\n".to_owned();
    let logout = "[logout]\nexempt_users = [\"root\"]\n".to_owned();
    let said = said(&[
        (SSHD, sshd),
        ("/etc/pam.d/common", common),
        ("/etc/slurm-efa/slurm-efa.toml", logout),
    ]);
    let note = said
        .iter()
        .find(|it| it.contains("/etc/pam.d/sshd is not edited"));
    assert!(note.is_some(), "{said:?}");
}
