//! What happens to a user's sessions, and when. Pure: facts and the time in,
//! decisions out.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::BootTime;
use crate::settings::Settings;
use crate::user_jobs::Presence;

/// How long to wait before a look that left a doubt is repeated.
pub const AGAIN: Duration = Duration::from_secs(5);

/// A user without a job, whose sessions will end. Kept in a file, so that the
/// deadline survives the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// When the last job's end was noticed.
    pub since: BootTime,
    /// When the sessions end.
    pub deadline: BootTime,
}

/// What is known of a user who has sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The user's jobs.
    pub jobs: Presence,
    /// The user has sessions that may be ended.
    pub sessions: bool,
    /// When one of them was used last, as far as that is looked at.
    pub used: Option<BootTime>,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionAction {
    /// Nothing.
    Nothing,
    /// Tell the user that the sessions end at the deadline.
    Warn(Notice),
    /// A new job has come: tell the user that the sessions stay.
    Cancel,
    /// Wait for this moment, then decide again.
    Wait(Notice, BootTime),
    /// End the sessions.
    End(Notice),
}

/// Decides. Only [`Presence::None`] ever leads to an end.
#[must_use]
pub fn decide(
    now: BootTime,
    settings: &Settings,
    notice: Option<Notice>,
    seen: Seen,
) -> SessionAction {
    match (seen.jobs, notice) {
        (_, _) if !seen.sessions => SessionAction::Nothing,
        (Presence::Has, None) | (Presence::Unknown, None) => SessionAction::Nothing,
        (Presence::Has, Some(_)) => SessionAction::Cancel,
        (Presence::Unknown, Some(notice)) => SessionAction::Wait(notice, now.after(AGAIN)),
        (Presence::None, None) => {
            let notice = Notice {
                since: now,
                deadline: now.after(settings.grace),
            };
            if settings.grace.is_zero() && !settings.spare_active {
                SessionAction::End(notice)
            } else {
                SessionAction::Warn(notice)
            }
        }
        (Presence::None, Some(notice)) if now < notice.deadline => {
            SessionAction::Wait(notice, notice.deadline)
        }
        (Presence::None, Some(notice)) => match spared_until(settings, notice, seen.used) {
            Some(until) if now < until => SessionAction::Wait(notice, until),
            _ => SessionAction::End(notice),
        },
    }
}

/// Until when a session that is used stays beyond the deadline.
fn spared_until(settings: &Settings, notice: Notice, used: Option<BootTime>) -> Option<BootTime> {
    if !settings.spare_active {
        return None;
    }
    let idle = used?.after(settings.idle_window());
    Some(idle.min(notice.deadline.after(settings.max_overstay)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    fn settings(text: &str) -> Settings {
        let text = format!("[logout]\n{text}");
        Settings::of(&config::parse(&text, Path::new("/x.toml")).unwrap()).unwrap()
    }

    fn seen(jobs: Presence) -> Seen {
        Seen {
            jobs,
            sessions: true,
            used: None,
        }
    }

    fn notice(since: u64, deadline: u64) -> Notice {
        Notice {
            since: BootTime(since),
            deadline: BootTime(deadline),
        }
    }

    #[test]
    fn the_last_jobs_end_warns_then_waits_for_the_grace_then_ends() {
        let settings = settings("grace = '10s'");
        let none = seen(Presence::None);
        let first = decide(BootTime(1000), &settings, None, none);
        let given = notice(1000, 11_000);
        assert_eq!(first, SessionAction::Warn(given));
        let next = decide(BootTime(2000), &settings, Some(given), none);
        assert_eq!(next, SessionAction::Wait(given, BootTime(11_000)));
        let last = decide(BootTime(11_000), &settings, Some(given), none);
        assert_eq!(last, SessionAction::End(given));
    }

    #[test]
    fn a_new_job_within_the_grace_cancels_the_end() {
        let settings = settings("");
        let has = seen(Presence::Has);
        let given = Some(notice(0, 60_000));
        for now in [1, 59_999, 60_000, 99_000] {
            assert_eq!(
                decide(BootTime(now), &settings, given, has),
                SessionAction::Cancel
            );
        }
        assert_eq!(
            decide(BootTime(1), &settings, None, has),
            SessionAction::Nothing
        );
    }

    #[test]
    fn a_deadline_that_passed_while_the_daemon_was_away_is_not_given_again() {
        let settings = settings("");
        let given = notice(0, 60_000);
        let now = decide(
            BootTime(600_000),
            &settings,
            Some(given),
            seen(Presence::None),
        );
        assert_eq!(now, SessionAction::End(given));
    }

    #[test]
    fn without_grace_the_end_comes_at_once() {
        let settings = settings("grace = '0'");
        let now = decide(BootTime(5), &settings, None, seen(Presence::None));
        assert_eq!(now, SessionAction::End(notice(5, 5)));
    }

    #[test]
    fn a_session_that_is_used_stays_until_idle_and_no_longer_than_allowed() {
        let settings =
            settings("grace = '10s'\nspare_active = true\nidle_after = '5m'\nmax_overstay = '1h'");
        let given = notice(0, 10_000);
        let used = |at| Seen {
            used: Some(BootTime(at)),
            ..seen(Presence::None)
        };
        let wait = decide(BootTime(10_000), &settings, Some(given), used(9_000));
        assert_eq!(wait, SessionAction::Wait(given, BootTime(309_000)));
        let idle = decide(BootTime(309_000), &settings, Some(given), used(9_000));
        assert_eq!(idle, SessionAction::End(given));
        let overstayed = decide(BootTime(3_610_000), &settings, Some(given), used(3_609_000));
        assert_eq!(overstayed, SessionAction::End(given));
    }

    #[test]
    fn without_sessions_there_is_nothing_to_do() {
        let nobody = Seen {
            sessions: false,
            ..seen(Presence::None)
        };
        let given = Some(notice(0, 1));
        assert_eq!(
            decide(BootTime(9), &settings(""), given, nobody),
            SessionAction::Nothing
        );
    }

    proptest! {
        #[test]
        fn nothing_ends_unless_both_sources_say_that_there_is_no_job(
            now in any::<u64>(), since in any::<u64>(), deadline in any::<u64>(),
            given in any::<bool>(), unknown in any::<bool>(), used in proptest::option::of(any::<u64>()),
            spare in any::<bool>(),
        ) {
            let settings = Settings { spare_active: spare, ..settings("grace = '0'") };
            let jobs = if unknown { Presence::Unknown } else { Presence::Has };
            let seen = Seen { jobs, sessions: true, used: used.map(BootTime) };
            let given = given.then(|| notice(since, deadline));
            let verdict = decide(BootTime(now), &settings, given, seen);
            prop_assert!(!matches!(verdict, SessionAction::End(_) | SessionAction::Warn(_)));
        }

        #[test]
        fn nobody_is_ended_before_the_deadline_that_they_were_told(
            now in any::<u64>(), since in any::<u64>(), deadline in any::<u64>(),
        ) {
            let given = notice(since, deadline);
            let verdict = decide(BootTime(now), &settings(""), Some(given), seen(Presence::None));
            prop_assert!(now >= deadline || verdict == SessionAction::Wait(given, BootTime(deadline)));
        }
    }
}
