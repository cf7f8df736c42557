//! `slurm-efa preflight init`: the files of a cluster that passes preflight.
//! Decides what they contain and touches none.

use cluster::answers::Answers;
use serde::Serialize;

use super::{Input, Report, Source, judge};

/// The input of CreateCluster, as it is written.
pub const CLUSTER: &str = "create_cluster.json";

/// The parameters of the lifecycle scripts, as they are written.
pub const PROVISIONING: &str = "provisioning_parameters.json";

/// Names of the groups that are written, those of AWS's examples.
const CONTROLLER: &str = "controller-machine";
const LOGIN: &str = "my-login-group";
const WORKERS: &str = "worker-group-1";

/// A node's second volume, as in AWS's examples.
const VOLUME_GB: u32 = 500;

/// What is wanted of a cluster.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// `ClusterName`.
    pub name: String,
    /// What sets Slurm up.
    pub setup: Setup,
    /// The type of the nodes that run jobs, with or without `ml.`.
    pub instance_type: String,
    /// How many of them.
    pub count: u64,
    /// Their partition.
    pub partition: String,
    /// The type of the controller.
    pub controller_type: String,
    /// The type of login nodes.
    pub login_type: String,
    /// How many login nodes; 0 for none.
    pub login_nodes: u64,
    /// The subnet of all nodes.
    pub subnet: String,
    /// The security group of all nodes.
    pub security_group: String,
    /// The role that nodes have in IAM, its ARN.
    pub execution_role: String,
    /// A file system of FSx for Lustre.
    pub fsx: Option<Lustre>,
}

/// What sets Slurm up.
#[derive(Debug, Clone)]
pub enum Setup {
    /// The lifecycle scripts at this place in S3.
    Scripts {
        /// `SourceS3Uri`.
        source: String,
    },
    /// SageMaker itself.
    Api,
}

/// A file system of FSx for Lustre.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lustre {
    /// Its name in DNS.
    pub dns_name: String,
    /// Its mount name.
    pub mount_name: String,
}

impl std::str::FromStr for Lustre {
    type Err = String;

    /// `DNS_NAME/MOUNT_NAME`, or as Lustre mounts it, `DNS_NAME@tcp:/MOUNT_NAME`.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/');
        let parts = parts.map(|(dns, mount)| (dns.trim_end_matches("@tcp:"), mount));
        match parts {
            Some((dns_name, mount_name)) if !dns_name.is_empty() && !mount_name.is_empty() => {
                Ok(Self {
                    dns_name: dns_name.to_owned(),
                    mount_name: mount_name.to_owned(),
                })
            }
            _ => Err("expected DNS_NAME/MOUNT_NAME".to_owned()),
        }
    }
}

/// The texts of the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Of [`CLUSTER`].
    pub cluster: String,
    /// Of [`PROVISIONING`], which SageMaker's own set-up has not.
    pub provisioning: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CreateCluster<'w> {
    cluster_name: &'w str,
    #[serde(skip_serializing_if = "Option::is_none")]
    orchestrator: Option<Orchestrator>,
    instance_groups: Vec<Group<'w>>,
    vpc_config: Vpc<'w>,
    node_recovery: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Orchestrator {
    slurm: Slurm,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Slurm {
    slurm_config_strategy: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Group<'w> {
    instance_group_name: &'static str,
    instance_type: String,
    instance_count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    life_cycle_config: Option<Lifecycle<'w>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slurm_config: Option<SlurmConfig<'w>>,
    execution_role: &'w str,
    instance_storage_configs: Vec<Storage<'w>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Lifecycle<'w> {
    #[serde(rename = "SourceS3Uri")]
    source: &'w str,
    on_create: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SlurmConfig<'w> {
    node_type: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    partition_names: Vec<&'w str>,
}

#[derive(Serialize)]
enum Storage<'w> {
    EbsVolumeConfig {
        #[serde(rename = "VolumeSizeInGB")]
        size: u32,
    },
    FsxLustreConfig {
        #[serde(rename = "DnsName")]
        dns_name: &'w str,
        #[serde(rename = "MountName")]
        mount_name: &'w str,
        #[serde(rename = "MountPath")]
        mount_path: &'static str,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Vpc<'w> {
    security_group_ids: [&'w str; 1],
    subnets: [&'w str; 1],
}

#[derive(Serialize)]
struct Parameters<'w> {
    version: &'static str,
    workload_manager: &'static str,
    controller_group: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    login_group: Option<&'static str>,
    worker_groups: [Worker<'w>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    fsx_dns_name: Option<&'w str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fsx_mountname: Option<&'w str>,
}

#[derive(Serialize)]
struct Worker<'w> {
    instance_group_name: &'static str,
    partition_name: &'w str,
}

impl Wanted {
    /// What the files contain.
    ///
    /// # Errors
    /// Never in practice: they have only texts and numbers.
    pub fn files(&self) -> serde_json::Result<Files> {
        let group = |name, node_type, kind: &str, count| self.group(name, node_type, kind, count);
        let mut groups = vec![group(CONTROLLER, "Controller", &self.controller_type, 1)];
        if self.login_nodes > 0 {
            groups.push(group(LOGIN, "Login", &self.login_type, self.login_nodes));
        }
        groups.push(group(WORKERS, "Compute", &self.instance_type, self.count));
        let is_api = matches!(self.setup, Setup::Api);
        let cluster = CreateCluster {
            cluster_name: &self.name,
            orchestrator: is_api.then_some(Orchestrator {
                slurm: Slurm {
                    slurm_config_strategy: "Managed",
                },
            }),
            instance_groups: groups,
            vpc_config: Vpc {
                security_group_ids: [&self.security_group],
                subnets: [&self.subnet],
            },
            node_recovery: "Automatic",
        };
        let text = |json: String| format!("{json}\n");
        let provisioning = (!is_api).then(|| serde_json::to_string_pretty(&self.parameters()));
        Ok(Files {
            cluster: text(serde_json::to_string_pretty(&cluster)?),
            provisioning: provisioning.transpose()?.map(text),
        })
    }

    fn group(
        &self,
        name: &'static str,
        node_type: &'static str,
        kind: &str,
        count: u64,
    ) -> Group<'_> {
        let mut storage = vec![Storage::EbsVolumeConfig { size: VOLUME_GB }];
        let (mut scripts, mut slurm) = (None, None);
        match &self.setup {
            Setup::Scripts { source } => {
                scripts = Some(Lifecycle {
                    source,
                    on_create: "on_create.sh",
                });
            }
            Setup::Api => {
                let partition = (node_type == "Compute").then_some(self.partition.as_str());
                slurm = Some(SlurmConfig {
                    node_type,
                    partition_names: partition.into_iter().collect(),
                });
                storage.extend(self.fsx.as_ref().map(|fsx| Storage::FsxLustreConfig {
                    dns_name: &fsx.dns_name,
                    mount_name: &fsx.mount_name,
                    mount_path: "/fsx",
                }));
            }
        }
        let bare = kind.trim_start_matches("ml.");
        Group {
            instance_group_name: name,
            instance_type: format!("ml.{bare}"),
            instance_count: count,
            life_cycle_config: scripts,
            slurm_config: slurm,
            execution_role: &self.execution_role,
            instance_storage_configs: storage,
        }
    }

    fn parameters(&self) -> Parameters<'_> {
        let fsx = self.fsx.as_ref();
        Parameters {
            version: "1.0.0",
            workload_manager: "slurm",
            controller_group: CONTROLLER,
            login_group: (self.login_nodes > 0).then_some(LOGIN),
            worker_groups: [Worker {
                instance_group_name: WORKERS,
                partition_name: &self.partition,
            }],
            fsx_dns_name: fsx.map(|it| it.dns_name.as_str()),
            fsx_mountname: fsx.map(|it| it.mount_name.as_str()),
        }
    }
}

impl Files {
    /// What preflight finds in them, without their scripts and AWS's answers.
    #[must_use]
    pub fn judge(&self) -> Report {
        let source = |name: &str, text: &String| Source::of(name.to_owned(), text.clone());
        let provisioning = self.provisioning.as_ref();
        judge(&Input {
            provisioning: provisioning.map(|text| source(PROVISIONING, text)),
            answers: Answers::none("AWS was not asked"),
            ..Input::of(source(CLUSTER, &self.cluster))
        })
    }
}
