//! `/etc/pam.d/sshd`, text to text: the two lines of pam_slurm_logout.
//!
//! The account line comes first of all account lines: after a `sufficient`
//! one, which RHEL's included files have, it would not be asked. It is
//! `required`, so that what follows is asked too and cannot overrule it. The
//! session line comes last, after pam_loginuid and pam_systemd, whose work it
//! records, and is `optional`: it can refuse nobody.
//!
//! How libpam reads the file and walks its rules is known to [`pam_stack`].

use std::path::{Path, PathBuf};

use host::{Sysroot, printable};
use pam_stack::Phase;
use pam_stack::chain::{self, ChainError, Files, Link};
use pam_stack::file::{self, Line, NotUnderstood, Rule, Says};
use pam_stack::flow::{self, End};

use super::edit::Lines;

/// Our module's file.
pub const MODULE: &str = "pam_slurm_logout.so";

/// sshd's service.
pub const SSHD: &str = "sshd";

/// Largest file of PAM that is read, in bytes.
const LARGEST: usize = 1024 * 1024;

/// Why a stack is not edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A line means nothing that is known here.
    #[error(
        "line {}, `{}`, is not understood, so nothing is changed; add by hand what docs/logout.md \
         shows",
        .0.line,
        printable(&.0.text, 120)
    )]
    Line(NotUnderstood),
    /// A file that it includes is not understood.
    #[error("{0}, so nothing is changed; add by hand what docs/logout.md shows")]
    Included(ChainError),
    /// A rule may lead past ours.
    #[error(
        "{}, line {line}, may end the {} stack before pam_slurm_logout is asked, or jump over it, \
         so nothing is changed; add by hand what docs/logout.md shows",
        printable(&file.to_string_lossy(), 200),
        phase.name()
    )]
    PassedOver {
        /// The phase.
        phase: Phase,
        /// The file of the rule that leads past.
        file: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
    /// There is no line to put ours before or after.
    #[error("it has no {} lines, so nothing is changed; add by hand what docs/logout.md shows", .0.name())]
    Without(Phase),
}

/// The files of this machine.
#[derive(Debug, Clone, Copy)]
pub struct Disk;

impl Files for Disk {
    fn text(&self, path: &Path) -> Result<String, String> {
        let text = Sysroot::real().read_bounded(&path.to_string_lossy(), LARGEST);
        text.map_err(|error| error.to_string())
    }
}

/// Files, one of which has another text.
struct Changed<'a> {
    files: &'a dyn Files,
    path: &'a Path,
    text: &'a str,
}

impl Files for Changed<'_> {
    fn text(&self, path: &Path) -> Result<String, String> {
        match path == self.path {
            true => Ok(self.text.to_owned()),
            false => self.files.text(path),
        }
    }
}

/// Whether a rule of a file calls our module.
fn is_ours(rule: &Rule) -> bool {
    matches!(&rule.says, Says::Module { module, .. } if is_module(module))
}

fn is_module(path: &str) -> bool {
    Path::new(path)
        .file_name()
        .is_some_and(|name| name == MODULE)
}

/// sshd's stack, which is `text` in `folder`, with our two lines; `module` is
/// our file or where it lies. A stack that names our module already, by the hand
/// of somebody else, stays as it is.
///
/// # Errors
/// A stack that is not understood, or in which ours would not be asked; see
/// [`Refusal`].
pub fn edit(files: &dyn Files, folder: &Path, text: &str, module: &str) -> Result<String, Refusal> {
    let mut lines = Lines::theirs(text);
    let logical = file::logical(lines.physical());
    let rules = file::rules(&logical).map_err(Refusal::Line)?;
    if rules.iter().any(is_ours) {
        return Ok(lines.into_text());
    }
    let asks = |rule: &&Rule, phase| asks(files, folder, rule, phase);
    let account = rules.iter().find(|rule| asks(rule, Phase::Account));
    let session = rules.iter().rfind(|rule| asks(rule, Phase::Session));
    let account = account.ok_or(Refusal::Without(Phase::Account))?;
    let session = session.ok_or(Refusal::Without(Phase::Session))?;
    // The later one first, so that the other's place stays.
    let mut ours = [
        (
            end_of(&logical, session),
            format!("session    optional     {module}"),
        ),
        (
            account.lines.start,
            format!("account    required     {module}"),
        ),
    ];
    ours.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    for (at, line) in ours {
        lines.insert(at, &line);
    }
    let edited = lines.into_text();
    is_asked(files, folder, &edited)?;
    Ok(edited)
}

/// The line after a rule.
fn end_of(logical: &[Line], rule: &Rule) -> usize {
    let line = logical
        .iter()
        .find(|line| line.lines.start == rule.lines.start);
    line.map_or(rule.lines.end, |line| line.lines.end)
}

/// Whether a rule asks something in this phase.
fn asks(files: &dyn Files, folder: &Path, rule: &Rule, wanted: Phase) -> bool {
    match &rule.says {
        Says::Module { phase, .. } | Says::Include(phase, _) | Says::Substack(phase, _) => {
            *phase == wanted
        }
        Says::IncludeAll(file) => {
            let chain = chain::read(files, folder, file, wanted);
            // A file that cannot be read is reported by `is_asked`.
            chain.is_ok_and(|chain| !chain.is_empty())
        }
    }
}

/// Whether no login gets past our lines in sshd's stack with this text: none
/// that the account phase admits, and none whose session phase succeeds.
fn is_asked(files: &dyn Files, folder: &Path, text: &str) -> Result<(), Refusal> {
    let path = folder.join(SSHD);
    let files = Changed {
        files,
        path: &path,
        text,
    };
    for phase in [Phase::Account, Phase::Session] {
        let chain = chain::read(&files, folder, SSHD, phase).map_err(Refusal::Included)?;
        let ours = chain.iter().position(|link| link.calls(MODULE));
        let ours = ours.ok_or(Refusal::Without(phase))?;
        if let Some(Link { file, line, .. }) = passed_over(&chain, ours, End::Success) {
            return Err(Refusal::PassedOver {
                phase,
                file: file.clone(),
                line: *line,
            });
        }
    }
    Ok(())
}

/// The link that may lead past the one `at`.
pub fn passed_over(chain: &[Link], at: usize, end: End) -> Option<&Link> {
    chain.get(flow::passed_over(chain, at, end)?)
}

#[cfg(test)]
mod tests {
    use super::super::edit::{has_ours, without_ours};
    use super::*;
    use proptest::prelude::*;

    /// Files in memory; those that no test gives are as in [`COMMON`].
    struct Memory(Vec<(&'static str, String)>);

    const COMMON: &[(&str, &str)] = &[
        ("common-auth", "auth required pam_unix.so\n"),
        ("common-password", "password required pam_unix.so\n"),
        (
            "common-account",
            "account [success=1 new_authtok_reqd=done default=ignore] pam_unix.so\n\
             account requisite pam_deny.so\naccount required pam_permit.so\n",
        ),
        (
            "common-session",
            "session [default=1] pam_permit.so\nsession requisite pam_deny.so\n\
             session required pam_permit.so\nsession optional pam_systemd.so\n",
        ),
        (
            "password-auth",
            "account required pam_unix.so\naccount sufficient pam_localuser.so\n\
             session optional pam_keyinit.so revoke\n-session optional pam_systemd.so\n\
             session [success=1 default=ignore] pam_succeed_if.so service in crond quiet use_uid\n\
             session required pam_unix.so\n",
        ),
        ("postlogin", "session optional pam_lastlog.so\n"),
    ];

    impl Files for Memory {
        fn text(&self, path: &Path) -> Result<String, String> {
            let name = path.file_name().unwrap().to_str().unwrap();
            let given = self.0.iter().find(|(it, _)| *it == name);
            let common = COMMON.iter().find(|(it, _)| *it == name);
            let given = given.map(|(_, text)| text.clone());
            given
                .or_else(|| common.map(|(_, text)| (*text).to_owned()))
                .ok_or_else(|| "no such file".to_owned())
        }
    }

    fn edit(text: &str, module: &str) -> Result<String, Refusal> {
        edit_with(&[], text, module)
    }

    fn edit_with(
        files: &[(&'static str, &str)],
        text: &str,
        module: &str,
    ) -> Result<String, Refusal> {
        let files = files.iter().map(|(name, text)| (*name, (*text).to_owned()));
        super::edit(
            &Memory(files.collect()),
            Path::new("/etc/pam.d"),
            text,
            module,
        )
    }

    fn names_line(refusal: &Refusal, name: &str, wanted: usize) -> bool {
        matches!(refusal, Refusal::PassedOver { file, line, .. }
            if file.ends_with(name) && *line == wanted)
    }

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
    fn the_account_line_comes_before_all_others_and_the_session_line_after_them() {
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
                matches!(&error, Refusal::Line(it) if it.line == at),
                "{error}"
            );
        }
        assert_eq!(
            edit("@include common-auth\n", MODULE).unwrap_err(),
            Refusal::Without(Phase::Account)
        );
        let account = "account required pam_unix.so\n";
        assert_eq!(
            edit(account, MODULE).unwrap_err(),
            Refusal::Without(Phase::Session)
        );
    }

    #[test]
    fn a_stack_whose_session_may_end_before_ours_is_left_and_the_line_is_named() {
        let early = format!("{DEBIAN}session sufficient pam_x.so\nsession optional pam_y.so\n");
        assert!(names_line(&edit(&early, MODULE).unwrap_err(), "sshd", 13));
        let jump = format!("{DEBIAN}session [success=1 default=ignore] pam_x.so\n");
        assert!(names_line(&edit(&jump, MODULE).unwrap_err(), "sshd", 13));
        let included = [("common-session", "session sufficient pam_unix.so\n")];
        let refusal = edit_with(&included, DEBIAN, MODULE).unwrap_err();
        assert!(names_line(&refusal, "common-session", 1), "{refusal}");
    }

    #[test]
    fn what_ends_only_its_substack_leaves_the_stack_to_be_edited() {
        let substack = AMAZON.replace(
            "session    include      password-auth",
            "session    substack     password-auth",
        );
        let included = [(
            "password-auth",
            "account required pam_unix.so\nsession sufficient pam_unix.so\n",
        )];
        assert!(edit_with(&included, &substack, MODULE).is_ok());
        let refusal = edit_with(&included, AMAZON, MODULE).unwrap_err();
        assert!(names_line(&refusal, "password-auth", 2), "{refusal}");
    }

    #[test]
    fn a_stack_with_an_included_file_that_is_missing_is_left() {
        let refusal = edit(&format!("{DEBIAN}@include site\n"), MODULE).unwrap_err();
        let said = refusal.to_string();
        assert!(said.contains("/etc/pam.d/site: no such file"), "{said}");
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
                prop_assert!(file::read(&once).is_ok());
            }
        }
    }
}
