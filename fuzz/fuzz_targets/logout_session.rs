#![no_main]
//! The record of a session: what is believed is safe to show, and says the same
//! when it is written again.

use libfuzzer_sys::fuzz_target;
use logins::session::Session;
use slurm_efa_fuzz::assert_presentable;

fuzz_target!(|bytes: &[u8]| {
    match Session::parse("42-123.json", bytes) {
        Ok(session) => {
            assert_presentable(&session.to_string());
            assert_eq!(session.file_name(), "42-123.json");
        }
        Err(reason) => assert_presentable(&reason),
    }
    if let Ok(name) = std::str::from_utf8(bytes)
        && let Err(reason) = Session::parse(name, b"{}")
    {
        assert_presentable(&reason);
    }
});
