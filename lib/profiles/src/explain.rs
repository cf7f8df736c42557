//! How the plugin's decisions read: `--efa-explain` and `srun --efa-profile=list`.

use std::fmt::Write;

use config::Config;
use efa::Stack;
use efa::instance_types;
use efa::instance_types::GpuDirect;
use efa::software::Found;
use host::printable;

use crate::plan::{Action, NodeFacts, Plan};
use crate::profile;
use crate::rules::Component;

/// The lines of `--efa-explain`, without a prefix. `asked` says where the
/// request came from.
pub fn lines(plan: &Plan, facts: Option<&NodeFacts>, asked: &str) -> Vec<String> {
    let node = facts.map_or("this node", NodeFacts::label);
    let profile = plan.profile.as_deref().unwrap_or("none");
    let mut lines = Vec::with_capacity(plan.entries.len() + 2);
    match facts {
        Some(facts) => {
            let instance = match &facts.instance {
                Ok(instance) => instance.to_string(),
                Err(reason) => format!("instance type not known ({reason})"),
            };
            let devices = match &facts.devices {
                Ok(1) => "1 EFA device".to_owned(),
                Ok(count) => format!("{count} EFA devices"),
                Err(reason) => format!("number of EFA devices not known ({reason})"),
            };
            lines.push(format!(
                "{node}: profile {profile} ({asked}); {instance}; {devices}"
            ));
            lines.push(match facts.container {
                Some(reason) => format!(
                    "{node}: the step runs in a container ({reason}), whose software is not the node's: \
                     only what holds for every version is set"
                ),
                None => format!("{node}: found {}", stack(&facts.stack)),
            });
        }
        None => lines.push(format!("{node}: no profile ({asked})")),
    }
    lines.extend(plan.entries.iter().map(|entry| {
        let (name, why) = (&entry.variable, &entry.why);
        match &entry.action {
            Action::Set { value } => format!("{node}: set {name}={}: {why}", printable(value, 200)),
            Action::Kept { user, ours } => format!(
                "{node}: left alone {name}={user}: it is the job's own; the profile would set {}: {why}",
                printable(ours, 200)
            ),
            Action::NotSet => format!("{node}: left alone {name}: {why}"),
            Action::Removed => format!("{node}: removed {name}: {why}"),
            Action::Harmful => format!("{node}: left alone {name}, but it does harm: {why}"),
        }
    }));
    lines
}

fn stack(stack: &Stack) -> String {
    let components: [(Component, &Option<Found>); 6] = [
        (Component::EfaInstaller, &stack.efa_installer),
        (Component::Libfabric, &stack.libfabric),
        (Component::AwsOfiNccl, &stack.aws_ofi_nccl),
        (Component::Nccl, &stack.nccl),
        (Component::RdmaCore, &stack.rdma_core),
        (Component::Kernel, &stack.kernel),
    ];
    let driver = ("EFA driver", &stack.efa_driver);
    components
        .iter()
        .map(|(component, found)| (component.name(), *found))
        .chain([driver])
        .map(|(name, found)| match found {
            Some(found) => format!("{name} {} ({})", printable(&found.raw, 40), found.evidence),
            None if name == driver.0 && stack.is_kernels_driver => {
                format!("{name} the kernel's own")
            }
            None => format!("{name} unknown"),
        })
        .collect::<Vec<_>>()
        .join(", ")
}

/// What the type's EFA devices can do with remote memory.
fn rdma(spec: &instance_types::Spec) -> &'static str {
    match (spec.rdma_read, spec.rdma_write) {
        (Some(true), Some(true)) => "read, write",
        (Some(true), _) => "read",
        (Some(false), _) => "no",
        (None, _) => "not known",
    }
}

/// The table of `srun --efa-profile=list`.
pub fn table(config: &Config) -> String {
    let mut text = String::from(
        "NAME                 EFA DEVICES  RDMA        GPUDIRECT RDMA  FOR\n\
         auto                                                          whatever type the node says it is\n\
         none                                                          no profile, not the site's default either\n",
    );
    let mut row = |name: &str, devices: &str, [rdma, gpudirect]: [&str; 2], what: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{name:<20} {devices:<12} {rdma:<11} {gpudirect:<15} {what}"
        );
    };
    row(
        profile::GENERIC,
        "any",
        [""; 2],
        "a type that this table does not have",
    );
    for family in instance_types::families() {
        row(family, "", [""; 2], &format!("every {family} type"));
        for spec in instance_types::family_specs(family) {
            let devices = spec
                .efa_max
                .map_or("not known".to_owned(), |max| format!("up to {max}"));
            let gpudirect = match spec.gpudirect {
                GpuDirect::Required => "yes",
                GpuDirect::NotAvailable => "no",
                GpuDirect::Unknown => "not known",
            };
            row(spec.name, &devices, [rdma(spec), gpudirect], "");
        }
    }
    for (name, site) in &config.profiles {
        let devices = site
            .devices
            .map_or(String::new(), |least| format!("at least {least}"));
        let base = site
            .base
            .as_deref()
            .map_or(String::new(), |base| format!(", based on {base}"));
        row(
            name,
            &devices,
            [""; 2],
            &format!("this site ({}:{}){base}", config.path.display(), site.line),
        );
    }
    if let Some(default) = &config.default_profile {
        let _ = writeln!(
            text,
            "\nJobs that ask for nothing get {default} ({}).",
            config.path.display()
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_without_a_version_is_called_the_kernels_own() {
        let own = Stack {
            is_kernels_driver: true,
            ..Stack::default()
        };
        assert!(stack(&own).ends_with("EFA driver the kernel's own"));
        let none = stack(&Stack::default());
        assert!(none.ends_with("EFA driver unknown"), "{none}");
    }
}
