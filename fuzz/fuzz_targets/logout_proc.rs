#![no_main]
//! Files of /proc, /etc/subuid, and the module's arguments: parts of them are
//! users' to choose.

use host::process::parse_stat;
use libfuzzer_sys::fuzz_target;
use logins::membership::User;
use logins::module_arguments::Arguments;
use logins::{idle, process};
use slurm_efa_fuzz::assert_presentable;

fuzz_target!(|bytes: &[u8]| {
    // Whatever a process calls itself, the numbers behind are the kernel's.
    let rest: &[u8] = b") S 41 42 42 34816 42 0 1 0 0 0 7 5 0 0 20 0 1 0 123456 1 1";
    let stat = [b"42 (", bytes, rest].concat();
    let stat = parse_stat(&stat).expect("a whole line");
    assert_eq!((stat.parent.0, stat.start, stat.cpu), (41, 123_456, 12));
    let _ = parse_stat(bytes);
    let _ = process::parse_uids(bytes);
    let _ = User::parse(host::Uid(1000), "alice", bytes);
    let _ = idle::parse_io(bytes);
    if let Some(scope) = process::session_scope(bytes, host::Uid(1000)) {
        assert!(scope.starts_with("/user.slice/user-") && !scope.contains(".."));
        assert!(process::in_cgroup(bytes, &scope));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        for word in Arguments::parse(text.split(' ')).unknown {
            assert_presentable(&word);
        }
    }
});
