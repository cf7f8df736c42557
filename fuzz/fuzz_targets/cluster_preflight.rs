#![no_main]
//! The files of a cluster that is to be made: judged, whatever they contain, and
//! no sentence steers a terminal.

use cluster::answers::Answers;
use libfuzzer_sys::fuzz_target;
use slurm_efa::preflight::{Input, Source, judge};
use slurm_efa_fuzz::assert_presentable;

fuzz_target!(|texts: (&str, &str, &str)| {
    let (cluster, provisioning, answer) = texts;
    let source = |text: &str| Source::of("file.json".to_owned(), text.to_owned());
    let report = judge(&Input {
        cluster: source(cluster),
        provisioning: Some(source(provisioning)),
        lifecycle: None,
        answers: Answers::read(|_| Ok(answer.to_owned())),
    });
    for finding in &report.findings.0 {
        assert_presentable(&finding.sentence);
        finding.subject.iter().for_each(|it| assert_presentable(it));
    }
    for line in report.to_text().lines() {
        assert_presentable(line);
    }
});
