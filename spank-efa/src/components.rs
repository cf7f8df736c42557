//! Which component of a job or a step an option's value belongs to.
//!
//! A client reads one component after the other, and after each one calls
//! `init_post_opt`. Slurm itself keeps one value for each option, the last one:
//! a component that does not name the option gets the value of the one before
//! it. What it hands to the option callback, seen with 20.11, 22.05, 24.11 and
//! 26.05:
//!
//! | client | `A --opt=a : B` | `A --opt=a : B --opt=a` | `#SBATCH` lines |
//! |---|---|---|---|
//! | srun | a, then nothing | a, then a | |
//! | salloc | a, then a replay | a, then a replay and a | |
//! | sbatch | a, then a replay | a, then a replay and a | a, then a and a replay |
//!
//! A replay is a value that Slurm reads out of the client's environment, where
//! it has put it itself after the component before. The address of a value
//! tells it from what the user wrote ([`Origin::Environment`]); its text, or the
//! number of calls, does not: in srun the second component's own option is the
//! only call, in salloc a replay is.
//!
//! A node gets the last component's value in all of them. The client therefore
//! leaves a list in the environment, and for the prolog the component's own
//! value in place of Slurm's.

use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use spank::{JobId, Origin, Spank};

/// The profiles that were asked for, one name for each component of a
/// heterogeneous job or step, separated by commas; empty where nothing was
/// asked.
///
/// A batch script's environment is made before Slurm reads the later
/// components, so there the list has one name. Where all components of an srun
/// have the same option, there is no list: what Slurm delivers is right.
pub const PROFILES: &str = "SLURM_EFA_REQUESTS";

/// The same of `--efa-hugepages`.
pub const HUGEPAGES: &str = "SLURM_EFA_HUGEPAGES_REQUESTS";

/// Slurm's `MAX_HET_JOB_COMPONENTS`.
const MOST: usize = 128;

/// What was asked for one component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub value: String,
    /// By this client's own user, not by the job around it.
    pub explicit: bool,
}

/// What becomes of a list in the client's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Leave,
    Remove,
    Set(String),
}

/// Where a step runs.
pub struct Around<'a> {
    /// The list of the heterogeneous job around it; empty if that job asked for
    /// nothing. `None`: the job around it, if any, has one component.
    pub list: Option<&'a str>,
    /// The job's component of each of the step's, where `--het-group` names it.
    pub groups: &'a [usize],
}

/// One option's values in one client.
#[derive(Default)]
pub struct Choices {
    /// What component 0 has holds for those without the option.
    shared: bool,
    /// The environment's value is the user's own, for every component.
    by_variable: bool,
    /// The environment's value before this client changed it.
    outer: Option<String>,
    current: Current,
    components: Vec<Option<Asked>>,
}

/// The component that is being read.
#[derive(Default)]
struct Current {
    environment_read: bool,
    /// An `#SBATCH` line: Slurm reads them before the environment.
    line: Option<String>,
    command: Option<String>,
}

impl Choices {
    /// For an option whose value holds for the later components, too.
    pub fn shared() -> Self {
        Self {
            shared: true,
            ..Self::default()
        }
    }

    /// The environment's value came from a variable such as `SRUN_EFA_PROFILE`.
    pub fn by_variable(&mut self) {
        self.by_variable = true;
    }

    /// The option callback was called.
    pub fn record(&mut self, value: &str, origin: Origin) {
        let value = Some(value.to_owned());
        if origin == Origin::Environment {
            self.current.environment_read = true;
            // Later, this is a replay.
            if self.components.is_empty() {
                self.outer = value;
            }
        } else if self.current.environment_read {
            self.current.command = value;
        } else {
            self.current.line = value;
        }
    }

    /// A component is complete. Its values win in Slurm's own order: command
    /// line, environment, `#SBATCH` line.
    pub fn complete(&mut self) -> Option<&Asked> {
        let Current { line, command, .. } = std::mem::take(&mut self.current);
        let own = |value| Asked {
            value,
            explicit: true,
        };
        let outer = self.outer.clone().map(|value| Asked {
            value,
            explicit: self.by_variable,
        });
        let first = self.components.first().cloned().flatten();
        let asked = command
            .map(own)
            .or(outer)
            .or(line.map(own))
            .or(first.filter(|_| self.shared));
        self.components.push(asked);
        self.components.last()?.as_ref()
    }

    /// The components that are complete.
    pub fn components(&self) -> &[Option<Asked>] {
        &self.components
    }

    /// The list of a job that sbatch or salloc makes.
    pub fn list_of_job(&self) -> Change {
        if self.components.iter().all(Option::is_none) {
            return Change::Remove;
        }
        let values = self.components.iter().map(value).collect::<Vec<_>>();
        Change::Set(values.join(","))
    }

    /// The list of a step that srun makes, with or without a job of its own.
    pub fn list_of_step(&self, around: &Around<'_>) -> Change {
        let explicit = |asked: &Option<Asked>| asked.as_ref().is_some_and(|asked| asked.explicit);
        let het_job = around.list.is_some();
        let components = &self.components;
        if !components.iter().any(explicit) && (het_job || components.len() == 1) {
            return Change::Leave;
        }
        let same = components.iter().all(|asked| {
            Some(value(asked)) == components.first().map(value) && (explicit(asked) || !het_job)
        });
        if same {
            return Change::Remove;
        }
        let mut list: Vec<&str> = match around.list {
            Some(list) if !list.is_empty() => list.split(',').take(MOST).collect(),
            _ => Vec::new(),
        };
        for (index, asked) in components.iter().enumerate() {
            let group = around.groups.get(index).copied().unwrap_or(index);
            if list.len() <= group {
                list.resize(group + 1, "");
            }
            // A component without the option has what its job asked for.
            if (explicit(asked) || !het_job)
                && let Some(place) = list.get_mut(group)
            {
                *place = value(asked);
            }
        }
        Change::Set(list.join(","))
    }
}

fn value(asked: &Option<Asked>) -> &str {
    asked.as_ref().map_or("", |asked| &asked.value)
}

/// The component of the job that each component of srun's step runs in, as
/// srun(1) describes `--het-group`: its place on the command line, unless the
/// option names others.
pub fn het_groups<'a>(words: impl Iterator<Item = &'a str>) -> Vec<usize> {
    let words: Vec<&str> = words.skip(1).collect();
    let groups = |(index, component): (usize, &[&str])| {
        named_groups(component).unwrap_or_else(|| vec![index])
    };
    words
        .split(|word| *word == ":")
        .enumerate()
        .flat_map(groups)
        .take(MOST)
        .collect()
}

fn named_groups(words: &[&str]) -> Option<Vec<usize>> {
    let mut found = None;
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        if *word == "--" || !word.starts_with('-') {
            // The user's program and its own words.
            break;
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            // Perhaps the option's value. After a flag it is the program's
            // name, which is then skipped: it matters only for a program with
            // an option --het-group of its own.
            None => (*word, words.next_if(|next| !next.starts_with('-')).copied()),
        };
        // getopt_long(3) accepts a beginning of the name.
        let is_group = |long: &str| name.len() > 5 && long.starts_with(name);
        if is_group("--het-group") || is_group("--pack-group") {
            found = value;
        }
    }
    numbers(found?)
}

/// The numbers of a list such as `0,2-3` or `[0-1]`, in order.
fn numbers(list: &str) -> Option<Vec<usize>> {
    let list = list.strip_prefix('[').unwrap_or(list);
    let list = list.strip_suffix(']').unwrap_or(list);
    let mut numbers = std::collections::BTreeSet::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= MOST {
            return None;
        }
        numbers.extend(first..=last);
    }
    Some(numbers.into_iter().collect())
}

/// Whether the client runs inside a heterogeneous job. `SLURM_HET_SIZE` alone
/// does not show it: an ordinary job inside inherits it.
pub fn inside_het_job(env: impl Fn(&str) -> Option<Vec<u8>>) -> bool {
    env("SLURM_JOB_ID").is_some_and(|job| group_of(&job, &env).is_some())
}

/// What a list holds for a step.
#[derive(Debug, PartialEq, Eq)]
pub enum Listed {
    /// There is no list, or the step has one component: what Slurm delivered holds.
    Delivered,
    /// The component has its own value, or asked for nothing.
    Own(Option<Vec<u8>>),
    /// The list ends before the component.
    Unknown,
}

/// What a list holds for this step.
pub fn listed(spank: &Spank<'_>, list: &str) -> Listed {
    let env = |name: &str| spank.env(name).ok().flatten();
    let Some(list) = env(list) else {
        return Listed::Delivered;
    };
    let component = || {
        let JobId(job) = spank.job_id().ok()?;
        group_of(job.to_string().as_bytes(), env).or_else(|| step_component(job))
    };
    match component() {
        Some(component) => entry(&list, component),
        None => Listed::Delivered,
    }
}

fn entry(list: &[u8], component: usize) -> Listed {
    match list.split(|byte| *byte == b',').nth(component) {
        Some(value) => Listed::Own((!value.is_empty()).then(|| value.to_vec())),
        None => Listed::Unknown,
    }
}

/// The component of a heterogeneous job that has this id.
fn group_of(job: &[u8], env: impl Fn(&str) -> Option<Vec<u8>>) -> Option<usize> {
    // The first is the present name; 22.05 gives a step of srun's own job only the old one.
    ["HET", "PACK"].iter().find_map(|kind| {
        let id = |group| env(&format!("SLURM_JOB_ID_{kind}_GROUP_{group}"));
        (0..MOST).map_while(id).position(|id| id == job)
    })
}

/// The component of a heterogeneous step in an ordinary job, where all have
/// the same job id. The socket on which slurmstepd listens is named after it:
/// `SPOOL/NODE_JOB.STEP.COMPONENT`, which has no third part for other steps.
fn step_component(job: u32) -> Option<usize> {
    let descriptors = std::fs::read_dir("/proc/self/fd").ok()?;
    descriptors.flatten().find_map(|entry| {
        let descriptor: RawFd = entry.file_name().to_str()?.parse().ok()?;
        // SAFETY: the descriptor is only asked for its address and not closed.
        // Where it is no socket, or closed by now, getsockname(2) fails.
        let socket = ManuallyDrop::new(unsafe { UnixListener::from_raw_fd(descriptor) });
        component_in_name(socket.local_addr().ok()?.as_pathname()?, job)
    })
}

fn component_in_name(socket: &Path, job: u32) -> Option<usize> {
    let (_, id) = socket.file_name()?.to_str()?.rsplit_once('_')?;
    let mut parts = id.split('.').map(str::parse::<u32>);
    match [parts.next(), parts.next(), parts.next(), parts.next()] {
        [Some(Ok(of)), Some(Ok(_)), Some(Ok(component)), None] if of == job => {
            usize::try_from(component).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Origin::{Client, Environment};

    /// What `choices` make of components, each with the calls that Slurm makes for it.
    fn read(mut choices: Choices, calls: &[&[(&str, Origin)]]) -> Choices {
        for component in calls {
            for (value, origin) in *component {
                choices.record(value, *origin);
            }
            choices.complete();
        }
        choices
    }

    fn values(choices: &Choices) -> Vec<&str> {
        choices.components().iter().map(value).collect()
    }

    fn step(calls: &[&[(&str, Origin)]], list: Option<&str>, groups: &[usize]) -> Change {
        read(Choices::default(), calls).list_of_step(&Around { list, groups })
    }

    const OWN: (&str, Origin) = ("p5", Client);
    const REPLAY: (&str, Origin) = ("p5", Environment);

    #[test]
    fn a_component_does_not_get_what_slurm_replays_from_the_one_before() {
        for later in [&[][..], &[REPLAY]] {
            let choices = read(Choices::default(), &[&[OWN], later]);
            assert_eq!(values(&choices), ["p5", ""]);
        }
    }

    #[test]
    fn a_components_own_option_counts_where_it_equals_the_one_before() {
        for later in [&[OWN][..], &[REPLAY, OWN], &[OWN, REPLAY]] {
            let choices = read(Choices::default(), &[&[OWN], later]);
            assert_eq!(values(&choices), ["p5", "p5"]);
        }
    }

    #[test]
    fn an_sbatch_line_of_a_later_component_wins_over_a_replay() {
        let choices = read(Choices::default(), &[&[OWN], &[("g5", Client), REPLAY]]);
        assert_eq!(values(&choices), ["p5", "g5"]);
    }

    #[test]
    fn a_variable_holds_for_every_component_between_line_and_command() {
        let mut choices = Choices::default();
        choices.by_variable();
        let variable = ("v", Environment);
        let calls: &[&[_]] = &[
            &[("line", Client), variable, ("c", Client)],
            &[("line", Client), ("c", Environment)],
            &[("c", Environment), ("d", Client)],
        ];
        let choices = read(choices, calls);
        assert_eq!(values(&choices), ["c", "v", "d"]);
        assert!(choices.components().iter().flatten().all(|it| it.explicit));
    }

    #[test]
    fn what_the_job_around_asked_for_is_not_explicit() {
        let choices = read(Choices::default(), &[&[REPLAY], &[REPLAY, ("g5", Client)]]);
        let explicit: Vec<bool> = choices
            .components()
            .iter()
            .flatten()
            .map(|it| it.explicit)
            .collect();
        assert_eq!(
            (values(&choices), explicit),
            (vec!["p5", "g5"], vec![false, true])
        );
    }

    #[test]
    fn a_shared_option_of_component_0_holds_for_those_without_it() {
        let calls: &[&[_]] = &[
            &[OWN],
            &[("none", Client), REPLAY],
            &[("none", Environment)],
        ];
        assert_eq!(
            values(&read(Choices::shared(), calls)),
            ["p5", "none", "p5"]
        );
        let calls: &[&[_]] = &[&[], &[OWN], &[REPLAY]];
        assert_eq!(values(&read(Choices::shared(), calls)), ["", "p5", ""]);
    }

    #[test]
    fn a_job_lists_its_components() {
        let list = |calls: &[&[_]]| read(Choices::default(), calls).list_of_job();
        assert_eq!(list(&[&[], &[]]), Change::Remove);
        assert_eq!(list(&[&[], &[OWN]]), Change::Set(",p5".into()));
        assert_eq!(list(&[&[OWN], &[REPLAY, OWN]]), Change::Set("p5,p5".into()));
    }

    #[test]
    fn a_step_whose_components_agree_needs_no_list() {
        assert_eq!(step(&[&[OWN]], Some("g5,g5"), &[1]), Change::Remove);
        assert_eq!(step(&[&[OWN], &[OWN]], Some(""), &[1, 2]), Change::Remove);
        assert_eq!(step(&[&[REPLAY], &[REPLAY]], None, &[]), Change::Remove);
    }

    #[test]
    fn a_step_that_asks_for_nothing_keeps_the_list_of_its_job() {
        assert_eq!(step(&[&[]], None, &[]), Change::Leave);
        assert_eq!(
            step(&[&[REPLAY], &[REPLAY]], Some("p5,"), &[]),
            Change::Leave
        );
    }

    #[test]
    fn a_step_changes_only_the_entries_of_the_components_that_asked() {
        let asks = [&[REPLAY][..], &[REPLAY, ("g5", Client)]];
        let list = |list, groups: &[usize]| step(&asks, list, groups);
        assert_eq!(list(Some("p5,p4"), &[0, 1]), Change::Set("p5,g5".into()));
        assert_eq!(list(Some("p5,p4"), &[1, 0]), Change::Set("g5,p4".into()));
        assert_eq!(list(Some("p5"), &[1, 3]), Change::Set("p5,,,g5".into()));
        assert_eq!(list(None, &[0, 1]), Change::Set("p5,g5".into()));
        let own = step(&[&[], &[OWN]], None, &[0, 1]);
        assert_eq!(own, Change::Set(",p5".into()));
    }

    #[test]
    fn het_group_names_the_components_of_a_step() {
        for (line, expected) in [
            ("srun a", &[0][..]),
            ("srun a : b", &[0, 1]),
            ("srun --het-group=1 a : --het-group 0 b", &[1, 0]),
            ("srun -w n1 -l --het-group=0-1,3 a", &[0, 1, 3]),
            ("srun --het-gr=[2,1] a", &[1, 2]),
            ("srun --pack-group=1 a : b", &[1, 1]),
            ("srun -- a --het-group=3", &[0]),
            ("srun --het-group=x a", &[0]),
            ("srun --het-group=0-99999999 a", &[0]),
            ("srun --het-group=2-1 a : b", &[1]),
        ] {
            assert_eq!(het_groups(line.split(' ')), expected, "{line}");
        }
    }

    #[test]
    fn only_the_socket_of_a_heterogeneous_step_names_a_component() {
        for (socket, expected) in [
            ("/var/spool/slurmd/n1_18.0.1", Some(1)),
            ("/spool/rack_7-n1_18.12.0", Some(0)),
            ("/spool/n1_18.0", None),
            ("/spool/n1_18.4294967291", None),
            ("/spool/n1_17.0.1", None),
            ("/spool/n1_18.0.1.2", None),
            ("/spool/n1_18.0.x", None),
            ("/spool/n1_18.0.4294967296", None),
            ("/run/dbus/system_bus_socket", None),
            ("/", None),
        ] {
            assert_eq!(
                component_in_name(Path::new(socket), 18),
                expected,
                "{socket}"
            );
        }
    }

    #[test]
    fn a_listening_socket_of_this_process_is_found_by_its_name() {
        let folder = std::env::temp_dir().join(format!("components-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let listener = UnixListener::bind(folder.join("n1_18.0.3")).unwrap();
        assert_eq!(step_component(18), Some(3));
        assert_eq!(step_component(19), None);
        assert!(listener.local_addr().is_ok(), "it was closed");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_list_that_ends_early_is_not_an_empty_entry() {
        let own = |text: &str| Listed::Own(Some(text.as_bytes().to_vec()));
        assert_eq!(entry(b"p5,,g5", 0), own("p5"));
        assert_eq!(entry(b"p5,,g5", 1), Listed::Own(None));
        assert_eq!(entry(b"p5,,g5", 2), own("g5"));
        assert_eq!(entry(b"p5", 1), Listed::Unknown);
    }
}
