//! Configurations in the shape of AWS's examples, and ways to break them.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use cluster::answers::{Answers, Question};
use serde_json::{Value, json};
use slurm_efa::preflight::{Input, Report, Scripts, Source, judge};
use tempfile::TempDir;

/// A configuration with everything that can be looked at.
#[derive(Clone)]
pub struct Case {
    pub cluster: String,
    pub provisioning: Option<String>,
    pub scripts: BTreeMap<&'static str, Vec<u8>>,
    pub aws: BTreeMap<Question, String>,
    pub planned: BTreeMap<String, u64>,
}

impl Case {
    /// A count that a group is to have later.
    pub fn planned(mut self, group: &str, count: u64) -> Self {
        self.planned.insert(group.to_owned(), count);
        self
    }

    /// Changes the input of CreateCluster.
    pub fn cluster(mut self, change: impl Fn(&mut Value)) -> Self {
        edit(&mut self.cluster, change);
        self
    }

    /// Changes the parameters, beside the scripts too.
    pub fn provisioning(mut self, change: impl Fn(&mut Value)) -> Self {
        if let Some(text) = &mut self.provisioning {
            edit(text, change);
            let text = text.clone().into_bytes();
            self.scripts.insert("provisioning_parameters.json", text);
        }
        self
    }

    /// Changes an answer of AWS.
    pub fn aws(mut self, question: Question, change: impl Fn(&mut Value)) -> Self {
        edit(self.aws.get_mut(&question).unwrap(), change);
        self
    }

    /// Replaces a script.
    pub fn script(mut self, name: &'static str, text: impl Into<Vec<u8>>) -> Self {
        self.scripts.insert(name, text.into());
        self
    }

    /// Removes a script.
    pub fn without(mut self, name: &str) -> Self {
        assert!(self.scripts.remove(name).is_some(), "{name}");
        self
    }

    /// The scripts as a folder.
    pub fn folder(&self) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in &self.scripts {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    pub fn input(&self, lifecycle: Option<PathBuf>) -> Input {
        let source = |name: &str, text: &String| Source::of(name.to_owned(), text.clone());
        let provisioning = self.provisioning.as_ref();
        Input {
            cluster: source("create_cluster.json", &self.cluster),
            provisioning: provisioning.map(|it| source("provisioning_parameters.json", it)),
            lifecycle: lifecycle.map(Scripts::Folder),
            planned: self.planned.clone(),
            answers: Answers::read(|question| {
                let text = self.aws.get(&question);
                text.cloned().ok_or_else(|| "not asked".to_owned())
            }),
        }
    }

    pub fn judge(&self) -> Report {
        let folder = self.folder();
        judge(&self.input(Some(folder.path().to_owned())))
    }
}

fn edit(text: &mut String, change: impl Fn(&mut Value)) {
    let mut value: Value = serde_json::from_str(text).unwrap();
    change(&mut value);
    *text = format!("{value:#}");
}

const ROLE: &str = "arn:aws:iam::111122223333:role/hyperpod-nodes";

fn group(name: &str, kind: &str, count: u64) -> Value {
    json!({
        "InstanceGroupName": name,
        "InstanceType": kind,
        "InstanceCount": count,
        "ExecutionRole": ROLE,
        "ThreadsPerCore": 2,
        "InstanceStorageConfigs": [{"EbsVolumeConfig": {"VolumeSizeInGB": 500}}],
    })
}

/// By lifecycle scripts: a controller, a login node, two worker groups, of which
/// one has a subnet of its own.
pub fn lifecycle() -> Case {
    let scripts = json!({
        "SourceS3Uri": "s3://sagemaker-ml-111122223333/lifecycle/",
        "OnCreate": "on_create.sh",
    });
    let mut groups = [
        group("controller-machine", "ml.m5.xlarge", 1),
        group("my-login-group", "ml.m5.large", 1),
        group("worker-group-1", "ml.p5.48xlarge", 4),
        group("worker-group-2", "ml.g5.12xlarge", 2),
    ];
    for group in &mut groups {
        group["LifeCycleConfig"] = scripts.clone();
    }
    groups[3]["OverrideVpcConfig"] = json!({
        "SecurityGroupIds": ["sg-0aaaaaaaaaaaaaaa1"], "Subnets": ["subnet-0bbbbbbbbbbbbbbb2"],
    });
    let cluster = json!({
        "ClusterName": "ml-cluster",
        "InstanceGroups": groups,
        "VpcConfig": {
            "SecurityGroupIds": ["sg-0aaaaaaaaaaaaaaa1"], "Subnets": ["subnet-0bbbbbbbbbbbbbbb1"],
        },
        "NodeRecovery": "Automatic",
        "Tags": [{"Key": "team", "Value": "Forschung und Prüfung"}],
    });
    let provisioning = json!({
        "version": "1.0.0",
        "workload_manager": "slurm",
        "controller_group": "controller-machine",
        "login_group": "my-login-group",
        "worker_groups": [
            {"instance_group_name": "worker-group-1", "partition_name": "dev"},
            {"instance_group_name": "worker-group-2", "partition_name": "small"},
        ],
        "fsx_dns_name": "fs-0123456789abcdef0.fsx.us-west-2.amazonaws.com",
        "fsx_mountname": "abcdefgh",
    });
    let provisioning = format!("{provisioning:#}");
    let scripts = BTreeMap::from([
        (
            "on_create.sh",
            b"#!/bin/bash\npython3 -u lifecycle_script.py\n".to_vec(),
        ),
        ("lifecycle_script.py", STEPS.into()),
        (
            "start_slurm.sh",
            b"#!/bin/bash\nsystemctl start slurmd\n".to_vec(),
        ),
        (
            "utils/install_slurm_efa.sh",
            b"#!/bin/bash\n# install_slurm_efa.sh\n".to_vec(),
        ),
        (
            "shared_users.txt",
            b"# name,uid,home\nalice,2001,/fsx/alice\nbob,2002,/fsx/bob\n".to_vec(),
        ),
        (
            "provisioning_parameters.json",
            provisioning.clone().into_bytes(),
        ),
    ]);
    Case {
        cluster: format!("{cluster:#}"),
        provisioning: Some(provisioning),
        scripts,
        aws: aws(),
        planned: BTreeMap::new(),
    }
}

const STEPS: &str = r#"
if node_type != "controller":
    run("./utils/install_slurm_efa.sh")
run("./start_slurm.sh")
if node_type == "controller":
    run("./utils/install_slurm_efa.sh")
"#;

/// By SageMaker itself.
pub fn api() -> Case {
    let with = |mut group: Value, kind: &str, partitions: &[&str]| {
        group["SlurmConfig"] = json!({"NodeType": kind});
        if !partitions.is_empty() {
            group["SlurmConfig"]["PartitionNames"] = json!(partitions);
        }
        group
    };
    let mut worker = with(
        group("workers", "ml.p5en.48xlarge", 2),
        "Compute",
        &["train"],
    );
    worker["InstanceStorageConfigs"] = json!([{"FsxLustreConfig": {
        "DnsName": "fs-0123456789abcdef0.fsx.us-west-2.amazonaws.com",
        "MountName": "abcdefgh", "MountPath": "/fsx"}}]);
    worker["MinInstanceCount"] = json!(1);
    worker["NetworkInterface"] = json!({"InterfaceType": "efa"});
    let cluster = json!({
        "ClusterName": "api-cluster",
        "Orchestrator": {"Slurm": {"SlurmConfigStrategy": "Managed"}},
        "InstanceGroups": [
            with(group("head", "ml.m5.xlarge", 1), "Controller", &[]),
            with(group("login", "ml.m5.large", 2), "Login", &[]),
            worker,
        ],
        "VpcConfig": {
            "SecurityGroupIds": ["sg-0aaaaaaaaaaaaaaa1"], "Subnets": ["subnet-0bbbbbbbbbbbbbbb1"],
        },
    });
    Case {
        cluster: format!("{cluster:#}"),
        provisioning: None,
        // Nothing is run, but a folder may be given all the same.
        scripts: lifecycle().without("provisioning_parameters.json").scripts,
        aws: aws(),
        planned: BTreeMap::new(),
    }
}

pub const GROUP: &str = "sg-0aaaaaaaaaaaaaaa1";
pub const OTHER_GROUP: &str = "sg-0aaaaaaaaaaaaaaa2";

/// A security group that allows itself everything, and the world HTTPS.
fn security_group(id: &str) -> Value {
    let itself = json!({"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": id}],
        "IpRanges": [], "Ipv6Ranges": [], "PrefixListIds": []});
    let https = json!({"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443,
        "UserIdGroupPairs": [], "IpRanges": [{"CidrIp": "0.0.0.0/0"}]});
    json!({"GroupId": id, "GroupName": "hyperpod", "VpcId": "vpc-1",
        "IpPermissions": [itself], "IpPermissionsEgress": [itself, https]})
}

fn subnet(id: &str, zone: &str, block: &str, free: u64) -> Value {
    json!({"SubnetId": id, "VpcId": "vpc-1", "AvailabilityZone": zone,
        "AvailabilityZoneId": "usw2-az1", "AvailableIpAddressCount": free, "CidrBlock": block})
}

fn aws() -> BTreeMap<Question, String> {
    let offers = [
        "m5.xlarge",
        "m5.large",
        "p5.48xlarge",
        "p5en.48xlarge",
        "g5.12xlarge",
    ];
    let offers = offers.map(|kind| {
        json!({"InstanceType": kind, "LocationType": "availability-zone", "Location": "us-west-2a"})
    });
    let types = [
        "ml.m5.xlarge",
        "ml.m5.large",
        "ml.p5.48xlarge",
        "ml.p5en.48xlarge",
        "ml.g5.12xlarge",
    ];
    let mut quotas: Vec<Value> = types
        .iter()
        .map(|it| json!({"QuotaName": format!("{it} for cluster usage"), "QuotaCode": "L-1", "Value": 8.0}))
        .collect();
    quotas.push(json!({"QuotaCode": "L-2", "Value": 20.0,
        "QuotaName": "Maximum number of instances allowed per SageMaker HyperPod cluster"}));
    let answers = [
        (
            Question::Subnets,
            json!({"Subnets": [
                subnet("subnet-0bbbbbbbbbbbbbbb1", "us-west-2a", "10.1.0.0/22", 1019),
                subnet("subnet-0bbbbbbbbbbbbbbb2", "us-west-2a", "10.1.4.0/24", 251),
                subnet("subnet-0bbbbbbbbbbbbbbb3", "us-west-2b", "10.1.5.0/24", 251),
            ]}),
        ),
        (
            Question::SecurityGroups,
            json!({"SecurityGroups": [
                security_group(GROUP), security_group(OTHER_GROUP),
            ]}),
        ),
        (
            Question::Offerings,
            json!({"InstanceTypeOfferings": offers}),
        ),
        (
            Question::RouteTables,
            json!({"RouteTables": [{
            "RouteTableId": "rtb-1", "VpcId": "vpc-1",
            "Associations": [{"Main": true, "RouteTableId": "rtb-1"}],
            "Routes": [
                {"DestinationCidrBlock": "10.1.0.0/16", "GatewayId": "local", "State": "active"},
                {"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1", "State": "active"},
            ]}]}),
        ),
        (
            Question::Endpoints,
            json!({"VpcEndpoints": [
                {"VpcId": "vpc-1", "ServiceName": "com.amazonaws.us-west-2.s3", "State": "available",
                 "VpcEndpointType": "Gateway", "RouteTableIds": ["rtb-1"]},
                {"VpcId": "vpc-1", "ServiceName": "com.amazonaws.us-west-2.ssm", "State": "available",
                 "VpcEndpointType": "Interface"},
                {"VpcId": "vpc-1", "ServiceName": "com.amazonaws.us-west-2.ssmmessages",
                 "State": "available", "VpcEndpointType": "Interface"},
                {"VpcId": "vpc-1", "ServiceName": "com.amazonaws.us-west-2.ec2messages",
                 "State": "available", "VpcEndpointType": "Interface"},
                {"VpcId": "vpc-1", "ServiceName": "com.amazonaws.us-west-2.logs",
                 "State": "available", "VpcEndpointType": "Interface"},
            ]}),
        ),
        (
            Question::NetworkInterfaces,
            json!({"NetworkInterfaces": [
                {"NetworkInterfaceId": "eni-1", "VpcId": "vpc-1", "Groups": [{"GroupId": OTHER_GROUP}]},
            ]}),
        ),
        (
            Question::FileSystems,
            json!({"FileSystems": [{
            "FileSystemId": "fs-0123456789abcdef0", "FileSystemType": "LUSTRE", "VpcId": "vpc-1",
            "DNSName": "fs-0123456789abcdef0.fsx.us-west-2.amazonaws.com",
            "SubnetIds": ["subnet-0bbbbbbbbbbbbbbb1"], "NetworkInterfaceIds": ["eni-1"],
            "LustreConfiguration": {"MountName": "abcdefgh"}}]}),
        ),
        (Question::SagemakerQuotas, json!({"Quotas": quotas})),
        (
            Question::VpcQuotas,
            json!({"Quotas": [
                {"QuotaCode": "L-DF5E4CA3", "QuotaName": "Network interfaces per Region", "Value": 5000.0},
            ]}),
        ),
    ];
    let mut answers: BTreeMap<Question, String> = answers
        .into_iter()
        .map(|(question, value)| (question, value.to_string()))
        .collect();
    // The file system's security group lets the nodes in.
    edit(
        answers.get_mut(&Question::SecurityGroups).unwrap(),
        |value| {
            value["SecurityGroups"][1]["IpPermissions"]
                .as_array_mut()
                .unwrap()
                .push(json!({"IpProtocol": "tcp", "FromPort": 988, "ToPort": 988,
                "UserIdGroupPairs": [{"GroupId": GROUP}]}));
        },
    );
    answers
}
