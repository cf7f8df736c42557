//! What the checks look at, and what one check comes to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cluster::answers::{Answer, Answers, SecurityGroup, Subnet};
use cluster::create_cluster::{Group, Vpc};
use cluster::json::Document;
use cluster::shape::{Violation, violations};
use cluster::{CreateCluster, FoundText, Mode, Provisioning, Role, Spot, model, provisioning};
use efa::InstanceType;
use efa::instance_types::{Spec, lookup};
use host::printable;
use host::sysroot::read_named;

/// Which file a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    /// The input of CreateCluster.
    Cluster,
    /// The parameters of the lifecycle scripts.
    Provisioning,
    /// A file of the lifecycle folder, or the folder itself.
    Lifecycle,
}

/// A file that was given: its name for a person, and what it has or why it has
/// nothing.
#[derive(Debug)]
pub struct Source {
    /// As a person called it.
    pub name: String,
    /// Its values, or why there are none.
    pub document: Result<Document, Unread>,
}

/// Why a file has no values.
#[derive(Debug, Clone)]
pub struct Unread {
    /// The reason.
    pub reason: String,
    /// Where in the text, if it was read at all.
    pub place: Option<cluster::json::Place>,
}

/// Everything that was given.
#[derive(Debug)]
pub struct Input {
    /// `--cluster`.
    pub cluster: Source,
    /// `--provisioning`, or the one in the lifecycle folder.
    pub provisioning: Option<Source>,
    /// `--lifecycle`.
    pub lifecycle: Option<Scripts>,
    /// `--aws` or `--live`.
    pub answers: Answers,
    /// `--planned`: counts that groups are to have later.
    pub planned: BTreeMap<String, u64>,
}

impl Input {
    /// The input of CreateCluster alone.
    #[must_use]
    pub fn of(cluster: Source) -> Self {
        Self {
            cluster,
            provisioning: None,
            lifecycle: None,
            answers: Answers::none("AWS was not asked"),
            planned: BTreeMap::new(),
        }
    }
}

/// The lifecycle scripts.
#[derive(Debug)]
pub enum Scripts {
    /// In a folder.
    Folder(PathBuf),
    /// Only their names.
    Listing(Listing),
}

/// What is in a bucket, as the AWS CLI lists it.
#[derive(Debug)]
pub struct Listing {
    /// The file that has the listing, as a person called it.
    pub name: String,
    /// The keys of the objects.
    pub keys: BTreeSet<String>,
}

/// Largest listing that is read, in bytes.
const LARGEST_LISTING: usize = 16 * 1024 * 1024;

impl Listing {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = read_named(path, LARGEST_LISTING).map_err(|error| error.to_string())?;
        Ok(Self::of(printable(&path.to_string_lossy(), 200), &text))
    }

    /// Understands the answer of `aws s3api list-objects-v2`, and the lines of
    /// `aws s3 ls --recursive`: date, time, size, key.
    #[must_use]
    pub fn of(name: String, text: &str) -> Self {
        #[derive(serde::Deserialize)]
        struct Answer {
            #[serde(rename = "Contents", default)]
            contents: Vec<Object>,
        }
        #[derive(serde::Deserialize)]
        struct Object {
            #[serde(rename = "Key")]
            key: String,
        }
        let of_line = |line: &str| {
            let mut fields = line.trim_start().splitn(2, char::is_whitespace);
            let mut rest = || fields.next().map(str::to_owned);
            let (_date, rest) = (rest()?, rest()?);
            let mut fields = rest.trim_start().splitn(2, char::is_whitespace);
            let rest = fields.nth(1)?.trim_start();
            let (size, key) = rest.split_once(char::is_whitespace)?;
            size.parse::<u64>().ok()?;
            Some(key.to_owned())
        };
        let keys = match serde_json::from_str::<Answer>(text) {
            Ok(answer) => answer.contents.into_iter().map(|it| it.key).collect(),
            Err(_) => text.lines().filter_map(of_line).collect(),
        };
        Self { name, keys }
    }
}

/// Something that a check found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// In which file.
    pub file: File,
    /// Where.
    pub at: Spot,
    /// What.
    pub sentence: String,
}

/// All faults of one check, or why they are not known.
pub(super) type Outcome = Result<Vec<Fault>, String>;

/// A fault of `create_cluster.json`.
pub(super) fn fault(at: &Spot, sentence: String) -> Fault {
    Fault {
        file: File::Cluster,
        at: at.clone(),
        sentence,
    }
}

/// A group, and what it is for.
pub(super) struct Member<'l> {
    pub group: &'l Group,
    pub role: Role,
    pub partition: Option<&'l str>,
}

/// The input, parsed once for all checks.
pub(super) struct Look<'i> {
    pub input: &'i Input,
    pub cluster: CreateCluster,
    pub provisioning: Option<Provisioning>,
    pub cluster_violations: Vec<Violation>,
    pub provisioning_violations: Vec<Violation>,
}

impl<'i> Look<'i> {
    pub fn new(input: &'i Input) -> Self {
        let cluster = input.cluster.document.as_ref().ok();
        let parameters = input.provisioning.as_ref();
        let parameters = parameters.and_then(|source| source.document.as_ref().ok());
        let judge = |document: Option<&Document>, shape| match document {
            Some(document) => violations(&document.root, shape),
            None => Vec::new(),
        };
        Self {
            input,
            cluster: cluster.map(CreateCluster::of).unwrap_or_default(),
            provisioning: parameters.map(Provisioning::of),
            cluster_violations: judge(cluster, &model::CREATE_CLUSTER),
            provisioning_violations: judge(parameters, &provisioning::PROVISIONING),
        }
    }

    /// The parameters of the lifecycle scripts; `None` where the cluster is made
    /// without them.
    pub fn parameters(&self) -> Result<Option<&Provisioning>, String> {
        match (self.cluster.mode(), &self.provisioning) {
            (Mode::Lifecycle, Some(parameters)) => Ok(Some(parameters)),
            (Mode::Lifecycle, None) => Err(match &self.input.provisioning {
                Some(source) => format!("{} was not read", source.name),
                None => "provisioning_parameters.json was not given (--provisioning)".to_owned(),
            }),
            (Mode::Api | Mode::Eks, _) => Ok(None),
        }
    }

    /// The groups whose role is known.
    pub fn members(&self) -> Result<Vec<Member<'_>>, String> {
        let Some(parameters) = self.parameters()? else {
            let of_group = |group| Member::by_node_type(group);
            return Ok(self.cluster.groups.iter().filter_map(of_group).collect());
        };
        let of_group = |group| Member::by_name(group, parameters);
        Ok(self.cluster.groups.iter().map(of_group).collect())
    }

    /// The groups whose nodes are to use EFA: those of a type that can have it,
    /// unless they are the controller's or login nodes.
    pub fn efa_groups(&self) -> Vec<&Group> {
        let members = self.members().unwrap_or_default();
        let computes = |group: &Group| {
            let mut members = members.iter();
            members
                .find(|member| std::ptr::eq(member.group, group))
                .is_none_or(|member| member.role == Role::Compute)
        };
        let groups = self.cluster.groups.iter();
        groups
            .filter(|group| group.types().any(|it| spec(it).is_some()) && computes(group))
            .collect()
    }

    /// The subnets and security groups of groups that use EFA, each once.
    pub fn efa_vpcs(&self) -> Vec<&Vpc> {
        let mut vpcs: Vec<&Vpc> = Vec::new();
        for group in self.efa_groups() {
            if let Some(vpc) = self.cluster.vpc_of(group)
                && !vpcs.iter().any(|known| known.at == vpc.at)
            {
                vpcs.push(vpc);
            }
        }
        vpcs
    }

    /// The groups of each partition that use EFA.
    pub fn efa_partitions(&self) -> Result<BTreeMap<&str, Vec<&Group>>, String> {
        let efa = self.efa_groups();
        let mut partitions: BTreeMap<&str, Vec<&Group>> = BTreeMap::new();
        for member in self.members()? {
            let uses = efa.iter().any(|group| std::ptr::eq(*group, member.group));
            if let (true, Some(partition)) = (uses, member.partition) {
                partitions.entry(partition).or_default().push(member.group);
            }
        }
        Ok(partitions)
    }

    /// The zones of the subnets of a group; those that AWS does not know are
    /// left out.
    pub fn zones(&self, group: &Group) -> Result<BTreeSet<&str>, String> {
        let subnets = answer(&self.input.answers.subnets)?;
        let Some(vpc) = self.cluster.vpc_of(group) else {
            return Ok(BTreeSet::new());
        };
        let found = vpc.subnets.iter().filter_map(|id| subnet(subnets, id));
        Ok(found.map(|it| it.availability_zone.as_str()).collect())
    }
}

impl<'l> Member<'l> {
    fn by_node_type(group: &'l Group) -> Option<Self> {
        let slurm = group.slurm.as_ref()?;
        let partition = slurm.partitions.first();
        Some(Self {
            group,
            role: slurm.role()?,
            partition: partition.map(|it| it.value.as_str()),
        })
    }

    fn by_name(group: &'l Group, parameters: &'l Provisioning) -> Self {
        let name = group.name.as_ref().map_or("", |name| name.value.as_str());
        Self {
            group,
            role: parameters.role_of(name),
            partition: parameters.partition_of(name),
        }
    }
}

/// An answer of AWS, or why there is none.
pub(super) fn answer<T>(answer: &Answer<T>) -> Result<&T, String> {
    answer.as_ref().map_err(Clone::clone)
}

/// What is known of an instance type; `None` if it has no EFA, as far as known.
pub(super) fn spec(name: &FoundText) -> Option<&'static Spec> {
    lookup(&name.value.parse::<InstanceType>().ok()?)
}

pub(super) fn subnet<'a>(subnets: &'a [Subnet], id: &FoundText) -> Option<&'a Subnet> {
    subnets.iter().find(|subnet| subnet.id == id.value)
}

pub(super) fn security_group<'a>(
    groups: &'a [SecurityGroup],
    id: &str,
) -> Option<&'a SecurityGroup> {
    groups.iter().find(|group| group.id == id)
}
