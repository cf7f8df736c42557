//! `slurm::conf::plugstack` against srun, on generated trees of plugstack.conf
//! and its includes: the plugins that srun loads, in its order and with their
//! arguments, are those that are read.

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use slurm::conf::plugstack::Plugstack;
use slurm::conf::reader::Disk;

use super::{failed, texts, try_trees};
use crate::testbed::Testbed;

/// The files that plugstack.conf may include.
const FILES: [&str; 5] = [
    "ps.d/10-first.conf",
    "ps.d/20-second.conf",
    "ps.d/.hidden.conf",
    "ps.d/30-third.conf.off",
    "other.conf",
];

/// A line of a generated file.
#[derive(Debug, Clone)]
enum Made {
    Plugin {
        head: &'static str,
        /// Words after the file that the plugin writes to.
        words: String,
        tail: &'static str,
    },
    Other(&'static str),
}

fn line() -> impl Strategy<Value = Made> {
    let head = prop_oneof![
        6 => Just("optional "),
        3 => Just("required "),
        1 => Just("\toptional\t"),
        1 => Just("  required   "),
        1 => Just("Optional "),
        1 => Just("#optional "),
    ];
    let words = prop_oneof![
        3 => Just(String::new()),
        3 => "[a-z]{1,4}=[a-z0-9/._-]{1,6}",
        1 => "[a-z]{1,3}[ \t]{1,2}[a-z]{1,3}",
        1 => "\"[a-z]{1,3} [a-z]{1,3}\"",
        1 => r"[a-z]{1,3}\\#[a-z]{1,3}",
    ];
    let tail = prop_oneof![
        8 => Just("\n"),
        1 => Just(" \t\n"),
        1 => Just("\r\n"),
        1 => Just(" # why\n"),
        1 => Just("#why\n"),
        1 => Just(" \\\n"),
    ];
    let plugin =
        (head, words, tail).prop_map(|(head, words, tail)| Made::Plugin { head, words, tail });
    let other = prop_oneof![
        3 => Just("\n"),
        3 => Just("# a comment\n"),
        1 => Just("optional no_such_plugin.so\n"),
        1 => Just("perhaps no_such_plugin.so\n"),
    ];
    prop_oneof![6 => plugin, 1 => other.prop_map(Made::Other)]
}

/// In plugstack.conf only, so that there is no circle.
fn own_line() -> impl Strategy<Value = Made> {
    let include = prop_oneof![
        Just("include ps.d/*.conf\n"),
        Just("include ps.d/[0-9]*.conf\n"),
        Just("include ps.d/[!1]*\n"),
        Just("include p?.d/10-*\n"),
        Just("include */*.conf\n"),
        Just("include ps.d/.*.conf\n"),
        Just("include other.conf\n"),
        Just("  include\tother.conf # why\n"),
        Just("include none/*.conf\n"),
        Just("Include other.conf\n"),
        Just("include ps.d/{10,20}*.conf\n"),
        Just("include ps.d/[0-9]*.conf\r\n"),
    ];
    prop_oneof![3 => line(), 2 => include.prop_map(Made::Other)]
}

fn tree() -> impl Strategy<Value = (Vec<Made>, Vec<Vec<Made>>)> {
    let others = prop::collection::vec(prop::collection::vec(line(), 0..3), FILES.len());
    (prop::collection::vec(own_line(), 1..6), others)
}

/// The folder of a tree, and how many plugins there are in it.
struct Plugins<'a> {
    folder: &'a Path,
    used: usize,
}

impl Plugins<'_> {
    /// Slurm loads a file once only, so that each line has one of its own.
    fn text(&mut self, lines: &[Made]) -> String {
        let mut text = String::new();
        for line in lines {
            match line {
                Made::Plugin { head, words, tail } => {
                    let (folder, number) = (self.folder.display(), self.used);
                    let plugin = format!("{folder}/noting{number}.so {folder}/noted {number}");
                    let _ = write!(text, "{head}{plugin} {words}{tail}");
                    self.used += 1;
                }
                Made::Other(line) => text.push_str(line),
            }
        }
        text
    }
}

/// Most lines with plugins in one tree.
const MOST: usize = 6 + 3 * FILES.len();

/// Tries this many trees on a testbed of their own, with this build of
/// lib/spank's `noting_plugin`.
///
/// # Errors
/// A tree that srun reads in another way, or what stands in the way.
pub fn holds(tb: &Testbed, noting: &Path, trees: u32) -> Result<(), Box<dyn Error>> {
    let (folder, main) = (tb.dir(), tb.dir().join("plugstack.conf"));
    fs::create_dir_all(folder.join("ps.d"))?;
    for number in 0..MOST {
        fs::copy(noting, folder.join(format!("noting{number}.so")))?;
    }
    try_trees(trees, &tree(), |(own, others)| {
        let mut plugins = Plugins { folder, used: 0 };
        for (lines, file) in others.iter().zip(FILES) {
            fs::write(folder.join(file), plugins.text(lines))?;
        }
        let own = plugins.text(&own);
        fs::write(&main, &own)?;
        let stack = Plugstack::read(&Disk, &main).map_err(failed)?;
        let ours = stack.plugins.iter();
        let ours = ours.filter(|plugin| plugin.path.starts_with('/'));
        // The first word is the file that the plugin writes to.
        let ours: Vec<String> = ours
            .map(|plugin| plugin.arguments.get(1..).unwrap_or_default().join(" "))
            .collect();
        let noted = folder.join("noted");
        fs::write(&noted, "")?;
        let ran = tb.command("root", &["srun", "--help"]).output();
        let ran = ran.map_err(failed)?;
        let loaded = fs::read_to_string(&noted)?;
        let loaded: Vec<&str> = loaded.split_terminator('\n').collect();
        prop_assert_eq!(
            &ours,
            &loaded,
            "{}\n{}{}",
            ran.stderr,
            own,
            texts(folder, &FILES)
        );
        Ok(())
    })
}
