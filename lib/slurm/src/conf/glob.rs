//! glob(7), as plugstack.conf's includes and Prolog use it, on [`Files`].

use std::path::{Path, PathBuf};

use super::reader::Files;

/// Most paths that one pattern gives, and folders that are looked into.
const MOST: usize = 4096;

/// What a pattern matches, sorted by bytes; a relative one starts at `folder`.
/// A pattern without wildcards is its one path, whether or not that exists.
///
/// # Errors
/// A folder has too many names, or too many match; for a person.
pub fn matching(files: &dyn Files, folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let start = if pattern.starts_with('/') {
        PathBuf::from("/")
    } else {
        folder.to_owned()
    };
    let mut found = vec![start];
    let mut is_pattern = false;
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        is_pattern |= part.contains(['*', '?', '[', '\\']);
        if !is_pattern || part == "." || part == ".." {
            for path in &mut found {
                path.push(part);
            }
            continue;
        }
        let part: Vec<char> = part.chars().collect();
        let mut deeper = Vec::new();
        for path in &found {
            for name in files.names(path)? {
                // A dot at the start must be written.
                let hidden = name.starts_with('.') && part.first() != Some(&'.');
                if !hidden && matches(&part, &name) {
                    deeper.push(path.join(name));
                }
            }
            if deeper.len() > MOST {
                return Err(format!("more than {MOST} files match"));
            }
        }
        found = deeper;
    }
    Ok(found)
}

/// Whether a name matches one part of a pattern.
fn matches(pattern: &[char], name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut seen) = (0, 0);
    // Where the last star was, and how much of the name it covers so far.
    let mut star: Option<(usize, usize)> = None;
    while let Some(c) = name.get(seen) {
        if pattern.get(at) == Some(&'*') {
            star = Some((at, seen));
            at += 1;
        } else if let Some(next) = one(pattern, at, *c) {
            at = next;
            seen += 1;
        } else if let Some((place, covered)) = star {
            star = Some((place, covered + 1));
            at = place + 1;
            seen = covered + 1;
        } else {
            return false;
        }
    }
    pattern.iter().skip(at).all(|c| *c == '*')
}

/// Where the pattern continues if its part at `at` takes this character.
fn one(pattern: &[char], at: usize, c: char) -> Option<usize> {
    match pattern.get(at)? {
        '?' => Some(at + 1),
        '\\' if at + 1 < pattern.len() => {
            let escaped = pattern.get(at + 1) == Some(&c);
            escaped.then_some(at + 2)
        }
        '[' => match class(pattern, at + 1, c) {
            Some((true, next)) => Some(next),
            Some((false, _)) => None,
            // Without its end it is a bracket.
            None => (c == '[').then_some(at + 1),
        },
        literal => (*literal == c).then_some(at + 1),
    }
}

/// `[a-z]`, `[!a-z]`, `[[:digit:]]` from after its bracket: whether it takes
/// the character, and where it ends.
fn class(pattern: &[char], start: usize, c: char) -> Option<(bool, usize)> {
    let mut at = start;
    let negated = matches!(pattern.get(at), Some('!' | '^'));
    at += usize::from(negated);
    let first = at;
    let mut taken = false;
    loop {
        match *pattern.get(at)? {
            ']' if at > first => return Some((taken != negated, at + 1)),
            '[' if pattern.get(at + 1) == Some(&':') => {
                let rest = pattern.get(at + 2..)?;
                let length = rest.iter().position(|it| *it == ':')?;
                let name: String = rest.iter().take(length).collect();
                taken |= is_of_class(&name, c);
                at += length + 4;
            }
            low => {
                let low_at = at + usize::from(low == '\\');
                let low = *pattern.get(low_at)?;
                at = low_at + 1;
                let high = match (pattern.get(at), pattern.get(at + 1)) {
                    (Some('-'), Some(high)) if *high != ']' => {
                        at += 2;
                        *high
                    }
                    _ => low,
                };
                taken |= (low..=high).contains(&c);
            }
        }
    }
}

fn is_of_class(name: &str, c: char) -> bool {
    match name {
        "alnum" => c.is_ascii_alphanumeric(),
        "alpha" => c.is_ascii_alphabetic(),
        "digit" => c.is_ascii_digit(),
        "lower" => c.is_ascii_lowercase(),
        "upper" => c.is_ascii_uppercase(),
        "punct" => c.is_ascii_punctuation(),
        "space" => c.is_ascii_whitespace(),
        "xdigit" => c.is_ascii_hexdigit(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::reader::{Disk, InMemory};
    use super::*;
    use proptest::prelude::*;

    fn is_match(pattern: &str, name: &str) -> bool {
        matches(&pattern.chars().collect::<Vec<_>>(), name)
    }

    #[test]
    fn a_pattern_takes_what_glob_7_says() {
        for (pattern, name, want) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf.bak", false),
            ("[0-9]*.conf", "10-a.conf", true),
            ("[0-9]*.conf", "a.conf", false),
            ("[!0-9]*", "a", true),
            ("[^0-9]*", "7", false),
            ("[]a]", "]", true),
            ("[a-]", "-", true),
            ("[[:digit:]]x", "7x", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a\\*c", "a*c", true),
            ("a\\*c", "abc", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "ba", false),
            ("[a", "[a", true),
            ("", "", true),
        ] {
            assert_eq!(is_match(pattern, name), want, "{pattern} {name}");
        }
    }

    #[test]
    fn wildcards_work_in_folders_and_hidden_names_must_be_written() {
        let files = InMemory::new(&[
            ("/e/a1/x.conf", ""),
            ("/e/a2/y.conf", ""),
            ("/e/b/z.conf", ""),
            ("/e/a1/.h.conf", ""),
        ]);
        let paths = |pattern: &str| {
            let found = matching(&files, Path::new("/e"), pattern).unwrap();
            let text = found.into_iter().map(|path| path.display().to_string());
            text.collect::<Vec<_>>()
        };
        assert_eq!(paths("a?/*.conf"), ["/e/a1/x.conf", "/e/a2/y.conf"]);
        assert_eq!(paths("/e/*/z.conf").last().unwrap(), "/e/b/z.conf");
        assert_eq!(paths("a1/.*"), ["/e/a1/.h.conf"]);
        assert!(paths("none/*").is_empty());
    }

    #[test]
    fn the_disk_is_searched_too() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.conf", "a.conf", ".c.conf"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let found = matching(&Disk, dir.path(), "*.conf").unwrap();
        assert_eq!(
            found,
            ["a.conf", "b.conf"].map(|name| dir.path().join(name))
        );
    }

    proptest! {
        #[test]
        fn any_pattern_ends(pattern in "[ab*?!:\\[\\]^\\\\-]{0,20}", name in "[ab]{0,30}") {
            let _ = is_match(&pattern, &name);
        }
    }
}
