//! `cargo xtask changelog`: CHANGELOG.md, from the file that the packages'
//! changelogs are made from.

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::command;

/// What people read.
const FILE: &str = "CHANGELOG.md";

/// What they are made from.
const SOURCE: &str = "packaging/changelog.yaml";

#[derive(Deserialize)]
struct Release {
    semver: String,
    date: String,
    changes: Vec<Change>,
}

#[derive(Deserialize)]
struct Change {
    /// One line, for the packages.
    note: String,
    details: Option<String>,
}

/// Writes CHANGELOG.md.
pub fn changelog() -> Result<()> {
    let path = command::workspace().join(FILE);
    fs::write(&path, text()?).with_context(|| format!("cannot write {}", path.display()))
}

/// What it must contain.
fn text() -> Result<String> {
    let path = command::workspace().join(SOURCE);
    let source =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let releases: Vec<Release> = serde_saphyr::from_str(&source)
        .with_context(|| format!("{} is not a changelog", path.display()))?;
    let mut text =
        format!("# Changelog\n\n<!-- `cargo xtask changelog` makes this of {SOURCE}. -->\n");
    for release in releases {
        let (version, _) = release
            .semver
            .split_once('-')
            .unwrap_or((&release.semver, ""));
        let day = release.date.get(..10).unwrap_or(&release.date);
        write!(text, "\n## {version} ({day})\n\n")?;
        for change in release.changes {
            let details = change.details.unwrap_or_default();
            let details: Vec<&str> = details.split_whitespace().collect();
            match details.is_empty() {
                true => writeln!(text, "- {}", change.note)?,
                false => writeln!(text, "- **{}** {}", change.note, details.join(" "))?,
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_fits_a_line_of_debians_changelog() {
        let path = command::workspace().join(SOURCE);
        let source = fs::read_to_string(path).expect("a changelog");
        let releases: Vec<Release> = serde_saphyr::from_str(&source).expect("releases");
        for change in releases.iter().flat_map(|release| &release.changes) {
            let note = &change.note;
            assert!(note.len() <= 74 && !note.contains('\n'), "{note}");
        }
    }

    #[test]
    fn the_changelog_of_the_repository_says_what_the_packages_say() {
        let file = fs::read_to_string(command::workspace().join(FILE)).expect("CHANGELOG.md");
        assert_eq!(
            file,
            text().expect("a changelog"),
            "run: cargo xtask changelog"
        );
    }
}
