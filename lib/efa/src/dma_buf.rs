//! Whether NCCL's GPUDirect goes by dma-buf on this node. Then the driver's
//! `p2p` attribute does not matter: it names who serves the older way.
//!
//! aws-ofi-nccl decides so when it starts, by the rules below. They are from its
//! pull requests 848 (dma-buf is the default, except on the first three
//! generations of EFA) and 1245 (on these too, since 1.19.2).

use host::Sysroot;

use crate::instance_types::Accelerator;
use crate::software::{Found, Stack};
use crate::version::Version;

/// `FI_MR_DMABUF` came with it.
const LIBFABRIC: Version = Version::new(1, 20, 0);
/// libibverbs registers dma-bufs with it.
const KERNEL: Version = Version::new(5, 12, 0);
/// dma-buf is the default with the fourth generation of EFA and later. 1.14 and
/// 1.15 had it in some releases; from this one on it is certain.
const PLUGIN: Version = Version::new(1, 16, 0);
/// dma-buf is the default with every generation.
const PLUGIN_OLD_EFA: Version = Version::new(1, 19, 2);
/// The PCI device id of the fourth generation.
const FOURTH_GENERATION: u16 = 0xefa3;

/// What the driver of NVIDIA's GPUs says of itself.
const NVIDIA_VERSION: &str = "proc/driver/nvidia/version";

/// Whether GPUDirect goes by dma-buf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DmaBuf {
    /// It does.
    Used,
    /// It does not, and why.
    NotUsed(String),
    /// Not known, and why.
    Unknown(String),
}

/// What decides about dma-buf, besides the EFA device.
#[derive(Debug)]
pub struct Software {
    stack: Stack,
    /// NVIDIA's kernel module is the open one, which alone exports dma-bufs;
    /// `None` where that could not be read.
    open_module: Option<bool>,
}

impl Software {
    /// Reads what is installed on the node.
    #[must_use]
    pub fn probe(sysroot: &Sysroot) -> Self {
        let version = sysroot.read_bounded(NVIDIA_VERSION, 4096).ok();
        Self {
            stack: Stack::probe(sysroot),
            open_module: version.map(|text| text.contains("Open Kernel Module")),
        }
    }

    /// What holds for an EFA device with this PCI device id.
    #[must_use]
    pub fn dma_buf(&self, accelerator: Accelerator, device_id: u16) -> DmaBuf {
        let plugin = if device_id >= FOURTH_GENERATION {
            PLUGIN
        } else {
            PLUGIN_OLD_EFA
        };
        let needed = [
            ("libfabric", &self.stack.libfabric, LIBFABRIC),
            ("the kernel", &self.stack.kernel, KERNEL),
            ("aws-ofi-nccl", &self.stack.aws_ofi_nccl, plugin),
        ];
        let is_nvidia = matches!(accelerator, Accelerator::Nvidia { .. });
        if is_nvidia && self.open_module == Some(false) {
            let reason = "NVIDIA's kernel module is not the open one";
            return DmaBuf::NotUsed(reason.to_owned());
        }
        let old = |(name, found, least): &(&str, &Option<Found>, Version)| {
            let found = found.as_ref().filter(|found| found.version < *least)?;
            Some(format!("{name} {} is older than {least}", found.raw))
        };
        if let Some(reason) = needed.iter().find_map(old) {
            return DmaBuf::NotUsed(reason);
        }
        if let Some((name, ..)) = needed.iter().find(|(_, found, _)| found.is_none()) {
            return DmaBuf::Unknown(format!("no version of {name} was found"));
        }
        if is_nvidia && self.open_module.is_none() {
            return DmaBuf::Unknown(format!("/{NVIDIA_VERSION} cannot be read"));
        }
        DmaBuf::Used
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const GPU: Accelerator = Accelerator::Nvidia {
        name: "B200",
        count: 8,
    };

    /// A node with these versions of libfabric, kernel and aws-ofi-nccl, and this
    /// text about NVIDIA's kernel module.
    fn node(versions: [&str; 3], module: &str) -> Software {
        let dir = tempfile::tempdir().unwrap();
        let put = |rel: &str, text: &str| {
            let path = dir.path().join(rel);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let [libfabric, kernel, plugin] = versions;
        let pc = format!("Version: {libfabric}\n");
        put("opt/amazon/efa/lib/pkgconfig/libfabric.pc", &pc);
        put("proc/sys/kernel/osrelease", kernel);
        let banner = format!("NET/OFI Initializing aws-ofi-nccl {plugin}\n\0");
        put("opt/aws-ofi-nccl/lib/libnccl-net.so", &banner);
        if !module.is_empty() {
            put(NVIDIA_VERSION, module);
        }
        Software::probe(&Sysroot::new(dir.path().into()))
    }

    const OPEN: &str = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15\n";
    const CLOSED: &str = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15\n";
    const NEW: [&str; 3] = ["2.1.0amzn5.0", "6.8.0-1029-aws", "1.19.2"];

    #[test]
    fn a_new_stack_uses_dma_buf_on_every_generation_of_efa() {
        for id in [0xefa0, 0xefa2, 0xefa3, 0xefa4] {
            assert_eq!(node(NEW, OPEN).dma_buf(GPU, id), DmaBuf::Used, "{id:x}");
        }
    }

    #[test]
    fn a_plugin_before_1_19_2_uses_dma_buf_from_the_fourth_generation_of_efa_on() {
        let node = node([NEW[0], NEW[1], "1.16.0"], OPEN);
        assert_eq!(node.dma_buf(GPU, 0xefa3), DmaBuf::Used);
        let reason = "aws-ofi-nccl 1.16.0 is older than 1.19.2";
        assert_eq!(node.dma_buf(GPU, 0xefa2), DmaBuf::NotUsed(reason.into()));
    }

    #[test]
    fn one_part_that_is_too_old_rules_dma_buf_out() {
        for versions in [
            ["1.19.0", NEW[1], NEW[2]],
            [NEW[0], "5.10.167-147.601.amzn2.x86_64", NEW[2]],
            [NEW[0], NEW[1], "1.15.9"],
        ] {
            let found = node(versions, OPEN).dma_buf(GPU, 0xefa3);
            assert!(matches!(found, DmaBuf::NotUsed(_)), "{versions:?}");
        }
    }

    #[test]
    fn nvidias_closed_kernel_module_has_no_dma_buf() {
        let found = node(NEW, CLOSED).dma_buf(GPU, 0xefa3);
        assert!(matches!(found, DmaBuf::NotUsed(_)), "{found:?}");
    }

    #[test]
    fn what_cannot_be_read_proves_nothing() {
        let found = node(NEW, "").dma_buf(GPU, 0xefa3);
        assert!(matches!(found, DmaBuf::Unknown(_)), "{found:?}");
        let empty = tempfile::tempdir().unwrap();
        let bare = Software::probe(&Sysroot::new(empty.path().into()));
        let found = bare.dma_buf(GPU, 0xefa3);
        assert!(matches!(found, DmaBuf::Unknown(_)), "{found:?}");
    }
}
