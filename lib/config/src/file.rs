//! The file as a whole: its top level, its profiles, and each section for the
//! code that owns it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use host::Sysroot;
use slurm::NodeName;
use slurm::node_name::NameError;

use crate::error::ConfigError;
use crate::old_spelling::{self, Warning};
use crate::sections::profile::ProfileConfig;
use crate::sections::top_level::{Harmful, TopLevel};
use crate::source::{Source, line_of, read_trusted};
use crate::values::path::NodePath;

/// Where the configuration lies unless a program is told otherwise.
pub const DEFAULT_PATH: &str = "/etc/slurm-efa/slurm-efa.toml";

/// Where run-time state lies unless `state_dir` says otherwise.
pub const DEFAULT_STATE_DIR: &str = host::state_layout::DEFAULT;

/// Sections that belong to other parts of the suite; see [`Config::section`].
const SECTIONS: [&str; 5] = ["hugepages", "health", "logout", "gres", "report"];

/// What [`Config::load`] makes of a file that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingIs {
    /// The defaults: nobody asked for this file in particular.
    Default,
    /// An error: someone named it.
    Error,
}

/// The site's configuration.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The file it came from, or would have come from.
    pub path: PathBuf,
    /// Directory that stands for `/`, with placeholders; see [`Config::sysroot`].
    pub sysroot: Option<NodePath>,
    /// Run-time state, with placeholders; see [`Config::state_dir`].
    pub state_dir: NodePath,
    /// Folder of the jobs' records, with placeholders; `dir` in `[report]`
    /// wins over it, see [`crate::sections::report`].
    pub report_dir: Option<NodePath>,
    /// The profile of jobs that name none.
    pub default_profile: Option<String>,
    /// See [`Harmful`].
    pub harmful: Harmful,
    /// The site's own profiles by name.
    pub profiles: BTreeMap<String, ProfileConfig>,
    /// Old spellings in the file, for the programs that read them to report.
    pub warnings: Vec<Warning>,
    text: String,
}

impl Config {
    /// What holds where there is no file.
    #[must_use]
    pub fn defaults(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            sysroot: None,
            state_dir: NodePath::constant(DEFAULT_STATE_DIR),
            report_dir: None,
            default_profile: None,
            harmful: Harmful::default(),
            profiles: BTreeMap::new(),
            warnings: Vec::new(),
            text: String::new(),
        }
    }

    /// Reads the configuration, if it can be trusted (see the module's text).
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path, missing: MissingIs) -> Result<Self, ConfigError> {
        match read_trusted(path) {
            Ok(text) => parse(&text, path),
            Err(ConfigError::Missing { .. }) if missing == MissingIs::Default => {
                Ok(Self::defaults(path))
            }
            Err(error) => Err(error),
        }
    }

    /// The file as [`Config::load`] has it: without any mistake outside sections.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`], never another.
    pub fn strict(&self) -> Result<Self, ConfigError> {
        parse(&self.text, &self.path)
    }

    /// Reads the file that was named, which must be there, or else the one in the
    /// usual place, which may be missing.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn named_or_usual(named: Option<&Path>) -> Result<Self, ConfigError> {
        match named {
            Some(path) => Self::load(path, MissingIs::Error),
            None => Self::load(Path::new(DEFAULT_PATH), MissingIs::Default),
        }
    }

    /// The tree that stands for `/` on the node of this name.
    ///
    /// # Errors
    /// `sysroot` contains `%n` and `node` is `None`.
    pub fn sysroot(&self, node: Option<&NodeName>) -> Result<Sysroot, NameError> {
        match &self.sysroot {
            Some(path) => Ok(Sysroot::new(path.on(node)?)),
            None => Ok(Sysroot::real()),
        }
    }

    /// Where run-time state lies on the node of this name.
    ///
    /// # Errors
    /// `state_dir` contains `%n` and `node` is `None`.
    pub fn state_dir(&self, node: Option<&NodeName>) -> Result<PathBuf, NameError> {
        self.state_dir.on(node)
    }

    /// The file as it is written, without what was found of it.
    #[must_use]
    pub fn table(&self) -> toml::Table {
        self.text.parse().unwrap_or_default()
    }

    /// The line of a key, such as `["report", "dir"]`, if the file has it.
    #[must_use]
    pub fn line_of(&self, path: &[&str]) -> Option<usize> {
        let source = Source {
            path: &self.path,
            text: &self.text,
        };
        let table = DeTable::parse(&self.text).ok()?;
        let (last, sections) = path.split_last()?;
        let mut table = table.get_ref();
        for section in sections {
            table = table.get(*section)?.get_ref().as_table()?;
        }
        let (key, _) = table.get_key_value(*last)?;
        Some(line_of(source.before(key.span().start)))
    }

    /// An error at a place in the file, for what only a section can judge.
    pub(crate) fn error_at(&self, offset: usize, reason: String) -> ConfigError {
        let source = Source {
            path: &self.path,
            text: &self.text,
        };
        source.error(offset, reason)
    }

    /// The old spellings in one section, as sentences.
    #[must_use]
    pub fn warnings_of(&self, section: &str) -> Vec<String> {
        let warnings = self.warnings.iter();
        let here = warnings.filter(|warning| warning.section == section);
        here.map(Warning::to_string).collect()
    }

    /// One of the sections `hugepages`, `health`, `logout`, `gres`, `report`, as its
    /// owner's type; `None` where the file has no such section. A type with
    /// `#[serde(deny_unknown_fields)]` makes a misspelt key an error.
    ///
    /// # Errors
    /// The section does not fit `T`; with file, line and reason.
    pub fn section<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, ConfigError> {
        let source = Source {
            path: &self.path,
            text: &self.text,
        };
        // Parsed again, since a parsed table borrows from the text; a process
        // asks for at most one section, and once.
        let table = DeTable::parse(&self.text).map_err(|error| source.toml_error(&error, 0))?;
        let section = table
            .into_inner()
            .into_iter()
            .find(|(key, _)| SECTIONS.contains(&name) && key.get_ref() == name);
        let Some((key, value)) = section else {
            return Ok(None);
        };
        source.read(Some(name), key.span().start, &value).map(Some)
    }

    /// Everything that is wrong with one section, one problem for each key; where
    /// no key is wrong by itself, what `whole` says of all together.
    pub(crate) fn problems_of<T: DeserializeOwned>(
        &self,
        name: &str,
        whole: impl Fn(&Self) -> Option<ConfigError>,
    ) -> Vec<ConfigError> {
        let source = Source {
            path: &self.path,
            text: &self.text,
        };
        let table = match DeTable::parse(&self.text) {
            Ok(table) => table.into_inner(),
            Err(error) => return vec![source.toml_error(&error, 0)],
        };
        let mut sections = table.into_iter();
        let Some((key, value)) = sections.find(|(key, _)| key.get_ref() == name) else {
            return Vec::new();
        };
        // Its own complaint is the top level's.
        if !value.get_ref().is_table() {
            return Vec::new();
        }
        let (_, mut problems) = source.problems::<T>(Some(name), key.span().start, value);
        if problems.is_empty() {
            problems.extend(whole(self));
        }
        problems
    }
}

/// Reads the configuration, if it can be trusted: what can be used of it, and
/// all that is wrong with it but for profiles whose names or bases do not exist,
/// which `profiles` finds.
///
/// # Errors
/// It cannot be read.
pub fn examine(path: &Path, missing: MissingIs) -> Result<(Config, Vec<ConfigError>), ConfigError> {
    match read_trusted(path) {
        Ok(text) => Ok(examine_text(&text, path)),
        Err(ConfigError::Missing { .. }) if missing == MissingIs::Default => {
            Ok((Config::defaults(path), Vec::new()))
        }
        Err(error) => Err(error),
    }
}

/// The same of a text; `path` is only for messages.
#[must_use]
pub fn examine_text(text: &str, path: &Path) -> (Config, Vec<ConfigError>) {
    let source = Source { path, text };
    let mut config = Config {
        text: text.to_owned(),
        ..Config::defaults(path)
    };
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => return (config, vec![source.toml_error(&error, 0)]),
    };
    config.warnings = old_spelling::find(table.get_ref(), path, |at| line_of(source.before(at)));
    let (start, span) = (table.span().start, table.span());
    let whole = Spanned::new(span, DeValue::Table(table.into_inner()));
    let mut problems = Vec::new();
    if let Some(profiles) = whole.get_ref().get("profile") {
        (config.profiles, problems) = source.examine_profiles(profiles);
    }
    let (top_level, wrong) = source.problems::<TopLevel>(None, start, whole);
    problems.extend(wrong);
    if let Some(top_level) = top_level {
        config.sysroot = top_level.sysroot;
        config.state_dir = top_level.state_dir.unwrap_or(config.state_dir);
        config.report_dir = top_level.report_dir;
        config.default_profile = top_level.default_profile;
        config.harmful = top_level.harmful;
    }
    problems.extend(config.problems());
    problems.sort_by_key(ConfigError::line);
    (config, problems)
}

/// Parses the text of a configuration; `path` is only for messages.
///
/// # Errors
/// [`ConfigError::Invalid`], never another.
pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    let source = Source { path, text };
    let table = DeTable::parse(text).map_err(|error| source.toml_error(&error, 0))?;
    let warnings = old_spelling::find(table.get_ref(), path, |at| line_of(source.before(at)));
    let (start, span) = (table.span().start, table.span());
    let whole = Spanned::new(span, DeValue::Table(table.into_inner()));
    let top_level: TopLevel = source.read(None, start, &whole)?;
    let profile = whole.get_ref().get("profile");
    let profiles = profile.map(|value| source.profiles(value)).transpose()?;
    let defaults = Config::defaults(path);
    Ok(Config {
        sysroot: top_level.sysroot,
        state_dir: top_level.state_dir.unwrap_or(defaults.state_dir),
        report_dir: top_level.report_dir,
        default_profile: top_level.default_profile,
        harmful: top_level.harmful,
        profiles: profiles.unwrap_or_default(),
        warnings,
        text: text.to_owned(),
        path: defaults.path,
    })
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::sections::profile::Memlock;
    use crate::source::LARGEST;
    use proptest::prelude::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    const WHOLE: &str = r#"
sysroot = "/sim/%n"
state_dir = "/run/efa-%n"
default_profile = "auto"
harmful = "warn"

[profile.ours]
base = "p5.48xlarge"
env = { NCCL_DEBUG = "INFO" }
unset = ["FI_PROVIDER", "LD_PRELOAD"]
devices = 32
hugepages = "5G"
memlock = "unchanged"

[profile."p5en.48xlarge".env]
LD_LIBRARY_PATH = "/opt/x/lib"

[logout]
grace = "60s"
"#;

    fn parsed(text: &str) -> Result<Config, ConfigError> {
        parse(text, Path::new("/etc/x.toml"))
    }

    fn complaint(text: &str) -> String {
        parsed(text).unwrap_err().to_string()
    }

    #[test]
    fn a_whole_configuration_is_understood() {
        let config = parsed(WHOLE).unwrap();
        let node: NodeName = "n1".parse().unwrap();
        assert_eq!(
            config.sysroot(Some(&node)).unwrap(),
            Sysroot::new("/sim/n1".into())
        );
        assert_eq!(
            config.state_dir(Some(&node)).unwrap(),
            PathBuf::from("/run/efa-n1")
        );
        assert!(config.sysroot(None).is_err());
        assert_eq!(config.default_profile.as_deref(), Some("auto"));
        assert_eq!(config.harmful, Harmful::Warn);
        let ours = &config.profiles["ours"];
        assert_eq!(
            (ours.line, ours.base.as_deref(), ours.devices),
            (7, Some("p5.48xlarge"), Some(32))
        );
        assert_eq!(ours.env["NCCL_DEBUG"], "INFO");
        assert_eq!(ours.unset, ["FI_PROVIDER", "LD_PRELOAD"]);
        assert_eq!(ours.hugepages, "5G".parse().ok());
        assert_eq!(ours.memlock, Some(Memlock::Unchanged));
        assert_eq!(
            config.profiles["p5en.48xlarge"].env["LD_LIBRARY_PATH"],
            "/opt/x/lib"
        );
    }

    #[test]
    fn hugepages_and_memlock_that_mean_nothing_are_refused_where_they_stand() {
        for (line, words) in [
            ("hugepages = \"50%\"", "`50%` is not a size"),
            ("hugepages = 5", "expected a string"),
            ("memlock = \"64M\"", "expected `unlimited` or `unchanged`"),
        ] {
            let said = complaint(&format!("[profile.a]\n{line}\n"));
            assert!(said.contains(words) && said.contains(":2:"), "{said}");
        }
    }

    #[test]
    fn an_empty_configuration_is_the_defaults() {
        let config = parsed("").unwrap();
        assert_eq!(config.sysroot(None).unwrap(), Sysroot::real());
        assert_eq!(
            config.state_dir(None).unwrap(),
            PathBuf::from(DEFAULT_STATE_DIR)
        );
        assert_eq!(
            (config.harmful, config.default_profile),
            (Harmful::Refuse, None)
        );
        assert!(config.profiles.is_empty());
    }

    #[test]
    fn a_misspelt_key_is_refused_with_file_line_and_what_would_fit() {
        assert_eq!(
            complaint("\n\ndefualt_profile = 'p5'\n"),
            "/etc/x.toml:3: unknown key `defualt_profile`, did you mean `default_profile`?"
        );
        assert_eq!(
            complaint("[profile.a]\nbase = 'p5'\nenviron = {}\n"),
            "/etc/x.toml:3: [profile.a] unknown key `environ`, expected `base`, `env`, `unset`, \
             `devices`, `hugepages` or `memlock`"
        );
        assert!(complaint("[hugepage]\n").starts_with("/etc/x.toml:1: unknown key `hugepage`"));
    }

    #[test]
    fn a_syntax_error_and_a_duplicate_key_name_their_line() {
        for (text, line) in [
            ("a b\n", 1),
            ("\nharmful = 'warn'\nharmful = 'refuse'\n", 3),
            ("[profile.a]\n[profile.a]\n", 2),
        ] {
            let Err(ConfigError::Invalid { line: found, .. }) = parsed(text) else {
                panic!("{text:?}")
            };
            assert_eq!(found, line, "{text:?}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_type_or_meaning_is_refused_on_its_line() {
        for text in [
            "sysroot = 1",
            "sysroot = 'relative'",
            "sysroot = '/a/../b'",
            "sysroot = '/a/%h'",
            "state_dir = \"/a\\u0000\"",
            "default_profile = 'list'",
            "default_profile = ''",
            "default_profile = '../x'",
            "harmful = 'maybe'",
            "harmful = true",
            "profile = 1",
            "profile.a = 1",
            "profile.auto = {}",
            "profile.none = {}",
            "profile.'a b' = {}",
            "profile.a.base = 1",
            "profile.a.devices = -1",
            "profile.a.devices = 4294967296",
            "profile.a.devices = '1'",
            "profile.a.env = []",
            "profile.a.env.A = 1",
            "profile.a.env.1A = 'x'",
            "profile.a.env.'A=B' = 'x'",
            "profile.a.env.'' = 'x'",
            "profile.a.env.A = \"x\\ny\"",
            "profile.a.env.A = \"x\\u0000y\"",
            "profile.a.env.A = \"\\u001b[2J\"",
            "profile.a.env.LD_PRELOAD = '/x.so'",
            "profile.a.env.LD_AUDIT = '/x.so'",
            "profile.a.env.BASH_ENV = '/x.sh'",
            "profile.a.env.SLURM_JOB_ID = '1'",
            "profile.a.unset = 'A'",
            "profile.a.unset = [1]",
            "profile.a.unset = ['A B']",
            "profile.a = { env = { A = '1' }, unset = ['A'] }",
            "logout = 'x'",
        ] {
            let Err(ConfigError::Invalid { line, reason, .. }) = parsed(&format!("\n{text}\n"))
            else {
                panic!("accepted: {text}")
            };
            assert_eq!(line, 2, "{text}: {reason}");
            assert!(!reason.contains(char::is_control), "{text}: {reason:?}");
        }
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_key_wherever_its_table_is_written() {
        for (text, sentence) in [
            (
                "harmful = 'maybe'",
                "1: `harmful`: unknown variant `maybe`, expected `refuse` or `warn`",
            ),
            (
                "logout = 'x'",
                "1: `logout`: invalid type: string \"x\", expected a table",
            ),
            (
                "[profile.a]\nenv.A = 1",
                "2: [profile.a] `env.A`: invalid type: integer `1`, expected a string",
            ),
            (
                "[profile.b]\n[profile.a.env]\nB = ''\nENV = 'x'",
                "4: [profile.a] `env.ENV`: a profile may not set `ENV`: it would run a file at \
                 the start of every shell of the job",
            ),
            (
                "[profile.a]\nunset = ['A',\n'B C']",
                "3: [profile.a] `unset`: `B C` is not a variable name: use letters, digits and \
                 `_`, not starting with a digit",
            ),
            (
                "[profile.a]\ndevices = -1",
                "2: [profile.a] `devices`: -1 is out of range; write 0 to 4294967295",
            ),
        ] {
            assert_eq!(complaint(text), format!("/etc/x.toml:{sentence}"));
        }
    }

    #[test]
    fn hostile_text_is_not_echoed_raw() {
        let message = complaint("\"\\u001b[2J\\u202e\" = 1");
        assert!(message.contains("`\\u{1b}[2J\\u{202e}`"), "{message:?}");
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Logout {
        grace: String,
    }

    #[test]
    fn a_section_becomes_its_owners_type() {
        let logout: Logout = parsed(WHOLE).unwrap().section("logout").unwrap().unwrap();
        assert_eq!(logout.grace, "60s");
        let config = parsed(WHOLE).unwrap();
        assert!(config.section::<Logout>("health").unwrap().is_none());
        assert!(config.section::<toml::Value>("profile").unwrap().is_none());
    }

    #[test]
    fn an_error_in_a_section_names_file_and_line() {
        let unknown = parsed("\n[logout]\ngrace = '1s'\ngrave = 1\n").unwrap();
        let message = unknown.section::<Logout>("logout").unwrap_err().to_string();
        assert!(
            message.starts_with("/etc/x.toml:4: ") && message.contains("grave"),
            "{message}"
        );
        let missing = parsed("\n[logout]\n").unwrap();
        let message = missing.section::<Logout>("logout").unwrap_err().to_string();
        assert!(
            message.starts_with("/etc/x.toml:2: ") && message.contains("grace"),
            "{message}"
        );
    }

    #[test]
    fn an_error_in_a_section_names_the_key_or_the_one_that_was_meant() {
        for (line, sentence) in [
            (
                "grase = '1s'",
                "[logout] unknown key `grase`, did you mean `grace`?",
            ),
            (
                "grace = 5",
                "[logout] `grace`: invalid type: integer `5`, expected a string",
            ),
        ] {
            let config = parsed(&format!("[logout]\n{line}\n")).unwrap();
            let message = config.section::<Logout>("logout").unwrap_err().to_string();
            assert_eq!(message, format!("/etc/x.toml:2: {sentence}"));
        }
    }

    #[test]
    fn each_section_that_a_program_would_refuse_is_a_problem_of_its_own() {
        let text = "[logout]\ngrase = '1s'\n[health]\nresum = true\n[gres]\nshard_sise = '1G'\n\
                    [report]\nmax_log = 5\n[hugepages]\ntime_limit = '1h'\n";
        let mut problems = Vec::new();
        for problem in parsed(text).unwrap().problems() {
            problems.push(problem.to_string());
        }
        problems.sort_by_key(|it| it.split(':').nth(1).unwrap().parse::<u32>().unwrap());
        for (problem, words) in problems.iter().zip([
            ":2: [logout] unknown key `grase`, did you mean `grace`?",
            ":4: [health] unknown key `resum`, did you mean `resume`?",
            ":6: [gres] unknown key `shard_sise`, did you mean `shard_size`?",
            ":8: [report] `max_log`: ",
            ":10: [hugepages] `time_limit`: `1h` is out of range",
        ]) {
            assert!(problem.contains(words), "{problem}");
        }
        assert_eq!(problems.len(), 5);
        assert!(parsed(WHOLE).unwrap().problems().is_empty());
    }

    #[test]
    fn the_line_of_a_key_is_known() {
        let config = parsed("harmful = 'warn'\n[report]\n\ndir = '/a'\n").unwrap();
        assert_eq!(config.line_of(&["harmful"]), Some(1));
        assert_eq!(config.line_of(&["report", "dir"]), Some(4));
        assert_eq!(config.line_of(&["report", "log"]), None);
        assert_eq!(config.line_of(&["harmful", "log"]), None);
    }

    #[test]
    fn the_column_counts_characters() {
        let Err(ConfigError::Invalid { line, column, .. }) = parsed("profile.a.env = { Ä = 'x' }")
        else {
            panic!()
        };
        assert_eq!((line, column), (1, 19));
        let Err(ConfigError::Invalid { column, .. }) = parsed("profile = { 'ä' = {} }") else {
            panic!()
        };
        assert_eq!(column, 13);
    }

    /// A directory that passes the checks, and a path in it.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let file = fs::canonicalize(dir.path()).unwrap().join("slurm-efa.toml");
        (dir, file)
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn distrust(file: &Path) -> String {
        match Config::load(file, MissingIs::Default) {
            Err(ConfigError::Untrusted { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_that_only_its_owner_may_write_is_read() {
        let (_dir, file) = place();
        fs::write(&file, "harmful = 'warn'\n").unwrap();
        set_mode(&file, 0o644);
        assert_eq!(
            Config::load(&file, MissingIs::Error).unwrap().harmful,
            Harmful::Warn
        );
    }

    #[test]
    fn a_missing_file_is_the_defaults_or_an_error_as_the_caller_wants() {
        let (_dir, file) = place();
        assert_eq!(Config::load(&file, MissingIs::Default).unwrap().path, file);
        assert!(matches!(
            Config::load(&file, MissingIs::Error),
            Err(ConfigError::Missing { .. })
        ));
        let deeper = file.join("none/x.toml");
        assert!(Config::load(&deeper, MissingIs::Default).is_ok());
    }

    #[test]
    fn a_file_that_others_may_write_is_not_read() {
        let (_dir, file) = place();
        fs::write(&file, "").unwrap();
        for mode in [0o664, 0o646] {
            set_mode(&file, mode);
            assert!(distrust(&file).contains("chmod go-w"), "{mode:o}");
        }
    }

    #[test]
    fn a_file_below_a_directory_that_others_may_write_is_not_read_unless_it_is_sticky() {
        let (dir, file) = place();
        fs::write(&file, "").unwrap();
        set_mode(&file, 0o644);
        for (mode, trusted) in [
            (0o757, false),
            (0o775, false),
            (0o1777, true),
            (0o755, true),
        ] {
            set_mode(dir.path(), mode);
            assert_eq!(
                Config::load(&file, MissingIs::Error).is_ok(),
                trusted,
                "{mode:o}"
            );
        }
    }

    #[test]
    fn a_file_of_another_user_is_not_read() {
        let (dir, file) = place();
        fs::write(&file, "").unwrap();
        // Only root can give a file away; without that there is nothing to test.
        if std::os::unix::fs::chown(&file, Some(12345), None).is_ok() {
            assert!(distrust(&file).contains("belongs to uid 12345"));
            std::os::unix::fs::chown(&file, Some(0), None).unwrap();
            std::os::unix::fs::chown(dir.path(), Some(12345), None).unwrap();
            assert!(distrust(&file).contains("belongs to uid 12345"));
        }
    }

    #[test]
    fn a_link_of_roots_is_followed_and_what_it_leads_to_is_checked() {
        let (dir, file) = place();
        let real = dir.path().join("slurm-24.11/real.toml");
        fs::create_dir(dir.path().join("slurm-24.11")).unwrap();
        fs::write(&real, "harmful = \"warn\"").unwrap();
        set_mode(&real, 0o644);
        symlink("slurm-24.11", dir.path().join("slurm")).unwrap();
        symlink(
            "../slurm-24.11/./real.toml",
            dir.path().join("slurm/link.toml"),
        )
        .unwrap();
        let linked = dir.path().join("slurm/link.toml");
        assert_eq!(
            Config::load(&linked, MissingIs::Error).unwrap().harmful,
            Harmful::Warn
        );
        set_mode(&real, 0o666);
        assert!(distrust(&linked).contains("chmod go-w"));
        symlink("circle", dir.path().join("circle")).unwrap();
        assert!(distrust(&dir.path().join("circle")).contains("circle"));
        set_mode(&real, 0o644);
        if std::os::unix::fs::lchown(&linked, Some(12345), None).is_ok() {
            assert!(distrust(&linked).contains("symbolic link that belongs to uid 12345"));
        }
        drop(file);
    }

    #[test]
    fn fifos_and_directories_are_not_read() {
        let (_dir, file) = place();
        assert!(
            std::process::Command::new("mkfifo")
                .args(["-m", "600"])
                .arg(&file)
                .status()
                .unwrap()
                .success()
        );
        assert!(distrust(&file).contains("not a regular file"));
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(distrust(&file).contains("not a regular file"));
    }

    #[test]
    fn a_relative_path_and_one_with_dots_are_refused() {
        assert!(distrust(Path::new("slurm-efa.toml")).contains("full path"));
        assert!(distrust(Path::new("/etc/../etc/x.toml")).contains("full path"));
    }

    #[test]
    fn a_huge_file_and_one_that_is_not_text_are_refused() {
        let (_dir, file) = place();
        fs::write(&file, vec![b'#'; LARGEST as usize + 1]).unwrap();
        set_mode(&file, 0o644);
        assert!(distrust(&file).contains("larger"));
        fs::write(&file, b"# a\n# \xff").unwrap();
        assert!(matches!(
            Config::load(&file, MissingIs::Error),
            Err(ConfigError::Invalid {
                line: 2,
                column: 3,
                ..
            })
        ));
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_stack_overflow() {
        assert!(parsed(&format!("a = {}", "[".repeat(500_000))).is_err());
        assert!(parsed(&format!("logout.{}b = 1", "a.".repeat(500_000))).is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_never_echoes_controls(text in any::<String>()) {
            if let Err(error) = parsed(&text) {
                prop_assert!(!error.to_string().contains(char::is_control));
            }
        }

        #[test]
        fn parsing_something_like_a_configuration_never_panics(
            key in "sysroot|state_dir|default_profile|harmful|profile|logout|profile\\.[a-z.]{1,4}(\\.(env|unset|base|devices|memlock)(\\.[A-Z=]{1,3})?)?",
            value in "-?[0-9_]{1,12}|'[^']{0,9}'|\\[.{0,6}\\]|\\{.{0,9}\\}|true|1979-05-27|inf|.*",
        ) {
            if let Ok(config) = parsed(&format!("{key} = {value}")) {
                let _ = config.section::<toml::Value>("logout");
            }
        }
    }
}
