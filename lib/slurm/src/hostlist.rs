//! Slurm's short form of node names: `n[1-3,7],login`.

use crate::NodeName;

/// Most names that are made of one list; the largest Slurm clusters have fewer.
const MOST_NODES: usize = 64 * 1024;

/// Longest list that is looked at, in bytes.
const LONGEST: usize = 256 * 1024;

/// The names that a list stands for, in its order; `None` if it is not such a
/// list, or of more than 65,536 names. It may come from a job's environment,
/// which the user can change.
#[must_use]
pub fn expand(list: &str) -> Option<Vec<NodeName>> {
    if list.is_empty() || list.len() > LONGEST {
        return None;
    }
    let mut names = Vec::new();
    for item in split_outside_brackets(list)? {
        for name in expand_item(item, MOST_NODES - names.len())? {
            names.push(name.parse().ok()?);
        }
    }
    Some(names)
}

/// The parts between commas that are not inside brackets.
fn split_outside_brackets(list: &str) -> Option<Vec<&str>> {
    let mut items = Vec::new();
    let (mut start, mut inside) = (0, false);
    for (at, byte) in list.bytes().enumerate() {
        match byte {
            b'[' if inside => return None,
            b'[' => inside = true,
            b']' if !inside => return None,
            b']' => inside = false,
            b',' if !inside => {
                items.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(&list[start..]);
    (!inside).then_some(items)
}

/// `r[1-2]n[1-4]`, from left to right; at most `most` names.
fn expand_item(item: &str, most: usize) -> Option<Vec<String>> {
    let mut names = vec![String::new()];
    let mut rest = item;
    while let Some((before, after)) = rest.split_once('[') {
        let (ranges, tail) = after.split_once(']')?;
        let numbers = expand_ranges(ranges, most)?;
        if names.len().checked_mul(numbers.len())? > most {
            return None;
        }
        names = names
            .iter()
            .flat_map(|name| {
                numbers
                    .iter()
                    .map(move |number| format!("{name}{before}{number}"))
            })
            .collect();
        rest = tail;
    }
    for name in &mut names {
        name.push_str(rest);
    }
    (names.len() <= most).then_some(names)
}

/// `1,03-12`: numbers with the leading zeros of the first of a range.
fn expand_ranges(ranges: &str, most: usize) -> Option<Vec<String>> {
    let mut numbers = Vec::new();
    for range in ranges.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let digits = |text: &str| {
            let fits = (1..=10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            fits.then(|| text.parse::<usize>().ok()).flatten()
        };
        let (from, to) = (digits(first)?, digits(last)?);
        if to < from || to - from >= most.saturating_sub(numbers.len()) {
            return None;
        }
        let width = first.len();
        numbers.extend((from..=to).map(|number| format!("{number:0width$}")));
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(list: &str) -> Option<Vec<String>> {
        let names = expand(list)?;
        Some(names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn slurms_forms_are_understood() {
        for (list, expected) in [
            ("n1", vec!["n1"]),
            ("n1,login", vec!["n1", "login"]),
            ("n[1-3,7],m", vec!["n1", "n2", "n3", "n7", "m"]),
            (
                "ip-10-0-[08-11]",
                vec!["ip-10-0-08", "ip-10-0-09", "ip-10-0-10", "ip-10-0-11"],
            ),
            ("r[1-2]n[1-2]x", vec!["r1n1x", "r1n2x", "r2n1x", "r2n2x"]),
        ] {
            assert_eq!(names(list).unwrap(), expected, "{list}");
        }
    }

    #[test]
    fn what_is_no_list_or_too_large_is_none() {
        for list in [
            "",
            ",",
            "n[1",
            "n1]",
            "n[2-1]",
            "n[a]",
            "n[[1]]",
            "n[]",
            "n[1-99999999999]",
            "n[0-9999999]",
            "n[0-999][0-999]",
            "../etc",
            "n[1-2],;rm",
        ] {
            assert_eq!(names(list), None, "{list}");
        }
    }

    proptest! {
        #[test]
        fn hostile_lists_are_bounded_and_never_a_panic(list in "[n0-9,\\[\\]-]{0,40}") {
            if let Some(names) = expand(&list) {
                prop_assert!(names.len() <= MOST_NODES);
            }
        }
    }
}
