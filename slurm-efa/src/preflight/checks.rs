//! The table of checks: what each finds, how bad that is, and what to do.

use cluster::answers::Question;
use findings::Severity;

use super::look::{Look, Outcome};
use super::{capacity, groups, lifecycle, network, shapes, storage};

/// One check.
pub struct Check {
    /// Its name, the same in every version.
    pub id: &'static str,
    /// How bad a fault is.
    pub severity: Severity,
    /// What it needs besides the input of CreateCluster.
    pub needs: &'static [Need],
    /// When it finds nothing: "Passes when …".
    pub passes: &'static str,
    /// What to do about a fault.
    pub remedy: &'static str,
    pub(super) run: fn(&Look<'_>) -> Outcome,
}

/// What a check needs besides the input of CreateCluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// provisioning_parameters.json, unless SageMaker sets Slurm up.
    Provisioning,
    /// The folder of lifecycle scripts.
    Lifecycle,
    /// Counts for later; without them there is nothing to check.
    Planned,
    /// An answer of AWS.
    Aws(Question),
}

impl Need {
    /// Its name in the manual.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Provisioning => "--provisioning",
            Self::Lifecycle => "--lifecycle",
            Self::Planned => "--planned",
            Self::Aws(question) => question.file(),
        }
    }
}

const fn row(
    id: &'static str,
    severity: Severity,
    needs: &'static [Need],
    passes: &'static str,
    remedy: &'static str,
    run: fn(&Look<'_>) -> Outcome,
) -> Check {
    Check {
        id,
        severity,
        needs,
        passes,
        remedy,
        run,
    }
}

use Need::{Aws, Lifecycle, Planned, Provisioning};
use Question::{
    Endpoints, FileSystems, NetworkInterfaces, Offerings, RouteTables, SagemakerQuotas,
    SecurityGroups, Subnets, VpcQuotas,
};
use Severity::{Fatal, Warning};

const FILES: &[Need] = &[];
const ROLES: &[Need] = &[Provisioning];
const FOLDER: &[Need] = &[Lifecycle];
const GROUPS: &[Need] = &[Aws(SecurityGroups)];
const SUBNETS: &[Need] = &[Aws(Subnets)];
const NETWORK: &[Need] = &[Aws(Subnets), Aws(SecurityGroups)];
const ROUTES: &[Need] = &[Aws(Subnets), Aws(RouteTables)];
const WAYS_OUT: &[Need] = &[Aws(Subnets), Aws(RouteTables), Aws(Endpoints)];
const FSX: &[Need] = &[Aws(FileSystems)];

/// Every check, in the order of the findings.
#[rustfmt::skip]
pub const CHECKS: &[Check] = &[
    row("json", Fatal, FILES,
        "both files are JSON of at most 16 MiB in UTF-8 without BOM, and no object has a key twice",
        "correct the file at this place", shapes::json),
    row("required", Fatal, FILES,
        "every key that the service's model requires is given",
        "add the key", shapes::required),
    row("type", Fatal, FILES,
        "every value has the type of the service's model",
        "give the value the type that is named", shapes::types),
    row("pattern", Fatal, FILES,
        "every text matches the pattern of the service's model",
        "correct the value; the service refuses it", shapes::patterns),
    row("choice", Fatal, FILES,
        "every value of an enumeration is one that the service knows, instance types included",
        "use a value that the service accepts", shapes::choices),
    row("range", Fatal, FILES,
        "numbers, lengths and counts are within the limits of the service's model",
        "stay within the limits", shapes::ranges),
    row("unknown-key", Warning, FILES,
        "every key is one of the service's model",
        "correct or remove the key: an AWS CLI that does not know it refuses the whole input", shapes::unknown_keys),
    row("group-names", Fatal, FILES,
        "no two groups have the same name",
        "give each group a name of its own", groups::names),
    row("type-choice", Fatal, FILES,
        "each group has either InstanceType or InstanceRequirements",
        "keep one of the two", groups::type_choice),
    row("min-count", Fatal, FILES,
        "no group's MinInstanceCount exceeds its InstanceCount",
        "lower MinInstanceCount or raise InstanceCount", groups::min_count),
    row("mode", Fatal, FILES,
        "the cluster is made by lifecycle scripts or by Orchestrator.Slurm, not by both",
        "with Orchestrator.Slurm give every group a SlurmConfig and no --provisioning; without it give none a SlurmConfig", groups::mode),
    row("controller", Fatal, ROLES,
        "there is exactly one controller group, and it exists",
        "name an existing group in controller_group, or give one group SlurmConfig.NodeType Controller", groups::controller),
    row("controller-count", Warning, ROLES,
        "the controller group has one instance",
        "set its InstanceCount to 1, unless the scripts set up several controllers", groups::controller_count),
    row("login-group", Fatal, ROLES,
        "login_group, if given, exists and is not the controller group",
        "name an existing group in login_group, or remove it", groups::login),
    row("worker-groups", Fatal, ROLES,
        "there is a worker group, and each exists once and is neither controller nor login group",
        "list each worker group once, by its InstanceGroupName", groups::workers),
    row("unused-groups", Warning, ROLES,
        "every group is named in provisioning_parameters.json",
        "add the group to worker_groups, or remove it from create_cluster.json: its nodes get no partition", groups::unused),
    row("partition-name", Fatal, ROLES,
        "partition names have only letters, digits, _, . and -, and none is DEFAULT",
        "choose another partition name", groups::partitions),
    row("parameters-version", Warning, ROLES,
        "version in provisioning_parameters.json is 1.0.0",
        "write \"1.0.0\", or look for a newer slurm-efa", groups::version),
    row("workload-manager", Fatal, ROLES,
        "workload_manager is slurm",
        "write \"slurm\"", groups::workload_manager),
    row("node-recovery", Warning, FILES,
        "NodeRecovery is not None",
        "set NodeRecovery to Automatic, or leave it out", groups::node_recovery),
    row("efa-interface", Warning, FILES,
        "NetworkInterface is given only for types that can have EFA",
        "remove NetworkInterface from the group, or check its type", groups::interface),
    row("vpc", Warning, FILES,
        "groups that use EFA are in your own VPC",
        "add VpcConfig with your subnet and security group", network::vpc_missing),
    row("vpc-override", Fatal, FILES,
        "OverrideVpcConfig is given only together with VpcConfig",
        "add VpcConfig for the whole cluster", network::vpc_override),
    row("fsx-pair", Fatal, ROLES,
        "fsx_dns_name and fsx_mountname are given together or not at all",
        "give both; `aws fsx describe-file-systems` shows them", storage::pair),
    row("lifecycle-config", Fatal, FILES,
        "without Orchestrator.Slurm every group has LifeCycleConfig with SourceS3Uri and OnCreate",
        "add LifeCycleConfig with SourceS3Uri and OnCreate to the group", lifecycle::config),
    row("lifecycle-source", Warning, FILES,
        "all groups have the same SourceS3Uri",
        "use one SourceS3Uri for all groups, so that their scripts cannot differ", lifecycle::one_source),
    row("bucket-name", Warning, FILES,
        "the bucket's name begins with sagemaker-",
        "use such a bucket, or allow the nodes' role to read this one", lifecycle::bucket),
    row("on-create", Fatal, FOLDER,
        "the scripts that LifeCycleConfig names are in the folder",
        "put the script there, or correct OnCreate", lifecycle::on_create),
    row("script-text", Fatal, FOLDER,
        "the folder's scripts are UTF-8 text of at most 4 MiB",
        "replace the file with a script", lifecycle::readable),
    row("script-lines", Fatal, FOLDER,
        "the folder's scripts have Unix line endings",
        "run dos2unix on the file", lifecycle::line_ends),
    row("script-interpreter", Fatal, FOLDER,
        "the scripts that LifeCycleConfig names begin with #!",
        "begin the file with #!/bin/bash", lifecycle::interpreter),
    row("parameters-there", Fatal, FOLDER,
        "provisioning_parameters.json lies beside the scripts",
        "put it into the folder before you upload it", lifecycle::parameters_there),
    row("parameters-same", Warning, FOLDER,
        "provisioning_parameters.json in the folder has the values of the file that was checked",
        "copy the checked file into the folder", lifecycle::parameters_same),
    row("slurm-efa-step", Warning, FOLDER,
        "a script calls install_slurm_efa.sh",
        "add the step; see docs/hyperpod.md and /usr/share/doc/slurm-efa/examples/on_create.patch", lifecycle::step),
    row("step-order", Warning, FOLDER,
        "lifecycle_script.py calls install_slurm_efa.sh before start_slurm.sh for nodes and after it for the controller",
        "call it twice, as /usr/share/doc/slurm-efa/examples/on_create.patch does", lifecycle::step_order),
    row("step-after-containers", Warning, FOLDER,
        "the last call of install_slurm_efa.sh comes after install_docker.sh and install_enroot_pyxis.sh",
        "move the controller's call of install_slurm_efa.sh below them", lifecycle::after_containers),
    row("shared-users", Fatal, FOLDER,
        "shared_users.txt has each name and each uid once and no uid below 1000: Run As of Session Manager needs the same users on every node",
        "correct the line", lifecycle::users),
    row("gres-auto-resume", Warning, FOLDER,
        "no custom image is used together with GRES and auto-resume",
        "make sure that the image is based on one of 2024-08-20 or later", lifecycle::auto_resume),
    row("subnets", Fatal, SUBNETS,
        "every subnet exists",
        "correct the id, the Region or the account", network::subnets),
    row("security-groups", Fatal, GROUPS,
        "every security group exists",
        "correct the id, the Region or the account", network::security_groups),
    row("one-vpc", Fatal, NETWORK,
        "subnets and security groups that are used together are of one VPC",
        "choose them from one VPC", network::one_vpc),
    row("sg-self-ingress", Fatal, GROUPS,
        "where EFA is used, a security group allows all traffic from itself, by its id",
        "add an inbound rule: protocol -1, source: the security group itself", network::self_ingress),
    row("sg-self-egress", Fatal, GROUPS,
        "where EFA is used, a security group allows all traffic to itself, by its id",
        "add an outbound rule: protocol -1, destination: the security group itself", network::self_egress),
    row("sg-open-egress", Warning, GROUPS,
        "where EFA is used, no security group lets all traffic out to 0.0.0.0/0",
        "replace the rule with rules for the ports that nodes need, such as 443; keep the rule to itself", network::open_egress),
    row("sg-shared", Fatal, GROUPS,
        "the EFA groups of a partition share such a security group",
        "give the groups of one partition the same security group", network::shared_group),
    row("addresses", Fatal, SUBNETS,
        "the subnets have an address for every network interface of every node (32 for a p5.48xlarge)",
        "use a larger subnet, fewer nodes, or InterfaceType efa-only", capacity::enough_addresses),
    row("addresses-spare", Warning, SUBNETS,
        "one more node would still find addresses",
        "use a larger subnet", capacity::spare_addresses),
    row("addresses-planned", Warning, &[Planned, Aws(Subnets)],
        "there are addresses for the counts of --planned, if any",
        "use a larger subnet now: the size of a subnet cannot be changed", capacity::planned_addresses),
    row("group-zone", Fatal, SUBNETS,
        "the subnets of a group that uses EFA are in one availability zone",
        "keep the subnets of one zone", network::group_zone),
    row("partition-zone", Fatal, SUBNETS,
        "the EFA groups of a partition are in one availability zone",
        "put the groups into one zone, or each into a partition of its own", network::partition_zone),
    row("type-offered", Fatal, &[Aws(Subnets), Aws(Offerings)],
        "each instance type is offered in a zone of its group",
        "choose a subnet in a zone that offers the type", network::offered),
    row("public-subnet", Warning, ROUTES,
        "no subnet routes to an internet gateway",
        "use a private subnet with a NAT gateway or VPC endpoints", network::public_subnet),
    row("s3-endpoint", Fatal, WAYS_OUT,
        "a subnet without internet has an endpoint for S3 in its route table",
        "add a gateway endpoint for S3 to the subnet's route table", network::s3_endpoint),
    row("service-endpoints", Warning, WAYS_OUT,
        "a subnet without internet has endpoints for ssm, ssmmessages, ec2messages and logs",
        "add interface endpoints for these services", network::service_endpoints),
    row("fsx", Fatal, FSX,
        "every file system of FSx for Lustre exists",
        "correct the DNS name; `aws fsx describe-file-systems` shows it", storage::exists),
    row("fsx-mount-name", Fatal, FSX,
        "its mount name is the one that is given",
        "use the real mount name", storage::mount_name),
    row("fsx-zone", Warning, &[Aws(FileSystems), Aws(Subnets)],
        "it is in the zone of the groups that use EFA",
        "use a file system in the same zone: another one is slower, and traffic between zones is charged", storage::zone),
    row("fsx-security-group", Fatal,
        &[Aws(FileSystems), Aws(NetworkInterfaces), Aws(SecurityGroups), Aws(Subnets)],
        "its security group admits TCP 988 from the nodes",
        "allow TCP 988 and 1018-1023 from the nodes' security group", storage::reachable),
    row("quota-type", Fatal, &[Aws(SagemakerQuotas)],
        "the account's quota for each instance type covers all groups",
        "request a higher quota in Service Quotas", capacity::type_quota),
    row("quota-cluster", Fatal, &[Aws(SagemakerQuotas)],
        "the account's quota for the instances of a HyperPod cluster covers all groups",
        "request a higher quota in Service Quotas", capacity::cluster_quota),
    row("quota-planned", Warning, &[Planned, Aws(SagemakerQuotas)],
        "the quotas for instance types cover the counts of --planned, if any",
        "request a higher quota before the group grows", capacity::planned_quota),
    row("quota-interfaces", Fatal, &[Aws(VpcQuotas)],
        "the Region's quota of network interfaces (L-DF5E4CA3) covers all nodes",
        "request a higher quota in Service Quotas", capacity::interface_quota),
];

/// The table for the manual.
#[must_use]
pub fn markdown() -> String {
    let mut text =
        "| id | severity | needs | passes when | otherwise |\n|---|---|---|---|---|\n".to_owned();
    for check in CHECKS {
        let needs: Vec<&str> = check.needs.iter().map(|need| need.name()).collect();
        text += &format!(
            "| `{}` | {} | {} | {} | {} |\n",
            check.id,
            check.severity.word(),
            needs.join(", "),
            check.passes,
            check.remedy
        );
    }
    text
}
