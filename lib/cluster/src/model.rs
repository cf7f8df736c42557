//! CreateCluster's input: botocore's service model of SageMaker.
//! `cargo xtask cluster-model` writes this file.

use crate::shape::{Shape, optional, required};

/// The version of botocore whose model this is.
pub const BOTOCORE: &str = "1.44.8";

static CLUSTER_NAME: Shape = Shape::Text {
    length: (1, 63),
    pattern: "[a-zA-Z0-9](-*[a-zA-Z0-9])*",
    values: &[],
};

static CLUSTER_INSTANCE_COUNT: Shape = Shape::Integer { min: 0, max: 6758 };

static CLUSTER_INSTANCE_GROUP_NAME: Shape = Shape::Text {
    length: (1, 63),
    pattern: "[a-zA-Z0-9](-*[a-zA-Z0-9])*",
    values: &[],
};

static CLUSTER_INSTANCE_TYPE: Shape = Shape::Text {
    length: (0, u64::MAX),
    pattern: "",
    values: &[
        "ml.p4d.24xlarge",
        "ml.p4de.24xlarge",
        "ml.p5.48xlarge",
        "ml.p5.4xlarge",
        "ml.p6e-gb200.36xlarge",
        "ml.trn1.32xlarge",
        "ml.trn1n.32xlarge",
        "ml.g5.xlarge",
        "ml.g5.2xlarge",
        "ml.g5.4xlarge",
        "ml.g5.8xlarge",
        "ml.g5.12xlarge",
        "ml.g5.16xlarge",
        "ml.g5.24xlarge",
        "ml.g5.48xlarge",
        "ml.c5.large",
        "ml.c5.xlarge",
        "ml.c5.2xlarge",
        "ml.c5.4xlarge",
        "ml.c5.9xlarge",
        "ml.c5.12xlarge",
        "ml.c5.18xlarge",
        "ml.c5.24xlarge",
        "ml.c5n.large",
        "ml.c5n.2xlarge",
        "ml.c5n.4xlarge",
        "ml.c5n.9xlarge",
        "ml.c5n.18xlarge",
        "ml.m5.large",
        "ml.m5.xlarge",
        "ml.m5.2xlarge",
        "ml.m5.4xlarge",
        "ml.m5.8xlarge",
        "ml.m5.12xlarge",
        "ml.m5.16xlarge",
        "ml.m5.24xlarge",
        "ml.t3.medium",
        "ml.t3.large",
        "ml.t3.xlarge",
        "ml.t3.2xlarge",
        "ml.g6.xlarge",
        "ml.g6.2xlarge",
        "ml.g6.4xlarge",
        "ml.g6.8xlarge",
        "ml.g6.16xlarge",
        "ml.g6.12xlarge",
        "ml.g6.24xlarge",
        "ml.g6.48xlarge",
        "ml.gr6.4xlarge",
        "ml.gr6.8xlarge",
        "ml.g6e.xlarge",
        "ml.g6e.2xlarge",
        "ml.g6e.4xlarge",
        "ml.g6e.8xlarge",
        "ml.g6e.16xlarge",
        "ml.g6e.12xlarge",
        "ml.g6e.24xlarge",
        "ml.g6e.48xlarge",
        "ml.p5e.48xlarge",
        "ml.p5en.48xlarge",
        "ml.p6-b200.48xlarge",
        "ml.trn2.3xlarge",
        "ml.trn2.48xlarge",
        "ml.c6i.large",
        "ml.c6i.xlarge",
        "ml.c6i.2xlarge",
        "ml.c6i.4xlarge",
        "ml.c6i.8xlarge",
        "ml.c6i.12xlarge",
        "ml.c6i.16xlarge",
        "ml.c6i.24xlarge",
        "ml.c6i.32xlarge",
        "ml.m6i.large",
        "ml.m6i.xlarge",
        "ml.m6i.2xlarge",
        "ml.m6i.4xlarge",
        "ml.m6i.8xlarge",
        "ml.m6i.12xlarge",
        "ml.m6i.16xlarge",
        "ml.m6i.24xlarge",
        "ml.m6i.32xlarge",
        "ml.r6i.large",
        "ml.r6i.xlarge",
        "ml.r6i.2xlarge",
        "ml.r6i.4xlarge",
        "ml.r6i.8xlarge",
        "ml.r6i.12xlarge",
        "ml.r6i.16xlarge",
        "ml.r6i.24xlarge",
        "ml.r6i.32xlarge",
        "ml.i3en.large",
        "ml.i3en.xlarge",
        "ml.i3en.2xlarge",
        "ml.i3en.3xlarge",
        "ml.i3en.6xlarge",
        "ml.i3en.12xlarge",
        "ml.i3en.24xlarge",
        "ml.m7i.large",
        "ml.m7i.xlarge",
        "ml.m7i.2xlarge",
        "ml.m7i.4xlarge",
        "ml.m7i.8xlarge",
        "ml.m7i.12xlarge",
        "ml.m7i.16xlarge",
        "ml.m7i.24xlarge",
        "ml.m7i.48xlarge",
        "ml.r7i.large",
        "ml.r7i.xlarge",
        "ml.r7i.2xlarge",
        "ml.r7i.4xlarge",
        "ml.r7i.8xlarge",
        "ml.r7i.12xlarge",
        "ml.r7i.16xlarge",
        "ml.r7i.24xlarge",
        "ml.r7i.48xlarge",
        "ml.r5d.16xlarge",
        "ml.g7e.2xlarge",
        "ml.g7e.4xlarge",
        "ml.g7e.8xlarge",
        "ml.g7e.12xlarge",
        "ml.g7e.24xlarge",
        "ml.g7e.48xlarge",
        "ml.p6-b300.48xlarge",
        "ml.g4dn.xlarge",
        "ml.g4dn.2xlarge",
        "ml.g4dn.4xlarge",
        "ml.g4dn.8xlarge",
        "ml.g4dn.12xlarge",
        "ml.g4dn.16xlarge",
        "ml.c6g.medium",
        "ml.c6g.large",
        "ml.c6g.xlarge",
        "ml.c6g.2xlarge",
        "ml.c6g.4xlarge",
        "ml.c6g.8xlarge",
        "ml.c6g.12xlarge",
        "ml.c6g.16xlarge",
        "ml.c7g.medium",
        "ml.c7g.large",
        "ml.c7g.xlarge",
        "ml.c7g.2xlarge",
        "ml.c7g.4xlarge",
        "ml.c7g.8xlarge",
        "ml.c7g.12xlarge",
        "ml.c7g.16xlarge",
        "ml.c8g.medium",
        "ml.c8g.large",
        "ml.c8g.xlarge",
        "ml.c8g.2xlarge",
        "ml.c8g.4xlarge",
        "ml.c8g.8xlarge",
        "ml.c8g.12xlarge",
        "ml.c8g.16xlarge",
        "ml.c8g.24xlarge",
        "ml.c8g.48xlarge",
        "ml.c6a.large",
        "ml.c6a.xlarge",
        "ml.c6a.2xlarge",
        "ml.c6a.4xlarge",
        "ml.c6a.8xlarge",
        "ml.c6a.12xlarge",
        "ml.c6a.16xlarge",
        "ml.c6a.24xlarge",
        "ml.c6a.32xlarge",
        "ml.c6a.48xlarge",
        "ml.m6a.large",
        "ml.m6a.xlarge",
        "ml.m6a.2xlarge",
        "ml.m6a.4xlarge",
        "ml.m6a.8xlarge",
        "ml.m6a.12xlarge",
        "ml.m6a.16xlarge",
        "ml.m6a.24xlarge",
        "ml.m6a.32xlarge",
        "ml.m6a.48xlarge",
        "ml.m6g.medium",
        "ml.m6g.large",
        "ml.m6g.xlarge",
        "ml.m6g.2xlarge",
        "ml.m6g.4xlarge",
        "ml.m6g.8xlarge",
        "ml.m6g.12xlarge",
        "ml.m6g.16xlarge",
        "ml.m7g.medium",
        "ml.m7g.large",
        "ml.m7g.xlarge",
        "ml.m7g.2xlarge",
        "ml.m7g.4xlarge",
        "ml.m7g.8xlarge",
        "ml.m7g.12xlarge",
        "ml.m7g.16xlarge",
        "ml.m8g.medium",
        "ml.m8g.large",
        "ml.m8g.xlarge",
        "ml.m8g.2xlarge",
        "ml.m8g.4xlarge",
        "ml.m8g.8xlarge",
        "ml.m8g.12xlarge",
        "ml.m8g.16xlarge",
        "ml.m8g.24xlarge",
        "ml.m8g.48xlarge",
        "ml.g7.2xlarge",
        "ml.g7.4xlarge",
        "ml.g7.8xlarge",
        "ml.g7.12xlarge",
        "ml.g7.24xlarge",
        "ml.g7.48xlarge",
        "ml.c8a.16xlarge",
        "ml.m8a.16xlarge",
    ],
};

static CLUSTER_INSTANCE_TYPES: Shape = Shape::List {
    length: (1, 20),
    of: &CLUSTER_INSTANCE_TYPE,
};

static CLUSTER_INSTANCE_REQUIREMENTS: Shape = Shape::Structure {
    union: false,
    members: &[required("InstanceTypes", &CLUSTER_INSTANCE_TYPES)],
};

static S3_URI: Shape = Shape::Text {
    length: (0, 1024),
    pattern: "(https|s3)://([^/]+)/?(.*)",
    values: &[],
};

static CLUSTER_LIFE_CYCLE_CONFIG_FILE_NAME: Shape = Shape::Text {
    length: (1, 128),
    pattern: "(?s:.)+",
    values: &[],
};

static CLUSTER_LIFE_CYCLE_CONFIG: Shape = Shape::Structure {
    union: false,
    members: &[
        optional("SourceS3Uri", &S3_URI),
        optional("OnCreate", &CLUSTER_LIFE_CYCLE_CONFIG_FILE_NAME),
        optional("OnInitComplete", &CLUSTER_LIFE_CYCLE_CONFIG_FILE_NAME),
    ],
};

static ROLE_ARN: Shape = Shape::Text {
    length: (20, 2048),
    pattern: r#"arn:aws[a-z\-]*:iam::[0-9]{12}:role/?[a-zA-Z_0-9+=,.@\-_/]+"#,
    values: &[],
};

static CLUSTER_THREADS_PER_CORE: Shape = Shape::Integer { min: 1, max: 2 };

static CLUSTER_EBS_VOLUME_SIZE_IN_GB: Shape = Shape::Integer { min: 1, max: 16384 };

static KMS_KEY_ID: Shape = Shape::Text {
    length: (0, 2048),
    pattern: "[a-zA-Z0-9:/_-]*",
    values: &[],
};

static BOOLEAN: Shape = Shape::Boolean;

static CLUSTER_EBS_VOLUME_CONFIG: Shape = Shape::Structure {
    union: false,
    members: &[
        optional("VolumeSizeInGB", &CLUSTER_EBS_VOLUME_SIZE_IN_GB),
        optional("VolumeKmsKeyId", &KMS_KEY_ID),
        optional("RootVolume", &BOOLEAN),
    ],
};

static CLUSTER_DNS_NAME: Shape = Shape::Text {
    length: (16, 275),
    pattern: r#"((fs|fc)i?-[0-9a-f]{8,}\..{4,253})"#,
    values: &[],
};

static CLUSTER_MOUNT_NAME: Shape = Shape::Text {
    length: (1, 8),
    pattern: "([A-Za-z0-9_-]{1,8})",
    values: &[],
};

static CLUSTER_FSX_MOUNT_PATH: Shape = Shape::Text {
    length: (1, 1024),
    pattern: "/[a-zA-Z0-9._/-]+",
    values: &[],
};

static CLUSTER_FSX_LUSTRE_CONFIG: Shape = Shape::Structure {
    union: false,
    members: &[
        required("DnsName", &CLUSTER_DNS_NAME),
        required("MountName", &CLUSTER_MOUNT_NAME),
        optional("MountPath", &CLUSTER_FSX_MOUNT_PATH),
    ],
};

static CLUSTER_FSX_OPEN_ZFS_CONFIG: Shape = Shape::Structure {
    union: false,
    members: &[
        required("DnsName", &CLUSTER_DNS_NAME),
        optional("MountPath", &CLUSTER_FSX_MOUNT_PATH),
    ],
};

static CLUSTER_INSTANCE_STORAGE_CONFIG: Shape = Shape::Structure {
    union: true,
    members: &[
        optional("EbsVolumeConfig", &CLUSTER_EBS_VOLUME_CONFIG),
        optional("FsxLustreConfig", &CLUSTER_FSX_LUSTRE_CONFIG),
        optional("FsxOpenZfsConfig", &CLUSTER_FSX_OPEN_ZFS_CONFIG),
    ],
};

static CLUSTER_INSTANCE_STORAGE_CONFIGS: Shape = Shape::List {
    length: (0, 4),
    of: &CLUSTER_INSTANCE_STORAGE_CONFIG,
};

static DEEP_HEALTH_CHECK_TYPE: Shape = Shape::Text {
    length: (0, u64::MAX),
    pattern: "",
    values: &[
        "InstanceStress",
        "InstanceConnectivity",
        "MultiNodeTrainingValidation",
    ],
};

static ON_START_DEEP_HEALTH_CHECKS: Shape = Shape::List {
    length: (1, 3),
    of: &DEEP_HEALTH_CHECK_TYPE,
};

static TRAINING_PLAN_ARN: Shape = Shape::Text {
    length: (50, 2048),
    pattern: r#"arn:aws[a-z\-]*:sagemaker:[a-z0-9\-]*:[0-9]{12}:training-plan/.*"#,
    values: &[],
};

static SECURITY_GROUP_ID: Shape = Shape::Text {
    length: (0, 32),
    pattern: "[-0-9a-zA-Z]+",
    values: &[],
};

static VPC_SECURITY_GROUP_IDS: Shape = Shape::List {
    length: (1, 5),
    of: &SECURITY_GROUP_ID,
};

static SUBNET_ID: Shape = Shape::Text {
    length: (0, 32),
    pattern: "[-0-9a-zA-Z]+",
    values: &[],
};

static SUBNETS: Shape = Shape::List {
    length: (1, 16),
    of: &SUBNET_ID,
};

static VPC_CONFIG: Shape = Shape::Structure {
    union: false,
    members: &[
        required("SecurityGroupIds", &VPC_SECURITY_GROUP_IDS),
        required("Subnets", &SUBNETS),
    ],
};

static CRON_SCHEDULE_EXPRESSION: Shape = Shape::Text {
    length: (1, 256),
    pattern: "",
    values: &[],
};

static NODE_UNAVAILABILITY_TYPE: Shape = Shape::Text {
    length: (0, u64::MAX),
    pattern: "",
    values: &["INSTANCE_COUNT", "CAPACITY_PERCENTAGE"],
};

static NODE_UNAVAILABILITY_VALUE: Shape = Shape::Integer {
    min: 1,
    max: i64::MAX,
};

static CAPACITY_SIZE_CONFIG: Shape = Shape::Structure {
    union: false,
    members: &[
        required("Type", &NODE_UNAVAILABILITY_TYPE),
        required("Value", &NODE_UNAVAILABILITY_VALUE),
    ],
};

static ROLLING_DEPLOYMENT_POLICY: Shape = Shape::Structure {
    union: false,
    members: &[
        required("MaximumBatchSize", &CAPACITY_SIZE_CONFIG),
        optional("RollbackMaximumBatchSize", &CAPACITY_SIZE_CONFIG),
    ],
};

static WAIT_TIME_INTERVAL_IN_SECONDS: Shape = Shape::Integer { min: 0, max: 3600 };

static ALARM_NAME: Shape = Shape::Text {
    length: (1, 255),
    pattern: r#".*[^ \t\n\x0B\x0C\r].*"#,
    values: &[],
};

static ALARM_DETAILS: Shape = Shape::Structure {
    union: false,
    members: &[required("AlarmName", &ALARM_NAME)],
};

static AUTO_ROLLBACK_ALARMS: Shape = Shape::List {
    length: (1, 10),
    of: &ALARM_DETAILS,
};

static DEPLOYMENT_CONFIGURATION: Shape = Shape::Structure {
    union: false,
    members: &[
        optional("RollingUpdatePolicy", &ROLLING_DEPLOYMENT_POLICY),
        optional("WaitIntervalInSeconds", &WAIT_TIME_INTERVAL_IN_SECONDS),
        optional("AutoRollbackConfiguration", &AUTO_ROLLBACK_ALARMS),
    ],
};

static SCHEDULED_UPDATE_CONFIG: Shape = Shape::Structure {
    union: false,
    members: &[
        required("ScheduleExpression", &CRON_SCHEDULE_EXPRESSION),
        optional("DeploymentConfig", &DEPLOYMENT_CONFIGURATION),
    ],
};

static IMAGE_ID: Shape = Shape::Text {
    length: (7, 21),
    pattern: "(ami-[0-9a-fA-F]{8,17}|default)",
    values: &[],
};

static CLUSTER_PATCHING_STRATEGY: Shape = Shape::Text {
    length: (0, u64::MAX),
    pattern: "",
    values: &["WhenIdle", "WhenAllIdle", "DrainFirst"],
};

static TIMESTAMP: Shape = Shape::Timestamp;

static CLUSTER_PATCH_SCHEDULE: Shape = Shape::Structure {
    union: false,
    members: &[optional("NextPatchDate", &TIMESTAMP)],
};

static IDLE_WAIT_WINDOW_IN_SECONDS_VALUE: Shape = Shape::Integer {
    min: 3600,
    max: 2160000,
};

static DRAIN_TIMEOUT_IN_SECONDS_VALUE: Shape = Shape::Integer { min: 0, max: 5400 };

static CLUSTER_ON_DRAIN_TIMEOUT: Shape = Shape::Text {
    length: (0, u64::MAX),
    pattern: "",
    values: &["Force", "Skip"],
};

static CLUSTER_DRAIN_POLICY: Shape = Shape::Structure {
    union: false,
    members: &[
        optional("DrainTimeoutInSeconds", &DRAIN_TIMEOUT_IN_SECONDS_VALUE),
        optional("OnDrainTimeout", &CLUSTER_ON_DRAIN_TIMEOUT),
    ],
};

static CLUSTER_AUTO_PATCH_CONFIG: Shape = Shape::Structure {
    union: false,
    members: &[
        required("PatchingStrategy", &CLUSTER_PATCHING_STRATEGY),
        optional("PatchSchedule", &CLUSTER_PATCH_SCHEDULE),
        optional("DeploymentConfig", &DEPLOYMENT_CONFIGURATION),
        optional(
            "IdleWaitWindowInSeconds",
            &IDLE_WAIT_WINDOW_IN_SECONDS_VALUE,
        ),
        optional("DrainPolicy", &CLUSTER_DRAIN_POLICY),
    ],
};

static IMAGE_RELEASE_VERSION: Shape = Shape::Text {
    length: (0, 64),
    pattern: r#"[0-9]+\.[0-9]+\.[0-9]+"#,
    values: &[],
};

static CLUSTER_KUBERNETES_LABEL_KEY: Shape = Shape::Text {
    length: (1, 317),
    pattern: r#"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"#,
    values: &[],
};

static CLUSTER_KUBERNETES_LABEL_VALUE: Shape = Shape::Text {
    length: (1, 63),
    pattern: "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
    values: &[],
};

static CLUSTER_KUBERNETES_LABELS: Shape = Shape::Map {
    length: (0, 50),
    key: &CLUSTER_KUBERNETES_LABEL_KEY,
    value: &CLUSTER_KUBERNETES_LABEL_VALUE,
};

static CLUSTER_KUBERNETES_TAINT_KEY: Shape = Shape::Text {
    length: (1, 317),
    pattern: r#"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"#,
    values: &[],
};

static CLUSTER_KUBERNETES_TAINT_VALUE: Shape = Shape::Text {
    length: (1, 63),
    pattern: "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
    values: &[],
};

static CLUSTER_KUBERNETES_TAINT_EFFECT: Shape = Shape::Text {
    length: (0, u64::MAX),
    pattern: "",
    values: &["NoSchedule", "PreferNoSchedule", "NoExecute"],
};

static CLUSTER_KUBERNETES_TAINT: Shape = Shape::Structure {
    union: false,
    members: &[
        required("Key", &CLUSTER_KUBERNETES_TAINT_KEY),
        optional("Value", &CLUSTER_KUBERNETES_TAINT_VALUE),
        required("Effect", &CLUSTER_KUBERNETES_TAINT_EFFECT),
    ],
};

static CLUSTER_KUBERNETES_TAINTS: Shape = Shape::List {
    length: (0, 50),
    of: &CLUSTER_KUBERNETES_TAINT,
};

static CLUSTER_KUBERNETES_CONFIG: Shape = Shape::Structure {
    union: false,
    members: &[
        optional("Labels", &CLUSTER_KUBERNETES_LABELS),
        optional("Taints", &CLUSTER_KUBERNETES_TAINTS),
    ],
};

static CLUSTER_SLURM_NODE_TYPE: Shape = Shape::Text {
    length: (0, u64::MAX),
    pattern: "",
    values: &["Controller", "Login", "Compute"],
};

static CLUSTER_PARTITION_NAME: Shape = Shape::Text {
    length: (0, 1024),
    pattern: "[a-zA-Z0-9](-*[a-zA-Z0-9])*",
    values: &[],
};

static CLUSTER_PARTITION_NAMES: Shape = Shape::List {
    length: (0, 1),
    of: &CLUSTER_PARTITION_NAME,
};

static CLUSTER_SLURM_CONFIG: Shape = Shape::Structure {
    union: false,
    members: &[
        required("NodeType", &CLUSTER_SLURM_NODE_TYPE),
        optional("PartitionNames", &CLUSTER_PARTITION_NAMES),
    ],
};

static CLUSTER_SPOT_OPTIONS: Shape = Shape::Structure {
    union: false,
    members: &[],
};

static CLUSTER_ON_DEMAND_OPTIONS: Shape = Shape::Structure {
    union: false,
    members: &[],
};

static CLUSTER_CAPACITY_REQUIREMENTS: Shape = Shape::Structure {
    union: false,
    members: &[
        optional("Spot", &CLUSTER_SPOT_OPTIONS),
        optional("OnDemand", &CLUSTER_ON_DEMAND_OPTIONS),
    ],
};

static CLUSTER_INTERFACE_TYPE: Shape = Shape::Text {
    length: (0, u64::MAX),
    pattern: "",
    values: &["efa", "efa-only"],
};

static CLUSTER_NETWORK_INTERFACE: Shape = Shape::Structure {
    union: false,
    members: &[optional("InterfaceType", &CLUSTER_INTERFACE_TYPE)],
};

static CLUSTER_INSTANCE_GROUP_SPECIFICATION: Shape = Shape::Structure {
    union: false,
    members: &[
        required("InstanceCount", &CLUSTER_INSTANCE_COUNT),
        optional("MinInstanceCount", &CLUSTER_INSTANCE_COUNT),
        required("InstanceGroupName", &CLUSTER_INSTANCE_GROUP_NAME),
        optional("InstanceType", &CLUSTER_INSTANCE_TYPE),
        optional("InstanceRequirements", &CLUSTER_INSTANCE_REQUIREMENTS),
        optional("LifeCycleConfig", &CLUSTER_LIFE_CYCLE_CONFIG),
        required("ExecutionRole", &ROLE_ARN),
        optional("ThreadsPerCore", &CLUSTER_THREADS_PER_CORE),
        optional("InstanceStorageConfigs", &CLUSTER_INSTANCE_STORAGE_CONFIGS),
        optional("OnStartDeepHealthChecks", &ON_START_DEEP_HEALTH_CHECKS),
        optional("TrainingPlanArn", &TRAINING_PLAN_ARN),
        optional("OverrideVpcConfig", &VPC_CONFIG),
        optional("ScheduledUpdateConfig", &SCHEDULED_UPDATE_CONFIG),
        optional("ImageId", &IMAGE_ID),
        optional("AutoPatchConfig", &CLUSTER_AUTO_PATCH_CONFIG),
        optional("ImageReleaseVersion", &IMAGE_RELEASE_VERSION),
        optional("KubernetesConfig", &CLUSTER_KUBERNETES_CONFIG),
        optional("SlurmConfig", &CLUSTER_SLURM_CONFIG),
        optional("CapacityRequirements", &CLUSTER_CAPACITY_REQUIREMENTS),
        optional("NetworkInterface", &CLUSTER_NETWORK_INTERFACE),
    ],
};

static CLUSTER_INSTANCE_GROUP_SPECIFICATIONS: Shape = Shape::List {
    length: (1, 100),
    of: &CLUSTER_INSTANCE_GROUP_SPECIFICATION,
};

static FSX_LUSTRE_SIZE_IN_GI_B: Shape = Shape::Integer {
    min: 1200,
    max: 100800,
};

static FSX_LUSTRE_PER_UNIT_STORAGE_THROUGHPUT: Shape = Shape::Integer {
    min: 125,
    max: 1000,
};

static FSX_LUSTRE_CONFIG: Shape = Shape::Structure {
    union: false,
    members: &[
        required("SizeInGiB", &FSX_LUSTRE_SIZE_IN_GI_B),
        required(
            "PerUnitStorageThroughput",
            &FSX_LUSTRE_PER_UNIT_STORAGE_THROUGHPUT,
        ),
    ],
};

static ENVIRONMENT_CONFIG: Shape = Shape::Structure {
    union: false,
    members: &[optional("FSxLustreConfig", &FSX_LUSTRE_CONFIG)],
};

static CLUSTER_RESTRICTED_INSTANCE_GROUP_SPECIFICATION: Shape = Shape::Structure {
    union: false,
    members: &[
        required("InstanceCount", &CLUSTER_INSTANCE_COUNT),
        required("InstanceGroupName", &CLUSTER_INSTANCE_GROUP_NAME),
        required("InstanceType", &CLUSTER_INSTANCE_TYPE),
        required("ExecutionRole", &ROLE_ARN),
        optional("ThreadsPerCore", &CLUSTER_THREADS_PER_CORE),
        optional("InstanceStorageConfigs", &CLUSTER_INSTANCE_STORAGE_CONFIGS),
        optional("OnStartDeepHealthChecks", &ON_START_DEEP_HEALTH_CHECKS),
        optional("TrainingPlanArn", &TRAINING_PLAN_ARN),
        optional("OverrideVpcConfig", &VPC_CONFIG),
        optional("ScheduledUpdateConfig", &SCHEDULED_UPDATE_CONFIG),
        optional("EnvironmentConfig", &ENVIRONMENT_CONFIG),
    ],
};

static CLUSTER_RESTRICTED_INSTANCE_GROUP_SPECIFICATIONS: Shape = Shape::List {
    length: (1, 100),
    of: &CLUSTER_RESTRICTED_INSTANCE_GROUP_SPECIFICATION,
};

static CLUSTER_FSX_LUSTRE_DELETION_POLICY: Shape = Shape::Text {
    length: (0, u64::MAX),
    pattern: "",
    values: &["DeleteIfNotUsed", "Keep"],
};

static CLUSTER_SHARED_ENVIRONMENT_CONFIG: Shape = Shape::Structure {
    union: false,
    members: &[
        required(
            "FSxLustreDeletionPolicy",
            &CLUSTER_FSX_LUSTRE_DELETION_POLICY,
        ),
        required("FSxLustreConfig", &FSX_LUSTRE_CONFIG),
    ],
};

static CLUSTER_RESTRICTED_INSTANCE_GROUPS_CONFIG: Shape = Shape::Structure {
    union: false,
    members: &[required(
        "SharedEnvironmentConfig",
        &CLUSTER_SHARED_ENVIRONMENT_CONFIG,
    )],
};

static TAG_KEY: Shape = Shape::Text {
    length: (1, 128),
    pattern: r#"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)"#,
    values: &[],
};

static TAG_VALUE: Shape = Shape::Text {
    length: (0, 256),
    pattern: r#"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)"#,
    values: &[],
};

static TAG: Shape = Shape::Structure {
    union: false,
    members: &[required("Key", &TAG_KEY), required("Value", &TAG_VALUE)],
};

static TAG_LIST: Shape = Shape::List {
    length: (0, 50),
    of: &TAG,
};

static EKS_CLUSTER_ARN: Shape = Shape::Text {
    length: (20, 2048),
    pattern: r#"arn:aws[a-z\-]*:eks:[a-z0-9\-]*:[0-9]{12}:cluster\/[0-9A-Za-z][A-Za-z0-9\-_]{0,99}"#,
    values: &[],
};

static CLUSTER_ORCHESTRATOR_EKS_CONFIG: Shape = Shape::Structure {
    union: false,
    members: &[required("ClusterArn", &EKS_CLUSTER_ARN)],
};

static CLUSTER_SLURM_CONFIG_STRATEGY: Shape = Shape::Text {
    length: (0, u64::MAX),
    pattern: "",
    values: &["Overwrite", "Managed", "Merge"],
};

static CLUSTER_ACCOUNTING_DATABASE_ENDPOINT: Shape = Shape::Text {
    length: (1, 255),
    pattern: r#"([a-zA-Z0-9]([a-zA-Z0-9\-]{0,61}[a-zA-Z0-9])?)(\.[a-zA-Z0-9]([a-zA-Z0-9\-]{0,61}[a-zA-Z0-9])?)*"#,
    values: &[],
};

static CLUSTER_ACCOUNTING_DATABASE_PORT: Shape = Shape::Integer { min: 1, max: 65535 };

static CLUSTER_ACCOUNTING_DATABASE_NAME: Shape = Shape::Text {
    length: (1, 64),
    pattern: "[a-zA-Z0-9$_]+",
    values: &[],
};

static CLUSTER_ACCOUNTING_DATABASE_SECRET_ARN: Shape = Shape::Text {
    length: (20, 2048),
    pattern: r#"arn:aws[a-z\-]*:secretsmanager:[a-z0-9\-]*:[0-9]{12}:secret:.+"#,
    values: &[],
};

static CLUSTER_ACCOUNTING_DATABASE: Shape = Shape::Structure {
    union: false,
    members: &[
        required("Endpoint", &CLUSTER_ACCOUNTING_DATABASE_ENDPOINT),
        optional("Port", &CLUSTER_ACCOUNTING_DATABASE_PORT),
        optional("Name", &CLUSTER_ACCOUNTING_DATABASE_NAME),
        required("SecretArn", &CLUSTER_ACCOUNTING_DATABASE_SECRET_ARN),
    ],
};

static CLUSTER_ORCHESTRATOR_SLURM_CONFIG: Shape = Shape::Structure {
    union: false,
    members: &[
        optional("SlurmConfigStrategy", &CLUSTER_SLURM_CONFIG_STRATEGY),
        optional("AccountingDatabase", &CLUSTER_ACCOUNTING_DATABASE),
    ],
};

static CLUSTER_ORCHESTRATOR: Shape = Shape::Structure {
    union: false,
    members: &[
        optional("Eks", &CLUSTER_ORCHESTRATOR_EKS_CONFIG),
        optional("Slurm", &CLUSTER_ORCHESTRATOR_SLURM_CONFIG),
    ],
};

static CLUSTER_NODE_RECOVERY: Shape = Shape::Text {
    length: (0, u64::MAX),
    pattern: "",
    values: &["Automatic", "None"],
};

static CLUSTER_CONFIG_MODE: Shape = Shape::Text {
    length: (0, u64::MAX),
    pattern: "",
    values: &["Enable", "Disable"],
};

static CLUSTER_INSTANCE_MEMORY_ALLOCATION_PERCENTAGE: Shape = Shape::Integer { min: 0, max: 100 };

static CLUSTER_TIERED_STORAGE_CONFIG: Shape = Shape::Structure {
    union: false,
    members: &[
        required("Mode", &CLUSTER_CONFIG_MODE),
        optional(
            "InstanceMemoryAllocationPercentage",
            &CLUSTER_INSTANCE_MEMORY_ALLOCATION_PERCENTAGE,
        ),
    ],
};

static CLUSTER_NODE_PROVISIONING_MODE: Shape = Shape::Text {
    length: (0, u64::MAX),
    pattern: "",
    values: &["Continuous"],
};

static CLUSTER_AUTO_SCALING_MODE: Shape = Shape::Text {
    length: (0, u64::MAX),
    pattern: "",
    values: &["Enable", "Disable"],
};

static CLUSTER_AUTO_SCALER_TYPE: Shape = Shape::Text {
    length: (0, u64::MAX),
    pattern: "",
    values: &["Karpenter"],
};

static CLUSTER_AUTO_SCALING_CONFIG: Shape = Shape::Structure {
    union: false,
    members: &[
        required("Mode", &CLUSTER_AUTO_SCALING_MODE),
        optional("AutoScalerType", &CLUSTER_AUTO_SCALER_TYPE),
    ],
};

/// The whole input.
pub static CREATE_CLUSTER: Shape = Shape::Structure {
    union: false,
    members: &[
        required("ClusterName", &CLUSTER_NAME),
        optional("InstanceGroups", &CLUSTER_INSTANCE_GROUP_SPECIFICATIONS),
        optional(
            "RestrictedInstanceGroups",
            &CLUSTER_RESTRICTED_INSTANCE_GROUP_SPECIFICATIONS,
        ),
        optional(
            "RestrictedInstanceGroupsConfig",
            &CLUSTER_RESTRICTED_INSTANCE_GROUPS_CONFIG,
        ),
        optional("VpcConfig", &VPC_CONFIG),
        optional("Tags", &TAG_LIST),
        optional("Orchestrator", &CLUSTER_ORCHESTRATOR),
        optional("NodeRecovery", &CLUSTER_NODE_RECOVERY),
        optional("TieredStorageConfig", &CLUSTER_TIERED_STORAGE_CONFIG),
        optional("NodeProvisioningMode", &CLUSTER_NODE_PROVISIONING_MODE),
        optional("ClusterRole", &ROLE_ARN),
        optional("AutoScaling", &CLUSTER_AUTO_SCALING_CONFIG),
    ],
};
