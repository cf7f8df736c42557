//! `slurm::conf` against a running slurmctld, on generated trees of slurm.conf
//! and its includes: what `scontrol show config` says is what is read.

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use slurm::conf::reader::Disk;
use slurm::conf::slurm_conf::SlurmConf;

use super::{failed, texts, try_trees};
use crate::testbed::Testbed;

/// Keys whose values slurmctld takes as they are, and prints.
const KEYS: [&str; 8] = [
    "Epilog",
    "HealthCheckProgram",
    "MailProg",
    "SrunEpilog",
    "SrunProlog",
    "TaskEpilog",
    "TaskProlog",
    "UnkillableStepProgram",
];

/// The files that slurm.conf may include, in this order; the last is in a
/// folder below.
const FILES: [&str; 4] = [
    "second.conf",
    "testbed_third.conf",
    "fourth.conf",
    "below/fifth.conf",
];

/// A line of a generated file.
#[derive(Debug, Clone)]
enum Made {
    Pair {
        key: String,
        equals: &'static str,
        value: String,
        tail: &'static str,
    },
    /// Of this many files further on, in this spelling.
    Include(usize, Spelling),
    Noise(&'static str),
}

#[derive(Debug, Clone, Copy)]
enum Spelling {
    Relative,
    Absolute,
    Cluster,
}

fn spelled(key: &'static str) -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just(key.to_owned()),
        1 => Just(key.to_ascii_lowercase()),
        1 => Just(key.to_ascii_uppercase()),
    ]
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "/[a-z]{1,6}(/[a-z0-9._-]{1,6}){0,2}",
        1 => "\"/[a-z]{1,4}\"",
        1 => "\"/[a-z]{1,4} [a-z]{1,4}\"",
        1 => r"/[a-z]{1,3}\\#[a-z]{1,3}",
        1 => "/[a-z]{1,3}[,=:%@+][a-z]{1,3}",
    ]
}

fn line() -> impl Strategy<Value = Made> {
    let key = prop::sample::select(&KEYS[..]).prop_flat_map(spelled);
    let indented = (
        prop_oneof![6 => Just(""), 1 => Just("  "), 1 => Just("\t")],
        key,
    )
        .prop_map(|(indent, key)| format!("{indent}{key}"));
    let equals = prop_oneof![
        8 => Just("="),
        1 => Just(" = "),
        1 => Just("=\t"),
        1 => Just("=\\\n"),
        1 => Just("= \\ \n  "),
        1 => Just(" \\\n = "),
    ];
    let tail = prop_oneof![
        8 => Just("\n"),
        1 => Just("  \n"),
        1 => Just("\r\n"),
        1 => Just(" # why\n"),
        1 => Just("#why\n"),
        1 => Just(" # why \\\n"),
        1 => Just(" \\\n\n"),
        1 => Just(" \\\n# a comment\n"),
    ];
    let pair =
        (indented, equals, value(), tail).prop_map(|(key, equals, value, tail)| Made::Pair {
            key,
            equals,
            value,
            tail,
        });
    let spelling = prop_oneof![
        Just(Spelling::Relative),
        Just(Spelling::Absolute),
        Just(Spelling::Cluster)
    ];
    let include = (1..FILES.len(), spelling).prop_map(|(next, how)| Made::Include(next, how));
    let noise = prop_oneof![
        Just("# a comment\n"),
        Just("\n"),
        Just(" \t\n"),
        Just("# joined? \\\n"),
    ];
    prop_oneof![8 => pair, 2 => include, 1 => noise.prop_map(Made::Noise)]
}

/// The lines that are added to slurm.conf, and those of each file.
fn tree() -> impl Strategy<Value = Vec<Vec<Made>>> {
    prop::collection::vec(prop::collection::vec(line(), 0..6), FILES.len() + 1)
}

/// The text of file `index`, 0 being slurm.conf's own.
fn text(lines: &[Made], index: usize, folder: &Path) -> String {
    let mut text = String::new();
    for line in lines {
        match line {
            Made::Pair {
                key,
                equals,
                value,
                tail,
            } => drop(write!(text, "{key}{equals}{value}{tail}")),
            // Files include only later ones, so that there is no circle.
            Made::Include(next, how) => {
                let Some(file) = FILES.get(index + next - 1) else {
                    continue;
                };
                match how {
                    Spelling::Relative => drop(writeln!(text, "Include {file}")),
                    Spelling::Absolute => {
                        let _ = writeln!(text, "include {}", folder.join(file).display());
                    }
                    Spelling::Cluster => {
                        let file = file.replace("testbed", "%c");
                        let _ = writeln!(text, "INCLUDE\t{file}");
                    }
                }
            }
            Made::Noise(noise) => text.push_str(noise),
        }
    }
    text
}

/// The keys that several lines may set, from 24.11: all their values count.
const LISTS: [&str; 1] = ["Epilog"];

/// What slurmctld says of each key: no value, one, or several.
fn slurmctlds(tb: &Testbed) -> Result<Vec<Vec<String>>, TestCaseError> {
    // slurmctld of 24.11 may hang when it is asked hundreds of times without a pause.
    if tb.scontrol(&["reconfigure"]).is_err() {
        tb.start_again().map_err(failed)?;
    }
    let shown = tb.scontrol(&["show", "config"]).map_err(failed)?.stdout;
    let values = |key: &&str| {
        let values = shown.lines().filter_map(|line| {
            let (name, value) = line.split_once('=')?;
            // The values of a list are `Epilog[0]` and so on.
            let name = name.trim().split('[').next()?;
            (name == *key).then(|| value.trim().to_owned())
        });
        values.filter(|value| value != "(null)").collect()
    };
    Ok(KEYS.iter().map(values).collect())
}

/// Tries this many trees on a testbed of their own.
///
/// # Errors
/// A tree that slurmctld reads in another way, or what stands in the way.
pub fn holds(tb: &Testbed, trees: u32) -> Result<(), Box<dyn Error>> {
    let (folder, main) = (tb.dir(), tb.dir().join("slurm.conf"));
    fs::create_dir_all(folder.join("below"))?;
    let base = fs::read_to_string(&main)?;
    let has_lists = tb.release().at_least(24, 11);
    try_trees(trees, &tree(), |tree| {
        let mut made = tree.iter().enumerate();
        let own = made.next().map(|(_, lines)| text(lines, 0, folder));
        let own = own.unwrap_or_default();
        for ((index, lines), file) in made.zip(FILES) {
            fs::write(folder.join(file), text(lines, index, folder))?;
        }
        fs::write(&main, format!("{base}{own}"))?;
        let conf = SlurmConf::read(&Disk, &main).map_err(failed)?;
        prop_assert!(
            conf.problems.is_empty(),
            "{:?} by\n{own}{}",
            conf.problems,
            texts(folder, &FILES)
        );
        let slurms = slurmctlds(tb)?;
        for (key, slurms) in KEYS.iter().zip(&slurms) {
            let ours = match has_lists && LISTS.contains(key) {
                true => conf.values(key),
                false => conf.value(key).into_iter().collect(),
            };
            // What Slurm has by itself is not in the file.
            let by_itself = *key == "MailProg" && ours.is_empty();
            prop_assert!(
                ours == *slurms || by_itself,
                "{key}: read {ours:?}, Slurm has {slurms:?} by\n{own}{}",
                texts(folder, &FILES)
            );
        }
        Ok(())
    })
}
