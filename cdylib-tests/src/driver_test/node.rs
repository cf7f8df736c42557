//! A node: a guest and its devices. One that was left whole serves the next scene.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use super::fabric::Fabric;
use super::guest::{Guest, Hardware, Kernel, Network, Said};
use super::image::Image;
use super::slurm;
use crate::machines::Verdict;
use crate::machines::qemu::Clock;
use crate::machines::scene::expect;

/// What all scenes are played on.
#[derive(Debug)]
pub struct Stage {
    image: Image,
    dir: &'static Path,
    node: Option<Node>,
    pair: Option<Pair>,
}

/// The node that a scene wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub hardware: Hardware,
    /// The generation of the devices.
    pub model: &'static str,
    /// Devices that it boots with, and how many more can be plugged in.
    pub devices: usize,
    pub spare: usize,
    /// The driver's limit for an admin command; 0 is its own, 30 s.
    pub limit: Duration,
}

/// An instance type with one device and no GPU.
pub const ONE: Wanted = Wanted {
    hardware: Hardware {
        name: "n1",
        product: "c5n.18xlarge",
        cpus: 2,
        memory: &[512],
        kernel: Kernel::Stable,
        clock: Clock::Host,
        network: None,
    },
    model: "p4d",
    devices: 1,
    spare: 0,
    limit: Duration::from_secs(1),
};

/// One with four.
pub const FOUR: Wanted = Wanted {
    hardware: Hardware {
        product: "p4d.24xlarge",
        memory: &[640],
        ..ONE.hardware
    },
    devices: 4,
    ..ONE
};

/// One with as many as there can be.
pub const ALL: Wanted = Wanted {
    hardware: Hardware {
        product: "p5.48xlarge",
        memory: &[1024],
        ..ONE.hardware
    },
    model: "p5",
    devices: 32,
    ..ONE
};

/// A guest and its devices.
#[derive(Debug)]
pub struct Node {
    pub guest: Guest,
    pub fabric: Fabric,
    wanted: Wanted,
    /// Whether Slurm runs on it.
    slurm: bool,
}

impl Stage {
    pub fn new(image: Image, dir: &'static Path) -> Self {
        Self {
            image,
            dir,
            node: None,
            pair: None,
        }
    }

    /// Two nodes on one fabric, as [`Stage::node`].
    ///
    /// # Errors
    /// They do not come up, or their devices do not get well.
    pub fn pair(&mut self) -> Verdict<&mut Pair> {
        self.node = None;
        match self.pair.take() {
            Some(mut pair) => {
                pair.heal()?;
                Ok(self.pair.insert(pair))
            }
            None => Ok(self.pair.insert(Pair::start(&self.image, self.dir)?)),
        }
    }

    /// A node whose devices are well, with nothing remembered of earlier scenes:
    /// the last scene's, if that was such a one.
    ///
    /// # Errors
    /// It does not come up, or its devices do not get well.
    pub fn node(&mut self, wanted: Wanted) -> Verdict<&mut Node> {
        self.pair = None;
        match self.node.take() {
            // QEMU cannot unplug what a scene plugged in.
            Some(mut node) if node.wanted == wanted && wanted.spare == 0 => {
                node.heal()?;
                Ok(self.node.insert(node))
            }
            // Switched off before the next is on.
            last => {
                drop(last);
                Ok(self
                    .node
                    .insert(Node::start(&self.image, self.dir, wanted)?))
            }
        }
    }

    /// Ends the last node.
    pub fn clear(&mut self) {
        self.node = None;
    }

    /// What a node has to say about a failure. No other scene is played on it.
    pub fn end_of_failure(&mut self) -> String {
        let (mut guests, fabric) = match (self.node.take(), self.pair.take()) {
            (Some(Node { guest, fabric, .. }), _) => (vec![guest], fabric),
            (None, Some(Pair { guests, fabric, .. })) => (Vec::from(guests), fabric),
            (None, None) => return String::new(),
        };
        let mut text = String::new();
        for guest in &mut guests {
            text.push_str(&guest.console());
            let log = guest.output(
                "dmesg | tail -n 20; tail -n 20 /var/log/slurm?tld.log /var/log/slurmd.log",
            );
            text.push_str(&log.map_or_else(|error| error.to_string(), |said| said.text));
        }
        format!("{text}\n{}", fabric.log())
    }
}

/// Two nodes of four devices each, with a cable between them.
#[derive(Debug)]
pub struct Pair {
    pub guests: [Guest; 2],
    pub fabric: Fabric,
    /// Whether Slurm runs on them.
    slurm: bool,
}

impl Pair {
    /// The devices of each.
    pub const DEVICES: [Range<usize>; 2] = [0..4, 4..8];

    fn start(image: &Image, dir: &Path) -> Verdict<Self> {
        let fabric = Fabric::start(dir, "pair", FOUR.model, 8, Duration::ZERO)?;
        let start = |name, address, place: usize| {
            let hardware = Hardware {
                name,
                cpus: 1,
                memory: &[640],
                network: Some(Network {
                    address,
                    first: place == 0,
                }),
                ..FOUR.hardware
            };
            let devices: Vec<&Path> = Self::DEVICES[place]
                .clone()
                .map(|it| fabric.socket(it))
                .collect();
            Guest::start(image, hardware, &devices)
        };
        let mut guests = [start("n1", "10.9.0.1", 0)?, start("n2", "10.9.0.2", 1)?];
        for guest in &mut guests {
            guest.wait_up()?;
        }
        Ok(Self {
            guests,
            fabric,
            slurm: false,
        })
    }

    fn heal(&mut self) -> Verdict {
        self.fabric.heal()?;
        for guest in &mut self.guests {
            rebind(guest)?;
        }
        Ok(())
    }

    /// A Slurm of both nodes, which waits for jobs.
    ///
    /// # Errors
    /// It does not come up.
    pub fn slurm(&mut self) -> Verdict {
        let [first, second] = &mut self.guests;
        if !self.slurm {
            slurm::start(&mut [first, second])?;
            self.slurm = true;
        }
        slurm::wait_idle(first, 2)
    }
}

impl Node {
    fn start(image: &Image, dir: &Path, wanted: Wanted) -> Verdict<Self> {
        let all = wanted.devices + wanted.spare;
        let fabric = Fabric::start(dir, wanted.hardware.name, wanted.model, all, wanted.limit)?;
        let devices: Vec<&Path> = (0..wanted.devices).map(|it| fabric.socket(it)).collect();
        let mut guest = Guest::start(image, wanted.hardware, &devices)?;
        guest.wait_up()?;
        Ok(Self {
            guest,
            fabric,
            wanted,
            slurm: false,
        })
    }

    /// Makes all devices well, and the node forget them.
    ///
    /// # Errors
    /// They do not get well.
    pub fn heal(&mut self) -> Verdict {
        self.fabric.heal()?;
        rebind(&mut self.guest)?;
        self.devices(self.wanted.devices)
    }

    /// A Slurm of this node alone, which waits for jobs. efa-check's prolog is not
    /// called: what happens to a job is the plugin's doing.
    ///
    /// # Errors
    /// It does not come up.
    pub fn slurm(&mut self) -> Verdict {
        if !self.slurm {
            self.guest
                .run("mv /etc/slurm-efa/prolog.d/efa-check-prolog /etc/slurm-efa/")?;
            slurm::start(&mut [&mut self.guest])?;
            self.slurm = true;
        }
        slurm::wait_idle(&mut self.guest, 1)
    }

    /// Fails unless the driver has so many devices.
    ///
    /// # Errors
    /// With those that it has.
    pub fn devices(&mut self, count: usize) -> Verdict {
        let said = self.guest.run("ls /sys/class/infiniband")?;
        if said.split_whitespace().count() == count {
            return Ok(());
        }
        let dmesg = self.guest.run("dmesg | tail -n 20")?;
        Err(format!("not {count} devices but {said}\n{dmesg}").into())
    }

    /// Steers a device.
    ///
    /// # Errors
    /// It does not understand.
    pub fn tell(&self, device: usize, words: &str) -> Verdict {
        self.fabric.tell(device, words).map(drop)
    }

    /// Takes a device from its driver; its PCI address.
    ///
    /// # Errors
    /// The driver does not let it go.
    pub fn unbind(&mut self, device: usize) -> Verdict<String> {
        let pci = self.guest.run(&format!(
            "pci=$(basename $(readlink -f /sys/class/infiniband/efa_{device}/device)); \
             echo $pci >/sys/bus/pci/drivers/efa/unbind; echo $pci"
        ))?;
        Ok(pci.trim().to_owned())
    }

    /// Takes a device from its driver and gives it back.
    ///
    /// # Errors
    /// The driver does not take it.
    pub fn rebind(&mut self, device: usize) -> Verdict {
        let pci = self.unbind(device)?;
        let bind = format!("echo {pci} >/sys/bus/pci/drivers/efa/bind");
        self.guest.run(&bind).map(drop)
    }

    /// Takes a device that is not ready from its driver, which refuses to have it back.
    /// The command that has the driver try again.
    ///
    /// # Errors
    /// The driver takes it.
    pub fn unbind_for_good(&mut self, device: usize) -> Verdict<String> {
        let pci = self.unbind(device)?;
        let bind = format!("echo {pci} >/sys/bus/pci/drivers/efa/bind");
        let said = self.guest.output(&bind)?;
        expect(
            said.code != 0 && said.text.contains("Invalid argument"),
            "the driver's refusal",
            said,
        )?;
        Ok(bind)
    }

    /// Takes a device from its driver, whose probe is then deferred: the reset does not
    /// end. Its PCI address.
    ///
    /// # Errors
    /// It is not deferred.
    pub fn defer_probe(&mut self, device: usize) -> Verdict<String> {
        self.tell(device, "stuck-reset on")?;
        let pci = self.unbind(device)?;
        self.guest
            .output(&format!("echo {pci} >/sys/bus/pci/drivers_probe"))?;
        self.guest.wait(
            "the deferred probe",
            &format!("grep {pci} /sys/kernel/debug/devices_deferred"),
        )?;
        Ok(pci)
    }

    /// Plugs a spare device in, and waits for the driver.
    ///
    /// # Errors
    /// It does not come.
    pub fn plug(&mut self, device: usize) -> Verdict {
        self.guest.plug(device, self.fabric.socket(device))?;
        let counters = format!("[ -e /sys/class/infiniband/efa_{device}/ports/1/hw_counters ]");
        self.guest.wait("the device", &counters)
    }

    /// Runs efa-check, and fails unless it ends with this code within this time and
    /// says this.
    ///
    /// # Errors
    /// With what it said.
    pub fn efa_check(
        &mut self,
        arguments: &str,
        code: i32,
        sentence: &str,
        within: Duration,
    ) -> Verdict<Said> {
        let said = self.guest.output(&format!("efa-check {arguments}"))?;
        expect(
            said.code == code && said.text.contains(sentence) && said.took <= within,
            &format!(
                "exit code {code} and `{sentence}` within {} ms",
                within.as_millis()
            ),
            &said,
        )?;
        Ok(said)
    }
}

/// Binds all of a guest's devices again, and makes its node forget what it saw.
fn rebind(guest: &mut Guest) -> Verdict {
    guest.run(
        "echo 1 >/sys/bus/pci/rescan; cd /sys/bus/pci/drivers/efa\n\
         for device in 0*; do [ ! -e \"$device\" ] || echo $device >unbind; done\n\
         for device in $(grep -lx 0x1d0f /sys/bus/pci/devices/*/vendor); do\n\
         basename ${device%/vendor} >bind; done\n\
         rm -rf /run/slurm-efa /var/lib/slurm-efa /var/log/slurm-efa; dmesg -C",
    )?;
    Ok(())
}
