//! The decision, free of effects: profile × node × the job's environment → what to do.

use std::collections::BTreeMap;

use config::Harmful as HarmfulPolicy;
use efa::instance_types;
use efa::instance_types::{Accelerator, GpuDirect, InstanceType};
use efa::software::{Found, Stack};
use host::printable;
use slurm::NodeName;

use crate::profile::{Fit, Profile};
use crate::provenance;
use crate::rules::{Component, Effect, HARMFUL, Harmful, Match, RULES, Value, When};

/// The most characters of a user's value that a message shows.
const SHOWN: usize = 80;

/// Looks a variable of the job's environment up.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<Vec<u8>>;

/// What is known about the node that the step runs on.
#[derive(Debug)]
pub struct NodeFacts {
    /// Slurm's name of the node.
    pub name: Option<NodeName>,
    /// The instance type, or why it is not known.
    pub instance: Result<InstanceType, String>,
    /// The number of EFA devices, or why it is not known.
    pub devices: Result<u32, String>,
    /// The software on the node.
    pub stack: Stack,
    /// Why the step runs in a container's software, if it does.
    pub container: Option<&'static str>,
}

impl NodeFacts {
    /// The node's name for messages.
    pub fn label(&self) -> &str {
        self.name.as_ref().map_or("this node", NodeName::as_str)
    }

    fn spec(&self) -> Option<&'static instance_types::Spec> {
        self.instance.as_ref().ok().and_then(instance_types::lookup)
    }

    fn component(&self, component: Component) -> Option<&Found> {
        match component {
            Component::EfaInstaller => self.stack.efa_installer.as_ref(),
            Component::Libfabric => self.stack.libfabric.as_ref(),
            Component::AwsOfiNccl => self.stack.aws_ofi_nccl.as_ref(),
            Component::Nccl => self.stack.nccl.as_ref(),
            Component::RdmaCore => self.stack.rdma_core.as_ref(),
            Component::Kernel => self.stack.kernel.as_ref(),
        }
    }
}

/// Whether a condition holds. The text says what it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Truth {
    Yes(Option<String>),
    No(String),
    Unknown(String),
}

fn yes_or_no(holds: bool, what: String) -> Truth {
    if holds {
        Truth::Yes(Some(what))
    } else {
        Truth::No(what)
    }
}

/// Whether this type does GPUDirect RDMA; `None` where no source says.
fn gpudirect(spec: &instance_types::Spec) -> Option<bool> {
    match spec.gpudirect {
        GpuDirect::Required => Some(true),
        GpuDirect::NotAvailable => Some(false),
        GpuDirect::Unknown => None,
    }
}

fn evaluate(when: &When, node: &NodeFacts) -> Truth {
    let compare = |component: &Component, test: &dyn Fn(&Found) -> bool| {
        if let Some(reason) = node.container {
            return Truth::Unknown(format!(
                "the version of {} is the image's ({reason})",
                component.name()
            ));
        }
        match node.component(*component) {
            Some(found) => yes_or_no(
                test(found),
                format!("{} is {}", component.name(), printable(&found.raw, SHOWN)),
            ),
            None => Truth::Unknown(format!("no {} version was found", component.name())),
        }
    };
    let on_spec = |test: &dyn Fn(&'static instance_types::Spec) -> Option<bool>, what: &str| {
        match node.spec() {
            Some(spec) => match test(spec) {
                Some(true) => Truth::Yes(Some(format!("a {} has {what}", spec.name))),
                Some(false) => Truth::No(format!("a {} has no {what}", spec.name)),
                None => Truth::Unknown(format!("whether a {} has {what} is not known", spec.name)),
            },
            None => Truth::Unknown(format!(
                "the instance type is not known, nor whether it has {what}"
            )),
        }
    };
    match when {
        When::Always => Truth::Yes(None),
        When::Below(component, version) => compare(component, &|found| found.version < *version),
        When::AtLeast(component, version) => compare(component, &|found| found.version >= *version),
        When::Family(families) => match &node.instance {
            Ok(instance) => yes_or_no(
                families.contains(&instance.family()),
                format!("the instance type is {instance}"),
            ),
            Err(reason) => Truth::Unknown(format!("the instance type is not known: {reason}")),
        },
        When::GpuDirect => on_spec(&gpudirect, "GPUDirect RDMA"),
        When::NoRdmaRead => match on_spec(&|spec| spec.rdma_read, "RDMA read") {
            Truth::Yes(Some(reason)) => Truth::No(reason),
            Truth::No(reason) => Truth::Yes(Some(reason)),
            unknown => unknown,
        },
        When::Nvidia => on_spec(
            &|spec| Some(matches!(spec.accelerator, Accelerator::Nvidia { .. })),
            "NVIDIA GPUs",
        ),
        When::Neuron => on_spec(
            &|spec| Some(matches!(spec.accelerator, Accelerator::Neuron { .. })),
            "Neuron devices",
        ),
        When::TunerInstalled => match (&node.container, &node.stack.ofi_tuner_path) {
            (Some(reason), _) => Truth::Unknown(format!("the tuner is the image's ({reason})")),
            (None, Some(path)) => Truth::Yes(Some(format!("{} exists", path.display()))),
            (None, None) => Truth::No("no tuner plugin was found".to_owned()),
        },
        When::All(conditions) => all(conditions, node),
        When::Any(conditions) => any(conditions, node),
    }
}

fn all(conditions: &[When], node: &NodeFacts) -> Truth {
    let mut reasons = Vec::new();
    let mut unknown = None;
    for condition in conditions {
        match evaluate(condition, node) {
            Truth::Yes(reason) => reasons.extend(reason),
            Truth::No(reason) => return Truth::No(reason),
            Truth::Unknown(reason) => unknown = unknown.or(Some(reason)),
        }
    }
    match unknown {
        Some(reason) => Truth::Unknown(reason),
        None => Truth::Yes((!reasons.is_empty()).then(|| reasons.join(", "))),
    }
}

fn any(conditions: &[When], node: &NodeFacts) -> Truth {
    let mut reasons: Vec<String> = Vec::new();
    let mut unknown = None;
    for condition in conditions {
        match evaluate(condition, node) {
            Truth::Yes(reason) => return Truth::Yes(reason),
            Truth::No(reason) if reasons.contains(&reason) => {}
            Truth::No(reason) => reasons.push(reason),
            Truth::Unknown(reason) => unknown = unknown.or(Some(reason)),
        }
    }
    unknown.map_or_else(|| Truth::No(reasons.join(", ")), Truth::Unknown)
}

/// What happens to one variable, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is set.
    Set {
        /// To this value.
        value: String,
    },
    /// The user's own value stays.
    Kept {
        /// The user's value, printable.
        user: String,
        /// What the profile would have set.
        ours: String,
    },
    /// The profile has a rule for it that does not apply here.
    NotSet,
    /// It is removed: by the site's `unset`, or because an outer step of ours set it.
    Removed,
    /// The user brought it and it does harm; it stays.
    Harmful,
}

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The variable.
    pub variable: String,
    /// What happens to it.
    pub action: Action,
    /// Why.
    pub why: String,
}

/// What a step does on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The profile in force, for `SLURM_EFA_PROFILE`; `None` leaves no trace.
    pub profile: Option<String>,
    /// One line for each variable that was considered.
    pub entries: Vec<Entry>,
    /// Said on the step's stderr without being asked.
    pub warnings: Vec<String>,
}

/// Why a job that asked for a profile cannot run on this node. Its own fault
/// or the node's, never a reason to drain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileMismatch {
    /// Another instance type.
    #[error(
        "--efa-profile={profile} is for {wanted}, but {node} is {found}; \
         use --efa-profile=auto, or ask for other nodes (--constraint, --partition)"
    )]
    WrongType {
        /// The profile.
        profile: String,
        /// What it is for.
        wanted: String,
        /// The node.
        node: String,
        /// Its type.
        found: String,
    },
    /// Fewer devices than the profile needs.
    #[error(
        "--efa-profile={profile} needs {needed} EFA device(s), but {node} has {found}; \
         run without a profile (--efa-profile=none), or tell the administrator (efa-check shows what is missing)"
    )]
    TooFewDevices {
        /// The profile.
        profile: String,
        /// The least number.
        needed: u32,
        /// The node.
        node: String,
        /// What it has.
        found: u32,
    },
    /// A variable that makes libfabric abort.
    #[error("{0}")]
    Harmful(String),
}

/// Makes the plan for a profile that was asked for by name, or that `auto` chose.
pub fn plan(
    profile: &Profile,
    auto: bool,
    harmful: HarmfulPolicy,
    node: &NodeFacts,
    env: Env<'_>,
) -> Result<Plan, ProfileMismatch> {
    let mut plan = Plan {
        profile: Some(profile.name.clone()),
        ..Plan::default()
    };
    if !fit(profile, auto, node, &mut plan)? {
        plan.profile = Some("none".to_owned());
        withdraw(
            &mut plan,
            env,
            "an outer step's profile set it, and none is in force here",
        );
        return Ok(plan);
    }

    let inherited = provenance::inherited(env);
    let is_ours = |variable: &str| {
        let value = inherited.get(variable);
        value.is_some() && value.map(String::as_bytes) == env(variable).as_deref()
    };
    let users = |variable: &str| env(variable).filter(|_| !is_ours(variable));
    judge_users_variables(profile, harmful, node, &users, &mut plan)?;

    let mut wanted: BTreeMap<String, (String, String)> = BTreeMap::new();
    for rule in RULES {
        if profile.env.contains_key(rule.variable) || profile.unset.contains_key(rule.variable) {
            continue;
        }
        match (evaluate(&rule.when, node), rule_value(rule.value, node)) {
            (Truth::Yes(reason), Some(value)) => {
                let why = match reason {
                    Some(reason) => format!("{}; {reason}", rule.why),
                    None => rule.why.to_owned(),
                };
                wanted.insert(rule.variable.to_owned(), (value, why));
            }
            (Truth::Yes(_), None) => {}
            // Said below, as removed.
            _ if is_ours(rule.variable) => {}
            (Truth::No(reason), _) => plan.note(
                rule.variable,
                Action::NotSet,
                &format!("not needed: {reason}"),
            ),
            (Truth::Unknown(reason), _) => {
                plan.note(
                    rule.variable,
                    Action::NotSet,
                    &format!("not known to be needed: {reason}"),
                );
            }
        }
    }
    for (variable, (value, by)) in &profile.env {
        wanted.insert(
            variable.clone(),
            (value.clone(), format!("the site's [profile.{by}] sets it")),
        );
    }

    for (variable, (value, why)) in &wanted {
        let action = match users(variable) {
            Some(user) => Action::Kept {
                user: printable(&String::from_utf8_lossy(&user), SHOWN),
                ours: value.clone(),
            },
            None => Action::Set {
                value: value.clone(),
            },
        };
        plan.note(variable, action, why);
    }
    for (variable, by) in &profile.unset {
        if env(variable).is_some() {
            plan.note(
                variable,
                Action::Removed,
                &format!("the site's [profile.{by}] unsets it"),
            );
        }
    }
    for variable in inherited.keys().filter(|variable| is_ours(variable)) {
        if !wanted.contains_key(variable) && !profile.unset.contains_key(variable) {
            plan.note(
                variable,
                Action::Removed,
                "an outer step's profile set it, and this one does not",
            );
        }
    }
    Ok(plan)
}

/// The plan of `--efa-profile=none`: takes back what an outer step's profile set.
pub fn none(env: Env<'_>) -> Plan {
    let mut plan = Plan::default();
    withdraw(&mut plan, env, "an outer step's profile set it");
    plan
}

fn withdraw(plan: &mut Plan, env: Env<'_>, why: &str) {
    for (variable, value) in provenance::inherited(env) {
        if env(&variable).as_deref() == Some(value.as_bytes()) {
            plan.note(&variable, Action::Removed, why);
        }
    }
}

impl Plan {
    fn note(&mut self, variable: &str, action: Action, why: &str) {
        self.entries.push(Entry {
            variable: variable.to_owned(),
            action,
            why: why.to_owned(),
        });
    }
}

/// Whether the profile and the node belong together; `Ok(false)`: `auto` found nothing to do.
fn fit(
    profile: &Profile,
    auto: bool,
    node: &NodeFacts,
    plan: &mut Plan,
) -> Result<bool, ProfileMismatch> {
    match &node.instance {
        Ok(found) if !profile.fit.accepts(found) => {
            return Err(ProfileMismatch::WrongType {
                profile: profile.name.clone(),
                wanted: match &profile.fit {
                    Fit::Type(instance) => instance.to_string(),
                    Fit::Family(family) => format!("{family} instances"),
                    Fit::Any => "any instance".to_owned(),
                },
                node: node.label().to_owned(),
                found: format!("a {found}"),
            });
        }
        Ok(_) => {}
        Err(reason) if profile.fit != Fit::Any => plan.warnings.push(format!(
            "{}: cannot tell whether this node is what --efa-profile={} is for: {reason}",
            node.label(),
            profile.name
        )),
        Err(_) => {}
    }
    let found = match &node.devices {
        Ok(found) => *found,
        Err(reason) => {
            plan.warnings.push(format!(
                "{}: cannot count the EFA devices: {reason}",
                node.label()
            ));
            return Ok(true);
        }
    };
    let needed = profile.devices.unwrap_or(u32::from(!auto));
    if found < needed {
        return Err(ProfileMismatch::TooFewDevices {
            profile: profile.name.clone(),
            needed,
            node: node.label().to_owned(),
            found,
        });
    }
    if found == 0 {
        if let Some(spec) = node
            .spec()
            .filter(|spec| spec.gpudirect == GpuDirect::Required)
        {
            plan.warnings.push(format!(
                "{}: a {} without any EFA device; NCCL will use TCP, which is many times slower; \
                 tell the administrator",
                node.label(),
                spec.name
            ));
        }
        return Ok(false);
    }
    Ok(true)
}

fn rule_value(value: Value, node: &NodeFacts) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.to_owned()),
        Value::TunerPath => node
            .stack
            .ofi_tuner_path
            .as_ref()
            .and_then(|path| path.to_str())
            .map(str::to_owned),
    }
}

fn judge_users_variables(
    profile: &Profile,
    policy: HarmfulPolicy,
    node: &NodeFacts,
    env: Env<'_>,
    plan: &mut Plan,
) -> Result<(), ProfileMismatch> {
    for row in HARMFUL {
        if profile.unset.contains_key(row.variable) || !row.is_in(env) {
            continue;
        }
        match (evaluate(&row.when, node), row.effect) {
            (Truth::No(_), _) => {}
            (Truth::Yes(_), Effect::Abort) => match policy {
                HarmfulPolicy::Refuse => {
                    return Err(ProfileMismatch::Harmful(format!(
                        "{}: {}",
                        node.label(),
                        row.sentence(env)
                    )));
                }
                HarmfulPolicy::Warn => {
                    plan.warnings
                        .push(format!("{}: {}", node.label(), row.sentence(env)))
                }
            },
            (Truth::Yes(_) | Truth::Unknown(_), _) => {
                plan.note(
                    row.variable,
                    Action::Harmful,
                    &format!("{}; {}", row.why, row.fix),
                );
            }
        }
    }
    Ok(())
}

impl Harmful {
    /// Whether the environment has the variable with a value that is meant.
    pub fn is_in(&self, env: Env<'_>) -> bool {
        let matches = env(self.variable).is_some_and(|value| match self.matches {
            Match::Present => true,
            Match::Empty => value.is_empty(),
            // fi_param_get_bool of libfabric takes these words in any case.
            Match::True => ["1", "true", "yes", "on"]
                .iter()
                .any(|word| value.eq_ignore_ascii_case(word.as_bytes())),
        });
        matches && self.together_with.is_none_or(|other| env(other).is_some())
    }

    /// The reason and the remedy.
    pub fn sentence(&self, env: Env<'_>) -> String {
        let value = env(self.variable).unwrap_or_default();
        format!(
            "{}={} in the job's environment: {}; {}",
            self.variable,
            printable(&String::from_utf8_lossy(&value), SHOWN),
            self.why,
            self.fix
        )
    }
}

/// The rows that abort libfabric, as far as a submission can tell: the profile
/// says what kind of node it will be, no node is known yet.
pub fn fatal_at_submission<'a>(
    profile: &'a Profile,
    env: Env<'a>,
) -> impl Iterator<Item = &'static Harmful> + 'a {
    HARMFUL.iter().filter(move |row| {
        row.effect == Effect::Abort && row.is_in(env) && may_hold(&row.when, &profile.fit)
    })
}

/// Whether a condition can hold on a node that the profile is for. Versions
/// are not known at submission and count as yes; a type must be known.
fn may_hold(when: &When, fit: &Fit) -> bool {
    let of_type = |test: &dyn Fn(&instance_types::Spec) -> bool| match fit {
        Fit::Any => false,
        Fit::Type(instance) => instance_types::lookup(instance).is_some_and(test),
        Fit::Family(family) => {
            let mut specs = instance_types::family_specs(family).peekable();
            specs.peek().is_some() && specs.all(test)
        }
    };
    match when {
        When::Always | When::Below(..) | When::AtLeast(..) | When::TunerInstalled => true,
        When::Family(families) => of_type(&|spec| families.contains(&spec.family())),
        When::GpuDirect => of_type(&|spec| gpudirect(spec) == Some(true)),
        When::NoRdmaRead => of_type(&|spec| spec.rdma_read == Some(false)),
        When::Nvidia => of_type(&|spec| matches!(spec.accelerator, Accelerator::Nvidia { .. })),
        When::Neuron => of_type(&|spec| matches!(spec.accelerator, Accelerator::Neuron { .. })),
        When::All(conditions) => conditions.iter().all(|condition| may_hold(condition, fit)),
        When::Any(conditions) => conditions.iter().any(|condition| may_hold(condition, fit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::resolve;
    use crate::request::ProfileName;
    use config::Config;
    use efa::version::Version;
    use std::path::Path;

    fn found(version: &str) -> Option<Found> {
        Some(Found {
            version: Version::parse(version).unwrap(),
            raw: version.to_owned(),
            evidence: "test".to_owned(),
        })
    }

    fn stack(versions: [&str; 6]) -> Stack {
        let [
            efa_installer,
            libfabric,
            aws_ofi_nccl,
            nccl,
            rdma_core,
            kernel,
        ] = versions.map(found);
        Stack {
            efa_installer,
            libfabric,
            aws_ofi_nccl,
            nccl,
            rdma_core,
            kernel,
            ..Stack::default()
        }
    }

    fn modern() -> Stack {
        stack(["1.43.2", "2.1.0", "1.16.2", "2.27.3", "58.0", "6.8.0"])
    }

    fn old() -> Stack {
        stack(["1.22.0", "1.17.0", "1.5.0", "2.16.2", "43.0", "5.10.0"])
    }

    fn node(instance: &str, devices: u32, stack: Stack) -> NodeFacts {
        NodeFacts {
            name: "n1".parse().ok(),
            instance: instance.parse().map_err(|_| "unreadable".to_owned()),
            devices: Ok(devices),
            stack,
            container: None,
        }
    }

    fn config(text: &str) -> Config {
        config::parse(text, Path::new("/etc/slurm-efa/slurm-efa.toml")).unwrap()
    }

    fn decide(
        config: &Config,
        name: &str,
        node: &NodeFacts,
        env: &[(&str, &str)],
    ) -> Result<Plan, ProfileMismatch> {
        let profile = resolve(&ProfileName::new(name).unwrap(), config).unwrap();
        plan(&profile, false, config.harmful, node, &|name| {
            env.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.as_bytes().to_vec())
        })
    }

    fn set(plan: &Plan) -> Vec<(&str, &str)> {
        plan.entries
            .iter()
            .filter_map(|entry| match &entry.action {
                Action::Set { value } => Some((entry.variable.as_str(), value.as_str())),
                _ => None,
            })
            .collect()
    }

    fn action<'a>(plan: &'a Plan, variable: &str) -> Option<&'a Action> {
        plan.entries
            .iter()
            .find(|entry| entry.variable == variable)
            .map(|entry| &entry.action)
    }

    #[test]
    fn a_modern_stack_is_left_to_tune_itself() {
        let plan = decide(&config(""), "p5", &node("p5.48xlarge", 32, modern()), &[]).unwrap();
        assert_eq!(set(&plan), [("NCCL_SOCKET_IFNAME", "^docker,lo,veth")]);
    }

    #[test]
    fn an_old_stack_gets_what_it_needs() {
        let plan = decide(&config(""), "p4d", &node("p4d.24xlarge", 4, old()), &[]).unwrap();
        assert_eq!(
            set(&plan),
            [
                ("FI_EFA_FORK_SAFE", "1"),
                ("FI_EFA_USE_DEVICE_RDMA", "1"),
                ("FI_PROVIDER", "efa"),
                ("NCCL_BUFFSIZE", "8388608"),
                ("NCCL_P2P_NET_CHUNKSIZE", "524288"),
                ("NCCL_PROTO", "simple"),
                ("NCCL_SOCKET_IFNAME", "^docker,lo,veth"),
            ]
        );
    }

    #[test]
    fn rdma_is_never_forced_on_devices_that_lack_it() {
        let plan = decide(&config(""), "g5", &node("g5.8xlarge", 1, old()), &[]).unwrap();
        assert_eq!(
            action(&plan, "FI_EFA_USE_DEVICE_RDMA"),
            Some(&Action::NotSet)
        );
    }

    #[test]
    fn what_is_not_known_is_not_set() {
        let plan = decide(
            &config(""),
            "p4d",
            &node("p4d.24xlarge", 4, Stack::default()),
            &[],
        )
        .unwrap();
        assert_eq!(set(&plan), [("NCCL_SOCKET_IFNAME", "^docker,lo,veth")]);
    }

    #[test]
    fn in_a_container_the_nodes_versions_count_for_nothing() {
        let node = NodeFacts {
            container: Some("--container-image"),
            ..node("p4d.24xlarge", 4, old())
        };
        let plan = decide(&config(""), "p4d", &node, &[]).unwrap();
        assert_eq!(set(&plan), [("NCCL_SOCKET_IFNAME", "^docker,lo,veth")]);
    }

    #[test]
    fn a_users_value_stays() {
        let env = [("NCCL_SOCKET_IFNAME", "ens6")];
        let plan = decide(&config(""), "p5", &node("p5.48xlarge", 32, modern()), &env).unwrap();
        assert!(set(&plan).is_empty());
        assert!(
            matches!(action(&plan, "NCCL_SOCKET_IFNAME"), Some(Action::Kept { user, .. }) if user == "ens6")
        );
    }

    #[test]
    fn what_an_outer_step_set_is_ours_until_the_user_changes_it() {
        let node = node("p5.48xlarge", 32, modern());
        let ours = [
            ("SLURM_EFA_SET", "NCCL_PROTO=simple"),
            ("NCCL_PROTO", "simple"),
        ];
        let plan = decide(&config(""), "p5", &node, &ours).unwrap();
        assert_eq!(action(&plan, "NCCL_PROTO"), Some(&Action::Removed));

        let theirs = [
            ("SLURM_EFA_SET", "NCCL_PROTO=simple"),
            ("NCCL_PROTO", "LL128"),
        ];
        let plan = decide(&config(""), "p5", &node, &theirs).unwrap();
        assert!(!plan.entries.iter().any(|e| e.action == Action::Removed));
    }

    #[test]
    fn switching_off_takes_back_only_what_was_ours() {
        let env = |name: &str| -> Option<Vec<u8>> {
            match name {
                "SLURM_EFA_SET" => Some(b"A=1 B=2".to_vec()),
                "A" => Some(b"1".to_vec()),
                "B" => Some(b"changed".to_vec()),
                _ => None,
            }
        };
        let plan = none(&env);
        let removed: Vec<&str> = plan
            .entries
            .iter()
            .map(|entry| entry.variable.as_str())
            .collect();
        assert_eq!(removed, ["A"]);
        assert_eq!(plan.profile, None);
    }

    #[test]
    fn a_profile_for_another_type_is_a_misfit_that_names_both() {
        let misfit = decide(&config(""), "p5", &node("g5.8xlarge", 1, modern()), &[])
            .unwrap_err()
            .to_string();
        assert!(
            misfit.contains("p5 instances") && misfit.contains("g5.8xlarge"),
            "{misfit}"
        );
    }

    #[test]
    fn fewer_devices_than_the_maximum_are_fine_unless_the_site_says_otherwise() {
        let node = node("p5.48xlarge", 31, modern());
        assert!(decide(&config(""), "p5", &node, &[]).is_ok());
        let strict = config("[profile.p5]\ndevices = 32");
        let misfit = decide(&strict, "p5", &node, &[]).unwrap_err().to_string();
        assert!(
            misfit.contains("needs 32") && misfit.contains("has 31"),
            "{misfit}"
        );
    }

    #[test]
    fn a_profile_on_a_node_without_any_efa_device_is_a_misfit() {
        assert!(decide(&config(""), "p5", &node("p5.48xlarge", 0, modern()), &[]).is_err());
    }

    #[test]
    fn auto_on_a_node_without_efa_sets_nothing_and_warns_only_where_efa_is_expected() {
        let config = config("");
        let auto = |node: &NodeFacts| {
            let profile = crate::profile::for_node(node.instance.as_ref().ok(), &config).unwrap();
            plan(&profile, true, config.harmful, node, &|_| None).unwrap()
        };
        let plain = auto(&node("m5.large", 0, Stack::default()));
        assert_eq!(plain.profile.as_deref(), Some("none"));
        assert!(plain.entries.is_empty() && plain.warnings.is_empty());
        assert_eq!(auto(&node("p5.48xlarge", 0, modern())).warnings.len(), 1);
    }

    #[test]
    fn a_type_that_cannot_be_read_does_not_fail_the_job() {
        let facts = NodeFacts {
            instance: Err("empty".to_owned()),
            ..node("p5.48xlarge", 32, modern())
        };
        let plan = decide(&config(""), "p5", &facts, &[]).unwrap();
        assert_eq!(plan.warnings.len(), 1);
    }

    #[test]
    fn a_variable_that_aborts_this_libfabric_fails_the_job_and_one_that_does_not_is_left() {
        let env = [("FI_EFA_MTU_SIZE", "")];
        let misfit = decide(&config(""), "p5", &node("p5.48xlarge", 32, modern()), &env)
            .unwrap_err()
            .to_string();
        assert!(
            misfit.contains("FI_EFA_MTU_SIZE") && misfit.contains("unset"),
            "{misfit}"
        );
        assert!(
            decide(&config(""), "p4d", &node("p4d.24xlarge", 4, old()), &env).is_ok(),
            "libfabric 1.17"
        );
        let lenient = config("harmful = \"warn\"");
        let plan = decide(&lenient, "p5", &node("p5.48xlarge", 32, modern()), &env).unwrap();
        assert_eq!(plan.warnings.len(), 1);
    }

    #[test]
    fn a_submission_is_judged_by_the_profile_where_no_node_is_known() {
        let config = config("");
        let profile = |name: &str| resolve(&ProfileName::new(name).unwrap(), &config).unwrap();
        let env = |name: &str| (name == "FI_EFA_USE_DEVICE_RDMA").then(|| b"1".to_vec());
        assert_eq!(fatal_at_submission(&profile("p5"), &env).count(), 0);
        assert_eq!(fatal_at_submission(&profile("g5"), &env).count(), 1);
        assert_eq!(fatal_at_submission(&profile("g6.8xlarge"), &env).count(), 0);
    }

    /// Whether a job with `FI_EFA_USE_DEVICE_RDMA=1` is refused, at submission
    /// and on a node of this type.
    fn refuses_device_rdma(instance: &str) -> (bool, bool) {
        let config = config("");
        let env = [("FI_EFA_USE_DEVICE_RDMA", "1")];
        let lookup = |name: &str| (name == env[0].0).then(|| env[0].1.as_bytes().to_vec());
        let profile = resolve(&ProfileName::new(instance).unwrap(), &config).unwrap();
        let at_submission = fatal_at_submission(&profile, &lookup).count() > 0;
        let refusal = decide(&config, instance, &node(instance, 1, modern()), &env);
        let on_node =
            matches!(refusal, Err(ProfileMismatch::Harmful(text)) if text.contains("RDMA read"));
        (at_submission, on_node)
    }

    #[test]
    fn device_rdma_is_refused_on_exactly_the_types_without_rdma_read() {
        for spec in instance_types::TABLE {
            let lacks = ["c5n", "p3dn", "g4dn", "g5"].contains(&spec.family());
            assert_eq!(
                refuses_device_rdma(spec.name),
                (lacks, lacks),
                "{}",
                spec.name
            );
        }
    }

    #[test]
    fn device_rdma_is_not_refused_on_a_type_that_the_table_does_not_know() {
        let config = config("");
        let env = [("FI_EFA_USE_DEVICE_RDMA", "1")];
        let auto = crate::profile::for_node(None, &config).unwrap();
        let lookup = |name: &str| (name == env[0].0).then(|| env[0].1.as_bytes().to_vec());
        assert_eq!(fatal_at_submission(&auto, &lookup).count(), 0);
        let unknown = node("p99.48xlarge", 1, modern());
        assert!(plan(&auto, true, config.harmful, &unknown, &lookup).is_ok());
    }

    #[test]
    fn a_site_adds_overrides_and_removes() {
        let site = config(
            r#"
            [profile.site]
            base = "p5"
            env = { NCCL_DEBUG = "INFO" }
            unset = ["NCCL_SOCKET_IFNAME", "NCCL_PROTO"]
            "#,
        );
        let env = [("NCCL_PROTO", "LL")];
        let plan = decide(&site, "site", &node("p5.48xlarge", 32, modern()), &env).unwrap();
        assert_eq!(set(&plan), [("NCCL_DEBUG", "INFO")]);
        assert!(
            plan.entries
                .iter()
                .any(|e| e.variable == "NCCL_PROTO" && e.action == Action::Removed)
        );
    }
}
