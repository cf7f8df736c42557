//! EC2 instance types: their names, what the node says it is, and what AWS
//! and the communication libraries say about each.

use std::fmt;
use std::str::FromStr;

use host::{ReadError, Sysroot, printable};

/// Where the firmware names the instance type, below the sysroot.
pub const PRODUCT_NAME: &str = "sys/devices/virtual/dmi/id/product_name";

const LONGEST_NAME: usize = 64;

/// Why a text is not an instance type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` is not an instance type: expected something like p5.48xlarge",
    printable(text, 80)
)]
pub struct InvalidType {
    /// The start of what was given.
    pub text: String,
}

/// Why the node's own instance type is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetectError {
    /// The firmware's product name could not be read.
    #[error("cannot tell which instance type this node is: {0}")]
    Unreadable(#[from] ReadError),
    /// The firmware names something else; not an EC2 Nitro instance.
    #[error("this node does not look like an EC2 instance: its product name {0}")]
    NotAnInstance(#[from] InvalidType),
}

/// The checked name of an instance type, without SageMaker's `ml.` prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceType(String);

impl InstanceType {
    /// The full name: `p5.48xlarge`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the dot: `p5` of `p5.48xlarge`.
    #[must_use]
    pub fn family(&self) -> &str {
        family_of(&self.0)
    }
}

impl FromStr for InstanceType {
    type Err = InvalidType;

    /// Accepts `p5.48xlarge` and, as HyperPod writes it, `ml.p5.48xlarge`.
    fn from_str(text: &str) -> Result<Self, InvalidType> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let name = text.strip_prefix("ml.").unwrap_or(text);
        let valid = name.len() <= LONGEST_NAME
            && name.split_once('.').is_some_and(|(family, size)| {
                !family.is_empty()
                    && !family.starts_with('-')
                    // The prefix once more; what is accepted must parse back.
                    && family != "ml"
                    && !size.is_empty()
                    && family.bytes().all(allowed)
                    && size.bytes().all(allowed)
            });
        if valid {
            Ok(Self(name.to_owned()))
        } else {
            Err(InvalidType {
                text: text.chars().take(LONGEST_NAME + 1).collect(),
            })
        }
    }
}

impl fmt::Display for InstanceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the node says it is, from DMI. On Nitro instances the product name is
/// the bare type; HyperPod puts `ml.` before it.
///
/// # Errors
/// The file is not readable, or names something that is not an instance type.
pub fn detect(sysroot: &Sysroot) -> Result<InstanceType, DetectError> {
    Ok(sysroot.read_small(PRODUCT_NAME)?.parse::<InstanceType>()?)
}

/// Where the firmware names the instance, below the sysroot.
const BOARD_ASSET_TAG: &str = "sys/devices/virtual/dmi/id/board_asset_tag";

/// The instance's id (`i-0123456789abcdef0`), from DMI, as Nitro instances show it;
/// `None` where it is not there or something else.
#[must_use]
pub fn instance_id(sysroot: &Sysroot) -> Option<String> {
    let tag = sysroot.read_small(BOARD_ASSET_TAG).ok()?;
    let digits = tag.strip_prefix("i-")?;
    let is_id = (8..=32).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    is_id.then_some(tag)
}

/// Whether NCCL over EFA moves data between device memory and network
/// directly on this type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GpuDirect {
    /// aws-ofi-nccl refuses to run without it.
    Required,
    /// The type has none, or no accelerator to use it with.
    NotAvailable,
    /// No source was found that says either.
    Unknown,
}

/// The accelerators of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// NVIDIA GPUs.
    Nvidia {
        /// Marketing name, e.g. `H100`.
        name: &'static str,
        /// How many per instance.
        count: u8,
    },
    /// AWS Neuron chips.
    Neuron {
        /// Marketing name, e.g. `Trainium2`.
        name: &'static str,
        /// How many chips (not cores) per instance.
        count: u8,
    },
    /// Neither NVIDIA's nor Neuron.
    Other {
        /// Marketing name, e.g. `Gaudi`.
        name: &'static str,
        /// How many per instance.
        count: u8,
    },
    /// None.
    None,
}

/// What is known about one instance type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Full type name, e.g. `p5.48xlarge`.
    pub name: &'static str,
    /// Most EFA devices that can be attached. Users attach fewer: a p4d with
    /// one exists. `None` where sources contradict each other.
    pub efa_max: Option<u8>,
    /// GPUs or Neuron chips.
    pub accelerator: Accelerator,
    /// Whether nodes of this type are used for their EFA. On the others EFA is an
    /// option, and a node without any is not a faulty one.
    pub is_for_efa: bool,
    /// Whether the EFA devices can read remote memory by RDMA. Another property
    /// than GPUDirect: most types that have no GPU have it. `None` where no source
    /// was found. The driver shows it to programs that open the device (verbs),
    /// and nowhere in sysfs, so this table is all that is known without that.
    pub rdma_read: Option<bool>,
    /// Whether they can write remote memory by RDMA; likewise.
    pub rdma_write: Option<bool>,
    /// See [`GpuDirect`].
    pub gpudirect: GpuDirect,
    /// Where this line comes from.
    pub source: &'static str,
}

impl Spec {
    /// The part of the name before the dot.
    #[must_use]
    pub fn family(&self) -> &'static str {
        family_of(self.name)
    }
}

fn family_of(name: &str) -> &str {
    name.split_once('.').map_or(name, |(family, _)| family)
}

/// The line of [`TABLE`] for this type. `None` means that the table does not
/// know the type, not that the type has no EFA.
#[must_use]
pub fn lookup(instance: &InstanceType) -> Option<&'static Spec> {
    TABLE.iter().find(|spec| spec.name == instance.as_str())
}

/// Every family of [`TABLE`] once, in the table's order.
pub fn families() -> impl Iterator<Item = &'static str> {
    // The table is grouped by family (a test holds it so).
    let new = |(i, spec): (usize, &'static Spec)| {
        let family = spec.family();
        (i == 0 || TABLE[i - 1].family() != family).then_some(family)
    };
    TABLE.iter().enumerate().filter_map(new)
}

/// The lines of [`TABLE`] of one family; none for an unknown family.
pub fn family_specs(family: &str) -> impl Iterator<Item = &'static Spec> {
    TABLE.iter().filter(move |spec| spec.family() == family)
}

/// [`TABLE`]'s columns in reading order.
const fn row(
    name: &'static str,
    efa_max: Option<u8>,
    accelerator: Accelerator,
    rdma_read: Option<bool>,
    rdma_write: Option<bool>,
    gpudirect: GpuDirect,
    source: &'static str,
) -> Spec {
    Spec {
        name,
        efa_max,
        accelerator,
        is_for_efa: true,
        rdma_read,
        rdma_write,
        gpudirect,
        source,
    }
}

/// A type that is mostly used without EFA. What its EFA devices can do was not
/// verified.
const fn optional(
    name: &'static str,
    efa_max: u8,
    accelerator: Accelerator,
    source: &'static str,
) -> Spec {
    let gpudirect = match accelerator {
        Accelerator::None => NO,
        _ => NOT_VERIFIED,
    };
    let efa_max = Some(efa_max);
    Spec {
        is_for_efa: false,
        ..row(name, efa_max, accelerator, None, None, gpudirect, source)
    }
}

const fn other(count: u8, name: &'static str) -> Accelerator {
    Accelerator::Other { name, count }
}

const fn gpu(count: u8, name: &'static str) -> Accelerator {
    Accelerator::Nvidia { name, count }
}

const fn neuron(count: u8, name: &'static str) -> Accelerator {
    Accelerator::Neuron { name, count }
}

const CPU: Accelerator = Accelerator::None;
/// RDMA read: the EC2 User Guide, "Elastic Fabric Adapter", supported instance
/// types, lists it for every type of Nitro v4 and later. Each `source` below
/// includes it.
const READ: Option<bool> = Some(true);
/// Nitro v3.
const NO_READ: Option<bool> = Some(false);
/// RDMA write: aws-ofi-nccl's platform data selects its RDMA protocol, which
/// writes, for these types.
const WRITE: Option<bool> = Some(true);
/// A device without RDMA read has no RDMA write either: both came with Nitro v4
/// (EC2 User Guide, as above).
const NO_WRITE: Option<bool> = Some(false);
/// The EC2 User Guide says "most" types of Nitro v4 and later; which ones was not
/// verified.
const NV_WRITE: Option<bool> = None;
const REQUIRED: GpuDirect = GpuDirect::Required;
const NO: GpuDirect = GpuDirect::NotAvailable;
const NOT_VERIFIED: GpuDirect = GpuDirect::Unknown;

/// Accelerators and EFA devices: karpenter-provider-aws's instance table.
/// RDMA read: see [`READ`]. RDMA write: see [`WRITE`]. GPUDirect: the platform data of
/// aws-ofi-nccl, main of August 2026.
const KARPENTER_OFI: &str = "karpenter-provider-aws instance table; RDMA read: EC2 User Guide, EFA supported types; \
     GPUDirect: aws-ofi-nccl platform data";
/// EFA devices as above; which sizes have EFA: EC2 User Guide, "Elastic Fabric
/// Adapter", supported instance types.
const KARPENTER_EC2: &str =
    "karpenter-provider-aws instance table; sizes, RDMA read: EC2 User Guide, EFA supported types";
/// As above. GPUs per size: EC2's own answer, see [`EC2`].
const KARPENTER_EC2_GPUS: &str = "karpenter-provider-aws instance table; sizes, RDMA read: EC2 User Guide, EFA supported types; \
     GPU count: EC2's DescribeInstanceTypes, saved by moto 5.2.5";
/// As above, with aws-ofi-nccl's word on GPUDirect.
const KARPENTER_EC2_GPUS_OFI: &str = "karpenter-provider-aws instance table; sizes, RDMA read: EC2 User Guide, EFA supported types; \
     GPU count: EC2's DescribeInstanceTypes, saved by moto 5.2.5; GPUDirect: aws-ofi-nccl platform data";
/// Not in the edition of the EC2 User Guide that was read.
const KARPENTER_GPUS: &str = "karpenter-provider-aws instance table; RDMA read: EC2 User Guide (Nitro v4 and later); \
     GPU count: EC2's DescribeInstanceTypes, saved by moto 5.2.5";
/// Sources give 4 (awsome-distributed-ai, pull request 886: four network cards), 17
/// (aws-parallelcluster, pull request 6930: 17 network cards, with an EFA on each), and
/// 0. EC2's own answer is not in moto.
const CONFLICT: &str = "EFA count: sources conflict (4, 17 and 0); RDMA read: EC2 User Guide (Nitro v4 and later); \
     GPUDirect: aws-ofi-nccl platform data";

/// Not in karpenter's table: EFA devices as [`EC2`], everything else as for
/// trn2.48xlarge, not verified.
const TRN2U: &str = "EFA count: EC2's DescribeInstanceTypes, saved by moto 5.2.5; everything else as \
     trn2.48xlarge, not verified for this type";
/// AWS's list of types with EFA; one device for each of the network cards that the
/// EC2 User Guide gives the type, which was not verified on the type itself.
const EKS_CARDS: &str =
    "aws/eks-charts EFA device plugin; number of network cards, not verified on the type";

/// EC2's own answer to DescribeInstanceTypes (`EfaInfo`), as moto 5.2.5 has saved it:
/// `data/ec2-efa-types.txt`. What its EFA devices can do is not in it.
const EC2: &str = "EC2's DescribeInstanceTypes, saved by moto 5.2.5";

/// Accelerated types of HyperPod that can have no EFA: AWS's lists of types with
/// EFA do not have them.
const WITHOUT_EFA: &[&str] = &[
    "g4dn.xlarge",
    "g4dn.2xlarge",
    "g4dn.4xlarge",
    "g5.xlarge",
    "g5.2xlarge",
    "g5.4xlarge",
    "g6.xlarge",
    "g6.2xlarge",
    "g6.4xlarge",
    "gr6.4xlarge",
    "g6e.xlarge",
    "g6e.2xlarge",
    "g6e.4xlarge",
    "g7.2xlarge",
    "g7.4xlarge",
    "g7e.2xlarge",
    "g7e.4xlarge",
];

/// The most EFA devices that a type can have, 0 included; `None` where that is
/// not known.
#[must_use]
pub fn efa_max(instance: &InstanceType) -> Option<u8> {
    if WITHOUT_EFA.contains(&instance.as_str()) {
        return Some(0);
    }
    lookup(instance)?.efa_max
}

/// How many EFA devices a node should have if nobody says otherwise: all that
/// its type can have, or an unknown number where EFA is an option.
#[must_use]
pub fn efa_expected(instance: &InstanceType) -> Option<u8> {
    let is_optional = lookup(instance).is_some_and(|spec| !spec.is_for_efa);
    efa_max(instance).filter(|_| !is_optional)
}

/// Every type this suite knows, grouped by family. A new type is one line.
#[rustfmt::skip]
pub const TABLE: &[Spec] = &[
    //  type                 EFA max   accelerators               RDMA read  RDMA write GPUDirect RDMA  source
    row("p3dn.24xlarge",      Some(1),  gpu(8, "V100"),            NO_READ,   NO_WRITE, NO,           KARPENTER_OFI),
    row("p4d.24xlarge",       Some(4),  gpu(8, "A100"),            READ,      NV_WRITE, REQUIRED,     KARPENTER_OFI),
    row("p4de.24xlarge",      Some(4),  gpu(8, "A100"),            READ,      NV_WRITE, REQUIRED,     KARPENTER_OFI),
    row("p5.4xlarge",         Some(1),  gpu(1, "H100"),            READ,      NV_WRITE, NO,           KARPENTER_OFI),
    row("p5.48xlarge",        Some(32), gpu(8, "H100"),            READ,      WRITE,    REQUIRED,     KARPENTER_OFI),
    row("p5e.48xlarge",       Some(32), gpu(8, "H200"),            READ,      WRITE,    REQUIRED,     KARPENTER_OFI),
    row("p5en.48xlarge",      Some(16), gpu(8, "H200"),            READ,      WRITE,    REQUIRED,     KARPENTER_OFI),
    row("p6-b200.48xlarge",   Some(8),  gpu(8, "B200"),            READ,      WRITE,    REQUIRED,     KARPENTER_OFI),
    row("p6-b300.48xlarge",   Some(16), gpu(8, "B300"),            READ,      WRITE,    REQUIRED,     KARPENTER_OFI),
    row("p6e-gb200.36xlarge", None,     gpu(4, "GB200"),           READ,      WRITE,    REQUIRED,     CONFLICT),
    row("trn1.32xlarge",      Some(8),  neuron(16, "Trainium1"),   READ,      NV_WRITE, REQUIRED,     KARPENTER_OFI),
    row("trn1n.32xlarge",     Some(16), neuron(16, "Trainium1"),   READ,      NV_WRITE, REQUIRED,     KARPENTER_OFI),
    row("trn2.3xlarge",       Some(1),  neuron(1, "Trainium2"),    READ,      NV_WRITE, REQUIRED,     KARPENTER_OFI),
    row("trn2.48xlarge",      Some(16), neuron(16, "Trainium2"),   READ,      NV_WRITE, REQUIRED,     KARPENTER_OFI),
    row("trn2u.48xlarge",     Some(16), neuron(16, "Trainium2"),   READ,      NV_WRITE, REQUIRED,     TRN2U),
    row("g4dn.8xlarge",       Some(1),  gpu(1, "T4"),              NO_READ,   NO_WRITE, NOT_VERIFIED, KARPENTER_EC2_GPUS),
    row("g4dn.12xlarge",      Some(1),  gpu(4, "T4"),              NO_READ,   NO_WRITE, NOT_VERIFIED, KARPENTER_EC2_GPUS),
    row("g4dn.16xlarge",      Some(1),  gpu(1, "T4"),              NO_READ,   NO_WRITE, NOT_VERIFIED, KARPENTER_EC2_GPUS),
    row("g4dn.metal",         Some(1),  gpu(8, "T4"),              NO_READ,   NO_WRITE, NOT_VERIFIED, KARPENTER_EC2_GPUS),
    row("g5.8xlarge",         Some(1),  gpu(1, "A10G"),            NO_READ,   NO_WRITE, NO,           KARPENTER_EC2_GPUS_OFI),
    row("g5.12xlarge",        Some(1),  gpu(4, "A10G"),            NO_READ,   NO_WRITE, NO,           KARPENTER_EC2_GPUS_OFI),
    row("g5.16xlarge",        Some(1),  gpu(1, "A10G"),            NO_READ,   NO_WRITE, NO,           KARPENTER_EC2_GPUS_OFI),
    row("g5.24xlarge",        Some(1),  gpu(4, "A10G"),            NO_READ,   NO_WRITE, NO,           KARPENTER_EC2_GPUS_OFI),
    row("g5.48xlarge",        Some(1),  gpu(8, "A10G"),            NO_READ,   NO_WRITE, NO,           KARPENTER_EC2_GPUS_OFI),
    row("g6.8xlarge",         Some(1),  gpu(1, "L4"),              READ,      NV_WRITE, NOT_VERIFIED, KARPENTER_EC2_GPUS),
    row("g6.12xlarge",        Some(1),  gpu(4, "L4"),              READ,      NV_WRITE, NOT_VERIFIED, KARPENTER_EC2_GPUS),
    row("g6.16xlarge",        Some(1),  gpu(1, "L4"),              READ,      NV_WRITE, NOT_VERIFIED, KARPENTER_EC2_GPUS),
    row("g6.24xlarge",        Some(1),  gpu(4, "L4"),              READ,      NV_WRITE, NOT_VERIFIED, KARPENTER_EC2_GPUS),
    row("g6.48xlarge",        Some(1),  gpu(8, "L4"),              READ,      NV_WRITE, NOT_VERIFIED, KARPENTER_EC2_GPUS),
    row("gr6.8xlarge",        Some(1),  gpu(1, "L4"),              READ,      NV_WRITE, NOT_VERIFIED, KARPENTER_EC2_GPUS),
    row("g6e.8xlarge",        Some(1),  gpu(1, "L40S"),            READ,      NV_WRITE, NOT_VERIFIED, KARPENTER_EC2_GPUS),
    row("g6e.12xlarge",       Some(1),  gpu(4, "L40S"),            READ,      NV_WRITE, NOT_VERIFIED, KARPENTER_EC2_GPUS),
    row("g6e.16xlarge",       Some(1),  gpu(1, "L40S"),            READ,      NV_WRITE, NOT_VERIFIED, KARPENTER_EC2_GPUS),
    row("g6e.24xlarge",       Some(2),  gpu(4, "L40S"),            READ,      NV_WRITE, NOT_VERIFIED, KARPENTER_EC2_GPUS),
    row("g6e.48xlarge",       Some(4),  gpu(8, "L40S"),            READ,      NV_WRITE, NOT_VERIFIED, KARPENTER_EC2_GPUS),
    row("g7.8xlarge",         Some(1),  gpu(1, "RTX PRO 4500"),    READ,      NV_WRITE, NOT_VERIFIED, KARPENTER_GPUS),
    row("g7.12xlarge",        Some(1),  gpu(2, "RTX PRO 4500"),    READ,      NV_WRITE, NOT_VERIFIED, KARPENTER_GPUS),
    row("g7.24xlarge",        Some(1),  gpu(4, "RTX PRO 4500"),    READ,      NV_WRITE, NOT_VERIFIED, KARPENTER_GPUS),
    row("g7.48xlarge",        Some(2),  gpu(8, "RTX PRO 4500"),    READ,      NV_WRITE, NOT_VERIFIED, KARPENTER_GPUS),
    row("g7e.8xlarge",        Some(1),  gpu(1, "RTX PRO 6000"),    READ,      NV_WRITE, NO,           KARPENTER_EC2_GPUS_OFI),
    row("g7e.12xlarge",       Some(1),  gpu(2, "RTX PRO 6000"),    READ,      NV_WRITE, REQUIRED,     KARPENTER_EC2_GPUS_OFI),
    row("g7e.24xlarge",       Some(2),  gpu(4, "RTX PRO 6000"),    READ,      NV_WRITE, REQUIRED,     KARPENTER_EC2_GPUS_OFI),
    row("g7e.48xlarge",       Some(4),  gpu(8, "RTX PRO 6000"),    READ,      NV_WRITE, REQUIRED,     KARPENTER_EC2_GPUS_OFI),
    row("hpc6a.48xlarge",     Some(1),  CPU,                       READ,      NV_WRITE, NO,           KARPENTER_EC2),
    row("hpc6id.32xlarge",    Some(2),  CPU,                       READ,      NV_WRITE, NO,           KARPENTER_EC2),
    row("hpc7a.12xlarge",     Some(2),  CPU,                       READ,      NV_WRITE, NO,           KARPENTER_EC2),
    row("hpc7a.24xlarge",     Some(2),  CPU,                       READ,      NV_WRITE, NO,           KARPENTER_EC2),
    row("hpc7a.48xlarge",     Some(2),  CPU,                       READ,      NV_WRITE, NO,           KARPENTER_EC2),
    row("hpc7a.96xlarge",     Some(2),  CPU,                       READ,      NV_WRITE, NO,           KARPENTER_EC2),
    row("hpc7g.4xlarge",      Some(1),  CPU,                       READ,      NV_WRITE, NO,           KARPENTER_EC2),
    row("hpc7g.8xlarge",      Some(1),  CPU,                       READ,      NV_WRITE, NO,           KARPENTER_EC2),
    row("hpc7g.16xlarge",     Some(1),  CPU,                       READ,      NV_WRITE, NO,           KARPENTER_EC2),
    row("hpc8a.96xlarge",     Some(2),  CPU,                       READ,      NV_WRITE, NO,           KARPENTER_EC2),
    row("c5n.9xlarge",        Some(1),  CPU,                       NO_READ,   NO_WRITE, NO,           KARPENTER_EC2),
    row("c5n.18xlarge",       Some(1),  CPU,                       NO_READ,   NO_WRITE, NO,           KARPENTER_EC2),
    row("c5n.metal",          Some(1),  CPU,                       NO_READ,   NO_WRITE, NO,           KARPENTER_EC2),
    // Types that are mostly used without EFA.
    //       type                   EFA max, accelerators source
    optional("m5dn.24xlarge",       1, CPU,                       EC2),
    optional("m5dn.metal",          1, CPU,                       EC2),
    optional("m5n.24xlarge",        1, CPU,                       EC2),
    optional("m5n.metal",           1, CPU,                       EC2),
    optional("m5zn.12xlarge",       1, CPU,                       EC2),
    optional("m5zn.metal",          1, CPU,                       EC2),
    optional("m6a.48xlarge",        1, CPU,                       EC2),
    optional("m6a.metal",           1, CPU,                       EC2),
    optional("m6i.32xlarge",        1, CPU,                       EC2),
    optional("m6i.metal",           1, CPU,                       EC2),
    optional("m6id.32xlarge",       1, CPU,                       EC2),
    optional("m6id.metal",          1, CPU,                       EC2),
    optional("m6idn.32xlarge",      2, CPU,                       EC2),
    optional("m6idn.metal",         2, CPU,                       EC2),
    optional("m6in.32xlarge",       2, CPU,                       EC2),
    optional("m6in.metal",          2, CPU,                       EC2),
    optional("m7a.48xlarge",        1, CPU,                       EC2),
    optional("m7a.metal-48xl",      1, CPU,                       EC2),
    optional("m7g.16xlarge",        1, CPU,                       EC2),
    optional("m7g.metal",           1, CPU,                       EC2),
    optional("m7gd.16xlarge",       1, CPU,                       EC2),
    optional("m7gd.metal",          1, CPU,                       EC2),
    optional("m7i.48xlarge",        1, CPU,                       EC2),
    optional("m7i.metal-48xl",      1, CPU,                       EC2),
    optional("c6a.48xlarge",        1, CPU,                       EC2),
    optional("c6a.metal",           1, CPU,                       EC2),
    optional("c6gn.16xlarge",       1, CPU,                       EC2),
    optional("c6i.32xlarge",        1, CPU,                       EC2),
    optional("c6i.metal",           1, CPU,                       EC2),
    optional("c6id.32xlarge",       1, CPU,                       EC2),
    optional("c6id.metal",          1, CPU,                       EC2),
    optional("c6in.32xlarge",       2, CPU,                       EC2),
    optional("c6in.metal",          2, CPU,                       EC2),
    optional("c7a.48xlarge",        1, CPU,                       EC2),
    optional("c7a.metal-48xl",      1, CPU,                       EC2),
    optional("c7g.16xlarge",        1, CPU,                       EC2),
    optional("c7g.metal",           1, CPU,                       EC2),
    optional("c7gd.16xlarge",       1, CPU,                       EC2),
    optional("c7gd.metal",          1, CPU,                       EC2),
    optional("c7gn.16xlarge",       1, CPU,                       EC2),
    optional("c7gn.metal",          1, CPU,                       EC2),
    optional("c7i.48xlarge",        1, CPU,                       EC2),
    optional("c7i.metal-48xl",      1, CPU,                       EC2),
    optional("r5dn.24xlarge",       1, CPU,                       EC2),
    optional("r5dn.metal",          1, CPU,                       EC2),
    optional("r5n.24xlarge",        1, CPU,                       EC2),
    optional("r5n.metal",           1, CPU,                       EC2),
    optional("r6a.48xlarge",        1, CPU,                       EC2),
    optional("r6a.metal",           1, CPU,                       EC2),
    optional("r6i.32xlarge",        1, CPU,                       EC2),
    optional("r6i.metal",           1, CPU,                       EC2),
    optional("r6idn.32xlarge",      2, CPU,                       EC2),
    optional("r6idn.metal",         2, CPU,                       EC2),
    optional("r6in.32xlarge",       2, CPU,                       EC2),
    optional("r6in.metal",          2, CPU,                       EC2),
    optional("r6id.32xlarge",       1, CPU,                       EC2),
    optional("r6id.metal",          1, CPU,                       EC2),
    optional("r7a.48xlarge",        1, CPU,                       EC2),
    optional("r7a.metal-48xl",      1, CPU,                       EC2),
    optional("r7g.16xlarge",        1, CPU,                       EC2),
    optional("r7g.metal",           1, CPU,                       EC2),
    optional("r7gd.16xlarge",       1, CPU,                       EC2),
    optional("r7gd.metal",          1, CPU,                       EC2),
    optional("r7i.48xlarge",        1, CPU,                       EC2),
    optional("r7i.metal-48xl",      1, CPU,                       EC2),
    optional("r7iz.32xlarge",       1, CPU,                       EC2),
    optional("r7iz.metal-32xl",     1, CPU,                       EC2),
    optional("x2idn.32xlarge",      1, CPU,                       EC2),
    optional("x2idn.metal",         1, CPU,                       EC2),
    optional("x2iedn.32xlarge",     1, CPU,                       EC2),
    optional("x2iedn.metal",        1, CPU,                       EC2),
    optional("x2iezn.12xlarge",     1, CPU,                       EC2),
    optional("x2iezn.metal",        1, CPU,                       EC2),
    optional("i3en.12xlarge",       1, CPU,                       EC2),
    optional("i3en.24xlarge",       1, CPU,                       EC2),
    optional("i3en.metal",          1, CPU,                       EC2),
    optional("i4g.16xlarge",        1, CPU,                       EC2),
    optional("i4i.32xlarge",        1, CPU,                       EC2),
    optional("i4i.metal",           1, CPU,                       EC2),
    optional("im4gn.16xlarge",      1, CPU,                       EC2),
    optional("dl1.24xlarge",        4, other(8, "Gaudi"),         EKS_CARDS),
    optional("dl2q.24xlarge",       1, other(8, "AI 100"),        EC2),
    optional("inf1.24xlarge",       1, neuron(16, "Inferentia"),  EC2),
    optional("vt1.24xlarge",        1, other(8, "U30"),           EC2),
    optional("c8a.48xlarge",        1, CPU,                       EC2),
    optional("c8a.metal-48xl",      1, CPU,                       EC2),
    optional("c8g.24xlarge",        1, CPU,                       EC2),
    optional("c8g.48xlarge",        1, CPU,                       EC2),
    optional("c8g.metal-24xl",      1, CPU,                       EC2),
    optional("c8g.metal-48xl",      1, CPU,                       EC2),
    optional("c8gb.16xlarge",       1, CPU,                       EC2),
    optional("c8gb.24xlarge",       1, CPU,                       EC2),
    optional("c8gb.48xlarge",       2, CPU,                       EC2),
    optional("c8gb.metal-24xl",     1, CPU,                       EC2),
    optional("c8gb.metal-48xl",     2, CPU,                       EC2),
    optional("c8gd.24xlarge",       1, CPU,                       EC2),
    optional("c8gd.48xlarge",       1, CPU,                       EC2),
    optional("c8gd.metal-24xl",     1, CPU,                       EC2),
    optional("c8gd.metal-48xl",     1, CPU,                       EC2),
    optional("c8gn.16xlarge",       1, CPU,                       EC2),
    optional("c8gn.24xlarge",       1, CPU,                       EC2),
    optional("c8gn.48xlarge",       2, CPU,                       EC2),
    optional("c8gn.metal-24xl",     1, CPU,                       EC2),
    optional("c8gn.metal-48xl",     2, CPU,                       EC2),
    optional("c8i.48xlarge",        1, CPU,                       EC2),
    optional("c8i.96xlarge",        1, CPU,                       EC2),
    optional("c8i.metal-48xl",      1, CPU,                       EC2),
    optional("c8i.metal-96xl",      1, CPU,                       EC2),
    optional("c8ib.48xlarge",       1, CPU,                       EC2),
    optional("c8ib.96xlarge",       2, CPU,                       EC2),
    optional("c8ib.metal-48xl",     1, CPU,                       EC2),
    optional("c8ib.metal-96xl",     2, CPU,                       EC2),
    optional("c8id.48xlarge",       1, CPU,                       EC2),
    optional("c8id.96xlarge",       1, CPU,                       EC2),
    optional("c8id.metal-48xl",     1, CPU,                       EC2),
    optional("c8id.metal-96xl",     1, CPU,                       EC2),
    optional("c8in.48xlarge",       1, CPU,                       EC2),
    optional("c8in.96xlarge",       2, CPU,                       EC2),
    optional("c8in.metal-48xl",     1, CPU,                       EC2),
    optional("c8in.metal-96xl",     2, CPU,                       EC2),
    optional("c9g.48xlarge",        1, CPU,                       EC2),
    optional("c9g.metal-48xl",      1, CPU,                       EC2),
    optional("c9gd.48xlarge",       1, CPU,                       EC2),
    optional("c9gd.metal-48xl",     1, CPU,                       EC2),
    optional("f2.48xlarge",         1, other(8, "VU47P"),         EC2),
    optional("i7i.24xlarge",        1, CPU,                       EC2),
    optional("i7i.48xlarge",        1, CPU,                       EC2),
    optional("i7i.metal-48xl",      1, CPU,                       EC2),
    optional("i7ie.48xlarge",       1, CPU,                       EC2),
    optional("i7ie.metal-48xl",     1, CPU,                       EC2),
    optional("i8g.48xlarge",        1, CPU,                       EC2),
    optional("i8g.metal-48xl",      1, CPU,                       EC2),
    optional("i8ge.48xlarge",       1, CPU,                       EC2),
    optional("i8ge.metal-48xl",     1, CPU,                       EC2),
    optional("m8a.48xlarge",        1, CPU,                       EC2),
    optional("m8a.metal-48xl",      1, CPU,                       EC2),
    optional("m8azn.24xlarge",      1, CPU,                       EC2),
    optional("m8azn.metal-24xl",    1, CPU,                       EC2),
    optional("m8g.24xlarge",        1, CPU,                       EC2),
    optional("m8g.48xlarge",        1, CPU,                       EC2),
    optional("m8g.metal-24xl",      1, CPU,                       EC2),
    optional("m8g.metal-48xl",      1, CPU,                       EC2),
    optional("m8gb.16xlarge",       1, CPU,                       EC2),
    optional("m8gb.24xlarge",       1, CPU,                       EC2),
    optional("m8gb.48xlarge",       2, CPU,                       EC2),
    optional("m8gb.metal-24xl",     1, CPU,                       EC2),
    optional("m8gb.metal-48xl",     2, CPU,                       EC2),
    optional("m8gd.24xlarge",       1, CPU,                       EC2),
    optional("m8gd.48xlarge",       1, CPU,                       EC2),
    optional("m8gd.metal-24xl",     1, CPU,                       EC2),
    optional("m8gd.metal-48xl",     1, CPU,                       EC2),
    optional("m8gn.16xlarge",       1, CPU,                       EC2),
    optional("m8gn.24xlarge",       1, CPU,                       EC2),
    optional("m8gn.48xlarge",       2, CPU,                       EC2),
    optional("m8gn.metal-24xl",     1, CPU,                       EC2),
    optional("m8gn.metal-48xl",     2, CPU,                       EC2),
    optional("m8i.48xlarge",        1, CPU,                       EC2),
    optional("m8i.96xlarge",        1, CPU,                       EC2),
    optional("m8i.metal-48xl",      1, CPU,                       EC2),
    optional("m8i.metal-96xl",      1, CPU,                       EC2),
    optional("m8ib.48xlarge",       1, CPU,                       EC2),
    optional("m8ib.96xlarge",       2, CPU,                       EC2),
    optional("m8ib.metal-48xl",     1, CPU,                       EC2),
    optional("m8ib.metal-96xl",     2, CPU,                       EC2),
    optional("m8id.48xlarge",       1, CPU,                       EC2),
    optional("m8id.96xlarge",       1, CPU,                       EC2),
    optional("m8id.metal-48xl",     1, CPU,                       EC2),
    optional("m8id.metal-96xl",     1, CPU,                       EC2),
    optional("m8idb.48xlarge",      1, CPU,                       EC2),
    optional("m8idb.96xlarge",      2, CPU,                       EC2),
    optional("m8idb.metal-48xl",    1, CPU,                       EC2),
    optional("m8idb.metal-96xl",    2, CPU,                       EC2),
    optional("m8idn.48xlarge",      1, CPU,                       EC2),
    optional("m8idn.96xlarge",      2, CPU,                       EC2),
    optional("m8idn.metal-48xl",    1, CPU,                       EC2),
    optional("m8idn.metal-96xl",    2, CPU,                       EC2),
    optional("m8in.48xlarge",       1, CPU,                       EC2),
    optional("m8in.96xlarge",       2, CPU,                       EC2),
    optional("m8in.metal-48xl",     1, CPU,                       EC2),
    optional("m8in.metal-96xl",     2, CPU,                       EC2),
    optional("m9g.48xlarge",        1, CPU,                       EC2),
    optional("m9g.metal-48xl",      1, CPU,                       EC2),
    optional("m9gd.48xlarge",       1, CPU,                       EC2),
    optional("m9gd.metal-48xl",     1, CPU,                       EC2),
    optional("r8a.48xlarge",        1, CPU,                       EC2),
    optional("r8a.metal-48xl",      1, CPU,                       EC2),
    optional("r8g.24xlarge",        1, CPU,                       EC2),
    optional("r8g.48xlarge",        1, CPU,                       EC2),
    optional("r8g.metal-24xl",      1, CPU,                       EC2),
    optional("r8g.metal-48xl",      1, CPU,                       EC2),
    optional("r8gb.16xlarge",       1, CPU,                       EC2),
    optional("r8gb.24xlarge",       1, CPU,                       EC2),
    optional("r8gb.48xlarge",       2, CPU,                       EC2),
    optional("r8gb.metal-24xl",     1, CPU,                       EC2),
    optional("r8gb.metal-48xl",     2, CPU,                       EC2),
    optional("r8gd.24xlarge",       1, CPU,                       EC2),
    optional("r8gd.48xlarge",       1, CPU,                       EC2),
    optional("r8gd.metal-24xl",     1, CPU,                       EC2),
    optional("r8gd.metal-48xl",     1, CPU,                       EC2),
    optional("r8gn.16xlarge",       1, CPU,                       EC2),
    optional("r8gn.24xlarge",       1, CPU,                       EC2),
    optional("r8gn.48xlarge",       2, CPU,                       EC2),
    optional("r8gn.metal-24xl",     1, CPU,                       EC2),
    optional("r8gn.metal-48xl",     2, CPU,                       EC2),
    optional("r8i.48xlarge",        1, CPU,                       EC2),
    optional("r8i.96xlarge",        1, CPU,                       EC2),
    optional("r8i.metal-48xl",      1, CPU,                       EC2),
    optional("r8i.metal-96xl",      1, CPU,                       EC2),
    optional("r8ib.48xlarge",       1, CPU,                       EC2),
    optional("r8ib.96xlarge",       2, CPU,                       EC2),
    optional("r8ib.metal-48xl",     1, CPU,                       EC2),
    optional("r8ib.metal-96xl",     2, CPU,                       EC2),
    optional("r8id.48xlarge",       1, CPU,                       EC2),
    optional("r8id.96xlarge",       1, CPU,                       EC2),
    optional("r8id.metal-48xl",     1, CPU,                       EC2),
    optional("r8id.metal-96xl",     1, CPU,                       EC2),
    optional("r8idb.48xlarge",      1, CPU,                       EC2),
    optional("r8idb.96xlarge",      2, CPU,                       EC2),
    optional("r8idb.metal-48xl",    1, CPU,                       EC2),
    optional("r8idb.metal-96xl",    2, CPU,                       EC2),
    optional("r8idn.48xlarge",      1, CPU,                       EC2),
    optional("r8idn.96xlarge",      2, CPU,                       EC2),
    optional("r8idn.metal-48xl",    1, CPU,                       EC2),
    optional("r8idn.metal-96xl",    2, CPU,                       EC2),
    optional("r8in.48xlarge",       1, CPU,                       EC2),
    optional("r8in.96xlarge",       2, CPU,                       EC2),
    optional("r8in.metal-48xl",     1, CPU,                       EC2),
    optional("r8in.metal-96xl",     2, CPU,                       EC2),
    optional("r9g.48xlarge",        1, CPU,                       EC2),
    optional("r9g.metal-48xl",      1, CPU,                       EC2),
    optional("r9gd.48xlarge",       1, CPU,                       EC2),
    optional("r9gd.metal-48xl",     1, CPU,                       EC2),
    optional("u7i-12tb.224xlarge",  1, CPU,                       EC2),
    optional("u7i-6tb.112xlarge",   1, CPU,                       EC2),
    optional("u7i-8tb.112xlarge",   1, CPU,                       EC2),
    optional("u7in-16tb.224xlarge", 2, CPU,                       EC2),
    optional("u7in-24tb.224xlarge", 2, CPU,                       EC2),
    optional("u7in-32tb.224xlarge", 2, CPU,                       EC2),
    optional("x8aedz.24xlarge",     1, CPU,                       EC2),
    optional("x8aedz.metal-24xl",   1, CPU,                       EC2),
    optional("x8g.24xlarge",        1, CPU,                       EC2),
    optional("x8g.48xlarge",        1, CPU,                       EC2),
    optional("x8g.metal-24xl",      1, CPU,                       EC2),
    optional("x8g.metal-48xl",      1, CPU,                       EC2),
    optional("x8i.48xlarge",        1, CPU,                       EC2),
    optional("x8i.64xlarge",        1, CPU,                       EC2),
    optional("x8i.96xlarge",        1, CPU,                       EC2),
    optional("x8i.metal-48xl",      1, CPU,                       EC2),
    optional("x8i.metal-96xl",      1, CPU,                       EC2),
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_sagemaker_prefix_is_dropped() {
        let plain: InstanceType = "p5.48xlarge".parse().unwrap();
        assert_eq!("ml.p5.48xlarge".parse::<InstanceType>().unwrap(), plain);
        assert_eq!(
            (plain.family(), plain.to_string()),
            ("p5", "p5.48xlarge".into())
        );
        assert_eq!(
            "p6-b200.48xlarge".parse::<InstanceType>().unwrap().family(),
            "p6-b200"
        );
        assert_eq!(
            "m8gn.metal-24xl".parse::<InstanceType>().unwrap().as_str(),
            "m8gn.metal-24xl"
        );
    }

    #[test]
    fn what_is_not_an_instance_type_is_refused() {
        let long = format!("p5.{}", "x".repeat(62));
        for text in [
            "",
            "p5",
            "p5.",
            ".48xlarge",
            "-p5.48xlarge",
            "P5.48xlarge",
            "p5.48xlarge\n",
            "p5.48.xlarge",
            "../p5.48xlarge",
            "ml.p5",
            "ml.ml.p5.48xlarge",
            "ml.ml.xlarge",
            "p5 .48xlarge",
            "p5.48xlärge",
            &long,
        ] {
            assert!(text.parse::<InstanceType>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_refusal_shows_hostile_text_escaped_and_cut() {
        let error = format!("\x1b[31m{}", "x".repeat(10_000_000))
            .parse::<InstanceType>()
            .unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with("`\\u{1b}[31mxxx") && message.len() < 200,
            "{message}"
        );
    }

    #[test]
    fn every_line_has_a_valid_name_that_occurs_once_and_a_source() {
        let mut seen = BTreeSet::new();
        for spec in TABLE {
            let parsed: InstanceType = spec.name.parse().unwrap();
            assert_eq!(lookup(&parsed), Some(spec));
            assert_eq!(parsed.family(), spec.family());
            assert!(seen.insert(spec.name), "{} twice", spec.name);
            assert!(!spec.source.is_empty(), "{}", spec.name);
            assert!(!WITHOUT_EFA.contains(&spec.name), "{}", spec.name);
        }
    }

    #[test]
    fn the_table_is_grouped_by_family() {
        let families: Vec<_> = families().collect();
        assert_eq!(
            families.iter().collect::<BTreeSet<_>>().len(),
            families.len()
        );
        assert!(families.starts_with(&["p3dn", "p4d", "p4de", "p5", "p5e"]));
        assert_eq!(
            family_specs("p5").map(|s| s.name).collect::<Vec<_>>(),
            ["p5.4xlarge", "p5.48xlarge"]
        );
        assert_eq!(family_specs("p").count(), 0);
    }

    /// What `TABLE` must say, type by type: RDMA read, RDMA write, GPUDirect.
    #[rustfmt::skip]
    const PROPERTIES: &[(&str, Option<bool>, Option<bool>, GpuDirect)] = &[
        ("p3dn.24xlarge", Some(false), Some(false), NO),
        ("p4d.24xlarge", Some(true), None, REQUIRED),
        ("p4de.24xlarge", Some(true), None, REQUIRED),
        ("p5.4xlarge", Some(true), None, NO),
        ("p5.48xlarge", Some(true), Some(true), REQUIRED),
        ("p5e.48xlarge", Some(true), Some(true), REQUIRED),
        ("p5en.48xlarge", Some(true), Some(true), REQUIRED),
        ("p6-b200.48xlarge", Some(true), Some(true), REQUIRED),
        ("p6-b300.48xlarge", Some(true), Some(true), REQUIRED),
        ("p6e-gb200.36xlarge", Some(true), Some(true), REQUIRED),
        ("trn1.32xlarge", Some(true), None, REQUIRED),
        ("trn1n.32xlarge", Some(true), None, REQUIRED),
        ("trn2.3xlarge", Some(true), None, REQUIRED),
        ("trn2.48xlarge", Some(true), None, REQUIRED),
        ("trn2u.48xlarge", Some(true), None, REQUIRED),
        ("g4dn.8xlarge", Some(false), Some(false), NOT_VERIFIED),
        ("g4dn.12xlarge", Some(false), Some(false), NOT_VERIFIED),
        ("g4dn.16xlarge", Some(false), Some(false), NOT_VERIFIED),
        ("g4dn.metal", Some(false), Some(false), NOT_VERIFIED),
        ("g5.8xlarge", Some(false), Some(false), NO),
        ("g5.12xlarge", Some(false), Some(false), NO),
        ("g5.16xlarge", Some(false), Some(false), NO),
        ("g5.24xlarge", Some(false), Some(false), NO),
        ("g5.48xlarge", Some(false), Some(false), NO),
        ("g6.8xlarge", Some(true), None, NOT_VERIFIED),
        ("g6.12xlarge", Some(true), None, NOT_VERIFIED),
        ("g6.16xlarge", Some(true), None, NOT_VERIFIED),
        ("g6.24xlarge", Some(true), None, NOT_VERIFIED),
        ("g6.48xlarge", Some(true), None, NOT_VERIFIED),
        ("gr6.8xlarge", Some(true), None, NOT_VERIFIED),
        ("g6e.8xlarge", Some(true), None, NOT_VERIFIED),
        ("g6e.12xlarge", Some(true), None, NOT_VERIFIED),
        ("g6e.16xlarge", Some(true), None, NOT_VERIFIED),
        ("g6e.24xlarge", Some(true), None, NOT_VERIFIED),
        ("g6e.48xlarge", Some(true), None, NOT_VERIFIED),
        ("g7.8xlarge", Some(true), None, NOT_VERIFIED),
        ("g7.12xlarge", Some(true), None, NOT_VERIFIED),
        ("g7.24xlarge", Some(true), None, NOT_VERIFIED),
        ("g7.48xlarge", Some(true), None, NOT_VERIFIED),
        ("g7e.8xlarge", Some(true), None, NO),
        ("g7e.12xlarge", Some(true), None, REQUIRED),
        ("g7e.24xlarge", Some(true), None, REQUIRED),
        ("g7e.48xlarge", Some(true), None, REQUIRED),
        ("hpc6a.48xlarge", Some(true), None, NO),
        ("hpc6id.32xlarge", Some(true), None, NO),
        ("hpc7a.12xlarge", Some(true), None, NO),
        ("hpc7a.24xlarge", Some(true), None, NO),
        ("hpc7a.48xlarge", Some(true), None, NO),
        ("hpc7a.96xlarge", Some(true), None, NO),
        ("hpc7g.4xlarge", Some(true), None, NO),
        ("hpc7g.8xlarge", Some(true), None, NO),
        ("hpc7g.16xlarge", Some(true), None, NO),
        ("hpc8a.96xlarge", Some(true), None, NO),
        ("c5n.9xlarge", Some(false), Some(false), NO),
        ("c5n.18xlarge", Some(false), Some(false), NO),
        ("c5n.metal", Some(false), Some(false), NO),
    ];

    #[test]
    fn rdma_read_rdma_write_and_gpudirect_are_three_properties() {
        let table: Vec<_> = TABLE
            .iter()
            .filter(|spec| spec.is_for_efa)
            .map(|spec| (spec.name, spec.rdma_read, spec.rdma_write, spec.gpudirect))
            .collect();
        assert_eq!(table, PROPERTIES);
        let without: BTreeSet<_> = TABLE
            .iter()
            .filter(|spec| spec.rdma_read == Some(false))
            .map(Spec::family)
            .collect();
        assert_eq!(without, BTreeSet::from(["c5n", "g4dn", "g5", "p3dn"]));
    }

    /// A saved public list: what is no comment.
    fn saved(list: &'static str) -> Vec<&'static str> {
        let lines = list.lines().filter(|line| !line.starts_with('#'));
        let names: Vec<_> = lines.collect();
        assert!(names.len() > 100, "a list of AWS's is longer");
        names
    }

    fn missing(list: &[&'static str], known: impl Fn(&InstanceType) -> bool) -> Vec<&'static str> {
        let parsed = |name: &&str| name.parse::<InstanceType>().unwrap();
        let names = list.iter().copied();
        names.filter(|name| !known(&parsed(name))).collect()
    }

    #[test]
    fn every_type_of_the_public_list_of_efa_types_is_known() {
        let list = saved(include_str!("../data/efa-types.txt"));
        let missing = missing(&list, |name| efa_max(name).is_some_and(|max| max > 0));
        assert_eq!(missing, [""; 0], "add these to TABLE");
    }

    #[test]
    fn every_type_has_the_number_of_efa_devices_that_ec2_reports() {
        let list = saved(include_str!("../data/ec2-efa-types.txt"));
        let of = |line: &'static str| -> (InstanceType, u8) {
            let (name, count) = line.split_once(' ').unwrap();
            (name.parse().unwrap(), count.parse().unwrap())
        };
        let list: Vec<_> = list.into_iter().map(of).collect();
        let wrong: Vec<_> = list
            .iter()
            .filter(|(name, count)| efa_max(name) != Some(*count))
            .collect();
        assert_eq!(
            wrong,
            Vec::<&(InstanceType, u8)>::new(),
            "correct these in TABLE"
        );
        // What EC2 was not asked about, or was asked before it had the type.
        let known = |spec: &&Spec| list.iter().any(|(name, _)| name.as_str() == spec.name);
        let others: Vec<_> = TABLE.iter().filter(|spec| !known(spec)).collect();
        let others: Vec<_> = others.iter().map(|spec| spec.name).collect();
        assert_eq!(others, ["p6e-gb200.36xlarge", "dl1.24xlarge"]);
    }

    #[test]
    fn the_number_of_efa_devices_is_known_of_every_accelerated_type_of_hyperpod() {
        let accelerated = |name: &&str| {
            let families = ["p", "g", "gr", "trn", "inf", "dl"];
            let letters = name.split(|c: char| c.is_ascii_digit()).next();
            families.contains(&letters.unwrap())
        };
        let list = saved(include_str!("../data/hyperpod-types.txt"));
        let list: Vec<_> = list.into_iter().filter(accelerated).collect();
        assert!(list.contains(&"p5.48xlarge") && list.contains(&"trn2.3xlarge"));
        let missing = missing(&list, |name| efa_max(name).is_some());
        // Sources contradict each other.
        assert_eq!(missing, ["p6e-gb200.36xlarge"], "add these to TABLE");
    }

    #[test]
    fn a_type_that_can_have_no_efa_is_expected_to_have_none() {
        let efa = |name: &str| efa_expected(&name.parse().unwrap());
        assert_eq!(efa("g5.xlarge"), Some(0));
        assert_eq!(efa("p5.48xlarge"), Some(32));
        assert_eq!(efa("m5.large"), None);
    }

    #[test]
    fn a_type_for_which_efa_is_an_option_is_not_expected_to_have_it() {
        let instance: InstanceType = "c6in.32xlarge".parse().unwrap();
        assert_eq!(
            (efa_max(&instance), efa_expected(&instance)),
            (Some(2), None)
        );
    }

    #[test]
    fn a_type_that_requires_gpudirect_has_rdma_read() {
        for spec in TABLE.iter().filter(|s| s.gpudirect == GpuDirect::Required) {
            assert_eq!(spec.rdma_read, Some(true), "{}", spec.name);
        }
    }

    #[test]
    fn a_type_without_an_accelerator_has_no_gpudirect() {
        for spec in TABLE.iter().filter(|s| s.accelerator == Accelerator::None) {
            assert_eq!(spec.gpudirect, GpuDirect::NotAvailable, "{}", spec.name);
        }
    }

    #[test]
    fn the_types_of_the_simulated_nodes_have_the_published_numbers() {
        for (name, efa) in [
            ("p4d.24xlarge", Some(4)),
            ("p5.48xlarge", Some(32)),
            ("p5en.48xlarge", Some(16)),
            ("p6-b200.48xlarge", Some(8)),
            ("trn1.32xlarge", Some(8)),
            ("g5.8xlarge", Some(1)),
            ("p6e-gb200.36xlarge", None),
        ] {
            assert_eq!(
                lookup(&name.parse().unwrap()).unwrap().efa_max,
                efa,
                "{name}"
            );
        }
        assert_eq!(lookup(&"m5.large".parse().unwrap()), None);
    }

    fn node_named(product: &[u8]) -> Result<InstanceType, DetectError> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(PRODUCT_NAME);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, product).unwrap();
        detect(&Sysroot::new(dir.path().into()))
    }

    #[test]
    fn the_node_is_what_its_firmware_says() {
        assert_eq!(
            node_named(b"p5.48xlarge\n").unwrap().as_str(),
            "p5.48xlarge"
        );
        assert_eq!(
            node_named(b"ml.p5.48xlarge\n").unwrap().as_str(),
            "p5.48xlarge"
        );
    }

    #[test]
    fn a_node_that_is_no_instance_is_told_apart_from_one_that_cannot_be_read() {
        assert!(matches!(
            node_named(b"HVM domU\n"),
            Err(DetectError::NotAnInstance(_))
        ));
        assert!(matches!(
            node_named(b""),
            Err(DetectError::NotAnInstance(_))
        ));
        assert!(matches!(
            node_named(b"\xff"),
            Err(DetectError::Unreadable(_))
        ));
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(
            detect(&Sysroot::new(empty.path().into())),
            Err(DetectError::Unreadable(ReadError::Missing { .. }))
        ));
    }

    proptest! {
        #[test]
        fn an_accepted_type_prints_and_parses_back(text in "(ml\\.)?[a-z0-9.-]{0,70}|.*") {
            if let Ok(parsed) = text.parse::<InstanceType>() {
                prop_assert!(parsed.as_str().len() <= LONGEST_NAME);
                if !parsed.as_str().starts_with("ml.") {
                    prop_assert_eq!(parsed.to_string().parse::<InstanceType>().unwrap(), parsed);
                }
            }
        }
    }
}
