//! lib/cluster's table of CreateCluster, held against botocore: the table is what
//! its model says, and both say the same of 10,000 broken inputs. Needs python3
//! with venv and, the first time, the package registry.

#[path = "../src/command.rs"]
#[allow(dead_code)]
mod command;
#[path = "../src/venv.rs"]
mod venv;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use cluster::json::Document;
use cluster::model::CREATE_CLUSTER;
use cluster::shape::violations;
use serde_json::{Value, json};

const DOCUMENTS: usize = 10_000;

fn python() -> PathBuf {
    let place = command::cache().join("tools/botocore");
    let programs = venv::programs(&place, "requirements-botocore.txt");
    programs
        .expect("botocore for the comparison")
        .join("python3")
}

/// Random numbers that are the same in every run (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(end).unwrap()).unwrap()
    }
}

/// Every structure of the model once, or nearly.
fn whole() -> Value {
    let role = "arn:aws:iam::111122223333:role/nodes";
    let vpc = json!({"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1", "subnet-2"]});
    let rolling = json!({
        "RollingUpdatePolicy": {
            "MaximumBatchSize": {"Type": "INSTANCE_COUNT", "Value": 1},
            "RollbackMaximumBatchSize": {"Type": "CAPACITY_PERCENTAGE", "Value": 5},
        },
        "WaitIntervalInSeconds": 60,
        "AutoRollbackConfiguration": [{"AlarmName": "an alarm"}],
    });
    let lustre = json!({"SizeInGiB": 1200, "PerUnitStorageThroughput": 250});
    json!({
        "ClusterName": "ml-cluster",
        "InstanceGroups": [{
            "InstanceCount": 4, "MinInstanceCount": 1, "InstanceGroupName": "workers",
            "InstanceType": "ml.p5.48xlarge",
            "InstanceRequirements": {"InstanceTypes": ["ml.p5.48xlarge"]},
            "LifeCycleConfig": {"SourceS3Uri": "s3://sagemaker-x/y", "OnCreate": "on_create.sh",
                "OnInitComplete": "done.sh"},
            "ExecutionRole": role, "ThreadsPerCore": 2,
            "InstanceStorageConfigs": [
                {"EbsVolumeConfig": {"VolumeSizeInGB": 500, "VolumeKmsKeyId": "key", "RootVolume": false}},
                {"FsxLustreConfig": {"DnsName": "fs-0123456789abcdef0.fsx.us-west-2.amazonaws.com",
                    "MountName": "abcdefgh", "MountPath": "/fsx"}},
                {"FsxOpenZfsConfig": {"DnsName": "fs-0123456789abcdef0.fsx.us-west-2.amazonaws.com",
                    "MountPath": "/home"}},
            ],
            "OnStartDeepHealthChecks": ["InstanceStress"],
            "TrainingPlanArn": "arn:aws:sagemaker:us-west-2:111122223333:training-plan/plan",
            "OverrideVpcConfig": vpc,
            "ScheduledUpdateConfig": {"ScheduleExpression": "cron(0 0 1 * ? *)", "DeploymentConfig": rolling},
            "ImageId": "ami-0123456789abcdef0",
            "AutoPatchConfig": {"PatchingStrategy": "WhenIdle", "DeploymentConfig": rolling,
                "IdleWaitWindowInSeconds": 3600,
                "DrainPolicy": {"DrainTimeoutInSeconds": 60, "OnDrainTimeout": "Skip"}},
            "ImageReleaseVersion": "1.2.3",
            "KubernetesConfig": {"Labels": {"team": "a", "a-b/c": "d"},
                "Taints": [{"Key": "k", "Value": "v", "Effect": "NoSchedule"}]},
            "SlurmConfig": {"NodeType": "Compute", "PartitionNames": ["train"]},
            "CapacityRequirements": {"Spot": {}, "OnDemand": {}},
            "NetworkInterface": {"InterfaceType": "efa"},
        }],
        "RestrictedInstanceGroups": [{
            "InstanceCount": 1, "InstanceGroupName": "rig", "InstanceType": "ml.p5.48xlarge",
            "ExecutionRole": role, "EnvironmentConfig": {"FSxLustreConfig": lustre},
        }],
        "RestrictedInstanceGroupsConfig": {"SharedEnvironmentConfig": {
            "FSxLustreDeletionPolicy": "Keep", "FSxLustreConfig": lustre}},
        "VpcConfig": vpc,
        "Tags": [{"Key": "team", "Value": "Prüfung 1"}],
        "Orchestrator": {
            "Eks": {"ClusterArn": "arn:aws:eks:us-west-2:111122223333:cluster/x"},
            "Slurm": {"SlurmConfigStrategy": "Merge", "AccountingDatabase": {
                "Endpoint": "db.example.com", "Port": 3306, "Name": "slurm",
                "SecretArn": "arn:aws:secretsmanager:us-west-2:111122223333:secret:x"}},
        },
        "NodeRecovery": "Automatic",
        "TieredStorageConfig": {"Mode": "Enable", "InstanceMemoryAllocationPercentage": 20},
        "NodeProvisioningMode": "Continuous",
        "ClusterRole": role,
        "AutoScaling": {"Mode": "Enable", "AutoScalerType": "Karpenter"},
    })
}

/// The pointers of all values.
fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                pointers(item, &format!("{at}/{index}"), all);
            }
        }
        Value::Object(members) => {
            for (key, member) in members {
                pointers(member, &format!("{at}/{}", key.replace('/', "~1")), all);
            }
        }
        _ => {}
    }
}

/// Breaks one value, or leaves it as right as it was.
fn mutate(value: &mut Value, random: &mut Random) {
    const TEXTS: [&str; 16] = [
        "",
        " ",
        "-",
        "a",
        "a_b",
        "é",
        "Value\n",
        "Automatic",
        "efa",
        "ml.p5.48xlarge",
        "ml.m5.large",
        "s3://b",
        "default",
        "10.0.1",
        "\u{1}",
        "arn:aws:iam::1:role/x",
    ];
    const NUMBERS: [i64; 12] = [-1, 0, 1, 2, 3, 4, 60, 101, 6759, 16385, 65536, 2_160_001];
    let choice = random.below(10);
    match (choice, &mut *value) {
        (0..=2, Value::Object(members)) if !members.is_empty() => {
            let key = members
                .keys()
                .nth(random.below(members.len()))
                .unwrap()
                .clone();
            members.remove(&key);
        }
        (3, Value::Object(members)) => {
            let key = ["instanceCount", "Name", "x"][random.below(3)];
            members.insert(key.to_owned(), json!(TEXTS[random.below(TEXTS.len())]));
        }
        (0..=2, Value::Array(items)) if !items.is_empty() => {
            let item = items[random.below(items.len())].clone();
            items.resize(random.below(7), item);
        }
        (0..=4, Value::String(text)) => {
            *text = TEXTS[random.below(TEXTS.len())].repeat(1 + random.below(40));
        }
        (0..=5, Value::String(text)) => *text = TEXTS[random.below(TEXTS.len())].to_owned(),
        (0..=6, Value::Number(_)) => *value = json!(NUMBERS[random.below(NUMBERS.len())]),
        _ => {
            *value = match random.below(7) {
                0 => Value::Null,
                1 => json!(true),
                2 => json!(1.5),
                3 => json!([]),
                4 => json!({}),
                5 => json!(TEXTS[random.below(TEXTS.len())]),
                _ => json!(NUMBERS[random.below(NUMBERS.len())]),
            }
        }
    }
}

fn documents() -> Vec<String> {
    let whole = whole();
    let mut all = Vec::new();
    pointers(&whole, "", &mut all);
    // The whole document is an object in any case: botocore requires one.
    all.retain(|it| !it.is_empty());
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut broken = || {
        let mut document = whole.clone();
        for _ in 0..=random.below(3) {
            let at = &all[random.below(all.len())];
            if let Some(value) = document.pointer_mut(at) {
                mutate(value, &mut random);
            }
        }
        document.to_string()
    };
    let mut documents = vec![whole.to_string()];
    documents.extend((1..DOCUMENTS).map(|_| broken()));
    documents
}

#[test]
fn the_table_and_botocore_say_the_same_of_ten_thousand_inputs() {
    let documents = documents();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("documents");
    fs::write(&file, documents.join("\n")).unwrap();
    let mut oracle = Command::new(python());
    oracle
        .args(["-c", include_str!("cluster_model/oracle.py")])
        .arg(&file);
    let theirs = command::output(&mut oracle).unwrap();
    let mut wrong = String::new();
    let mut kinds = BTreeSet::new();
    let (mut compared, mut faulty) = (0, 0);
    for (document, theirs) in documents.iter().zip(theirs.lines()) {
        let theirs: BTreeSet<(String, String)> = serde_json::from_str(theirs).unwrap();
        let parsed = Document::parse(document.clone()).unwrap();
        let own: BTreeSet<(String, String)> = violations(&parsed.root, &CREATE_CLUSTER)
            .into_iter()
            .map(|it| (format!("{:?}", it.kind), it.pointer.replace("~1", "/")))
            .collect();
        compared += 1;
        faulty += usize::from(!own.is_empty());
        kinds.extend(own.iter().map(|it| it.0.clone()));
        if own != theirs && wrong.len() < 4000 {
            let ours: Vec<_> = own.difference(&theirs).collect();
            let missed: Vec<_> = theirs.difference(&own).collect();
            wrong += &format!("only the table: {ours:?}, only botocore: {missed:?}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    println!("{compared} inputs were judged like botocore: {faulty} with faults");
    assert_eq!(compared, DOCUMENTS);
    assert!(faulty > DOCUMENTS * 9 / 10, "{faulty}");
    assert_eq!(kinds.len(), 6, "{kinds:?}");
}

#[test]
fn the_table_is_what_botocores_model_says() {
    let mut check = command::cargo();
    check.args([
        "run",
        "--quiet",
        "--package",
        "xtask",
        "--",
        "cluster-model",
        "--check",
    ]);
    command::output(check.current_dir(command::workspace())).unwrap();
}
