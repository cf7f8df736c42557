//! Slurm as it runs: munge, slurmctld, slurmd, and what slurmctld thinks of this
//! node. Every question has a time limit.

use host::exec::Said;
use host::{Sysroot, daemons, printable};
use slurm::scontrol::Shown;
use slurm::{NodeName, Program};

use super::look::{Look, fatal, unknown, warning};
use crate::setup::discover::Site;
use crate::setup::run;

const NAME_IT: &str = "say the node's name in Slurm with --node";

/// Whether munge makes credentials. Without them no Slurm command works.
pub(super) fn munge(site: &Site) -> Look {
    let auth = site.slurm.conf.value("AuthType").unwrap_or("auth/munge");
    if auth != "auth/munge" {
        return Ok(format!("AuthType={} needs none", printable(auth, 60)));
    }
    let Some(program) = run::find("munge") else {
        return unknown("there is no munge program", "install munge");
    };
    let info = site.slurm.conf.value("AuthInfo").unwrap_or_default();
    let socket = info
        .split(',')
        .find_map(|it| it.trim().strip_prefix("socket="));
    let socket = socket.map(|it| format!("--socket={it}"));
    let mut arguments = vec!["-n"];
    arguments.extend(socket.as_deref());
    match run::run(&program, &arguments) {
        Ok(ran) if ran.success() => Ok("munge makes credentials".to_owned()),
        Ok(ran) => fatal(
            format!("munge makes no credentials: {}", run::complaint(&ran)),
            "systemctl restart munge",
        ),
        Err(error) => unknown(error, "look again"),
    }
}

/// What slurmctld says of its configuration, if it answers.
pub(super) fn config_in_force(site: &Site) -> Look {
    match run::slurms(site, Program::Scontrol, &["show", "config"]) {
        Ok(ran) => shown_config(ran),
        Err(error) => unknown(error, "install Slurm's client programs"),
    }
}

/// A configuration that was shown is an answer, whatever the exit status: `scontrol
/// show config` ends as `scontrol ping` does, which says DOWN and ends with 1 where
/// slurmctld works but refuses a credential that is restricted to SlurmUser (seen
/// with 24.11, where slurmctld ran as root).
fn shown_config(ran: Said) -> Look {
    match in_force_value(&ran.stdout, "ClusterName") {
        Some(_) => Ok(ran.stdout),
        None => fatal(
            format!("slurmctld does not answer: {}", run::complaint(&ran)),
            "on the controller: systemctl restart slurmctld; its log says why it ended",
        ),
    }
}

/// The values of a key in what [`config_in_force`] has. Those of a list are `Prolog[0]`
/// and so on; before 24.11 there is one prolog only, and its name has no number.
fn in_force_values<'a>(in_force: &'a str, key: &str) -> impl Iterator<Item = &'a str> {
    let lines = in_force.lines().filter_map(|line| line.split_once('='));
    let several = format!("{key}[");
    let named = lines.filter(move |(name, _)| {
        let name = name.trim();
        name.eq_ignore_ascii_case(several.trim_end_matches('[')) || name.starts_with(&several)
    });
    named.map(|(_, value)| value.trim())
}

/// The first of them.
pub(super) fn in_force_value<'a>(in_force: &'a str, key: &str) -> Option<&'a str> {
    in_force_values(in_force, key).next()
}

/// The keys whose values slurmctld shows as slurm.conf has them.
const COMPARED: [&str; 4] = [
    "HealthCheckProgram",
    "HealthCheckNodeState",
    "PlugStackConfig",
    "Epilog",
];

/// Whether slurmctld has read the slurm.conf that is here. `in_force`: as
/// [`config_in_force`] has it.
pub(super) fn reconfigured(site: &Site, in_force: &str) -> Look {
    for key in ["Prolog"].into_iter().chain(COMPARED) {
        let values = site.slurm.conf.values(key);
        let shown: Vec<&str> = in_force_values(in_force, key).collect();
        // A relative path is shown as it was found.
        let Some(last) = values.last().filter(|it| !it.contains(',')) else {
            continue;
        };
        if key == "PlugStackConfig" && !last.starts_with('/') || shown.is_empty() {
            continue;
        }
        if !shown.iter().any(|it| it.eq_ignore_ascii_case(last)) {
            return warning(
                format!(
                    "slurm.conf has {key}={}, but slurmctld has {}",
                    printable(last, 200),
                    printable(&shown.join(", "), 200)
                ),
                "scontrol reconfigure",
            );
        }
    }
    Ok("slurmctld has read this slurm.conf".to_owned())
}

pub(super) fn slurmd() -> Look {
    match daemons::of_root(&Sysroot::real(), "slurmd") {
        None => unknown("the processes of this node cannot be listed", "look again"),
        Some(found) if found.is_empty() => fatal(
            "slurmd does not run here",
            "systemctl restart slurmd; its log says why it ended",
        ),
        Some(found) if found.iter().any(|it| it.is_nodes) => Ok("slurmd runs".to_owned()),
        Some(_) if uzers::get_current_uid() != 0 => Ok("a slurmd runs".to_owned()),
        Some(_) => warning(
            "the only slurmd is another PID namespace's, such as a container's",
            "systemctl restart slurmd",
        ),
    }
}

/// Whether jobs may start here, and who says that they may not.
pub(super) fn node_state(site: &Site) -> Look {
    let Some(node) = &site.slurm.node else {
        return unknown("the node's name in Slurm is not known", NAME_IT);
    };
    let ran = match run::slurms(
        site,
        Program::Scontrol,
        &["show", "node", "-o", node.as_str()],
    ) {
        Ok(ran) if ran.success() => ran,
        Ok(ran) => {
            let remedy = match run::said(&ran).contains("not found") {
                true => NAME_IT,
                false => "look again when slurmctld answers",
            };
            return unknown(run::complaint(&ran), remedy);
        }
        Err(error) => return unknown(error, "look again"),
    };
    match Shown::parse(&ran.stdout) {
        Some(shown) => judged(node, &ran.stdout, &shown),
        None => unknown(format!("slurmctld shows no state of {node}"), NAME_IT),
    }
}

fn judged(node: &NodeName, line: &str, shown: &Shown) -> Look {
    let flags = printable(&shown.flags.join("+"), 100);
    let resume = format!("scontrol update NodeName={node} State=RESUME");
    if shown.is_out() {
        let reason = match shown.reason.as_str() {
            "" => "without a reason".to_owned(),
            reason => format!("with the reason \"{}\"", printable(reason, 240)),
        };
        let by = who(line).map_or_else(String::new, |who| format!(" by {}", printable(who, 60)));
        let ours = ["EFA: ", "GPU: "];
        let remedy = match ours.iter().any(|it| shown.reason.starts_with(it)) {
            true => format!("see `efa-check node`; once it is fixed: {resume}"),
            false => format!("slurm-efa did not do so; once its reason is gone: {resume}"),
        };
        return warning(format!("{node} is {flags}{by}, {reason}"), remedy);
    }
    let state = line.split_whitespace().find(|it| it.starts_with("State="));
    if state.is_some_and(|it| it.contains('*')) {
        return fatal(
            format!("{node} is {flags}, and slurmctld does not reach its slurmd"),
            "systemctl restart slurmd; see its log and the firewall",
        );
    }
    Ok(format!("{node} is {flags}"))
}

/// Who gave the reason: `root` of ` [root@2026-11-22T09:12:00]`.
fn who(line: &str) -> Option<&str> {
    let reason = line.split_once(" Reason=")?.1;
    let mut brackets = reason.rsplit(" [").filter_map(|it| it.split(']').next());
    let (who, _) = brackets.find_map(|it| it.split_once('@'))?;
    Some(who)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn seen(line: &str) -> Look {
        judged(&"n1".parse().unwrap(), line, &Shown::parse(line).unwrap())
    }

    fn ended_with_1(stdout: &str) -> Look {
        shown_config(Said {
            status: Some(ExitStatus::from_raw(1 << 8)),
            stdout: stdout.to_owned(),
            stderr: String::new(),
        })
    }

    #[test]
    fn a_slurmctld_that_shows_its_configuration_answers_although_the_ping_after_it_fails() {
        let down = "Slurmctld(primary) at controller is DOWN\n";
        let shown = format!("ClusterName             = ml\nEpilog = (null)\n\n{down}");
        assert_eq!(ended_with_1(&shown), Ok(shown));
        assert!(ended_with_1(down).is_err());
    }

    #[test]
    fn a_drained_node_is_named_with_who_drained_it_and_why() {
        let look = seen("NodeName=n1 State=IDLE+DRAIN Reason=new fan [bob@2026-11-22T09:12:00]");
        let (_, evidence, remedy) = look.unwrap_err();
        assert_eq!(
            evidence,
            "n1 is IDLE+DRAIN by bob, with the reason \"new fan\""
        );
        assert!(remedy.contains("slurm-efa did not do so"), "{remedy}");
    }

    #[test]
    fn a_node_that_efa_check_drained_is_led_to_efa_check() {
        let look =
            seen("NodeName=n1 State=IDLE+DRAIN Reason=EFA: 31 of 32 [root@2026-11-22T09:12:00]");
        let (_, _, remedy) = look.unwrap_err();
        assert_eq!(
            remedy,
            "see `efa-check node`; once it is fixed: scontrol update NodeName=n1 State=RESUME"
        );
    }

    #[test]
    fn a_node_whose_slurmd_does_not_answer_is_fatal() {
        assert!(seen("NodeName=n1 State=IDLE* ThreadsPerCore=2").is_err());
        assert!(seen("NodeName=n1 State=MIXED ThreadsPerCore=2").is_ok());
    }
}
