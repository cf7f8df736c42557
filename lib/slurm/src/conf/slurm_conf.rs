//! slurm.conf: its keys, its records of nodes, and where slurmstepd's sockets
//! lie. SPANK does not report these, and libslurm's own reader ends the process
//! when something is wrong.

use std::path::{Path, PathBuf};

use host::printable;

use super::reader::{self, ConfError, Files, Grammar, Include, Origin, Pair, Problem};
use crate::{NodeName, hostlist};

/// Slurm's own default of `SlurmdSpoolDir` (slurm.conf(5)).
const DEFAULT_SPOOL: &str = "/var/spool/slurmd";

/// slurm.conf, or cgroup.conf, and the files that it includes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlurmConf {
    lines: Vec<reader::Line>,
    /// The includes.
    pub includes: Vec<Include>,
    /// Includes that could not be followed.
    pub problems: Vec<Problem>,
}

/// A line of slurm.conf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<'a> {
    /// Where it is written.
    pub origin: &'a Origin,
    /// The key that the line is about, and its value.
    pub pair: Pair<'a>,
    /// The line after that pair: a record's other pairs.
    pub rest: &'a str,
}

impl SlurmConf {
    /// Reads the file.
    ///
    /// # Errors
    /// The file itself cannot be read.
    pub fn read(files: &dyn Files, path: &Path) -> Result<Self, ConfError> {
        let conf = reader::read(files, path, Grammar::KeyValue)?;
        Ok(Self {
            lines: conf.lines,
            includes: conf.includes,
            problems: conf.problems,
        })
    }

    /// The lines, in the order in which Slurm reads them.
    pub fn settings(&self) -> impl DoubleEndedIterator<Item = Setting<'_>> {
        self.lines.iter().filter_map(|line| {
            let (pair, rest) = reader::pair(&line.text)?;
            Some(Setting {
                origin: &line.origin,
                pair,
                rest: rest.trim(),
            })
        })
    }

    /// The lines of a key. A key inside a record, such as the `PreemptMode` of a
    /// partition, is not one of slurm.conf.
    pub fn settings_of(&self, key: &str) -> impl DoubleEndedIterator<Item = Setting<'_>> {
        self.settings()
            .filter(move |setting| setting.pair.key.eq_ignore_ascii_case(key))
    }

    /// The value in force: that of the last line of the key, wherever includes
    /// put it (slurm.conf(5)).
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.settings_of(key).next_back().map(|it| it.pair.value)
    }

    /// All values of a key, in order.
    #[must_use]
    pub fn values(&self, key: &str) -> Vec<&str> {
        self.settings_of(key).map(|it| it.pair.value).collect()
    }

    /// A node's value of a key such as `Gres` or `NodeHostname`: from the last
    /// `NodeName` line that lists the node, else from the last `NodeName=DEFAULT`
    /// before it.
    #[must_use]
    pub fn of_node(&self, node: &NodeName, key: &str) -> Option<&str> {
        let (mut default, mut found) = (None, None);
        for setting in self.settings_of("NodeName") {
            let (pairs, _) = reader::pairs(setting.rest);
            let mut pairs = pairs.iter().rev();
            let value = pairs.find(|pair| pair.key.eq_ignore_ascii_case(key));
            let value = value.map(|pair| pair.value);
            if setting.pair.value.eq_ignore_ascii_case("DEFAULT") {
                default = value.or(default);
            } else if hostlist::expand(setting.pair.value).is_some_and(|it| it.contains(node)) {
                found = value.or(default);
            }
        }
        found
    }

    /// `SlurmdSpoolDir` of the node.
    ///
    /// # Errors
    /// It is not understood, or an include that may set it could not be
    /// followed; for a person. Never read it as "the default".
    pub fn spool_dir(&self, node: &NodeName) -> Result<PathBuf, String> {
        if let Some(problem) = self.problems.first() {
            return Err(problem.to_string());
        }
        expand(self.value("SlurmdSpoolDir").unwrap_or(DEFAULT_SPOOL), node)
    }
}

/// `%n` is the node's name, `%h` the host's short one, as in slurm.conf(5).
fn expand(dir: &str, node: &NodeName) -> Result<PathBuf, String> {
    let mut path = dir.replace("%n", node.as_str());
    if path.contains("%h") {
        let uname = rustix::system::uname();
        let host = uname.nodename().to_string_lossy();
        path = path.replace("%h", host.split('.').next().unwrap_or_default());
    }
    if path.starts_with('/') && !path.contains('%') && !path.contains("..") {
        Ok(PathBuf::from(path))
    } else {
        let dir = printable(dir, 200);
        Err(format!("SlurmdSpoolDir={dir} is not understood"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::reader::InMemory;
    use super::*;
    use proptest::prelude::*;

    fn node() -> NodeName {
        "n1".parse().unwrap()
    }

    /// The first text is slurm.conf.
    fn conf(texts: &[(&str, &str)]) -> SlurmConf {
        let named = |(name, text): &(&str, &str)| (Path::new("/e").join(name), (*text).to_owned());
        let files = InMemory(texts.iter().map(named).collect());
        SlurmConf::read(&files, &Path::new("/e").join(texts[0].0)).unwrap()
    }

    fn spool_of(texts: &[(&str, &str)]) -> Result<String, String> {
        let path = conf(texts).spool_dir(&node())?;
        Ok(path.display().to_string())
    }

    #[test]
    fn the_last_line_counts_in_any_case_and_with_placeholders() {
        let text = "# SlurmdSpoolDir=/no\nslurmdspooldir = \"/a\"\nSlurmdSpoolDir=/s/%n # x\n";
        assert_eq!(spool_of(&[("slurm.conf", text)]).unwrap(), "/s/n1");
    }

    #[test]
    fn a_spool_directory_on_a_continued_line_is_found() {
        for blanks in ["", " \t"] {
            let text = format!("SlurmdSpoolDir= \\{blanks}\n  /continued\n");
            assert_eq!(spool_of(&[("slurm.conf", &text)]).unwrap(), "/continued");
        }
    }

    #[test]
    fn without_a_line_slurms_default_holds() {
        assert_eq!(spool_of(&[("slurm.conf", "A=1\n")]).unwrap(), DEFAULT_SPOOL);
    }

    #[test]
    fn an_included_file_counts() {
        let first = ("slurm.conf", "Include nodes.conf\n");
        let second = ("nodes.conf", "SlurmdSpoolDir=/included\n");
        assert_eq!(spool_of(&[first, second]).unwrap(), "/included");
    }

    #[test]
    fn an_include_that_cannot_be_followed_is_never_read_as_the_default() {
        let circle = spool_of(&[("slurm.conf", "A=1\ninclude slurm.conf\n")]).unwrap_err();
        assert!(circle.contains("slurm.conf line 2"), "{circle}");
        assert!(spool_of(&[("slurm.conf", "include gone.conf\n")]).is_err());
    }

    #[test]
    fn a_place_that_is_not_understood_is_not_guessed() {
        for dir in ["relative", "/a/%x", "/a/../b"] {
            assert!(spool_of(&[("slurm.conf", &format!("SlurmdSpoolDir={dir}\n"))]).is_err());
        }
    }

    #[test]
    fn the_last_value_by_place_counts_even_in_an_include() {
        let main = ("slurm.conf", "PrologFlags=Contain\ninclude custom.conf\n");
        let conf = conf(&[main, ("custom.conf", "PrologFlags=Serial\n")]);
        assert_eq!(conf.value("prologflags"), Some("Serial"));
        assert_eq!(conf.values("PrologFlags"), ["Contain", "Serial"]);
    }

    #[test]
    fn a_site_file_that_is_named_after_the_cluster_is_followed() {
        let main = ("slurm.conf", "ClusterName=Hp\nInclude %c_site.conf\n");
        let site = ("hp_site.conf", "HealthCheckProgram=/usr/sbin/nhc\n");
        let conf = conf(&[main, site]);
        assert_eq!(conf.value("HealthCheckProgram"), Some("/usr/sbin/nhc"));
    }

    #[test]
    fn a_key_of_a_record_is_not_one_of_slurm_conf() {
        let text = "PreemptMode=OFF\nPartitionName=p Nodes=n1 PreemptMode=REQUEUE\n";
        let conf = conf(&[("slurm.conf", text)]);
        assert_eq!(conf.value("PreemptMode"), Some("OFF"));
    }

    #[test]
    fn a_nodes_value_is_that_of_its_own_record_or_of_the_default_before_it() {
        let text = "NodeName=n0 CPUs=1\nNodeName=DEFAULT Gres=gpu:8 CPUs=4\n\
                    NodeName = n[1-2] CPUs = 192 \\\nState=CLOUD\nNodeName=DEFAULT Gres=gpu:1\n";
        let conf = conf(&[("slurm.conf", text)]);
        assert_eq!(conf.of_node(&node(), "cpus"), Some("192"));
        assert_eq!(conf.of_node(&node(), "Gres"), Some("gpu:8"));
        assert_eq!(conf.of_node(&node(), "State"), Some("CLOUD"));
        assert_eq!(conf.of_node(&"n0".parse().unwrap(), "Gres"), None);
        assert_eq!(conf.of_node(&"n9".parse().unwrap(), "CPUs"), None);
    }

    proptest! {
        #[test]
        fn any_line_is_understood_or_left_alone(line in "(SlurmdSpoolDir=)?\\PC{0,60}") {
            if let Ok(dir) = conf(&[("slurm.conf", &line)]).spool_dir(&node()) {
                prop_assert!(dir.is_absolute());
            }
        }
    }
}
