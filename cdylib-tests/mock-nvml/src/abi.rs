//! The exported functions, with the signatures of `nvml.h` as nvml-wrapper-sys
//! binds them. Handles are numbers, never addresses: nothing is behind them.
//!
//! Every function answers with one of NVML's codes.

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulong, c_ulonglong};
use std::ptr;

use nvml_wrapper_sys::bindings as b;

use crate::machine::{Gpu, Machine};
use crate::mig::{COMPUTE_SLICES, Compute, Instance, PROFILES, Profile, fits};
use crate::store::{Body, call};

type Code = b::nvmlReturn_t;

const INVALID_ARGUMENT: u32 = 2;
const NOT_SUPPORTED: u32 = 3;
const NO_PERMISSION: u32 = 4;
const NOT_FOUND: u32 = 6;
const INSUFFICIENT_SIZE: u32 = 7;
const TIMEOUT: u32 = 10;
const IN_USE: u32 = 19;
const INSUFFICIENT_RESOURCES: u32 = 23;

// Handles, as numbers: GPU g is 1 + g; its MIG device m is 1000 + 100 g + m;
// GPU instance i is 10,000 + 100 g + i; compute instance c of it is
// 1,000,000 + 10,000 g + 100 i + c.
fn handle<T>(number: usize) -> *mut T {
    ptr::without_provenance_mut(number)
}

fn gpu_of(device: b::nvmlDevice_t) -> Option<usize> {
    match device.addr() {
        0 => None,
        number @ 1..1000 => Some(number - 1),
        number => Some((number - 1000) / 100),
    }
}

fn mig_of(device: b::nvmlDevice_t) -> Option<usize> {
    (device.addr() >= 1000).then(|| device.addr() % 100)
}

fn instance_of(instance: b::nvmlGpuInstance_t) -> (usize, u32) {
    let number = instance.addr().saturating_sub(10_000);
    (
        number / 100,
        u32::try_from(number % 100).unwrap_or(u32::MAX),
    )
}

fn compute_of(compute: b::nvmlComputeInstance_t) -> (usize, u32, u32) {
    let number = compute.addr().saturating_sub(1_000_000);
    let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    (
        number / 10_000,
        small(number / 100 % 100),
        small(number % 100),
    )
}

fn instance_handle(gpu: usize, instance: u32) -> b::nvmlGpuInstance_t {
    handle(10_000 + 100 * gpu + instance as usize)
}

fn compute_handle(gpu: usize, instance: u32, compute: u32) -> b::nvmlComputeInstance_t {
    handle(1_000_000 + 10_000 * gpu + 100 * instance as usize + compute as usize)
}

/// Writes a result, if the caller gave a place for it.
fn put<T>(place: *mut T, value: T) -> Result<(), u32> {
    if place.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: NVML's caller gives an aligned place for one value.
    unsafe { place.write(value) };
    Ok(())
}

/// Writes text and its NUL.
fn put_text(place: *mut c_char, length: c_uint, bytes: &[u8]) -> Result<(), u32> {
    if place.is_null() || (length as usize) <= bytes.len() {
        return Err(INSUFFICIENT_SIZE);
    }
    // SAFETY: the caller gives `length` bytes, which is more than the text has.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr().cast(), place, bytes.len()) };
    // SAFETY: as above: this is at most the last byte.
    let end = unsafe { place.add(bytes.len()) };
    // SAFETY: as above.
    unsafe { end.write(0) };
    Ok(())
}

/// Writes a list by NVML's rule: too short a place tells the count needed.
fn put_list<T: Copy>(place: *mut T, count: *mut c_uint, list: &[T]) -> Result<(), u32> {
    if count.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: not null, and the caller's to be read.
    let room = unsafe { count.read() } as usize;
    put(count, u32::try_from(list.len()).unwrap_or(u32::MAX))?;
    if list.is_empty() {
        return Ok(());
    }
    if place.is_null() || room < list.len() {
        return Err(INSUFFICIENT_SIZE);
    }
    // SAFETY: the caller gives room for `room` values.
    unsafe { ptr::copy_nonoverlapping(list.as_ptr(), place, list.len()) };
    Ok(())
}

/// As [`put_list`] for calls that are given no size: the caller made room.
fn put_all<T: Copy>(place: *mut T, count: *mut c_uint, list: &[T]) -> Result<(), u32> {
    put(count, u32::try_from(list.len()).unwrap_or(u32::MAX))?;
    if place.is_null() || list.is_empty() {
        return Ok(());
    }
    // SAFETY: NVML's contract: the caller has room for the profile's instanceCount.
    unsafe { ptr::copy_nonoverlapping(list.as_ptr(), place, list.len()) };
    Ok(())
}

fn text_of(name: &str) -> Vec<u8> {
    // A machine's file is UTF-8; a char below 256 stands for that byte.
    name.chars()
        .flat_map(|c| match u8::try_from(u32::from(c)) {
            Ok(byte) => vec![byte],
            Err(_) => c.to_string().into_bytes(),
        })
        .collect()
}

fn look(
    function: &str,
    device: b::nvmlDevice_t,
    mut body: impl FnMut(&Gpu) -> Result<(), u32>,
) -> Code {
    let Some(gpu) = gpu_of(device) else {
        return INVALID_ARGUMENT;
    };
    let mut look = |machine: &Machine| body(machine.gpus.get(gpu).ok_or(INVALID_ARGUMENT)?);
    call(function, Some(gpu), Body::Look(&mut look))
}

/// A change, which NVML allows root alone.
fn change(
    function: &str,
    gpu: Option<usize>,
    mut body: impl FnMut(&mut Gpu) -> Result<(), u32>,
) -> Code {
    let Some(gpu) = gpu else {
        return INVALID_ARGUMENT;
    };
    // SAFETY: geteuid takes nothing and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    let mut change = |machine: &mut Machine| {
        if !root {
            return Err(NO_PERMISSION);
        }
        body(machine.gpus.get_mut(gpu).ok_or(INVALID_ARGUMENT)?)
    };
    call(function, Some(gpu), Body::Change(&mut change))
}

/// Functions of a device that only look: `name(device, arguments) |gpu| body`.
macro_rules! queries {
    ($($name:ident($device:ident $(, $argument:ident: $kind:ty)*) |$gpu:ident| $body:expr;)+) => {
        $(
            #[unsafe(no_mangle)]
            pub extern "C" fn $name($device: b::nvmlDevice_t $(, $argument: $kind)*) -> Code {
                look(stringify!($name), $device, |$gpu| $body)
            }
        )+
    };
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> Code {
    call("nvmlInit_v2", None, Body::Look(&mut |_| Ok(())))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInitWithFlags(_flags: c_uint) -> Code {
    call("nvmlInitWithFlags", None, Body::Look(&mut |_| Ok(())))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> Code {
    0
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlErrorString(_code: Code) -> *const c_char {
    c"an error of the mock".as_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> Code {
    let mut body = |machine: &Machine| put_text(version, length, machine.driver.as_bytes());
    call("nvmlSystemGetDriverVersion", None, Body::Look(&mut body))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> Code {
    let mut body = |_: &Machine| put(version, 12080);
    call(
        "nvmlSystemGetCudaDriverVersion_v2",
        None,
        Body::Look(&mut body),
    )
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> Code {
    let mut body =
        |machine: &Machine| put(count, u32::try_from(machine.gpus.len()).unwrap_or(u32::MAX));
    call("nvmlDeviceGetCount_v2", None, Body::Look(&mut body))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetHandleByIndex_v2(
    index: c_uint,
    device: *mut b::nvmlDevice_t,
) -> Code {
    let mut body = |machine: &Machine| {
        machine.gpus.get(index as usize).ok_or(INVALID_ARGUMENT)?;
        put(device, handle(index as usize + 1))
    };
    let gpu = Some(index as usize);
    call("nvmlDeviceGetHandleByIndex_v2", gpu, Body::Look(&mut body))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetHandleByUUID(
    uuid: *const c_char,
    device: *mut b::nvmlDevice_t,
) -> Code {
    if uuid.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, and NVML's caller gives a NUL-terminated string.
    let wanted = unsafe { CStr::from_ptr(uuid) }.to_bytes();
    let mut body = |machine: &Machine| {
        let found = machine
            .gpus
            .iter()
            .position(|gpu| gpu.uuid.as_bytes() == wanted);
        put(device, handle(found.ok_or(NOT_FOUND)? + 1))
    };
    call("nvmlDeviceGetHandleByUUID", None, Body::Look(&mut body))
}

queries! {
    nvmlDeviceGetUUID(device, uuid: *mut c_char, length: c_uint) |gpu| match mig_of(device) {
        None => put_text(uuid, length, gpu.uuid.as_bytes()),
        Some(index) => {
            let (instance, compute) = mig_devices(gpu).get(index).copied().ok_or(NOT_FOUND)?;
            let text = format!("MIG-{}-{instance}-{compute}", gpu.uuid.trim_start_matches("GPU-"));
            put_text(uuid, length, text.as_bytes())
        }
    };
    nvmlDeviceGetMinorNumber(device, minor: *mut c_uint) |gpu| put(minor, gpu.minor);
    nvmlDeviceGetName(device, name: *mut c_char, length: c_uint) |gpu| {
        put_text(name, length, &text_of(&gpu.name))
    };
    nvmlDeviceGetPciInfo_v3(device, info: *mut b::nvmlPciInfo_t) |gpu| put(info, pci(&gpu.pci));
    nvmlDeviceGetMemoryInfo_v2(device, info: *mut b::nvmlMemory_v2_t) |gpu| {
        let used = used_mib(gpu);
        let mib = |mib: u64| mib << 20;
        put(info, b::nvmlMemory_v2_t {
            version: 0,
            total: mib(gpu.memory_mib),
            reserved: mib(gpu.reserved_mib),
            free: mib(gpu.memory_mib.saturating_sub(gpu.reserved_mib + used)),
            used: mib(used),
        })
    };
    nvmlDeviceGetMemoryInfo(device, info: *mut b::nvmlMemory_t) |gpu| {
        let used = used_mib(gpu) + gpu.reserved_mib;
        put(info, b::nvmlMemory_t {
            total: gpu.memory_mib << 20,
            free: gpu.memory_mib.saturating_sub(used) << 20,
            used: used << 20,
        })
    };
    nvmlDeviceGetComputeMode(device, mode: *mut b::nvmlComputeMode_t) |gpu| {
        put(mode, gpu.compute_mode)
    };
    nvmlDeviceGetMigMode(device, current: *mut c_uint, pending: *mut c_uint) |gpu| {
        let mode = gpu.mig.ok_or(NOT_SUPPORTED)?;
        put(current, mode.into())?;
        put(pending, gpu.mig_pending.unwrap_or(mode).into())
    };
    nvmlDeviceGetMaxMigDeviceCount(device, count: *mut c_uint) |gpu| {
        put(count, if gpu.mig.is_some() { 7 } else { 0 })
    };
    nvmlDeviceGetMigDeviceHandleByIndex(device, index: c_uint, mig: *mut b::nvmlDevice_t) |gpu| {
        mig_devices(gpu).get(index as usize).ok_or(NOT_FOUND)?;
        let parent = gpu_of(device).ok_or(INVALID_ARGUMENT)?;
        put(mig, handle(1000 + 100 * parent + index as usize))
    };
    nvmlDeviceGetGpuInstanceId(device, id: *mut c_uint) |gpu| {
        let index = mig_of(device).ok_or(NOT_SUPPORTED)?;
        put(id, mig_devices(gpu).get(index).ok_or(NOT_FOUND)?.0)
    };
    nvmlDeviceGetComputeInstanceId(device, id: *mut c_uint) |gpu| {
        let index = mig_of(device).ok_or(NOT_SUPPORTED)?;
        put(id, mig_devices(gpu).get(index).ok_or(NOT_FOUND)?.1)
    };
    nvmlDeviceGetCpuAffinityWithinScope(
        device, size: c_uint, set: *mut c_ulong, _scope: b::nvmlAffinityScope_t
    ) |gpu| affinity(gpu, size, set);
    nvmlDeviceGetCpuAffinity(device, size: c_uint, set: *mut c_ulong) |gpu| affinity(gpu, size, set);
    nvmlDeviceGetTotalEccErrors(
        device, kind: b::nvmlMemoryErrorType_t, _counter: b::nvmlEccCounterType_t,
        count: *mut c_ulonglong
    ) |gpu| {
        let uncorrected = gpu.ecc_uncorrected.ok_or(NOT_SUPPORTED)?;
        // NVML_MEMORY_ERROR_TYPE_UNCORRECTED is 1.
        put(count, if kind == 1 { uncorrected } else { 0 })
    };
    nvmlDeviceGetRetiredPagesPendingStatus(device, pending: *mut b::nvmlEnableState_t) |gpu| {
        // Ampere and later remap rows instead.
        if gpu.remapped.is_some() && !gpu.retired_pending {
            return Err(NOT_SUPPORTED);
        }
        put(pending, gpu.retired_pending.into())
    };
    nvmlDeviceGetRemappedRows(
        device, corrected: *mut c_uint, uncorrected: *mut c_uint, pending: *mut c_uint,
        failed: *mut c_uint
    ) |gpu| {
        let rows = gpu.remapped.ok_or(NOT_SUPPORTED)?;
        put(corrected, rows.0)?;
        put(uncorrected, rows.1)?;
        put(pending, rows.2.into())?;
        put(failed, rows.3.into())
    };
    nvmlDeviceGetGpuFabricInfo(device, info: *mut b::nvmlGpuFabricInfo_t) |gpu| {
        put(info, b::nvmlGpuFabricInfo_t {
            clusterUuid: [0; 16],
            status: 0,
            cliqueId: 0,
            state: gpu.fabric,
        })
    };
    nvmlDeviceGetFieldValues(device, count: c_int, values: *mut b::nvmlFieldValue_t) |gpu| {
        for index in 0..usize::try_from(count).unwrap_or(0) {
            // SAFETY: the caller gives `count` values.
            let value = unsafe { values.add(index) };
            // SAFETY: as above; it stays the caller's until this call returns.
            let value = unsafe { &mut *value };
            value.nvmlReturn = NOT_SUPPORTED;
            if value.fieldId == b::field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION {
                value.nvmlReturn = 0;
                value.valueType = b::nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT;
                value.value.uiVal = gpu.recovery;
            }
        }
        Ok(())
    };
    nvmlDeviceGetComputeRunningProcesses_v3(
        device, count: *mut c_uint, infos: *mut b::nvmlProcessInfo_t
    ) |gpu| put_list(infos, count, &processes(gpu, false));
    nvmlDeviceGetComputeRunningProcesses_v2(
        device, count: *mut c_uint, infos: *mut b::nvmlProcessInfo_t
    ) |gpu| put_list(infos, count, &processes(gpu, false));
    nvmlDeviceGetMPSComputeRunningProcesses_v3(
        device, count: *mut c_uint, infos: *mut b::nvmlProcessInfo_t
    ) |gpu| put_list(infos, count, &processes(gpu, true));
    nvmlDeviceGetNvLinkState(device, link: c_uint, state: *mut b::nvmlEnableState_t) |gpu| {
        gpu.nvlinks.get(link as usize).ok_or(INVALID_ARGUMENT)?;
        put(state, 1)
    };
    nvmlDeviceGetGpuInstanceProfileInfoV(
        device, index: c_uint, info: *mut b::nvmlGpuInstanceProfileInfo_v2_t
    ) |gpu| {
        gpu.mig.ok_or(NOT_SUPPORTED)?;
        if index >= b::NVML_GPU_INSTANCE_PROFILE_COUNT {
            return Err(INVALID_ARGUMENT);
        }
        let profile = PROFILES.iter().find(|p| p.index == index).ok_or(NOT_SUPPORTED)?;
        let name = profile.name(&gpu.name).ok_or(NOT_SUPPORTED)?;
        // NVML's own names of the v2 structure begin with "MIG ".
        let name = format!("MIG {name}");
        let mut text = [0; 96];
        for (to, from) in text.iter_mut().zip(name.bytes()) {
            *to = c_char::try_from(from).unwrap_or(b'?' as c_char);
        }
        put(info, b::nvmlGpuInstanceProfileInfo_v2_t {
            version: 0,
            id: profile.id,
            isP2pSupported: 0,
            sliceCount: profile.slices,
            instanceCount: match profile.media {
                true => 1,
                false => u32::try_from(profile.starts.len()).unwrap_or(0),
            },
            multiprocessorCount: profile.slices * 14,
            copyEngineCount: 1,
            decoderCount: 0,
            encoderCount: 0,
            jpegCount: 0,
            ofaCount: 0,
            memorySizeMB: gpu.memory_mib * u64::from(profile.size) / 8,
            name: text,
        })
    };
    nvmlDeviceGetGpuInstancePossiblePlacements_v2(
        device, profile: c_uint, placements: *mut b::nvmlGpuInstancePlacement_t, count: *mut c_uint
    ) |gpu| {
        gpu.mig.filter(|on| *on).ok_or(NOT_SUPPORTED)?;
        let profile = Profile::of(profile).ok_or(INVALID_ARGUMENT)?;
        let all: Vec<_> = profile
            .starts
            .iter()
            .map(|start| b::nvmlGpuInstancePlacement_t { start: *start, size: profile.size })
            .collect();
        put_all(placements, count, &all)
    };
    nvmlDeviceGetGpuInstances(
        device, profile: c_uint, instances: *mut b::nvmlGpuInstance_t, count: *mut c_uint
    ) |gpu| {
        let index = gpu_of(device).ok_or(INVALID_ARGUMENT)?;
        let all: Vec<_> = gpu
            .instances
            .iter()
            .filter(|instance| instance.profile == profile)
            .map(|instance| instance_handle(index, instance.id))
            .collect();
        put_all(instances, count, &all)
    };
    nvmlDeviceGetGpuInstanceById(device, id: c_uint, instance: *mut b::nvmlGpuInstance_t) |gpu| {
        gpu.instances.iter().find(|one| one.id == id).ok_or(NOT_FOUND)?;
        put(instance, instance_handle(gpu_of(device).ok_or(INVALID_ARGUMENT)?, id))
    };
}

fn pci(id: &str) -> b::nvmlPciInfo_t {
    let mut numbers = id
        .split([':', '.'])
        .map(|part| u32::from_str_radix(part, 16).unwrap_or(0));
    let mut bus_id = [0; 32];
    let mut legacy = [0; 16];
    for (place, byte) in id.bytes().take(31).enumerate() {
        bus_id[place] = byte.cast_signed() as c_char;
    }
    for (place, byte) in id.bytes().skip(4).take(15).enumerate() {
        legacy[place] = byte.cast_signed() as c_char;
    }
    b::nvmlPciInfo_t {
        busIdLegacy: legacy,
        domain: numbers.next().unwrap_or(0),
        bus: numbers.next().unwrap_or(0),
        device: numbers.next().unwrap_or(0),
        pciDeviceId: 0x2330_10de,
        pciSubSystemId: 0,
        busId: bus_id,
    }
}

fn used_mib(gpu: &Gpu) -> u64 {
    gpu.processes
        .iter()
        .filter_map(|process| process.used_mib)
        .sum()
}

fn affinity(gpu: &Gpu, size: c_uint, set: *mut c_ulong) -> Result<(), u32> {
    let mut words = vec![0; size as usize];
    for cpu in &gpu.cpus {
        let word = words.get_mut(*cpu as usize / 64).ok_or(INSUFFICIENT_SIZE)?;
        *word |= 1 << (cpu % 64);
    }
    if set.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: the caller gives `size` words.
    unsafe { ptr::copy_nonoverlapping(words.as_ptr(), set, words.len()) };
    Ok(())
}

fn processes(gpu: &Gpu, mps: bool) -> Vec<b::nvmlProcessInfo_t> {
    gpu.processes
        .iter()
        .filter(|process| process.mps == mps)
        .map(|process| b::nvmlProcessInfo_t {
            pid: process.pid,
            usedGpuMemory: process.used_mib.map_or(u64::MAX, |mib| mib << 20),
            gpuInstanceId: process.instance.map_or(u32::MAX, |it| it.0),
            computeInstanceId: process.instance.map_or(u32::MAX, |it| it.1),
        })
        .collect()
}

/// The MIG devices: each compute instance is one.
fn mig_devices(gpu: &Gpu) -> Vec<(u32, u32)> {
    gpu.instances
        .iter()
        .flat_map(|instance| instance.compute.iter().map(|one| (instance.id, one.id)))
        .collect()
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetNvLinkRemotePciInfo_v2(
    device: b::nvmlDevice_t,
    link: c_uint,
    info: *mut b::nvmlPciInfo_t,
) -> Code {
    let Some(gpu) = gpu_of(device) else {
        return INVALID_ARGUMENT;
    };
    let mut body = |machine: &Machine| {
        let this = machine.gpus.get(gpu).ok_or(INVALID_ARGUMENT)?;
        let other = this.nvlinks.get(link as usize).ok_or(INVALID_ARGUMENT)?;
        put(
            info,
            pci(&machine.gpus.get(*other).ok_or(INVALID_ARGUMENT)?.pci),
        )
    };
    call(
        "nvmlDeviceGetNvLinkRemotePciInfo_v2",
        Some(gpu),
        Body::Look(&mut body),
    )
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceSetComputeMode(
    device: b::nvmlDevice_t,
    mode: b::nvmlComputeMode_t,
) -> Code {
    change("nvmlDeviceSetComputeMode", gpu_of(device), |gpu| {
        // 1, EXCLUSIVE_THREAD, is gone from present drivers.
        if !matches!(mode, 0 | 2 | 3) {
            return Err(NOT_SUPPORTED);
        }
        gpu.compute_mode = mode;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceSetMigMode(
    device: b::nvmlDevice_t,
    mode: c_uint,
    activation: *mut Code,
) -> Code {
    change("nvmlDeviceSetMigMode", gpu_of(device), |gpu| {
        gpu.mig.ok_or(NOT_SUPPORTED)?;
        if !gpu.instances.is_empty() || !gpu.processes.is_empty() {
            return put(activation, IN_USE);
        }
        if gpu.mig_needs_reset {
            gpu.mig_pending = Some(mode == 1);
            // NVML_ERROR_RESET_REQUIRED
            return put(activation, 16);
        }
        gpu.mig = Some(mode == 1);
        put(activation, 0)
    })
}

fn create(
    function: &str,
    device: b::nvmlDevice_t,
    profile: c_uint,
    start: Option<u32>,
    instance: *mut b::nvmlGpuInstance_t,
) -> Code {
    let Some(index) = gpu_of(device) else {
        return INVALID_ARGUMENT;
    };
    change(function, Some(index), |gpu| {
        gpu.mig.filter(|on| *on).ok_or(NOT_SUPPORTED)?;
        let profile = Profile::of(profile).ok_or(INVALID_ARGUMENT)?;
        let starts = start.map_or(profile.starts.to_vec(), |start| vec![start]);
        let start = starts
            .into_iter()
            .find(|start| fits(&gpu.instances, profile, *start))
            .ok_or(INSUFFICIENT_RESOURCES)?;
        // The driver gives the lowest free number from 1 on (0 to the whole GPU).
        let first = u32::from(profile.id != 0);
        let id = (first..)
            .find(|id| gpu.instances.iter().all(|one| one.id != *id))
            .ok_or(INSUFFICIENT_RESOURCES)?;
        gpu.instances.push(Instance {
            id,
            profile: profile.id,
            start,
            compute: Vec::new(),
        });
        put(instance, instance_handle(index, id))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceCreateGpuInstance(
    device: b::nvmlDevice_t,
    profile: c_uint,
    instance: *mut b::nvmlGpuInstance_t,
) -> Code {
    create(
        "nvmlDeviceCreateGpuInstance",
        device,
        profile,
        None,
        instance,
    )
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceCreateGpuInstanceWithPlacement(
    device: b::nvmlDevice_t,
    profile: c_uint,
    placement: *const b::nvmlGpuInstancePlacement_t,
    instance: *mut b::nvmlGpuInstance_t,
) -> Code {
    if placement.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, and the caller's to be read.
    let start = unsafe { placement.read() }.start;
    create(
        "nvmlDeviceCreateGpuInstanceWithPlacement",
        device,
        profile,
        Some(start),
        instance,
    )
}

fn with_instance(
    function: &str,
    instance: b::nvmlGpuInstance_t,
    mut body: impl FnMut(usize, &Instance) -> Result<(), u32>,
) -> Code {
    let (index, id) = instance_of(instance);
    look(function, handle(index + 1), |gpu| {
        body(
            index,
            gpu.instances
                .iter()
                .find(|one| one.id == id)
                .ok_or(NOT_FOUND)?,
        )
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpuInstanceGetInfo(
    instance: b::nvmlGpuInstance_t,
    info: *mut b::nvmlGpuInstanceInfo_t,
) -> Code {
    with_instance("nvmlGpuInstanceGetInfo", instance, |gpu, one| {
        let size = Profile::of(one.profile).ok_or(NOT_FOUND)?.size;
        put(
            info,
            b::nvmlGpuInstanceInfo_t {
                device: handle(gpu + 1),
                id: one.id,
                profileId: one.profile,
                placement: b::nvmlGpuInstancePlacement_t {
                    start: one.start,
                    size,
                },
            },
        )
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpuInstanceDestroy(instance: b::nvmlGpuInstance_t) -> Code {
    let (index, id) = instance_of(instance);
    change("nvmlGpuInstanceDestroy", Some(index), |gpu| {
        let place = gpu
            .instances
            .iter()
            .position(|one| one.id == id)
            .ok_or(NOT_FOUND)?;
        if !gpu.instances[place].compute.is_empty() {
            return Err(IN_USE);
        }
        gpu.instances.remove(place);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpuInstanceGetComputeInstanceProfileInfo(
    instance: b::nvmlGpuInstance_t,
    profile: c_uint,
    _engine: c_uint,
    info: *mut b::nvmlComputeInstanceProfileInfo_t,
) -> Code {
    with_instance(
        "nvmlGpuInstanceGetComputeInstanceProfileInfo",
        instance,
        |_, one| {
            let slices = *COMPUTE_SLICES.get(profile as usize).ok_or(NOT_SUPPORTED)?;
            let all = Profile::of(one.profile).ok_or(NOT_FOUND)?.slices;
            if slices > all {
                return Err(NOT_SUPPORTED);
            }
            put(
                info,
                b::nvmlComputeInstanceProfileInfo_t {
                    id: profile,
                    sliceCount: slices,
                    instanceCount: all / slices,
                    multiprocessorCount: slices * 14,
                    sharedCopyEngineCount: 1,
                    sharedDecoderCount: 0,
                    sharedEncoderCount: 0,
                    sharedJpegCount: 0,
                    sharedOfaCount: 0,
                },
            )
        },
    )
}

fn create_compute(
    function: &str,
    instance: b::nvmlGpuInstance_t,
    profile: c_uint,
    start: Option<u32>,
    compute: *mut b::nvmlComputeInstance_t,
) -> Code {
    let (index, id) = instance_of(instance);
    change(function, Some(index), |gpu| {
        let one = gpu
            .instances
            .iter_mut()
            .find(|one| one.id == id)
            .ok_or(NOT_FOUND)?;
        let slices = *COMPUTE_SLICES
            .get(profile as usize)
            .ok_or(INVALID_ARGUMENT)?;
        let all = Profile::of(one.profile).ok_or(NOT_FOUND)?.slices;
        let free = |start: &u32| {
            start + slices <= all
                && one.compute.iter().all(|other| {
                    start + slices <= other.start || other.start + other.slices() <= *start
                })
        };
        let mut starts = start.map_or(0..all, |start| start..start + 1);
        let start = starts.find(free).ok_or(INSUFFICIENT_RESOURCES)?;
        let new = (0..)
            .find(|id| one.compute.iter().all(|other| other.id != *id))
            .ok_or(INSUFFICIENT_RESOURCES)?;
        one.compute.push(Compute {
            id: new,
            profile,
            start,
        });
        put(compute, compute_handle(index, id, new))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpuInstanceCreateComputeInstance(
    instance: b::nvmlGpuInstance_t,
    profile: c_uint,
    compute: *mut b::nvmlComputeInstance_t,
) -> Code {
    create_compute(
        "nvmlGpuInstanceCreateComputeInstance",
        instance,
        profile,
        None,
        compute,
    )
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpuInstanceCreateComputeInstanceWithPlacement(
    instance: b::nvmlGpuInstance_t,
    profile: c_uint,
    placement: *const b::nvmlComputeInstancePlacement_t,
    compute: *mut b::nvmlComputeInstance_t,
) -> Code {
    if placement.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, and the caller's to be read.
    let start = unsafe { placement.read() }.start;
    create_compute(
        "nvmlGpuInstanceCreateComputeInstanceWithPlacement",
        instance,
        profile,
        Some(start),
        compute,
    )
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpuInstanceGetComputeInstances(
    instance: b::nvmlGpuInstance_t,
    profile: c_uint,
    computes: *mut b::nvmlComputeInstance_t,
    count: *mut c_uint,
) -> Code {
    with_instance(
        "nvmlGpuInstanceGetComputeInstances",
        instance,
        |gpu, one| {
            let all: Vec<_> = one
                .compute
                .iter()
                .filter(|compute| compute.profile == profile)
                .map(|compute| compute_handle(gpu, one.id, compute.id))
                .collect();
            put_all(computes, count, &all)
        },
    )
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlGpuInstanceGetComputeInstanceById(
    instance: b::nvmlGpuInstance_t,
    id: c_uint,
    compute: *mut b::nvmlComputeInstance_t,
) -> Code {
    with_instance(
        "nvmlGpuInstanceGetComputeInstanceById",
        instance,
        |gpu, one| {
            one.compute.iter().find(|it| it.id == id).ok_or(NOT_FOUND)?;
            put(compute, compute_handle(gpu, one.id, id))
        },
    )
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlComputeInstanceGetInfo_v2(
    compute: b::nvmlComputeInstance_t,
    info: *mut b::nvmlComputeInstanceInfo_t,
) -> Code {
    let (index, instance, id) = compute_of(compute);
    let parent = instance_handle(index, instance);
    with_instance("nvmlComputeInstanceGetInfo_v2", parent, |gpu, one| {
        let found = one.compute.iter().find(|it| it.id == id).ok_or(NOT_FOUND)?;
        put(
            info,
            b::nvmlComputeInstanceInfo_t {
                device: handle(gpu + 1),
                gpuInstance: parent,
                id,
                profileId: found.profile,
                placement: b::nvmlComputeInstancePlacement_t {
                    start: found.start,
                    size: found.slices(),
                },
            },
        )
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlComputeInstanceDestroy(compute: b::nvmlComputeInstance_t) -> Code {
    let (index, instance, id) = compute_of(compute);
    change("nvmlComputeInstanceDestroy", Some(index), |gpu| {
        let busy = gpu
            .processes
            .iter()
            .any(|it| it.instance == Some((instance, id)));
        if busy {
            return Err(IN_USE);
        }
        let parent = gpu
            .instances
            .iter_mut()
            .find(|one| one.id == instance)
            .ok_or(NOT_FOUND)?;
        let place = parent
            .compute
            .iter()
            .position(|it| it.id == id)
            .ok_or(NOT_FOUND)?;
        parent.compute.remove(place);
        Ok(())
    })
}

/// `nvmlSetMemoryLimits_v1_t`; source: NVML API reference of driver r615.
#[repr(C)]
pub struct SetMemoryLimits {
    pub name_space: *const c_char,
    pub soft: c_ulonglong,
    pub hard: c_ulonglong,
}

/// `nvmlGetMemoryLimits_v1_t`; source: as above.
#[repr(C)]
pub struct GetMemoryLimits {
    pub name_space: *const c_char,
    pub soft: c_ulonglong,
    pub hard: c_ulonglong,
    pub used: c_ulonglong,
}

fn directory(name: *const c_char) -> Result<String, u32> {
    if name.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: not null, and the caller gives a NUL-terminated path.
    let name = unsafe { CStr::from_ptr(name) }
        .to_string_lossy()
        .into_owned();
    // NVML opens the cgroup's directory.
    if std::path::Path::new(&name).is_dir() {
        Ok(name)
    } else {
        Err(NOT_FOUND)
    }
}

/// # Safety
/// `limits` is null or points to one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceSetMemoryLimits_v1(
    device: b::nvmlDevice_t,
    limits: *mut SetMemoryLimits,
) -> Code {
    if limits.is_null() || mig_of(device).is_some() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, so it is one, by this function's contract.
    let limits = unsafe { limits.read() };
    change("nvmlDeviceSetMemoryLimits_v1", gpu_of(device), |gpu| {
        let name = directory(limits.name_space)?;
        gpu.limits.retain(|limit| limit.0 != name);
        gpu.limits.push((name, limits.soft, limits.hard));
        Ok(())
    })
}

/// # Safety
/// `limits` is null or points to one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryLimits_v1(
    device: b::nvmlDevice_t,
    limits: *mut GetMemoryLimits,
) -> Code {
    if limits.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: not null, so it is one that the caller lends until this returns.
    let limits = unsafe { &mut *limits };
    let name = directory(limits.name_space);
    look("nvmlDeviceGetMemoryLimits_v1", device, |gpu| {
        let name = name.clone()?;
        let found = gpu.limits.iter().find(|limit| limit.0 == name);
        (limits.soft, limits.hard) = found.map_or((0, u64::MAX), |limit| (limit.1, limit.2));
        limits.used = 0;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetCreate(set: *mut b::nvmlEventSet_t) -> Code {
    let mut body = |_: &Machine| put(set, handle(1));
    call("nvmlEventSetCreate", None, Body::Look(&mut body))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceRegisterEvents(
    device: b::nvmlDevice_t,
    _types: c_ulonglong,
    _set: b::nvmlEventSet_t,
) -> Code {
    look("nvmlDeviceRegisterEvents", device, |_| Ok(()))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetWait_v2(
    _set: b::nvmlEventSet_t,
    data: *mut b::nvmlEventData_t,
    milliseconds: c_uint,
) -> Code {
    let mut left = milliseconds;
    loop {
        let mut seen = None;
        let mut look = |machine: &Machine| {
            seen = machine.xids.first().copied();
            Ok(())
        };
        let code = call("nvmlEventSetWait_v2", None, Body::Look(&mut look));
        if code != 0 {
            return code;
        }
        if let Some((gpu, xid)) = seen {
            let mut take = |machine: &mut Machine| {
                machine.xids.retain(|one| *one != (gpu, xid));
                put(
                    data,
                    b::nvmlEventData_t {
                        device: handle(gpu + 1),
                        eventType: b::nvmlEventTypeXidCriticalError.into(),
                        eventData: xid,
                        gpuInstanceId: u32::MAX,
                        computeInstanceId: u32::MAX,
                    },
                )
            };
            return call("nvmlEventSetWait_v2", None, Body::Change(&mut take));
        }
        if left == 0 {
            return TIMEOUT;
        }
        let nap = left.min(20);
        std::thread::sleep(std::time::Duration::from_millis(nap.into()));
        left -= nap;
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetFree(_set: b::nvmlEventSet_t) -> Code {
    0
}
