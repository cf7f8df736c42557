//! plugstack.conf, slurm.conf and its sisters: what is wished for, and the text
//! with it.

use std::path::Path;

use host::printable;
use slurm::conf::reader::Origin;
use slurm::conf::{Files, Overlay, Plugstack, SlurmConf};

use super::edit::Lines;
use super::nhc;
use super::prologs;

/// What a file has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Directive {
    /// In plugstack.conf, the plugin of this path with these arguments.
    Plugin {
        /// Absolute.
        path: String,
        /// What stands behind it, or nothing.
        arguments: String,
    },
    /// A key of one value. Another value of theirs stays, and a note says what
    /// to do.
    Value(&'static str, String),
    /// The health check. Its interval is wished for with ours only: it would
    /// switch on a check that the site has off.
    HealthCheck {
        /// Ours.
        program: String,
        /// Seconds.
        interval: &'static str,
    },
    /// A key whose value is a list of flags; those that are missing are added.
    Flags(&'static str, &'static [&'static str]),
    /// A program that slurmd runs. One of theirs stays: beside ours where this
    /// Slurm takes several lines, else instead of ours, with a note.
    Program {
        /// `Prolog` or `Epilog`.
        key: &'static str,
        /// Ours.
        value: String,
        /// Whether Slurm takes several lines.
        several: bool,
    },
    /// Lines that nobody shares with us.
    Verbatim(Vec<String>),
}

/// The new text, and what is to be said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The file's text.
    pub text: String,
    /// Sentences: what was left as it is, and what to do about it.
    pub notes: Vec<String>,
}

/// Makes the file at `path`, which has these lines, say what is wished for. What
/// another file says that this one includes stays, and is not said again.
#[must_use]
pub fn edit(files: &dyn Files, path: &Path, lines: Lines, wishes: &[Directive]) -> Edited {
    let mut editor = Editor {
        files,
        path,
        lines,
        notes: Vec::new(),
    };
    for wish in wishes {
        editor.fulfil(wish);
    }
    let unseen = editor.unseen(wishes);
    editor.notes.extend(unseen);
    Edited {
        text: editor.lines.into_text(),
        notes: editor.notes,
    }
}

struct Editor<'a> {
    files: &'a dyn Files,
    path: &'a Path,
    lines: Lines,
    notes: Vec<String>,
}

/// Where a key stands.
struct Place {
    value: String,
    origin: Origin,
    /// Its lines in the file that is edited, if it stands there alone.
    here: Option<std::ops::Range<usize>>,
}

impl Editor<'_> {
    fn fulfil(&mut self, wish: &Directive) {
        match wish {
            Directive::Plugin { path, arguments } => self.plugin(path, arguments),
            Directive::Value(key, value) => match self.last(key) {
                Some(place) if !is_default(key, &place.value) => {
                    if place.value != *value {
                        self.keep(key, &place, value);
                    }
                }
                _ => self.value(key, value),
            },
            Directive::HealthCheck { program, interval } => {
                self.health_check(program, interval);
            }
            Directive::Flags(key, flags) => self.flags(key, flags),
            Directive::Program {
                key,
                value,
                several,
            } => self.program(key, value, *several),
            Directive::Verbatim(lines) => {
                for line in lines {
                    self.lines.append(line);
                }
            }
        }
    }

    fn health_check(&mut self, program: &str, interval: &str) {
        const KEY: &str = "HealthCheckProgram";
        match self.last(KEY) {
            Some(place) if place.value == program => {}
            // It calls ours by its own configuration, which is each node's.
            Some(place) if nhc::is_nhc(&place.value) => return,
            Some(place) => {
                let theirs = printable(&place.value, 200);
                self.notes.push(format!(
                    "{KEY}={theirs} stays; have it run {program} as well"
                ));
                return;
            }
            None => self.value(KEY, program),
        }
        let interval = interval.to_owned();
        self.fulfil(&Directive::Value("HealthCheckInterval", interval));
    }

    fn plugin(&mut self, path: &str, arguments: &str) {
        let name = Path::new(path).file_name().and_then(|name| name.to_str());
        let text = self.lines.text();
        let stack = Plugstack::read(&self.overlay(&text), self.path);
        let there = stack.is_ok_and(|it| name.is_some_and(|name| it.plugin(name).is_some()));
        if !there {
            let line = format!("optional {path} {arguments}");
            self.lines.append(line.trim_end());
        }
    }

    /// What was not read, although it may say what is wished for.
    fn unseen(&self, wishes: &[Directive]) -> Vec<String> {
        let text = self.lines.text();
        let overlay = self.overlay(&text);
        let is_plugstack = wishes
            .iter()
            .any(|it| matches!(it, Directive::Plugin { .. }));
        let problems = if is_plugstack {
            Plugstack::read(&overlay, self.path).map(|it| it.problems)
        } else {
            SlurmConf::read(&overlay, self.path).map(|it| it.problems)
        };
        let problems = problems.unwrap_or_default();
        problems.iter().map(ToString::to_string).collect()
    }

    /// The files as they are with the text as it is now.
    fn overlay<'a>(&'a self, text: &'a str) -> Overlay<'a> {
        Overlay {
            path: self.path,
            text,
            under: self.files,
        }
    }

    fn value(&mut self, key: &str, value: &str) {
        match self.last(key) {
            None => self.lines.append(&format!("{key}={value}")),
            Some(place) if place.value == value => {}
            Some(Place {
                here: Some(range), ..
            }) => {
                self.lines.put_aside(range.clone());
                self.lines.insert(range.end, &format!("{key}={value}"));
            }
            Some(place) => self.keep(key, &place, value),
        }
    }

    fn flags(&mut self, key: &str, flags: &[&str]) {
        let Some(place) = self.last(key) else {
            return self.lines.append(&format!("{key}={}", flags.join(",")));
        };
        let mut all: Vec<&str> = place.value.split(',').filter(|it| !it.is_empty()).collect();
        let before = all.len();
        for flag in flags {
            if !all.iter().any(|it| it.eq_ignore_ascii_case(flag)) {
                all.push(flag);
            }
        }
        if all.len() == before {
            return;
        }
        let wanted = all.join(",");
        self.value(key, &wanted);
    }

    fn program(&mut self, key: &str, value: &str, several: bool) {
        let places = self.all(key);
        if places.iter().any(|place| place.value == value) {
            return;
        }
        match places.last() {
            Some(place) if !several => {
                let theirs = printable(&place.value, 200);
                self.notes.push(format!(
                    "{key}={theirs} stays, since this Slurm takes one {key} only; add this line to \
                     it: {}",
                    prologs::line_for_script(value.trim_end_matches("/*"))
                ));
            }
            _ => self.lines.append(&format!("{key}={value}")),
        }
    }

    fn keep(&mut self, key: &str, place: &Place, ours: &str) {
        let Place { value, origin, .. } = place;
        let theirs = printable(value, 200);
        let advice = match is_pclusters(&origin.file) {
            true => format!(
                "ParallelCluster writes {}, so set {key}: {ours} in CustomSlurmSettings of the \
                 cluster's configuration and run `pcluster update-cluster`",
                printable(&origin.file.to_string_lossy(), 200)
            ),
            false => format!("{key}={ours} is wanted: change {origin} by hand"),
        };
        self.notes.push(format!("{key}={theirs} stays; {advice}"));
    }

    /// Slurm takes the last line of a key (slurm.conf(5)).
    fn last(&self, key: &str) -> Option<Place> {
        self.all(key).pop()
    }

    fn all(&self, key: &str) -> Vec<Place> {
        let text = self.lines.text();
        let conf = SlurmConf::read(&self.overlay(&text), self.path).unwrap_or_default();
        let places = conf.settings_of(key).map(|setting| {
            let alone = *setting.origin.file == *self.path && setting.rest.is_empty();
            Place {
                value: setting.pair.value.to_owned(),
                origin: setting.origin.clone(),
                here: alone.then(|| setting.origin.lines.clone()),
            }
        });
        places.collect()
    }
}

/// Whether ParallelCluster writes this file again with each update of the cluster. It
/// writes slurm.conf itself only once, when it makes the head node (config_head_node
/// and update_head_node of aws-parallelcluster-cookbook 3.x).
fn is_pclusters(file: &Path) -> bool {
    let name = file.file_name().and_then(|it| it.to_str());
    name.is_some_and(|it| {
        it.starts_with("slurm_parallelcluster") || it.starts_with("custom_slurm_settings_include")
    })
}

/// A value that says nothing: what the key is where nobody sets it.
fn is_default(key: &str, value: &str) -> bool {
    key == "HealthCheckInterval" && value == "0"
}

#[cfg(test)]
mod tests {
    use super::super::edit::without_ours;
    use super::*;
    use proptest::prelude::*;
    use slurm::conf::reader::InMemory;

    const EFA: &str = "/usr/lib/slurm-efa/spank_efa.so";

    fn plugin() -> Directive {
        Directive::Plugin {
            path: EFA.to_owned(),
            arguments: String::new(),
        }
    }

    fn wishes(several: bool) -> Vec<Directive> {
        vec![
            Directive::Flags("PrologFlags", &["Alloc", "Contain"]),
            Directive::Program {
                key: "Prolog",
                value: "/etc/slurm-efa/prolog.d/*".to_owned(),
                several,
            },
            Directive::HealthCheck {
                program: "/etc/slurm-efa/efa-check-healthcheck".to_owned(),
                interval: "60",
            },
        ]
    }

    const CONF: &str = "/etc/slurm/x.conf";

    /// Edits a file that includes nothing which exists.
    fn edit(text: &str, wishes: &[Directive]) -> Edited {
        edit_with(&[], text, wishes)
    }

    /// Edits a file beside others.
    fn edit_with(others: &[(&str, &str)], text: &str, wishes: &[Directive]) -> Edited {
        let lines = Lines::theirs(text);
        super::edit(&InMemory::new(others), Path::new(CONF), lines, wishes)
    }

    fn lines(text: &str) -> Vec<&str> {
        text.lines().collect()
    }

    /// Four sites' files, in their shape.
    const SITES: [&str; 5] = [
        // HyperPod: commented sections, the base scripts' prolog, no line break at the end.
        "ClusterName=hp\nSlurmctldHost=ip-10-1-2-3(10.1.2.3)\nSlurmctldParameters=enable_configless\n\
         ProctrackType=proctrack/cgroup\nPrologFlags=Alloc\nProlog=/opt/slurm/etc/scripts/prolog.sh\n\
         GresTypes=gpu\nNodeName=ip-10-1-2-4 NodeAddr=10.1.2.4 CPUs=192 Gres=gpu:8 State=CLOUD\n\
         PartitionName=dev Nodes=ALL Default=YES\ninclude accounting.conf",
        // ParallelCluster: includes, a folder of prologs.
        "ClusterName=parallelcluster\nSlurmUser=slurm\nPrologFlags=Alloc,NoHold\n\
         Prolog=/opt/slurm/etc/scripts/prolog.d/*\nEpilog=/opt/slurm/etc/scripts/epilog.d/*\n\
         # WARNING!!! edited by hand?\ninclude /opt/slurm/etc/slurm_parallelcluster.conf\n",
        // OpenHPC: a health check, upper and lower case.
        "clustername=cluster\nSlurmctldHost=sms\nReturnToService=1\nprologflags=x11\n\
         HealthCheckProgram=/usr/sbin/nhc\nHealthCheckInterval=300\n\
         NodeName=c[1-4] Sockets=2 CoresPerSocket=8 ThreadsPerCore=2 State=UNKNOWN\n",
        // Debian's: next to nothing, CRLF from somebody's editor.
        "ClusterName=debian\r\nSlurmctldHost=localhost\r\nPrologFlags=X11,\\\r\nAlloc # why\r\n",
        "",
    ];

    #[test]
    fn every_sites_file_gets_what_is_missing_and_gives_it_back() {
        for site in SITES {
            for several in [false, true] {
                let once = edit(site, &wishes(several));
                assert_eq!(edit(&once.text, &wishes(several)), once);
                assert_eq!(without_ours(&once.text), site);
            }
        }
    }

    #[test]
    fn flags_are_added_to_theirs_and_theirs_stays_as_a_comment() {
        let edited = edit("PrologFlags=X11 # forwarding\n", &wishes(true)[..1]);
        let want = [
            "#slurm-efa# PrologFlags=X11 # forwarding",
            "PrologFlags=X11,Alloc,Contain # slurm-efa",
        ];
        assert_eq!(lines(&edited.text), want);
        let all = "prologflags = alloc,CONTAIN,X11\n";
        assert_eq!(edit(all, &wishes(true)[..1]).text, all);
    }

    #[test]
    fn flags_over_two_lines_are_put_aside_both() {
        let edited = edit(SITES[3], &wishes(true)[..1]);
        assert!(edited.text.ends_with(
            "#slurm-efa# PrologFlags=X11,\\\r\n#slurm-efa# Alloc # why\r\n\
             PrologFlags=X11,Alloc,Contain # slurm-efa\r\n"
        ));
    }

    #[test]
    fn a_prolog_of_theirs_stays_beside_ours_where_slurm_takes_both() {
        let text = "Prolog=/opt/slurm/etc/scripts/prolog.sh\n";
        let edited = edit(text, &wishes(true)[1..2]);
        let want = [
            "Prolog=/opt/slurm/etc/scripts/prolog.sh",
            "Prolog=/etc/slurm-efa/prolog.d/* # slurm-efa",
        ];
        assert_eq!(lines(&edited.text), want);
        let edited = edit(text, &wishes(false)[1..2]);
        assert_eq!(edited.text, text);
        assert!(
            edited.notes[0].contains("one Prolog only"),
            "{:?}",
            edited.notes
        );
    }

    #[test]
    fn a_health_check_of_theirs_stays_and_is_said() {
        let text = "HealthCheckProgram=/opt/site/check\nHealthCheckInterval=300\n";
        let edited = edit(text, &wishes(true)[2..]);
        assert_eq!(edited.text, text);
        let note = "HealthCheckProgram=/opt/site/check stays; have it run \
                    /etc/slurm-efa/efa-check-healthcheck as well";
        assert_eq!(edited.notes, [note]);
        let edited = edit("HealthCheckInterval=0\n", &wishes(true)[2..]);
        assert!(edited.text.contains("\nHealthCheckInterval=60 # slurm-efa"));
    }

    #[test]
    fn nhc_stays_the_health_check_without_a_word() {
        let edited = edit(SITES[2], &wishes(true)[2..]);
        assert_eq!(edited.text, SITES[2]);
        assert_eq!(edited.notes, Vec::<String>::new());
    }

    #[test]
    fn a_health_check_of_theirs_that_is_off_stays_off() {
        let theirs = "HealthCheckProgram=/usr/sbin/nhc\n";
        for off in ["", "HealthCheckInterval=0\n"] {
            let text = format!("{theirs}{off}");
            assert_eq!(edit(&text, &wishes(true)[2..]).text, text);
            let main = "include site.conf\n";
            let others = [("/etc/slurm/site.conf", &*text)];
            let edited = edit_with(&others, main, &wishes(true)[2..]);
            assert_eq!(edited.text, main);
        }
    }

    #[test]
    fn what_shares_its_line_is_not_put_aside() {
        // Slurm refuses such a line; setup's own check then says so.
        let text = "PrologFlags=x11 ReturnToService=1\n";
        let edited = edit(text, &wishes(true)[..1]);
        assert_eq!(edited.text, text);
        let note = &edited.notes[0];
        assert!(note.contains("PrologFlags=x11 stays"), "{note}");
    }

    #[test]
    fn what_stands_in_an_included_file_is_left_and_said() {
        let others = [("/etc/slurm/site.conf", "PrologFlags=X11\n")];
        let edited = edit_with(&others, "include site.conf\n", &wishes(true)[..1]);
        assert_eq!(edited.text, "include site.conf\n");
        assert_eq!(edited.notes.len(), 1);
    }

    #[test]
    fn flags_that_an_include_at_the_end_replaces_are_left_and_said() {
        let others = [("/etc/slurm/custom.conf", "PrologFlags=Serial\n")];
        let text = "PrologFlags=Contain\ninclude custom.conf\n";
        let edited = edit_with(&others, text, &wishes(true)[..1]);
        assert_eq!(edited.text, text);
        let note = &edited.notes[0];
        assert!(note.contains("PrologFlags=Serial stays"), "{note}");
        let place = "change /etc/slurm/custom.conf line 1 by hand";
        assert!(note.contains(place), "{note}");
    }

    #[test]
    fn a_health_check_in_a_file_named_after_the_cluster_stays() {
        let others = [(
            "/etc/slurm/hp_site.conf",
            "HealthCheckProgram=/opt/site/check\n",
        )];
        let text = "ClusterName=HP\nInclude %c_site.conf\nHealthCheckInterval=300\n";
        let edited = edit_with(&others, text, &wishes(true)[2..]);
        assert_eq!(edited.text, text);
        assert!(edited.notes[0].contains("/opt/site/check stays"));
    }

    #[test]
    fn a_plugin_that_a_pattern_of_any_kind_includes_is_not_added_again() {
        let others = [("/etc/slurm/ps.d/10-efa.conf", "optional /x/spank_efa.so\n")];
        for pattern in ["ps.d/[0-9]*.conf", "ps.?/10-*", "*/10-efa.conf"] {
            let main = format!("include {pattern}\n");
            assert_eq!(edit_with(&others, &main, &[plugin()]).text, main);
        }
    }

    #[test]
    fn our_line_stands_alone_after_a_last_line_that_blanks_and_a_backslash_end() {
        let text = "SlurmctldParameters=idle_on_node_suspend,\\ \n";
        let edited = edit(text, &wishes(true)[1..2]);
        let ours = "# slurm-efa\nProlog=/etc/slurm-efa/prolog.d/* # slurm-efa\n";
        assert_eq!(edited.text, format!("{text}{ours}"));
        let files = InMemory::new(&[(CONF, &edited.text)]);
        let conf = SlurmConf::read(&files, Path::new(CONF)).unwrap();
        assert_eq!(conf.value("Prolog"), Some("/etc/slurm-efa/prolog.d/*"));
        assert_eq!(without_ours(&edited.text), text);
    }

    #[test]
    fn an_include_that_cannot_be_followed_is_said_with_its_line() {
        let edited = edit("A=1\ninclude gone.conf\n", &wishes(true)[..1]);
        assert!(
            edited.notes[0].starts_with("/etc/slurm/x.conf line 2: include gone.conf"),
            "{:?}",
            edited.notes
        );
    }

    #[test]
    fn a_plugin_is_added_once_wherever_and_however_it_is_loaded_already() {
        let edited = edit("required /a/pyxis.so\n", &[plugin()]);
        let want = [
            "required /a/pyxis.so",
            "optional /usr/lib/slurm-efa/spank_efa.so # slurm-efa",
        ];
        assert_eq!(lines(&edited.text), want);
        let theirs = "required /elsewhere/spank_efa.so config=/x # by hand\n";
        assert_eq!(edit(theirs, &[plugin()]).text, theirs);
        let commented = "# optional /usr/lib/slurm-efa/spank_efa.so\n";
        assert_ne!(edit(commented, &[plugin()]).text, commented);
        let main = "include plugstack.conf.d/*\n";
        let others = [("/etc/slurm/plugstack.conf.d/a", theirs)];
        assert_eq!(edit_with(&others, main, &[plugin()]).text, main);
    }

    #[test]
    fn values_are_found_in_our_lines_and_not_in_those_put_aside() {
        let text = edit("PrologFlags=X11\n", &wishes(true)).text;
        let conf = InMemory::new(&[(CONF, &text)]);
        let conf = SlurmConf::read(&conf, Path::new(CONF)).unwrap();
        assert_eq!(conf.values("prologflags"), ["X11,Alloc,Contain"]);
        assert_eq!(conf.value("Prolog"), Some("/etc/slurm-efa/prolog.d/*"));
    }

    proptest! {
        #[test]
        fn any_text_with_ours_in_it_changes_no_more_and_gives_every_byte_back(
            pieces in proptest::collection::vec(
                prop_oneof![
                    "[ -~\r]{0,24}",
                    Just("PrologFlags=X11".to_owned()),
                    Just("Prolog = \"/a b\" Epilog=/c".to_owned()),
                    Just("optional /x/spank_efa.so".to_owned()),
                    Just("include x\\".to_owned()),
                ],
                0..8
            ),
            several in any::<bool>(),
        ) {
            let text = without_ours(&pieces.join("\n"));
            prop_assume!(!super::super::edit::has_ours(&text));
            let mut wishes = wishes(several);
            wishes.push(plugin());
            let once = edit(&text, &wishes);
            prop_assert_eq!(&edit(&once.text, &wishes), &once);
            prop_assert_eq!(without_ours(&once.text), text.clone());
            // Their lines are all there, in their order.
            let mut left = once.text.split('\n').map(|it| it.strip_prefix("#slurm-efa# ").unwrap_or(it));
            for line in text.split('\n') {
                prop_assert!(left.any(|it| it == line || (it.trim_end_matches('\r') == line.trim_end_matches('\r'))));
            }
        }
    }
}
