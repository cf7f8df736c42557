//! What the AWS CLI prints about an account's network, storage and quotas: the
//! parts of its answers that checks look at.

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// One question to AWS, and the file that has its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// `aws ec2 describe-subnets`.
    Subnets,
    /// `aws ec2 describe-security-groups`.
    SecurityGroups,
    /// `aws ec2 describe-instance-type-offerings`.
    Offerings,
    /// `aws ec2 describe-route-tables`.
    RouteTables,
    /// `aws ec2 describe-vpc-endpoints`.
    Endpoints,
    /// `aws ec2 describe-network-interfaces`.
    NetworkInterfaces,
    /// `aws fsx describe-file-systems`.
    FileSystems,
    /// `aws service-quotas list-service-quotas --service-code sagemaker`.
    SagemakerQuotas,
    /// `aws service-quotas list-service-quotas --service-code vpc`.
    VpcQuotas,
}

impl Question {
    /// All of them, in the order in which they are asked.
    pub const ALL: [Self; 9] = [
        Self::Subnets,
        Self::SecurityGroups,
        Self::Offerings,
        Self::RouteTables,
        Self::Endpoints,
        Self::NetworkInterfaces,
        Self::FileSystems,
        Self::SagemakerQuotas,
        Self::VpcQuotas,
    ];

    /// The name of the file that has the answer.
    #[must_use]
    pub const fn file(self) -> &'static str {
        match self {
            Self::Subnets => "describe-subnets.json",
            Self::SecurityGroups => "describe-security-groups.json",
            Self::Offerings => "describe-instance-type-offerings.json",
            Self::RouteTables => "describe-route-tables.json",
            Self::Endpoints => "describe-vpc-endpoints.json",
            Self::NetworkInterfaces => "describe-network-interfaces.json",
            Self::FileSystems => "describe-file-systems.json",
            Self::SagemakerQuotas => "list-service-quotas-sagemaker.json",
            Self::VpcQuotas => "list-service-quotas-vpc.json",
        }
    }
}

/// An answer, or why there is none.
pub type Answer<T> = Result<T, String>;

/// Everything that AWS was asked.
#[derive(Debug)]
pub struct Answers {
    /// [`Question::Subnets`].
    pub subnets: Answer<Vec<Subnet>>,
    /// [`Question::SecurityGroups`].
    pub security_groups: Answer<Vec<SecurityGroup>>,
    /// [`Question::Offerings`].
    pub offerings: Answer<Vec<Offering>>,
    /// [`Question::RouteTables`].
    pub route_tables: Answer<Vec<RouteTable>>,
    /// [`Question::Endpoints`].
    pub endpoints: Answer<Vec<Endpoint>>,
    /// [`Question::NetworkInterfaces`].
    pub network_interfaces: Answer<Vec<NetworkInterface>>,
    /// [`Question::FileSystems`].
    pub file_systems: Answer<Vec<FileSystem>>,
    /// [`Question::SagemakerQuotas`].
    pub sagemaker_quotas: Answer<Vec<Quota>>,
    /// [`Question::VpcQuotas`].
    pub vpc_quotas: Answer<Vec<Quota>>,
}

impl Answers {
    /// Reads each answer from what `text` has for the question, or takes over
    /// why there is none.
    pub fn read(mut text: impl FnMut(Question) -> Answer<String>) -> Self {
        let mut get = |question| (question, text(question));
        Self {
            subnets: list(get(Question::Subnets), "Subnets"),
            security_groups: list(get(Question::SecurityGroups), "SecurityGroups"),
            offerings: list(get(Question::Offerings), "InstanceTypeOfferings"),
            route_tables: list(get(Question::RouteTables), "RouteTables"),
            endpoints: list(get(Question::Endpoints), "VpcEndpoints"),
            network_interfaces: list(get(Question::NetworkInterfaces), "NetworkInterfaces"),
            file_systems: list(get(Question::FileSystems), "FileSystems"),
            sagemaker_quotas: list(get(Question::SagemakerQuotas), "Quotas"),
            vpc_quotas: list(get(Question::VpcQuotas), "Quotas"),
        }
    }

    /// No answers, for one reason.
    #[must_use]
    pub fn none(reason: &str) -> Self {
        Self::read(|_| Err(reason.to_owned()))
    }
}

fn list<T: DeserializeOwned>(
    (question, text): (Question, Answer<String>),
    key: &str,
) -> Answer<Vec<T>> {
    let text = text?;
    let file = question.file();
    let mut whole: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text)
        .map_err(|error| {
            let begin = text.trim_start();
            if begin.starts_with('<') {
                format!("{file} is HTML or XML, not an answer of the AWS CLI")
            } else {
                let error = error.to_string();
                format!("{file} is not JSON: {}", host::printable(&error, 200))
            }
        })?;
    let items = whole
        .remove(key)
        .ok_or_else(|| format!("{file} lacks the key {key}"))?;
    serde_json::from_value(items).map_err(|error| {
        let error = error.to_string();
        format!("{file}: {}", host::printable(&error, 200))
    })
}

/// A subnet.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Subnet {
    /// Its id.
    #[serde(rename = "SubnetId")]
    pub id: String,
    /// Its VPC.
    pub vpc_id: String,
    /// The zone's name, which differs between accounts.
    pub availability_zone: String,
    /// Addresses that are free now.
    pub available_ip_address_count: u64,
    /// Its addresses.
    pub cidr_block: String,
}

/// A security group.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SecurityGroup {
    /// Its id.
    #[serde(rename = "GroupId")]
    pub id: String,
    /// Its VPC.
    #[serde(default)]
    pub vpc_id: String,
    /// What may come in.
    #[serde(default, rename = "IpPermissions")]
    pub ingress: Vec<Permission>,
    /// What may go out.
    #[serde(default, rename = "IpPermissionsEgress")]
    pub egress: Vec<Permission>,
}

/// A rule of a security group.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Permission {
    /// `-1` for all.
    pub ip_protocol: String,
    /// First port, where the protocol has ports.
    pub from_port: Option<i64>,
    /// Last port.
    pub to_port: Option<i64>,
    /// Security groups.
    #[serde(default)]
    pub user_id_group_pairs: Vec<GroupPair>,
    /// IPv4 addresses.
    #[serde(default)]
    pub ip_ranges: Vec<IpRange>,
    /// IPv6 addresses.
    #[serde(default)]
    pub ipv6_ranges: Vec<Ipv6Range>,
}

impl Permission {
    /// Whether it is about all traffic.
    #[must_use]
    pub fn is_all_traffic(&self) -> bool {
        self.ip_protocol == "-1"
    }

    /// Whether it names this security group.
    #[must_use]
    pub fn names(&self, group: &str) -> bool {
        let mut pairs = self.user_id_group_pairs.iter();
        pairs.any(|pair| pair.group_id.as_deref() == Some(group))
    }

    /// Whether it is about any address.
    #[must_use]
    pub fn is_anywhere(&self) -> bool {
        self.ip_ranges.iter().any(|it| it.cidr_ip == "0.0.0.0/0")
            || self.ipv6_ranges.iter().any(|it| it.cidr_ipv6 == "::/0")
    }

    /// Whether TCP may come to this port.
    #[must_use]
    pub fn has_tcp_port(&self, port: i64) -> bool {
        let ports = self.from_port.unwrap_or(0)..=self.to_port.unwrap_or(i64::from(u16::MAX));
        self.is_all_traffic() || (self.ip_protocol == "tcp" && ports.contains(&port))
    }
}

/// A security group that a rule names.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct GroupPair {
    /// Its id.
    pub group_id: Option<String>,
}

/// IPv4 addresses that a rule names.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct IpRange {
    /// In CIDR notation.
    pub cidr_ip: String,
}

/// IPv6 addresses that a rule names.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ipv6Range {
    /// In CIDR notation.
    pub cidr_ipv6: String,
}

/// An instance type that a zone offers.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Offering {
    /// Without `ml.`.
    pub instance_type: String,
    /// The zone, with `--location-type availability-zone`.
    pub location: String,
}

/// A route table.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RouteTable {
    /// Its id.
    #[serde(rename = "RouteTableId")]
    pub id: String,
    /// Its VPC.
    #[serde(default)]
    pub vpc_id: String,
    /// The subnets that have it.
    #[serde(default)]
    pub associations: Vec<Association>,
    /// Its routes.
    #[serde(default)]
    pub routes: Vec<Route>,
}

/// Who has a route table.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Association {
    /// Whether all subnets of the VPC have it that have no other.
    #[serde(default)]
    pub main: bool,
    /// A subnet that has it.
    pub subnet_id: Option<String>,
}

/// A route.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Route {
    /// IPv4 destination.
    pub destination_cidr_block: Option<String>,
    /// An internet, virtual private or other gateway.
    pub gateway_id: Option<String>,
    /// `blackhole` where the target is gone.
    pub state: Option<String>,
}

impl Route {
    /// Whether it is the way to any address.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.destination_cidr_block.as_deref() == Some("0.0.0.0/0")
            && self.state.as_deref() != Some("blackhole")
    }

    /// Whether it leads to an internet gateway, which passes only what has a
    /// public address.
    #[must_use]
    pub fn is_internet_gateway(&self) -> bool {
        let gateway = self.gateway_id.as_deref();
        gateway.is_some_and(|id| id.starts_with("igw-"))
    }
}

/// A VPC endpoint.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Endpoint {
    /// Its VPC.
    #[serde(default)]
    pub vpc_id: String,
    /// `com.amazonaws.REGION.SERVICE`.
    pub service_name: String,
    /// `available`, `pending` and others.
    #[serde(default)]
    pub state: String,
    /// `Gateway` or `Interface`.
    #[serde(default)]
    pub vpc_endpoint_type: String,
    /// The route tables of a gateway.
    #[serde(default)]
    pub route_table_ids: Vec<String>,
}

/// A network interface.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkInterface {
    /// Its id.
    #[serde(rename = "NetworkInterfaceId")]
    pub id: String,
    /// Its security groups.
    #[serde(default)]
    pub groups: Vec<GroupPair>,
}

/// A file system of FSx.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct FileSystem {
    /// Its name in DNS.
    #[serde(rename = "DNSName", default)]
    pub dns_name: String,
    /// Its VPC.
    #[serde(default)]
    pub vpc_id: String,
    /// Where its servers are.
    #[serde(default)]
    pub subnet_ids: Vec<String>,
    /// Its servers' interfaces.
    #[serde(default)]
    pub network_interface_ids: Vec<String>,
    /// What only Lustre has.
    pub lustre_configuration: Option<LustreConfiguration>,
}

/// What only a file system of FSx for Lustre has.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct LustreConfiguration {
    /// What is mounted: `DNS@tcp:/MOUNT`.
    pub mount_name: Option<String>,
}

/// A quota of the account.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Quota {
    /// `L-…`.
    #[serde(default)]
    pub quota_code: String,
    /// Its name, which for instance types is the only way to find it.
    pub quota_name: String,
    /// Its value.
    pub value: f64,
}
