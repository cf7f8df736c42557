//! Instance groups and their roles.

use std::collections::BTreeSet;

use cluster::create_cluster::Group;
use cluster::shape::suggestion;
use cluster::{FoundText, Mode, Role, Spot};
use host::printable;

use super::look::{Fault, File, Look, Outcome, fault, spec};

fn shown(text: &FoundText) -> String {
    printable(&text.value, 80)
}

fn in_parameters(at: &Spot, sentence: String) -> Fault {
    Fault {
        file: File::Provisioning,
        at: at.clone(),
        sentence,
    }
}

pub(super) fn names(look: &Look<'_>) -> Outcome {
    let mut seen = BTreeSet::new();
    let mut faults = Vec::new();
    for name in look.cluster.groups.iter().filter_map(|it| it.name.as_ref()) {
        if !seen.insert(&name.value) {
            let sentence = format!("another group is called {} as well", shown(name));
            faults.push(fault(&name.at, sentence));
        }
    }
    Ok(faults)
}

pub(super) fn mode(look: &Look<'_>) -> Outcome {
    let cluster = &look.cluster;
    let mut faults = Vec::new();
    if let (Some(_), Some(eks)) = (&cluster.slurm, &cluster.eks) {
        let sentence = "Orchestrator names both Slurm and Eks".to_owned();
        faults.push(fault(eks, sentence));
    }
    match cluster.mode() {
        Mode::Eks => {
            let eks = cluster.eks.clone().unwrap_or_default();
            let sentence = "Orchestrator.Eks makes a Kubernetes cluster, which has no Slurm";
            faults.push(fault(&eks, sentence.to_owned()));
        }
        Mode::Api => {
            for group in cluster.groups.iter().filter(|it| it.slurm.is_none()) {
                let sentence = format!(
                    "group {} has no SlurmConfig, but Orchestrator.Slurm is given",
                    group.shown()
                );
                faults.push(fault(&group.at, sentence));
            }
            if look.provisioning.is_some() {
                let sentence = "Orchestrator.Slurm is given, so SageMaker sets Slurm up and does \
                                not read provisioning_parameters.json";
                let at = cluster.slurm.clone().unwrap_or_default();
                faults.push(fault(&at, sentence.to_owned()));
            }
        }
        Mode::Lifecycle => {
            for slurm in cluster.groups.iter().filter_map(|it| it.slurm.as_ref()) {
                let sentence = "SlurmConfig has no effect without Orchestrator.Slurm";
                faults.push(fault(&slurm.at, sentence.to_owned()));
            }
        }
    }
    Ok(faults)
}

/// `; did you mean …?` for a group's name.
fn nearest(look: &Look<'_>, name: &FoundText) -> String {
    let names = look.cluster.groups.iter();
    let names = names.filter_map(|it| it.name.as_ref());
    suggestion(&name.value, names.map(|it| it.value.as_str()))
}

fn absent(look: &Look<'_>, what: &str, name: &FoundText) -> Option<Fault> {
    if look.cluster.group(&name.value).is_some() {
        return None;
    }
    let (shown, nearest) = (shown(name), nearest(look, name));
    let sentence = format!("{what} {shown} is not a group of create_cluster.json{nearest}");
    Some(in_parameters(&name.at, sentence))
}

fn without_role(look: &Look<'_>, role: Role) -> bool {
    let members = look.members().unwrap_or_default();
    !members.iter().any(|member| member.role == role)
}

pub(super) fn controller(look: &Look<'_>) -> Outcome {
    if let Some(parameters) = look.parameters()? {
        let name = parameters.controller_group.as_ref();
        let absent = name.and_then(|name| absent(look, "controller_group", name));
        return Ok(absent.into_iter().collect());
    }
    let members = look.members()?;
    let mut controllers = members.iter().filter(|it| it.role == Role::Controller);
    if look.cluster.mode() == Mode::Eks {
        return Ok(Vec::new());
    }
    let Some(first) = controllers.next() else {
        let at = look.cluster.slurm.clone().unwrap_or_default();
        let sentence = "no group has SlurmConfig.NodeType Controller".to_owned();
        return Ok(vec![fault(&at, sentence)]);
    };
    let second = controllers.map(|other| {
        let sentence = format!(
            "both {} and {} are controller groups",
            first.group.shown(),
            other.group.shown()
        );
        fault(&other.group.at, sentence)
    });
    Ok(second.collect())
}

pub(super) fn controller_count(look: &Look<'_>) -> Outcome {
    let members = look.members()?;
    let controllers = members.iter().filter(|it| it.role == Role::Controller);
    let controllers: Vec<_> = controllers.collect();
    // Several groups are another check's.
    let one = controllers.iter().filter(|_| controllers.len() == 1);
    let counts = one.filter_map(|member| {
        let count = member.group.count.as_ref()?;
        let name = member.group.shown();
        let sentence = format!("the controller group {name} has {} instances", count.value);
        (count.value != 1).then(|| fault(&count.at, sentence))
    });
    Ok(counts.collect())
}

pub(super) fn login(look: &Look<'_>) -> Outcome {
    let Some(parameters) = look.parameters()? else {
        return Ok(Vec::new());
    };
    let Some(name) = &parameters.login_group else {
        return Ok(Vec::new());
    };
    let controller = parameters.controller_group.as_ref();
    if controller.is_some_and(|it| it.value == name.value) {
        let sentence = format!("{} is the controller group as well", shown(name));
        return Ok(vec![in_parameters(&name.at, sentence)]);
    }
    Ok(absent(look, "login_group", name).into_iter().collect())
}

pub(super) fn workers(look: &Look<'_>) -> Outcome {
    let Some(parameters) = look.parameters()? else {
        let none = look.cluster.mode() == Mode::Api && without_role(look, Role::Compute);
        let at = look.cluster.slurm.clone().unwrap_or_default();
        let sentence = "no group has SlurmConfig.NodeType Compute".to_owned();
        return Ok(none.then(|| fault(&at, sentence)).into_iter().collect());
    };
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for name in parameters.workers.iter().filter_map(|it| it.name.as_ref()) {
        let is = |other: &Option<FoundText>| {
            let other = other.as_ref();
            other.is_some_and(|other| other.value == name.value)
        };
        if !seen.insert(&name.value) {
            let sentence = format!("worker group {} is listed twice", shown(name));
            faults.push(in_parameters(&name.at, sentence));
        } else if is(&parameters.controller_group) || is(&parameters.login_group) {
            let sentence = format!(
                "{} is the controller or login group and cannot be a worker group as well",
                shown(name)
            );
            faults.push(in_parameters(&name.at, sentence));
        } else {
            faults.extend(absent(look, "worker group", name));
        }
    }
    if parameters.workers.is_empty() {
        let sentence = "worker_groups is empty, so no job can run".to_owned();
        faults.push(in_parameters(&Spot::default(), sentence));
    }
    Ok(faults)
}

pub(super) fn unused(look: &Look<'_>) -> Outcome {
    let Some(parameters) = look.parameters()? else {
        return Ok(Vec::new());
    };
    let workers = parameters.workers.iter().filter_map(|it| it.name.as_ref());
    let heads = [&parameters.controller_group, &parameters.login_group];
    let named: BTreeSet<&str> = heads
        .into_iter()
        .flatten()
        .chain(workers)
        .map(|it| it.value.as_str())
        .collect();
    // A name that leads nowhere is another check's, and what it was meant for is
    // unused only because of it.
    if named.iter().any(|name| look.cluster.group(name).is_none()) {
        return Ok(Vec::new());
    }
    let names = look.cluster.groups.iter();
    let unused = names
        .filter_map(|group| group.name.as_ref())
        .filter(|name| !named.contains(name.value.as_str()))
        .map(|name| {
            let shown = shown(name);
            let sentence = format!("group {shown} is not in provisioning_parameters.json");
            fault(&name.at, sentence)
        });
    Ok(unused.collect())
}

pub(super) fn partitions(look: &Look<'_>) -> Outcome {
    let wrong = |name: &FoundText| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let text = &name.value;
        if text.is_empty() || text.len() > 63 || !text.chars().all(allowed) {
            Some(format!("{} is not a valid partition name", shown(name)))
        } else if text.eq_ignore_ascii_case("default") {
            Some("a partition cannot be called DEFAULT, a key word of slurm.conf".to_owned())
        } else {
            None
        }
    };
    if let Some(parameters) = look.parameters()? {
        let names = parameters.workers.iter();
        let names = names.filter_map(|it| it.partition.as_ref());
        let faults = names.filter_map(|it| Some(in_parameters(&it.at, wrong(it)?)));
        return Ok(faults.collect());
    }
    let configs = look
        .cluster
        .groups
        .iter()
        .filter_map(|it| it.slurm.as_ref());
    let names = configs.flat_map(|it| &it.partitions);
    // Other characters are against the service's own pattern, another check.
    let default = names.filter(|it| it.value.eq_ignore_ascii_case("default"));
    Ok(default
        .filter_map(|it| Some(fault(&it.at, wrong(it)?)))
        .collect())
}

pub(super) fn version(look: &Look<'_>) -> Outcome {
    let parameters = look.parameters()?;
    let version = parameters.and_then(|it| it.version.as_ref());
    let other = version.filter(|it| it.value != "1.0.0");
    Ok(other
        .map(|it| {
            let sentence = format!("version {} is not known here, only 1.0.0", shown(it));
            in_parameters(&it.at, sentence)
        })
        .into_iter()
        .collect())
}

pub(super) fn workload_manager(look: &Look<'_>) -> Outcome {
    let parameters = look.parameters()?;
    let manager = parameters.and_then(|it| it.workload_manager.as_ref());
    let other = manager.filter(|it| it.value != "slurm");
    Ok(other
        .map(|it| {
            let shown = shown(it);
            let sentence =
                format!("workload_manager is {shown}; the lifecycle scripts set up only slurm");
            in_parameters(&it.at, sentence)
        })
        .into_iter()
        .collect())
}

pub(super) fn type_choice(look: &Look<'_>) -> Outcome {
    let wrong = |group: &Group| {
        let sentence = match (&group.instance_type, &group.alternatives) {
            (None, None) => "has neither InstanceType nor InstanceRequirements",
            (Some(_), Some(_)) => "has both InstanceType and InstanceRequirements",
            _ => return None,
        };
        let name = group.shown();
        Some(fault(&group.at, format!("group {name} {sentence}")))
    };
    Ok(look.cluster.groups.iter().filter_map(wrong).collect())
}

pub(super) fn min_count(look: &Look<'_>) -> Outcome {
    let wrong = |group: &Group| {
        let (count, min) = (group.count.as_ref()?, group.min_count.as_ref()?);
        let sentence = format!(
            "MinInstanceCount {} is more than InstanceCount {}",
            min.value, count.value
        );
        (min.value > count.value).then(|| fault(&min.at, sentence))
    };
    Ok(look.cluster.groups.iter().filter_map(wrong).collect())
}

pub(super) fn interface(look: &Look<'_>) -> Outcome {
    let wrong = |group: &Group| {
        let interface = group.interface.as_ref()?;
        let without = group.types().find(|it| spec(it).is_none())?;
        let sentence = format!(
            "InterfaceType is {}, but {} has no EFA as far as known",
            shown(interface),
            shown(without)
        );
        Some(fault(&interface.at, sentence))
    };
    Ok(look.cluster.groups.iter().filter_map(wrong).collect())
}

pub(super) fn node_recovery(look: &Look<'_>) -> Outcome {
    let recovery = look.cluster.node_recovery.as_ref();
    let none = recovery.filter(|it| it.value == "None");
    Ok(none
        .map(|it| {
            let sentence = "NodeRecovery is None: faulty nodes are not replaced, and jobs with \
                            --auto-resume=1 do not resume on new ones";
            fault(&it.at, sentence.to_owned())
        })
        .into_iter()
        .collect())
}
