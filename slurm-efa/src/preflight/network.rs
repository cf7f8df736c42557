//! Subnets, security groups, zones and ways out.

use std::collections::BTreeSet;

use cluster::answers::{Endpoint, Permission, RouteTable, SecurityGroup, Subnet};
use cluster::create_cluster::Vpc;
use cluster::{FoundText, Spot};
use host::printable;

use super::look::{Look, Outcome, answer, fault, security_group, subnet};

fn shown(text: &FoundText) -> String {
    printable(&text.value, 80)
}

pub(super) fn vpc_missing(look: &Look<'_>) -> Outcome {
    if look.cluster.vpc.is_some() {
        return Ok(Vec::new());
    }
    let groups = look.efa_groups();
    let without = groups.first().filter(|group| group.vpc.is_none());
    Ok(without
        .map(|group| {
            let name = group.shown();
            let sentence = format!(
                "there is no VpcConfig, so group {name} is in SageMaker's own network, without EFA \
                 and without access to file systems of FSx"
            );
            fault(&Spot::default(), sentence)
        })
        .into_iter()
        .collect())
}

pub(super) fn vpc_override(look: &Look<'_>) -> Outcome {
    if look.cluster.vpc.is_some() {
        return Ok(Vec::new());
    }
    let own = look.cluster.groups.iter().filter_map(|it| it.vpc.as_ref());
    let sentence = "OverrideVpcConfig is given, but there is no VpcConfig that it could override";
    Ok(own.map(|it| fault(&it.at, sentence.to_owned())).collect())
}

pub(super) fn subnets(look: &Look<'_>) -> Outcome {
    let known = answer(&look.input.answers.subnets)?;
    let named = look.cluster.all_vpcs().flat_map(|vpc| &vpc.subnets);
    let absent = named.filter(|id| subnet(known, id).is_none()).map(|id| {
        let sentence = format!("{} does not exist in this account and Region", shown(id));
        fault(&id.at, sentence)
    });
    Ok(absent.collect())
}

pub(super) fn security_groups(look: &Look<'_>) -> Outcome {
    let known = answer(&look.input.answers.security_groups)?;
    let named = look.cluster.all_vpcs().flat_map(|it| &it.security_groups);
    let absent = named.filter(|id| security_group(known, &id.value).is_none());
    let absent = absent.map(|id| {
        let sentence = format!("{} does not exist in this account and Region", shown(id));
        fault(&id.at, sentence)
    });
    Ok(absent.collect())
}

pub(super) fn one_vpc(look: &Look<'_>) -> Outcome {
    let subnets = answer(&look.input.answers.subnets)?;
    let groups = answer(&look.input.answers.security_groups)?;
    let mut faults = Vec::new();
    for vpc in look.cluster.all_vpcs() {
        let of_subnets = vpc.subnets.iter().filter_map(|id| subnet(subnets, id));
        let of_subnets = of_subnets.map(|it| it.vpc_id.as_str());
        let own = vpc.security_groups.iter();
        let of_groups = own.filter_map(|id| security_group(groups, &id.value));
        let of_groups = of_groups.map(|it| it.vpc_id.as_str());
        let ids: BTreeSet<&str> = of_subnets.chain(of_groups).collect();
        if ids.len() > 1 {
            let ids: Vec<&str> = ids.into_iter().collect();
            let ids = printable(&ids.join(", "), 200);
            let sentence = format!("its subnets and security groups are of several VPCs: {ids}");
            faults.push(fault(&vpc.at, sentence));
        }
    }
    Ok(faults)
}

/// A direction of a security group's rules.
type Rules = fn(&SecurityGroup) -> &[Permission];

/// The security groups of `vpc` that AWS knows.
fn known<'a>(vpc: &Vpc, groups: &'a [SecurityGroup]) -> Vec<&'a SecurityGroup> {
    let own = vpc.security_groups.iter();
    own.filter_map(|id| security_group(groups, &id.value))
        .collect()
}

/// Whether all traffic is allowed between the members of this group, by a rule
/// that names the group: EFA does not pass by addresses.
fn allows_itself(group: &SecurityGroup, rules: Rules) -> bool {
    let mut rules = rules(group).iter();
    rules.any(|rule| rule.is_all_traffic() && rule.names(&group.id))
}

fn ingress(group: &SecurityGroup) -> &[Permission] {
    &group.ingress
}

fn egress(group: &SecurityGroup) -> &[Permission] {
    &group.egress
}

fn without_itself(look: &Look<'_>, rules: Rules, direction: &str) -> Outcome {
    let groups = answer(&look.input.answers.security_groups)?;
    let mut faults = Vec::new();
    for vpc in look.efa_vpcs() {
        let own = known(vpc, groups);
        if own.is_empty() || own.iter().any(|group| allows_itself(group, rules)) {
            continue;
        }
        let ids: Vec<&str> = own.iter().map(|it| it.id.as_str()).collect();
        let by_address = own.iter().flat_map(|group| rules(group));
        let mut by_address = by_address.filter(|rule| rule.is_all_traffic());
        let but = match by_address.any(Permission::is_anywhere) {
            true => "; the rule for 0.0.0.0/0 is not enough, because EFA traffic has no addresses",
            false => "",
        };
        let sentence = format!(
            "{} has no {direction} rule that allows all traffic (protocol -1) {} itself, which \
             EFA needs{but}",
            printable(&ids.join(", "), 200),
            if direction == "inbound" { "from" } else { "to" },
        );
        faults.push(fault(&vpc.at, sentence));
    }
    Ok(faults)
}

pub(super) fn self_ingress(look: &Look<'_>) -> Outcome {
    without_itself(look, ingress, "inbound")
}

pub(super) fn self_egress(look: &Look<'_>) -> Outcome {
    without_itself(look, egress, "outbound")
}

pub(super) fn open_egress(look: &Look<'_>) -> Outcome {
    let groups = answer(&look.input.answers.security_groups)?;
    let mut faults = Vec::new();
    for vpc in look.efa_vpcs() {
        for group in known(vpc, groups) {
            let mut rules = group.egress.iter();
            if rules.any(|rule| rule.is_all_traffic() && rule.is_anywhere()) {
                let sentence = format!(
                    "{} lets all traffic out to 0.0.0.0/0, with which HyperPod's EFA health check \
                     can fail",
                    printable(&group.id, 80)
                );
                faults.push(fault(&vpc.at, sentence));
            }
        }
    }
    Ok(faults)
}

pub(super) fn shared_group(look: &Look<'_>) -> Outcome {
    let groups = answer(&look.input.answers.security_groups)?;
    let mut faults = Vec::new();
    for (partition, members) in look.efa_partitions()? {
        let vpcs = members.iter().filter_map(|it| look.cluster.vpc_of(it));
        let sets: Vec<(&Vpc, BTreeSet<&str>)> = vpcs
            .map(|vpc| {
                let own = known(vpc, groups).into_iter();
                let with = own.filter(|it| allows_itself(it, ingress) && allows_itself(it, egress));
                (vpc, with.map(|it| it.id.as_str()).collect())
            })
            .collect();
        let Some(((_, first), rest)) = sets.split_first() else {
            continue;
        };
        let alone_wrong = sets.iter().any(|(_, own)| own.is_empty());
        let is_common = |id: &&&str| rest.iter().all(|(_, own)| own.contains(**id));
        if !alone_wrong
            && !first.iter().any(|id| is_common(&id))
            && let Some((vpc, _)) = rest.last()
        {
            let partition = printable(partition, 80);
            let sentence = format!(
                "the groups of partition {partition} have no security group in common that allows \
                 all traffic to and from itself, so EFA does not connect them"
            );
            faults.push(fault(&vpc.at, sentence));
        }
    }
    Ok(faults)
}

fn list(zones: &BTreeSet<&str>) -> String {
    let zones: Vec<&str> = zones.iter().copied().collect();
    printable(&zones.join(", "), 200)
}

pub(super) fn group_zone(look: &Look<'_>) -> Outcome {
    let mut faults = Vec::new();
    answer(&look.input.answers.subnets)?;
    for group in look.efa_groups() {
        let zones = look.zones(group)?;
        if zones.len() > 1
            && let Some(vpc) = look.cluster.vpc_of(group)
        {
            let (name, zones) = (group.shown(), list(&zones));
            let sentence = format!(
                "the subnets of group {name} are in {zones}; EFA traffic does not leave a zone"
            );
            faults.push(fault(&vpc.at, sentence));
        }
    }
    Ok(faults)
}

pub(super) fn partition_zone(look: &Look<'_>) -> Outcome {
    answer(&look.input.answers.subnets)?;
    let mut faults = Vec::new();
    for (partition, members) in look.efa_partitions()? {
        let mut all = BTreeSet::new();
        let mut several = false;
        for group in &members {
            let zones = look.zones(group)?;
            several |= zones.len() > 1;
            all.extend(zones);
        }
        // A group in several zones is another check's.
        if all.len() > 1
            && !several
            && let Some(group) = members.last()
        {
            let (partition, zones) = (printable(partition, 80), list(&all));
            let sentence = format!(
                "partition {partition} has groups in {zones}: a job on nodes of both cannot use EFA \
                 between them"
            );
            faults.push(fault(&group.at, sentence));
        }
    }
    Ok(faults)
}

pub(super) fn offered(look: &Look<'_>) -> Outcome {
    let offerings = answer(&look.input.answers.offerings)?;
    answer(&look.input.answers.subnets)?;
    let mut faults = Vec::new();
    for group in &look.cluster.groups {
        let zones = look.zones(group)?;
        for name in group.types().filter(|_| !zones.is_empty()) {
            let bare = name.value.strip_prefix("ml.").unwrap_or(&name.value);
            let mut offers = offerings.iter().filter(|it| it.instance_type == bare);
            if !offers.any(|it| zones.contains(it.location.as_str())) {
                let (shown, zones) = (shown(name), list(&zones));
                faults.push(fault(
                    &name.at,
                    format!("{shown} is not offered in {zones}"),
                ));
            }
        }
    }
    Ok(faults)
}

/// The route table of a subnet: its own, else its VPC's main one.
fn route_table<'a>(subnet: &Subnet, tables: &'a [RouteTable]) -> Option<&'a RouteTable> {
    let own = |table: &&RouteTable| {
        let mut associations = table.associations.iter();
        associations.any(|it| it.subnet_id.as_deref() == Some(&subnet.id))
    };
    let main = |table: &&RouteTable| {
        table.vpc_id == subnet.vpc_id && table.associations.iter().any(|it| it.main)
    };
    tables.iter().find(own).or_else(|| tables.iter().find(main))
}

/// Each subnet that AWS knows, once, with its route table.
fn routed<'l>(
    look: &'l Look<'_>,
) -> Result<Vec<(&'l FoundText, &'l Subnet, &'l RouteTable)>, String> {
    let subnets = answer(&look.input.answers.subnets)?;
    let tables = answer(&look.input.answers.route_tables)?;
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for id in look.cluster.all_vpcs().flat_map(|vpc| &vpc.subnets) {
        let Some(subnet) = subnet(subnets, id).filter(|_| seen.insert(&id.value)) else {
            continue;
        };
        let table = route_table(subnet, tables)
            .ok_or_else(|| format!("the route table of {} is not in the answers", shown(id)))?;
        all.push((id, subnet, table));
    }
    Ok(all)
}

/// Whether nodes without a public address reach the internet.
fn has_internet(table: &RouteTable) -> bool {
    let mut routes = table.routes.iter();
    routes.any(|it| it.is_default() && !it.is_internet_gateway())
}

pub(super) fn public_subnet(look: &Look<'_>) -> Outcome {
    let public = routed(look)?.into_iter().filter(|(_, _, table)| {
        let mut routes = table.routes.iter();
        routes.any(|it| it.is_default() && it.is_internet_gateway())
    });
    let public = public.map(|(id, ..)| {
        let sentence = format!(
            "{} is a public subnet: its way out is an internet gateway, but nodes get no public \
             address",
            shown(id)
        );
        fault(&id.at, sentence)
    });
    Ok(public.collect())
}

fn serves(endpoint: &Endpoint, subnet: &Subnet, table: &RouteTable, service: &str) -> bool {
    endpoint.vpc_id == subnet.vpc_id
        && endpoint.service_name.rsplit('.').next() == Some(service)
        && endpoint.state.eq_ignore_ascii_case("available")
        && (endpoint.vpc_endpoint_type != "Gateway" || endpoint.route_table_ids.contains(&table.id))
}

/// The subnets without internet, with those of `services` that have no endpoint.
fn lacking(look: &Look<'_>, services: &[&str], why: &str) -> Outcome {
    let endpoints = answer(&look.input.answers.endpoints)?;
    let mut faults = Vec::new();
    for (id, subnet, table) in routed(look)? {
        if has_internet(table) {
            continue;
        }
        let absent = |service: &&&str| {
            !endpoints
                .iter()
                .any(|it| serves(it, subnet, table, service))
        };
        let absent: Vec<&str> = services.iter().filter(absent).copied().collect();
        if !absent.is_empty() {
            let sentence = format!(
                "{} has no way to the internet and no VPC endpoint for {}, {why}",
                shown(id),
                absent.join(", ")
            );
            faults.push(fault(&id.at, sentence));
        }
    }
    Ok(faults)
}

pub(super) fn s3_endpoint(look: &Look<'_>) -> Outcome {
    lacking(look, &["s3"], "so nodes cannot fetch the lifecycle scripts")
}

/// What Session Manager needs (Systems Manager's guide, VPC endpoints), and the
/// log of the lifecycle scripts.
const SERVICES: [&str; 4] = ["ssm", "ssmmessages", "ec2messages", "logs"];

pub(super) fn service_endpoints(look: &Look<'_>) -> Outcome {
    let why = "so there are no sessions by SSM, or no logs in CloudWatch";
    lacking(look, &SERVICES, why)
}
