//! Text from outside, made safe to show.

/// Makes hostile text safe for a terminal, a log line or an error message.
///
/// Characters that could steer a terminal, break a line or reorder what a
/// person reads (C0 and C1 controls, DEL, line and paragraph separators,
/// bidirectional and zero-width formatting, tag characters) appear as `\n` or
/// `\u{1b}`. The result has at most `max_chars` characters; what was cut is
/// shown as `…`. Cost is bounded by `max_chars`, not by the length of `text`.
///
/// ```
/// assert_eq!(host::printable("p5\x1b[31m", 80), "p5\\u{1b}[31m");
/// assert_eq!(host::printable("abcdef", 4), "abc…");
/// ```
#[must_use]
pub fn printable(text: &str, max_chars: usize) -> String {
    let mut shown = String::new();
    let mut chars = 0;
    // Where to cut so that the ellipsis still fits.
    let mut cut = 0;
    for c in text.chars() {
        chars += if misleads(c) {
            shown.extend(c.escape_default());
            c.escape_default().count()
        } else {
            shown.push(c);
            1
        };
        if chars > max_chars {
            shown.truncate(cut);
            if max_chars > 0 {
                shown.push('…');
            }
            return shown;
        }
        if chars < max_chars {
            cut = shown.len();
        }
    }
    shown
}

/// Whether showing `c` as it is could change how the text around it is read.
fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_and_foreign_text_stays_as_it_is() {
        assert_eq!(
            printable("p5.48xlarge – größer", 64),
            "p5.48xlarge – größer"
        );
    }

    #[test]
    fn escape_sequences_line_breaks_and_bidi_controls_are_spelled_out() {
        assert_eq!(
            printable("a\x1b]0;x\x07\n\u{9b}31m\u{202e}b", 200),
            "a\\u{1b}]0;x\\u{7}\\n\\u{9b}31m\\u{202e}b"
        );
    }

    #[test]
    fn an_escape_is_never_cut_in_half() {
        assert_eq!(printable("ab\x1bcd", 5), "ab…");
        assert_eq!(printable("ab\x1b", 8), "ab\\u{1b}");
    }

    #[test]
    fn text_of_exactly_the_limit_is_not_cut() {
        assert_eq!(printable("abcd", 4), "abcd");
        assert_eq!(printable("", 0), "");
        assert_eq!(printable("a", 0), "");
        assert_eq!(printable("ab", 1), "…");
    }

    proptest! {
        #[test]
        fn whatever_comes_in_what_goes_out_is_short_and_harmless(text in any::<String>(), max in 0usize..100) {
            let shown = printable(&text, max);
            prop_assert!(shown.chars().count() <= max);
            prop_assert!(!shown.chars().any(misleads));
        }
    }
}
