//! The table of keys against the parsers: it has every key and no other, its
//! values are accepted, what it says of a key that is not there is true, and a
//! wrong value is refused on its line.

use std::collections::BTreeSet;
use std::path::Path;

use config::reference::{Key, Kind, PROFILE, SECTIONS, Section, Without};
use config::sections::{gres, health, hugepages, logout, report};
use config::{Config, examine_text};

/// What is still read, and no longer to be written.
const OLD: [&str; 4] = [
    "max_log_mib",
    "nvml_seconds",
    "sample_seconds",
    "grace_seconds",
];

/// Tables, which the reference has as sections.
const TABLES: [&str; 6] = ["profile", "hugepages", "health", "logout", "gres", "report"];

fn keys() -> impl Iterator<Item = (&'static Section, &'static Key)> {
    let of_section = |section: &'static Section| section.keys.iter().map(move |key| (section, key));
    SECTIONS.iter().flat_map(of_section)
}

/// A file with one line in one section, and the number of that line.
fn file(section: &Section, line: &str) -> (String, usize) {
    match section.header() {
        Some(header) => (format!("# A comment.\n\n{header}\n{line}\n"), 4),
        None => (format!("# A comment.\n\n{line}\n"), 3),
    }
}

fn examined(text: &str) -> (Config, Vec<String>) {
    let (config, problems) = examine_text(text, Path::new("/etc/x.toml"));
    (config, problems.iter().map(ToString::to_string).collect())
}

/// The keys that a section accepts, as the error for one that is unlike any
/// other lists them.
fn accepted(section: &Section) -> BTreeSet<String> {
    let (text, _) = file(section, "qqqqqqqqqqqqqqqq = 1");
    let problems = examined(&text).1.concat();
    let (_, expected) = problems.split_once("expected ").unwrap();
    let names = expected.split('`').skip(1).step_by(2);
    names
        .filter(|name| !OLD.contains(name))
        .filter(|name| !section.name.is_empty() || !TABLES.contains(name))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_reference_has_every_key_that_is_accepted_and_no_other() {
    for section in &SECTIONS {
        let names: BTreeSet<String> = section.keys.iter().map(|key| key.name.into()).collect();
        assert_eq!(names, accepted(section), "[{}]", section.name);
    }
}

#[test]
fn every_value_of_the_reference_is_accepted_without_a_warning() {
    for (section, key) in keys() {
        let (text, _) = file(section, &format!("{} = {}", key.name, key.example()));
        let (config, problems) = examined(&text);
        assert_eq!(problems, [""; 0], "{text}");
        assert_eq!(config.warnings, [], "{text}");
    }
}

/// What the programs make of a file.
fn settings(config: &Config) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        (&config.sysroot, &config.state_dir, &config.harmful),
        hugepages::Settings::of(config).unwrap(),
        report::Settings::of(config)
            .map(|it| {
                let log = it.log(None).unwrap();
                (log, it.folder(None).unwrap(), it.max_log)
            })
            .unwrap(),
        health::Settings::of(config).unwrap(),
        logout::Section::of(config).unwrap(),
        gres::Section::of(config).unwrap(),
        config.default_profile,
    )
}

#[test]
fn what_holds_without_a_key_is_what_the_reference_says() {
    let without = settings(&examined("").0);
    let mut compared = 0;
    // A profile without a key has what its base has.
    for (section, key) in keys().filter(|(section, _)| section.name != PROFILE) {
        let Without::Value(value) = key.without else {
            continue;
        };
        let (text, _) = file(section, &format!("{} = {value}", key.name));
        assert_eq!(settings(&examined(&text).0), without, "{text}");
        compared += 1;
    }
    assert!(compared > 40, "{compared}");
}

/// Values that a key of this kind refuses.
fn wrong(kind: Kind) -> Vec<String> {
    let out_of = |least: u64, most: u64| {
        let below = least.checked_sub(1).map(|it| it.to_string());
        let above = most.checked_add(1).map(|it| it.to_string());
        let beyond = |text: &String| text.parse::<i64>().is_ok();
        below.into_iter().chain(above).filter(beyond).collect()
    };
    let texts = |texts: &[&str]| texts.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    let mut wrong: Vec<String> = match kind {
        Kind::Boolean => texts(&["\"yes\"", "1"]),
        Kind::Integer(least, most) => out_of(least, most),
        Kind::Word(_) => texts(&["\"qqq\"", "\"\"", "true"]),
        Kind::Duration(..) => texts(&["\"5\"", "\"1 minute\"", "60", "\"400d\"", "\"-1s\""]),
        Kind::Size => texts(&["\"5\"", "\"5Q\"", "\"1.5G\"", "\"0G\"", "\"2000T\""]),
        Kind::SizeWithin(..) => texts(&["\"5\"", "\"1K\"", "\"5G\""]),
        Kind::SizeOr(_) => texts(&["\"5\"", "\"lots\"", "7"]),
        Kind::Profile => texts(&["\"\"", "\"../x\"", "\"a b\"", "7"]),
        Kind::NodeName => texts(&["\"../x\"", "\"\"", "7"]),
        Kind::Path => texts(&["\"relative\"", "7"]),
        Kind::NodePath => texts(&["\"relative\"", "\"/a/../b\"", "\"/%h\"", "7"]),
        Kind::Library => texts(&["\"a/b.so\"", "\"%h.so\"", "7"]),
        Kind::Texts => texts(&["\"wheel\"", "[7]"]),
        Kind::Variables => texts(&["\"A\"", "[\"1A\"]", "[\"\"]"]),
        Kind::Words(_) => texts(&["\"stack\"", "[\"qqq\"]", "[7]"]),
        Kind::Environment => texts(&["\"A\"", "{ A = 7 }", "{ LD_PRELOAD = \"/x.so\" }"]),
        Kind::Counts => texts(&["\"many\"", "-1", "{ \"p5.48xlarge\" = -1 }"]),
        Kind::Rates => texts(&[
            "7",
            "{ qqq = { burst = 1, per_minute = 1 } }",
            "{ rx_drops = { burst = 1 } }",
        ]),
    };
    // No key has a list of lists.
    wrong.push("[[]]".to_owned());
    wrong
}

#[test]
fn a_wrong_value_of_each_key_is_one_problem_that_names_line_and_key() {
    for (section, key) in keys() {
        for value in wrong(key.kind) {
            let (text, line) = file(section, &format!("{} = {value}", key.name));
            let (_, problems) = examined(&text);
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            let start = format!("/etc/x.toml:{line}: ");
            assert!(problems[0].starts_with(&start), "{text}: {}", problems[0]);
            assert!(problems[0].contains(key.name), "{text}: {}", problems[0]);
        }
    }
}

#[test]
fn a_key_that_lacks_its_last_letter_is_answered_with_the_whole_key() {
    for (section, key) in keys() {
        let name = &key.name[..key.name.len() - 1];
        let (text, line) = file(section, &format!("{name} = {}", key.example()));
        let (_, problems) = examined(&text);
        let words = format!("unknown key `{name}`, did you mean `{}`?", key.name);
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        assert!(problems[0].contains(&words), "{text}: {}", problems[0]);
        assert!(problems[0].starts_with(&format!("/etc/x.toml:{line}: ")));
    }
}

/// A file in which every key has a wrong value, and the lines of the keys.
fn all_wrong() -> (String, Vec<usize>) {
    let (mut text, mut lines, mut line) = (String::new(), Vec::new(), 0);
    for section in &SECTIONS {
        if let Some(header) = section.header() {
            text.push_str(&format!("{header}\n"));
            line += 1;
        }
        for key in section.keys {
            text.push_str(&format!("{} = {}\n", key.name, wrong(key.kind)[0]));
            line += 1;
            lines.push(line);
        }
    }
    (text, lines)
}

#[test]
fn a_file_in_which_every_key_is_wrong_has_one_problem_for_each_in_order() {
    let (text, lines) = all_wrong();
    let (_, problems) = examine_text(&text, Path::new("/etc/x.toml"));
    let found: Vec<usize> = problems.iter().filter_map(|it| it.line()).collect();
    assert_eq!(found, lines);
}

#[test]
fn what_is_right_in_a_file_with_a_mistake_is_still_known() {
    let text = "defualt_profile = 'p5'\nharmful = 'warn'\n[profile.a]\nbas = 'p5'\ndevices = 3\n";
    let (config, problems) = examined(text);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert_eq!(config.harmful, config::Harmful::Warn);
    assert_eq!(config.profiles["a"].devices, Some(3));
}

#[test]
fn a_file_that_is_no_toml_is_one_problem() {
    assert_eq!(examined("a b\n[health]\nresum = 1\n").1.len(), 1);
}
