#![no_main]
//! A running gres.conf: any text gives lines and problems that can be shown.

use config::values::size;
use gres_helper::gresconf;
use libfuzzer_sys::fuzz_target;
use slurm_efa_fuzz::assert_presentable;

fuzz_target!(|text: &str| {
    let Ok(node) = "n1".parse() else { return };
    let conf = gresconf::parse(text, &node);
    for problem in &conf.problems {
        assert_presentable(problem);
    }
    for line in &conf.lines {
        // What is shown of a line is read as the same line.
        let shown = line.to_string();
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
        for file in &line.files {
            let _ = gresconf::minor(file);
        }
    }
    let _ = size::parse_with_old_spelling(text);
});
