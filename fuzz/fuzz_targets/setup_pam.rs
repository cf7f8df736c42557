#![no_main]
//! sshd's stack: refused, or edited once, and every byte comes back.

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pam_stack::chain::Files;
use pam_stack::file;
use slurm_efa::setup::edit::without_ours;
use slurm_efa::setup::pam::{MODULE, edit};

/// Every file that a stack includes says the same.
struct Same;

impl Files for Same {
    fn text(&self, _: &Path) -> Result<String, String> {
        Ok(
            "account required pam_unix.so\nsession [success=1 default=ignore] pam_unix.so\n\
            session optional pam_systemd.so\n"
                .to_owned(),
        )
    }
}

fuzz_target!(|text: &str| {
    let mut theirs = text.to_owned();
    while without_ours(&theirs) != theirs {
        theirs = without_ours(&theirs);
    }
    let edit = |text: &str| edit(&Same, Path::new("/etc/pam.d"), text, MODULE);
    if let Ok(once) = edit(&theirs) {
        assert_eq!(edit(&once).as_ref(), Ok(&once));
        assert_eq!(without_ours(&once), theirs);
        assert!(file::read(&once).is_ok());
    }
});
