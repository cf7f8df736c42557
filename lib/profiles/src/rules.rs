//! What a profile sets, as data: one row for each variable and reason.
//!
//! aws-ofi-nccl 1.16 and later tunes NCCL itself and never overwrites a value
//! that it finds in the environment, so whatever we export there pins the job
//! against its future defaults. On a modern stack the table therefore sets
//! almost nothing. Every row names its source.
//!
//! A version that could not be read makes its condition *unknown*, and unknown
//! is not set: we state what is known. In a container the versions of the
//! image count, not the host's, so there every version is unknown.

use efa::version::Version;

/// A component of the node's software that a condition asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// AWS EFA installer.
    EfaInstaller,
    /// libfabric.
    Libfabric,
    /// aws-ofi-nccl, the NCCL network plugin.
    AwsOfiNccl,
    /// NCCL.
    Nccl,
    /// rdma-core (libibverbs).
    RdmaCore,
    /// The Linux kernel.
    Kernel,
}

impl Component {
    /// The name by which its users know it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EfaInstaller => "EFA installer",
            Self::Libfabric => "libfabric",
            Self::AwsOfiNccl => "aws-ofi-nccl",
            Self::Nccl => "NCCL",
            Self::RdmaCore => "rdma-core",
            Self::Kernel => "kernel",
        }
    }
}

/// When a row applies.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// Always.
    Always,
    /// The component is older than this.
    Below(Component, Version),
    /// The component is this or newer.
    AtLeast(Component, Version),
    /// The instance type's family is one of these.
    Family(&'static [&'static str]),
    /// The instance type does GPUDirect RDMA.
    GpuDirect,
    /// The EFA devices of the instance type are known to lack RDMA read.
    NoRdmaRead,
    /// The accelerators are NVIDIA GPUs.
    Nvidia,
    /// The accelerators are AWS Neuron devices.
    Neuron,
    /// The NCCL tuner plugin of aws-ofi-nccl is installed; the value is its path.
    TunerInstalled,
    /// All of these.
    All(&'static [When]),
    /// Any of these.
    Any(&'static [When]),
}

/// One variable that a profile may set.
#[derive(Debug)]
pub struct Rule {
    /// The variable.
    pub variable: &'static str,
    /// Its value.
    pub value: Value,
    /// When it is set.
    pub when: When,
    /// Why, for `--efa-explain`.
    pub why: &'static str,
    /// Where this is known from.
    pub source: &'static str,
}

/// A row's value.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    /// This text.
    Text(&'static str),
    /// The path of the tuner plugin that was found on the node.
    TunerPath,
}

const fn v(major: u32, minor: u32, patch: u32) -> Version {
    Version::new(major, minor, patch)
}

use Component::{AwsOfiNccl, EfaInstaller, Kernel, Libfabric, Nccl, RdmaCore};
use Value::{Text, TunerPath};
use When::{
    All, Always, Any, AtLeast, Below, Family, GpuDirect, Neuron, NoRdmaRead, Nvidia, TunerInstalled,
};

/// aws-ofi-nccl 1.5.0 and older: the last release that neither selects the EFA
/// provider nor leaves the protocol to NCCL.
const OFI_UP_TO_1_5_0: When = Below(AwsOfiNccl, v(1, 5, 1));

/// The types for which aws-ofi-nccl 1.16 sets the buffer sizes by itself.
const TUNED_BY_OFI: When = Family(&["p4d", "p4de", "p5", "p5e", "p5en", "p6-b200", "p6-b300"]);

/// The rows, in the order in which `--efa-explain` prints them.
pub const RULES: &[Rule] = &[
    Rule {
        variable: "NCCL_SOCKET_IFNAME",
        value: Text("^docker,lo,veth"),
        when: Nvidia,
        why: "NCCL's bootstrap must not pick a container bridge; names such as eth0 differ between AMIs",
        source: "awslabs/awsome-distributed-ai, 2026",
    },
    Rule {
        variable: "NCCL_SHM_USE_CUDA_MEMCPY",
        value: Text("1"),
        when: Family(&["g5", "g6"]),
        why: "AWS's samples copy through host shared memory by cudaMemcpy on these types",
        source: "AWS's public samples, 2026; the gain was not measured here",
    },
    Rule {
        variable: "FI_PROVIDER",
        value: Text("efa"),
        when: Any(&[OFI_UP_TO_1_5_0, Neuron]),
        why: "aws-ofi-nccl up to 1.5.0 and Neuron do not choose the EFA provider by themselves",
        source: "aws-ofi-nccl sources, 2026; AWS Neuron documentation, trn1 multi-node set-up",
    },
    Rule {
        variable: "FI_EFA_USE_DEVICE_RDMA",
        value: Text("1"),
        when: Any(&[
            All(&[
                GpuDirect,
                Nvidia,
                Any(&[Below(Libfabric, v(1, 18, 0)), Below(AwsOfiNccl, v(1, 7, 0))]),
            ]),
            All(&[GpuDirect, Neuron]),
        ]),
        why: "libfabric before 1.18 and aws-ofi-nccl before 1.7 leave RDMA off; Neuron asks for it",
        source: "libfabric fi_efa(7); aws-ofi-nccl sources, 2026; AWS Neuron documentation, trn1 multi-node set-up",
    },
    Rule {
        variable: "FI_EFA_FORK_SAFE",
        value: Text("1"),
        when: Any(&[
            Below(Kernel, v(5, 13, 0)),
            Below(RdmaCore, v(35, 0, 0)),
            All(&[Neuron, Below(Kernel, v(5, 15, 0))]),
        ]),
        why: "before kernel 5.13 and rdma-core 35 a fork corrupts registered memory unless this is set",
        source: "libfabric fi_efa(7) and prov/efa sources, 2026; AWS Neuron documentation (kernel before 5.15)",
    },
    Rule {
        variable: "FI_EFA_SET_CUDA_SYNC_MEMOPS",
        value: Text("0"),
        when: All(&[
            Nvidia,
            Below(EfaInstaller, v(1, 29, 1)),
            AtLeast(Nccl, v(2, 19, 0)),
        ]),
        why: "NCCL 2.19 and later cannot register GPU memory with libfabric of installers before 1.29.1 otherwise",
        source: "awslabs/awsome-distributed-ai issues 203 and 278; ofiwg/libfabric pull request 9459",
    },
    Rule {
        variable: "NCCL_PROTO",
        value: Text("simple"),
        when: All(&[Nvidia, OFI_UP_TO_1_5_0]),
        why: "only aws-ofi-nccl up to 1.5.0 needs it from outside (some builds of it set it themselves); later ones choose the protocol",
        source: "aws-ofi-nccl sources, 2026",
    },
    Rule {
        variable: "NCCL_BUFFSIZE",
        value: Text("8388608"),
        when: All(&[TUNED_BY_OFI, Below(AwsOfiNccl, v(1, 16, 0))]),
        why: "aws-ofi-nccl before 1.16 leaves NCCL's default, too small for EFA",
        source: "the value that aws-ofi-nccl 1.16 sets by itself on these types",
    },
    Rule {
        variable: "NCCL_P2P_NET_CHUNKSIZE",
        value: Text("524288"),
        when: All(&[TUNED_BY_OFI, Below(AwsOfiNccl, v(1, 16, 0))]),
        why: "aws-ofi-nccl before 1.16 leaves NCCL's default, too small for EFA",
        source: "the value that aws-ofi-nccl 1.16 sets by itself on these types",
    },
    Rule {
        variable: "NCCL_TUNER_PLUGIN",
        value: TunerPath,
        when: All(&[
            TUNED_BY_OFI,
            TunerInstalled,
            Below(AwsOfiNccl, v(1, 16, 0)),
            AtLeast(Nccl, v(2, 19, 0)),
            Below(Nccl, v(2, 21, 0)),
        ]),
        why: "NCCL 2.19 and 2.20 load the tuner of aws-ofi-nccl only from a path",
        source: "aws-ofi-nccl sources, 2026; 1.16 and later need no variable",
    },
];

/// How bad a variable is that the user brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// libfabric calls `abort()` in every process that sees it.
    Abort,
    /// It slows a job down, hides a fault or does nothing; said by `--efa-explain` only.
    Harm,
}

/// Which value of a variable is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// Any value, also an empty one.
    Present,
    /// Set, to nothing.
    Empty,
    /// A value that libfabric reads as true (1, true, yes, on).
    True,
}

/// A variable that must not be in the job's environment.
#[derive(Debug)]
pub struct Harmful {
    /// The variable.
    pub variable: &'static str,
    /// The values meant.
    pub matches: Match,
    /// A second variable that must be present for it to matter.
    pub together_with: Option<&'static str>,
    /// When it matters. Unknown counts as yes at submission (no node is known
    /// yet) and as no on the node, where a job is failed on facts only.
    pub when: When,
    /// How bad.
    pub effect: Effect,
    /// What happens.
    pub why: &'static str,
    /// What to do.
    pub fix: &'static str,
    /// Where this is known from.
    pub source: &'static str,
}

const REMOVED_IN_1_19: &str =
    "libfabric 1.19.0 and later calls abort() if this variable exists, whatever its value";
const FORK_ABORT: &str =
    "libfabric calls abort(): before kernel 5.13, huge pages and fork support exclude each other";

/// The rows.
pub const HARMFUL: &[Harmful] = &[
    Harmful {
        variable: "FI_EFA_MTU_SIZE",
        matches: Match::Present,
        together_with: None,
        when: AtLeast(Libfabric, v(1, 19, 0)),
        effect: Effect::Abort,
        why: REMOVED_IN_1_19,
        fix: "unset FI_EFA_MTU_SIZE",
        source: "ofiwg/libfabric prov/efa sources, 1.19.0",
    },
    Harmful {
        variable: "FI_EFA_TX_IOV_LIMIT",
        matches: Match::Present,
        together_with: None,
        when: AtLeast(Libfabric, v(1, 19, 0)),
        effect: Effect::Abort,
        why: REMOVED_IN_1_19,
        fix: "unset FI_EFA_TX_IOV_LIMIT",
        source: "ofiwg/libfabric prov/efa sources, 1.19.0",
    },
    Harmful {
        variable: "FI_EFA_RX_IOV_LIMIT",
        matches: Match::Present,
        together_with: None,
        when: AtLeast(Libfabric, v(1, 19, 0)),
        effect: Effect::Abort,
        why: REMOVED_IN_1_19,
        fix: "unset FI_EFA_RX_IOV_LIMIT",
        source: "ofiwg/libfabric prov/efa sources, 1.19.0",
    },
    Harmful {
        variable: "FI_EFA_IFACE",
        matches: Match::Empty,
        together_with: None,
        when: AtLeast(Libfabric, v(2, 0, 0)),
        effect: Effect::Abort,
        why: "libfabric 2.0 and later calls abort() if this variable is set to nothing",
        fix: "unset FI_EFA_IFACE, or name a device",
        source: "ofiwg/libfabric prov/efa sources, 2.0",
    },
    Harmful {
        variable: "FI_EFA_USE_DEVICE_RDMA",
        matches: Match::True,
        together_with: None,
        when: NoRdmaRead,
        effect: Effect::Abort,
        why: "libfabric calls abort(): the EFA devices of this instance type have no RDMA read",
        fix: "unset FI_EFA_USE_DEVICE_RDMA (libfabric 1.18 and later decides by itself)",
        source: "libfabric fi_efa(7); which types: the instance table, column RDMA read",
    },
    Harmful {
        variable: "FI_EFA_USE_HUGE_PAGE",
        matches: Match::True,
        together_with: Some("FI_EFA_FORK_SAFE"),
        when: Below(Kernel, v(5, 13, 0)),
        effect: Effect::Abort,
        why: FORK_ABORT,
        fix: "unset FI_EFA_USE_HUGE_PAGE",
        source: "ofiwg/libfabric prov/efa sources, 2026",
    },
    Harmful {
        variable: "RDMAV_FORK_SAFE",
        matches: Match::Present,
        together_with: None,
        when: Always,
        effect: Effect::Harm,
        why: "its presence alone, even with the value 0, turns fork support on, which slows registration down",
        fix: "unset RDMAV_FORK_SAFE",
        source: "rdma-core libibverbs sources; the cost was not measured here",
    },
    Harmful {
        variable: "IBV_FORK_SAFE",
        matches: Match::Present,
        together_with: None,
        when: Always,
        effect: Effect::Harm,
        why: "its presence alone, even with the value 0, turns fork support on, which slows registration down",
        fix: "unset IBV_FORK_SAFE",
        source: "rdma-core libibverbs sources; the cost was not measured here",
    },
    Harmful {
        variable: "FI_EFA_DEVICE_NAME",
        matches: Match::Present,
        together_with: None,
        when: Always,
        effect: Effect::Harm,
        why: "libfabric has no such parameter; the value is ignored",
        fix: "use FI_EFA_IFACE (libfabric 2.0 and later)",
        source: "ofiwg/libfabric prov/efa sources, 2026",
    },
    Harmful {
        variable: "NCCL_PROTO",
        matches: Match::Present,
        together_with: None,
        when: All(&[
            AtLeast(AwsOfiNccl, v(1, 5, 1)),
            Below(AwsOfiNccl, v(1, 20, 0)),
        ]),
        effect: Effect::Harm,
        why: "the tuner of aws-ofi-nccl before 1.20.0 can crash when this is set; it is not needed since 1.6",
        fix: "unset NCCL_PROTO",
        source: "aws-ofi-nccl sources, 2026",
    },
    Harmful {
        variable: "NCCL_ALGO",
        matches: Match::Present,
        together_with: None,
        when: Below(AwsOfiNccl, v(1, 20, 0)),
        effect: Effect::Harm,
        why: "the tuner of aws-ofi-nccl before 1.20.0 can crash when this is set",
        fix: "unset NCCL_ALGO",
        source: "aws-ofi-nccl sources, 2026",
    },
    Harmful {
        variable: "OFI_NCCL_RDMA_MIN_POSTED_BOUNCE_BUFFERS",
        matches: Match::Present,
        together_with: None,
        when: Always,
        effect: Effect::Harm,
        why: "aws-ofi-nccl has removed this parameter; the value is ignored",
        fix: "unset it",
        source: "aws-ofi-nccl sources, 2026",
    },
    Harmful {
        variable: "OFI_NCCL_RDMA_MAX_POSTED_BOUNCE_BUFFERS",
        matches: Match::Present,
        together_with: None,
        when: Always,
        effect: Effect::Harm,
        why: "aws-ofi-nccl has removed this parameter; the value is ignored",
        fix: "unset it",
        source: "aws-ofi-nccl sources, 2026",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_reason_and_a_source() {
        for rule in RULES {
            assert!(
                !rule.why.is_empty() && !rule.source.is_empty(),
                "{}",
                rule.variable
            );
        }
        for row in HARMFUL {
            assert!(
                !row.why.is_empty() && !row.fix.is_empty() && !row.source.is_empty(),
                "{}",
                row.variable
            );
        }
    }

    #[test]
    fn no_rule_sets_what_the_other_table_calls_fatal() {
        for rule in RULES {
            let fatal = HARMFUL.iter().any(|row| {
                row.variable == rule.variable
                    && row.effect == Effect::Abort
                    && row.matches == Match::Present
            });
            assert!(!fatal, "{}", rule.variable);
        }
    }
}
