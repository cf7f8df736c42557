//! plugstack.conf, slurm.conf and its sisters: what is wished for, and the text
//! with it.

use std::path::Path;

use host::printable;

use super::edit::Lines;

/// What a file shall say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
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
        /// Our programs, and the links by which slurmd calls them.
        links: Vec<Link>,
    },
    /// Lines that nobody shares with us.
    Verbatim(Vec<String>),
}

/// A link to a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// The program's path.
    pub program: String,
}

/// A folder all of whose programs slurmd runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// The folder.
    pub path: String,
    /// What the programs' names end in.
    pub extension: String,
}

impl Folder {
    /// The folder of a pattern such as `/opt/slurm/etc/prolog.d/*`; `None` where
    /// the value is no such pattern.
    #[must_use]
    pub fn of(pattern: &str) -> Option<Self> {
        let (path, names) = pattern.rsplit_once('/')?;
        let extension = names.strip_prefix('*')?;
        let plain = |text: &str| !text.contains(['*', '?', '[', '{', '\\']);
        (plain(path) && plain(extension)).then(|| Self {
            path: path.to_owned(),
            extension: extension.to_owned(),
        })
    }

    /// The command that makes this link in the folder. Sites number the programs
    /// of such a folder.
    fn command(&self, link: &Link) -> String {
        let (Self { path, extension }, Link { name, program }) = (self, link);
        format!("ln -s {program} {path}/50-{name}{extension}")
    }
}

/// The new text, and what is to be said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edited {
    /// The file's text.
    pub text: String,
    /// Sentences: what was left as it is, and what to do about it.
    pub notes: Vec<String>,
}

/// Makes `text` say what is wished for. `elsewhere` are the texts of the files
/// that this one includes: what stands there stays, and is not said again.
#[must_use]
pub fn edit(text: &str, elsewhere: &[String], wishes: &[Wish]) -> Edited {
    let mut editor = Editor {
        lines: Lines::theirs(text),
        elsewhere: elsewhere.iter().map(|text| Lines::theirs(text)).collect(),
        notes: Vec::new(),
    };
    for wish in wishes {
        editor.fulfil(wish);
    }
    Edited {
        text: editor.lines.into_text(),
        notes: editor.notes,
    }
}

struct Editor {
    lines: Lines,
    elsewhere: Vec<Lines>,
    notes: Vec<String>,
}

/// Where a key stands.
struct Place {
    value: String,
    /// Its lines in the file that is edited, if it stands there alone.
    here: Option<std::ops::Range<usize>>,
}

impl Editor {
    fn fulfil(&mut self, wish: &Wish) {
        match wish {
            Wish::Plugin { path, arguments } => self.plugin(path, arguments),
            Wish::Value(key, value) => match self.last(key) {
                Some(place) if !is_default(key, &place.value) => {
                    if place.value != *value {
                        self.keep(key, &place.value, value);
                    }
                }
                _ => self.value(key, value),
            },
            Wish::HealthCheck { program, interval } => {
                const KEY: &str = "HealthCheckProgram";
                self.fulfil(&Wish::Value(KEY, program.clone()));
                if self.last(KEY).is_some_and(|it| it.value == *program) {
                    let interval = (*interval).to_owned();
                    self.fulfil(&Wish::Value("HealthCheckInterval", interval));
                }
            }
            Wish::Flags(key, flags) => self.flags(key, flags),
            Wish::Program {
                key,
                value,
                several,
                links,
            } => self.program(key, value, *several, links),
            Wish::Verbatim(lines) => {
                for line in lines {
                    self.lines.append(line);
                }
            }
        }
    }

    fn plugin(&mut self, path: &str, arguments: &str) {
        let name = Path::new(path).file_name();
        let all = std::iter::once(&self.lines).chain(&self.elsewhere);
        let there = all
            .flat_map(|lines| lines.logical())
            .any(|line| plugin_of(&line.text).is_some_and(|it| Path::new(it).file_name() == name));
        if !there {
            let line = format!("optional {path} {arguments}");
            self.lines.append(line.trim_end());
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
            Some(place) => self.keep(key, &place.value, value),
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

    fn program(&mut self, key: &str, value: &str, several: bool, links: &[Link]) {
        let places = self.all(key);
        if places.iter().any(|place| place.value == value) {
            return;
        }
        match places.last() {
            Some(place) if !several => {
                let theirs = printable(&place.value, 200);
                let advice = match Folder::of(&place.value) {
                    Some(folder) => {
                        let commands: Vec<String> =
                            links.iter().map(|link| folder.command(link)).collect();
                        format!(
                            "run on each node, once where nodes share the folder: {}",
                            printable(&commands.join("; "), 600)
                        )
                    }
                    None => {
                        format!("have it run each program of {value}, and fail when one fails")
                    }
                };
                self.notes.push(format!(
                    "{key}={theirs} stays, since this Slurm takes one {key} only; {advice}"
                ));
            }
            _ => self.lines.append(&format!("{key}={value}")),
        }
    }

    fn keep(&mut self, key: &str, theirs: &str, ours: &str) {
        let theirs = printable(theirs, 200);
        self.notes.push(format!(
            "{key}={theirs} stays; {key}={ours} is wanted, so change it by hand where it stands"
        ));
    }

    /// Slurm takes the last line of a key (slurm.conf(5)).
    fn last(&self, key: &str) -> Option<Place> {
        self.all(key).pop()
    }

    fn all(&self, key: &str) -> Vec<Place> {
        let places = |lines: &Lines, here: bool| -> Vec<Place> {
            let logical = lines.logical();
            let found = logical.iter().filter_map(|line| {
                let pairs = pairs(&line.text);
                let (_, value) = pairs.iter().find(|(it, _)| it.eq_ignore_ascii_case(key))?;
                let alone = here && pairs.len() == 1;
                Some(Place {
                    value: value.clone(),
                    here: alone.then(|| line.lines.clone()),
                })
            });
            found.collect()
        };
        let elsewhere = self.elsewhere.iter().flat_map(|it| places(it, false));
        let mut all: Vec<Place> = elsewhere.collect();
        all.extend(places(&self.lines, true));
        all
    }
}

/// A value that says nothing: what the key is where nobody sets it.
fn is_default(key: &str, value: &str) -> bool {
    key == "HealthCheckInterval" && value == "0"
}

/// The plugin that a line of plugstack.conf loads (spank(7)).
#[must_use]
pub fn plugin_of(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    matches!(words.next()?, "optional" | "required")
        .then(|| words.next())
        .flatten()
}

/// What a line of plugstack.conf or slurm.conf includes.
#[must_use]
pub fn include_of(line: &str) -> Option<&str> {
    let (word, rest) = line.trim().split_once(char::is_whitespace)?;
    word.eq_ignore_ascii_case("include").then(|| rest.trim())
}

/// The value of a key in a text: of its last line.
#[must_use]
pub fn value_of(text: &str, key: &str) -> Option<String> {
    values_of(text, key).pop()
}

/// The values of a key in a text, in order.
#[must_use]
pub fn values_of(text: &str, key: &str) -> Vec<String> {
    let lines: Vec<String> = all_logical(text);
    let pairs = lines.iter().flat_map(|line| pairs(line));
    pairs
        .filter(|(it, _)| it.eq_ignore_ascii_case(key))
        .map(|(_, value)| value)
        .collect()
}

/// Each line of a text, ours and theirs, as Slurm reads it.
#[must_use]
pub fn all_logical(text: &str) -> Vec<String> {
    // Ours are lines like others here, so the mark goes before they are told
    // apart.
    let unmarked = text.replace(super::edit::MARK, "");
    let lines = Lines::theirs(&unmarked.replace(super::edit::ASIDE, "# "));
    lines.logical().into_iter().map(|it| it.text).collect()
}

/// `Key=Value Key="Value"` (slurm.conf(5)).
fn pairs(line: &str) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let mut rest = line.trim();
    while let Some((key, after)) = rest.split_once('=') {
        // `+=` and the like of records are no keys of ours.
        let key = key.trim().to_owned();
        let after = after.trim_start();
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(char::is_whitespace).unwrap_or((after, "")),
        };
        pairs.push((key, value.to_owned()));
        rest = left.trim_start();
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::super::edit::without_ours;
    use super::*;
    use proptest::prelude::*;

    const EFA: &str = "/usr/lib/slurm-efa/spank_efa.so";

    fn plugin() -> Wish {
        Wish::Plugin {
            path: EFA.to_owned(),
            arguments: String::new(),
        }
    }

    fn wishes(several: bool) -> Vec<Wish> {
        vec![
            Wish::Flags("PrologFlags", &["Alloc", "Contain"]),
            Wish::Program {
                key: "Prolog",
                value: "/etc/slurm-efa/prolog.d/*".to_owned(),
                several,
                links: vec![Link {
                    name: "efa-check-prolog".to_owned(),
                    program: "/usr/sbin/efa-check".to_owned(),
                }],
            },
            Wish::HealthCheck {
                program: "/etc/slurm-efa/efa-check-watch".to_owned(),
                interval: "60",
            },
        ]
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
        // OpenHPC: a health check, upper and lower case, two pairs in a line.
        "clustername=cluster\nSlurmctldHost=sms\nReturnToService=1 prologflags=x11\n\
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
                let once = edit(site, &[], &wishes(several));
                assert_eq!(edit(&once.text, &[], &wishes(several)), once);
                assert_eq!(without_ours(&once.text), site);
            }
        }
    }

    #[test]
    fn flags_are_added_to_theirs_and_theirs_stays_as_a_comment() {
        let edited = edit("PrologFlags=X11 # forwarding\n", &[], &wishes(true)[..1]);
        let want = [
            "#slurm-efa# PrologFlags=X11 # forwarding",
            "PrologFlags=X11,Alloc,Contain # slurm-efa",
        ];
        assert_eq!(lines(&edited.text), want);
        let all = "prologflags = alloc,CONTAIN,X11\n";
        assert_eq!(edit(all, &[], &wishes(true)[..1]).text, all);
    }

    #[test]
    fn flags_over_two_lines_are_put_aside_both() {
        let edited = edit(SITES[3], &[], &wishes(true)[..1]);
        assert!(edited.text.ends_with(
            "#slurm-efa# PrologFlags=X11,\\\r\n#slurm-efa# Alloc # why\r\n\
             PrologFlags=X11,Alloc,Contain # slurm-efa\r\n"
        ));
    }

    #[test]
    fn a_prolog_of_theirs_stays_beside_ours_where_slurm_takes_both() {
        let text = "Prolog=/opt/slurm/etc/scripts/prolog.sh\n";
        let edited = edit(text, &[], &wishes(true)[1..2]);
        let want = [
            "Prolog=/opt/slurm/etc/scripts/prolog.sh",
            "Prolog=/etc/slurm-efa/prolog.d/* # slurm-efa",
        ];
        assert_eq!(lines(&edited.text), want);
        let edited = edit(text, &[], &wishes(false)[1..2]);
        assert_eq!(edited.text, text);
        assert!(
            edited.notes[0].contains("one Prolog only"),
            "{:?}",
            edited.notes
        );
    }

    #[test]
    fn a_folder_of_prologs_of_theirs_is_named_with_the_command_that_adds_ours() {
        for (pattern, link) in [
            ("/opt/prolog.d/*", "/opt/prolog.d/50-efa-check-prolog"),
            ("/opt/prolog.d/*.sh", "/opt/prolog.d/50-efa-check-prolog.sh"),
        ] {
            let text = format!("Prolog={pattern}\n");
            let edited = edit(&text, &[], &wishes(false)[1..2]);
            assert_eq!(edited.text, text);
            let command = format!(": ln -s /usr/sbin/efa-check {link}");
            assert!(edited.notes[0].ends_with(&command), "{:?}", edited.notes);
        }
        for no_folder in ["/opt/*/prolog.sh", "/opt/prolog.d/[0-9]*", "/opt/*/*", "*"] {
            assert_eq!(Folder::of(no_folder), None, "{no_folder}");
        }
    }

    #[test]
    fn a_health_check_of_theirs_stays_and_is_said() {
        let edited = edit(SITES[2], &[], &wishes(true)[2..]);
        assert_eq!(edited.text, SITES[2]);
        assert_eq!(edited.notes.len(), 1, "{:?}", edited.notes);
        let edited = edit("HealthCheckInterval=0\n", &[], &wishes(true)[2..]);
        assert!(edited.text.contains("\nHealthCheckInterval=60 # slurm-efa"));
    }

    #[test]
    fn a_health_check_of_theirs_that_is_off_stays_off() {
        let theirs = "HealthCheckProgram=/usr/sbin/nhc\n";
        for off in ["", "HealthCheckInterval=0\n"] {
            let text = format!("{theirs}{off}");
            assert_eq!(edit(&text, &[], &wishes(true)[2..]).text, text);
            let included = [text];
            let main = "include site.conf\n";
            let edited = edit(main, &included, &wishes(true)[2..]);
            assert_eq!(edited.text, main);
        }
    }

    #[test]
    fn what_shares_its_line_or_stands_in_an_included_file_is_left_and_said() {
        let edited = edit(SITES[2], &[], &wishes(true)[..1]);
        assert_eq!(edited.text, SITES[2]);
        assert!(
            edited.notes[0].contains("PrologFlags=x11 stays"),
            "{:?}",
            edited.notes
        );
        let included = ["PrologFlags=X11\n".to_owned()];
        let edited = edit("include site.conf\n", &included, &wishes(true)[..1]);
        assert_eq!(edited.text, "include site.conf\n");
        assert_eq!(edited.notes.len(), 1);
    }

    #[test]
    fn a_plugin_is_added_once_wherever_and_however_it_is_loaded_already() {
        let edited = edit("required /a/pyxis.so\n", &[], &[plugin()]);
        let want = [
            "required /a/pyxis.so",
            "optional /usr/lib/slurm-efa/spank_efa.so # slurm-efa",
        ];
        assert_eq!(lines(&edited.text), want);
        let theirs = "required /elsewhere/spank_efa.so config=/x # by hand\n";
        assert_eq!(edit(theirs, &[], &[plugin()]).text, theirs);
        let commented = "# optional /usr/lib/slurm-efa/spank_efa.so\n";
        assert_ne!(edit(commented, &[], &[plugin()]).text, commented);
        let main = "include plugstack.conf.d/*\n";
        assert_eq!(edit(main, &[theirs.to_owned()], &[plugin()]).text, main);
    }

    #[test]
    fn values_are_found_in_our_lines_and_not_in_those_put_aside() {
        let text = edit("PrologFlags=X11\n", &[], &wishes(true)).text;
        assert_eq!(values_of(&text, "prologflags"), ["X11,Alloc,Contain"]);
        assert_eq!(
            value_of(&text, "Prolog").unwrap(),
            "/etc/slurm-efa/prolog.d/*"
        );
        assert_eq!(value_of("A=\"b c\" D=1\n", "d").unwrap(), "1");
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
            let once = edit(&text, &[], &wishes);
            prop_assert_eq!(&edit(&once.text, &[], &wishes), &once);
            prop_assert_eq!(without_ours(&once.text), text.clone());
            // Their lines are all there, in their order.
            let mut left = once.text.split('\n').map(|it| it.strip_prefix("#slurm-efa# ").unwrap_or(it));
            for line in text.split('\n') {
                prop_assert!(left.any(|it| it == line || (it.trim_end_matches('\r') == line.trim_end_matches('\r'))));
            }
        }
    }
}
