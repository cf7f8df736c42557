//! The one thing that root's hooks need of slurm.conf: where slurmstepd's
//! sockets lie. SPANK does not tell, and libslurm's own reader ends the process
//! when something is wrong.

use std::path::{Path, PathBuf};

use crate::NodeName;
use host::{Sysroot, printable};

/// Largest slurm.conf that is read, in bytes.
const LARGEST: usize = 4 * 1024 * 1024;

/// How deep `Include` is followed.
const DEEPEST: usize = 4;

/// Most files that are read.
const MOST_FILES: usize = 64;

/// Slurm's own default of `SlurmdSpoolDir` (slurm.conf(5)).
const DEFAULT: &str = "/var/spool/slurmd";

/// `SlurmdSpoolDir` of the node, from the slurm.conf that its slurmd uses.
///
/// # Errors
/// For a person. Never read it as "the default".
pub fn spool_dir(slurm_conf: &Path, node: &NodeName) -> Result<PathBuf, String> {
    let mut found = None;
    let mut files = MOST_FILES;
    read(slurm_conf, DEEPEST, &mut files, &mut found)?;
    expand(found.as_deref().unwrap_or(DEFAULT), node)
}

fn read(
    path: &Path,
    deeper: usize,
    files: &mut usize,
    found: &mut Option<String>,
) -> Result<(), String> {
    *files = files
        .checked_sub(1)
        .ok_or("slurm.conf includes too many files")?;
    let text = Sysroot::real()
        .read_bounded(&path.to_string_lossy(), LARGEST)
        .map_err(|error| error.to_string())?;
    for line in text.lines() {
        match understand(line) {
            // slurm.conf(5): the last one counts.
            Some(Line::Spool(dir)) => *found = Some(dir.to_owned()),
            Some(Line::Include(file)) if deeper > 0 => {
                let folder = path.parent().unwrap_or(Path::new("/"));
                // A file that is missing is Slurm's to complain about.
                let file = folder.join(file);
                if file.is_file() {
                    read(&file, deeper - 1, files, found)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Spool(&'a str),
    Include(&'a str),
}

fn understand(line: &str) -> Option<Line<'_>> {
    let line = line.split('#').next()?.trim();
    if let Some((word, file)) = line.split_once(char::is_whitespace)
        && word.eq_ignore_ascii_case("include")
    {
        return Some(Line::Include(file.trim()));
    }
    let (key, value) = line.split_once('=')?;
    if !key.trim().eq_ignore_ascii_case("SlurmdSpoolDir") {
        return None;
    }
    let value = value.split_whitespace().next()?.trim_matches('"');
    Some(Line::Spool(value))
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
    use super::*;
    use proptest::prelude::*;

    fn spool_of(texts: &[(&str, &str)]) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in texts {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let node = "n1".parse().unwrap();
        let path = spool_dir(&dir.path().join(texts[0].0), &node)?;
        Ok(path.display().to_string())
    }

    #[test]
    fn the_last_line_counts_in_any_case_and_with_placeholders() {
        let text = "# SlurmdSpoolDir=/no\nslurmdspooldir = \"/a\"\nSlurmdSpoolDir=/s/%n # x\n";
        assert_eq!(spool_of(&[("slurm.conf", text)]).unwrap(), "/s/n1");
    }

    #[test]
    fn without_a_line_slurms_default_holds_and_without_a_file_nothing() {
        assert_eq!(spool_of(&[("slurm.conf", "A=1\n")]).unwrap(), DEFAULT);
        let node = "n1".parse().unwrap();
        assert!(spool_dir(Path::new("/nonexistent/slurm.conf"), &node).is_err());
    }

    #[test]
    fn an_included_file_counts_and_a_circle_ends() {
        let first = ("slurm.conf", "Include nodes.conf\ninclude slurm.conf\n");
        let second = ("nodes.conf", "SlurmdSpoolDir=/included\n");
        assert_eq!(spool_of(&[first, second]).unwrap(), "/included");
    }

    #[test]
    fn a_place_that_is_not_understood_is_not_guessed() {
        for dir in ["relative", "/a/%x", "/a/../b"] {
            assert!(spool_of(&[("slurm.conf", &format!("SlurmdSpoolDir={dir}\n"))]).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_line_is_understood_or_left_alone(line in "\\PC{0,60}") {
            if let Some(Line::Spool(dir)) = understand(&line) {
                let _ = expand(dir, &"n1".parse().unwrap());
            }
        }
    }
}
