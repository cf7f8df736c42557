//! `/etc/pam.d/sshd`, text to text: the two lines of pam_slurm_logout.
//!
//! The account line comes first of all account lines: behind a `sufficient`
//! one, which RHEL's included files have, it would not be asked. It is
//! `required`, so that what follows is asked too and cannot overrule it. The
//! session line comes last, behind pam_loginuid and pam_systemd, whose work it
//! records, and is `optional`: it can refuse nobody.

use std::ops::Range;

use host::printable;

use super::edit::Lines;

/// Our module's file.
pub const MODULE: &str = "pam_slurm_logout.so";

/// Why a stack is not edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A line means nothing that is known here.
    #[error(
        "line {line}, `{}`, is not understood, so nothing is changed; add by hand what \
         docs/logout.md shows",
        printable(text, 120)
    )]
    Line {
        /// From 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// A session line may end the stack before ours.
    #[error(
        "line {line}, `{}`, may end the session stack before ours is asked, so nothing is changed; \
         add by hand what docs/logout.md shows",
        printable(text, 120)
    )]
    EndsEarly {
        /// From 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// Nothing is there to stand before or behind.
    #[error("it has no {0} lines, so nothing is changed; add by hand what docs/logout.md shows")]
    Without(&'static str),
}

/// One rule of a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// `@include FILE`, with all of its phases.
    Include(String),
    /// A module or another file, in one phase.
    Phase {
        /// What it is for.
        phase: Phase,
        /// `required`, `include`, `[success=1 default=ignore]`, …
        control: String,
        /// The module's path, or the file.
        target: String,
        /// The rest.
        arguments: String,
    },
}

/// What PAM asks a module for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Who is it?
    Auth,
    /// May they?
    Account,
    /// A new password.
    Password,
    /// Before and after.
    Session,
}

/// The rules of a text, with the number of each line, from 0.
///
/// # Errors
/// The first line that is none.
pub fn rules(text: &str) -> Result<Vec<(usize, Rule)>, Refusal> {
    // Here ours are lines like others.
    let unmarked = text.replace(super::edit::MARK, "");
    read(&logical(&Lines::theirs(&unmarked)))
}

/// A line as libpam sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Logical {
    /// Which lines of the file.
    lines: Range<usize>,
    /// Its text, joined, without comment.
    text: String,
}

/// The lines without their comments, joined where a backslash is the last
/// character (pam.d(5)).
fn logical(lines: &Lines) -> Vec<Logical> {
    let lines = lines.physical();
    let mut all = Vec::new();
    let mut start = 0;
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let bare = without_comment(line.trim_end_matches('\r'));
        match bare.strip_suffix('\\') {
            Some(part) if index + 1 < lines.len() => text.push_str(part),
            _ => {
                text.push_str(bare);
                all.push(Logical {
                    lines: start..index + 1,
                    text: std::mem::take(&mut text),
                });
                start = index + 1;
            }
        }
    }
    all
}

/// Up to the first `#` without a backslash in front.
fn without_comment(line: &str) -> &str {
    let mut before = '\n';
    for (at, c) in line.char_indices() {
        if c == '#' && before != '\\' {
            return &line[..at];
        }
        before = c;
    }
    line
}

fn read(logical: &[Logical]) -> Result<Vec<(usize, Rule)>, Refusal> {
    let mut rules = Vec::new();
    for line in logical {
        if line.text.trim().is_empty() {
            continue;
        }
        let at = line.lines.start;
        let rule = rule(&line.text).ok_or_else(|| Refusal::Line {
            line: at + 1,
            text: line.text.clone(),
        })?;
        rules.push((at, rule));
    }
    Ok(rules)
}

/// pam.d(5): `[-]type control module-path arguments`, `@include FILE`.
fn rule(text: &str) -> Option<Rule> {
    let text = text.trim();
    let (word, rest) = text.split_once(char::is_whitespace)?;
    let rest = rest.trim();
    if word == "@include" {
        let one = !rest.contains(char::is_whitespace) && !rest.is_empty();
        return one.then(|| Rule::Include(rest.to_owned()));
    }
    let phase = match word.trim_start_matches('-').to_ascii_lowercase().as_str() {
        "auth" => Phase::Auth,
        "account" => Phase::Account,
        "password" => Phase::Password,
        "session" => Phase::Session,
        _ => return None,
    };
    let (control, rest) = if rest.starts_with('[') {
        let end = rest.find(']')?;
        let inside = rest.get(1..end)?;
        if !inside.split_whitespace().all(is_value_and_action) {
            return None;
        }
        (rest.get(..=end)?, rest.get(end + 1..)?)
    } else {
        let (control, rest) = rest.split_once(char::is_whitespace)?;
        const CONTROLS: [&str; 6] = [
            "required",
            "requisite",
            "sufficient",
            "optional",
            "include",
            "substack",
        ];
        if !CONTROLS.contains(&control.to_ascii_lowercase().as_str()) {
            return None;
        }
        (control, rest)
    };
    let rest = rest.trim();
    let (target, arguments) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    (!target.is_empty()).then(|| Rule::Phase {
        phase,
        control: control.to_ascii_lowercase(),
        target: target.to_owned(),
        arguments: arguments.trim().to_owned(),
    })
}

fn is_value_and_action(pair: &str) -> bool {
    let Some((value, action)) = pair.split_once('=') else {
        return false;
    };
    const ACTIONS: [&str; 6] = ["ignore", "bad", "die", "ok", "done", "reset"];
    let known = ACTIONS.contains(&action) || action.parse::<u16>().is_ok();
    known && !value.is_empty() && value.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

/// sshd's stack with our two lines; `module` is our file or where it lies. A stack that names our module already, by
/// the hand of somebody else, stays as it is.
///
/// # Errors
/// A stack that is not understood; see [`Refusal`].
pub fn edit(text: &str, module: &str) -> Result<String, Refusal> {
    let mut lines = Lines::theirs(text);
    let logical = logical(&lines);
    let rules = read(&logical)?;
    let named =
        |rule: &Rule| matches!(rule, Rule::Phase { target, .. } if target.ends_with(MODULE));
    if rules.iter().any(|(_, rule)| named(rule)) {
        return Ok(lines.into_text());
    }
    let account = rules.iter().find(|(_, rule)| asks(rule, Phase::Account));
    let session = rules
        .iter()
        .rev()
        .find(|(_, rule)| asks(rule, Phase::Session));
    let (account, _) = account.ok_or(Refusal::Without("account"))?;
    let (session, _) = session.ok_or(Refusal::Without("session"))?;
    for (at, rule) in &rules {
        if let Rule::Phase {
            phase: Phase::Session,
            control,
            ..
        } = rule
            && (control == "sufficient" || control.contains("=done") || control.contains("=die"))
        {
            let text = logical.iter().find(|line| line.lines.start == *at);
            return Err(Refusal::EndsEarly {
                line: at + 1,
                text: text.map(|line| line.text.clone()).unwrap_or_default(),
            });
        }
    }
    let behind = logical.iter().find(|line| line.lines.start == *session);
    let behind = behind.map_or(session + 1, |line| line.lines.end);
    // The later one first, so that the other's place stays.
    let mut ours = [
        (behind, format!("session    optional     {module}")),
        (*account, format!("account    required     {module}")),
    ];
    ours.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    for (at, line) in ours {
        lines.insert(at, &line);
    }
    Ok(lines.into_text())
}

fn asks(rule: &Rule, wanted: Phase) -> bool {
    match rule {
        Rule::Phase { phase, .. } => *phase == wanted,
        // Debian's files of one phase are named after it; of any other file
        // nobody can tell without reading it.
        Rule::Include(file) => match wanted {
            Phase::Account => file.ends_with("-account"),
            Phase::Session => file.ends_with("-session"),
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::edit::{has_ours, without_ours};
    use super::*;
    use proptest::prelude::*;

    const DEBIAN: &str = "# PAM for sshd\n@include common-auth\naccount    required     pam_nologin.so\n\
        # account  required     pam_access.so\n@include common-account\n\
        session [success=ok ignore=ignore module_unknown=ignore default=bad]        pam_selinux.so close\n\
        session    required     pam_loginuid.so\n@include common-session\n\
        session    optional     pam_motd.so  motd=/run/motd.dynamic\n\
        session    required     pam_env.so user_readenv=1 envfile=/etc/default/locale\n\
        @include common-password\n";

    const AMAZON: &str = "#%PAM-1.0\nauth       substack     password-auth\nauth       include      postlogin\n\
        account    required     pam_sepermit.so\naccount    required     pam_nologin.so\n\
        account    include      password-auth\npassword   include      password-auth\n\
        session    required     pam_selinux.so close\nsession    required     pam_loginuid.so\n\
        session    required     pam_selinux.so open env_params\n-session   optional     pam_systemd.so\n\
        session    include      password-auth\nsession    include      postlogin";

    fn ours(text: &str) -> Vec<(usize, String)> {
        let lines = text.lines().enumerate();
        lines
            .filter(|(_, line)| line.contains(MODULE))
            .map(|(at, line)| (at + 1, line.to_owned()))
            .collect()
    }

    #[test]
    fn a_line_as_its_reader_sees_it_has_no_comment_and_is_joined() {
        let lines = Lines::theirs("A=1,\\\n2 # x\n# y \\\nB=\\#1\r\n");
        let seen: Vec<(usize, String)> = logical(&lines)
            .into_iter()
            .map(|it| (it.lines.start, it.text))
            .collect();
        let want = [(0, "A=1,2 "), (2, ""), (3, "B=\\#1"), (4, "")];
        assert_eq!(seen, want.map(|(at, text)| (at, text.to_owned())));
    }

    #[test]
    fn the_account_line_stands_before_all_others_and_the_session_line_behind() {
        let edited = edit(DEBIAN, MODULE).unwrap();
        let account = "account    required     pam_slurm_logout.so # slurm-efa";
        let session = "session    optional     pam_slurm_logout.so # slurm-efa";
        assert_eq!(
            ours(&edited),
            [(3, account.to_owned()), (12, session.to_owned())]
        );
        assert_eq!(without_ours(&edited), DEBIAN);
        let edited = edit(AMAZON, MODULE).unwrap();
        assert_eq!(
            ours(&edited),
            [(4, account.to_owned()), (15, session.to_owned())]
        );
        assert_eq!(without_ours(&edited), AMAZON);
    }

    #[test]
    fn twice_is_once_and_a_line_by_hand_stays() {
        let once = edit(DEBIAN, MODULE).unwrap();
        assert_eq!(edit(&once, MODULE).unwrap(), once);
        let hand = format!("{DEBIAN}account required {MODULE}\n");
        assert_eq!(edit(&hand, MODULE).unwrap(), hand);
    }

    #[test]
    fn a_stack_that_is_not_understood_is_left_and_the_line_is_named() {
        for (line, at) in [
            ("acccount required pam_unix.so", 12),
            ("account [success=ok default] pam_unix.so", 12),
            ("account perhaps pam_unix.so", 12),
            ("account required", 12),
            ("@import x", 12),
        ] {
            let error = edit(&format!("{DEBIAN}{line}\n"), MODULE).unwrap_err();
            assert!(
                matches!(error, Refusal::Line { line, .. } if line == at),
                "{error}"
            );
        }
        let early = format!("{DEBIAN}session sufficient pam_x.so\n");
        assert!(matches!(
            edit(&early, MODULE).unwrap_err(),
            Refusal::EndsEarly { line: 12, .. }
        ));
        assert_eq!(
            edit("@include site\n", MODULE).unwrap_err(),
            Refusal::Without("account")
        );
        let account = "account required pam_unix.so\n";
        assert_eq!(
            edit(account, MODULE).unwrap_err(),
            Refusal::Without("session")
        );
    }

    #[test]
    fn a_line_over_two_lines_is_one() {
        let text = "account required \\\n pam_unix.so\nsession required pam_limits.so \\\n conf=/x\nauth required pam_deny.so\n";
        let edited = edit(text, MODULE).unwrap();
        assert_eq!(
            ours(&edited).iter().map(|it| it.0).collect::<Vec<_>>(),
            [1, 6]
        );
    }

    proptest! {
        #[test]
        fn what_is_edited_is_edited_once_and_gives_every_byte_back(
            pieces in proptest::collection::vec(
                prop_oneof![
                    Just("account required pam_nologin.so".to_owned()),
                    Just("@include common-account\r".to_owned()),
                    Just("@include common-session".to_owned()),
                    Just("-session optional pam_systemd.so # why".to_owned()),
                    Just("session [success=1 default=ignore] pam_x.so \\".to_owned()),
                    Just("auth [success=die".to_owned()),
                    "#[ -~]{0,20}",
                    "[ -~]{0,12}",
                ],
                0..10
            ),
        ) {
            let text = pieces.join("\n");
            prop_assume!(!has_ours(&text));
            if let Ok(once) = edit(&text, MODULE) {
                prop_assert_eq!(edit(&once, MODULE), Ok(once.clone()));
                prop_assert_eq!(without_ours(&once), text);
                prop_assert!(rules(&once).is_ok());
            }
        }
    }
}
