#![no_main]
//! sshd's stack: refused, or edited once, and every byte comes back.

use libfuzzer_sys::fuzz_target;
use slurm_efa::setup::edit::without_ours;
use slurm_efa::setup::pam::{MODULE, edit, rules};

fuzz_target!(|text: &str| {
    let mut theirs = text.to_owned();
    while without_ours(&theirs) != theirs {
        theirs = without_ours(&theirs);
    }
    if let Ok(once) = edit(&theirs, MODULE) {
        assert_eq!(edit(&once, MODULE).as_ref(), Ok(&once));
        assert_eq!(without_ours(&once), theirs);
        assert!(rules(&once).is_ok());
    }
});
