//! The plugin's options, as `--help` shows them.

use spank::{Argument, OptionSpec};

/// The plugin's options, in the order of their indices.
pub const OPTIONS: &[OptionSpec; 3] = &[
    OptionSpec {
        name: c"efa-profile",
        value_name: Some(c"name"),
        usage: c"EFA and NCCL environment of an instance family (p5), a type (p5.48xlarge), the node's own (auto), a site's profile, or none; srun --efa-profile=list shows them all",
        argument: Argument::Required,
    },
    OptionSpec {
        name: c"efa-explain",
        value_name: Some(c"all"),
        usage: c"print on the step's stderr what the EFA profile set, what it left alone and why (first node; \"all\": every node)",
        argument: Argument::Optional,
    },
    OptionSpec {
        name: c"efa-hugepages",
        value_name: Some(c"size"),
        usage: c"hugepages reserved for the job on each node: 512M, 10G, auto (as AWS computes it), or none",
        argument: Argument::Required,
    },
];

/// The place of `--efa-profile` in [`OPTIONS`].
pub const PROFILE: usize = 0;
/// The place of `--efa-explain` in [`OPTIONS`].
pub const EXPLAIN: usize = 1;
/// The place of `--efa-hugepages` in [`OPTIONS`].
pub const HUGEPAGES: usize = 2;
