#![no_main]
//! What tells where slurmd's sockets and the hugetlb controller are: slurm.conf,
//! and the kernel's mounts, in which users have a say.

use std::path::Path;

use hugepages::hugetlb_cgroup::Controller;
use libfuzzer_sys::fuzz_target;
use slurm::conf::SlurmConf;
use slurm::conf::reader::InMemory;
use slurm_efa_fuzz::assert_presentable;

fuzz_target!(|text: &str| {
    let _ = Controller::of_mounts(text);
    let node = "n1".parse().expect("a name");
    let files = InMemory::new(&[("/e/slurm.conf", text), ("/e/a", text)]);
    let conf = SlurmConf::read(&files, Path::new("/e/slurm.conf")).expect("it is there");
    match conf.spool_dir(&node) {
        Ok(dir) => assert!(dir.is_absolute() && !dir.to_string_lossy().contains("..")),
        Err(reason) => assert_presentable(&reason),
    }
});
