//! What Slurm is asked to do with a node that a program found faulty or healthy
//! again: pure decisions.

use crate::scontrol::{Shown, Update};

/// A program of Slurm's that fails, for which slurmd drains the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// Prolog.
    Prolog,
    /// Epilog.
    Epilog,
}

impl Failed {
    /// Slurm's own reason for such a drain.
    #[must_use]
    pub fn slurms_reason(self) -> &'static str {
        match self {
            Self::Prolog => "Prolog error",
            Self::Epilog => "Epilog error",
        }
    }
}

/// How a node is taken out of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrainAs {
    /// Drained.
    Drain,
    /// HyperPod replaces the instance.
    HyperpodReplace,
    /// HyperPod reboots it.
    HyperpodReboot,
}

/// What a program wants of Slurm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeAction {
    /// No new jobs here, for this reason.
    Drain {
        /// Begins with the program's prefix.
        reason: String,
        /// How.
        drain_as: DrainAs,
        /// What the program is about to fail as: then Slurm's words for that may
        /// be replaced.
        after: Option<Failed>,
    },
    /// Jobs again, if it was the program that drained.
    Resume,
}

/// What is to be done about a node; `None`: nothing. `prefix` is what each
/// reason of the program begins with, and no other does; other reasons stay.
#[must_use]
pub fn decide(shown: &Shown, action: &NodeAction, prefix: &str) -> Option<Update> {
    let is_own = shown.reason.starts_with(prefix);
    match action {
        NodeAction::Resume => (is_own && shown.is_out()).then_some(Update {
            state: "RESUME",
            reason: None,
        }),
        NodeAction::Drain {
            reason,
            drain_as,
            after,
        } => {
            let slurms_words = after.is_some_and(|failed| shown.reason == failed.slurms_reason());
            let may_replace = shown.reason.is_empty() || is_own || slurms_words;
            let (state, words) = match drain_as {
                DrainAs::Drain => ("DRAIN", reason.clone()),
                DrainAs::HyperpodReplace => ("FAIL", "Action:Replace".to_owned()),
                DrainAs::HyperpodReboot => ("FAIL", "Action:Reboot".to_owned()),
            };
            if shown.is_out() {
                let same = shown.reason == words;
                return (may_replace && !same).then_some(Update {
                    state,
                    reason: Some(words),
                });
            }
            // In service with a note of somebody: it is drained, the note stays
            // and, since the program's reason is not in front, so does the drain.
            let words = match drain_as {
                DrainAs::Drain if !may_replace => format!("{}; {words}", shown.reason),
                _ if !may_replace => return None,
                _ => words,
            };
            Some(Update {
                state,
                reason: Some(words),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(shown: &Shown, action: &NodeAction) -> Option<Update> {
        super::decide(shown, action, "EFA: ")
    }

    fn shown(state: &str, reason: &str) -> Shown {
        let reason = if reason.is_empty() {
            String::new()
        } else {
            format!(" Reason={reason} [root@2026-11-22T09:12:00]")
        };
        Shown::parse(&format!(
            "NodeName=n1 Arch=x86_64 State={state} ThreadsPerCore=2 Owner=N/A{reason}"
        ))
        .unwrap()
    }

    fn drain(drain_as: DrainAs, after: Option<Failed>) -> NodeAction {
        NodeAction::Drain {
            reason: "EFA: 31/32 devices".into(),
            drain_as,
            after,
        }
    }

    fn words(update: Option<Update>) -> String {
        update.map_or("nothing".into(), |update| {
            format!("{} {}", update.state, update.reason.unwrap_or_default())
        })
    }

    #[test]
    fn a_node_in_service_is_drained_with_our_reason() {
        let update = decide(&shown("IDLE", ""), &drain(DrainAs::Drain, None));
        assert_eq!(words(update), "DRAIN EFA: 31/32 devices");
    }

    #[test]
    fn a_reason_of_somebody_else_is_never_overwritten() {
        for state in ["IDLE+DRAIN", "DOWN", "MIXED+DRAIN", "DRAINED", "DOWN*"] {
            for how in [
                DrainAs::Drain,
                DrainAs::HyperpodReplace,
                DrainAs::HyperpodReboot,
            ] {
                for after in [None, Some(Failed::Prolog), Some(Failed::Epilog)] {
                    let node = shown(state, "disk is full");
                    let action = drain(how, after);
                    assert_eq!(words(decide(&node, &action)), "nothing", "{state} {how:?}");
                }
            }
        }
    }

    #[test]
    fn a_note_on_a_node_in_service_stays_in_front_of_ours() {
        let node = shown("IDLE", "ask bob first");
        let update = decide(&node, &drain(DrainAs::Drain, None));
        assert_eq!(words(update), "DRAIN ask bob first; EFA: 31/32 devices");
    }

    #[test]
    fn our_own_reason_is_kept_up_to_date_and_not_repeated() {
        let node = shown("IDLE+DRAIN", "EFA: 30/32 devices");
        let update = decide(&node, &drain(DrainAs::Drain, None));
        assert_eq!(words(update), "DRAIN EFA: 31/32 devices");
        let node = shown("IDLE+DRAIN", "EFA: 31/32 devices");
        assert_eq!(decide(&node, &drain(DrainAs::Drain, None)), None);
    }

    #[test]
    fn slurms_words_are_replaced_only_for_the_failure_that_is_the_programs_own() {
        for (after, words_of_slurm, expected) in [
            (
                Some(Failed::Prolog),
                "Prolog error",
                "DRAIN EFA: 31/32 devices",
            ),
            (
                Some(Failed::Epilog),
                "Epilog error",
                "DRAIN EFA: 31/32 devices",
            ),
            (Some(Failed::Prolog), "Epilog error", "nothing"),
            (Some(Failed::Epilog), "Prolog error", "nothing"),
            (None, "Prolog error", "nothing"),
            (None, "Epilog error", "nothing"),
        ] {
            let node = shown("IDLE+DRAIN", words_of_slurm);
            let update = decide(&node, &drain(DrainAs::Drain, after));
            assert_eq!(words(update), expected, "{after:?} {words_of_slurm}");
        }
    }

    #[test]
    fn hyperpod_gets_exactly_its_words() {
        let node = shown("IDLE", "");
        let replace = decide(&node, &drain(DrainAs::HyperpodReplace, None));
        assert_eq!(words(replace), "FAIL Action:Replace");
        let reboot = decide(&node, &drain(DrainAs::HyperpodReboot, None));
        assert_eq!(words(reboot), "FAIL Action:Reboot");
        // Once it is said, HyperPod owns the node.
        let node = shown("FAIL", "Action:Replace");
        assert_eq!(decide(&node, &drain(DrainAs::HyperpodReplace, None)), None);
    }

    #[test]
    fn only_what_we_drained_is_resumed() {
        let resume = |state, reason| words(decide(&shown(state, reason), &NodeAction::Resume));
        assert_eq!(resume("IDLE+DRAIN", "EFA: 31/32 devices"), "RESUME ");
        assert_eq!(
            resume("IDLE+DRAIN", "disk is full; EFA: 31/32 devices"),
            "nothing"
        );
        assert_eq!(resume("IDLE+DRAIN", "Prolog error"), "nothing");
        assert_eq!(resume("FAIL", "Action:Reboot"), "nothing");
        assert_eq!(resume("IDLE", "EFA: old"), "nothing");
    }
}
