//! File systems of FSx for Lustre.

use cluster::answers::FileSystem;
use cluster::{FoundText, Spot};
use host::printable;

use super::look::{Fault, File, Look, Outcome, answer, subnet};

/// A file system that the files name.
struct Named<'l> {
    file: File,
    dns: &'l FoundText,
    mount: Option<&'l FoundText>,
}

fn named<'l>(look: &'l Look<'_>) -> Vec<Named<'l>> {
    let parameters = look.provisioning.as_ref();
    let by_parameters = parameters.and_then(|it| {
        Some(Named {
            file: File::Provisioning,
            dns: it.fsx_dns_name.as_ref()?,
            mount: it.fsx_mount_name.as_ref(),
        })
    });
    let by_groups = look.cluster.groups.iter().flat_map(|it| &it.lustre);
    let by_groups = by_groups.map(|it| Named {
        file: File::Cluster,
        dns: &it.dns_name,
        mount: it.mount_name.as_ref(),
    });
    by_parameters.into_iter().chain(by_groups).collect()
}

fn fault(file: File, at: &Spot, sentence: String) -> Fault {
    Fault {
        file,
        at: at.clone(),
        sentence,
    }
}

/// The file systems that the files name and AWS knows.
fn known<'l>(look: &'l Look<'_>) -> Result<Vec<(Named<'l>, &'l FileSystem)>, String> {
    let named = named(look);
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let systems = answer(&look.input.answers.file_systems)?;
    let found = named.into_iter().filter_map(|named| {
        let same = |it: &&FileSystem| it.dns_name == named.dns.value;
        let system = systems.iter().find(same)?;
        Some((named, system))
    });
    Ok(found.collect())
}

pub(super) fn pair(look: &Look<'_>) -> Outcome {
    let Some(parameters) = look.parameters()? else {
        return Ok(Vec::new());
    };
    let (given, lacks) = match (&parameters.fsx_dns_name, &parameters.fsx_mount_name) {
        (Some(dns), None) => (dns, "fsx_dns_name is given without fsx_mountname"),
        (None, Some(mount)) => (mount, "fsx_mountname is given without fsx_dns_name"),
        _ => return Ok(Vec::new()),
    };
    let sentence = format!("{lacks}, so the lifecycle scripts mount nothing");
    Ok(vec![fault(File::Provisioning, &given.at, sentence)])
}

pub(super) fn exists(look: &Look<'_>) -> Outcome {
    let named = named(look);
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let systems = answer(&look.input.answers.file_systems)?;
    let absent = named.iter().filter(|named| {
        let mut systems = systems.iter();
        !systems.any(|it| it.dns_name == named.dns.value)
    });
    let absent = absent.map(|named| {
        let shown = printable(&named.dns.value, 120);
        let sentence = format!("no file system of this account and Region is called {shown}");
        fault(named.file, &named.dns.at, sentence)
    });
    Ok(absent.collect())
}

pub(super) fn mount_name(look: &Look<'_>) -> Outcome {
    let wrong = |(named, system): (Named<'_>, &FileSystem)| {
        let mount = named.mount?;
        let lustre = system.lustre_configuration.as_ref();
        let real = lustre.and_then(|it| it.mount_name.as_deref())?;
        let sentence = format!(
            "the mount name of {} is {}, not {}",
            printable(&named.dns.value, 120),
            printable(real, 40),
            printable(&mount.value, 40)
        );
        (real != mount.value).then(|| fault(named.file, &mount.at, sentence))
    };
    Ok(known(look)?.into_iter().filter_map(wrong).collect())
}

pub(super) fn zone(look: &Look<'_>) -> Outcome {
    let known = known(look)?;
    if known.is_empty() {
        return Ok(Vec::new());
    }
    let subnets = answer(&look.input.answers.subnets)?;
    let mut faults = Vec::new();
    for (named, system) in known {
        let zones: Vec<&str> = system
            .subnet_ids
            .iter()
            .filter_map(|id| subnets.iter().find(|subnet| subnet.id == *id))
            .map(|subnet| subnet.availability_zone.as_str())
            .collect();
        if zones.is_empty() {
            return Err(format!(
                "the zone of {} is unknown: describe-subnets.json lacks its subnet",
                printable(&named.dns.value, 120)
            ));
        }
        for group in look.efa_groups() {
            let own = look.zones(group)?;
            if !own.is_empty() && !own.iter().any(|zone| zones.contains(zone)) {
                let sentence = format!(
                    "the file system is in {}, but group {} is in {}",
                    zones.join(", "),
                    group.shown(),
                    own.into_iter().collect::<Vec<_>>().join(", ")
                );
                faults.push(fault(named.file, &named.dns.at, sentence));
            }
        }
    }
    Ok(faults)
}

/// Lustre's port: the servers of FSx listen there, and their security group must
/// let the nodes in.
const LUSTRE: i64 = 988;

pub(super) fn reachable(look: &Look<'_>) -> Outcome {
    let known = known(look)?;
    if known.is_empty() {
        return Ok(Vec::new());
    }
    let answers = &look.input.answers;
    let interfaces = answer(&answers.network_interfaces)?;
    let groups = answer(&answers.security_groups)?;
    let subnets = answer(&answers.subnets)?;
    let mut faults = Vec::new();
    for (named, system) in known {
        let of_system = interfaces
            .iter()
            .filter(|it| system.network_interface_ids.contains(&it.id));
        let ids = of_system.flat_map(|it| &it.groups);
        let ids: Vec<&str> = ids.filter_map(|it| it.group_id.as_deref()).collect();
        let rules: Vec<_> = groups
            .iter()
            .filter(|group| ids.contains(&group.id.as_str()))
            .flat_map(|group| &group.ingress)
            .filter(|rule| rule.has_tcp_port(LUSTRE))
            .collect();
        if ids.is_empty() || !groups.iter().any(|it| ids.contains(&it.id.as_str())) {
            return Err(format!(
                "the security groups of {} are not in the answers",
                printable(&named.dns.value, 120)
            ));
        }
        for vpc in look.cluster.all_vpcs() {
            let own = &vpc.security_groups;
            let admitted = rules.iter().any(|rule| {
                let blocks = vpc.subnets.iter().filter_map(|id| subnet(subnets, id));
                let mut blocks = blocks.map(|subnet| subnet.cidr_block.as_str());
                own.iter().any(|group| rule.names(&group.value))
                    || rule.is_anywhere()
                    || blocks
                        .any(|block| rule.ip_ranges.iter().any(|it| covers(&it.cidr_ip, block)))
            });
            if !admitted {
                let sentence = format!(
                    "no security group of {} admits TCP {LUSTRE} from those of the nodes",
                    printable(&named.dns.value, 120)
                );
                faults.push(Fault {
                    file: File::Cluster,
                    at: vpc.at.clone(),
                    sentence,
                });
            }
        }
    }
    Ok(faults)
}

/// Whether the first block of IPv4 addresses contains the second.
fn covers(outer: &str, inner: &str) -> bool {
    let parse = |text: &str| {
        let (address, bits) = text.split_once('/')?;
        let address: std::net::Ipv4Addr = address.parse().ok()?;
        let bits: u32 = bits.parse().ok().filter(|bits| *bits <= 32)?;
        Some((u32::from(address), bits))
    };
    let (Some((outer, wide)), Some((inner, narrow))) = (parse(outer), parse(inner)) else {
        return false;
    };
    let mask = u32::MAX.checked_shl(32 - wide).unwrap_or(0);
    wide <= narrow && outer & mask == inner & mask
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_block_covers_what_lies_in_it() {
        assert!(covers("10.1.0.0/16", "10.1.7.0/24"));
        assert!(covers("0.0.0.0/0", "10.1.7.0/24"));
        assert!(covers("10.1.7.0/24", "10.1.7.0/24"));
        assert!(!covers("10.1.7.0/25", "10.1.7.0/24"));
        assert!(!covers("10.2.0.0/16", "10.1.7.0/24"));
        assert!(!covers("10.2.0.0/99", "x"));
    }
}
