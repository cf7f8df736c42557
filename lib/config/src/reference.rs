//! Every key of slurm-efa.toml, for people: its kind of value, what holds
//! without it, and what it does. The shipped file, slurm-efa.toml(5) and the
//! JSON Schema are made from this table; a test holds it against the parsers.

use std::fmt;

/// A section of the file, or its top level.
#[derive(Debug)]
pub struct Section {
    /// As in its header, without brackets; empty for the top level.
    pub name: &'static str,
    /// What it is about: one or two sentences.
    pub about: &'static str,
    /// Where to read more.
    pub page: &'static str,
    /// Its keys, in the order in which they are shown.
    pub keys: &'static [Key],
}

/// A key of a section.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What may be written.
    pub kind: Kind,
    /// What holds where the file does not have it.
    pub without: Without,
    /// What it does: one or two sentences.
    pub about: &'static str,
}

/// What may be written for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A whole number in this range.
    Integer(u64, u64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A duration from the first to the second.
    Duration(&'static str, &'static str),
    /// A size.
    Size,
    /// A size from the first to the second.
    SizeWithin(&'static str, &'static str),
    /// A size or one of these words.
    SizeOr(&'static [&'static str]),
    /// The name of a profile.
    Profile,
    /// A node's name in Slurm.
    NodeName,
    /// An absolute path.
    Path,
    /// An absolute path in which `%n` is the node's name.
    NodePath,
    /// The name of a library, or an absolute path with `%n`.
    Library,
    /// A list of texts: names of users, say.
    Texts,
    /// A list of the names of variables.
    Variables,
    /// A list of some of these words.
    Words(&'static [&'static [&'static str]]),
    /// A table from variables to their values.
    Environment,
    /// A number, or a table from instance types to numbers.
    Counts,
    /// A table from counters to `burst` and `per_minute`.
    Rates,
}

/// What holds where the file does not have a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    /// This value, as TOML.
    Value(&'static str),
    /// What these words say. The value, as TOML, is an example.
    Means(&'static str, &'static str),
}

use self::Kind::{
    Boolean, Counts, Duration, Environment, Integer, Library, NodeName, NodePath, Path, Profile,
    Rates, Size, SizeOr, SizeWithin, Texts, Variables, Word, Words,
};
use self::Without::{Means, Value};
use crate::sections::health::{FATAL_CHECKS, WARNING_CHECKS};

const fn key(name: &'static str, kind: Kind, without: Without, about: &'static str) -> Key {
    Key {
        name,
        kind,
        without,
        about,
    }
}

/// The section of profiles: any number of tables of this form.
pub const PROFILE: &str = "profile.NAME";

const WORDS_OF_A_SIZE: &[&str] = &["auto", "none"];
const MOST: u64 = u32::MAX as u64;
/// TOML has no larger number.
const LARGEST: u64 = i64::MAX as u64;

/// The whole file.
#[rustfmt::skip]
pub const SECTIONS: [Section; 7] = [
    Section {
        name: "",
        about: "Profiles of jobs, and where things lie.",
        page: "spank_efa(8)",
        keys: &[
            key("default_profile", Profile, Means("a job that names no profile has none", "\"auto\""),
                "The profile of jobs that name none: auto, a family such as p5, a type such as p5.48xlarge, or one of the site's own."),
            key("harmful", Word(&["refuse", "warn"]), Value("\"refuse\""),
                "What happens to a job whose environment is known to abort libfabric: it is refused at submission, or submitted with a warning."),
            key("report_dir", NodePath, Means("no folder", "\"/shared/slurm-efa\""),
                "Another name for dir in [report]."),
            key("state_dir", NodePath, Value("\"/run/slurm-efa\""),
                "Run-time state: the jobs on the node and the ledger of their hugepages. Several slurmd on one machine must share it, so it must not contain %n there."),
            key("sysroot", NodePath, Means("the real system", "\"/srv/simulated/%n\""),
                "A tree that stands for / when hardware and installed software are read. For tests."),
        ],
    },
    Section {
        name: PROFILE,
        about: "A profile of the site, or a change of a built-in one. NAME is what --efa-profile names.",
        page: "spank_efa(8)",
        keys: &[
            key("base", Profile, Means("the built-in profile of the same name, if there is one", "\"p5\""),
                "The profile that this one adds to. Its nodes are those of the base."),
            key("devices", Integer(0, MOST), Means("any number", "32"),
                "The least number of EFA devices. A job on a node with fewer fails."),
            key("env", Environment, Means("nothing is added", "{ NCCL_DEBUG = \"WARN\" }"),
                "Variables to set. They replace what the built-in rules would set, never what the user set."),
            key("hugepages", SizeOr(WORDS_OF_A_SIZE), Means("what default in [hugepages] says", "\"auto\""),
                "Hugepages on each node, for jobs that have no --efa-hugepages of their own."),
            key("memlock", Word(&["unlimited", "unchanged"]), Value("\"unlimited\""),
                "The tasks' limit of locked memory. EFA registers memory with the device, which locks it."),
            key("unset", Variables, Means("nothing is removed", "[\"NCCL_PROTO\"]"),
                "Variables that the job must not have, not even the user's own."),
        ],
    },
    Section {
        name: "hugepages",
        about: "Hugepages that are reserved for a job while it runs.",
        page: "spank_efa(8)",
        keys: &[
            key("default", SizeOr(WORDS_OF_A_SIZE), Means("no hugepages", "\"none\""),
                "For every job that neither has --efa-hugepages nor a profile with hugepages."),
            key("max", Size, Value("\"64G\""),
                "The most that a job gets on each node. More is refused at submission."),
            key("page_size", Word(&["2M", "1G"]), Value("\"2M\""),
                "The size of the pages. A request must be a whole number of them."),
            key("spread", Word(&["even", "strict"]), Value("\"even\""),
                "Pages are spread evenly over the NUMA nodes. With even, what one node lacks comes from the others; with strict, it is missing."),
            key("on_shortfall", Word(&["warn", "requeue"]), Value("\"warn\""),
                "What happens to a job when the node cannot give all its pages: it runs with a warning, or it goes back to the queue."),
            key("time_limit", Duration("1s", "10m"), Value("\"30s\""),
                "How long a prolog looks for pages. Keep it below Slurm's PrologEpilogTimeout."),
            key("isolate", Boolean, Value("false"),
                "Whether the hugetlb controller keeps each job from the pages of the others. A job without a reservation then gets none."),
        ],
    },
    Section {
        name: "report",
        about: "Records of what each job and step moved over EFA.",
        page: "slurm-efa-report(1)",
        keys: &[
            key("log", NodePath, Value("\"/var/log/slurm-efa/jobs.jsonl\""),
                "The node's own log of records."),
            key("max_log", SizeWithin("1M", "4G"), Value("\"64M\""),
                "The log is rotated at this size. Four old ones are kept."),
            key("dir", NodePath, Means("no folder, and slurm-efa report knows only this node", "\"/shared/slurm-efa\""),
                "A folder, local or shared by all nodes, for one record for each node of a job. It must exist, and only root may write it."),
        ],
    },
    Section {
        name: "health",
        about: "What efa-check expects, and what it does about a faulty node.",
        page: "efa-check(8)",
        keys: &[
            key("expected_devices", Counts, Means("what efa-check baseline recorded", "{ \"p5.48xlarge\" = 32 }"),
                "The number of EFA devices, or a number for each instance type. It wins over the record."),
            key("record", NodePath, Value("\"/var/lib/slurm-efa/efa-expected.json\""),
                "The file of efa-check baseline."),
            key("on_fatal", Word(&["drain", "hyperpod-replace", "hyperpod-reboot", "log"]), Value("\"drain\""),
                "What happens to a node with a fatal finding: it is drained, or HyperPod replaces or reboots it. With log, findings are only logged and every job starts."),
            key("hold", Words(&[WARNING_CHECKS]), Value("[]"),
                "Warnings that hold back a job with an EFA profile, and drain the node for it."),
            key("disable", Words(&[FATAL_CHECKS, WARNING_CHECKS]), Value("[]"),
                "Checks that are not made. efa-check list shows all."),
            key("resume", Boolean, Value("false"),
                "Whether a node that efa-check drained is resumed once it is healthy."),
            key("resume_after", Integer(0, MOST), Value("3"),
                "After this number of health checks in a row without a fatal finding."),
            key("rebind", Word(&["never", "idle"]), Value("\"never\""),
                "With idle, a dead device is brought back, once a day, on an idle node that efa-check drained."),
            key("stack", Word(&["host", "container"]), Value("\"host\""),
                "Where jobs find libfabric and NCCL's plugin. With container, the node needs none."),
            key("wait_boot", Duration("0", "1h"), Value("\"60s\""),
                "Devices may be late: until the machine is up this long, the prolog waits for missing ones, and no node is drained for them."),
            key("probe_limit", Duration("100ms", "1h"), Value("\"4s\""),
                "All counters of all devices are read in this time."),
            key("memlock", Size, Value("\"16G\""),
                "A smaller limit of locked memory of slurmd is a warning."),
            key("hugepages", Integer(0, LARGEST), Means("no number", "512"),
                "The number of 2 MiB pages that the pool should have, besides those of the ledger of --efa-hugepages."),
            key("rates", Rates, Means("the thresholds of efa-check list", "{ rx_drops = { burst = 100, per_minute = 60 } }"),
                "For a counter of a port: how many events at once, and in each minute, are no warning."),
            key("pingpong_every", Duration("1m", "7d"), Means("never", "\"24h\""),
                "How often the health check makes a loopback test of each device of an idle node."),
            key("fi_pingpong", Path, Value("\"/opt/amazon/efa/bin/fi_pingpong\""),
                "The program of that test."),
            key("pingpong_limit", Duration("0", "1h"), Value("\"30s\""),
                "The limit of that test for one device."),
            key("metrics", Path, Means("no file", "\"/var/lib/node_exporter/textfile/efa.prom\""),
                "The textfile for node_exporter that each health check writes. slurmd gives the health check no arguments."),
            key("scontrol", Path, Means("looked for in the usual folders, never in PATH", "\"/opt/slurm/bin/scontrol\""),
                "Slurm's scontrol."),
            key("slurm_conf", Path, Means("what slurmd gives its prolog", "\"/opt/slurm/etc/slurm.conf\""),
                "SLURM_CONF for scontrol. slurmd gives a health check none, so set it where slurm.conf lies in an unusual place."),
            key("scontrol_limit", Duration("0", "1h"), Value("\"10s\""),
                "The limit of one call of scontrol."),
            key("drain_limit", Duration("0", "1h"), Value("\"10m\""),
                "The limit of all calls that one drain takes."),
        ],
    },
    Section {
        name: "logout",
        about: "Who may log in to a compute node, and when a login ends.",
        page: "pam_slurm_logout(8) and slurm-logoutd(8)",
        keys: &[
            key("require_job", Boolean, Value("true"),
                "Whether a login needs a job of the user on this node."),
            key("exempt_users", Texts, Value("[]"),
                "Users who are neither refused nor logged out. Root always is exempt."),
            key("exempt_groups", Texts, Value("[]"),
                "Groups whose members are neither refused nor logged out."),
            key("services", Texts, Means("every service whose stack has the module", "[\"sshd\"]"),
                "The PAM services that are judged and recorded."),
            key("on_error", Word(&["deny", "allow"]), Value("\"deny\""),
                "What a login gets when the user's jobs cannot be determined."),
            key("job_variables", Boolean, Value("true"),
                "Whether a session gets the variables of the user's newest job, such as SLURM_JOB_ID."),
            key("grace", Duration("0", "366d"), Value("\"60s\""),
                "From the end of the last job to the end of the sessions."),
            key("spare_active", Boolean, Value("false"),
                "Whether a session that is in use stays until it is idle."),
            key("max_overstay", Duration("0", "366d"), Value("\"1d\""),
                "With spare_active, the longest that a session stays after the grace."),
            key("idle_after", Duration("0", "366d"), Means("a session may be idle", "\"2h\""),
                "A session ends after this time without input, traffic and CPU use, even with a job. Zero is off."),
            key("leftovers", Word(&["none", "session", "user"]), Value("\"session\""),
                "What ends besides what descends from the login: nothing, what left the session, or every process of the user."),
            key("dry_run", Boolean, Value("false"),
                "Whether only the log says what would be done."),
            key("debug", Boolean, Value("false"),
                "Whether more is logged."),
            key("spool_dir", NodePath, Means("those of /var/spool/slurmd and /var/lib/slurm/slurmd that exist", "\"/var/spool/slurmd\""),
                "Slurm's SlurmdSpoolDir."),
            key("node_name", NodeName, Means("the host's short name", "\"node1\""),
                "This node's name, for messages and %n."),
        ],
    },
    Section {
        name: "gres",
        about: "GPUs that jobs share.",
        page: "gres-helper(8)",
        keys: &[
            key("shard_size", Size, Means("GPUs are not shared", "\"10G\""),
                "The memory of a shard, a whole number of MiB. A GPU has as many as fit."),
            key("shards_per_gpu", Integer(1, 1024), Means("GPUs are not shared", "4"),
                "Or the number of shards of each GPU. Give one of the two."),
            key("reserve", Size, Means("nothing", "\"2G\""),
                "Memory of each GPU that no shard gets, besides what the driver keeps."),
            key("tier", Word(&["auto", "count", "watchdog", "mps", "cgroup"]), Value("\"auto\""),
                "What holds a job to its share. auto is cgroup where the driver has it, else watchdog."),
            key("require_fence", Boolean, Value("false"),
                "Whether the tasks of a job fail where its share cannot be enforced."),
            key("on_over", Word(&["warn", "end"]), Value("\"warn\""),
                "What the watchdog does about a job over its share: it logs a warning, or ends its processes on that GPU."),
            key("over_percent", Integer(100, 1000), Value("105"),
                "A job is over its share from this part of it on."),
            key("samples", Integer(0, MOST), Value("3"),
                "The number of samples in a row over the share before the job's processes are ended."),
            key("sample_every", Duration("1s", "1h"), Value("\"15s\""),
                "The time between two samples."),
            key("grace", Duration("1s", "1h"), Value("\"30s\""),
                "The time between SIGTERM and SIGKILL."),
            key("nvml_library", Library, Value("\"libnvidia-ml.so.1\""),
                "NVML's library."),
            key("nvml_limit", Duration("1s", "1h"), Value("\"10s\""),
                "How long NVML may take for one answer."),
            key("gres_conf", Path, Means("the one in the conf-cache of slurmd, else beside slurm.conf", "\"/etc/slurm/gres.conf\""),
                "The gres.conf in force."),
            key("spool_dir", NodePath, Means("what slurm.conf sets", "\"/var/spool/slurmd\""),
                "Slurm's SlurmdSpoolDir. Where neither is known, no job counts as ended."),
            key("scontrol", Path, Means("looked for in the usual folders, never in PATH", "\"/opt/slurm/bin/scontrol\""),
                "Slurm's scontrol."),
            key("helper", Path, Value("\"/usr/bin/gres-helper\""),
                "gres-helper, for the plugin."),
            key("mps_control", Path, Value("\"/usr/bin/nvidia-cuda-mps-control\""),
                "NVIDIA's control program of MPS."),
        ],
    },
];

/// A value of this table, or of [`crate::Warning::instead`], which are TOML.
#[must_use]
pub fn value(text: &str) -> Option<toml::Value> {
    let mut table: toml::Table = format!("x = {text}").parse().ok()?;
    table.remove("x")
}

impl Key {
    /// A value that may be written: what holds without the key, or an example.
    #[must_use]
    pub fn example(&self) -> &'static str {
        match self.without {
            Value(value) | Means(_, value) => value,
        }
    }
}

impl fmt::Display for Kind {
    /// For a person: what may be written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |words: &[&str]| {
            let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
            quoted.join(", ")
        };
        match self {
            Boolean => f.write_str("true or false"),
            Integer(0, MOST | LARGEST) => f.write_str("a number"),
            Integer(least, most) => write!(f, "a number, {least} to {most}"),
            Word(words) => f.write_str(&quoted(words)),
            Duration(least, most) => write!(f, "a duration, {least} to {most}"),
            Size => f.write_str("a size"),
            SizeWithin(least, most) => write!(f, "a size, {least} to {most}"),
            SizeOr(words) => write!(f, "a size, {}", quoted(words)),
            Profile => f.write_str("a profile"),
            NodeName => f.write_str("a name"),
            Path => f.write_str("an absolute path"),
            NodePath => f.write_str("an absolute path; %n is the node's name"),
            Library => f.write_str("a library's name, or an absolute path; %n is the node's name"),
            Texts => f.write_str("a list of names"),
            Variables => f.write_str("a list of variables"),
            Words(lists) => write!(f, "a list of {}", quoted(&lists.concat())),
            Environment => f.write_str("a table of variables"),
            Counts => f.write_str("a number, or a table with a number for each type"),
            Rates => f.write_str("a table of counters"),
        }
    }
}

impl Section {
    /// The header of the section, with brackets; nothing at the top level.
    #[must_use]
    pub fn header(&self) -> Option<String> {
        let name = match self.name {
            "" => return None,
            PROFILE => "profile.p5",
            name => name,
        };
        Some(format!("[{name}]"))
    }
}
