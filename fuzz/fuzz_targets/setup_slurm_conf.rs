#![no_main]
//! slurm.conf and plugstack.conf: what is edited is edited once, and taking ours
//! out gives back every byte.

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use slurm::conf::SlurmConf;
use slurm::conf::reader::InMemory;
use slurm_efa::setup::edit::{Lines, diff, without_ours};
use slurm_efa::setup::slurm_conf::{Directive, edit};
use slurm_efa_fuzz::assert_presentable;

fuzz_target!(|text: &str| {
    let wishes = [
        Directive::Plugin {
            path: "/usr/lib/slurm-efa/spank_efa.so".to_owned(),
            arguments: String::new(),
        },
        Directive::Flags("PrologFlags", &["Alloc", "Contain"]),
        Directive::Program {
            key: "Prolog",
            value: "/etc/slurm-efa/prolog.d/*".to_owned(),
            several: text.len().is_multiple_of(2),
        },
        Directive::HealthCheck {
            program: "/etc/slurm-efa/efa-check-healthcheck".to_owned(),
            interval: "60",
        },
    ];
    // A text that somebody put our marks into is ours to that extent, and what
    // is put aside twice comes back once at a time.
    let mut theirs = text.to_owned();
    while without_ours(&theirs) != theirs {
        theirs = without_ours(&theirs);
    }
    let path = Path::new("/e/slurm.conf");
    let files = InMemory::new(&[("/e/slurm.conf", text), ("/e/a", text)]);
    let edited = |text: &str| edit(&files, path, Lines::theirs(text), &wishes);
    let once = edited(&theirs);
    assert_eq!(edited(&once.text), once);
    // One item alone, among the others.
    let prologs = |line: &str| line.starts_with("Prolog=");
    let rest = Lines::without(&once.text, prologs).into_text();
    assert_eq!(Lines::without(&rest, prologs).into_text(), rest);
    assert_eq!(without_ours(&rest), theirs);
    assert_eq!(without_ours(&once.text), theirs);
    let _ = diff("/e/slurm.conf", Some(&theirs), Some(&once.text));
    let conf = SlurmConf::read(&files, path).expect("it is there");
    let _ = conf.values("Prolog");
    for problem in &conf.problems {
        assert_presentable(&problem.to_string());
    }
});
