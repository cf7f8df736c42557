//! LBNL's Node Health Check: where it is Slurm's HealthCheckProgram it stays, and
//! calls efa-check by a line of its own configuration.
//!
//! A line is `TARGET || CHECK`. NHC evaluates the check of each line whose target
//! matches the node as a line of bash, in order, and drains the node at the first
//! that fails (nhc and scripts/common.nhc of NHC 1.4 and 1.5). So ours
//!
//! * is the first: it runs whatever NHC finds. Besides, NHC does not read a last
//!   line without a line break, so nothing can be added after that;
//! * never fails: efa-check drains the node itself, with a reason that it finds
//!   again when it resumes the node, and a warning drains nothing;
//! * ends in time: NHC ends after 30 seconds, and drains the node.

use host::printable;

use super::discover::Site;
use super::edit::Lines;
use super::error::SetupError;
use super::files::{self, Content};
use super::parts::Item;
use super::paths::{HEALTHCHECK, NHC_CONF};
use super::plan::Plan;

/// Whether a HealthCheckProgram is NHC: itself or the wrapper that comes with it.
#[must_use]
pub fn is_nhc(program: &str) -> bool {
    let name = program.rsplit('/').next();
    name.is_some_and(|name| ["nhc", "nhc-wrapper"].contains(&name))
}

/// Our line.
pub(super) fn line(health_check: &str) -> String {
    format!("* || {{ timeout --kill-after=2 20 {health_check} || :; }}")
}

/// nhc.conf with our line, unless one that is not set-up's calls efa-check.
#[must_use]
fn edit(text: &str, health_check: &str) -> String {
    let mut lines = Lines::theirs(text);
    if !calls_ours(&lines.text()) {
        let first = lines.physical().iter().position(|line| is_check(line));
        lines.insert(first.unwrap_or(usize::MAX), &line(health_check));
    }
    lines.into_text()
}

/// Whether NHC calls efa-check's health check.
#[must_use]
pub fn calls_ours(text: &str) -> bool {
    let mut checks = text.lines().filter(|line| is_check(line));
    checks.any(|line| line.contains("efa-check") && line.contains("healthcheck"))
}

fn is_check(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with('#')
}

/// Whether NHC is Slurm's health check.
pub(super) fn is_in_use(site: &Site) -> bool {
    let program = site.slurm.conf.value("HealthCheckProgram");
    program.is_some_and(is_nhc)
}

/// Has this node's NHC call efa-check, where NHC is Slurm's health check.
pub(super) fn plan(site: &Site, plan: &mut Plan) -> Result<(), SetupError> {
    if !plan.scope.makes(Item::EfaCheck) || !is_in_use(site) {
        return Ok(());
    }
    let path = site.place(NHC_CONF);
    let shown = printable(&path.to_string_lossy(), 200);
    let ours = site.place_text(HEALTHCHECK);
    let (_, before) = files::read(&path)?;
    let Content::Text(text) = &before else {
        plan.notes.push(format!(
            "HealthCheckProgram is NHC, and {shown} is not there: add this line to NHC's \
             configuration: {}",
            line(&ours)
        ));
        return Ok(());
    };
    if calls_ours(text) && !super::edit::has_ours(text) {
        return Ok(());
    }
    if site.is_shared(&path) {
        if !calls_ours(text) {
            plan.notes.push(format!(
                "{shown} is not edited here, since it lies on a network file system that nodes \
                 share: add this line once: {}",
                line(&ours)
            ));
        }
        return Ok(());
    }
    plan.text(&path, |text| edit(text, &ours))
}

#[cfg(test)]
mod tests {
    use super::super::edit::{MARK, without_ours};
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    const OURS: &str = "/etc/slurm-efa/efa-check-healthcheck";

    #[test]
    fn our_line_is_the_first_check_and_is_written_once() {
        let theirs = "# NHC\n\n  * || check_fs_mount_rw /\n* || check_hw_eth eth0";
        let once = edit(theirs, OURS);
        let at = once.lines().position(|it| it.ends_with(MARK));
        assert_eq!(at, Some(2), "{once}");
        assert_eq!(edit(&once, OURS), once);
        assert_eq!(without_ours(&once), theirs);
    }

    #[test]
    fn a_line_that_the_site_wrote_is_not_doubled_and_a_comment_is_no_line() {
        let theirs = "* || { timeout 20 /usr/sbin/efa-check healthcheck || true; }\n";
        assert_eq!(edit(theirs, OURS), theirs);
        let comment = format!("#{theirs}");
        assert_ne!(edit(&comment, OURS), comment);
    }

    #[test]
    fn nhc_is_known_by_its_name_and_no_other_program_is() {
        for nhc in ["/usr/sbin/nhc", "/opt/nhc/sbin/nhc-wrapper"] {
            assert!(is_nhc(nhc), "{nhc}");
        }
        for other in ["/usr/sbin/my-nhc", "/opt/nhc/check.sh", ""] {
            assert!(!is_nhc(other), "{other}");
        }
    }

    /// As NHC does: the target is what precedes the first `||`, the check what
    /// follows it, which is expanded once and evaluated.
    fn as_nhc_runs(line: &str) -> Option<i32> {
        const NHC: &str = r#"set -f; LINE=$1; TARGET="${LINE%%||*}"; CHECK="${LINE#*||}"
            [[ $TARGET == "* " ]] || exit 99; eval $CHECK"#;
        let status = Command::new("bash").args(["-c", NHC, "nhc", line]).status();
        status.unwrap().code()
    }

    #[test]
    fn whatever_efa_check_ends_with_nhc_drains_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("ran");
        for code in [0, 1, 2, 3, 127] {
            let check = format!("sh -c 'touch {}; exit {code}'", mark.display());
            let line = format!("{} {MARK}", line(&check));
            assert_eq!(as_nhc_runs(&line), Some(0), "{code}");
            std::fs::remove_file(&mark).unwrap();
        }
        assert_eq!(as_nhc_runs(&line("/nowhere/at/all")), Some(0));
    }

    proptest! {
        #[test]
        fn any_file_gets_our_line_once_and_every_byte_back(
            pieces in proptest::collection::vec(
                prop_oneof!["[ -~\r]{0,30}", Just("* || check_x".to_owned()), Just("#".to_owned())],
                0..6
            )
        ) {
            let theirs = without_ours(&pieces.join("\n"));
            prop_assume!(!super::super::edit::has_ours(&theirs));
            let once = edit(&theirs, OURS);
            prop_assert_eq!(edit(&once, OURS), once.clone());
            prop_assert_eq!(without_ours(&once), theirs);
            prop_assert!(calls_ours(&once));
        }
    }
}
