//! The EFA devices of a node, from sysfs.

use std::cmp::Ordering;
use std::ops::Deref;

use host::{ReadError, Sysroot};

/// Where the kernel lists RDMA devices, below the sysroot.
pub const CLASS: &str = "sys/class/infiniband";

/// Amazon's PCI vendor id.
pub const VENDOR: u16 = 0x1d0f;

/// One EFA device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The kernel's name, e.g. `rdmap16s27` or `efa_0`.
    pub name: String,
    /// `domain:bus:device.function`, e.g. `0000:10:1b.0`.
    pub pci_address: Option<String>,
    /// PCI device id, `0xefa0` and up.
    pub device_id: u16,
    /// NUMA node; `None` where the platform does not say (the kernel's -1).
    pub numa_node: Option<i32>,
    /// Whether the driver found a peer-to-peer provider (GPUDirect);
    /// `None` where the driver has no readable `p2p` attribute.
    pub has_p2p: Option<bool>,
}

/// The EFA devices in natural order of their names, and what could not be told.
/// Behaves as a slice of [`Device`].
#[derive(Debug, Default)]
pub struct Devices {
    /// The EFA devices, `efa_2` before `efa_10`.
    pub devices: Vec<Device>,
    /// RDMA devices whose vendor or device id could not be read: each might
    /// be an EFA device. Name and reason.
    pub skipped: Vec<(String, ReadError)>,
}

impl Deref for Devices {
    type Target = [Device];

    fn deref(&self) -> &[Device] {
        &self.devices
    }
}

/// An RDMA device that is an EFA device, and where it is.
#[derive(Debug, Clone)]
struct Identified {
    name: String,
    device_id: u16,
    pci_address: Option<String>,
}

/// EFA devices of which no two are at one PCI address. Of a device that is listed
/// twice the first name counts: counted twice, another one that is gone would not
/// be missed, and its traffic would be doubled.
///
/// Only the address makes two entries one device. An all-zero GUID, for one, is
/// normal on a g4dn.
#[derive(Debug, Default)]
struct Distinct(Vec<Identified>);

impl Distinct {
    /// Adds a device; its other name, if it is there already.
    fn add(&mut self, device: Identified) -> Result<(), &str> {
        let address = device.pci_address.as_ref();
        let is_twin =
            |known: &Identified| address.is_some() && known.pci_address.as_ref() == address;
        match self.0.iter().position(is_twin) {
            Some(twin) => Err(&self.0[twin].name),
            None => {
                self.0.push(device);
                Ok(())
            }
        }
    }
}

/// The EFA devices, and the RDMA devices that were left out though they may be
/// one: name and reason.
fn identify(sysroot: &Sysroot) -> Result<(Distinct, Vec<(String, ReadError)>), ReadError> {
    let (mut found, mut skipped) = (Distinct::default(), Vec::new());
    for name in rdma_names(sysroot)? {
        match identified(sysroot, &name) {
            Ok(None) => {}
            Ok(Some(device)) => {
                if let Err(twin) = found.add(device) {
                    let reason = ReadError::Unexpected {
                        path: sysroot.path(&attribute(&name, "")),
                        expected: "a PCI device that no other entry has",
                        found: format!("that of {twin}"),
                    };
                    skipped.push((name, reason));
                }
            }
            Err(reason) => skipped.push((name, reason)),
        }
    }
    Ok((found, skipped))
}

fn identified(sysroot: &Sysroot, name: &str) -> Result<Option<Identified>, ReadError> {
    let id = efa_device_id(sysroot, name)?;
    Ok(id.map(|device_id| Identified {
        name: name.to_owned(),
        device_id,
        pci_address: pci_address(sysroot, name),
    }))
}

/// Every EFA device. Other RDMA devices, such as the NVLink controllers of a
/// p6-b200, are left out by vendor and device id.
///
/// # Errors
/// The list itself could not be read. A node without RDMA devices is not an
/// error: it has none.
pub fn devices(sysroot: &Sysroot) -> Result<Devices, ReadError> {
    let (found, skipped) = identify(sysroot)?;
    let devices = found.0.into_iter();
    Ok(Devices {
        devices: devices.map(|device| describe(sysroot, device)).collect(),
        skipped,
    })
}

/// How many EFA devices there are. Reads only what that takes; a device whose
/// ids cannot be read does not count (see [`devices`] for its reason).
///
/// # Errors
/// As [`devices`].
pub fn count(sysroot: &Sysroot) -> Result<usize, ReadError> {
    let (found, _) = identify(sysroot)?;
    Ok(found.0.len())
}

/// The names of the EFA devices, in natural order.
#[derive(Debug, Default)]
pub struct Names {
    /// The EFA devices.
    pub efa: Vec<String>,
    /// RDMA devices whose ids could not be read.
    pub unidentified: Vec<String>,
}

/// The names alone. Reads only what that takes, and nothing of devices that are
/// `known` to be EFA devices unless there is an unknown one to compare with them.
///
/// # Errors
/// As [`devices`].
pub fn names(sysroot: &Sysroot, known: &[String]) -> Result<Names, ReadError> {
    let all = rdma_names(sysroot)?;
    let is_known = |name: &String| known.contains(name);
    let mut names = Names::default();
    let mut strange = Vec::new();
    for name in all.iter().filter(|name| !is_known(name)) {
        match identified(sysroot, name) {
            Ok(found) => strange.extend(found),
            Err(_) => names.unidentified.push(name.clone()),
        }
    }
    let mut distinct = Distinct::default();
    if !strange.is_empty() {
        for name in all.iter().filter(|name| is_known(name)) {
            // They are known to differ.
            let _ = distinct.add(Identified {
                name: name.clone(),
                device_id: 0,
                pci_address: pci_address(sysroot, name),
            });
        }
    }
    strange.retain(|device| distinct.add(device.clone()).is_ok());
    let is_efa = |name: &String| is_known(name) || strange.iter().any(|it| it.name == *name);
    names.efa = all.iter().filter(|name| is_efa(name)).cloned().collect();
    Ok(names)
}

/// An EFA device on the PCI bus. The kernel has no name for it while no driver has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnBus {
    /// As the kernel writes it.
    pub address: String,
    /// The driver that has it.
    pub driver: Option<String>,
}

/// The EFA device at this PCI address; `None` where there is none, or where the text is
/// no address.
#[must_use]
pub fn on_bus(sysroot: &Sysroot, address: &str) -> Option<OnBus> {
    let address = Some(address.to_ascii_lowercase()).filter(|text| is_pci_address(text))?;
    let place = format!("sys/bus/pci/devices/{address}");
    efa_id(sysroot, |file| format!("{place}/{file}")).ok()??;
    Some(OnBus {
        driver: sysroot.link_target_name(&format!("{place}/driver")),
        address,
    })
}

/// Every RDMA device in natural order.
fn rdma_names(sysroot: &Sysroot) -> Result<Vec<String>, ReadError> {
    let mut names = match sysroot.list(CLASS) {
        Err(ReadError::Missing { .. }) => return Ok(Vec::new()),
        names => names?,
    };
    names.sort_by(|a, b| natural_order(a, b));
    Ok(names)
}

fn efa_device_id(sysroot: &Sysroot, name: &str) -> Result<Option<u16>, ReadError> {
    efa_id(sysroot, |file| attribute(name, file))
}

/// The PCI device id, if vendor and device are EFA's. `place` says where a file of the
/// device is.
fn efa_id(sysroot: &Sysroot, place: impl Fn(&str) -> String) -> Result<Option<u16>, ReadError> {
    if hex_id(sysroot, &place("vendor"))? != VENDOR {
        return Ok(None);
    }
    let device = hex_id(sysroot, &place("device"))?;
    Ok((device >> 4 == 0xefa).then_some(device))
}

fn attribute(name: &str, attribute: &str) -> String {
    format!("{CLASS}/{name}/device/{attribute}")
}

/// A PCI id as sysfs writes it: `0x1d0f`.
fn hex_id(sysroot: &Sysroot, rel: &str) -> Result<u16, ReadError> {
    let text = sysroot.read_small(rel)?;
    text.strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        // from_str_radix would take a sign.
        .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
        .and_then(|digits| u16::from_str_radix(digits, 16).ok())
        .ok_or(ReadError::Unexpected {
            path: sysroot.path(rel),
            expected: "a PCI id such as 0x1d0f",
            found: text,
        })
}

fn describe(sysroot: &Sysroot, device: Identified) -> Device {
    let Identified {
        name,
        device_id,
        pci_address,
    } = device;
    let numa_node = sysroot
        .read_small(&attribute(&name, "numa_node"))
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(|node| *node >= 0);
    let has_p2p = sysroot
        .read_small(&attribute(&name, "p2p"))
        .ok()
        .map(|provider| !provider.is_empty());
    Device {
        pci_address,
        device_id,
        numa_node,
        has_p2p,
        name,
    }
}

/// From the `device` link (one system call), or else from `uevent`.
fn pci_address(sysroot: &Sysroot, name: &str) -> Option<String> {
    let linked = sysroot.link_target_name(&format!("{CLASS}/{name}/device"));
    linked.filter(|target| is_pci_address(target)).or_else(|| {
        let uevent = sysroot.read_small(&attribute(name, "uevent")).ok()?;
        let slot = uevent
            .lines()
            .find_map(|line| line.strip_prefix("PCI_SLOT_NAME="))?
            .trim();
        is_pci_address(slot).then(|| slot.to_owned())
    })
}

/// `dddd:bb:dd.f`, lower- or upper-case hexadecimal.
fn is_pci_address(text: &str) -> bool {
    text.len() == "0000:00:00.0".len()
        && text.bytes().enumerate().all(|(i, byte)| match i {
            4 | 7 => byte == b':',
            10 => byte == b'.',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// Orders names with their numbers as numbers: `efa_2` before `efa_10`.
/// Names that differ only in leading zeros fall back to byte order.
#[must_use]
pub fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.as_bytes(), b.as_bytes());
    while let (Some(x), Some(y)) = (left.first(), right.first()) {
        let step = if x.is_ascii_digit() && y.is_ascii_digit() {
            let (x, y) = (take_number(&mut left), take_number(&mut right));
            x.len().cmp(&y.len()).then_with(|| x.cmp(y))
        } else {
            let step = x.cmp(y);
            (left, right) = (&left[1..], &right[1..]);
            step
        };
        if step.is_ne() {
            return step;
        }
    }
    left.len().cmp(&right.len()).then_with(|| a.cmp(b))
}

/// Splits the leading digits off and returns them without leading zeros.
fn take_number<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let end = text
        .iter()
        .position(|b| !b.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    let zeros = digits.iter().take_while(|b| **b == b'0').count();
    &digits[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::path::Path;

    /// A device as a real kernel shows it: the class entry is a link, and so
    /// is its `device`.
    fn add(root: &Path, name: &str, pci: &str, vendor: &str, device: &str) -> std::path::PathBuf {
        let pci_dir = root.join("sys/devices/pci0000:00").join(pci);
        let ib = pci_dir.join("infiniband").join(name);
        fs::create_dir_all(&ib).unwrap();
        fs::create_dir_all(root.join(CLASS)).unwrap();
        fs::write(pci_dir.join("vendor"), vendor).unwrap();
        fs::write(pci_dir.join("device"), device).unwrap();
        std::os::unix::fs::symlink(format!("../../../{pci}"), ib.join("device")).unwrap();
        std::os::unix::fs::symlink(
            format!("../../devices/pci0000:00/{pci}/infiniband/{name}"),
            root.join(CLASS).join(name),
        )
        .unwrap();
        pci_dir
    }

    fn names(found: &Devices) -> Vec<&str> {
        found.iter().map(|d| d.name.as_str()).collect()
    }

    #[test]
    fn a_node_without_rdma_devices_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let found = devices(&Sysroot::new(dir.path().into())).unwrap();
        assert!(found.is_empty() && found.skipped.is_empty());
    }

    #[test]
    fn of_a_known_device_nothing_is_read_but_that_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        add(dir.path(), "efa_1", "0000:00:01.0", "0x1d0f", "0xefa2");
        let pci = add(dir.path(), "efa_0", "0000:00:02.0", "0x1d0f", "0xefa2");
        fs::remove_file(pci.join("vendor")).unwrap();
        let root = Sysroot::new(dir.path().into());
        let known = ["efa_0", "efa_gone"].map(str::to_owned);
        let found = super::names(&root, &known).unwrap();
        assert_eq!(found.efa, ["efa_0", "efa_1"]);
        assert!(found.unidentified.is_empty());
        let unknown = super::names(&root, &[]).unwrap();
        assert_eq!(unknown.efa, ["efa_1"]);
        assert_eq!(unknown.unidentified, ["efa_0"]);
    }

    #[test]
    fn only_amazon_efa_devices_count_and_they_come_in_natural_order() {
        let dir = tempfile::tempdir().unwrap();
        add(dir.path(), "efa_10", "0000:00:0a.0", "0x1d0f\n", "0xefa2\n");
        add(dir.path(), "efa_2", "0000:00:02.0", "0x1D0F\n", "0xEFA1\n");
        add(dir.path(), "mlx5_0", "0000:00:03.0", "0x15b3\n", "0x1021\n");
        add(
            dir.path(),
            "ena_like",
            "0000:00:04.0",
            "0x1d0f\n",
            "0xec20\n",
        );
        let root = Sysroot::new(dir.path().into());
        let found = devices(&root).unwrap();
        assert_eq!(names(&found), ["efa_2", "efa_10"]);
        assert!(found.skipped.is_empty());
        assert_eq!(found[0].pci_address.as_deref(), Some("0000:00:02.0"));
        assert_eq!(found[1].device_id, 0xefa2);
        assert_eq!(count(&root).unwrap(), 2);
    }

    #[test]
    fn a_device_that_cannot_be_identified_is_reported_and_not_dropped() {
        let dir = tempfile::tempdir().unwrap();
        add(dir.path(), "efa_0", "0000:00:00.0", "0x1d0f", "0xefa0");
        add(dir.path(), "efa_1", "0000:00:01.0", "", "0xefa0");
        add(dir.path(), "efa_2", "0000:00:02.0", "0x1d0f", "0x+fa0");
        let third = add(dir.path(), "efa_3", "0000:00:03.0", "0x1d0f", "");
        fs::remove_file(third.join("device")).unwrap();
        fs::create_dir(third.join("device")).unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join(CLASS).join("efa_4")).unwrap();
        let found = devices(&Sysroot::new(dir.path().into())).unwrap();
        assert_eq!(names(&found), ["efa_0"]);
        let skipped: Vec<_> = found
            .skipped
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(skipped, ["efa_1", "efa_2", "efa_3", "efa_4"]);
        assert!(matches!(found.skipped[0].1, ReadError::Unexpected { .. }));
        assert!(matches!(found.skipped[2].1, ReadError::NotRegular { .. }));
        assert!(matches!(found.skipped[3].1, ReadError::Missing { .. }));
    }

    #[test]
    fn a_device_that_appears_twice_counts_once() {
        let dir = tempfile::tempdir().unwrap();
        add(dir.path(), "efa_0", "0000:00:00.0", "0x1d0f", "0xefa0");
        add(dir.path(), "efa_1", "0000:00:00.0", "0x1d0f", "0xefa0");
        let found = devices(&Sysroot::new(dir.path().into())).unwrap();
        assert_eq!(names(&found), ["efa_0"]);
        let (name, reason) = &found.skipped[0];
        assert_eq!(name, "efa_1");
        assert!(reason.to_string().contains("that of efa_0"), "{reason}");
    }

    #[test]
    fn a_device_that_appears_twice_is_one_for_whoever_counts_or_names_devices() {
        let dir = tempfile::tempdir().unwrap();
        add(dir.path(), "efa_0", "0000:00:00.0", "0x1d0f", "0xefa0");
        add(dir.path(), "efa_1", "0000:00:00.0", "0x1d0f", "0xefa0");
        add(dir.path(), "efa_2", "0000:00:02.0", "0x1d0f", "0xefa0");
        let root = Sysroot::new(dir.path().into());
        assert_eq!(count(&root).unwrap(), 2);
        for known in [&[][..], &["efa_0"], &["efa_0", "efa_2"]] {
            let known: Vec<String> = known.iter().map(|name| (*name).to_owned()).collect();
            let found = super::names(&root, &known).unwrap();
            assert_eq!(found.efa, ["efa_0", "efa_2"], "{known:?}");
            assert!(found.unidentified.is_empty(), "{known:?}");
        }
        // A job's record may name it by its other name.
        let found = super::names(&root, &["efa_1".to_owned()]).unwrap();
        assert_eq!(found.efa, ["efa_1", "efa_2"]);
    }

    #[test]
    fn devices_that_all_have_a_guid_of_zeros_are_as_many_as_their_places() {
        let dir = tempfile::tempdir().unwrap();
        for (name, pci) in [("efa_0", "0000:00:00.0"), ("efa_1", "0000:00:01.0")] {
            let device = add(dir.path(), name, pci, "0x1d0f", "0xefa0");
            let guid = device.join("infiniband").join(name).join("node_guid");
            fs::write(guid, "0000:0000:0000:0000\n").unwrap();
        }
        let root = Sysroot::new(dir.path().into());
        assert_eq!(devices(&root).unwrap().len(), 2);
        assert_eq!(count(&root).unwrap(), 2);
    }

    #[test]
    fn numa_node_and_p2p_are_told_where_the_kernel_tells_them() {
        let dir = tempfile::tempdir().unwrap();
        let known = add(dir.path(), "efa_0", "0000:00:00.0", "0x1d0f", "0xefa1");
        fs::write(known.join("numa_node"), "1\n").unwrap();
        fs::write(known.join("p2p"), "NVIDIA\n").unwrap();
        let empty = add(dir.path(), "efa_1", "0000:00:01.0", "0x1d0f", "0xefa1");
        fs::write(empty.join("numa_node"), "-1\n").unwrap();
        fs::write(empty.join("p2p"), "\n").unwrap();
        add(dir.path(), "efa_2", "0000:00:02.0", "0x1d0f", "0xefa1");
        let found = devices(&Sysroot::new(dir.path().into())).unwrap();
        let told: Vec<_> = found.iter().map(|d| (d.numa_node, d.has_p2p)).collect();
        assert_eq!(
            told,
            [(Some(1), Some(true)), (None, Some(false)), (None, None)]
        );
    }

    #[test]
    fn the_address_comes_from_uevent_where_device_is_not_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join(CLASS).join("efa_0/device");
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("vendor"), "0x1d0f").unwrap();
        fs::write(device.join("device"), "0xefa0").unwrap();
        fs::write(
            device.join("uevent"),
            "DRIVER=efa\nPCI_SLOT_NAME=0000:10:1b.0\n",
        )
        .unwrap();
        let root = Sysroot::new(dir.path().into());
        assert_eq!(
            devices(&root).unwrap()[0].pci_address.as_deref(),
            Some("0000:10:1b.0")
        );
        fs::write(device.join("uevent"), "PCI_SLOT_NAME=../../etc\n").unwrap();
        assert_eq!(devices(&root).unwrap()[0].pci_address, None);
    }

    proptest! {
        #[test]
        fn natural_order_is_a_total_order(a in "[a-z0-9]{0,8}", b in "[a-z0-9]{0,8}", c in "[a-z0-9]{0,8}") {
            prop_assert_eq!(natural_order(&a, &b), natural_order(&b, &a).reverse());
            prop_assert_eq!(natural_order(&a, &b).is_eq(), a == b);
            if natural_order(&a, &b).is_le() && natural_order(&b, &c).is_le() {
                prop_assert!(natural_order(&a, &c).is_le());
            }
        }

        #[test]
        fn numbers_sort_as_numbers(a: u64, b: u64) {
            prop_assert_eq!(natural_order(&format!("efa_{a}"), &format!("efa_{b}")), a.cmp(&b));
        }
    }
}
