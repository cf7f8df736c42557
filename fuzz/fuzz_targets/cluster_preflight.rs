#![no_main]
//! The files of a cluster that is to be made, and AWS's answers, separated by lines
//! of `---`: judged, whatever they contain, and no sentence steers a terminal.

use cluster::answers::Answers;
use libfuzzer_sys::fuzz_target;
use slurm_efa::preflight::{Input, Listing, Scripts, Source, judge};
use slurm_efa_fuzz::assert_presentable;

fuzz_target!(|input: &str| {
    let mut texts = input.splitn(3, "\n---\n");
    let mut next = || texts.next().unwrap_or_default();
    let (cluster, provisioning, answer) = (next(), next(), next());
    let source = |text: &str| Source::of("file.json".to_owned(), text.to_owned());
    let report = judge(&Input {
        provisioning: Some(source(provisioning)),
        lifecycle: Some(Scripts::Listing(Listing::of("listing".to_owned(), answer))),
        answers: Answers::read(|_| Ok(answer.to_owned())),
        ..Input::of(source(cluster))
    });
    for finding in &report.findings.0 {
        assert_presentable(&finding.sentence);
        finding.subject.iter().for_each(|it| assert_presentable(it));
    }
    for line in report.to_text().lines() {
        assert_presentable(line);
    }
});
