//! What the licences of other people's crates ask to pass on.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::crates::{Crate, CrateId, Crates, rust_version};

/// How the files begin in which crates keep licences and notices.
const FILES: &[&str] = &[
    "license",
    "licence",
    "copying",
    "copyright",
    "notice",
    "unlicense",
];

/// The names and licences of all crates that are not ours, and every text that
/// they bring, each once.
///
/// # Errors
/// When a crate brings no text and its licence asks for one.
pub fn third_party(crates: &Crates) -> Result<String> {
    let others: Vec<(&CrateId, &Crate)> = crates.0.iter().filter(|(_, krate)| !krate.own).collect();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut list = String::new();
    for (id, krate) in others {
        let name = format!("{} {}", id.name, id.version);
        writeln!(list, "{name}: {}", krate.licence)?;
        if let Some(repository) = &krate.repository {
            writeln!(list, "    {repository}")?;
        }
        let found = texts_of(&krate.folder)?;
        if found.is_empty() && !krate.licence.contains("Apache-2.0") {
            bail!(
                "{name} ({}) has no file with its licence, which would have to be passed on",
                krate.licence
            );
        }
        for text in found {
            texts.entry(text).or_default().push(name.clone());
        }
    }
    let rust = rust_version()?;
    let mut all = format!(
        "slurm-efa itself is licensed under MIT or Apache-2.0, as you like. Its programs and\n\
         modules have code of these crates in them, and of the standard library of Rust\n\
         {rust} (MIT OR Apache-2.0, https://github.com/rust-lang/rust).\n\n{list}"
    );
    // In the order of their first crates, so that little moves when one changes.
    let mut texts: Vec<(String, Vec<String>)> = texts.into_iter().collect();
    texts.sort_by(|one, other| (&one.1, &one.0).cmp(&(&other.1, &other.0)));
    for (text, names) in texts {
        let rule = "-".repeat(78);
        write!(all, "\n{rule}\nOf {}:\n\n{text}\n", names.join(", "))?;
    }
    Ok(all)
}

fn texts_of(folder: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.to_lowercase();
        if path.is_file() && FILES.iter().any(|start| name.starts_with(start)) {
            files.push(path);
        }
    }
    files.sort();
    files
        .iter()
        .map(|file| {
            let text = fs::read(file).with_context(|| format!("{}", file.display()))?;
            let text = String::from_utf8_lossy(&text).replace("\r\n", "\n");
            Ok(text.trim_end().to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn crates(folder: &Path, licence: &str) -> Crates {
        let id = CrateId {
            name: "theirs".to_owned(),
            version: "1.0.0".to_owned(),
        };
        let krate = Crate {
            licence: licence.to_owned(),
            repository: None,
            folder: folder.to_owned(),
            own: false,
            checksum: None,
            needs: BTreeSet::new(),
        };
        Crates([(id, krate)].into())
    }

    #[test]
    fn a_crates_licence_and_notice_are_passed_on() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        fs::write(folder.path().join("LICENSE-MIT"), "Copyright them\n").expect("a file");
        fs::write(folder.path().join("NOTICE"), "By them\n").expect("a file");
        let text = third_party(&crates(folder.path(), "MIT")).expect("a text");
        for part in ["theirs 1.0.0: MIT", "Copyright them", "By them"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn a_crate_that_asks_for_its_text_and_has_none_is_not_shipped() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let error = third_party(&crates(folder.path(), "MIT")).expect_err("no text");
        assert!(error.to_string().contains("theirs 1.0.0"), "{error}");
    }
}
