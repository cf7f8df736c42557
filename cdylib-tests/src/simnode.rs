//! Simulated nodes: directory trees that look like an AWS instance with EFA to
//! every reader that takes a sysroot.
//!
//! A [`Spec`] says what the node is; [`SimNode::build`] writes it; a
//! [`SimNode`]'s methods then break it, or let traffic pass.
//!
//! What is true to life and where it is from: the paths, vendor ids, counter
//! names and device counts (public drivers and instance tables), the form of
//! `efa_installed_packages` (quoted in aws-ofi-nccl issue 141 for Debian and
//! aws-parallelcluster-cookbook pull request 1882 for RPM), p4d's device names.
//! Not verified: which of 0xefa0…0xefa4 an instance type shows, the PCI
//! addresses and names of the other types, the NVLink controllers' device id,
//! and that one machine ever had exactly the versions of a [`Stack`]; the
//! libraries hold a few strings and are no libraries.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use efa::counters;

/// How many of [`counters::PORT`] a driver before 2.17 has.
const OLD_PORT_COUNTERS: usize = counters::PORT.len() - 5;

/// The payload of one simulated packet, bytes.
const PACKET: u64 = 8192;

/// The packages' family, which decides on names and library directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Ubuntu, Debian: `name_version_arch`, `lib`.
    Deb,
    /// Amazon Linux and relatives: `name-version.arch`, `lib64`.
    Rpm,
}

/// The software installed on a node.
#[derive(Debug, Clone)]
pub struct Stack {
    /// How it was packaged.
    pub family: Family,
    /// `uname -r`.
    pub kernel: String,
    /// efa-installer.
    pub installer: String,
    /// The efa kernel module.
    pub driver: String,
    /// libfabric, with Amazon's suffix.
    pub libfabric: String,
    /// The number in `libfabric.so.N`.
    pub libfabric_so: String,
    /// rdma-core, e.g. `58.0`.
    pub rdma_core: String,
    /// aws-ofi-nccl and its directory, relative to the root; none with Neuron.
    pub ofi: Option<(String, String)>,
    /// NCCL, e.g. `2.27.3`.
    pub nccl: Option<String>,
}

impl Stack {
    /// A stack of 2025: efa-installer 1.43 on Ubuntu 22.04.
    pub fn modern() -> Stack {
        Stack {
            family: Family::Deb,
            kernel: "6.8.0-1029-aws".into(),
            installer: "1.43.2".into(),
            driver: "2.17.2".into(),
            libfabric: "2.1.0amzn5.0".into(),
            libfabric_so: "1.27.0".into(),
            rdma_core: "58.0".into(),
            ofi: Some((
                "1.16.2".into(),
                "opt/amazon/ofi-nccl/lib/x86_64-linux-gnu".into(),
            )),
            nccl: Some("2.27.3".into()),
        }
    }

    /// A stack of early 2023: efa-installer 1.22.0 (with libfabric 1.17.0 and
    /// rdma-core 43.0, as aws-parallelcluster-cookbook 3.5.1 lists them), an
    /// aws-ofi-nccl 1.5.0 built by hand, Amazon Linux 2 with kernel 5.10.
    pub fn old() -> Stack {
        Stack {
            family: Family::Rpm,
            kernel: "5.10.167-147.601.amzn2.x86_64".into(),
            installer: "1.22.0".into(),
            driver: "2.1.1g".into(),
            libfabric: "1.17.0".into(),
            libfabric_so: "1.20.0".into(),
            rdma_core: "43.0".into(),
            ofi: Some(("1.5.0".into(), "opt/aws-ofi-nccl/lib".into())),
            nccl: Some("2.16.2".into()),
        }
    }

    /// The modern stack of a Neuron instance, which has no NCCL.
    pub fn neuron() -> Stack {
        Stack {
            ofi: None,
            nccl: None,
            ..Stack::modern()
        }
    }

    fn library_dirs(&self) -> (&'static str, &'static str) {
        match self.family {
            Family::Deb => ("opt/amazon/efa/lib", "usr/lib/x86_64-linux-gnu"),
            Family::Rpm => ("opt/amazon/efa/lib64", "usr/lib64"),
        }
    }

    /// The text of `/opt/amazon/efa_installed_packages`.
    fn manifest(&self) -> String {
        let (libfabric, rdma) = (&self.libfabric, &self.rdma_core);
        let mut packages: Vec<String> = Vec::new();
        match self.family {
            Family::Deb => {
                packages.extend(["efa-config_1.18_all".into(), "efa-profile_1.7_all".into()]);
                for name in ["libfabric-aws-bin", "libfabric-aws-dev", "libfabric1-aws"] {
                    packages.push(format!("{name}_{libfabric}_amd64"));
                }
                packages.push("openmpi40-aws_4.1.7-2_amd64".into());
                if let Some((ofi, _)) = &self.ofi {
                    packages.push(format!("libnccl-ofi_{ofi}-1_amd64"));
                }
                for name in [
                    "ibacm",
                    "ibverbs-providers",
                    "ibverbs-utils",
                    "infiniband-diags",
                    "libibmad5",
                    "libibnetdisc5",
                    "libibumad3",
                    "libibverbs-dev",
                    "libibverbs1",
                    "librdmacm1",
                    "rdma-core",
                    "rdmacm-utils",
                ] {
                    packages.push(format!("{name}_{rdma}-1_amd64"));
                }
                packages.push(format!("efa_{}-1.amzn1_amd64", self.driver));
            }
            Family::Rpm => {
                packages.extend([
                    "efa-config-1.13-1.amzn2.noarch".into(),
                    "efa-profile-1.5-1.amzn2.noarch".into(),
                ]);
                for name in ["libfabric-aws", "libfabric-aws-devel"] {
                    packages.push(format!("{name}-{libfabric}-1.amzn2.x86_64"));
                }
                packages.push("openmpi40-aws-4.1.5-1.x86_64".into());
                for name in [
                    "ibacm",
                    "infiniband-diags",
                    "libibumad",
                    "libibverbs",
                    "libibverbs-utils",
                    "librdmacm",
                    "librdmacm-utils",
                    "rdma-core",
                    "rdma-core-devel",
                ] {
                    packages.push(format!("{name}-{rdma}-1.amzn2.x86_64"));
                }
            }
        }
        format!(
            "# EFA installer version: {}\n# Debug packages installed: no\n# Packages installed:\n{}\n",
            self.installer,
            packages.join(" ")
        )
    }

    fn has_new_counters(&self) -> bool {
        let mut parts = self.driver.split('.').map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (2, 17)
    }
}

/// The PCI place of a device: bus and slot; domain and function are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PciPlace {
    /// Bus.
    pub bus: u8,
    /// Slot.
    pub slot: u8,
}

/// What a node is.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The DMI product name, e.g. `p5.48xlarge`, or `ml.p5.48xlarge` on HyperPod.
    pub product_name: String,
    /// Where the EFA devices are; their number is that of the node.
    pub efa: Vec<PciPlace>,
    /// PCI device id of the EFA devices.
    pub efa_device_id: u16,
    /// Who serves GPUDirect RDMA (`device/p2p`): `NVIDIA`, `NEURON`, or empty.
    pub p2p: String,
    /// NVLink controllers that show up as `mlx5_N` beside the EFA devices.
    pub nvlink_controllers: u8,
    /// NUMA nodes, over which the devices spread evenly.
    pub numa_nodes: usize,
    /// The software.
    pub stack: Stack,
}

/// `groups` groups of `each` neighbouring devices, as behind PCI switches.
fn groups(groups: u8, each: u8) -> Vec<PciPlace> {
    (0..groups)
        .flat_map(|group| {
            (0..each).map(move |i| PciPlace {
                bus: 79 + 17 * group + i,
                slot: 0,
            })
        })
        .collect()
}

impl Spec {
    /// The names that [`named`](Spec::named) knows.
    pub const NAMES: [&'static str; 7] = [
        "p4d.24xlarge",
        "p4d_old_stack",
        "p5.48xlarge",
        "p5en.48xlarge",
        "p6-b200.48xlarge",
        "trn1.32xlarge",
        "g5.8xlarge",
    ];

    /// The node of that name, `ml.` in front allowed.
    pub fn named(name: &str) -> Option<Spec> {
        if let Some(bare) = name.strip_prefix("ml.") {
            return Spec::named(bare).map(Spec::hyperpod);
        }
        let nvidia = |places: Vec<PciPlace>, efa_device_id| Spec {
            product_name: name.to_owned(),
            efa: places,
            efa_device_id,
            p2p: "NVIDIA".to_owned(),
            nvlink_controllers: 0,
            numa_nodes: 2,
            stack: Stack::modern(),
        };
        let p4d = [16, 32, 144, 160].map(|bus| PciPlace { bus, slot: 27 });
        Some(match name {
            "p4d.24xlarge" => nvidia(p4d.to_vec(), 0xefa0),
            "p4d_old_stack" => Spec {
                product_name: "p4d.24xlarge".to_owned(),
                stack: Stack::old(),
                ..nvidia(p4d.to_vec(), 0xefa0)
            },
            "p5.48xlarge" => nvidia(groups(8, 4), 0xefa1),
            "p5en.48xlarge" => nvidia(groups(8, 2), 0xefa2),
            "p6-b200.48xlarge" => Spec {
                nvlink_controllers: 2,
                ..nvidia(groups(8, 1), 0xefa3)
            },
            "trn1.32xlarge" => Spec {
                p2p: "NEURON".to_owned(),
                stack: Stack::neuron(),
                ..nvidia(groups(8, 1), 0xefa1)
            },
            "g5.8xlarge" => Spec {
                p2p: String::new(),
                numa_nodes: 1,
                ..nvidia(vec![PciPlace { bus: 0, slot: 29 }], 0xefa1)
            },
            _ => return None,
        })
    }

    /// The same node under HyperPod, which writes `ml.` before the type.
    #[must_use]
    pub fn hyperpod(mut self) -> Spec {
        self.product_name = format!("ml.{}", self.product_name);
        self
    }

    /// The same node with only the first `count` EFA devices attached.
    #[must_use]
    pub fn with_devices(mut self, count: usize) -> Spec {
        self.efa.truncate(count);
        self
    }

    /// The same node with another stack.
    #[must_use]
    pub fn with_stack(mut self, stack: Stack) -> Spec {
        self.stack = stack;
        self
    }
}

/// A tree on disk.
#[derive(Debug, Clone)]
pub struct SimNode {
    root: PathBuf,
    devices: Vec<String>,
}

macro_rules! shorthands {
    ($($method:ident = $name:literal),* $(,)?) => {$(
        #[doc = concat!("Builds the node `", $name, "` at `dir`.")]
        ///
        /// # Errors
        /// When a file cannot be written.
        pub fn $method(dir: impl AsRef<Path>) -> io::Result<SimNode> {
            match Spec::named($name) {
                Some(spec) => SimNode::build(dir.as_ref(), &spec),
                None => Err(io::Error::other(concat!("no node is called ", $name))),
            }
        }
    )*};
}

impl SimNode {
    shorthands! {
        p4d_24xlarge = "p4d.24xlarge",
        p4d_old_stack = "p4d_old_stack",
        p5_48xlarge = "p5.48xlarge",
        p5en_48xlarge = "p5en.48xlarge",
        p6_b200_48xlarge = "p6-b200.48xlarge",
        trn1_32xlarge = "trn1.32xlarge",
        g5_8xlarge = "g5.8xlarge",
    }

    /// Writes the tree of `spec` to `dir`, which is made if it does not exist.
    ///
    /// # Errors
    /// When a file cannot be written, for instance because it exists already
    /// as something else.
    pub fn build(dir: &Path, spec: &Spec) -> io::Result<SimNode> {
        fs::create_dir_all(dir)?;
        let mut node = SimNode {
            root: dir.to_owned(),
            devices: Vec::new(),
        };
        node.build_machine(spec)?;
        // Foreign devices come first, so that a reader cannot just count up.
        for index in 0..spec.nvlink_controllers {
            node.build_nvlink_controller(index)?;
        }
        for (index, place) in spec.efa.iter().enumerate() {
            node.build_efa(spec, index, *place)?;
        }
        node.build_stack(&spec.stack)?;
        Ok(node)
    }

    fn build_machine(&self, spec: &Spec) -> io::Result<()> {
        let dmi = "sys/devices/virtual/dmi/id";
        self.write(&format!("{dmi}/product_name"), &line(&spec.product_name))?;
        self.write(&format!("{dmi}/sys_vendor"), "Amazon EC2\n")?;
        self.link("sys/class/dmi/id", "../../devices/virtual/dmi/id")?;
        self.write("proc/sys/kernel/osrelease", &line(&spec.stack.kernel))?;
        for module in ["efa", "ib_uverbs", "ib_core"] {
            self.write(&format!("sys/module/{module}/initstate"), "live\n")?;
        }
        self.write("sys/module/efa/version", &line(&spec.stack.driver))?;
        for dir in [
            "sys/class/infiniband",
            "sys/class/infiniband_verbs",
            "sys/bus/pci/devices",
            "dev/infiniband",
        ] {
            fs::create_dir_all(self.path(dir))?;
        }
        Ok(())
    }

    fn build_efa(&mut self, spec: &Spec, index: usize, place: PciPlace) -> io::Result<()> {
        let name = format!("rdmap{}s{}", place.bus, place.slot);
        let uverbs = index + usize::from(spec.nvlink_controllers);
        let pci = self.build_device(&Device {
            name: &name,
            place,
            driver: "efa",
            vendor: 0x1d0f,
            device: spec.efa_device_id,
            numa_node: index * spec.numa_nodes / spec.efa.len(),
            uverbs,
            link_layer: "Unspecified",
        })?;
        self.write(&format!("{pci}/p2p"), &line(&spec.p2p))?;
        let ib = format!("{pci}/infiniband/{name}");
        let count = if spec.stack.has_new_counters() {
            counters::PORT.len()
        } else {
            OLD_PORT_COUNTERS
        };
        for counter in &counters::PORT[..count] {
            self.write(&format!("{ib}/ports/1/hw_counters/{counter}"), "0\n")?;
        }
        for counter in counters::DEVICE {
            self.write(&format!("{ib}/hw_counters/{counter}"), "0\n")?;
        }
        self.devices.push(name);
        Ok(())
    }

    fn build_nvlink_controller(&self, index: u8) -> io::Result<()> {
        self.build_device(&Device {
            name: &format!("mlx5_{index}"),
            place: PciPlace {
                bus: 5 + index,
                slot: 0,
            },
            driver: "mlx5_core",
            vendor: 0x15b3,
            device: 0x1021,
            numa_node: 0,
            uverbs: usize::from(index),
            link_layer: "InfiniBand",
        })
        .map(drop)
    }

    /// What every RDMA device has; returns its PCI directory.
    fn build_device(&self, device: &Device<'_>) -> io::Result<String> {
        let PciPlace { bus, slot } = device.place;
        let bridge = format!("pci0000:{bus:02x}");
        let address = format!("0000:{bus:02x}:{slot:02x}.0");
        let pci = format!("sys/devices/{bridge}/{address}");
        let name = device.name;
        let mut uevent = String::new();
        let _ = writeln!(uevent, "DRIVER={}", device.driver);
        let _ = writeln!(uevent, "PCI_CLASS=20000");
        let _ = writeln!(uevent, "PCI_ID={:04X}:{:04X}", device.vendor, device.device);
        let _ = writeln!(uevent, "PCI_SLOT_NAME={address}");
        for (file, text) in [
            ("vendor", format!("{:#06x}\n", device.vendor)),
            ("device", format!("{:#06x}\n", device.device)),
            ("class", "0x020000\n".to_owned()),
            ("numa_node", format!("{}\n", device.numa_node)),
            ("uevent", uevent),
        ] {
            self.write(&format!("{pci}/{file}"), &text)?;
        }
        self.link(
            &format!("sys/bus/pci/devices/{address}"),
            &format!("../../../devices/{bridge}/{address}"),
        )?;

        let ib = format!("{pci}/infiniband/{name}");
        for (file, text) in [
            ("node_guid", format!("0000:0000:{bus:02x}{slot:02x}:0001\n")),
            ("fw_ver", "0.0.0.0\n".to_owned()),
            // Constants of the driver, whatever the device does.
            ("ports/1/state", "4: ACTIVE\n".to_owned()),
            ("ports/1/phys_state", "5: LinkUp\n".to_owned()),
            ("ports/1/link_layer", line(device.link_layer)),
        ] {
            self.write(&format!("{ib}/{file}"), &text)?;
        }
        self.link(&format!("{ib}/device"), &format!("../../../{address}"))?;
        self.link(
            &format!("sys/class/infiniband/{name}"),
            &format!("../../devices/{bridge}/{address}/infiniband/{name}"),
        )?;

        let number = device.uverbs;
        let verbs = format!("{pci}/infiniband_verbs/uverbs{number}");
        self.write(&format!("{verbs}/ibdev"), &line(name))?;
        self.write(&format!("{verbs}/dev"), &format!("231:{}\n", 192 + number))?;
        self.link(&format!("{verbs}/device"), &format!("../../../{address}"))?;
        self.link(
            &format!("sys/class/infiniband_verbs/uverbs{number}"),
            &format!("../../devices/{bridge}/{address}/infiniband_verbs/uverbs{number}"),
        )?;
        let node = format!("dev/infiniband/uverbs{number}");
        self.write(&node, "")?;
        // As rdma-core's udev rules make it, whatever the umask here.
        fs::set_permissions(self.path(&node), fs::Permissions::from_mode(0o666))?;
        Ok(pci)
    }

    fn build_stack(&self, stack: &Stack) -> io::Result<()> {
        let (efa_lib, system_lib) = stack.library_dirs();
        self.write("opt/amazon/efa_installed_packages", &stack.manifest())?;

        let so = &stack.libfabric_so;
        self.write(
            &format!("{efa_lib}/libfabric.so.{so}"),
            &library(&[&format!("libfabric:{}", stack.libfabric)]),
        )?;
        self.link(
            &format!("{efa_lib}/libfabric.so.1"),
            &format!("libfabric.so.{so}"),
        )?;
        self.link(&format!("{efa_lib}/libfabric.so"), "libfabric.so.1")?;
        self.write(
            &format!("{efa_lib}/pkgconfig/libfabric.pc"),
            &format!(
                "prefix=/opt/amazon/efa\nexec_prefix=${{prefix}}\nlibdir=/{efa_lib}\n\
                 includedir=${{prefix}}/include\n\nName: libfabric\n\
                 Description: OFI user space library\nVersion: {}\n\
                 Libs: -L${{libdir}} -lfabric\nCflags: -I${{includedir}}\n",
                stack.libfabric
            ),
        )?;

        let verbs = format!("libibverbs.so.1.14.{}", stack.rdma_core);
        self.write(&format!("{system_lib}/{verbs}"), &library(&["libibverbs"]))?;
        self.link(&format!("{system_lib}/libibverbs.so.1"), &verbs)?;

        if let Some((version, dir)) = &stack.ofi {
            // What the plugin logs at start, to be seen in public issues.
            let verb = if version.starts_with("1.5.") {
                "Using"
            } else {
                "Initializing"
            };
            let text = library(&[&format!("NET/OFI {verb} aws-ofi-nccl {version}")]);
            self.write(&format!("{dir}/libnccl-net.so"), &text)?;
        }
        if let Some(version) = &stack.nccl {
            let file = format!("libnccl.so.{version}");
            let text = library(&[&format!("NCCL version {version}+cuda12.9")]);
            self.write(&format!("{system_lib}/{file}"), &text)?;
            self.link(&format!("{system_lib}/libnccl.so.2"), &file)?;
        }
        Ok(())
    }

    /// A tree that was built before, for instance by the testbed.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(dir: &Path) -> io::Result<SimNode> {
        let mut devices = Vec::new();
        for entry in fs::read_dir(dir.join("sys/class/infiniband"))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            // The others are NVLink controllers.
            if name.starts_with("rdmap") {
                devices.push(name);
            }
        }
        devices.sort();
        Ok(SimNode {
            root: dir.to_owned(),
            devices,
        })
    }

    // ------------------------------------------------------- to change a node

    /// The root of the tree.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The names of the EFA devices, as in `/sys/class/infiniband`.
    pub fn devices(&self) -> &[String] {
        &self.devices
    }

    /// A path inside the tree; `relative` may begin with `/`.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.join(relative.trim_start_matches('/'))
    }

    /// Writes a file, making the directories to it. A link is written through,
    /// so this reaches a device's files by way of `sys/class/infiniband`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, relative: &str, text: &str) -> io::Result<()> {
        let path = self.path(relative);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, text)
    }

    /// Removes a file, a link or a whole directory.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn remove(&self, relative: &str) -> io::Result<()> {
        let path = self.path(relative);
        if fs::symlink_metadata(&path)?.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        }
    }

    /// Takes the `n`th EFA device (from 0) off the bus, with its uverbs node.
    ///
    /// # Errors
    /// When there is no such device.
    pub fn remove_device(&mut self, n: usize) -> io::Result<()> {
        if n >= self.devices.len() {
            return Err(io::Error::other(format!(
                "there is no EFA device {n}: the node has {}",
                self.devices.len()
            )));
        }
        let name = self.devices.remove(n);
        let class = format!("sys/class/infiniband/{name}");
        let pci = fs::canonicalize(self.path(&class).join("device"))?;
        for entry in fs::read_dir(pci.join("infiniband_verbs"))? {
            let uverbs = entry?.file_name();
            let uverbs = uverbs.to_string_lossy();
            self.remove(&format!("sys/class/infiniband_verbs/{uverbs}"))?;
            self.remove(&format!("dev/infiniband/{uverbs}"))?;
        }
        let address = pci.file_name().unwrap_or_default().to_string_lossy();
        self.remove(&format!("sys/bus/pci/devices/{address}"))?;
        self.remove(&class)?;
        fs::remove_dir_all(pci)
    }

    /// Sets a counter of a device, of its port or its own.
    ///
    /// # Errors
    /// When the device has no such counter.
    pub fn set_counter(&self, device: &str, counter: &str, value: u64) -> io::Result<()> {
        fs::write(self.counter_path(device, counter)?, format!("{value}\n"))
    }

    /// Reads a counter of a device, of its port or its own.
    ///
    /// # Errors
    /// When the device has no such counter.
    pub fn counter(&self, device: &str, counter: &str) -> io::Result<u64> {
        let text = fs::read_to_string(self.counter_path(device, counter)?)?;
        text.trim().parse().map_err(io::Error::other)
    }

    fn counter_path(&self, device: &str, counter: &str) -> io::Result<PathBuf> {
        let device = self.path("sys/class/infiniband").join(device);
        [
            device.join("ports/1/hw_counters").join(counter),
            device.join("hw_counters").join(counter),
        ]
        .into_iter()
        .find(|path| path.exists())
        .ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("{} has no counter {counter}", device.display()),
            )
        })
    }

    /// Lets `bytes` pass each way over a device, half of what it sends by RDMA read.
    ///
    /// # Errors
    /// When the device does not exist.
    pub fn add_traffic(&self, device: &str, bytes: u64) -> io::Result<()> {
        let packets = bytes.div_ceil(PACKET);
        for (counter, more) in [
            ("tx_bytes", bytes),
            ("tx_pkts", packets),
            ("rx_bytes", bytes),
            ("rx_pkts", packets),
            ("send_bytes", bytes - bytes / 2),
            ("send_wrs", packets - packets / 2),
            ("recv_bytes", bytes - bytes / 2),
            ("recv_wrs", packets - packets / 2),
            ("rdma_read_bytes", bytes / 2),
            ("rdma_read_wrs", packets / 2),
            ("rdma_read_resp_bytes", bytes / 2),
        ] {
            let value = self.counter(device, counter)?.saturating_add(more);
            self.set_counter(device, counter, value)?;
        }
        Ok(())
    }

    fn link(&self, relative: &str, target: &str) -> io::Result<()> {
        let path = self.path(relative);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        symlink(target, path)
    }
}

/// What [`SimNode::build_device`] needs to know.
struct Device<'a> {
    name: &'a str,
    place: PciPlace,
    driver: &'a str,
    vendor: u16,
    device: u16,
    numa_node: usize,
    uverbs: usize,
    link_layer: &'a str,
}

fn line(text: &str) -> String {
    format!("{text}\n")
}

/// A file that begins as an ELF file does and holds `strings`, each ended by NUL.
fn library(strings: &[&str]) -> String {
    let mut text = "\x7fELF\0".to_owned();
    for string in strings {
        text.push_str(string);
        text.push('\0');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(node: &SimNode, dir: &str) -> usize {
        fs::read_dir(node.path(dir)).unwrap().count()
    }

    #[test]
    fn every_named_node_has_the_devices_of_its_type() {
        for (name, efa, all) in [
            ("p4d.24xlarge", 4, 4),
            ("p4d_old_stack", 4, 4),
            ("p5.48xlarge", 32, 32),
            ("ml.p5.48xlarge", 32, 32),
            ("p5en.48xlarge", 16, 16),
            ("p6-b200.48xlarge", 8, 10),
            ("trn1.32xlarge", 8, 8),
            ("g5.8xlarge", 1, 1),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let node = SimNode::build(dir.path(), &Spec::named(name).unwrap()).unwrap();
            assert_eq!(node.devices().len(), efa, "{name}");
            for class in [
                "sys/class/infiniband",
                "sys/class/infiniband_verbs",
                "dev/infiniband",
            ] {
                assert_eq!(entries(&node, class), all, "{name} {class}");
            }
            for device in node.devices() {
                let device = node.path("sys/class/infiniband").join(device);
                let read = |file| fs::read_to_string(device.join(file)).unwrap();
                assert_eq!(read("device/vendor"), "0x1d0f\n", "{name}");
                assert!(read("device/device").starts_with("0xefa"), "{name}");
                assert!(read("device/uevent").contains("PCI_SLOT_NAME=0000:"));
                assert_eq!(read("ports/1/hw_counters/tx_bytes"), "0\n", "{name}");
            }
        }
    }

    #[test]
    fn links_stay_inside_the_tree_when_it_is_moved() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        SimNode::p5_48xlarge(&old).unwrap();
        fs::rename(&old, &new).unwrap();
        let class = new.join("sys/class/infiniband");
        for entry in fs::read_dir(class).unwrap() {
            let real = fs::canonicalize(entry.unwrap().path()).unwrap();
            assert!(real.starts_with(&new), "{}", real.display());
        }
    }

    #[test]
    fn a_removed_device_is_gone_from_every_place() {
        let dir = tempfile::tempdir().unwrap();
        let mut node = SimNode::p4d_24xlarge(dir.path()).unwrap();
        node.remove_device(1).unwrap();
        for place in [
            "sys/class/infiniband",
            "sys/class/infiniband_verbs",
            "sys/bus/pci/devices",
            "dev/infiniband",
        ] {
            assert_eq!(entries(&node, place), 3, "{place}");
        }
        assert!(node.remove_device(3).is_err());
    }

    #[test]
    fn traffic_adds_up_and_counters_are_settable() {
        let dir = tempfile::tempdir().unwrap();
        let node = SimNode::g5_8xlarge(dir.path()).unwrap();
        let device = node.devices()[0].clone();
        node.add_traffic(&device, 10_000).unwrap();
        node.add_traffic(&device, 10_000).unwrap();
        assert_eq!(node.counter(&device, "tx_bytes").unwrap(), 20_000);
        node.set_counter(&device, "no_completion_cmds", 3).unwrap();
        assert_eq!(node.counter(&device, "no_completion_cmds").unwrap(), 3);
        assert!(node.set_counter(&device, "no_such_counter", 1).is_err());
    }

    #[test]
    fn an_old_driver_lacks_the_counters_of_2_17() {
        let dir = tempfile::tempdir().unwrap();
        let node = SimNode::p4d_old_stack(dir.path()).unwrap();
        let device = node.devices()[0].clone();
        assert!(node.counter(&device, "rx_drops").is_ok());
        assert!(node.counter(&device, "retrans_pkts").is_err());
        let product = node.path("sys/devices/virtual/dmi/id/product_name");
        assert_eq!(fs::read_to_string(product).unwrap(), "p4d.24xlarge\n");
    }

    #[test]
    fn every_listed_name_is_known_and_no_other() {
        assert!(Spec::NAMES.iter().all(|name| Spec::named(name).is_some()));
        assert!(Spec::named("p9.48xlarge").is_none());
    }
}
