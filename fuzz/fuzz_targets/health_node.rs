#![no_main]
//! What scontrol shows of a node: whatever it is, the reason of somebody else
//! is never replaced, and what is not ours never resumed.

use efa_check::settings::OnFatal;
use efa_check::slurm::{PREFIX, Wish, decide};
use libfuzzer_sys::fuzz_target;
use slurm::scontrol::Shown;

fuzz_target!(|text: &str| {
    let Some(shown) = Shown::parse(text) else {
        return;
    };
    let drained = shown.flags.iter().any(|flag| flag == "DRAIN");
    let ours = shown.reason.starts_with(PREFIX);
    if !ours {
        assert_eq!(decide(&shown, &Wish::Resume), None);
    }
    for on_fatal in [
        OnFatal::Drain,
        OnFatal::HyperpodReplace,
        OnFatal::HyperpodReboot,
    ] {
        let wish = Wish::Drain {
            reason: "EFA: 31/32 devices".to_owned(),
            on_fatal,
            after_prolog: false,
        };
        let update = decide(&shown, &wish);
        if drained && !ours && !shown.reason.is_empty() {
            assert_eq!(update, None);
        }
    }
});
