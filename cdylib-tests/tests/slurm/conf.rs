//! `slurm::conf` against a running slurmctld, on generated trees of slurm.conf
//! and its includes: what `scontrol show config` says is what is read.
//!
//! `SLURM_EFA_CASES` is how many trees are tried.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use cdylib_tests::testbed::Testbed;
use proptest::prelude::*;
use slurm::conf::reader::Disk;
use slurm::conf::slurm_conf::SlurmConf;

use crate::generated;

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
            } => write!(text, "{key}{equals}{value}{tail}").unwrap(),
            // Files include only later ones, so that there is no circle.
            Made::Include(next, how) => {
                let Some(file) = FILES.get(index + next - 1) else {
                    continue;
                };
                match how {
                    Spelling::Relative => writeln!(text, "Include {file}").unwrap(),
                    Spelling::Absolute => {
                        writeln!(text, "include {}", folder.join(file).display()).unwrap();
                    }
                    Spelling::Cluster => {
                        let file = file.replace("testbed", "%c");
                        writeln!(text, "INCLUDE\t{file}").unwrap();
                    }
                }
            }
            Made::Noise(noise) => text.push_str(noise),
        }
    }
    text
}

/// What slurmctld says of the keys.
fn slurmctlds(tb: &Testbed) -> Result<Vec<Option<String>>, TestCaseError> {
    let refused = |error: cdylib_tests::testbed::Error| TestCaseError::fail(error.to_string());
    tb.scontrol(&["reconfigure"]).map_err(refused)?;
    let shown = tb.scontrol(&["show", "config"]).map_err(refused)?.stdout;
    let value = |key: &&str| {
        let line = shown.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == *key).then(|| value.trim().to_owned())
        });
        line.filter(|value| value != "(null)")
    };
    Ok(KEYS.iter().map(value).collect())
}

#[test]
fn slurm_conf_is_read_as_slurmctld_reads_it() {
    let tb = Testbed::builder().start().unwrap();
    let (folder, main) = (tb.dir(), tb.dir().join("slurm.conf"));
    fs::create_dir_all(folder.join("below")).unwrap();
    let base = fs::read_to_string(&main).unwrap();
    generated::runner(200)
        .run(&tree(), |tree| {
            let (own, others) = tree.split_first().unwrap();
            for (index, (lines, file)) in others.iter().zip(FILES).enumerate() {
                fs::write(folder.join(file), text(lines, index + 1, folder)).unwrap();
            }
            let own = text(own, 0, folder);
            fs::write(&main, format!("{base}{own}")).unwrap();
            let conf = SlurmConf::read(&Disk, &main).unwrap();
            prop_assert!(conf.problems.is_empty(), "{:?}", conf.problems);
            let ours: Vec<Option<String>> = KEYS
                .iter()
                .map(|key| conf.value(key).map(str::to_owned))
                .collect();
            let slurms = slurmctlds(&tb)?;
            for ((key, ours), slurms) in KEYS.iter().zip(&ours).zip(&slurms) {
                // What Slurm has by itself is not in the file.
                let by_itself = *key == "MailProg" && ours.is_none();
                prop_assert!(
                    ours == slurms || by_itself,
                    "{key}: read {ours:?}, Slurm has {slurms:?} by\n{own}{}",
                    generated::texts(folder, &FILES)
                );
            }
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}
