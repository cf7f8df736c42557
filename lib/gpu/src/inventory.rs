//! The GPUs of a node, as one look at NVML showed them, and what can be asked
//! of the process that speaks with NVML.
//!
//! Every text in here came from a driver and has passed [`host::printable`].

use host::Pid;
use serde::{Deserialize, Serialize};

/// All GPUs, in PCI order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The driver's version.
    pub driver: String,
    /// Whether the library can limit a cgroup's memory (driver r615 and later).
    pub can_limit: bool,
    /// The GPUs.
    pub gpus: Vec<Gpu>,
}

/// A GPU. What NVML would not tell is `None`, and `trouble` has the reason.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Gpu {
    /// NVML's index.
    pub index: u32,
    /// `GPU-…`; empty where NVML does not tell.
    pub uuid: String,
    /// The product's name.
    pub name: String,
    /// `00000000:53:00.0`.
    pub pci: String,
    /// PCI device and vendor, as `0x233010DE`; 0 where NVML does not tell.
    pub device_id: u32,
    /// The number in `/dev/nvidia<minor>`.
    pub minor: Option<u32>,
    /// Memory.
    pub memory: Option<Memory>,
    /// See [`ComputeMode`].
    pub compute_mode: Option<ComputeMode>,
    /// The OS' CPUs near it; empty where NVML does not tell.
    pub cpus: Vec<u32>,
    /// The PCI ids at the other ends of its NVLinks.
    pub nvlinks: Vec<String>,
    /// MIG, if the model has it.
    pub mig: Option<MigMode>,
    /// Its GPU instances.
    pub instances: Vec<Instance>,
    /// They could not be listed: that there are none says nothing.
    pub instances_unknown: bool,
    /// What is known of its health.
    pub health: Health,
    /// Processes with a compute context.
    pub processes: Vec<Process>,
    /// Why something is missing above.
    pub trouble: Vec<String>,
    /// It has fallen off the bus.
    pub lost: bool,
}

/// Memory of a GPU, MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What the driver keeps for itself.
    pub reserved: u64,
    /// What processes hold.
    pub used: u64,
}

/// Who may use a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ComputeMode {
    /// Any number of processes.
    Default,
    /// Nobody.
    Prohibited,
    /// One process: under MPS, its server.
    ExclusiveProcess,
}

/// Whether MIG is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigMode {
    /// Now.
    pub current: bool,
    /// After the next reset.
    pub pending: bool,
}

/// What speaks for or against a GPU. `None`: the model or driver does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Health {
    /// Uncorrected ECC errors since the driver was loaded.
    pub ecc_uncorrected: Option<u64>,
    /// Remapped rows wait for a reset.
    pub remap_pending: Option<bool>,
    /// A row could not be remapped.
    pub remap_failed: Option<bool>,
    /// Pages wait for a reset to be retired (models before Ampere).
    pub retired_pending: Option<bool>,
    /// `NVML_GPU_RECOVERY_ACTION_*`: 0 none, 1 reset, 2 reboot, 3 drain P2P,
    /// 4 drain and reset.
    pub recovery: Option<u32>,
    /// `NVML_GPU_FABRIC_STATE_*`: 0 not supported, 1 not started, 2 in
    /// progress, 3 completed.
    pub fabric: Option<u8>,
}

/// A process with a compute context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: Pid,
    /// MiB that it holds, without managed memory; `None`: NVML cannot tell.
    pub used_mib: Option<u64>,
    /// A client of MPS.
    pub mps: bool,
}

/// A GPU instance of MIG.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id on the GPU; another one when it is made anew.
    pub id: u32,
    /// Its profile's id.
    pub profile: u32,
    /// Its place.
    pub place: MigPlacement,
    /// Its compute instances, in order of their places.
    pub compute: Vec<Compute>,
}

/// A compute instance of MIG.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compute {
    /// Its id in the GPU instance.
    pub id: u32,
    /// Its profile's id.
    pub profile: u32,
    /// Its place in the GPU instance.
    pub place: MigPlacement,
}

/// A range of slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MigPlacement {
    /// The first.
    pub start: u32,
    /// How many.
    pub size: u32,
}

/// A GPU instance profile that a GPU offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The id that NVML's other calls take.
    pub id: u32,
    /// NVIDIA's name, e.g. `1g.10gb+me`.
    pub name: String,
    /// Compute slices.
    pub slices: u32,
    /// How many of them fit on the GPU.
    pub most: u32,
    /// Where it can be; empty while MIG is off.
    pub places: Vec<MigPlacement>,
}

/// A question or an order to the process that speaks with NVML. A GPU is named
/// by its UUID: an index changes when another GPU is lost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Ask {
    /// Everything: [`Answer::Machine`].
    Machine,
    /// Processes and memory alone: [`Answer::Machine`] with little in it.
    Usage,
    /// [`Answer::Done`].
    SetComputeMode(String, ComputeMode),
    /// [`Answer::Mode`]: whether it is in force at once.
    SetMigMode(String, bool),
    /// The profiles that a GPU offers: [`Answer::Profiles`].
    Profiles(String),
    /// What is on a GPU now: [`Answer::Instances`].
    Instances(String),
    /// Makes a GPU instance of this profile here: [`Answer::Made`].
    Create(String, u32, MigPlacement),
    /// Makes a compute instance of so many slices in a GPU instance, here or
    /// wherever is room: [`Answer::Done`].
    CreateCompute(String, u32, u32, Option<MigPlacement>),
    /// Ends a compute instance of a GPU instance: [`Answer::Done`].
    DestroyCompute(String, u32, u32),
    /// Ends a GPU instance: [`Answer::Done`].
    Destroy(String, u32),
    /// Limits a cgroup's memory on a GPU to so many MiB, and reads it back:
    /// [`Answer::Done`].
    Limit(String, std::path::PathBuf, u64),
    /// XID errors since the last such question, waiting for so many
    /// milliseconds at most: [`Answer::Xids`].
    Xids(u32),
}

/// What the process that speaks with NVML says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// See [`Ask::Machine`].
    Machine(Machine),
    /// It is done.
    Done,
    /// See [`Ask::SetMigMode`].
    Mode(bool),
    /// See [`Ask::Profiles`].
    Profiles(Vec<Profile>),
    /// See [`Ask::Instances`].
    Instances(Vec<Instance>),
    /// The new GPU instance's id.
    Made(u32),
    /// UUID and number of each.
    Xids(Vec<(String, u64)>),
    /// It failed, and why.
    Failed(String),
    /// There is no NVML to speak with, and why.
    NoNvml(String),
}

impl Machine {
    /// The GPU with this minor number.
    #[must_use]
    pub fn by_minor(&self, minor: u32) -> Option<&Gpu> {
        self.gpus.iter().find(|gpu| gpu.minor == Some(minor))
    }
}

impl Gpu {
    /// Whether it is divided by MIG now.
    #[must_use]
    pub fn in_mig_mode(&self) -> bool {
        self.mig.is_some_and(|mode| mode.current)
    }

    /// How messages call it.
    #[must_use]
    pub fn label(&self) -> String {
        match self.minor {
            Some(minor) => format!("GPU {} (/dev/nvidia{minor})", self.index),
            None => format!("GPU {}", self.index),
        }
    }
}
