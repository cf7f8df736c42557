#![no_main]
//! A running gres.conf: any text gives lines and problems that can be shown.

use std::path::Path;

use config::values::size;
use libfuzzer_sys::fuzz_target;
use slurm::conf::gres_conf::{self, GresConf};
use slurm::conf::reader::InMemory;
use slurm_efa_fuzz::assert_presentable;

fuzz_target!(|text: &str| {
    let Ok(node) = "n1".parse() else { return };
    let files = InMemory::new(&[("/gres.conf", text), ("/a", text)]);
    let conf = GresConf::read(&files, Path::new("/gres.conf"), &node).expect("it is there");
    for problem in &conf.problems {
        assert_presentable(problem);
    }
    for line in &conf.lines {
        // What is shown of a line is read as the same line.
        let shown = line.to_string();
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
        for file in &line.files {
            let _ = gres_conf::minor(file);
        }
    }
    let _ = size::parse_with_old_spelling(text);
});
