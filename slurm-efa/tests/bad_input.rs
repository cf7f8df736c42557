//! Files that nobody should write, and somebody will: what doctor and `config check`
//! say of them, in bounded time.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cluster::Role;
use findings::Severity;
use slurm_efa::configuration::check;
use slurm_efa::doctor;
use slurm_efa::setup::discover::{Site, Wanted};

/// What a look at any input takes at most, in a test build on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

const MIB: usize = 1024 * 1024;

struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        tree.write("slurm.conf", "ClusterName=c\n");
        tree.write("plugstack.conf", "");
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// What doctor says of the files that it read.
    fn said(&self) -> String {
        let start = Instant::now();
        let site = Site::look(Wanted {
            role: Some(Role::Controller),
            slurm_conf: Some(self.path("slurm.conf")),
            root: Some(self.0.path().to_owned()),
            ..Wanted::default()
        });
        let findings = doctor::of_files(&site).0;
        assert!(start.elapsed() < LIMIT, "it took {:?}", start.elapsed());
        let found = findings.iter().find(|it| it.id == "files-read").unwrap();
        assert_eq!(found.severity, Severity::Unknown, "{found:?}");
        assert!(!found.sentence.contains('\n'), "{found:?}");
        found.sentence.clone()
    }

    fn says(&self, words: &[&str]) {
        let said = self.said();
        for word in words {
            assert!(said.contains(word), "{word:?} is not in: {said}");
        }
    }
}

#[test]
fn a_slurm_conf_of_10_mb_is_named_with_its_size() {
    let tree = Tree::new();
    tree.write("slurm.conf", &"# x\n".repeat(10 * MIB / 4));
    tree.says(&["slurm.conf", "larger than"]);
}

#[test]
fn an_included_file_of_10_mb_is_named_by_the_line_that_includes_it() {
    let tree = Tree::new();
    tree.write("big.conf", &"x".repeat(10 * MIB));
    tree.write("slurm.conf", "ClusterName=c\n\nInclude big.conf\n");
    tree.says(&["slurm.conf line 3", "big.conf", "larger than"]);
}

#[test]
fn files_that_include_each_other_are_named_by_their_line() {
    let tree = Tree::new();
    tree.write("slurm.conf", "ClusterName=c\nInclude a.conf\n");
    tree.write("a.conf", "# Nothing.\nInclude slurm.conf\n");
    tree.says(&["a.conf line 2", "circle"]);
}

#[test]
fn an_include_that_cannot_be_read_is_named_by_its_line() {
    let tree = Tree::new();
    tree.write("slurm.conf", "ClusterName=c\nInclude gone.conf\n");
    tree.says(&["slurm.conf line 2", "gone.conf", "no such file"]);
}

#[test]
fn a_pattern_that_matches_100_000_files_is_named_by_its_line() {
    let tree = Tree::new();
    tree.write("plugstack.conf", "# x\ninclude ps.d/*\n");
    fs::create_dir(tree.path("ps.d")).unwrap();
    for number in 0..100_000 {
        fs::File::create(tree.path(&format!("ps.d/{number}"))).unwrap();
    }
    tree.says(&["plugstack.conf line 2", "ps.d/*", "larger than the limit"]);
}

#[test]
fn a_file_whose_name_has_a_line_break_is_shown_on_one_line() {
    let tree = Tree::new();
    tree.write("plugstack.conf", "include ps.d/*\n");
    tree.write("ps.d/a b\nc.conf", "include ../plugstack.conf\n");
    tree.says(&["a b", "c.conf line 1", "include one another"]);
}

#[test]
fn a_slurm_conf_of_100_000_lines_is_read() {
    let tree = Tree::new();
    let lines: String = (0..100_000)
        .map(|number| format!("NodeName=n{number} CPUs=2\n"))
        .collect();
    // The last line is read, too.
    tree.write("slurm.conf", &format!("{lines}Include gone.conf\n"));
    tree.says(&["slurm.conf line 100001"]);
}

/// What `config check` says of a text.
fn checked(text: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a b\nc.toml");
    fs::write(&path, text).unwrap();
    let start = Instant::now();
    let findings = check::named(Path::new(&path)).findings.0;
    assert!(start.elapsed() < LIMIT, "it took {:?}", start.elapsed());
    let sentences: Vec<String> = findings.into_iter().map(|it| it.sentence).collect();
    assert!(
        sentences.iter().all(|it| !it.contains('\n')),
        "{sentences:?}"
    );
    sentences
}

#[test]
fn a_configuration_of_10_mb_is_named_with_its_size() {
    let said = checked(&"# x\n".repeat(10 * MIB / 4));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("a b"), "{said:?}");
    assert!(said[0].contains("larger than"), "{said:?}");
}

#[test]
fn a_mistake_after_100_000_lines_is_named_with_its_line() {
    let said = checked(&format!("{}grase = 1\n", "\n".repeat(100_000)));
    assert!(said.concat().contains(":100001: "), "{said:?}");
}
