//! The parts of a setup that `--only` chooses, and what belongs to each.
//!
//! What several parts need is there as long as one of them is set up. Which are is
//! recorded on the node ([`PARTS`]): the files do not say it, since slurm.conf is
//! often another machine's.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use cli::called;

use super::discover::Site;
use super::error::SetupError;
use super::files::{self, Content};
use super::pam;
use super::paths::{GRES_PLUGIN, PARTS, PLUGIN, ROLE};

/// What an administrator may set up alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `--efa-profile`, and the report of what a job moved.
    Profiles,
    /// `--efa-hugepages`.
    Hugepages,
    /// efa-check before each job and as the health check.
    Health,
    /// Logins that end with jobs.
    Logout,
    /// Shared GPUs.
    Gres,
}

impl Part {
    /// In the order in which they are shown.
    pub const ALL: [Self; 5] = [
        Self::Profiles,
        Self::Hugepages,
        Self::Health,
        Self::Logout,
        Self::Gres,
    ];

    /// The word of `--only`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Profiles => "profiles",
            Self::Hugepages => "hugepages",
            Self::Health => "health",
            Self::Logout => "logout",
            Self::Gres => "gres",
        }
    }

    /// The section of slurm-efa.toml without which there is nothing to set up.
    const fn section(self) -> Option<&'static str> {
        match self {
            Self::Logout => Some("logout"),
            Self::Gres => Some("gres"),
            Self::Profiles | Self::Hugepages | Self::Health => None,
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Self::ALL.into_iter();
        let found = all.find(|it| it.name() == text);
        found.ok_or_else(|| format!("expected one of {}", Parts::ALL))
    }
}

/// Some of the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parts(u8);

impl Parts {
    /// None of them.
    pub const NONE: Self = Self(0);

    /// All of them.
    pub const ALL: Self = Self::of(&Part::ALL);

    /// These.
    #[must_use]
    pub const fn of(parts: &[Part]) -> Self {
        let (mut bits, mut rest) = (0, parts);
        while let [first, others @ ..] = rest {
            bits |= first.bit();
            rest = others;
        }
        Self(bits)
    }

    /// Whether this one is among them.
    #[must_use]
    pub const fn has(self, part: Part) -> bool {
        self.0 & part.bit() != 0
    }

    /// Those that are among others, too.
    #[must_use]
    pub const fn common(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    /// Whether both have one in common.
    #[must_use]
    pub const fn meets(self, others: Self) -> bool {
        self.common(others).0 != 0
    }

    /// These and others.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// These without others.
    #[must_use]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Part> {
        Part::ALL.into_iter().filter(move |it| self.has(*it))
    }

    /// Those that the node's configuration has.
    fn configured(site: &Site) -> Self {
        let has = |part: &Part| part.section().is_none_or(|it| site.has_section(it));
        let all: Vec<Part> = Part::ALL.into_iter().filter(has).collect();
        Self::of(&all)
    }

    /// Those that were chosen for this node; `None` where setup never ran. One that is
    /// not configured has nothing there.
    #[must_use]
    pub fn recorded(site: &Site) -> Option<Self> {
        match files::read(&site.place(PARTS)) {
            Ok((_, Content::Text(text))) => {
                let parts: Vec<Part> = text.lines().filter_map(|it| it.parse().ok()).collect();
                Some(Self::of(&parts))
            }
            // The last release set up all, and recorded the role only.
            _ => site.place(ROLE).exists().then_some(Self::ALL),
        }
    }

    /// As they are recorded.
    fn record(self) -> String {
        self.iter().map(|it| format!("{}\n", it.name())).collect()
    }
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.iter().map(Part::name).collect();
        f.write_str(&names.join(", "))
    }
}

/// What setup puts on a node, by the file and the line of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// spank_efa.so in plugstack.conf.
    EfaPlugin,
    /// spank_gres.so in plugstack.conf.
    GresPlugin,
    /// PrologFlags in slurm.conf.
    PrologFlags,
    /// Prolog in slurm.conf.
    Prolog,
    /// Epilog in slurm.conf.
    Epilog,
    /// HealthCheckProgram and its interval in slurm.conf.
    HealthCheck,
    /// EnableExtraControllers in cgroup.conf.
    Hugetlb,
    /// Lines of gres.conf.
    GresConf,
    /// Links to slurm-efa-job.
    JobProgram,
    /// Links to efa-check, its line in nhc.conf, and the record of the node's devices.
    EfaCheck,
    /// Links to gres-helper, and its daemon.
    GresHelper,
    /// Lines in sshd's PAM stack, and slurm-logoutd.
    Logins,
}

impl Item {
    /// The parts that need it.
    #[must_use]
    pub const fn parts(self) -> Parts {
        use Part::{Gres, Health, Hugepages, Logout, Profiles};
        match self {
            Self::EfaPlugin | Self::JobProgram => Parts::of(&[Profiles, Hugepages]),
            // With Alloc and Contain a job is known on its nodes from its start.
            Self::PrologFlags => Parts::ALL,
            Self::Prolog => Parts::of(&[Profiles, Hugepages, Health, Gres]),
            Self::Epilog => Parts::of(&[Profiles, Hugepages, Gres]),
            Self::HealthCheck | Self::EfaCheck => Parts::of(&[Health]),
            Self::Hugetlb => Parts::of(&[Hugepages]),
            Self::GresPlugin | Self::GresConf | Self::GresHelper => Parts::of(&[Gres]),
            Self::Logins => Parts::of(&[Logout]),
        }
    }

    /// The links to this program.
    #[must_use]
    pub fn of_program(program: &called::Program) -> Self {
        if *program == called::EFA_CHECK {
            Self::EfaCheck
        } else if *program == called::GRES_HELPER {
            Self::GresHelper
        } else {
            Self::JobProgram
        }
    }

    /// What a line of ours in this file, or one that ours replaced, is.
    #[must_use]
    pub fn of_line(file: &Path, line: &str) -> Option<Self> {
        let names = |path: &str| {
            let name = Path::new(path).file_name();
            name.is_some_and(|it| line.contains(&*it.to_string_lossy()))
        };
        if names(PLUGIN) {
            return Some(Self::EfaPlugin);
        }
        if names(GRES_PLUGIN) {
            return Some(Self::GresPlugin);
        }
        if names(pam::MODULE) {
            return Some(Self::Logins);
        }
        let is_named = |name: &str| file.file_name().is_some_and(|it| it == name);
        if is_named("gres.conf") {
            return Some(Self::GresConf);
        }
        if is_named("nhc.conf") {
            return Some(Self::EfaCheck);
        }
        let key = line.split('=').next().unwrap_or_default().trim();
        let keys = [
            ("PrologFlags", Self::PrologFlags),
            ("Prolog", Self::Prolog),
            ("Epilog", Self::Epilog),
            ("HealthCheckProgram", Self::HealthCheck),
            ("HealthCheckInterval", Self::HealthCheck),
            ("EnableExtraControllers", Self::Hugetlb),
        ];
        let mut keys = keys.into_iter();
        let found = keys.find(|(name, _)| name.eq_ignore_ascii_case(key));
        found.map(|(_, item)| item)
    }
}

/// Which parts a command is about, and which are set up once it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    chosen: Parts,
    /// Those that are configured, of `record`.
    after: Parts,
    record: Parts,
    /// Everything of ours, also what no part is known for.
    pub(super) is_whole: bool,
}

impl Default for Scope {
    fn default() -> Self {
        Self {
            chosen: Parts::ALL,
            after: Parts::ALL,
            record: Parts::ALL,
            is_whole: true,
        }
    }
}

impl Scope {
    /// Of a revert of everything.
    #[cfg(test)]
    pub(super) const fn nothing() -> Self {
        Self {
            chosen: Parts::ALL,
            after: Parts::NONE,
            record: Parts::NONE,
            is_whole: true,
        }
    }

    /// Of a setup of all parts that are configured, or of these only.
    ///
    /// # Errors
    /// One of them is not configured.
    pub fn setup(site: &Site, only: Option<Parts>) -> Result<Self, SetupError> {
        let configured = Parts::configured(site);
        let Some(chosen) = only else {
            return Ok(Self {
                after: configured,
                ..Self::default()
            });
        };
        if let Some(part) = chosen.without(configured).iter().next() {
            let (name, section) = (part.name(), part.section().unwrap_or_default());
            return Err(SetupError::Missing(format!(
                "--only {name}: the configuration has no [{section}]; nothing was changed"
            )));
        }
        let record = Parts::recorded(site).unwrap_or(Parts::NONE).and(chosen);
        Ok(Self {
            chosen,
            after: record.common(configured),
            record,
            is_whole: false,
        })
    }

    /// Of a revert of everything, or of these parts only.
    #[must_use]
    pub fn revert(site: &Site, only: Option<Parts>) -> Self {
        let chosen = only.unwrap_or(Parts::ALL);
        let before = Parts::recorded(site).unwrap_or(Parts::ALL);
        let record = before.without(chosen);
        let is_whole = record == Parts::NONE;
        Self {
            chosen: if is_whole { Parts::ALL } else { chosen },
            after: record.common(Parts::configured(site)),
            record,
            is_whole,
        }
    }

    /// Whether the command may change this.
    #[must_use]
    pub const fn touches(self, item: Item) -> bool {
        self.is_whole || item.parts().meets(self.chosen)
    }

    /// Whether a part that is set up once the command is done needs this.
    #[must_use]
    pub const fn wants(self, item: Item) -> bool {
        item.parts().meets(self.after)
    }

    /// Whether the command sets this up.
    #[must_use]
    pub const fn makes(self, item: Item) -> bool {
        self.touches(item) && self.wants(item)
    }

    /// Whether the command takes this back.
    #[must_use]
    pub const fn takes(self, item: Item) -> bool {
        self.touches(item) && !self.wants(item)
    }

    /// The parts that are set up once the command is done.
    #[must_use]
    pub const fn after(self) -> Parts {
        self.after
    }

    /// What is recorded once the command is done.
    #[must_use]
    pub fn record(self) -> String {
        self.record.record()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::PathBuf;

    use cluster::Role;
    use config::{Config, MissingIs};
    use findings::Findings;
    use proptest::prelude::*;
    use slurm::conf::{Disk, SlurmConf};
    use slurm::{Installation, Release};

    use super::*;
    use crate::setup::desired;
    use crate::setup::discover::Wanted;
    use crate::setup::edit;
    use crate::setup::paths::{EFA_CHECK, GRES_HELPERS, JOB_PROGRAM, NHC_CONF, PAM_MODULE, SSHD};
    use crate::setup::revert;

    const CONFIG: &str = "[gres]\nshard_size = \"10G\"\n[hugepages]\nisolate = true\n\
                          [logout]\nexempt_users = [\"root\"]\n";

    const STACK: &str = "account required pam_unix.so\nsession required pam_unix.so\n";

    /// A compute node whose slurm.conf is its own.
    struct Node {
        dir: tempfile::TempDir,
    }

    /// Every file and link: its path and what it says.
    type Tree = BTreeMap<PathBuf, String>;

    impl Node {
        fn new(conf: &str) -> Self {
            let node = Self {
                dir: tempfile::tempdir().unwrap(),
            };
            for program in [
                PLUGIN,
                GRES_PLUGIN,
                EFA_CHECK,
                JOB_PROGRAM,
                GRES_HELPERS[0],
                PAM_MODULE,
            ] {
                node.write(&format!("root{program}"), "");
            }
            node.write(&format!("root{SSHD}"), STACK);
            node.write(&format!("root{NHC_CONF}"), "* || check_fs_mount_rw /");
            node.write("etc/slurm.conf", conf);
            node.write("slurm-efa.toml", CONFIG);
            node
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn site(&self) -> Site {
            let conf = self.dir.path().join("etc/slurm.conf");
            let read = SlurmConf::read(&Disk, &conf).unwrap();
            let config = Config::load(&self.dir.path().join("slurm-efa.toml"), MissingIs::Error);
            Site {
                wanted: Wanted {
                    role: Some(Role::Compute),
                    root: Some(self.dir.path().join("root")),
                    ..Wanted::default()
                },
                slurm: Installation::known(conf, read, Some(Release::new(25, 5))),
                shared: false,
                config: Ok(config.unwrap()),
                mistakes: Findings::default(),
            }
        }

        /// What a command changes: nothing is left to do once it is done.
        fn run(&self, command: &Command) -> usize {
            let site = self.site();
            let plan = match *command {
                Command::Setup(only) => desired::plan(&site, Role::Compute, &[], only).unwrap(),
                Command::Revert(only) => revert::plan_revert(&site, only).unwrap(),
            };
            let count = plan.changes.len();
            files::make(plan.changes).unwrap().keep();
            count
        }

        fn tree(&self) -> Tree {
            let mut tree = Tree::new();
            let mut folders = vec![self.dir.path().to_owned()];
            while let Some(folder) = folders.pop() {
                for entry in fs::read_dir(folder).unwrap() {
                    let path = entry.unwrap().path();
                    if path.is_dir() {
                        folders.push(path);
                        continue;
                    }
                    let text = match fs::read_link(&path) {
                        Ok(target) => format!("-> {}", target.display()),
                        Err(_) => fs::read_to_string(&path).unwrap(),
                    };
                    let name = path.strip_prefix(self.dir.path()).unwrap();
                    tree.insert(name.to_owned(), text);
                }
            }
            tree
        }

        /// What is ours, item by item: lines, and links with where they lead.
        fn ours(&self) -> BTreeMap<String, Vec<String>> {
            let mut ours: BTreeMap<String, Vec<String>> = BTreeMap::new();
            let mut add = |item: Item, what: &str| {
                let what = what.replace(self.dir.path().to_str().unwrap(), "");
                ours.entry(format!("{item:?}")).or_default().push(what);
            };
            for (path, text) in self.tree() {
                for line in edit::ours(&text, |_| true) {
                    if let Some(item) = Item::of_line(&path, line.trim_start_matches(edit::ASIDE)) {
                        add(item, line);
                    }
                }
                if let Some(target) = text.strip_prefix("-> ") {
                    let name = Path::new(target).file_name().unwrap().to_str().unwrap();
                    let programs = called::PROGRAMS.iter();
                    let program = programs.clone().find(|it| it.name == name).unwrap();
                    add(Item::of_program(program), &path.to_string_lossy());
                }
            }
            ours
        }
    }

    #[derive(Debug, Clone)]
    enum Command {
        Setup(Option<Parts>),
        Revert(Option<Parts>),
    }

    fn some() -> impl Strategy<Value = Parts> {
        (1u8..32).prop_map(Parts)
    }

    fn command() -> impl Strategy<Value = Command> {
        prop_oneof![
            6 => some().prop_map(|it| Command::Setup(Some(it))),
            5 => some().prop_map(|it| Command::Revert(Some(it))),
            1 => Just(Command::Setup(None)),
            1 => Just(Command::Revert(None)),
        ]
    }

    /// slurm.conf as sites have it.
    fn conf() -> impl Strategy<Value = &'static str> {
        prop_oneof![
            Just(""),
            Just("ClusterName=a\n"),
            Just("ClusterName=a"),
            Just(
                "ClusterName=a\r\nPrologFlags=X11,\\\r\nAlloc # why\r\nHealthCheckInterval=0\r\nA=1"
            ),
            Just("PrologFlags=X11\nHealthCheckInterval=0\nSlurmctldParameters=x,\\ \n"),
            Just("HealthCheckProgram=/usr/sbin/nhc\nProlog=/site/prolog\nA=1,\\"),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_set_up_and_reverted_in_any_order_each_part_has_what_it_needs(
            conf in conf(), commands in proptest::collection::vec(command(), 1..6)
        ) {
            let node = Node::new(conf);
            let before = node.tree();
            let mut parts = Parts::NONE;
            for command in &commands {
                let others = node.ours();
                node.run(command);
                let chosen = match *command {
                    Command::Setup(only) => only.unwrap_or(Parts::ALL),
                    Command::Revert(only) => only.unwrap_or(Parts::ALL),
                };
                parts = match command {
                    Command::Setup(_) => parts.and(chosen),
                    Command::Revert(_) => parts.without(chosen),
                };
                // A second time it changes nothing.
                prop_assert_eq!(node.run(command), 0, "{:?}", command);
                // What no chosen part has to do with is as it was.
                let ours = node.ours();
                for item in ITEMS.iter().filter(|it| !it.parts().meets(chosen)) {
                    let name = format!("{item:?}");
                    prop_assert_eq!(ours.get(&name), others.get(&name), "{}", name);
                }
                // What is there is what these parts alone would have.
                let alone = Node::new(conf);
                if parts != Parts::NONE {
                    alone.run(&Command::Setup(Some(parts)));
                }
                prop_assert_eq!(ours, alone.ours(), "{}", parts);
            }
            node.run(&Command::Revert(None));
            prop_assert_eq!(node.tree(), before);
        }

        #[test]
        fn a_part_that_is_reverted_leaves_every_byte_of_the_others(
            conf in conf(), first in some(), then in some()
        ) {
            let then = then.without(first);
            prop_assume!(then != Parts::NONE);
            let node = Node::new(conf);
            node.run(&Command::Setup(Some(first)));
            let before = node.tree();
            node.run(&Command::Setup(Some(then)));
            prop_assert_ne!(node.tree(), before.clone());
            node.run(&Command::Revert(Some(then)));
            prop_assert_eq!(node.tree(), before);
        }
    }

    const ITEMS: [Item; 11] = [
        Item::EfaPlugin,
        Item::GresPlugin,
        Item::PrologFlags,
        Item::Prolog,
        Item::Epilog,
        Item::HealthCheck,
        Item::Hugetlb,
        Item::JobProgram,
        Item::EfaCheck,
        Item::GresHelper,
        Item::Logins,
    ];

    #[test]
    fn a_line_that_someone_took_out_is_not_put_in_again_for_another_part() {
        let node = Node::new("");
        node.run(&Command::Setup(None));
        let conf = node.dir.path().join("etc/slurm.conf");
        let text = fs::read_to_string(&conf).unwrap();
        let epilogs = text.lines().filter(|it| !it.starts_with("Epilog="));
        let text: String = epilogs.map(|it| format!("{it}\n")).collect();
        fs::write(&conf, format!("{text}Theirs=1\n")).unwrap();
        let health = Parts::of(&[Part::Health]);
        node.run(&Command::Setup(Some(health)));
        assert_eq!(
            fs::read_to_string(&conf).unwrap(),
            format!("{text}Theirs=1\n")
        );
        node.run(&Command::Revert(Some(health)));
        let after = fs::read_to_string(&conf).unwrap();
        assert!(
            !after.contains("Epilog=") && !after.contains("HealthCheck"),
            "{after}"
        );
    }

    #[test]
    fn lines_of_gres_conf_go_with_shared_gpus_only() {
        let node = Node::new("");
        node.run(&Command::Setup(None));
        node.write(
            "etc/gres.conf",
            "NodeName=n1 Name=gpu File=/dev/nvidia0 # slurm-efa\n",
        );
        node.run(&Command::Revert(Some(Parts::of(&[
            Part::Profiles,
            Part::Health,
        ]))));
        let gres = node.dir.path().join("etc/gres.conf");
        assert!(fs::read_to_string(&gres).unwrap().contains("nvidia0"));
        node.run(&Command::Revert(Some(Parts::of(&[Part::Gres]))));
        assert_eq!(fs::read_to_string(&gres).unwrap(), "");
    }

    #[test]
    fn a_part_that_is_not_configured_cannot_be_set_up() {
        let node = Node::new("");
        node.write("slurm-efa.toml", "");
        for part in [Part::Logout, Part::Gres] {
            let only = Some(Parts::of(&[part]));
            let error = desired::plan(&node.site(), Role::Compute, &[], only).unwrap_err();
            let expected = format!("no [{}]", part.name());
            assert!(error.to_string().contains(&expected), "{error}");
        }
    }

    #[test]
    fn without_shared_gpus_no_prolog_stays_for_them() {
        let node = Node::new("");
        node.write("slurm-efa.toml", "");
        node.run(&Command::Setup(None));
        let rest = [Part::Profiles, Part::Hugepages, Part::Health];
        node.run(&Command::Revert(Some(Parts::of(&rest))));
        let conf = fs::read_to_string(node.dir.path().join("etc/slurm.conf")).unwrap();
        assert!(!conf.contains("prolog.d"), "{conf}");
    }

    #[test]
    fn a_node_of_the_last_release_has_all_parts() {
        let node = Node::new("");
        assert_eq!(Parts::recorded(&node.site()), None);
        node.write(&format!("root{ROLE}"), "compute\n");
        assert_eq!(Parts::recorded(&node.site()), Some(Parts::ALL));
        let word = "nonsense".parse::<Part>().unwrap_err();
        assert_eq!(
            word,
            "expected one of profiles, hugepages, health, logout, gres"
        );
    }
}
