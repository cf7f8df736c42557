//! Reservation on the running kernel: the library alone, then the plugin under
//! a real Slurm. Needs root and 1 GiB of free memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cdylib_tests::efa_cluster::{self, Vars};
use cdylib_tests::kernel_pages;
use cdylib_tests::modules;
use cdylib_tests::testbed::{Builder, JobId as Id, JobState, LIMIT, Output, Progress, Testbed};
use host::BootId;
use host::Deadline;
use host::Sysroot;
use host::state_dir::StateDir;
use hugepages::ledger::Ledger;
use hugepages::{Claim, HugePages, KernelPools, PageClaim, PageSize, Report, Spread, reconcile};
use jobs::Existence;
use jobs::registry::Start;
use slurm::{JobId, JobKey};

const PAGE: PageSize = PageSize::TwoMiB;

fn kernel() -> KernelPools {
    KernelPools::new(Sysroot::real()).unwrap()
}

/// The counts of all pools, surplus included.
fn counts() -> Vec<u64> {
    let counts = kernel_pages::counts().unwrap();
    counts.into_iter().map(|(_, pages)| pages).collect()
}

fn alone() -> kernel_pages::Alone {
    kernel_pages::alone().unwrap()
}

fn key(job: u32) -> JobKey {
    JobKey {
        job: JobId(job),
        node: "n1".parse().unwrap(),
    }
}

fn claim(job: u32, pages: u64) -> Claim {
    Claim {
        key: key(job),
        start: Start::now(BootId::current().unwrap()).unwrap(),
        spool_dir: PathBuf::from("/var/spool/slurmd"),
        wishes: vec![PageClaim {
            size: PAGE,
            pages: HugePages(pages),
            spread: Spread::Even,
        }],
    }
}

/// One prolog, or one epilog after which only `alive` are left.
fn run(state: &StateDir, alive: &[u32], claim: Option<&Claim>) -> Report {
    let deadline = Deadline::after(LIMIT);
    reconcile(
        &mut Ledger::open(state, deadline).unwrap(),
        &mut kernel(),
        &BootId::current().unwrap(),
        &mut |key, _| match alive.contains(&key.job.0) {
            true => Existence::Exists,
            false => Existence::Gone,
        },
        claim,
        deadline,
    )
    .unwrap()
}

/// Huge pages of this process.
struct Mapped {
    at: *mut libc::c_void,
    bytes: usize,
}

impl Mapped {
    fn new(pages: usize) -> Self {
        let bytes = pages * usize::try_from(PAGE.bytes()).unwrap();
        // SAFETY: a private anonymous mapping anywhere has no preconditions.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED, "no pages to map");
        Self { at, bytes }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, of this size, and nothing points into it.
        let unmapped = unsafe { libc::munmap(self.at, self.bytes) };
        assert_eq!(unmapped, 0);
    }
}

#[test]
fn pages_are_reserved_and_given_back_exactly() {
    let _alone = alone();
    let before = counts();
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    let report = run(&state, &[], Some(&claim(1, 8)));
    assert_eq!(report.claimed.unwrap().total(PAGE), HugePages(8));
    let during: u64 = counts().iter().sum();
    assert_eq!(during, before.iter().sum::<u64>() + 8);
    let second = run(&state, &[1], Some(&claim(2, 3)));
    assert_eq!(second.claimed.unwrap().total(PAGE), HugePages(3));
    let report = run(&state, &[2], None);
    assert_eq!(report.dropped, [key(1)]);
    run(&state, &[], None);
    assert_eq!(counts(), before);
    assert_eq!(names(&dir.path().join("hugepages")), [""; 0]);
}

#[test]
fn pages_that_a_dying_process_still_maps_come_back_when_it_lets_go() {
    let _alone = alone();
    let before = counts();
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    // Those that lay free before are mapped too: else they make up for ours.
    let free = kernel_pages::free().unwrap();
    run(&state, &[], Some(&claim(1, 8)));
    let mapped = Mapped::new(free + 6);
    let report = run(&state, &[], None);
    for pool in report.pools {
        assert_eq!(pool.actual, pool.baseline, "{}", pool.pool);
    }
    assert_eq!(counts().iter().sum::<u64>(), before.iter().sum::<u64>() + 6);
    // A job that starts meanwhile gets its own.
    let next = run(&state, &[], Some(&claim(2, 4)));
    assert_eq!(next.claimed.unwrap().total(PAGE), HugePages(4));
    drop(mapped);
    assert_eq!(counts().iter().sum::<u64>(), before.iter().sum::<u64>() + 4);
    run(&state, &[], None);
    assert_eq!(counts(), before);
}

#[test]
fn prologs_and_epilogs_at_the_same_time_wait_for_each_other() {
    let _alone = alone();
    let before = counts();
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    let all: Vec<u32> = (0..8).collect();
    std::thread::scope(|scope| {
        for &job in &all {
            let (state, all) = (&state, &all);
            scope.spawn(move || {
                for _ in 0..5 {
                    let pages = u64::from(job % 3 + 1);
                    let report = run(state, all, Some(&claim(job, pages)));
                    let got = report.claimed.unwrap().total(PAGE);
                    assert_eq!(got, HugePages(pages));
                    let others: Vec<u32> = all.iter().copied().filter(|it| *it != job).collect();
                    run(state, &others, None);
                }
            });
        }
    });
    run(&state, &[], None);
    assert_eq!(counts(), before);
}

#[test]
fn a_thousand_jobs_in_the_ledger_are_reconciled_together() {
    let _alone = alone();
    let before = counts();
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    run(&state, &[], Some(&claim(0, 0)));
    let folder = dir.path().join("hugepages");
    let text = std::fs::read_to_string(folder.join("0@n1.json")).unwrap();
    let all: Vec<u32> = (0..1000).collect();
    for job in &all[1..] {
        let text = text.replace("\"job\":0", &format!("\"job\":{job}"));
        std::fs::write(folder.join(key(*job).file_name()), text).unwrap();
    }
    let report = run(&state, &all, None);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(run(&state, &[], None).dropped.len(), 1000);
    assert_eq!(counts(), before);
}

// ------------------------------------------------------------ under a real Slurm

/// State and records lie where the test can see them.
const SITE: &str = "state_dir = \"{dir}/efa\"\n";

fn cluster(toml: &str) -> Builder {
    efa_cluster::cluster(&format!("{SITE}{toml}"), &["p5.48xlarge"])
}

/// No job has pages or a record any more.
fn assert_clean(tb: &Testbed, before: &[u64]) {
    tb.wait_idle().unwrap();
    tb.wait_until("the last epilog", LIMIT, || {
        Ok(match ledger(tb).is_empty() && records(tb).is_empty() {
            true => Progress::Done(()),
            false => Progress::Waiting(format!("{:?}, {:?}", ledger(tb), records(tb))),
        })
    })
    .unwrap();
    assert_eq!(counts(), before);
}

/// The files in a folder of the state directory, without its lock.
fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let name = |entry: std::io::Result<fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let mut names: Vec<String> = entries.filter_map(name).collect();
    names.retain(|name| !name.starts_with('.'));
    names
}

fn ledger(tb: &Testbed) -> Vec<String> {
    names(&tb.dir().join("efa/hugepages"))
}

fn records(tb: &Testbed) -> Vec<String> {
    names(&tb.dir().join("efa/jobs"))
}

fn submit(tb: &Testbed, args: &[&str], script: &str) -> Id {
    let script = format!("#!/bin/bash\n{script}\n");
    tb.sbatch("alice", &script, args).unwrap()
}

fn wait_output(tb: &Testbed, job: Id, words: &str) {
    tb.wait_until(words, LIMIT, || {
        let printed = tb.job_output(job).unwrap_or_default();
        Ok(match printed.contains(words) {
            true => Progress::Done(()),
            false => Progress::Waiting(printed),
        })
    })
    .unwrap();
}

fn assert_serves(tb: &Testbed) {
    let state = tb.node_state("n1").unwrap();
    assert!(!state.is_drained(), "{state:?}");
    assert!(tb.srun("alice", &["true"]).unwrap().success());
}

#[test]
fn a_job_has_its_pages_while_it_runs_and_the_kernel_has_them_back_after_it() {
    let _alone = alone();
    let before = counts();
    let tb = cluster("").start().unwrap();
    let script = "env; cat /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    let printed = efa_cluster::batch(&tb, &["--efa-hugepages=16M"], script);
    let vars = Vars::of(&printed);
    assert_eq!(vars.get("SLURM_EFA_HUGEPAGES_MIB"), Some("16"), "{printed}");
    let during: u64 = printed.lines().last().unwrap().parse().unwrap();
    let small = kernel_pages::mebibytes().unwrap() / 2;
    assert_clean(&tb, &before);
    assert_eq!(
        during,
        kernel_pages::mebibytes().unwrap() / 2 + 8,
        "{small}"
    );
    // A step inside, and srun alone.
    let printed = efa_cluster::batch(&tb, &["--efa-hugepages=4M"], "srun env");
    assert_eq!(Vars::of(&printed).get("SLURM_EFA_HUGEPAGES_MIB"), Some("4"));
    let step = efa_cluster::step(&tb, &[("SRUN_EFA_HUGEPAGES", "6M")], &["env"]);
    assert_eq!(
        Vars::of(&step.stdout).get("SLURM_EFA_HUGEPAGES_MIB"),
        Some("6")
    );
    assert_clean(&tb, &before);
}

/// A batch job, then srun alone: each has its pages while it runs, one record of the
/// whole job after it, and leaves nothing.
fn assert_begun_and_closed(contain: bool, prolog_flags: &str) {
    let _alone = alone();
    let before = counts();
    let mut builder = cluster("[report]\nlog = \"{dir}/log/%n.jsonl\"\n");
    if !contain {
        builder = builder.without_contain();
    }
    let tb = builder.slurm_conf_extra(prolog_flags).start().unwrap();
    let show = "echo $SLURM_JOB_ID $SLURM_EFA_HUGEPAGES_MIB \
                $(cat /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages)";
    let own = kernel_pages::mebibytes().unwrap() / 2 + 8;
    let options = ["--efa-profile=p5", "--efa-hugepages=16M"];
    let batch = efa_cluster::batch(&tb, &options, show);
    assert_clean(&tb, &before);
    let command = [&options[..], &["sh", "-c", show]].concat();
    let step = efa_cluster::step(&tb, &[], &command);
    assert_clean(&tb, &before);
    let log = fs::read_to_string(tb.dir().join("log/n1.jsonl")).unwrap();
    let whole: Vec<usage::UsageRecord> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|record: &usage::UsageRecord| record.step.is_none())
        .collect();
    assert_eq!(whole.len(), 2, "{log}");
    for (printed, record) in [batch, step.stdout].iter().zip(&whole) {
        let job = record.job;
        assert!(
            printed.starts_with(&format!("{job} 16 {own}\n")),
            "{printed}"
        );
        let sent = record
            .totals()
            .of(efa::counters::Measure::SentBytes)
            .exact();
        assert_eq!(sent, Some(0), "{record:?}");
        assert_eq!(record.problems, [""; 0]);
    }
}

#[test]
fn with_prolog_flags_alloc_alone_a_job_has_its_pages_and_its_record() {
    assert_begun_and_closed(false, "PrologFlags=Alloc");
}

/// slurmd then runs the prolog when the job's first step comes.
#[test]
fn without_prolog_flags_a_job_has_its_pages_and_its_record() {
    assert_begun_and_closed(false, "");
}

#[test]
fn with_prolog_flags_contain_a_job_has_its_pages_and_its_record() {
    assert_begun_and_closed(true, "");
}

#[test]
fn the_sites_default_a_profile_and_none_decide_who_gets_pages() {
    let _alone = alone();
    let before = counts();
    let site = "[hugepages]\ndefault = \"2M\"\n[profile.big]\nhugepages = \"8M\"\n";
    let tb = cluster(site).start().unwrap();
    let has = |args: &[&str]| {
        let step = efa_cluster::step(&tb, &[], &[args, &["env"]].concat());
        let vars = Vars::of(&step.stdout);
        vars.get("SLURM_EFA_HUGEPAGES_MIB").map(str::to_owned)
    };
    assert_eq!(has(&[]).as_deref(), Some("2"));
    assert_eq!(has(&["--efa-profile=big"]).as_deref(), Some("8"));
    let both = ["--efa-profile=big", "--efa-hugepages=4M"];
    assert_eq!(has(&both).as_deref(), Some("4"));
    assert_eq!(has(&["--efa-hugepages=none"]), None);
    assert_clean(&tb, &before);
}

/// Prints where a task ran, and how many MiB of hugepages its job has there.
const SAY: &str = "echo $SLURMD_NODENAME ${SLURM_EFA_HUGEPAGES_MIB-none}";

/// Two nodes of one machine, which share its hugepages.
fn two_nodes(toml: &str) -> Testbed {
    let nodes = ["p5.48xlarge", "p5.48xlarge"];
    let site = format!("{SITE}{toml}");
    efa_cluster::cluster(&site, &nodes).start().unwrap()
}

/// The lines in order. A warning among them makes a comparison fail.
fn sizes(printed: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = printed.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn each_component_of_a_heterogeneous_batch_job_has_the_pages_that_it_asked_for() {
    let _alone = alone();
    let before = counts();
    let tb = two_nodes("");
    let (four, two, none) = (
        "--efa-hugepages=4M",
        "--efa-hugepages=2M",
        "--efa-hugepages=none",
    );
    for (first, second, expected) in [
        (four, none, ["n1 4", "n2 none"]),
        (four, two, ["n1 4", "n2 2"]),
        (four, four, ["n1 4", "n2 4"]),
        // Component 0's value holds for those without the option.
        (four, "", ["n1 4", "n2 4"]),
    ] {
        let step = format!("srun --het-group=0,1 sh -c '{SAY}' 2>&1");
        let lines = format!("#SBATCH -wn1 {first}\n#SBATCH hetjob\n#SBATCH -wn2 {second}\n{step}");
        let printed = efa_cluster::batch(&tb, &[], &lines);
        assert_eq!(sizes(&printed), expected, "{lines}");
        let line = ["-wn1", first, ":", "-wn2", second];
        let args: Vec<&str> = line.into_iter().filter(|word| !word.is_empty()).collect();
        let printed = efa_cluster::batch(&tb, &args, &step);
        assert_eq!(sizes(&printed), expected, "{args:?}");
    }
    assert_clean(&tb, &before);
}

#[test]
fn each_component_of_an_allocation_or_srun_has_the_pages_that_it_asked_for() {
    let _alone = alone();
    let before = counts();
    let tb = two_nodes("");
    let (four, none) = ("--efa-hugepages=4M", "--efa-hugepages=none");
    for (first, second, expected) in [
        (four, none, ["n1 4", "n2 none"]),
        (none, four, ["n1 none", "n2 4"]),
        (four, four, ["n1 4", "n2 4"]),
    ] {
        let salloc = [
            "salloc",
            "-Q",
            "-wn1",
            first,
            ":",
            "-wn2",
            second,
            "srun",
            "--het-group=0,1",
            "sh",
            "-c",
            SAY,
        ];
        let srun = [
            "srun", "-Q", "-wn1", first, "sh", "-c", SAY, ":", "-wn2", second, "sh", "-c", SAY,
        ];
        for argv in [&salloc[..], &srun] {
            let output = tb.run("alice", argv, &[]).unwrap();
            assert_eq!(sizes(&output.stdout), expected, "{argv:?}: {output}");
            assert_eq!(output.stderr, "", "{argv:?}");
        }
    }
    assert_clean(&tb, &before);
}

#[test]
fn the_pages_of_a_profile_are_not_for_a_component_that_did_not_ask_for_it() {
    let _alone = alone();
    let before = counts();
    let tb = two_nodes("[profile.big]\nhugepages = \"8M\"\n");
    let step = format!("srun --het-group=0,1 sh -c '{SAY}'");
    let printed = efa_cluster::batch(&tb, &["-wn1", "--efa-profile=big", ":", "-wn2"], &step);
    assert_eq!(sizes(&printed), ["n1 8", "n2 none"]);
    let argv = [
        "-wn1",
        "--efa-profile=big",
        "sh",
        "-c",
        SAY,
        ":",
        "-wn2",
        "sh",
        "-c",
        SAY,
    ];
    let srun = efa_cluster::step(&tb, &[], &argv);
    assert_eq!(sizes(&srun.stdout), ["n1 8", "n2 none"], "{srun}");
    assert_clean(&tb, &before);
}

#[test]
fn a_step_of_one_component_that_asks_for_pages_is_warned_that_it_gets_none() {
    let _alone = alone();
    let tb = two_nodes("");
    let step = "srun --het-group=1 --efa-hugepages=8M true 2>&1";
    let args = [
        "-wn1",
        "--efa-hugepages=4M",
        ":",
        "-wn2",
        "--efa-hugepages=none",
    ];
    let printed = efa_cluster::batch(&tb, &args, step);
    let words = [
        "efa: warning:",
        "--efa-hugepages=8M",
        "nothing was reserved on n2",
    ];
    assert_eq!(
        efa_cluster::lines_with(&printed, &words).len(),
        1,
        "{printed}"
    );
}

#[test]
fn a_size_that_cannot_be_is_refused_at_submission() {
    let tb = cluster("[hugepages]\nmax = \"10G\"\n").start().unwrap();
    let refused = |output: &Output, size: &str| {
        assert!(!output.success(), "{size}: {output}");
        assert!(output.stderr.contains("--efa-hugepages: "), "{output}");
        efa_cluster::assert_harmless_stderr(output);
    };
    for size in [
        "-1",
        "1",
        "3M",
        "99999999T",
        "5G;rm",
        "11G",
        "",
        "5G\u{1b}[31m",
    ] {
        let option = format!("--efa-hugepages={size}");
        refused(&tb.srun("alice", &[&option, "true"]).unwrap(), size);
        let script = "#!/bin/bash\ntrue\n";
        refused(&tb.try_sbatch("alice", script, &[&option]).unwrap(), size);
        let env = [("SALLOC_EFA_HUGEPAGES", size)];
        refused(&tb.run("alice", &["salloc", "true"], &env).unwrap(), size);
    }
    let script = "#!/bin/bash\n#SBATCH --efa-hugepages=5G;rm\n";
    refused(
        &tb.try_sbatch::<&str>("alice", script, &[]).unwrap(),
        "script",
    );
    assert_eq!(tb.queue_len().unwrap(), 0);
}

#[test]
fn more_than_the_node_has_fails_the_job_with_a_sentence_and_not_the_node() {
    let _alone = alone();
    let before = counts();
    let tb = cluster("[hugepages]\nmax = \"900T\"\n").start().unwrap();
    let job = submit(&tb, &["--efa-hugepages=800T"], "echo it ran");
    assert_eq!(tb.wait_job(job).unwrap(), JobState::Failed);
    let printed = tb.job_output(job).unwrap();
    assert!(
        printed.contains("of memory that this node has"),
        "{printed}"
    );
    assert!(!printed.contains("it ran"), "{printed}");
    let step = tb.srun("alice", &["--efa-hugepages=800T", "echo", "it ran"]);
    let step = step.unwrap();
    assert!(!step.success() && step.stdout.is_empty(), "{step}");
    assert_serves(&tb);
    assert_clean(&tb, &before);
}

#[test]
fn a_size_that_its_user_forged_past_the_client_is_capped_by_root() {
    let _alone = alone();
    let before = counts();
    let tb = cluster("[hugepages]\nmax = \"8M\"\n").start().unwrap();
    // A client of the user's own with a configuration of the user's own.
    let config = tb.dir().join("own.toml");
    fs::write(&config, "[hugepages]\nmax = \"900T\"\n").unwrap();
    let plugstack = tb.dir().join("own.plugstack");
    let plugin = modules::plugin();
    let line = format!(
        "required {} config={}\n",
        plugin.display(),
        config.display()
    );
    fs::write(&plugstack, line).unwrap();
    let conf = fs::read_to_string(tb.dir().join("slurm.conf")).unwrap();
    let sites = tb.dir().join("plugstack.conf").display().to_string();
    let own = tb.dir().join("own.conf");
    fs::write(&own, conf.replace(&sites, &plugstack.display().to_string())).unwrap();
    for size in ["16M", "800T"] {
        let submitted = tb
            .command("alice", &["sbatch", "--parsable"])
            .arg(format!("--efa-hugepages={size}"))
            .env("SLURM_CONF", &own)
            .stdin("#!/bin/bash\necho it ran\n")
            .success()
            .unwrap();
        let job = Id(submitted.stdout.trim().parse().unwrap());
        assert_eq!(tb.wait_job(job).unwrap(), JobState::Failed, "{size}");
        let printed = tb.job_output(job).unwrap();
        let words = "more than the 8M that this site allows";
        assert!(
            printed.contains(words) && !printed.contains("it ran"),
            "{printed}"
        );
    }
    assert_serves(&tb);
    assert_clean(&tb, &before);
}

#[test]
fn locked_memory_is_unlimited_with_a_profile_and_untouched_without() {
    let site = "[profile.kept]\nbase = \"p5\"\nmemlock = \"unchanged\"\n";
    let tb = cluster(site).start().unwrap();
    let limit = |args: &[&str]| {
        // The submitting shell's own limits, which Slurm hands to the tasks.
        let line = format!(
            "ulimit -S -l 64; srun {} bash -c 'ulimit -S -l; ulimit -H -l'",
            args.join(" ")
        );
        let output = tb.run("alice", &["bash", "-c", &line], &[]).unwrap();
        assert!(output.success(), "{output}");
        output.stdout
    };
    let without = limit(&[]);
    assert!(without.starts_with("64\n"), "{without}");
    // Where root itself may not lift the hard limit, that is what there is.
    let most = tb.run(
        "root",
        &["sh", "-c", "ulimit -l unlimited 2>&-; ulimit -H -l"],
        &[],
    );
    let most = most.unwrap().stdout;
    let lifted = format!("{most}{most}");
    assert_eq!(limit(&["--efa-profile=p5"]), lifted);
    assert_eq!(limit(&["--efa-profile=p5", "--propagate"]), lifted);
    assert_eq!(limit(&["--efa-profile=kept"]), without);
    assert_eq!(limit(&["--efa-profile=none"]), without);
    let printed = efa_cluster::batch(&tb, &["--efa-profile=p5"], "ulimit -S -l");
    assert_eq!(printed, most);
}

/// A program that maps pages and holds them until it is told to end.
fn hugemap(tb: &Testbed) -> String {
    let built = modules::test_program("hugemap");
    let copy = tb.dir().join("hugemap");
    fs::copy(built, &copy).unwrap();
    copy.display().to_string()
}

#[test]
fn a_job_maps_all_its_pages_and_a_neighbour_finds_none() {
    let _alone = alone();
    let before = counts();
    if before.iter().any(|pages| *pages != 0) {
        // The administrator's pages are anybody's.
        return;
    }
    let tb = cluster("").start().unwrap();
    let hugemap = hugemap(&tb);
    let script = format!("sleep 600 | {hugemap} 8");
    let job = submit(&tb, &["-n1", "--efa-hugepages=16M"], &script);
    wait_output(&tb, job, "mapped");
    let neighbour = tb.srun("alice", &["-n1", &hugemap, "1"]).unwrap();
    assert_eq!(neighbour.stdout, "no pages\n", "{neighbour}");
    // One that has its own is not in the way, nor is the other in its.
    let neighbour = tb.srun("alice", &["-n1", "--efa-hugepages=4M", &hugemap, "2"]);
    assert_eq!(neighbour.unwrap().stdout, "mapped\n");
    tb.scancel(job).unwrap();
    assert_clean(&tb, &before);
}

#[test]
fn a_job_whose_slurmd_is_killed_between_prolog_and_epilog_keeps_its_pages_and_gives_them_back() {
    let _alone = alone();
    let before = counts();
    let tb = cluster("").start().unwrap();
    let script = "echo begun; while [ ! -e stop ]; do sleep 0.1; done";
    let job = submit(&tb, &["--efa-hugepages=8M"], script);
    wait_output(&tb, job, "begun");
    tb.kill_slurmd("n1").unwrap();
    let has = |pages: u64| counts().iter().sum::<u64>() == before.iter().sum::<u64>() + pages;
    assert!(has(4));
    let home = tb.user("alice").unwrap().home.clone();
    fs::write(home.join("stop"), "").unwrap();
    tb.start_slurmd("n1").unwrap();
    tb.wait_job(job).unwrap();
    assert_clean(&tb, &before);
}

/// A job that wants 8 MiB while `obstacle` is there must be given these words,
/// and then run or go back to the queue, as the site wants.
fn assert_short_by<T>(words: &str, obstacle: impl Fn(&StateDir) -> T) {
    let before = counts();
    for policy in ["warn", "requeue"] {
        let site = format!("[hugepages]\ntime_limit = \"1s\"\non_shortfall = \"{policy}\"\n");
        let tb = cluster(&site).start().unwrap();
        fs::create_dir_all(tb.dir().join("efa")).unwrap();
        let state = StateDir::open(&tb.dir().join("efa")).unwrap();
        let obstacle = obstacle(&state);
        let job = submit(&tb, &["--requeue", "--efa-hugepages=8M"], "echo it ran");
        if policy == "warn" {
            assert_eq!(tb.wait_job(job).unwrap(), JobState::Completed);
            let printed = tb.job_output(job).unwrap();
            assert!(
                printed.contains(words) && printed.contains("it ran"),
                "{printed}"
            );
        } else {
            tb.wait_until("the job to be requeued", LIMIT, || {
                let job = tb.job(job)?;
                let restarts = job.get("Restarts").unwrap_or_default().to_owned();
                Ok(match job.state() == JobState::Pending && restarts == "1" {
                    true => Progress::Done(()),
                    false => Progress::Waiting(format!("{job:?}")),
                })
            })
            .unwrap();
            let printed = tb.job_output(job).unwrap();
            assert!(
                printed.contains(words) && printed.contains("back to the queue"),
                "{printed}"
            );
            assert!(!printed.contains("it ran"), "{printed}");
            tb.scancel(job).unwrap();
        }
        drop(obstacle);
        assert_serves(&tb);
        assert_clean(&tb, &before);
    }
}

#[test]
fn a_shortfall_is_told_and_the_job_runs_or_goes_back_to_the_queue_as_the_site_wants() {
    let _alone = alone();
    // Whoever holds the lock for too long: no memory of the machine's is needed.
    assert_short_by("no hugepages could be reserved on n1: ", |state| {
        Ledger::open(state, Deadline::after(LIMIT)).unwrap()
    });
}

#[test]
fn a_job_whose_prolog_could_not_record_it_counts_as_short_and_is_not_blamed() {
    let _alone = alone();
    let words = "no hugepages could be reserved on n1: the node's record of this job cannot be \
                 used (";
    /// Takes the place of the folder that the prolog writes to.
    struct InTheWay(std::path::PathBuf);
    impl Drop for InTheWay {
        fn drop(&mut self) {
            fs::remove_file(&self.0).unwrap();
        }
    }
    assert_short_by(words, |state| {
        let jobs = state.path().join("jobs");
        fs::write(&jobs, "").unwrap();
        InTheWay(jobs)
    });
}

/// What a job's user reads on a node that has no record of the job.
const NOT_RECORDED: &str = "efa: warning: --efa-hugepages=8M: no hugepages could be reserved on n1: \
     slurm-efa-job did not record this job before it started; tell the administrator, who finds the \
     cause with `slurm-efa doctor` on n1\n";

#[test]
fn where_slurm_does_not_call_the_jobs_program_a_job_runs_and_is_told_who_finds_the_cause() {
    let _alone = alone();
    let before = counts();
    let plugin = modules::plugin();
    let tb = efa_cluster::bare(&["p5.48xlarge"])
        .file(
            efa_cluster::CONFIG,
            &format!("{}{SITE}", efa_cluster::SYSROOTS),
        )
        .plugstack(&efa_cluster::plugstack_line("required", &plugin))
        .start()
        .unwrap();
    let said = tb
        .srun("alice", &["--efa-hugepages=8M", "echo", "it ran"])
        .unwrap();
    assert!(said.success() && said.stdout == "it ran\n", "{said}");
    assert!(said.stderr.contains(NOT_RECORDED), "{said}");
    // Who asks for nothing reads nothing; nor of a wait for the job before.
    tb.wait_idle().unwrap();
    let said = tb.srun("alice", &["true"]).unwrap();
    assert_eq!(said.stderr, "");
    assert_eq!(counts(), before);
}

#[test]
fn pages_are_reserved_where_slurm_hides_options_because_another_plugin_has_a_spank_prolog() {
    let _alone = alone();
    let before = counts();
    let second = modules::example("second_plugin").display().to_string();
    let tb = cluster("").plugstack(&format!("optional {second}"));
    let tb = tb.start().unwrap();
    let options = [
        "--efa-profile=p5",
        "--efa-explain",
        "--efa-hugepages=8M",
        "--second=word",
        "env",
    ];
    let step = tb.srun("alice", &options).unwrap();
    let vars = Vars::of(&step.stdout);
    assert_eq!(vars.get("SLURM_EFA_HUGEPAGES_MIB"), Some("8"), "{step}");
    assert_eq!(vars.get("SECOND_PLUGIN"), Some("word"), "{step}");
    assert_clean(&tb, &before);
}

#[test]
fn a_job_without_a_record_is_told_that_there_is_none() {
    let _alone = alone();
    let before = counts();
    let tb = cluster("").start().unwrap();
    let go = tb.dir().join("go");
    let script = format!(
        "echo begun; until [ -e {} ]; do sleep 0.1; done; srun true",
        go.display()
    );
    let job = submit(&tb, &["--efa-hugepages=8M"], &script);
    wait_output(&tb, job, "begun");
    let record = format!("efa/jobs/{job}@n1.json");
    fs::remove_file(tb.dir().join(record)).unwrap();
    fs::write(&go, "").unwrap();
    tb.wait_job(job).unwrap();
    let printed = tb.job_output(job).unwrap();
    assert!(printed.contains(NOT_RECORDED), "{printed}");
    assert!(!printed.contains("the option must be given"), "{printed}");
    assert_clean(&tb, &before);
}

#[test]
fn two_hundred_jobs_of_all_sizes_and_ends_leave_nothing_behind() {
    let _alone = alone();
    let before = counts();
    // Without extern steps: half the processes of each job.
    let tb = cluster("").without_contain().start().unwrap();
    let sizes = ["2M", "4M", "6M", "16M", "32M", "none"];
    let mut jobs = Vec::new();
    for number in 0..200 {
        let size = format!("--efa-hugepages={}", sizes[number % sizes.len()]);
        let script = match number % 10 {
            // Cancelled, requeued or out of time while they run.
            0 | 1 => "echo begun; sleep 600",
            2 => "[ ${SLURM_RESTART_COUNT-0} -gt 0 ] || { echo begun; sleep 600; }",
            _ => "sleep 0.$((RANDOM % 9))",
        };
        jobs.push(submit(&tb, &["-n1", "--requeue", &size], script));
    }
    for (number, job) in jobs.iter().enumerate() {
        match number % 10 {
            0 => {
                wait_output(&tb, *job, "begun");
                tb.scancel(*job).unwrap();
            }
            1 => {
                wait_output(&tb, *job, "begun");
                tb.scontrol(&["update", &format!("JobId={job}"), "EndTime=now+1"])
                    .unwrap();
            }
            2 => {
                wait_output(&tb, *job, "begun");
                tb.scontrol(&["requeue", &job.to_string()]).unwrap();
                tb.scontrol(&["update", &format!("JobId={job}"), "StartTime=now"])
                    .unwrap();
            }
            _ => {}
        }
    }
    let mut ends = std::collections::BTreeMap::new();
    for job in &jobs {
        // Slurm looks for jobs that are out of time every 30 s.
        let end = tb
            .wait_job_until(*job, 2 * LIMIT, JobState::is_final)
            .unwrap();
        *ends.entry(format!("{end:?}")).or_insert(0) += 1;
    }
    println!("{ends:?}");
    for end in ["Cancelled", "Completed", "Timeout"] {
        assert!(ends.contains_key(end), "{ends:?}");
    }
    assert_clean(&tb, &before);
    assert_serves(&tb);
}

/// A v1 hierarchy with the hugetlb controller, which a machine may not have mounted.
struct Hierarchy(tempfile::TempDir);

impl Hierarchy {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let args = ["-t", "cgroup", "-o", "hugetlb", "hugetlb"];
        let mounted = Command::new("mount").args(args).arg(dir.path()).status();
        mounted.unwrap().success().then_some(Self(dir))
    }
}

impl Drop for Hierarchy {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.0.path().join("slurm-efa"));
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn with_isolation_a_job_maps_its_own_pages_and_no_others() {
    let _alone = alone();
    let before = counts();
    let Some(hierarchy) = Hierarchy::mount() else {
        println!("not shown: the hugetlb controller is in use by cgroup v2 on this machine");
        return;
    };
    let tb = cluster("[hugepages]\nisolate = true\n").start().unwrap();
    // In the testbed's own mount namespace; gone with it.
    let mount = "mkdir -p /sys/fs/cgroup/hugetlb && \
                 mount -t cgroup -o hugetlb hugetlb /sys/fs/cgroup/hugetlb";
    let mounted = tb.run("root", &["sh", "-c", mount], &[]).unwrap();
    assert!(mounted.success(), "{mounted}");
    // Of a job whose epilog was killed before it came to that.
    fs::create_dir_all(hierarchy.0.path().join("slurm-efa/999999@n1")).unwrap();
    let hugemap = hugemap(&tb);
    let idle = submit(
        &tb,
        &["-n1", "--efa-hugepages=16M"],
        "echo begun; sleep 600",
    );
    wait_output(&tb, idle, "begun");
    let map = |options: &[&str], pages: &str| {
        let args = [&["-n1"], options, &[&hugemap, pages]].concat();
        tb.srun("alice", &args).unwrap().stdout
    };
    // Free pages lie there, which are the idle job's.
    assert_eq!(map(&[], "1"), "no pages\n");
    assert_eq!(map(&["--efa-hugepages=4M"], "2"), "mapped\n");
    assert_eq!(map(&["--efa-hugepages=4M"], "3"), "no pages\n");
    tb.scancel(idle).unwrap();
    assert_clean(&tb, &before);
    let left = names(&hierarchy.0.path().join("slurm-efa"));
    assert!(!left.iter().any(|name| name.contains('@')), "{left:?}");
}
