//! What is to be asked of Slurm about this node: pure decisions.

use findings::Domain;
use slurm::scontrol::{Shown, Update};

use crate::settings::OnFatal;

/// What every reason of ours begins with, and no other does.
pub const PREFIX: &str = Domain::Efa.prefix();

/// Slurm's reason for a prolog that failed.
const PROLOG_ERROR: &str = "Prolog error";

/// What we want of Slurm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// No new jobs here, for this reason.
    Drain {
        /// Begins with [`PREFIX`].
        reason: String,
        /// How.
        on_fatal: OnFatal,
        /// Whether this node's failing prolog is ours: then Slurm's words for
        /// it may be replaced.
        after_prolog: bool,
    },
    /// Jobs again, if it was us who drained.
    Resume,
}

fn is_ours(shown: &Shown) -> bool {
    shown.reason.starts_with(PREFIX)
}

/// What is to be done about a node; `None`: nothing. Reasons of others stay.
#[must_use]
pub fn decide(shown: &Shown, wish: &Wish) -> Option<Update> {
    match wish {
        Wish::Resume => (is_ours(shown) && shown.is_out()).then_some(Update {
            state: "RESUME",
            reason: None,
        }),
        Wish::Drain {
            reason,
            on_fatal,
            after_prolog,
        } => {
            let slurms_words = *after_prolog && shown.reason == PROLOG_ERROR;
            let may_replace = shown.reason.is_empty() || is_ours(shown) || slurms_words;
            let (state, words) = match on_fatal {
                OnFatal::Drain => ("DRAIN", reason.clone()),
                OnFatal::HyperpodReplace => ("FAIL", "Action:Replace".to_owned()),
                OnFatal::HyperpodReboot => ("FAIL", "Action:Reboot".to_owned()),
            };
            if shown.is_out() {
                let same = shown.reason == words;
                return (may_replace && !same).then_some(Update {
                    state,
                    reason: Some(words),
                });
            }
            // In service with a note of somebody: it is drained, the note stays
            // and, since ours is not in front, so does the drain.
            let words = match on_fatal {
                OnFatal::Drain if !may_replace => format!("{}; {words}", shown.reason),
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

    fn drain(on_fatal: OnFatal, after_prolog: bool) -> Wish {
        Wish::Drain {
            reason: "EFA: 31/32 devices".into(),
            on_fatal,
            after_prolog,
        }
    }

    fn words(update: Option<Update>) -> String {
        update.map_or("nothing".into(), |update| {
            format!("{} {}", update.state, update.reason.unwrap_or_default())
        })
    }

    #[test]
    fn a_node_in_service_is_drained_with_our_reason() {
        let update = decide(&shown("IDLE", ""), &drain(OnFatal::Drain, false));
        assert_eq!(words(update), "DRAIN EFA: 31/32 devices");
    }

    #[test]
    fn a_reason_of_somebody_else_is_never_overwritten() {
        for state in ["IDLE+DRAIN", "DOWN", "MIXED+DRAIN", "DRAINED", "DOWN*"] {
            for how in [
                OnFatal::Drain,
                OnFatal::HyperpodReplace,
                OnFatal::HyperpodReboot,
            ] {
                for after_prolog in [false, true] {
                    let node = shown(state, "disk is full");
                    let wish = drain(how, after_prolog);
                    assert_eq!(words(decide(&node, &wish)), "nothing", "{state} {how:?}");
                }
            }
        }
    }

    #[test]
    fn a_note_on_a_node_in_service_stays_in_front_of_ours() {
        let node = shown("IDLE", "ask bob first");
        let update = decide(&node, &drain(OnFatal::Drain, false));
        assert_eq!(words(update), "DRAIN ask bob first; EFA: 31/32 devices");
    }

    #[test]
    fn our_own_reason_is_kept_up_to_date_and_not_repeated() {
        let node = shown("IDLE+DRAIN", "EFA: 30/32 devices");
        let update = decide(&node, &drain(OnFatal::Drain, false));
        assert_eq!(words(update), "DRAIN EFA: 31/32 devices");
        let node = shown("IDLE+DRAIN", "EFA: 31/32 devices");
        assert_eq!(decide(&node, &drain(OnFatal::Drain, false)), None);
    }

    #[test]
    fn slurms_words_for_our_failed_prolog_are_replaced_and_those_for_another_are_not() {
        let node = shown("IDLE+DRAIN", "Prolog error");
        let update = decide(&node, &drain(OnFatal::Drain, true));
        assert_eq!(words(update), "DRAIN EFA: 31/32 devices");
        assert_eq!(decide(&node, &drain(OnFatal::Drain, false)), None);
    }

    #[test]
    fn hyperpod_gets_exactly_its_words() {
        let node = shown("IDLE", "");
        let replace = decide(&node, &drain(OnFatal::HyperpodReplace, false));
        assert_eq!(words(replace), "FAIL Action:Replace");
        let reboot = decide(&node, &drain(OnFatal::HyperpodReboot, false));
        assert_eq!(words(reboot), "FAIL Action:Reboot");
        // Once it is said, HyperPod owns the node.
        let node = shown("FAIL", "Action:Replace");
        assert_eq!(decide(&node, &drain(OnFatal::HyperpodReplace, false)), None);
    }

    #[test]
    fn only_what_we_drained_is_resumed() {
        let resume = |state, reason| words(decide(&shown(state, reason), &Wish::Resume));
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
