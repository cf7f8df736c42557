//! `create_cluster.json`: the input of SageMaker's CreateCluster, in both modes.

use crate::cursor::{Cursor, Found, FoundText, Spot};
use crate::json::Document;
use crate::role::Role;

/// How the nodes become a Slurm cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// By lifecycle scripts and provisioning_parameters.json.
    Lifecycle,
    /// By SageMaker itself: `Orchestrator.Slurm`, and `SlurmConfig` of groups.
    Api,
    /// Not at all: `Orchestrator.Eks`.
    Eks,
}

/// The input, as far as checks look at it. A value of a wrong type is absent.
#[derive(Debug, Clone, Default)]
pub struct CreateCluster {
    /// `ClusterName`.
    pub name: Option<FoundText>,
    /// `InstanceGroups`, then `RestrictedInstanceGroups`.
    pub groups: Vec<Group>,
    /// `VpcConfig`.
    pub vpc: Option<Vpc>,
    /// `Orchestrator.Slurm`.
    pub slurm: Option<Spot>,
    /// `Orchestrator.Eks`.
    pub eks: Option<Spot>,
    /// `NodeRecovery`.
    pub node_recovery: Option<FoundText>,
}

/// An instance group.
#[derive(Debug, Clone, Default)]
pub struct Group {
    /// The whole group.
    pub at: Spot,
    /// `InstanceGroupName`.
    pub name: Option<FoundText>,
    /// `InstanceCount`.
    pub count: Option<Found<u64>>,
    /// `MinInstanceCount`.
    pub min_count: Option<Found<u64>>,
    /// `InstanceType`.
    pub instance_type: Option<FoundText>,
    /// `InstanceRequirements.InstanceTypes`.
    pub alternatives: Option<Vec<FoundText>>,
    /// `LifeCycleConfig`.
    pub lifecycle: Option<Lifecycle>,
    /// `OverrideVpcConfig`.
    pub vpc: Option<Vpc>,
    /// `ImageId`.
    pub image: Option<FoundText>,
    /// `SlurmConfig`.
    pub slurm: Option<SlurmConfig>,
    /// `NetworkInterface.InterfaceType`.
    pub interface: Option<FoundText>,
    /// `InstanceStorageConfigs[].FsxLustreConfig`.
    pub lustre: Vec<Lustre>,
}

/// Subnets and security groups.
#[derive(Debug, Clone, Default)]
pub struct Vpc {
    /// The whole value.
    pub at: Spot,
    /// `Subnets`.
    pub subnets: Vec<FoundText>,
    /// `SecurityGroupIds`.
    pub security_groups: Vec<FoundText>,
}

/// `LifeCycleConfig`.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    /// The whole value.
    pub at: Spot,
    /// `SourceS3Uri`.
    pub source: Option<FoundText>,
    /// `OnCreate`.
    pub on_create: Option<FoundText>,
    /// `OnInitComplete`.
    pub on_init_complete: Option<FoundText>,
}

/// `SlurmConfig`.
#[derive(Debug, Clone, Default)]
pub struct SlurmConfig {
    /// The whole value.
    pub at: Spot,
    /// `NodeType`.
    pub node_type: Option<FoundText>,
    /// `PartitionNames`.
    pub partitions: Vec<FoundText>,
}

/// A file system of FSx for Lustre.
#[derive(Debug, Clone)]
pub struct Lustre {
    /// `DnsName`.
    pub dns_name: FoundText,
    /// `MountName`.
    pub mount_name: Option<FoundText>,
}

impl CreateCluster {
    /// Takes from a document what checks look at.
    #[must_use]
    pub fn of(document: &Document) -> Self {
        let root = Cursor::root(&document.root);
        let orchestrator = root.get("Orchestrator");
        let part = |key| orchestrator.as_ref()?.get(key).map(|it| it.spot());
        let lists = ["InstanceGroups", "RestrictedInstanceGroups"];
        Self {
            name: root.text("ClusterName"),
            groups: lists
                .into_iter()
                .flat_map(|key| root.list(key))
                .map(|it| Group::of(&it))
                .collect(),
            vpc: root.get("VpcConfig").map(|it| Vpc::of(&it)),
            slurm: part("Slurm"),
            eks: part("Eks"),
            node_recovery: root.text("NodeRecovery"),
        }
    }

    /// How the nodes become a Slurm cluster.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match (&self.slurm, &self.eks) {
            (Some(_), _) => Mode::Api,
            (None, Some(_)) => Mode::Eks,
            (None, None) => Mode::Lifecycle,
        }
    }

    /// The group of this name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.is_called(name))
    }

    /// The subnets and security groups of a group: its own, else the cluster's.
    #[must_use]
    pub fn vpc_of<'s>(&'s self, group: &'s Group) -> Option<&'s Vpc> {
        group.vpc.as_ref().or(self.vpc.as_ref())
    }

    /// The subnets and security groups of the cluster and of all groups.
    pub fn all_vpcs(&self) -> impl Iterator<Item = &Vpc> {
        let of_groups = self.groups.iter().filter_map(|group| group.vpc.as_ref());
        self.vpc.iter().chain(of_groups)
    }
}

impl Group {
    fn of(cursor: &Cursor<'_>) -> Self {
        let requirements = cursor.get("InstanceRequirements");
        let storage = cursor.list("InstanceStorageConfigs").into_iter();
        Self {
            at: cursor.spot(),
            name: cursor.text("InstanceGroupName"),
            count: cursor.count("InstanceCount"),
            min_count: cursor.count("MinInstanceCount"),
            instance_type: cursor.text("InstanceType"),
            alternatives: requirements.map(|it| it.texts("InstanceTypes")),
            lifecycle: cursor.get("LifeCycleConfig").map(|it| Lifecycle {
                at: it.spot(),
                source: it.text("SourceS3Uri"),
                on_create: it.text("OnCreate"),
                on_init_complete: it.text("OnInitComplete"),
            }),
            vpc: cursor.get("OverrideVpcConfig").map(|it| Vpc::of(&it)),
            image: cursor.text("ImageId"),
            slurm: cursor.get("SlurmConfig").map(|it| SlurmConfig {
                at: it.spot(),
                node_type: it.text("NodeType"),
                partitions: it.texts("PartitionNames"),
            }),
            interface: cursor
                .get("NetworkInterface")
                .and_then(|it| it.text("InterfaceType")),
            lustre: storage.filter_map(|it| Lustre::of(&it)).collect(),
        }
    }

    /// Whether this is its name.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.name.as_ref().is_some_and(|own| own.value == name)
    }

    /// Its name, for a sentence.
    #[must_use]
    pub fn shown(&self) -> String {
        match &self.name {
            Some(name) => host::printable(&name.value, 80),
            None => format!("at {}", self.at.pointer),
        }
    }

    /// The instance types that it may have.
    pub fn types(&self) -> impl Iterator<Item = &FoundText> {
        self.instance_type
            .iter()
            .chain(self.alternatives.iter().flatten())
    }
}

impl Vpc {
    fn of(cursor: &Cursor<'_>) -> Self {
        Self {
            at: cursor.spot(),
            subnets: cursor.texts("Subnets"),
            security_groups: cursor.texts("SecurityGroupIds"),
        }
    }
}

impl Lustre {
    fn of(cursor: &Cursor<'_>) -> Option<Self> {
        let config = cursor.get("FsxLustreConfig")?;
        Some(Self {
            dns_name: config.text("DnsName")?,
            mount_name: config.text("MountName"),
        })
    }
}

impl SlurmConfig {
    /// The role that `NodeType` names.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        Role::of_node_type(&self.node_type.as_ref()?.value)
    }
}
