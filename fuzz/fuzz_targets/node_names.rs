#![no_main]
//! Names of files and sockets that stand for jobs: a job has one file, and a
//! socket belongs to one node.

use libfuzzer_sys::fuzz_target;
use slurm::JobKey;
use slurm::NodeName;
use slurm::stepd_sockets::Step;

fuzz_target!(|input: (&str, &str)| {
    let (node, name) = input;
    if let Some(key) = JobKey::of_file(name) {
        assert_eq!(key.file_name(), name);
    }
    let Ok(node) = node.parse::<NodeName>() else {
        return;
    };
    let socket = format!("{node}_{name}");
    for socket in [name, &socket] {
        let Some(step) = Step::of_socket(socket, &node) else {
            continue;
        };
        let ids = socket
            .strip_prefix(node.as_str())
            .and_then(|it| it.strip_prefix('_'));
        let numbers: Vec<Option<u32>> = ids
            .into_iter()
            .flat_map(|ids| ids.split('.'))
            .map(|number| number.parse().ok())
            .collect();
        let told = [Some(step.job.0), Some(step.step), step.component];
        let told: Vec<Option<u32>> = told.into_iter().filter(Option::is_some).collect();
        assert_eq!(numbers, told);
    }
});
