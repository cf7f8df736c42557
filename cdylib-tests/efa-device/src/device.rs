//! One device: what a guest reads and writes in its BARs, and what that leads to.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::time::Duration;

use crate::admin_queue::AdminQueue;
use crate::bytes::u32_at;
use crate::counters::Counters;
use crate::faults::Faults;
use crate::features::{Identity, Model};
use crate::guest::Guest;
use crate::limits::CQ_DOORBELLS;
use crate::pci::{self, ConfigSpace};
use crate::queues::{Counts, Gid, Queues};
use crate::registers::{self, Registers};
use crate::send_rings::SendRings;
use crate::timing::{Event, Happening};
use crate::vfio_user::{CONFIG, PciDevice};

/// Work of one device that may be on its way at a time: beyond it, doorbells are
/// not heard.
const MAX_IN_TRANSIT: usize = 1 << 16;

/// What devices are made from.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// What they are, with the counters that they have.
    pub model: Model,
    /// The time limit of the admin queue in units of 100 ms, at most 15; 0: the
    /// driver's own 30 s.
    pub admin_timeout: u32,
    /// MSI-X vectors, at least 1.
    pub vectors: u16,
    /// Whether to write what guests do to stderr.
    pub verbose: bool,
}

/// An EFA device.
#[derive(Debug)]
pub struct Efa {
    /// Its index on the fabric.
    pub(crate) index: usize,
    pub(crate) identity: Identity,
    config: ConfigSpace,
    pub(crate) registers: Registers,
    pub(crate) admin: AdminQueue,
    /// What it has counted.
    pub counters: Counters,
    /// What is wrong with it.
    pub faults: Faults,
    /// The commands of the admin queue so far, by opcode.
    pub commands: BTreeMap<u8, u64>,
    pub(crate) queues: Queues,
    send_rings: SendRings,
    fabric: Sender<Event>,
    pub(crate) in_transit: usize,
    verbose: bool,
}

impl Efa {
    pub(crate) fn new(index: usize, configuration: &Configuration, fabric: Sender<Event>) -> Self {
        let vectors = configuration.vectors.clamp(1, 128);
        let model = configuration.model;
        Self {
            index,
            identity: Identity {
                model,
                number: index as u16,
                vectors,
                claimed_guid: None,
            },
            config: ConfigSpace::new(model.device_id, vectors),
            registers: Registers::new(configuration.admin_timeout.min(15)),
            admin: AdminQueue::default(),
            counters: Counters::new(model.counters),
            faults: Faults::default(),
            commands: BTreeMap::new(),
            queues: Queues::default(),
            send_rings: SendRings::default(),
            fabric,
            in_transit: 0,
            verbose: configuration.verbose,
        }
    }

    /// Its address on the fabric.
    #[must_use]
    pub fn gid(&self) -> Gid {
        self.identity.gid()
    }

    /// What the driver has made.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.queues.counts()
    }

    pub(crate) fn log(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            eprintln!("efa{}: {}", self.index, text());
        }
    }

    pub(crate) fn schedule_command(&mut self) {
        self.admin.scheduled = true;
        self.send(Happening::Command { device: self.index });
    }

    fn send(&self, what: Happening) {
        let after = match what {
            Happening::Command { .. } => self.faults.slow,
            Happening::Posted(_) => Duration::ZERO,
        };
        // Without a fabric, nothing moves.
        let _ = self.fabric.send(Event { after, what });
    }

    fn forget_queues(&mut self) {
        self.admin = AdminQueue::default();
        self.queues.reset();
    }

    fn register(&self, register: u16) -> u32 {
        match register {
            registers::STATUS if self.faults.not_ready => 0,
            _ => self.registers.get(register),
        }
    }

    fn set_register(&mut self, register: u16, value: u32, guest: &Guest) {
        const RESET: u32 = 1;
        match register {
            registers::READ_REQUEST if self.faults.dead_registers => {}
            registers::READ_REQUEST => {
                let wanted = self.register((value >> 16) as u16);
                self.registers.answer(value, wanted, guest);
            }
            registers::CONTROL if value & RESET != 0 => {
                self.forget_queues();
                self.registers.begin_reset();
            }
            registers::CONTROL if self.faults.stuck_reset => {}
            registers::CONTROL => self.registers.end_reset(),
            registers::AQ_DOORBELL => self.commands_written(value as u16, guest),
            registers::EQ_DOORBELL => self.queues.events.doorbell(value, guest),
            _ => self.registers.set(register, value),
        }
        self.log(|| format!("register {register:#04x} = {value:#x}"));
    }

    fn doorbell(&mut self, at: u32, value: u32, guest: &Guest) {
        if at >= CQ_DOORBELLS {
            let queue = (at - CQ_DOORBELLS) / 8;
            self.queues.completion_doorbell(queue as u16, value, guest);
            return;
        }
        let (pair, producer) = ((at / 8) as u16, value as u16);
        if at % 8 == 4 {
            self.queues.pairs.posted(pair, producer);
            return;
        }
        if self.in_transit >= MAX_IN_TRANSIT {
            return;
        }
        let from = (self.index, self.identity.gid());
        let ring = self.send_rings.ring(pair);
        for work in self.queues.sends(from, pair, producer, ring) {
            self.in_transit += 1;
            self.send(Happening::Posted(Box::new(work)));
        }
    }
}

impl PciDevice for Efa {
    fn region_size(&self, region: u32) -> u64 {
        match region {
            pci::REGISTERS => pci::REGISTERS_SIZE,
            pci::SEND_RINGS => SendRings::SIZE,
            pci::DOORBELLS => pci::DOORBELLS_SIZE,
            CONFIG => self.config.size(),
            _ => 0,
        }
    }

    fn vectors(&self) -> u32 {
        u32::from(self.identity.vectors)
    }

    fn read(&mut self, region: u32, offset: u64, data: &mut [u8]) {
        if self.faults.gone {
            data.fill(0xff);
            return;
        }
        data.fill(0);
        match region {
            CONFIG => self.config.read(offset, data),
            pci::REGISTERS if data.len() == 4 => {
                let register = u16::try_from(offset).unwrap_or(u16::MAX);
                data.copy_from_slice(&self.register(register).to_le_bytes());
            }
            _ => {}
        }
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8], guest: &Guest) {
        if self.faults.gone {
            return;
        }
        match region {
            CONFIG => {
                let reset = self.config.write(offset, data);
                if reset {
                    self.reset();
                }
            }
            pci::REGISTERS if data.len() == 4 => {
                let register = u16::try_from(offset).unwrap_or(u16::MAX);
                self.set_register(register, u32_at(data, 0), guest);
            }
            pci::SEND_RINGS => self.send_rings.write(offset, data),
            pci::DOORBELLS if data.len() == 4 && offset < pci::DOORBELLS_SIZE => {
                self.doorbell(offset as u32, u32_at(data, 0), guest);
            }
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.forget_queues();
        self.registers.clear();
        self.config.reset();
    }
}
