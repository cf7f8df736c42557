//! No circle of more than two files in a crate: whoever changes one of such
//! files must understand all of them.
//!
//! How exact this is: it reads words, not types. A file uses another one if it
//! names it, or something in it, by a path that begins with `crate`, `super`,
//! `self` or a module that the file declares. Re-exports (`pub use`) are
//! followed to the file that has the name, and are no use themselves. A method
//! that is called without its type's path, a name made by a macro, and the tests
//! at the end of a file are not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::Metadata;

/// A module's path within its crate; that of the crate itself is empty.
type Module = Vec<String>;

/// One target of a crate: its files by module, and what each re-exports.
struct Sources {
    tokens: BTreeMap<Module, Vec<String>>,
    /// In a module, a name that another one has.
    exported: BTreeMap<(Module, String), Module>,
}

/// Words and signs of the code: no comments, no text, no tests.
fn tokens(text: &str) -> Vec<String> {
    let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text);
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let taken = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if first == '"' {
            text_end(rest)
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            let end = end.unwrap_or(rest.len());
            tokens.push(rest[..end].to_owned());
            end
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            rest[1..].find("'").map_or(1, |end| end + 2)
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[taken..];
    }
    tokens
}

/// Where a text in quotes ends.
fn text_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, sign) in text.char_indices().skip(1) {
        match sign {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The paths of a tree such as `a::{b, c::D}` that begins at `at`, and where it
/// ends.
fn paths(tokens: &[String], mut at: usize, before: &Module) -> (Vec<Module>, usize) {
    let mut path = before.clone();
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                let mut all = Vec::new();
                at += 1;
                while tokens.get(at).is_some_and(|it| it != "}") {
                    let (more, end) = paths(tokens, at, &path);
                    all.extend(more);
                    // Past the comma, and past `as name`.
                    at = end.max(at + 1);
                    while tokens.get(at).is_some_and(|it| it != "}" && it != ",") {
                        at += 1;
                    }
                    at += usize::from(tokens.get(at).is_some_and(|it| it == ","));
                }
                return (all, at + 1);
            }
            Some(word) if word.starts_with(|c: char| c.is_alphabetic() || c == '_') => {
                path.push(word.to_owned());
                at += 1;
                if tokens.get(at).is_none_or(|it| it != "::") {
                    return (vec![path], at);
                }
                at += 1;
            }
            // `*`, or the `<` of a turbofish.
            _ => return (vec![path], at + 1),
        }
    }
}

impl Sources {
    /// Those of the crate or program whose first file this is.
    fn read(root: &Path) -> Self {
        let mut sources = Self {
            tokens: BTreeMap::new(),
            exported: BTreeMap::new(),
        };
        let folder = root.parent().expect("a folder").to_owned();
        sources.file(root, &folder, &Vec::new());
        let found: Vec<_> = sources
            .tokens
            .iter()
            .map(|(m, t)| (m.clone(), t.clone()))
            .collect();
        for (module, tokens) in found {
            for at in 0..tokens.len() {
                if !is_export(&tokens, at) {
                    continue;
                }
                for path in paths(&tokens, at + 2, &Vec::new()).0 {
                    let target = sources.absolute(&module, &path);
                    if let Some((name, of)) = target.and_then(|it| Some((it.last()?.clone(), it))) {
                        let of = of[..of.len() - 1].to_vec();
                        sources.exported.insert((module.clone(), name), of);
                    }
                }
            }
        }
        sources
    }

    fn file(&mut self, path: &Path, below: &Path, module: &Module) {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let tokens = tokens(&text);
        for window in tokens.windows(3) {
            let [word, name, end] = window else { continue };
            if word != "mod" || end != ";" {
                continue;
            }
            let mut inner = module.clone();
            inner.push(name.clone());
            let beside = below.join(format!("{name}.rs"));
            let place = if beside.is_file() {
                beside
            } else {
                below.join(name).join("mod.rs")
            };
            if place.is_file() {
                self.file(&place, &below.join(name), &inner);
            }
        }
        self.tokens.insert(module.clone(), tokens);
    }

    /// A path as the crate's root would say it; `None` where it leads out of the
    /// crate.
    fn absolute(&self, module: &Module, path: &[String]) -> Option<Module> {
        let mut at = module.clone();
        let mut rest = path;
        match path.first().map(String::as_str)? {
            "crate" => {
                at.clear();
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {
                while rest.first().is_some_and(|it| it == "super") {
                    at.pop()?;
                    rest = &rest[1..];
                }
            }
            first => {
                let mut child = module.clone();
                child.push(first.to_owned());
                self.tokens.get(&child)?;
            }
        }
        at.extend(rest.iter().cloned());
        Some(at)
    }

    /// The file that has what an absolute path names.
    fn owner(&self, path: &Module) -> Module {
        let mut module = Vec::new();
        for (depth, name) in path.iter().enumerate() {
            let mut inner = module.clone();
            inner.push(name.clone());
            if self.tokens.contains_key(&inner) {
                module = inner;
                continue;
            }
            if let Some(of) = self.exported.get(&(module.clone(), name.clone()))
                && *of != module
            {
                let mut on = of.clone();
                on.extend(path[depth..].iter().cloned());
                return self.owner(&on);
            }
            break;
        }
        module
    }

    /// Which file uses which.
    fn uses(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let mut all = BTreeMap::new();
        for (module, tokens) in &self.tokens {
            let mut used = BTreeSet::new();
            let mut at = 0;
            while at < tokens.len() {
                if is_export(tokens, at) {
                    at = paths(tokens, at + 2, &Vec::new()).1;
                    continue;
                }
                let starts = tokens.get(at + 1).is_some_and(|it| it == "::")
                    && (at == 0 || tokens[at - 1] != "::");
                if !starts {
                    at += 1;
                    continue;
                }
                let (found, end) = paths(tokens, at, &Vec::new());
                for path in found {
                    if let Some(path) = self.absolute(module, &path) {
                        used.insert(self.owner(&path));
                    }
                }
                at = end.max(at + 1);
            }
            used.remove(module);
            all.insert(module.clone(), used);
        }
        all
    }

    /// Files that use one another, all of a circle together.
    fn circles(&self) -> Vec<Vec<String>> {
        let uses = self.uses();
        let reach = |from: &Module| {
            let mut seen = BTreeSet::new();
            let mut todo = vec![from.clone()];
            while let Some(module) = todo.pop() {
                for next in &uses[&module] {
                    if seen.insert(next.clone()) {
                        todo.push(next.clone());
                    }
                }
            }
            seen
        };
        let reached: BTreeMap<&Module, BTreeSet<Module>> =
            uses.keys().map(|module| (module, reach(module))).collect();
        let mut circles: BTreeSet<Vec<String>> = BTreeSet::new();
        for (module, to) in &reached {
            let together = to.iter().filter(|it| reached[it].contains(*module));
            let names: Vec<String> = together.map(shown).collect();
            if names.len() > 2 {
                circles.insert(names);
            }
        }
        circles.into_iter().collect()
    }
}

fn is_export(tokens: &[String], at: usize) -> bool {
    tokens[at] == "pub" && tokens.get(at + 1).is_some_and(|it| it == "use")
}

fn shown(module: &Module) -> String {
    if module.is_empty() {
        "the crate's root".to_owned()
    } else {
        module.join("::")
    }
}

#[test]
fn no_more_than_two_files_of_a_crate_use_one_another_in_a_circle() {
    let metadata = Metadata::read();
    let mut found = Vec::new();
    for package in metadata.members() {
        let folder = metadata.workspace_root.join(metadata.folder(package));
        let mut roots: Vec<PathBuf> = ["src/lib.rs", "src/main.rs"]
            .map(|it| folder.join(it))
            .into();
        roots.retain(|root| root.is_file());
        for root in roots {
            for circle in Sources::read(&root).circles() {
                found.push(format!("{}: {}", package.name, circle.join(", ")));
            }
        }
    }
    assert!(found.is_empty(), "circles:\n{}", found.join("\n"));
}

#[test]
fn a_circle_of_three_files_is_seen_and_one_of_two_is_not() {
    let circles = |third: &str| {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, text) in [
            ("lib.rs", "mod a;\nmod b;\nmod c;\npub use b::B;\n"),
            ("a.rs", "use crate::B;\n// crate::c\n"),
            (
                "b.rs",
                "pub struct B;\nfn f() { super::c::g(\"crate::a\") }\n",
            ),
            ("c.rs", third),
        ] {
            fs::write(dir.path().join(name), text).expect("a file");
        }
        Sources::read(&dir.path().join("lib.rs")).circles()
    };
    assert_eq!(circles("use crate::{a::{self}};\n"), [["a", "b", "c"]]);
    assert!(circles("use crate::b::B;\n").is_empty());
    let test = "fn g() {}\n\n#[cfg(test)]\nmod tests {\n    use crate::a;\n}\n";
    assert!(circles(test).is_empty());
}
