//! What a device says of itself: the models, and the answers to GET_FEATURE.
//!
//! The layout of the answers is known from the kernel's driver. The models' numbers
//! are not known to be AWS's: no EFA was at hand.

use std::fmt;
use std::str::FromStr;

use crate::bytes::Fields;
use crate::counters::CounterSet;
use crate::limits::{Limits, MAX_EVENTS, MAX_RDMA};
use crate::pci;
use crate::queues::Gid;
use crate::status::Status;

/// The devices of an instance type, as far as software sees a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    /// As the command line names it.
    pub name: &'static str,
    /// The PCI device id.
    pub device_id: u16,
    /// RDMA read.
    pub rdma_read: bool,
    /// RDMA write.
    pub rdma_write: bool,
    /// The counters that it has.
    pub counters: CounterSet,
    /// Bytes of a message, and of one packet.
    pub mtu: u32,
}

/// Every model. Sources:
/// - `device_id`: p4d shows 0xefa0 (lspci in aws-ofi-nccl's issue 64). The others
///   are not verified; each has an id of its own, and the kernel's driver of 6.12
///   knows all four.
/// - `rdma_read`, `rdma_write`: Nitro v4 and later have both; p4d reads only, which
///   is why aws-ofi-nccl sends messages there (EC2 guide, EFA, supported types).
/// - `counters`: every model answers for those of the network. The driver that shows
///   them asks every device, and reads no counter at all of one that refuses.
/// - `mtu`: as the driver of 6.12 was run with; the same everywhere.
pub const MODELS: &[Model] = &[
    model("p4d", 0xefa0, false),
    model("p5", 0xefa1, true),
    model("p5en", 0xefa2, true),
    model("p6", 0xefa3, true),
];

const fn model(name: &'static str, device_id: u16, rdma_write: bool) -> Model {
    Model {
        name,
        device_id,
        rdma_read: true,
        rdma_write,
        counters: CounterSet::Network,
        mtu: 8928,
    }
}

impl FromStr for Model {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = MODELS.iter().find(|model| model.name == text);
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
            format!("unknown model; use one of {}", names.join(", "))
        })
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

// Features by id.
const DEVICE: u8 = 1;
const AENQ: u8 = 2;
const NETWORK: u8 = 3;
const QUEUES: u8 = 4;
const HINTS: u8 = 5;
pub(crate) const HOST: u8 = 6;
const EVENT_QUEUES: u8 = 7;

/// One device, as it describes itself.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) model: Model,
    pub(crate) number: u16,
    pub(crate) vectors: u16,
    /// The GUID that it claims to have, if that is not its own.
    pub(crate) claimed_guid: Option<u64>,
}

impl Identity {
    /// The address on the fabric: link-local, with the device's number.
    pub(crate) fn gid(&self) -> Gid {
        let mut gid = [0; 16];
        gid[..2].copy_from_slice(&[0xfe, 0x80]);
        gid[8..14].copy_from_slice(&[0x08, 0xef, 0xa0, 0xff, 0xfe, 0]);
        gid[14..].copy_from_slice(&self.number.to_be_bytes());
        gid
    }

    /// The number of event queues: every vector but the first has one.
    pub(crate) fn event_queues(&self) -> u16 {
        self.vectors.saturating_sub(1)
    }

    /// The answer to GET_FEATURE.
    pub(crate) fn feature(&self, id: u8, limits: &Limits) -> Result<Vec<u8>, Status> {
        Ok(match id {
            DEVICE => self.device(),
            AENQ => Fields::default().u32(0x1e).u32(0x1e).done(),
            NETWORK => {
                let address = Fields::default().bytes(&self.gid());
                address.u32(self.model.mtu).done()
            }
            QUEUES => queues(limits),
            // The driver's own time limits.
            HINTS => vec![0; 8],
            EVENT_QUEUES => {
                let number = Fields::default().u32(u32::from(self.event_queues()));
                // Events: completions.
                number.u32(MAX_EVENTS).u32(1).done()
            }
            _ => return Err(Status::ILLEGAL_PARAMETER),
        })
    }

    fn device(&self) -> Vec<u8> {
        const RDMA_READ: u32 = 1;
        const RNR_RETRY: u32 = 1 << 1;
        const RDMA_WRITE: u32 = 1 << 3;
        let when = |has: bool, bit: u32| if has { bit } else { 0 };
        let capabilities = RNR_RETRY
            | when(self.model.rdma_read, RDMA_READ)
            | when(self.model.rdma_write, RDMA_WRITE);
        let features = [DEVICE, AENQ, NETWORK, QUEUES, HINTS, HOST, EVENT_QUEUES];
        let own = 0x0efa_0000_0000_0000_u64 | u64::from(self.number);
        let guid = self.claimed_guid.unwrap_or(own);
        Fields::default()
            .u64(features.iter().map(|id| 1 << id).sum())
            // Page sizes of a registration: 4 KiB up to 2 GiB.
            .u64(0xffff_f000)
            // Firmware, admin interface, device.
            .u32(0x00_01_02_03)
            .u32(1)
            .u32(u32::from(self.model.device_id))
            .u16(pci::DOORBELLS as u16)
            // Bits of physical and of virtual addresses.
            .u8(48)
            .u8(48)
            .u32(capabilities)
            .u32(MAX_RDMA)
            .u64(guid.to_be())
            .done()
    }
}

fn queues(limits: &Limits) -> Vec<u8> {
    Fields::default()
        .u32(limits.pairs)
        .u32(limits.send_depth)
        .u32(limits.inline)
        .u32(limits.receive_depth)
        .u32(limits.completion_queues)
        .u32(limits.completion_depth)
        // Sub-queues of a completion queue, least depth of a send queue, buffers
        // of a send and of a receive.
        .u16(1)
        .u16(16)
        .u16(2)
        .u16(1)
        .u32(limits.regions)
        .u32(limits.pages)
        .u32(limits.domains)
        .u32(limits.handles)
        .u32(limits.send_depth * 64)
        // Buffers of an RDMA transfer; any number of sends before a doorbell.
        .u16(1)
        .u16(0)
        .done()
}
