//! The commands that documents tell people to type.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files whose commands are looked at: README, documents, examples, scripts.
fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = vec![root.join("README.md")];
    for folder in ["docs", "packaging/examples", "packaging/lifecycle"] {
        let entries = fs::read_dir(root.join(folder)).expect("a folder of documents");
        files.extend(entries.map(|it| it.expect("an entry").path()));
    }
    files.sort();
    files
}

/// The pieces of a document that may be commands: lines of code blocks, and code
/// inside sentences. Of other files, the lines that are no comments.
fn code(text: &str, is_document: bool) -> Vec<&str> {
    if !is_document {
        let lines = text.lines().map(str::trim);
        return lines
            .filter(|it| !it.starts_with('#') && !it.starts_with("--"))
            .collect();
    }
    let mut pieces = Vec::new();
    // Code in a sentence may go on after a line break.
    for (index, block) in text.split("```").enumerate() {
        if index % 2 == 1 {
            pieces.extend(block.lines());
        } else {
            pieces.extend(block.split('`').skip(1).step_by(2));
        }
    }
    pieces
}

/// Words as a shell sees them, up to the end of the command.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in text.chars() {
        match (letter, quote) {
            ('|' | ';' | '&' | '>' | '<' | ')' | '`', None) => break,
            ('#', None) if word.is_none() => break,
            ('\'' | '"', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (_, Some(end)) if letter == end => quote = None,
            (' ' | '\t' | '\n', None) => words.extend(word.take()),
            _ => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// What a person puts in the place of a name in capitals, and the text without the
/// signs of a synopsis.
fn argument(word: &str) -> Option<String> {
    let word = word.trim_matches(['[', ']', ',']);
    match word {
        "" | "\\" => None,
        _ if word.contains('…') || word.contains("...") || word.starts_with('$') => None,
        "JOBID" | "N" => Some("1".to_owned()),
        "ROLE" => Some("compute".to_owned()),
        "PARTS" => Some("health".to_owned()),
        _ => Some(word.to_owned()),
    }
}

/// Programs that run another one.
const RUNNERS: [&str; 3] = ["exec", "srun", "sudo"];

/// A command in a document.
#[derive(Debug)]
pub struct Documented {
    /// The document.
    pub file: String,
    /// What follows the program's name.
    pub arguments: Vec<String>,
}

/// Every call of a program in the documents.
///
/// # Panics
/// A document cannot be read.
#[must_use]
pub fn calls(program: &str) -> Vec<Documented> {
    let mut calls = Vec::new();
    for path in files() {
        let text = fs::read_to_string(&path).expect("a document");
        let is_document = path.extension().is_some_and(|it| it == "md");
        for piece in code(&text, is_document) {
            for (at, _) in piece.match_indices(program) {
                let before = piece[..at].chars().next_back();
                let rest = &piece[at + program.len()..];
                // The whole command is an argument of clush, say.
                let rest = match before {
                    Some(quote @ ('"' | '\'')) => rest.split(quote).next().unwrap_or(rest),
                    _ => rest,
                };
                let is_command = before.is_none_or(|it| " /`(\"'".contains(it))
                    && rest.starts_with([' ', '\n'])
                    && !piece[..at].contains(" # ");
                // A sentence in code, such as the name of a test.
                let previous = piece[..at].split_whitespace().next_back().unwrap_or("$");
                let is_word = previous.bytes().all(|it| it.is_ascii_lowercase());
                let is_command = is_command && (!is_word || RUNNERS.contains(&previous));
                // Its name in a list, or an output of its own.
                let words = words(rest);
                let first = words.first();
                if !is_command || first.is_none_or(|it| !it.starts_with(char::is_alphabetic)) {
                    continue;
                }
                let file = path.file_name().unwrap_or_default();
                calls.push(Documented {
                    file: file.to_string_lossy().into_owned(),
                    arguments: words.iter().filter_map(|it| argument(it)).collect(),
                });
            }
        }
    }
    calls
}

/// Asserts that the program's own parser accepts every call in the documents, of
/// which there are `least`. `--help` at the end keeps it from being carried out.
///
/// # Panics
/// It refuses one.
pub fn assert_accepted(program: &Path, least: usize) {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let calls = calls(&name);
    let mut refused = Vec::new();
    for call in &calls {
        let output = Command::new(program)
            .args(&call.arguments)
            .arg("--help")
            .output()
            .expect("the program");
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let first = said.lines().next().unwrap_or_default();
            refused.push(format!("{}: {:?}: {first}", call.file, call.arguments));
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(calls.len() >= least, "only {} calls of {name}", calls.len());
}
