//! `slurm-efa preflight`, on a corpus of configurations: those that are right
//! are clean, and each that is broken in one way is found by its own check.

mod corpus;
mod init;
mod live;

use std::collections::BTreeSet;

use cluster::answers::Question;
use corpus::{Case, OTHER_GROUP, api, lifecycle};
use findings::Severity;
use serde_json::{Value, json};
use slurm_efa::preflight::checks::CHECKS;
use slurm_efa::preflight::{Listing, Report, Scripts, judge};

/// The checks that are not ok.
fn found(report: &Report) -> BTreeSet<&'static str> {
    report.findings.not_ok().iter().map(|it| it.id).collect()
}

/// Configurations that are right.
fn originals() -> Vec<(&'static str, Case)> {
    let no_login = lifecycle()
        .cluster(|it| {
            it["InstanceGroups"].as_array_mut().unwrap().remove(1);
        })
        .provisioning(|it| it["login_group"] = json!(""));
    let null_login = lifecycle()
        .cluster(|it| {
            it["InstanceGroups"].as_array_mut().unwrap().remove(1);
        })
        .provisioning(|it| it["login_group"] = Value::Null);
    let efa_only = api().cluster(|it| {
        it["InstanceGroups"][2]["NetworkInterface"] = json!({"InterfaceType": "efa-only"});
    });
    let no_fsx = lifecycle().provisioning(|it| {
        it.as_object_mut()
            .unwrap()
            .retain(|key, _| !key.starts_with("fsx"));
    });
    let private = lifecycle().aws(Question::RouteTables, |it| {
        it["RouteTables"][0]["Routes"].as_array_mut().unwrap().pop();
    });
    let containers = lifecycle().script(
        "lifecycle_script.py",
        "run(\"install_slurm_efa.sh\")\nrun(\"start_slurm.sh\")\n\
         run(\"./utils/install_docker.sh\")\nrun(\"./utils/install_enroot_pyxis.sh\")\n\
         run(\"install_slurm_efa.sh\")\n",
    );
    let grown = lifecycle().planned("worker-group-1", 8);
    let shrunk = lifecycle().planned("worker-group-1", 0);
    vec![
        ("lifecycle", lifecycle()),
        ("api", api()),
        ("no login", no_login),
        ("login_group is null", null_login),
        ("efa-only", efa_only),
        ("no fsx", no_fsx),
        ("private", private),
        ("alternatives", alternatives()),
        ("docker and enroot", containers),
        ("a plan that fits", grown),
        ("a plan for fewer", shrunk),
    ]
}

#[test]
fn configurations_that_are_right_are_clean() {
    for (name, case) in originals() {
        let report = case.judge();
        assert_eq!(
            found(&report),
            BTreeSet::new(),
            "{name}: {}",
            report.to_text()
        );
        assert_eq!(report.exit_code(true), 0);
    }
}

/// A group that may have one of two types.
fn alternatives() -> Case {
    api().cluster(|it| {
        let group = it["InstanceGroups"][2].as_object_mut().unwrap();
        group.remove("InstanceType");
        let types = json!({"InstanceTypes": ["ml.p5.48xlarge", "ml.p5en.48xlarge"]});
        group.insert("InstanceRequirements".to_owned(), types);
    })
}

/// A way to break a configuration: the check that finds it, and what is broken.
type Mutant = (&'static str, &'static str, Case);

fn remove(value: &mut Value, key: &str) {
    assert!(
        value.as_object_mut().unwrap().remove(key).is_some(),
        "{key}"
    );
}

fn push(value: &mut Value, item: Value) {
    value.as_array_mut().unwrap().push(item);
}

fn of_files() -> Vec<Mutant> {
    let text = |change: &dyn Fn(&str) -> String| {
        let mut case = lifecycle();
        case.cluster = change(&case.cluster);
        case
    };
    let worker = |change: fn(&mut Value)| {
        lifecycle().cluster(move |it| change(&mut it["InstanceGroups"][2]))
    };
    vec![
        ("required", "no ExecutionRole", worker(|it| remove(it, "ExecutionRole"))),
        ("required", "no ClusterName", lifecycle().cluster(|it| remove(it, "ClusterName"))),
        ("required", "a volume of no kind", worker(|it| it["InstanceStorageConfigs"] = json!([{}]))),
        ("required", "parameters without version", lifecycle().provisioning(|it| remove(it, "version"))),
        ("type", "a number in quotes", worker(|it| it["ThreadsPerCore"] = json!("2"))),
        ("type", "a count with a fraction", worker(|it| it["ThreadsPerCore"] = json!(1.5))),
        ("type", "tags as an object", lifecycle().cluster(|it| it["Tags"] = json!({"team": "x"}))),
        ("pattern", "a name with an underscore", lifecycle().cluster(|it| it["ClusterName"] = json!("ml_cluster"))),
        ("pattern", "a role that is none", worker(|it| it["ExecutionRole"] = json!("arn:aws:iam::1:role/hyperpod"))),
        ("pattern", "an image id", worker(|it| it["ImageId"] = json!("ami-xyzxyzxyz"))),
        ("choice", "NodeRecovery in small letters", lifecycle().cluster(|it| it["NodeRecovery"] = json!("automatic"))),
        ("choice", "an interface of another kind", api().cluster(|it| {
            it["InstanceGroups"][2]["NetworkInterface"] = json!({"InterfaceType": "ena"});
        })),
        ("range", "three threads a core", worker(|it| it["ThreadsPerCore"] = json!(3))),
        ("range", "a name of 64 letters", lifecycle().cluster(|it| it["ClusterName"] = json!("a".repeat(64)))),
        ("range", "five volumes", worker(|it| {
            it["InstanceStorageConfigs"] = json!(vec![json!({"EbsVolumeConfig": {"VolumeSizeInGB": 1}}); 5]);
        })),
        ("unknown-key", "a key in small letters", worker(|it| it["threadsPerCore"] = json!(1))),
        ("unknown-key", "a key of the parameters", lifecycle().provisioning(|it| it["fsx_mount_name"] = json!("x"))),
        ("group-names", "two groups of one name", api().cluster(|it| it["InstanceGroups"][1]["InstanceGroupName"] = json!("head"))),
        ("type-choice", "a group without a type", api().cluster(|it| remove(&mut it["InstanceGroups"][1], "InstanceType"))),
        ("type-choice", "a group with a type and a choice", api().cluster(|it| {
            it["InstanceGroups"][1]["InstanceRequirements"] = json!({"InstanceTypes": ["ml.m5.large"]});
        })),
        ("min-count", "a minimum above the count", api().cluster(|it| it["InstanceGroups"][2]["MinInstanceCount"] = json!(3))),
        ("mode", "SlurmConfig without Orchestrator", lifecycle().cluster(|it| {
            it["InstanceGroups"][0]["SlurmConfig"] = json!({"NodeType": "Controller"});
        })),
        ("mode", "a group without SlurmConfig", api().cluster(|it| {
            push(&mut it["InstanceGroups"], json!({"InstanceGroupName": "more", "InstanceCount": 1,
                "InstanceType": "ml.m5.large", "ExecutionRole": "arn:aws:iam::111122223333:role/x"}));
        })),
        ("mode", "parameters besides Orchestrator.Slurm", {
            let mut case = api();
            case.provisioning = lifecycle().provisioning;
            case.script("provisioning_parameters.json", lifecycle().provisioning.unwrap())
        }),
        ("json", "a trailing comma", text(&|it| it.replacen("\"ml-cluster\",", "\"ml-cluster\",,", 1))),
        ("json", "a BOM", text(&|it| format!("\u{feff}{it}"))),
        ("json", "a key twice", text(&|it| it.replacen('{', "{\"ClusterName\": \"a\",", 1))),
        ("json", "text after the end", text(&|it| format!("{it} x"))),
        ("json", "nothing", text(&|_| String::new())),
    ]
}

fn of_roles() -> Vec<Mutant> {
    vec![
        (
            "controller",
            "a controller group that is not there",
            lifecycle().provisioning(|it| it["controller_group"] = json!("controller")),
        ),
        (
            "controller",
            "two controllers",
            api().cluster(|it| {
                it["InstanceGroups"][1]["SlurmConfig"]["NodeType"] = json!("Controller")
            }),
        ),
        (
            "controller-count",
            "no controller instance",
            lifecycle().cluster(|it| it["InstanceGroups"][0]["InstanceCount"] = json!(0)),
        ),
        (
            "controller-count",
            "two controller instances",
            api().cluster(|it| it["InstanceGroups"][0]["InstanceCount"] = json!(2)),
        ),
        (
            "login-group",
            "a login group that is not there",
            lifecycle().provisioning(|it| it["login_group"] = json!("my-login-grp")),
        ),
        (
            "worker-groups",
            "a worker group that is not there",
            lifecycle().provisioning(|it| {
                it["worker_groups"][0]["instance_group_name"] = json!("workers")
            }),
        ),
        (
            "worker-groups",
            "a worker group twice",
            lifecycle().provisioning(|it| {
                push(
                    &mut it["worker_groups"],
                    json!({"instance_group_name": "worker-group-1", "partition_name": "x"}),
                );
            }),
        ),
        (
            "worker-groups",
            "the controller as a worker",
            lifecycle().provisioning(|it| {
                push(
                    &mut it["worker_groups"],
                    json!({"instance_group_name": "controller-machine", "partition_name": "x"}),
                );
            }),
        ),
        (
            "worker-groups",
            "no compute group",
            api().cluster(|it| it["InstanceGroups"][2]["SlurmConfig"]["NodeType"] = json!("Login")),
        ),
        (
            "unused-groups",
            "a group that nobody names",
            lifecycle().provisioning(|it| {
                it["worker_groups"].as_array_mut().unwrap().pop();
            }),
        ),
        (
            "partition-name",
            "a blank in a partition",
            lifecycle()
                .provisioning(|it| it["worker_groups"][0]["partition_name"] = json!("my dev")),
        ),
        (
            "partition-name",
            "a partition DEFAULT",
            api().cluster(|it| {
                it["InstanceGroups"][2]["SlurmConfig"]["PartitionNames"] = json!(["Default"])
            }),
        ),
        (
            "parameters-version",
            "a version to come",
            lifecycle().provisioning(|it| it["version"] = json!("2.0.0")),
        ),
        (
            "workload-manager",
            "another workload manager",
            lifecycle().provisioning(|it| it["workload_manager"] = json!("pbs")),
        ),
        (
            "node-recovery",
            "no recovery",
            lifecycle().cluster(|it| it["NodeRecovery"] = json!("None")),
        ),
        (
            "efa-interface",
            "efa for a type without",
            api().cluster(|it| {
                it["InstanceGroups"][1]["NetworkInterface"] = json!({"InterfaceType": "efa"})
            }),
        ),
        (
            "vpc-override",
            "nothing to override",
            lifecycle().cluster(|it| {
                let vpc = it["VpcConfig"].clone();
                for group in it["InstanceGroups"].as_array_mut().unwrap() {
                    group["OverrideVpcConfig"] = vpc.clone();
                }
                remove(it, "VpcConfig");
            }),
        ),
        ("vpc", "no VPC", api().cluster(|it| remove(it, "VpcConfig"))),
        (
            "fsx-pair",
            "no mount name",
            lifecycle().provisioning(|it| remove(it, "fsx_mountname")),
        ),
        (
            "fsx-pair",
            "no DNS name",
            lifecycle().provisioning(|it| remove(it, "fsx_dns_name")),
        ),
        (
            "lifecycle-config",
            "no OnCreate",
            lifecycle()
                .cluster(|it| remove(&mut it["InstanceGroups"][0]["LifeCycleConfig"], "OnCreate")),
        ),
        (
            "lifecycle-config",
            "no scripts at all",
            lifecycle().cluster(|it| remove(&mut it["InstanceGroups"][2], "LifeCycleConfig")),
        ),
        (
            "lifecycle-source",
            "two places",
            lifecycle().cluster(|it| {
                it["InstanceGroups"][0]["LifeCycleConfig"]["SourceS3Uri"] =
                    json!("s3://sagemaker-ml-111122223333/other/");
            }),
        ),
        (
            "bucket-name",
            "a bucket of another name",
            lifecycle().cluster(|it| {
                for group in it["InstanceGroups"].as_array_mut().unwrap() {
                    group["LifeCycleConfig"]["SourceS3Uri"] = json!("s3://ml-bucket/lifecycle");
                }
            }),
        ),
    ]
}

fn of_scripts() -> Vec<Mutant> {
    let users = |text: &str| lifecycle().script("shared_users.txt", text);
    let script = |text: &str| lifecycle().script("lifecycle_script.py", text);
    vec![
        (
            "on-create",
            "no on_create.sh",
            lifecycle().without("on_create.sh"),
        ),
        (
            "on-create",
            "a name that leads out",
            lifecycle().cluster(|it| {
                it["InstanceGroups"][0]["LifeCycleConfig"]["OnCreate"] = json!("../on_create.sh");
            }),
        ),
        (
            "script-text",
            "a program as a script",
            lifecycle().script("start_slurm.sh", b"\x7fELF\x02\x01\xff\xfe".to_vec()),
        ),
        (
            "script-lines",
            "CR LF",
            lifecycle().script("start_slurm.sh", "#!/bin/bash\r\nexit 0\r\n"),
        ),
        (
            "script-interpreter",
            "no first line",
            lifecycle().script("on_create.sh", "python3 lifecycle_script.py\n"),
        ),
        (
            "parameters-there",
            "no parameters",
            lifecycle().without("provisioning_parameters.json"),
        ),
        (
            "parameters-same",
            "other parameters",
            lifecycle().script("provisioning_parameters.json", "{\"version\": \"1.0.0\"}"),
        ),
        (
            "slurm-efa-step",
            "no step",
            script("run(\"./start_slurm.sh\")\n"),
        ),
        (
            "slurm-efa-step",
            "a step that is commented out",
            script("# run(\"install_slurm_efa.sh\")\n"),
        ),
        (
            "step-order",
            "only before",
            script("run(\"install_slurm_efa.sh\")\nrun(\"start_slurm.sh\")\n"),
        ),
        (
            "step-order",
            "only after",
            script("run(\"start_slurm.sh\")\nrun(\"install_slurm_efa.sh\")\n"),
        ),
        (
            "step-after-containers",
            "enroot after the last call",
            script(
                "run(\"install_slurm_efa.sh\")\nrun(\"start_slurm.sh\")\n\
                 run(\"install_slurm_efa.sh\")\nrun(\"./utils/install_enroot_pyxis.sh\")\n",
            ),
        ),
        (
            "step-after-containers",
            "docker after the last call",
            script(
                "run(\"install_slurm_efa.sh\")\nrun(\"start_slurm.sh\")\n\
                 run(\"install_slurm_efa.sh\")\nrun(\"./utils/install_docker.sh\")\n",
            ),
        ),
        (
            "shared-users",
            "a uid twice",
            users("alice,2001,/fsx/alice\nbob,2001,/fsx/bob\n"),
        ),
        (
            "shared-users",
            "a name twice",
            users("alice,2001,/fsx/alice\nalice,2002,/fsx/bob\n"),
        ),
        (
            "shared-users",
            "a uid of the system",
            users("alice,999,/fsx/alice\n"),
        ),
        (
            "shared-users",
            "the uid of the image's user",
            users("alice,1000,/fsx/alice\n"),
        ),
        ("shared-users", "no uid", users("alice,/fsx/alice\n")),
        (
            "gres-auto-resume",
            "an image of one's own with GRES",
            lifecycle()
                .script(
                    "start_slurm.sh",
                    "#!/bin/bash\necho GresTypes=gpu >> slurm.conf\n",
                )
                .cluster(|it| it["InstanceGroups"][2]["ImageId"] = json!("ami-0123456789abcdef0")),
        ),
    ]
}

fn of_answers() -> Vec<Mutant> {
    use Question::*;
    let group = |change: fn(&mut Value)| {
        lifecycle().aws(SecurityGroups, move |it| {
            change(&mut it["SecurityGroups"][0])
        })
    };
    let zone = |case: Case, subnet: usize| {
        case.aws(Subnets, move |it| {
            it["Subnets"][subnet]["AvailabilityZone"] = json!("us-west-2b")
        })
    };
    let free = |count: u64| {
        api().aws(Subnets, move |it| {
            it["Subnets"][0]["AvailableIpAddressCount"] = json!(count)
        })
    };
    vec![
        ("subnets", "a subnet that is not there", lifecycle().cluster(|it| {
            it["InstanceGroups"][3]["OverrideVpcConfig"]["Subnets"] = json!(["subnet-0ccccccccccccccc1"]);
        })),
        ("security-groups", "a security group that is not there", api().cluster(|it| {
            push(&mut it["VpcConfig"]["SecurityGroupIds"], json!("sg-0ccccccccccccccc1"));
        })),
        ("one-vpc", "a subnet of another VPC", lifecycle().aws(Subnets, |it| it["Subnets"][0]["VpcId"] = json!("vpc-2"))
            .aws(RouteTables, |it| it["RouteTables"][0]["Associations"] = json!([
                {"Main": true}, {"SubnetId": "subnet-0bbbbbbbbbbbbbbb1"}]))),
        ("sg-self-ingress", "only port 22 comes in", group(|it| it["IpPermissions"] = json!([
            {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]))),
        ("sg-self-ingress", "another group comes in", group(|it| {
            it["IpPermissions"][0]["UserIdGroupPairs"] = json!([{"GroupId": OTHER_GROUP}]);
        })),
        ("sg-self-ingress", "all TCP is not all traffic", group(|it| {
            it["IpPermissions"][0]["IpProtocol"] = json!("tcp");
        })),
        ("sg-self-ingress", "an override without", lifecycle().cluster(|it| {
            it["InstanceGroups"][3]["OverrideVpcConfig"]["SecurityGroupIds"] = json!([OTHER_GROUP]);
        }).aws(SecurityGroups, |it| {
            it["SecurityGroups"][1]["IpPermissions"] = json!([{"IpProtocol": "tcp", "FromPort": 988,
                "ToPort": 988, "IpRanges": [{"CidrIp": "10.1.0.0/16"}]}]);
        })),
        ("sg-self-egress", "nothing goes out but HTTPS", group(|it| {
            it["IpPermissionsEgress"].as_array_mut().unwrap().remove(0);
        })),
        ("sg-open-egress", "everything goes out", group(|it| {
            push(&mut it["IpPermissionsEgress"], json!({"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}));
        })),
        ("sg-shared", "a partition with two groups", lifecycle().cluster(|it| {
            it["InstanceGroups"][3]["OverrideVpcConfig"]["SecurityGroupIds"] = json!([OTHER_GROUP]);
        }).provisioning(|it| it["worker_groups"][1]["partition_name"] = json!("dev"))
        .aws(SecurityGroups, |it| {
            push(&mut it["SecurityGroups"][1]["IpPermissions"], json!({"IpProtocol": "tcp", "FromPort": 988,
                "ToPort": 988, "IpRanges": [{"CidrIp": "10.1.0.0/16"}]}));
        })),
        ("addresses", "a /28 for p5 nodes", lifecycle().aws(Subnets, |it| {
            it["Subnets"][0]["AvailableIpAddressCount"] = json!(11);
        })),
        // 1 + 2 + 2 nodes with 16 interfaces each.
        ("addresses", "one address too few", free(34)),
        ("addresses-spare", "no address is left", free(35)),
        ("addresses-spare", "15 addresses are left", free(50)),
        ("addresses-planned", "no room for 40 p5 nodes", lifecycle().planned("worker-group-1", 40)
            .aws(SagemakerQuotas, |it| it["Quotas"][2]["Value"] = json!(64.0))),
        ("quota-planned", "eight p5 are allowed, nine planned", lifecycle().planned("worker-group-1", 9)),
        ("quota-type", "the types of a choice have too little left", alternatives().aws(SagemakerQuotas, |it| {
            it["Quotas"][2]["Value"] = json!(0.0);
            it["Quotas"][3]["Value"] = json!(1.0);
        })),
        ("group-zone", "two zones", zone(api().cluster(|it| {
            push(&mut it["VpcConfig"]["Subnets"], json!("subnet-0bbbbbbbbbbbbbbb2"));
        }), 1)),
        ("partition-zone", "a partition in two zones", zone(lifecycle().provisioning(|it| {
            it["worker_groups"][1]["partition_name"] = json!("dev");
            it.as_object_mut().unwrap().retain(|key, _| !key.starts_with("fsx"));
        }).aws(Offerings, |it| {
            push(&mut it["InstanceTypeOfferings"], json!({"InstanceType": "g5.12xlarge", "Location": "us-west-2b"}));
        }), 1)),
        ("type-offered", "a type of another zone", api().aws(Offerings, |it| {
            it["InstanceTypeOfferings"][3]["Location"] = json!("us-west-2c");
        })),
        ("public-subnet", "an internet gateway", lifecycle().aws(RouteTables, |it| {
            it["RouteTables"][0]["Routes"][1] = json!({"DestinationCidrBlock": "0.0.0.0/0", "GatewayId": "igw-1"});
        })),
        ("s3-endpoint", "no internet and no S3", lifecycle().aws(RouteTables, |it| {
            it["RouteTables"][0]["Routes"].as_array_mut().unwrap().pop();
        }).aws(Endpoints, |it| it["VpcEndpoints"][0]["RouteTableIds"] = json!(["rtb-9"]))),
        ("service-endpoints", "no internet and no SSM", lifecycle().aws(RouteTables, |it| {
            it["RouteTables"][0]["Routes"][1]["State"] = json!("blackhole");
        }).aws(Endpoints, |it| it["VpcEndpoints"][1]["State"] = json!("pending"))),
        ("fsx", "a file system that is not there", lifecycle().provisioning(|it| {
            it["fsx_dns_name"] = json!("fs-0fedcba9876543210.fsx.us-west-2.amazonaws.com");
        })),
        ("fsx-mount-name", "another mount name", api().cluster(|it| {
            it["InstanceGroups"][2]["InstanceStorageConfigs"][0]["FsxLustreConfig"]["MountName"] = json!("zzzzzzzz");
        })),
        ("fsx-zone", "a file system in another zone", lifecycle().aws(FileSystems, |it| {
            it["FileSystems"][0]["SubnetIds"] = json!(["subnet-0bbbbbbbbbbbbbbb3"]);
        })),
        ("fsx-security-group", "the file system admits nobody", lifecycle().aws(SecurityGroups, |it| {
            it["SecurityGroups"][1]["IpPermissions"].as_array_mut().unwrap().pop();
        })),
        ("fsx-security-group", "the file system admits another port", api().aws(SecurityGroups, |it| {
            it["SecurityGroups"][1]["IpPermissions"][1]["ToPort"] = json!(987);
        })),
        ("quota-type", "three p5 are allowed", lifecycle().aws(SagemakerQuotas, |it| it["Quotas"][2]["Value"] = json!(3.0))),
        ("quota-cluster", "four instances are allowed", api().aws(SagemakerQuotas, |it| it["Quotas"][5]["Value"] = json!(4.0))),
        ("quota-interfaces", "a hundred interfaces are allowed", lifecycle().aws(VpcQuotas, |it| it["Quotas"][0]["Value"] = json!(100.0))),
    ]
}

fn mutants() -> Vec<Mutant> {
    let all = [of_files(), of_roles(), of_scripts(), of_answers()];
    all.into_iter().flatten().collect()
}

#[test]
fn each_mutant_is_found_by_its_own_check_and_no_other() {
    let mut wrong = String::new();
    let mutants = mutants();
    assert!(mutants.len() >= 60, "{}", mutants.len());
    for (id, name, case) in &mutants {
        let report = case.judge();
        // What could not be read is judged by nothing else.
        let mut found = found(&report);
        if *id == "json" {
            let unknown = |it: &&str| severity(&report, it) == Severity::Unknown;
            found.retain(|it| !unknown(it));
        }
        if found != BTreeSet::from([*id]) {
            wrong += &format!("{id}, {name}: {found:?}\n{}\n", report.to_text());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn severity(report: &Report, id: &str) -> Severity {
    let all = report.findings.0.iter().filter(|it| it.id == id);
    all.map(|it| it.severity).max().unwrap()
}

#[test]
fn the_manual_has_the_size_of_the_corpus() {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/preflight.md");
    let docs = std::fs::read_to_string(docs).unwrap();
    let (right, broken) = (originals().len(), mutants().len());
    let sizes = format!("{right} configurations that are right and {broken} that are broken");
    assert!(docs.contains(&sizes), "docs/preflight.md lacks: {sizes}");
}

#[test]
fn every_check_has_a_mutant() {
    let broken: BTreeSet<&str> = mutants().iter().map(|it| it.0).collect();
    let checks: BTreeSet<&str> = CHECKS.iter().map(|it| it.id).collect();
    assert_eq!(checks, broken);
}

#[test]
fn what_was_not_checked_is_listed_as_unknown() {
    let mut case = lifecycle();
    case.aws.clear();
    let report = judge(&case.input(None));
    for check in CHECKS {
        let mut needs = check.needs.iter().map(|need| need.name());
        // Nothing is planned, so there is nothing to check.
        let is_planned = needs.clone().any(|it| it == "--planned");
        let needs_more = !is_planned && needs.any(|it| it != "--provisioning");
        let expected = if needs_more {
            Severity::Unknown
        } else {
            Severity::Ok
        };
        assert_eq!(severity(&report, check.id), expected, "{}", check.id);
    }
    assert_eq!(report.exit_code(false), 3);
    assert!(
        report.to_text().contains("not checked: not asked"),
        "{}",
        report.to_text()
    );
    case.provisioning = None;
    let report = judge(&case.input(None));
    assert_eq!(severity(&report, "controller"), Severity::Unknown);
}

#[test]
fn a_finding_names_line_column_and_pointer() {
    let case = lifecycle().cluster(|it| it["InstanceGroups"][2]["ThreadsPerCore"] = json!("2"));
    let (_, _, line) = case
        .cluster
        .lines()
        .enumerate()
        .filter(|(_, line)| line.contains("ThreadsPerCore"))
        .map(|(index, line)| (index, line, index + 1))
        .nth(2)
        .unwrap();
    let json: Value = serde_json::from_str(&case.judge().to_json(0).unwrap()).unwrap();
    let findings = json["findings"].as_array().unwrap();
    let finding = findings
        .iter()
        .find(|it| it["severity"] == "fatal")
        .unwrap();
    assert_eq!(finding["file"], "create_cluster.json");
    assert_eq!(finding["pointer"], "/InstanceGroups/2/ThreadsPerCore");
    assert_eq!(finding["line"], line);
    assert_eq!(json["version"], 1);
    assert_eq!(json["severity"], "fatal");
    assert_eq!(json["botocore"], cluster::model::BOTOCORE);
}

#[test]
fn a_warning_ends_with_1_and_with_strict_with_2() {
    let report = lifecycle()
        .cluster(|it| it["NodeRecovery"] = json!("None"))
        .judge();
    assert_eq!((report.exit_code(false), report.exit_code(true)), (1, 2));
    let report = lifecycle().cluster(|it| remove(it, "ClusterName")).judge();
    assert_eq!((report.exit_code(false), report.exit_code(true)), (2, 2));
}

/// The case with a listing instead of the folder.
fn listed(case: &Case, text: &str) -> Report {
    let mut input = case.input(None);
    input.lifecycle = Some(Scripts::Listing(Listing::of(
        "scripts.json".to_owned(),
        text,
    )));
    judge(&input)
}

#[test]
fn a_listing_of_the_bucket_shows_which_scripts_were_uploaded() {
    let keys = [
        "lifecycle/on_create.sh",
        "lifecycle/provisioning_parameters.json",
    ];
    let lines = keys.map(|key| format!("2026-11-01 10:00:00       1234 {key}\n"));
    let objects = keys.map(|key| json!({"Key": key, "Size": 1234}));
    let answer = json!({"Contents": objects, "RequestCharged": null}).to_string();
    for text in [lines.concat(), answer] {
        let report = listed(&lifecycle(), &text);
        assert_eq!(severity(&report, "on-create"), Severity::Ok, "{text}");
        assert_eq!(severity(&report, "parameters-there"), Severity::Ok);
        // Their contents are not in it.
        assert_eq!(severity(&report, "script-lines"), Severity::Unknown);
        assert_eq!(report.exit_code(false), 3);
    }
    for (text, missing) in [
        (lines[1].as_str(), "on-create"),
        (lines[0].as_str(), "parameters-there"),
        // The same name elsewhere in the bucket.
        ("2026-11-01 10:00:00 1 on_create.sh\n", "on-create"),
        ("{}", "on-create"),
        ("", "on-create"),
    ] {
        let report = listed(&lifecycle(), text);
        assert_eq!(severity(&report, missing), Severity::Fatal, "{text}");
    }
}
