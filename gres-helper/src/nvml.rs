//! The only place that speaks with NVML: safe functions over nvml-wrapper, and
//! over nvml-wrapper-sys for what it lacks.
//!
//! Everything here runs in the agent (see [`gpu::nvml_worker`]), a process that
//! may hang or die: any of NVML's calls can.

use std::ffi::{CString, c_char, c_uint, c_ulonglong};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use host::printable;
use host::trust;
use host::trust::TrustError;
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device as wrapped;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::{Device, EventSet, Nvml};
use nvml_wrapper_sys::bindings as sys;

use gpu::inventory::{
    Answer, Ask, Compute, ComputeMode, Gpu, Health, Instance, Machine, Memory, MigMode,
    MigPlacement, Process, Profile,
};

/// GPUs of a node that are looked at; no machine has more.
const MOST_GPUS: u32 = 64;
/// Instances that one profile can have on a GPU.
const MOST_INSTANCES: usize = 64;
/// Processes of a GPU that are looked at.
const MOST_PROCESSES: usize = 128 * 1024;
/// NVLinks of a GPU (`NVML_NVLINK_MAX_LINKS` is 18; newer models may have more).
const MOST_LINKS: u32 = 36;
/// `NVML_DEVICE_MEMORY_LIMIT_MAX`, the value that stands for no limit, is above any limit.
const NO_LIMIT: u64 = u64::MAX;

/// `nvmlSetMemoryLimits_v1_t` of driver r615 and later.
/// Source: NVML API Reference Guide, structure nvmlSetMemoryLimits_v1_t.
#[repr(C)]
struct SetMemoryLimits {
    name_space: *const c_char,
    soft: c_ulonglong,
    hard: c_ulonglong,
}

/// `nvmlGetMemoryLimits_v1_t`. Source: as above.
#[repr(C)]
struct GetMemoryLimits {
    name_space: *const c_char,
    soft: c_ulonglong,
    hard: c_ulonglong,
    used: c_ulonglong,
}

type Set = unsafe extern "C" fn(sys::nvmlDevice_t, *mut SetMemoryLimits) -> sys::nvmlReturn_t;
type Get = unsafe extern "C" fn(sys::nvmlDevice_t, *mut GetMemoryLimits) -> sys::nvmlReturn_t;

/// The functions that nvml-wrapper-sys does not know.
struct Limits {
    set: Set,
    get: Get,
    // Keeps the code of the two where it is.
    _library: libloading::Library,
}

impl Limits {
    fn load(library: &Path) -> Option<Self> {
        // SAFETY: this library is loaded already; a second handle runs no
        // constructor again.
        let library = unsafe { libloading::Library::new(library) }.ok()?;
        // SAFETY: the type is NVIDIA's documented signature.
        let set = *unsafe { library.get::<Set>(b"nvmlDeviceSetMemoryLimits_v1\0") }.ok()?;
        // SAFETY: as above.
        let get = *unsafe { library.get::<Get>(b"nvmlDeviceGetMemoryLimits_v1\0") }.ok()?;
        Some(Self {
            set,
            get,
            _library: library,
        })
    }
}

/// An open NVML.
pub struct Library {
    nvml: Nvml,
    limits: Option<Limits>,
}

/// Why a call failed, ready to be shown.
type Reason = String;

fn reason(call: &str, error: &NvmlError) -> Reason {
    printable(&format!("{call}: {error}"), 300)
}

/// NVML's code as a result, in nvml-wrapper's words.
fn check(call: &str, code: sys::nvmlReturn_t) -> Result<(), Reason> {
    nvml_wrapper::error::nvml_try(code).map_err(|error| reason(call, &error))
}

/// A function that this driver's library lacks.
fn lacks(call: &str) -> Reason {
    format!("{call}: this driver's library does not have it; a newer driver does")
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

/// The library, if root may load it. A bare name is looked for by the loader,
/// where only root puts libraries. It is judged here, in the child, because a
/// file system that hangs may hang this, too.
fn believed(library: &Path) -> Result<PathBuf, Reason> {
    if library.is_relative() {
        return Ok(library.to_owned());
    }
    match trust::library(library) {
        Ok(real) => Ok(real),
        // The loader's own words for that follow.
        Err(TrustError::Missing { .. }) => Ok(library.to_owned()),
        Err(error) => Err(format!(
            "`nvml_library` in [gres] is not loaded, because {error}"
        )),
    }
}

impl Library {
    /// Loads the library and speaks with the driver.
    ///
    /// # Errors
    /// What is missing.
    pub fn open(library: &Path) -> Result<Self, Reason> {
        let library = &believed(library)?;
        let nvml = Nvml::builder()
            .lib_path(library.as_os_str())
            .init()
            .map_err(|error| match error {
                NvmlError::LibloadingError(_) => format!(
                    "NVML is not there ({}): install NVIDIA's driver, or correct \
                     `nvml_library` in [gres]",
                    printable(&error.to_string(), 200)
                ),
                NvmlError::DriverNotLoaded => {
                    "NVIDIA's driver is not loaded: `modprobe nvidia`, and look into the kernel's \
                     log"
                    .to_owned()
                }
                other => reason("nvmlInit", &other),
            })?;
        let limits = Limits::load(library);
        Ok(Self { nvml, limits })
    }

    /// Carries out one question or order.
    pub fn answer(&self, ask: &Ask, events: &mut Option<EventSet<'_>>) -> Answer {
        let done = |()| Answer::Done;
        let result = match ask {
            Ask::Machine => self.machine(true).map(Answer::Machine),
            Ask::Usage => self.machine(false).map(Answer::Machine),
            Ask::SetComputeMode(gpu, mode) => self.set_compute_mode(gpu, *mode).map(done),
            Ask::SetMigMode(gpu, on) => self.set_mig_mode(gpu, *on).map(Answer::Mode),
            Ask::Profiles(gpu) => self.profiles(gpu).map(Answer::Profiles),
            Ask::Instances(gpu) => self
                .gpu(gpu)
                .and_then(|gpu| self.instances(&gpu))
                .map(Answer::Instances),
            Ask::Create(gpu, profile, place) => {
                self.create(gpu, *profile, *place).map(Answer::Made)
            }
            Ask::CreateCompute(gpu, instance, slices, place) => self
                .create_compute(gpu, *instance, *slices, *place)
                .map(done),
            Ask::DestroyCompute(gpu, instance, compute) => {
                self.destroy_compute(gpu, *instance, *compute).map(done)
            }
            Ask::Destroy(gpu, instance) => self.destroy(gpu, *instance).map(done),
            Ask::Limit(gpu, cgroup, hard) => self.limit(gpu, cgroup, *hard).map(done),
            Ask::Xids(_) => match events {
                Some(events) => self.xids(ask, events).map(Answer::Xids),
                None => Err("XID events were not asked for in time".to_owned()),
            },
        };
        result.unwrap_or_else(Answer::Failed)
    }

    /// Begins to listen for XID errors.
    ///
    /// # Errors
    /// The driver does not offer it.
    pub fn events(&self) -> Result<EventSet<'_>, Reason> {
        let failed = |error: NvmlError| reason("nvmlEventSetCreate", &error);
        let mut events = self.nvml.create_event_set().map_err(failed)?;
        let count = self.nvml.device_count().map_err(failed)?.min(MOST_GPUS);
        for index in 0..count {
            let Ok(gpu) = self.nvml.device_by_index(index) else {
                continue;
            };
            events = gpu
                .register_events(EventTypes::CRITICAL_XID_ERROR, events)
                .map_err(|error| reason("nvmlDeviceRegisterEvents", &error.error))?;
        }
        Ok(events)
    }

    fn xids(&self, ask: &Ask, events: &EventSet<'_>) -> Result<Vec<(String, u64)>, Reason> {
        let Ask::Xids(mut limit) = *ask else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        while found.len() < 1000 {
            match events.wait(limit) {
                Ok(event) => {
                    let uuid = event.device.uuid().unwrap_or_default();
                    if let Some(XidError::Value(xid)) = event.event_data {
                        found.push((printable(&uuid, 80), xid));
                    }
                    // More may have come at the same time; those who wait want
                    // the first.
                    limit = 0;
                }
                Err(NvmlError::Timeout) => break,
                Err(error) => return Err(reason("nvmlEventSetWait", &error)),
            }
        }
        Ok(found)
    }

    fn gpu(&self, uuid: &str) -> Result<Device<'_>, Reason> {
        self.nvml
            .device_by_uuid(uuid)
            .map_err(|error| reason("nvmlDeviceGetHandleByUUID", &error))
    }

    fn machine(&self, all: bool) -> Result<Machine, Reason> {
        let count = self
            .nvml
            .device_count()
            .map_err(|error| reason("nvmlDeviceGetCount", &error))?
            .min(MOST_GPUS);
        let mut gpus: Vec<Gpu> = (0..count).map(|index| self.look(index, all)).collect();
        gpus.sort_by(|a, b| a.pci.cmp(&b.pci));
        let driver = self.nvml.sys_driver_version().unwrap_or_default();
        Ok(Machine {
            driver: printable(&driver, 80),
            can_limit: self.limits.is_some(),
            gpus,
        })
    }

    fn look(&self, index: u32, all: bool) -> Gpu {
        let mut gpu = Gpu {
            index,
            ..Gpu::default()
        };
        let mut trouble = Trouble::default();
        if let Some(device) = trouble.note("handle", self.nvml.device_by_index(index)) {
            let text = |text: Option<String>| printable(&text.unwrap_or_default(), 120);
            gpu.uuid = text(trouble.note("UUID", device.uuid()));
            gpu.minor = trouble.note("minor number", device.minor_number());
            gpu.memory = self.memory(&device, &mut trouble);
            gpu.processes = processes(&device, &mut trouble);
            if all {
                gpu.name = text(trouble.note("name", device.name()));
                let pci = trouble.note("PCI id", device.pci_info());
                gpu.device_id = pci.as_ref().map_or(0, |pci| pci.pci_device_id);
                gpu.pci = text(pci.map(|pci| pci.bus_id));
                self.describe(&device, &mut gpu, &mut trouble);
            }
        }
        gpu.lost = trouble.lost;
        gpu.trouble = trouble.reasons;
        gpu
    }

    fn describe(&self, device: &Device<'_>, gpu: &mut Gpu, trouble: &mut Trouble) {
        gpu.compute_mode =
            trouble
                .note("compute mode", device.compute_mode())
                .map(|mode| match mode {
                    wrapped::ComputeMode::Prohibited => ComputeMode::Prohibited,
                    wrapped::ComputeMode::ExclusiveProcess
                    | wrapped::ComputeMode::ExclusiveThread => ComputeMode::ExclusiveProcess,
                    wrapped::ComputeMode::Default => ComputeMode::Default,
                });
        // 4096 CPUs, in words of 64.
        let words = trouble.offered("CPU affinity", device.cpu_affinity(64));
        gpu.cpus = bits(&words.unwrap_or_default());
        let mode = trouble.offered("MIG mode", device.mig_mode());
        gpu.mig = mode.map(|mode| MigMode {
            current: mode.current == 1,
            pending: mode.pending == 1,
        });
        if gpu.in_mig_mode() {
            match self.instances(device) {
                Ok(instances) => gpu.instances = instances,
                Err(reason) => {
                    gpu.instances_unknown = true;
                    trouble.reasons.push(reason);
                }
            }
        }
        gpu.nvlinks = (0..MOST_LINKS)
            .map_while(|link| {
                let link = device.link_wrapper_for(link);
                let active = link.is_active().ok()?;
                let other = link.remote_pci_info().ok().filter(|_| active);
                Some(other.map(|pci| printable(&pci.bus_id, 40)))
            })
            .flatten()
            .collect();
        gpu.health = self.health(device, trouble);
    }

    fn memory(&self, device: &Device<'_>, trouble: &mut Trouble) -> Option<Memory> {
        match device.memory_info() {
            Ok(memory) => Some(Memory {
                total: mib(memory.total),
                reserved: mib(memory.reserved),
                used: mib(memory.used),
            }),
            // Drivers before r510: there, `used` includes what is reserved.
            Err(NvmlError::FailedToLoadSymbol(_)) => {
                let call = self.nvml.lib().nvmlDeviceGetMemoryInfo.as_ref().ok()?;
                let mut memory = sys::nvmlMemory_t {
                    total: 0,
                    free: 0,
                    used: 0,
                };
                // SAFETY: the handle is NVML's own of an open library.
                let handle = unsafe { device.handle() };
                // SAFETY: nvmlDeviceGetMemoryInfo writes one nvmlMemory_t.
                check("nvmlDeviceGetMemoryInfo", unsafe {
                    call(handle, &raw mut memory)
                })
                .ok()?;
                Some(Memory {
                    total: mib(memory.total),
                    reserved: 0,
                    used: mib(memory.used),
                })
            }
            Err(error) => trouble.note("memory", Err(error)),
        }
    }

    fn health(&self, device: &Device<'_>, trouble: &mut Trouble) -> Health {
        let ecc = device.total_ecc_errors(
            wrapped::MemoryError::Uncorrected,
            wrapped::EccCounter::Volatile,
        );
        let mut health = Health {
            ecc_uncorrected: trouble.offered("ECC errors", ecc),
            retired_pending: trouble.offered("retired pages", device.are_pages_pending_retired()),
            ..Health::default()
        };
        // SAFETY: the handle is NVML's own of an open library.
        let handle = unsafe { device.handle() };
        if let Ok(call) = self.nvml.lib().nvmlDeviceGetRemappedRows.as_ref() {
            let mut numbers: [c_uint; 4] = [0; 4];
            let [corrected, uncorrected, pending, failed] = &mut numbers;
            // SAFETY: nvmlDeviceGetRemappedRows writes four unsigned integers.
            let code = unsafe { call(handle, corrected, uncorrected, pending, failed) };
            let done = trouble.offered("remapped rows", nvml_wrapper::error::nvml_try(code));
            health.remap_pending = done.map(|()| numbers[2] != 0);
            health.remap_failed = done.map(|()| numbers[3] != 0);
        }
        if let Ok(call) = self.nvml.lib().nvmlDeviceGetGpuFabricInfo.as_ref() {
            let mut info = sys::nvmlGpuFabricInfo_t {
                clusterUuid: [0; 16],
                status: 0,
                cliqueId: 0,
                state: 0,
            };
            // SAFETY: nvmlDeviceGetGpuFabricInfo writes one nvmlGpuFabricInfo_t.
            let code = unsafe { call(handle, &raw mut info) };
            let done = trouble.offered("fabric", nvml_wrapper::error::nvml_try(code));
            health.fabric = done.map(|()| info.state);
        }
        let field = FieldId(sys::field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION);
        let values = trouble.offered("recovery action", device.field_values_for(&[field]));
        health.recovery = values
            .and_then(|values| values.into_iter().next()?.ok()?.value.ok())
            .and_then(|value| match value {
                nvml_wrapper::enums::device::SampleValue::U32(value) => Some(value),
                _ => None,
            });
        health
    }

    fn set_compute_mode(&self, gpu: &str, mode: ComputeMode) -> Result<(), Reason> {
        let mode = match mode {
            ComputeMode::Default => wrapped::ComputeMode::Default,
            ComputeMode::Prohibited => wrapped::ComputeMode::Prohibited,
            ComputeMode::ExclusiveProcess => wrapped::ComputeMode::ExclusiveProcess,
        };
        self.gpu(gpu)?
            .set_compute_mode(mode)
            .map_err(|error| reason("nvmlDeviceSetComputeMode", &error))
    }

    fn set_mig_mode(&self, gpu: &str, on: bool) -> Result<bool, Reason> {
        let code = self
            .gpu(gpu)?
            .set_mig_mode(on)
            .map_err(|error| reason("nvmlDeviceSetMigMode", &error))?;
        match code {
            sys::nvmlReturn_enum_NVML_SUCCESS => Ok(true),
            sys::nvmlReturn_enum_NVML_ERROR_RESET_REQUIRED => Ok(false),
            other => check("nvmlDeviceSetMigMode", other).map(|()| true),
        }
    }

    fn profiles(&self, gpu: &str) -> Result<Vec<Profile>, Reason> {
        const CALL: &str = "nvmlDeviceGetGpuInstanceProfileInfoV";
        let device = self.gpu(gpu)?;
        let on = device.mig_mode().is_ok_and(|mode| mode.current == 1);
        // SAFETY: the handle is NVML's own of an open library.
        let handle = unsafe { device.handle() };
        let call = self
            .nvml
            .lib()
            .nvmlDeviceGetGpuInstanceProfileInfoV
            .as_ref();
        let call = call.map_err(|_| lacks(CALL))?;
        let mut profiles = Vec::new();
        for index in 0..sys::NVML_GPU_INSTANCE_PROFILE_COUNT {
            // SAFETY: plain old data, for which all zeros is a valid value.
            let mut info: sys::nvmlGpuInstanceProfileInfo_v2_t = unsafe { std::mem::zeroed() };
            // NVML_STRUCT_VERSION(GpuInstanceProfileInfo, 2)
            let size = size_of::<sys::nvmlGpuInstanceProfileInfo_v2_t>();
            info.version = u32::try_from(size).unwrap_or(0) | (2 << 24);
            // SAFETY: the function writes one structure of the version that it names.
            let code = unsafe { call(handle, index, &raw mut info) };
            match nvml_wrapper::error::nvml_try(code) {
                Ok(()) => {}
                Err(NvmlError::NotSupported | NvmlError::InvalidArg) => continue,
                Err(error) => return Err(reason(CALL, &error)),
            }
            let name: Vec<u8> = info
                .name
                .iter()
                .map(|c| c.to_ne_bytes()[0])
                .take_while(|byte| *byte != 0)
                .collect();
            let name = printable(&String::from_utf8_lossy(&name), 40);
            let places = if on {
                self.places(handle, info.id)?
            } else {
                Vec::new()
            };
            profiles.push(Profile {
                id: info.id,
                name: name.strip_prefix("MIG ").unwrap_or(&name).to_owned(),
                slices: info.sliceCount,
                most: info.instanceCount,
                places,
            });
        }
        Ok(profiles)
    }

    fn places(&self, gpu: sys::nvmlDevice_t, profile: u32) -> Result<Vec<MigPlacement>, Reason> {
        const CALL: &str = "nvmlDeviceGetGpuInstancePossiblePlacements_v2";
        let call = self
            .nvml
            .lib()
            .nvmlDeviceGetGpuInstancePossiblePlacements_v2
            .as_ref();
        let call = call.map_err(|_| lacks(CALL))?;
        let mut count: c_uint = 0;
        // SAFETY: with a null array, only the count is written.
        check(CALL, unsafe {
            call(gpu, profile, ptr::null_mut(), &raw mut count)
        })?;
        let empty = sys::nvmlGpuInstancePlacement_t { start: 0, size: 0 };
        let mut places = vec![empty; (count as usize).clamp(1, MOST_INSTANCES)];
        // SAFETY: the array has room for the count that NVML just gave.
        check(CALL, unsafe {
            call(gpu, profile, places.as_mut_ptr(), &raw mut count)
        })?;
        places.truncate(count as usize);
        let place = |it: sys::nvmlGpuInstancePlacement_t| MigPlacement {
            start: it.start,
            size: it.size,
        };
        Ok(places.into_iter().map(place).collect())
    }

    fn instances(&self, device: &Device<'_>) -> Result<Vec<Instance>, Reason> {
        const LIST: &str = "nvmlDeviceGetGpuInstances";
        const INFO: &str = "nvmlGpuInstanceGetInfo";
        const PROFILE: &str = "nvmlDeviceGetGpuInstanceProfileInfo";
        let lib = self.nvml.lib();
        let list = lib
            .nvmlDeviceGetGpuInstances
            .as_ref()
            .map_err(|_| lacks(LIST))?;
        let info = lib
            .nvmlGpuInstanceGetInfo
            .as_ref()
            .map_err(|_| lacks(INFO))?;
        // SAFETY: the handle is NVML's own of an open library.
        let gpu = unsafe { device.handle() };
        let mut found = Vec::new();
        for id in self
            .profile_ids(gpu)
            .map_err(|error| reason(PROFILE, &error))?
        {
            let mut handles = vec![ptr::null_mut(); MOST_INSTANCES];
            let mut count: c_uint = 0;
            // SAFETY: the array has room for more instances than a profile can have.
            check(LIST, unsafe {
                list(gpu, id, handles.as_mut_ptr(), &raw mut count)
            })?;
            for handle in handles.into_iter().take(count as usize) {
                // SAFETY: plain old data, for which all zeros is a valid value.
                let mut about: sys::nvmlGpuInstanceInfo_t = unsafe { std::mem::zeroed() };
                // SAFETY: NVML just gave this handle, and writes one structure.
                check(INFO, unsafe { info(handle, &raw mut about) })?;
                found.push(Instance {
                    id: about.id,
                    profile: about.profileId,
                    place: MigPlacement {
                        start: about.placement.start,
                        size: about.placement.size,
                    },
                    compute: self.computes(handle)?,
                });
            }
        }
        found.sort_by_key(|instance| instance.place);
        Ok(found)
    }

    /// The ids of the profiles that a GPU offers, by the oldest of the calls.
    fn profile_ids(&self, gpu: sys::nvmlDevice_t) -> Result<Vec<u32>, NvmlError> {
        let lib = self.nvml.lib();
        let mut ids = Vec::new();
        for index in 0..sys::NVML_GPU_INSTANCE_PROFILE_COUNT {
            let (code, id) = if let Ok(call) = lib.nvmlDeviceGetGpuInstanceProfileInfoV.as_ref() {
                // SAFETY: plain old data, for which all zeros is a valid value.
                let mut info: sys::nvmlGpuInstanceProfileInfo_v2_t = unsafe { std::mem::zeroed() };
                let size = size_of::<sys::nvmlGpuInstanceProfileInfo_v2_t>();
                info.version = u32::try_from(size).unwrap_or(0) | (2 << 24);
                // SAFETY: the function writes one structure of the version that it names.
                (unsafe { call(gpu, index, &raw mut info) }, info.id)
            } else {
                let call = lib.nvmlDeviceGetGpuInstanceProfileInfo.as_ref();
                let call =
                    call.map_err(|error| NvmlError::FailedToLoadSymbol(error.to_string()))?;
                // SAFETY: plain old data, for which all zeros is a valid value.
                let mut info: sys::nvmlGpuInstanceProfileInfo_t = unsafe { std::mem::zeroed() };
                // SAFETY: the function writes one such structure.
                (unsafe { call(gpu, index, &raw mut info) }, info.id)
            };
            match nvml_wrapper::error::nvml_try(code) {
                Ok(()) => ids.push(id),
                Err(NvmlError::NotSupported | NvmlError::InvalidArg) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(ids)
    }

    fn computes(&self, instance: sys::nvmlGpuInstance_t) -> Result<Vec<Compute>, Reason> {
        const LIST: &str = "nvmlGpuInstanceGetComputeInstances";
        const INFO: &str = "nvmlComputeInstanceGetInfo_v2";
        let lib = self.nvml.lib();
        let list = lib.nvmlGpuInstanceGetComputeInstances.as_ref();
        let list = list.map_err(|_| lacks(LIST))?;
        let info = lib.nvmlComputeInstanceGetInfo_v2.as_ref();
        let info = info.map_err(|_| lacks(INFO))?;
        let mut found = Vec::new();
        for (id, _) in self.compute_profiles(instance)? {
            let mut handles = vec![ptr::null_mut(); MOST_INSTANCES];
            let mut count: c_uint = 0;
            // SAFETY: the array has room for more instances than a profile can have.
            check(LIST, unsafe {
                list(instance, id, handles.as_mut_ptr(), &raw mut count)
            })?;
            for handle in handles.into_iter().take(count as usize) {
                // SAFETY: plain old data, for which all zeros is a valid value.
                let mut about: sys::nvmlComputeInstanceInfo_t = unsafe { std::mem::zeroed() };
                // SAFETY: NVML just gave this handle, and writes one structure.
                check(INFO, unsafe { info(handle, &raw mut about) })?;
                found.push(Compute {
                    id: about.id,
                    profile: about.profileId,
                    place: MigPlacement {
                        start: about.placement.start,
                        size: about.placement.size,
                    },
                });
            }
        }
        found.sort_by_key(|compute| compute.place);
        Ok(found)
    }

    /// The compute instance profiles of a GPU instance: id and slices.
    fn compute_profiles(
        &self,
        instance: sys::nvmlGpuInstance_t,
    ) -> Result<Vec<(u32, u32)>, Reason> {
        const CALL: &str = "nvmlGpuInstanceGetComputeInstanceProfileInfo";
        let call = self
            .nvml
            .lib()
            .nvmlGpuInstanceGetComputeInstanceProfileInfo
            .as_ref();
        let call = call.map_err(|_| lacks(CALL))?;
        let mut profiles = Vec::new();
        for index in 0..sys::NVML_COMPUTE_INSTANCE_PROFILE_COUNT {
            // SAFETY: plain old data, for which all zeros is a valid value.
            let mut info: sys::nvmlComputeInstanceProfileInfo_t = unsafe { std::mem::zeroed() };
            // SAFETY: a handle that NVML gave; one structure is written. Engine
            // profile 0 is NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED.
            let code = unsafe { call(instance, index, 0, &raw mut info) };
            match nvml_wrapper::error::nvml_try(code) {
                Ok(()) => profiles.push((info.id, info.sliceCount)),
                Err(NvmlError::NotSupported | NvmlError::InvalidArg) => {}
                Err(error) => return Err(reason(CALL, &error)),
            }
        }
        Ok(profiles)
    }

    fn instance(&self, gpu: &str, id: u32) -> Result<sys::nvmlGpuInstance_t, Reason> {
        const CALL: &str = "nvmlDeviceGetGpuInstanceById";
        let device = self.gpu(gpu)?;
        let call = self.nvml.lib().nvmlDeviceGetGpuInstanceById.as_ref();
        let call = call.map_err(|_| lacks(CALL))?;
        let mut instance = ptr::null_mut();
        // SAFETY: the handle is NVML's own of an open library.
        let handle = unsafe { device.handle() };
        // SAFETY: the function writes one handle.
        check(CALL, unsafe { call(handle, id, &raw mut instance) })?;
        Ok(instance)
    }

    fn create(&self, gpu: &str, profile: u32, place: MigPlacement) -> Result<u32, Reason> {
        const CALL: &str = "nvmlDeviceCreateGpuInstanceWithPlacement";
        const INFO: &str = "nvmlGpuInstanceGetInfo";
        let device = self.gpu(gpu)?;
        let lib = self.nvml.lib();
        let call = lib.nvmlDeviceCreateGpuInstanceWithPlacement.as_ref();
        let call = call.map_err(|_| lacks(CALL))?;
        let info = lib
            .nvmlGpuInstanceGetInfo
            .as_ref()
            .map_err(|_| lacks(INFO))?;
        let placement = sys::nvmlGpuInstancePlacement_t {
            start: place.start,
            size: place.size,
        };
        let mut instance = ptr::null_mut();
        // SAFETY: the handle is NVML's own of an open library.
        let handle = unsafe { device.handle() };
        // SAFETY: the placement is only read; one handle is written.
        check(CALL, unsafe {
            call(handle, profile, &raw const placement, &raw mut instance)
        })?;
        // SAFETY: plain old data, for which all zeros is a valid value.
        let mut about: sys::nvmlGpuInstanceInfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: NVML just gave this handle, and writes one structure.
        check(INFO, unsafe { info(instance, &raw mut about) })?;
        Ok(about.id)
    }

    fn create_compute(
        &self,
        gpu: &str,
        instance: u32,
        slices: u32,
        place: Option<MigPlacement>,
    ) -> Result<(), Reason> {
        const CALL: &str = "nvmlGpuInstanceCreateComputeInstance";
        const PLACED: &str = "nvmlGpuInstanceCreateComputeInstanceWithPlacement";
        let instance = self.instance(gpu, instance)?;
        let profiles = self.compute_profiles(instance)?;
        let Some((profile, _)) = profiles.iter().find(|(_, count)| *count == slices) else {
            return Err(format!("no compute instance can have {slices} slices here"));
        };
        let lib = self.nvml.lib();
        let mut compute = ptr::null_mut();
        match place {
            None => {
                let call = lib.nvmlGpuInstanceCreateComputeInstance.as_ref();
                let call = call.map_err(|_| lacks(CALL))?;
                // SAFETY: a handle that NVML gave; one handle is written.
                check(CALL, unsafe { call(instance, *profile, &raw mut compute) })
            }
            Some(place) => {
                let call = lib
                    .nvmlGpuInstanceCreateComputeInstanceWithPlacement
                    .as_ref();
                let call = call.map_err(|_| lacks(PLACED))?;
                let placement = sys::nvmlComputeInstancePlacement_t {
                    start: place.start,
                    size: place.size,
                };
                // SAFETY: as above; the placement is only read.
                check(PLACED, unsafe {
                    call(instance, *profile, &raw const placement, &raw mut compute)
                })
            }
        }
    }

    fn destroy_compute(&self, gpu: &str, instance: u32, compute: u32) -> Result<(), Reason> {
        const FIND: &str = "nvmlGpuInstanceGetComputeInstanceById";
        const CALL: &str = "nvmlComputeInstanceDestroy";
        let lib = self.nvml.lib();
        let instance = self.instance(gpu, instance)?;
        let find = lib.nvmlGpuInstanceGetComputeInstanceById.as_ref();
        let find = find.map_err(|_| lacks(FIND))?;
        let call = lib
            .nvmlComputeInstanceDestroy
            .as_ref()
            .map_err(|_| lacks(CALL))?;
        let mut handle = ptr::null_mut();
        // SAFETY: a handle that NVML gave; one handle is written.
        check(FIND, unsafe { find(instance, compute, &raw mut handle) })?;
        // SAFETY: NVML just gave this handle; it is not used again.
        check(CALL, unsafe { call(handle) })
    }

    fn destroy(&self, gpu: &str, instance: u32) -> Result<(), Reason> {
        const CALL: &str = "nvmlGpuInstanceDestroy";
        let call = self.nvml.lib().nvmlGpuInstanceDestroy.as_ref();
        let call = call.map_err(|_| lacks(CALL))?;
        let instance = self.instance(gpu, instance)?;
        // SAFETY: NVML just gave this handle; it is not used again.
        check(CALL, unsafe { call(instance) })
    }

    fn limit(&self, gpu: &str, cgroup: &Path, hard_mib: u64) -> Result<(), Reason> {
        const SET: &str = "nvmlDeviceSetMemoryLimits_v1";
        const GET: &str = "nvmlDeviceGetMemoryLimits_v1";
        let device = self.gpu(gpu)?;
        let limits = self.limits.as_ref().ok_or_else(|| lacks(SET))?;
        let name = CString::new(cgroup.as_os_str().as_bytes())
            .map_err(|_| "the cgroup's path has a NUL".to_owned())?;
        let hard = hard_mib
            .checked_mul(1 << 20)
            .filter(|hard| *hard < NO_LIMIT);
        let hard = hard.ok_or_else(|| format!("{hard_mib} MiB is no limit"))?;
        let mut wanted = SetMemoryLimits {
            name_space: name.as_ptr(),
            soft: 0,
            hard,
        };
        // SAFETY: the handle is NVML's own of an open library.
        let handle = unsafe { device.handle() };
        // SAFETY: the structure and its string live until the call returns.
        check(SET, unsafe { (limits.set)(handle, &raw mut wanted) })?;
        let mut got = GetMemoryLimits {
            name_space: name.as_ptr(),
            soft: 0,
            hard: 0,
            used: 0,
        };
        // SAFETY: as above.
        check(GET, unsafe { (limits.get)(handle, &raw mut got) })?;
        if got.hard == hard {
            Ok(())
        } else {
            Err(format!(
                "the driver took a limit of {hard_mib} MiB but shows {} MiB",
                mib(got.hard)
            ))
        }
    }
}

/// What went wrong while a GPU was looked at.
#[derive(Default)]
struct Trouble {
    reasons: Vec<String>,
    lost: bool,
}

impl Trouble {
    /// A value that every GPU has.
    fn note<T>(&mut self, what: &str, result: Result<T, NvmlError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.lost |= matches!(error, NvmlError::GpuLost);
                self.reasons.push(reason(what, &error));
                None
            }
        }
    }

    /// A value that models or drivers may lack.
    fn offered<T>(&mut self, what: &str, result: Result<T, NvmlError>) -> Option<T> {
        match result {
            Err(NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_)) => None,
            other => self.note(what, other),
        }
    }
}

fn processes(device: &Device<'_>, trouble: &mut Trouble) -> Vec<Process> {
    let compute = match device.running_compute_processes() {
        Err(NvmlError::FailedToLoadSymbol(_)) => device.running_compute_processes_v2(),
        other => other,
    };
    let compute = trouble.note("processes", compute).unwrap_or_default();
    let mps = trouble.offered("MPS processes", device.mps_running_compute_processes());
    let process = |info: &ProcessInfo, mps| Process {
        pid: host::Pid(info.pid),
        used_mib: match info.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(mib(bytes)),
            UsedGpuMemory::Unavailable => None,
        },
        mps,
    };
    let compute = compute.iter().map(|info| process(info, false));
    let mps = mps.unwrap_or_default();
    let mps = mps.iter().map(|info| process(info, true));
    compute.chain(mps).take(MOST_PROCESSES).collect()
}

/// The numbers of the bits that are set.
fn bits(words: &[std::ffi::c_ulong]) -> Vec<u32> {
    (0..)
        .zip(words)
        .flat_map(|(place, word)| {
            (0..64)
                .filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| place * 64 + bit)
        })
        .collect()
}
