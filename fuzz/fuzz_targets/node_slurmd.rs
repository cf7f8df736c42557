#![no_main]
//! What tells where slurmd's sockets and the hugetlb controller are: slurm.conf,
//! and the kernel's mounts, in which users have a say.

use std::path::PathBuf;

use hugepages::isolate::Controller;
use libfuzzer_sys::fuzz_target;
use slurm::conf::slurm_conf::spool_dir;
use slurm_efa_fuzz::assert_presentable;

fuzz_target!(|text: &str| {
    let _ = Controller::of_mounts(text);
    let node = "n1".parse().expect("a name");
    match spool_dir(&slurm_conf(text), &node) {
        Ok(dir) => assert!(dir.is_absolute() && !dir.to_string_lossy().contains("..")),
        Err(reason) => assert_presentable(&reason),
    }
});

/// A file in memory with this text.
fn slurm_conf(text: &str) -> PathBuf {
    let path = PathBuf::from(format!("/dev/shm/slurm-efa-fuzz.{}", std::process::id()));
    std::fs::write(&path, text).expect("room");
    path
}
