#![no_main]
//! What scontrol shows of a node: whatever it is, the reason of somebody else
//! is never replaced, and what is not ours never resumed.

use libfuzzer_sys::fuzz_target;
use slurm::drain_policy::{DrainAs, NodeAction, decide};
use slurm::scontrol::Shown;

const PREFIX: &str = "EFA: ";

fuzz_target!(|text: &str| {
    let Some(shown) = Shown::parse(text) else {
        return;
    };
    let drained = shown.flags.iter().any(|flag| flag == "DRAIN");
    let ours = shown.reason.starts_with(PREFIX);
    if !ours {
        assert_eq!(decide(&shown, &NodeAction::Resume, PREFIX), None);
    }
    for drain_as in [
        DrainAs::Drain,
        DrainAs::HyperpodReplace,
        DrainAs::HyperpodReboot,
    ] {
        let action = NodeAction::Drain {
            reason: "EFA: 31/32 devices".to_owned(),
            drain_as,
            after: None,
        };
        let update = decide(&shown, &action, PREFIX);
        if drained && !ours && !shown.reason.is_empty() {
            assert_eq!(update, None);
        }
    }
});
