//! Everything that is wrong with slurm-efa.toml. `config check`, `setup` and
//! `doctor` all ask here; the parsers are those of the programs.

use std::fs;
use std::path::{Path, PathBuf};

use config::sections::health;
use config::{Config, ConfigError};
use findings::{Finding, Findings, Severity};
use host::printable;
use host::state_dir::StateDir;
use host::sysroot::read_named;
use slurm::NodeName;

/// Largest file that is looked at, as for the programs.
const LARGEST: usize = 1024 * 1024;

const ID: &str = "configuration";

const CORRECT: &str = "correct the file; until then the programs that read these keys refuse it";

/// What can be used of a configuration, and what was found in it.
#[derive(Debug)]
pub struct Checked {
    /// With the defaults of what is wrong.
    pub config: Config,
    /// One for each mistake.
    pub findings: Findings,
}

/// A file as it was read: what can be used of it, and its mistakes.
pub type Examined = Result<(Config, Vec<ConfigError>), ConfigError>;

/// What is wrong with the text of the configuration that the programs read.
#[must_use]
pub fn text(examined: &Examined) -> Findings {
    let mut found = Findings::default();
    let (config, problems) = match examined {
        Ok(examined) => examined,
        Err(error) => {
            found.0.push(finding(
                Severity::Fatal,
                error.to_string(),
                "correct that; until then jobs that ask for a profile are refused",
            ));
            return found;
        }
    };
    let problems = problems.iter().map(ToString::to_string);
    let profiles = profiles::profile::problems(config).map(|error| error.to_string());
    for problem in problems.chain(profiles) {
        found.0.push(finding(Severity::Fatal, problem, CORRECT));
    }
    for warning in &config.warnings {
        let remedy = "write the new spelling before the next release is installed";
        found
            .0
            .push(finding(Severity::Warning, warning.to_string(), remedy));
    }
    let health = health::Settings::of(config);
    let warnings = health.iter().flat_map(health::Settings::warnings);
    // Old spellings are named above.
    let old = config.warnings_of("health");
    for warning in warnings.filter(|it| !old.contains(it)) {
        let sentence = format!("{}: {warning}", shown(&config.path));
        let remedy = "see efa-check(8); write what is meant";
        found.0.push(finding(Severity::Warning, sentence, remedy));
    }
    found
}

/// A file that a person names, of any owner and in any folder: its text counts, and
/// that the programs would not read it there is a warning.
#[must_use]
pub fn named(path: &Path) -> Checked {
    let examined = match config::examine(path, config::MissingIs::Error) {
        Err(error @ ConfigError::Untrusted { .. }) => match read_named(path, LARGEST) {
            Ok(text) => {
                let mut checked = checked(path, Ok(config::examine_text(&text, path)));
                let remedy = "give it to root, where nobody else may write";
                let finding = finding(Severity::Warning, error.to_string(), remedy);
                checked.findings.0.push(finding);
                return checked;
            }
            Err(_) => Err(error),
        },
        examined => examined,
    };
    checked(path, examined)
}

/// The file that the programs of this node read.
#[must_use]
pub fn of_node(path: &Path, missing: config::MissingIs) -> Checked {
    checked(path, config::examine(path, missing))
}

fn checked(path: &Path, examined: Examined) -> Checked {
    let findings = text(&examined);
    let config = match examined {
        Ok((config, _)) => config,
        Err(_) => Config::defaults(path),
    };
    Checked { config, findings }
}

/// What a key names that must be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    /// A folder that only root may write.
    OwnFolder,
    Folder,
    /// A file in a folder that must be there.
    InFolder,
    File,
}

/// The keys whose folders and files must be there, on a node that runs jobs.
const PLACES: [(&str, &str, Named); 14] = [
    ("", "report_dir", Named::OwnFolder),
    ("", "sysroot", Named::Folder),
    ("report", "dir", Named::OwnFolder),
    ("report", "log", Named::InFolder),
    ("health", "metrics", Named::InFolder),
    ("health", "scontrol", Named::File),
    ("health", "slurm_conf", Named::File),
    ("health", "fi_pingpong", Named::File),
    ("logout", "spool_dir", Named::Folder),
    ("gres", "spool_dir", Named::Folder),
    ("gres", "scontrol", Named::File),
    ("gres", "gres_conf", Named::File),
    ("gres", "helper", Named::File),
    ("gres", "mps_control", Named::File),
];

/// The folders and files that the configuration names and that this node lacks.
/// One that depends on the node's name is looked for where that is known.
#[must_use]
pub fn places(config: &Config, node: Option<&NodeName>) -> Findings {
    let table = config.table();
    let mut found = Findings::default();
    for (section, key, named) in PLACES {
        let within = match section {
            "" => Some(&table),
            section => table.get(section).and_then(toml::Value::as_table),
        };
        let Some(toml::Value::String(value)) = within.and_then(|it| it.get(key)) else {
            continue;
        };
        let Ok(place) = slurm::node_name::expand(value, node) else {
            continue;
        };
        let Some((reason, remedy)) = missing(&place, named) else {
            continue;
        };
        let (name, path): (String, &[&str]) = match section {
            "" => (format!("`{key}`"), &[key]),
            section => (format!("[{section}] `{key}`"), &[section, key]),
        };
        let line = config.line_of(path).unwrap_or(1);
        let (file, place) = (shown(&config.path), shown(&place));
        let sentence = format!("{file}:{line}: {name}: {place}: {reason}");
        found.0.push(finding(Severity::Warning, sentence, remedy));
    }
    found
}

/// Why something cannot be used, and what to do.
fn missing(place: &Path, named: Named) -> Option<(String, &'static str)> {
    let folder = |place: &Path| match fs::metadata(place) {
        Ok(meta) if meta.is_dir() => None,
        Ok(_) => Some("it is not a folder".to_owned()),
        Err(error) => Some(why(&error, "there is no such folder")),
    };
    match named {
        Named::OwnFolder => {
            let reason = match StateDir::open_existing(place) {
                Ok(Some(_)) => return None,
                Ok(None) => "there is no such folder".to_owned(),
                Err(error) => error.to_string(),
            };
            let remedy = "make the folder, or mount it, so that only root may write it; until \
                          then records of jobs are only in the node's log";
            Some((reason, remedy))
        }
        Named::Folder => Some((folder(place)?, "correct the path")),
        Named::InFolder => {
            let parent = place.parent().map_or_else(PathBuf::new, Path::to_owned);
            let remedy =
                "make its folder, which only root may write; until then the file is not written";
            Some((folder(&parent)?, remedy))
        }
        Named::File => match fs::metadata(place) {
            Ok(meta) if meta.is_file() => None,
            Ok(_) => Some(("it is not a file".to_owned(), "correct the path")),
            Err(error) => Some((why(&error, "there is no such file"), "correct the path")),
        },
    }
}

fn why(error: &std::io::Error, missing: &str) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => missing.to_owned(),
        _ => error.to_string(),
    }
}

/// What is said where nothing was found.
#[must_use]
pub fn nothing(path: &Path) -> Finding {
    Finding {
        id: ID,
        severity: Severity::Ok,
        subject: None,
        sentence: shown(path),
        remedy: None,
    }
}

fn finding(severity: Severity, sentence: String, remedy: &str) -> Finding {
    Finding {
        id: ID,
        severity,
        subject: None,
        sentence: printable(&sentence, 600),
        remedy: Some(remedy.to_owned()),
    }
}

fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy(), 300)
}
