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

/// Which instances of a group are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    /// `InstanceCount`.
    Now,
    /// What `--planned` says, if that is more.
    Planned,
}

fn count(look: &Look<'_>, counted: Counted, group: &Group) -> Option<u64> {
    let now = group.count.as_ref()?.value;
    let name = group.name.as_ref();
    let planned = name.and_then(|name| look.input.planned.get(&name.value));
    Some(match (counted, planned) {
        (Counted::Planned, Some(planned)) => now.max(*planned),
        _ => now,
    })
}

/// What the groups need by `each`; the largest of the types that a group may
/// have counts.
fn needs<'l>(
    look: &'l Look<'_>,
    counted: Counted,
    each: impl Fn(&Group, &FoundText) -> Option<u64>,
) -> Result<Vec<Need<'l>>, String> {
    let mut all = Vec::new();
    for group in &look.cluster.groups {
        let Some(count) = count(look, counted, group) else {
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
            count,
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

fn pools<'l>(look: &'l Look<'_>, counted: Counted) -> Result<Vec<Pool<'l>>, String> {
    let mut pools: Vec<Pool<'l>> = Vec::new();
    for need in needs(look, counted, addresses)? {
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

fn texts(pool: &Pool<'_>) -> String {
    let texts: Vec<String> = pool.needs.iter().map(Need::text).collect();
    texts.join("; ")
}

pub(super) fn enough_addresses(look: &Look<'_>) -> Outcome {
    answer(&look.input.answers.subnets)?;
    let mut faults = Vec::new();
    for pool in pools(look, Counted::Now)? {
        let Some(free) = available(look, &pool)? else {
            continue;
        };
        let needed = total(&pool);
        if needed <= free {
            continue;
        }
        let mut sentence = format!(
            "the groups in {} need {needed} addresses ({}), and {free} are free",
            names(&pool),
            texts(&pool)
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
    for pool in pools(look, Counted::Now)? {
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

pub(super) fn planned_addresses(look: &Look<'_>) -> Outcome {
    if look.input.planned.is_empty() {
        return Ok(Vec::new());
    }
    answer(&look.input.answers.subnets)?;
    let mut faults = Vec::new();
    let now = pools(look, Counted::Now)?;
    for (pool, now) in pools(look, Counted::Planned)?.into_iter().zip(now) {
        let Some(free) = available(look, &pool)? else {
            continue;
        };
        let needed = total(&pool);
        // What does not fit today is another check's.
        if needed > free && total(&now) <= free {
            let sentence = format!(
                "with the planned counts the groups in {} need {needed} addresses ({}), and {free} \
                 are free",
                names(&pool),
                texts(&pool)
            );
            faults.push(fault(&pool.at, sentence));
        }
    }
    Ok(faults)
}

fn quota(quotas: &[Quota], is: impl Fn(&Quota) -> bool) -> Option<&Quota> {
    quotas.iter().find(|quota| is(quota))
}

/// Instances of each type, and where the first of a type is named.
fn wanted<'l>(look: &'l Look<'_>, counted: Counted) -> BTreeMap<&'l str, (u64, &'l Spot)> {
    let mut wanted: BTreeMap<&str, (u64, &Spot)> = BTreeMap::new();
    for group in &look.cluster.groups {
        if let (Some(name), Some(at)) = (&group.instance_type, &group.count)
            && let Some(count) = count(look, counted, group)
        {
            let entry = wanted.entry(&name.value).or_insert((0, &at.at));
            entry.0 = entry.0.saturating_add(count);
        }
    }
    wanted
}

/// The quota for the instances of a type.
fn quota_of(look: &Look<'_>, name: &str) -> Result<f64, String> {
    let quotas = answer(&look.input.answers.sagemaker_quotas)?;
    let wanted = format!("{name} for cluster usage");
    let quota = quota(quotas, |it| it.quota_name.eq_ignore_ascii_case(&wanted));
    let shown = printable(name, 80);
    let quota = quota.map(|it| it.value);
    quota.ok_or_else(|| format!("the answer has no quota \"{shown} for cluster usage\""))
}

pub(super) fn type_quota(look: &Look<'_>) -> Outcome {
    answer(&look.input.answers.sagemaker_quotas)?;
    let mut faults = Vec::new();
    for (name, (count, at)) in wanted(look, Counted::Now) {
        let quota = quota_of(look, name)?;
        if quota < count as f64 {
            let shown = printable(name, 80);
            let sentence = format!(
                "{count} instances of {shown} are wanted, and the quota \"{shown} for cluster \
                 usage\" is {quota}"
            );
            faults.push(fault(at, sentence));
        }
    }
    faults.extend(of_alternatives(look)?);
    Ok(faults)
}

/// Groups that may have one of several types: what the quotas of all of them
/// leave, together, must cover the group.
fn of_alternatives(look: &Look<'_>) -> Outcome {
    let others = wanted(look, Counted::Now);
    let mut faults = Vec::new();
    for group in look
        .cluster
        .groups
        .iter()
        .filter(|it| it.instance_type.is_none())
    {
        let (Some(types), Some(count)) = (&group.alternatives, &group.count) else {
            continue;
        };
        let mut left = 0.0;
        for name in types {
            let used = others.get(name.value.as_str()).map_or(0, |it| it.0);
            left += (quota_of(look, &name.value)? - used as f64).max(0.0);
        }
        if left < count.value as f64 {
            let sentence = format!(
                "group {} has {} instances, and the quotas of its types leave {left}",
                group.shown(),
                count.value
            );
            faults.push(fault(&count.at, sentence));
        }
    }
    Ok(faults)
}

pub(super) fn planned_quota(look: &Look<'_>) -> Outcome {
    if look.input.planned.is_empty() {
        return Ok(Vec::new());
    }
    let now = wanted(look, Counted::Now);
    let mut faults = Vec::new();
    for (name, (count, at)) in wanted(look, Counted::Planned) {
        let quota = quota_of(look, name)?;
        let fits_now = now.get(name).is_none_or(|it| it.0 as f64 <= quota);
        if quota < count as f64 && fits_now {
            let shown = printable(name, 80);
            let sentence = format!(
                "{count} instances of {shown} are planned, and the quota \"{shown} for cluster \
                 usage\" is {quota}"
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
    let needs = needs(look, Counted::Now, |_, name| interfaces(name))?;
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
