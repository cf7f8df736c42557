//! lib/pam-stack against the machine's libpam, on generated stacks: the same
//! rules are asked, in the same order, and the same is said in the end.
//!
//! The modules of the stacks are one made for this, which writes its name to a
//! file and answers what its line says. `SLURM_EFA_CASES` is how many stacks are
//! tried.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use cdylib_tests::libpam::{Libpam, SUCCESS, Scope};
use cdylib_tests::modules;
use pam_stack::Phase;
use pam_stack::chain::{self, ChainError, Files, Kind, Link};
use pam_stack::control::Code;
use pam_stack::flow::{self, End};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// The files that a stack is made of; the first is the service.
const FILES: [&str; 4] = ["service", "second", "third", "fourth"];

/// A line of a generated file.
#[derive(Debug, Clone)]
enum Made {
    Module {
        head: &'static str,
        control: String,
        code: u8,
        tail: &'static str,
    },
    Other {
        head: &'static str,
        /// How many files further on.
        next: usize,
    },
    Noise(&'static str),
}

fn control() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("required"),
        Just("requisite"),
        Just("sufficient"),
        Just("optional"),
        Just("Required"),
        Just("SUFFICIENT"),
    ];
    let answer = prop_oneof![
        4 => Just("success"),
        2 => Just("default"),
        1 => Just("ignore"),
        1 => Just("perm_denied"),
        1 => Just("new_authtok_reqd"),
        1 => Just("user_unknown"),
    ];
    let action = prop_oneof![
        Just("ok"),
        Just("done"),
        Just("ignore"),
        Just("bad"),
        Just("die"),
        Just("reset"),
        Just("1"),
        Just("2"),
        Just("3"),
        Just("0"),
    ];
    let pairs = prop::collection::vec((answer, action), 1..4).prop_map(|pairs| {
        let pairs = pairs
            .iter()
            .map(|(answer, action)| format!("{answer}={action}"));
        format!("[{}]", pairs.collect::<Vec<_>>().join(" "))
    });
    prop_oneof![word.prop_map(str::to_owned), pairs]
}

fn line() -> impl Strategy<Value = Made> {
    let head = prop_oneof![
        12 => Just("account "),
        1 => Just("-account\t"),
        1 => Just("  ACCOUNT  "),
        2 => Just("session "),
    ];
    let code = prop_oneof![
        5 => Just(0),
        2 => Just(25),
        2 => Just(6),
        1 => Just(10),
        1 => Just(12),
    ];
    let tail = prop_oneof![
        10 => Just(""),
        1 => Just(" # why"),
        1 => Just(" \\\n  more"),
        1 => Just("\\\n"),
        1 => Just(" \\ \n"),
        1 => Just(" \r"),
        1 => Just(" \\\r\n more"),
        1 => Just(" more\\\n\\\n"),
        1 => Just(" # why \\"),
        1 => Just("\t "),
    ];
    let module =
        (head, control(), code, tail).prop_map(|(head, control, code, tail)| Made::Module {
            head,
            control,
            code,
            tail,
        });
    let other = prop_oneof![
        Just("@include "),
        Just("account include "),
        Just("account substack "),
        Just("account\tSubstack\t"),
        Just("session include "),
    ];
    let other = (other, 1..3_usize).prop_map(|(head, next)| Made::Other { head, next });
    let noise = prop_oneof![
        Just("# a comment"),
        Just(""),
        Just("  \t"),
        Just("# joined? \\")
    ];
    prop_oneof![8 => module, 2 => other, 1 => noise.prop_map(Made::Noise)]
}

fn stack() -> impl Strategy<Value = Vec<Vec<Made>>> {
    prop::collection::vec(prop::collection::vec(line(), 1..6), FILES.len())
}

/// Writes the files. Each module is called by a number of its own.
fn write(stack: &[Vec<Made>], folder: &Path) {
    let (module, record) = (modules::example("pam_answer"), folder.join("asked"));
    let mut number = 0;
    for (index, lines) in stack.iter().enumerate() {
        let mut text = String::new();
        for line in lines {
            match line {
                Made::Module {
                    head,
                    control,
                    code,
                    tail,
                } => {
                    let (module, record) = (module.display(), record.display());
                    writeln!(
                        text,
                        "{head}{control} {module} {record} {number} {code}{tail}"
                    )
                    .unwrap();
                    number += 1;
                }
                // Files include only later ones, so that there is no circle.
                Made::Other { head, next } => {
                    if let Some(file) = FILES.get(index + next) {
                        // By its whole path: libpam 1.5.2 looks for others in
                        // /etc/pam.d even where the service is elsewhere.
                        writeln!(text, "{head}{}", folder.join(file).display()).unwrap();
                    }
                }
                Made::Noise(noise) => writeln!(text, "{noise}").unwrap(),
            }
        }
        fs::write(folder.join(FILES[index]), text).unwrap();
    }
}

struct Folder;

impl Files for Folder {
    fn text(&self, path: &Path) -> Result<String, String> {
        fs::read_to_string(path).map_err(|error| error.to_string())
    }
}

/// The name and the answer in a link's line.
fn name_and_answer(link: &Link) -> (String, Code) {
    let Kind::Module { arguments, .. } = &link.kind else {
        panic!("a substack is not asked");
    };
    let words: Vec<&str> = arguments.split_whitespace().collect();
    (words[1].to_owned(), Code(words[2].parse().unwrap()))
}

fn cases() -> u32 {
    std::env::var("SLURM_EFA_CASES").map_or(400, |cases| cases.parse().unwrap())
}

fn try_stacks(check: impl Fn(&Path, &[Link]) -> Result<(), TestCaseError>) {
    let mut runner = TestRunner::new(Config {
        cases: cases(),
        failure_persistence: None,
        max_global_rejects: u32::MAX,
        ..Config::default()
    });
    runner
        .run(&stack(), |stack| {
            let folder = tempfile::tempdir().unwrap();
            write(&stack, folder.path());
            let chain = chain::read(&Folder, folder.path(), FILES[0], Phase::Account);
            match chain {
                Ok(chain) => check(folder.path(), &chain),
                // What is not understood is not judged.
                Err(ChainError::NotUnderstood { .. }) => Err(TestCaseError::reject("refused")),
                Err(error) => Err(TestCaseError::fail(error.to_string())),
            }
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

/// What libpam asked, by name, and whether the phase succeeded.
fn libpams(libpam: &Libpam, folder: &Path) -> (Vec<String>, bool) {
    let record = folder.join("asked");
    fs::write(&record, "").unwrap();
    let mut login = libpam.start(folder, FILES[0], "root").unwrap();
    let code = login.call(c"pam_acct_mgmt", 0).unwrap();
    drop(login);
    let asked = fs::read_to_string(&record).unwrap();
    (asked.lines().map(str::to_owned).collect(), code == SUCCESS)
}

#[test]
fn the_rules_that_libpam_asks_and_what_it_says_are_known_beforehand() {
    let libpam = Libpam::load(Scope::Local).unwrap();
    try_stacks(|folder, chain| {
        let walked = flow::walk(chain, |at| name_and_answer(&chain[at]).1);
        let asked: Vec<String> = walked
            .asked
            .iter()
            .map(|at| name_and_answer(&chain[*at]).0)
            .collect();
        let (really, success) = libpams(&libpam, folder);
        prop_assert_eq!(
            (asked, walked.success),
            (really, success),
            "{}",
            texts(folder)
        );
        Ok(())
    });
}

/// All answers of up to three modules are tried.
#[test]
fn a_rule_is_passed_over_exactly_where_some_answers_lead_past_it() {
    const ANSWERS: [u8; 6] = [0, 6, 10, 12, 25, 4];
    try_stacks(|folder, chain| {
        let modules: Vec<usize> = (0..chain.len())
            .filter(|at| matches!(chain[*at].kind, Kind::Module { .. }))
            .collect();
        if modules.is_empty() || modules.len() > 5 {
            return Ok(());
        }
        let mut missed: BTreeMap<(usize, bool), bool> = BTreeMap::new();
        for round in 0..ANSWERS.len().pow(u32::try_from(modules.len()).unwrap()) {
            let mut rest = round;
            let mut answers = BTreeMap::new();
            for at in &modules {
                answers.insert(*at, Code(ANSWERS[rest % ANSWERS.len()]));
                rest /= ANSWERS.len();
            }
            let walked = flow::walk(chain, |at| answers[&at]);
            for at in &modules {
                let missing = !walked.asked.contains(at);
                *missed.entry((*at, false)).or_default() |= missing;
                *missed.entry((*at, true)).or_default() |= missing && walked.success;
            }
        }
        for ((at, success), missed) in missed {
            let end = if success { End::Success } else { End::Any };
            let passed = flow::passed_over(chain, at, end).is_some();
            prop_assert_eq!(passed, missed, "link {} of {}", at, texts(folder));
        }
        Ok(())
    });
}

fn texts(folder: &Path) -> String {
    FILES.iter().fold(String::new(), |mut all, file| {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        write!(all, "\n== {file}\n{text}").unwrap();
        all
    })
}
