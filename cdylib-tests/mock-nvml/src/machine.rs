//! What a machine is.

use serde::{Deserialize, Serialize};

use crate::mig::Instance;

/// A machine with its GPUs and driver, in PCI order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The driver's version.
    pub driver: String,
    /// Whether the kernel module is there.
    pub loaded: bool,
    /// The GPUs.
    pub gpus: Vec<Gpu>,
    /// What shall fail.
    pub faults: Vec<Fault>,
    /// XID errors that nobody has been told of: GPU and number.
    pub xids: Vec<(usize, u64)>,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// The product's name; bytes above ASCII as Latin-1, to be able not to be UTF-8.
    pub name: String,
    /// `GPU-…`.
    pub uuid: String,
    /// `00000000:53:00.0`.
    pub pci: String,
    /// The number in `/dev/nvidia<minor>`.
    pub minor: u32,
    /// MiB.
    pub memory_mib: u64,
    /// Of that, what the driver keeps, MiB.
    pub reserved_mib: u64,
    /// `NVML_COMPUTEMODE_*`.
    pub compute_mode: u32,
    /// Uncorrected ECC errors since the driver was loaded; `None`: no ECC.
    pub ecc_uncorrected: Option<u64>,
    /// Fallen off the bus: every call says so.
    pub lost: bool,
    /// The OS' CPUs near it.
    pub cpus: Vec<u32>,
    /// Rows remapped: corrected, uncorrected, pending, failed; `None`: the model does not.
    pub remapped: Option<(u32, u32, bool, bool)>,
    /// Pages that wait for a reset to be retired.
    pub retired_pending: bool,
    /// `NVML_GPU_RECOVERY_ACTION_*`.
    pub recovery: u32,
    /// `NVML_GPU_FABRIC_STATE_*`.
    pub fabric: u8,
    /// For each NVLink, the GPU at its other end.
    pub nvlinks: Vec<usize>,
    /// `None`: the model has no MIG; else whether it is on.
    pub mig: Option<bool>,
    /// The mode after the next reset, if it differs.
    pub mig_pending: Option<bool>,
    /// Whether a change of the mode waits for a reset, as on A100.
    pub mig_needs_reset: bool,
    /// GPU instances.
    pub instances: Vec<Instance>,
    /// What runs on it.
    pub processes: Vec<Process>,
    /// Limits of cgroups: directory, soft and hard in bytes.
    pub limits: Vec<(String, u64, u64)>,
}

/// A process with a compute context.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// MiB that it holds; `None`: NVML cannot tell.
    pub used_mib: Option<u64>,
    /// A client of MPS.
    pub mps: bool,
    /// GPU instance and compute instance, if it is on one.
    pub instance: Option<(u32, u32)>,
}

/// A call that shall fail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// The function, or `*`.
    pub function: String,
    /// Only of this GPU.
    pub gpu: Option<usize>,
    /// The how-manieth such call of one process, from 1: once, then the fault
    /// is gone. 0: each.
    pub call: u32,
    /// NVML's code; 0 hangs.
    pub code: u32,
}

/// `NVML_ERROR_UNKNOWN`.
pub const UNKNOWN: u32 = 999;
/// `NVML_ERROR_GPU_IS_LOST`.
pub const LOST: u32 = 15;

impl Gpu {
    fn new(name: &str, index: u32, memory_mib: u64) -> Gpu {
        Gpu {
            name: name.to_owned(),
            uuid: format!("GPU-{index:08x}-5eed-4a11-8000-{index:012x}"),
            pci: format!("00000000:{:02X}:00.0", 0x10 + index * 8),
            minor: index,
            memory_mib,
            reserved_mib: 600,
            compute_mode: 0,
            ecc_uncorrected: Some(0),
            lost: false,
            cpus: Vec::new(),
            remapped: Some((0, 0, false, false)),
            retired_pending: false,
            recovery: 0,
            fabric: 0,
            nvlinks: Vec::new(),
            mig: Some(false),
            mig_pending: None,
            mig_needs_reset: false,
            instances: Vec::new(),
            processes: Vec::new(),
            limits: Vec::new(),
        }
    }
}

/// Names of the models and what each is: GPU's name, memory in MiB, count,
/// whether MIG, whether a fabric.
const MODELS: &[(&str, &str, u64, u32, bool, bool)] = &[
    ("8xA100", "NVIDIA A100-SXM4-40GB", 40_960, 8, true, false),
    ("8xH100", "NVIDIA H100 80GB HBM3", 81_559, 8, true, true),
    ("8xH200", "NVIDIA H200", 143_771, 8, true, true),
    ("8xB200", "NVIDIA B200", 183_359, 8, true, true),
    ("4xL40S", "NVIDIA L40S", 46_068, 4, false, false),
    ("A10G", "NVIDIA A10G", 23_028, 1, false, false),
    ("12xL40S", "NVIDIA L40S", 46_068, 12, false, false),
    ("H100", "NVIDIA H100 80GB HBM3", 81_559, 1, true, false),
];

impl Machine {
    /// A model by name: those of the table, or `mixed`, two L40S and two H100.
    /// Its GPUs are spread evenly over the CPUs `0..cpus`.
    pub fn model(name: &str, cpus: u32) -> Option<Machine> {
        let mut gpus: Vec<Gpu> = if name == "mixed" {
            let kind = |index| match index {
                0 | 1 => ("NVIDIA L40S", 46_068),
                _ => ("NVIDIA H100 80GB HBM3", 81_559),
            };
            (0..4)
                .map(|index| {
                    let (name, memory) = kind(index);
                    let mut gpu = Gpu::new(name, index, memory);
                    gpu.mig = name.contains("H100").then_some(false);
                    gpu
                })
                .collect()
        } else {
            let (_, kind, memory, count, mig, fabric) =
                MODELS.iter().find(|model| model.0 == name)?;
            (0..*count)
                .map(|index| {
                    let mut gpu = Gpu::new(kind, index, *memory);
                    gpu.mig = mig.then_some(false);
                    gpu.mig_needs_reset = kind.contains("A100");
                    gpu.fabric = if *fabric { 3 } else { 0 };
                    gpu
                })
                .collect()
        };
        let count = u32::try_from(gpus.len()).unwrap_or(1);
        let halves = if count > 1 { 2 } else { 1 };
        for (index, gpu) in (0..).zip(&mut gpus) {
            let half = index * halves / count;
            gpu.cpus = (cpus * half / halves..cpus * (half + 1) / halves).collect();
        }
        Some(Machine {
            driver: "570.133.20".to_owned(),
            loaded: true,
            gpus,
            faults: Vec::new(),
            xids: Vec::new(),
        })
    }

    /// Names that [`Machine::model`] knows.
    pub fn models() -> impl Iterator<Item = &'static str> {
        MODELS.iter().map(|model| model.0).chain(["mixed"])
    }
}
