//! Addresses, network interfaces and quotas: is there enough for all nodes?

use std::collections::{BTreeMap, BTreeSet};

use cluster::answers::Quota;
use cluster::create_cluster::Group;
use cluster::{FoundText, Spot};
use host::printable;

use super::look::{Look, Outcome, answer, fault, spec, subnet};

/// The network interfaces of a node of this type, as HyperPod makes them: one
/// for each EFA device, at least one. `None` where sources contradict each
/// other, or the type is of a family whose types have many and is not known.
fn interfaces(name: &FoundText) -> Option<u64> {
    match spec(name) {
        Some(spec) => spec.efa_max.map(|count| u64::from(count).max(1)),
        None => {
            let bare = name.value.strip_prefix("ml.").unwrap_or(&name.value);
            let many = ["p", "trn"].iter().any(|family| bare.starts_with(family));
            (!many).then_some(1)
        }
    }
}

/// The addresses that a node takes: those of its interfaces, but an efa-only
/// interface has none, and then only the first interface has one.
fn addresses(group: &Group, name: &FoundText) -> Option<u64> {
    let efa_only = group.interface.as_ref();
    if efa_only.is_some_and(|it| it.value == "efa-only") {
        return Some(1);
    }
    interfaces(name)
}

/// What a group needs in all.
struct Need<'l> {
    group: &'l Group,
    count: u64,
    each: u64,
}

impl Need<'_> {
    fn total(&self) -> u64 {
        self.count.saturating_mul(self.each)
    }

    fn text(&self) -> String {
        let name = self.group.shown();
        format!("{name} {} × {} = {}", self.count, self.each, self.total())
    }
}

/// What the groups need by `each`; the largest of the types that a group may
/// have counts.
fn needs<'l>(
    look: &'l Look<'_>,
    each: impl Fn(&Group, &FoundText) -> Option<u64>,
) -> Result<Vec<Need<'l>>, String> {
    let mut all = Vec::new();
    for group in &look.cluster.groups {
        let Some(count) = &group.count else {
            continue;
        };
        let mut largest = 0;
        for name in group.types() {
            largest = largest.max(each(group, name).ok_or_else(|| {
                let shown = printable(&name.value, 80);
                format!("how many network interfaces a node of {shown} has is unknown")
            })?);
        }
        all.push(Need {
            group,
            count: count.value,
            each: largest,
        });
    }
    Ok(all)
}

/// Subnets that share groups, and what those groups need.
struct Pool<'l> {
    at: Spot,
    subnets: BTreeSet<&'l str>,
    needs: Vec<Need<'l>>,
}

fn pools<'l>(look: &'l Look<'_>) -> Result<Vec<Pool<'l>>, String> {
    let mut pools: Vec<Pool<'l>> = Vec::new();
    for need in needs(look, addresses)? {
        let Some(vpc) = look.cluster.vpc_of(need.group) else {
            continue;
        };
        let subnets = vpc.subnets.iter().map(|it| it.value.as_str());
        let mut merged = Pool {
            at: vpc.at.clone(),
            subnets: subnets.collect(),
            needs: vec![need],
        };
        let (shared, others): (Vec<_>, Vec<_>) = pools
            .into_iter()
            .partition(|pool| !pool.subnets.is_disjoint(&merged.subnets));
        for pool in shared {
            merged.subnets.extend(pool.subnets);
            merged.needs.extend(pool.needs);
        }
        pools = others;
        pools.push(merged);
    }
    Ok(pools)
}

/// What a pool has: `None` where AWS does not know a subnet, another check's
/// finding.
fn available(look: &Look<'_>, pool: &Pool<'_>) -> Result<Option<u64>, String> {
    let subnets = answer(&look.input.answers.subnets)?;
    let mut sum = 0u64;
    for vpc in look.cluster.all_vpcs() {
        if let Some(id) = vpc.subnets.iter().find(|id| subnet(subnets, id).is_none())
            && pool.subnets.contains(id.value.as_str())
        {
            return Ok(None);
        }
    }
    for known in subnets
        .iter()
        .filter(|it| pool.subnets.contains(it.id.as_str()))
    {
        sum = sum.saturating_add(known.available_ip_address_count);
    }
    Ok(Some(sum))
}

fn names(pool: &Pool<'_>) -> String {
    let names: Vec<&str> = pool.subnets.iter().copied().collect();
    printable(&names.join(", "), 300)
}

fn total(pool: &Pool<'_>) -> u64 {
    let totals = pool.needs.iter().map(Need::total);
    totals.fold(0, u64::saturating_add)
}

pub(super) fn enough_addresses(look: &Look<'_>) -> Outcome {
    answer(&look.input.answers.subnets)?;
    let mut faults = Vec::new();
    for pool in pools(look)? {
        let Some(free) = available(look, &pool)? else {
            continue;
        };
        let needed = total(&pool);
        if needed <= free {
            continue;
        }
        let texts: Vec<String> = pool.needs.iter().map(Need::text).collect();
        let mut sentence = format!(
            "the groups in {} need {needed} addresses ({}), and {free} are free",
            names(&pool),
            texts.join("; ")
        );
        let efa_only: u64 = pool.needs.iter().map(|need| need.count).sum();
        if efa_only < needed {
            sentence += &format!("; with InterfaceType efa-only they would need {efa_only}");
        }
        faults.push(fault(&pool.at, sentence));
    }
    Ok(faults)
}

pub(super) fn spare_addresses(look: &Look<'_>) -> Outcome {
    answer(&look.input.answers.subnets)?;
    let mut faults = Vec::new();
    for pool in pools(look)? {
        let Some(free) = available(look, &pool)? else {
            continue;
        };
        let used = pool.needs.iter().filter(|need| need.count > 0);
        let largest = used.map(|need| need.each).max().unwrap_or(0);
        let needed = total(&pool);
        if needed <= free && free - needed < largest {
            let sentence = format!(
                "after all nodes are there, {} has {} addresses left, and one more node needs \
                 {largest}: a node that replaces another one may have to wait for its addresses",
                names(&pool),
                free - needed
            );
            faults.push(fault(&pool.at, sentence));
        }
    }
    Ok(faults)
}

fn quota(quotas: &[Quota], is: impl Fn(&Quota) -> bool) -> Option<&Quota> {
    quotas.iter().find(|quota| is(quota))
}

/// Wanted instances of each type, and where the first of a type is named.
fn wanted<'l>(look: &'l Look<'_>) -> BTreeMap<&'l str, (u64, &'l Spot)> {
    let mut wanted: BTreeMap<&str, (u64, &Spot)> = BTreeMap::new();
    for group in &look.cluster.groups {
        if let (Some(name), Some(count)) = (&group.instance_type, &group.count) {
            let entry = wanted.entry(&name.value).or_insert((0, &count.at));
            entry.0 = entry.0.saturating_add(count.value);
        }
    }
    wanted
}

pub(super) fn type_quota(look: &Look<'_>) -> Outcome {
    let quotas = answer(&look.input.answers.sagemaker_quotas)?;
    let mut faults = Vec::new();
    for (name, (count, at)) in wanted(look) {
        let shown = printable(name, 80);
        let wanted = format!("{name} for cluster usage");
        let quota = quota(quotas, |it| it.quota_name.eq_ignore_ascii_case(&wanted))
            .ok_or_else(|| format!("the answer has no quota \"{shown} for cluster usage\""))?;
        if quota.value < count as f64 {
            let sentence = format!(
                "{count} instances of {shown} are wanted, and the quota \"{shown} for cluster \
                 usage\" is {}",
                quota.value
            );
            faults.push(fault(at, sentence));
        }
    }
    Ok(faults)
}

/// The part of the name that both wordings of SageMaker's quota have.
const PER_CLUSTER: &str = "instances allowed per sagemaker hyperpod cluster";

pub(super) fn cluster_quota(look: &Look<'_>) -> Outcome {
    let quotas = answer(&look.input.answers.sagemaker_quotas)?;
    let counts = look
        .cluster
        .groups
        .iter()
        .filter_map(|it| it.count.as_ref());
    let count = counts.fold(0, |sum: u64, it| sum.saturating_add(it.value));
    let quota = quota(quotas, |it| {
        it.quota_name.to_lowercase().contains(PER_CLUSTER)
    })
    .ok_or("the answer has no quota for the instances of one HyperPod cluster")?;
    if quota.value >= count as f64 {
        return Ok(Vec::new());
    }
    let sentence = format!(
        "the cluster has {count} instances, and the quota for one HyperPod cluster is {}",
        quota.value
    );
    Ok(vec![fault(&Spot::default(), sentence)])
}

/// Network interfaces of a Region (Service Quotas, Amazon VPC).
const INTERFACES: &str = "L-DF5E4CA3";

pub(super) fn interface_quota(look: &Look<'_>) -> Outcome {
    let quotas = answer(&look.input.answers.vpc_quotas)?;
    let quota = quota(quotas, |it| it.quota_code == INTERFACES)
        .ok_or_else(|| format!("the answer has no quota {INTERFACES}"))?;
    let needs = needs(look, |_, name| interfaces(name))?;
    let needed = needs.iter().map(Need::total).fold(0, u64::saturating_add);
    if quota.value >= needed as f64 {
        return Ok(Vec::new());
    }
    let sentence = format!(
        "the nodes have {needed} network interfaces, and the quota of the Region ({INTERFACES}) is \
         {}, of which others may have used some",
        quota.value
    );
    Ok(vec![fault(&Spot::default(), sentence)])
}
