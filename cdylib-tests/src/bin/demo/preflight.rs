//! The section about a cluster that does not exist yet.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::stage::{Outcome, Stage, expect};

/// Beside the administrator's programs.
const FOLDER: &str = "cluster";

const GROUP: &str = "sg-0aaaaaaaaaaaaaaa1";
const SUBNET: &str = "subnet-0bbbbbbbbbbbbbbb1";
const TYPES: [&str; 2] = ["m5.xlarge", "p5.48xlarge"];

/// The lifecycle scripts, as far as they are looked at.
const SCRIPTS: [(&str, &str); 3] = [
    (
        "on_create.sh",
        "#!/bin/bash\npython3 -u lifecycle_script.py\n",
    ),
    (
        "lifecycle_script.py",
        "if node_type != 'controller':\n    run('./utils/install_slurm_efa.sh')\n\
         run('./start_slurm.sh')\n\
         if node_type == 'controller':\n    run('./utils/install_slurm_efa.sh')\n",
    ),
    ("utils/install_slurm_efa.sh", "#!/bin/bash\n"),
];

pub fn a_cluster_that_does_not_exist_yet(stage: &Stage<'_>) -> Outcome {
    stage.title(
        "Before there is a cluster",
        "slurm-efa preflight checks the files of a HyperPod cluster, and what AWS says about its\n\
         network. AWS's answers were saved here, so nobody is asked. First, files for 16 p5 nodes:",
    );
    let folder = stage.testbed.dir().join(FOLDER);
    for (name, text) in SCRIPTS {
        write(&folder.join("lifecycle").join(name), text)?;
    }
    answers(&folder, &Network::BROKEN)?;
    let written = stage.administer(&format!(
        "./slurm-efa preflight init --type p5.48xlarge --count 16 --login-nodes 0 --fsx '' \\\n      \
         --subnet {SUBNET} --security-group {GROUP} \\\n      \
         --execution-role arn:aws:iam::111122223333:role/nodes \\\n      \
         --source s3://sagemaker-ml/lifecycle --into {FOLDER}/lifecycle"
    ))?;
    expect(written.code() == 0, "files that pass")?;
    stage.say(
        "Somebody renames a group in one of the two, takes a /28 subnet, and a security group that\n\
         lets in ssh only:",
    );
    let rename = "sed -i s/worker-group-1/worker-group1/";
    let parameters = format!("{FOLDER}/lifecycle/provisioning_parameters.json");
    stage.administer(&format!("{rename} {parameters}"))?;
    let check = format!(
        "./slurm-efa preflight --cluster {FOLDER}/lifecycle/create_cluster.json \\\n      \
         --lifecycle {FOLDER}/lifecycle --aws {FOLDER}"
    );
    let broken = stage.administer(&check)?;
    expect(broken.code() == 2, "exit status 2")?;
    for id in [
        "worker-groups",
        "sg-self-ingress",
        "sg-self-egress",
        "addresses",
    ] {
        let line = format!("FATAL    {id} ");
        expect(broken.stdout.contains(&line), &format!("the finding {id}"))?;
    }
    expect(
        broken.stdout.contains("did you mean worker-group-1?")
            && broken.stdout.contains(" checks: 4 fatal, 0 warning,"),
        "the four faults and nothing else",
    )?;
    stage.say("With each of them corrected as it says, and AWS's answers saved again:");
    let correct = "sed -i s/worker-group1/worker-group-1/";
    stage.administer(&format!("{correct} {parameters}"))?;
    answers(&folder, &Network::CORRECT)?;
    let clean = stage.administer(&check)?;
    expect(clean.code() == 0, "exit status 0")?;
    expect(
        clean
            .stdout
            .contains(" checks: 0 fatal, 0 warning, 0 not checked,"),
        "no finding",
    )
}

/// What differs between the two sets of answers.
struct Network {
    /// Free addresses of the subnet.
    free: u64,
    /// Whether the security group allows all traffic from and to itself.
    allows_itself: bool,
}

impl Network {
    const BROKEN: Self = Self {
        free: 11,
        allows_itself: false,
    };
    const CORRECT: Self = Self {
        free: 1019,
        allows_itself: true,
    };

    fn security_group(&self) -> Value {
        let https = json!({"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443,
            "IpRanges": [{"CidrIp": "0.0.0.0/0"}]});
        let ssh = json!({"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22,
            "IpRanges": [{"CidrIp": "10.1.0.0/16"}]});
        let itself = json!({"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": GROUP}]});
        let (mut ingress, mut egress) = (vec![ssh], vec![https]);
        if self.allows_itself {
            ingress.push(itself.clone());
            egress.push(itself);
        }
        json!({"GroupId": GROUP, "VpcId": "vpc-1", "IpPermissions": ingress,
            "IpPermissionsEgress": egress})
    }
}

/// Answers of the AWS CLI, under the names that preflight prints.
fn answers(folder: &Path, network: &Network) -> Outcome {
    let offers = TYPES.map(|it| json!({"InstanceType": it, "Location": "us-west-2a"}));
    let mut quotas: Vec<Value> = TYPES
        .iter()
        .map(|it| json!({"QuotaName": format!("ml.{it} for cluster usage"), "Value": 32.0}))
        .collect();
    quotas.push(json!({"Value": 64.0,
        "QuotaName": "Maximum number of instances allowed per SageMaker HyperPod cluster"}));
    let answers = [
        (
            "describe-subnets",
            json!({"Subnets": [{"SubnetId": SUBNET, "VpcId": "vpc-1",
                "AvailabilityZone": "us-west-2a", "AvailableIpAddressCount": network.free,
                "CidrBlock": "10.1.0.0/22"}]}),
        ),
        (
            "describe-security-groups",
            json!({"SecurityGroups": [network.security_group()]}),
        ),
        (
            "describe-instance-type-offerings",
            json!({"InstanceTypeOfferings": offers}),
        ),
        (
            "describe-route-tables",
            json!({"RouteTables": [{"RouteTableId": "rtb-1", "VpcId": "vpc-1",
                "Associations": [{"Main": true}],
                "Routes": [{"DestinationCidrBlock": "0.0.0.0/0", "NatGatewayId": "nat-1"}]}]}),
        ),
        ("describe-vpc-endpoints", json!({"VpcEndpoints": []})),
        (
            "describe-network-interfaces",
            json!({"NetworkInterfaces": []}),
        ),
        ("describe-file-systems", json!({"FileSystems": []})),
        ("list-service-quotas-sagemaker", json!({"Quotas": quotas})),
        (
            "list-service-quotas-vpc",
            json!({"Quotas": [{"QuotaCode": "L-DF5E4CA3",
                "QuotaName": "Network interfaces per Region", "Value": 5000.0}]}),
        ),
    ];
    for (name, answer) in answers {
        write(&folder.join(format!("{name}.json")), &answer.to_string())?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Outcome {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(fs::write(path, text)?)
}
