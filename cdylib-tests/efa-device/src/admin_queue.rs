//! The admin queue: commands of 64 bytes and their completions, and the queue of
//! events (AENQ) that the device sends on its own.
//!
//! Known from the kernel's driver and its headers.

use crate::bytes::{Fields, phase, u8_at, u16_at, u64_at};
use crate::device::Efa;
use crate::features;
use crate::guest::Guest;
use crate::limits::LIMITS;
use crate::registers;
use crate::status::Status;

// Opcodes.
const CREATE_QP: u8 = 1;
const MODIFY_QP: u8 = 2;
const QUERY_QP: u8 = 3;
const DESTROY_QP: u8 = 4;
const CREATE_AH: u8 = 5;
const DESTROY_AH: u8 = 6;
const REG_MR: u8 = 7;
const DEREG_MR: u8 = 8;
const CREATE_CQ: u8 = 9;
const DESTROY_CQ: u8 = 10;
const GET_FEATURE: u8 = 11;
const SET_FEATURE: u8 = 12;
const GET_STATS: u8 = 13;
const ALLOC_PD: u8 = 14;
const DEALLOC_PD: u8 = 15;
const ALLOC_UAR: u8 = 16;
const DEALLOC_UAR: u8 = 17;
const CREATE_EQ: u8 = 18;
const DESTROY_EQ: u8 = 19;

/// Bytes of a command and of a completion.
const ENTRY: usize = 64;

/// Where the device is in its rings.
#[derive(Debug, Default)]
pub(crate) struct AdminQueue {
    /// Commands that were read, as the driver's index.
    submitted: u16,
    /// Commands that the driver has written.
    producer: u16,
    /// Completions ever written.
    completed: u64,
    /// Events ever written.
    events: u64,
    /// A slow device: the next command's time is set.
    pub(crate) scheduled: bool,
}

impl Efa {
    /// The doorbell: the driver has written commands up to `producer`.
    pub(crate) fn commands_written(&mut self, producer: u16, guest: &Guest) {
        self.admin.producer = producer;
        if self.faults.slow.is_zero() {
            while self.next_command(guest) {}
        } else if !self.admin.scheduled && self.has_command() {
            self.schedule_command();
        }
    }

    /// A slow device has done one command.
    pub(crate) fn command_is_due(&mut self, guest: &Guest) {
        if !std::mem::take(&mut self.admin.scheduled) {
            return;
        }
        self.next_command(guest);
        if self.has_command() {
            self.schedule_command();
        }
    }

    /// The depth of the commands' ring, if there is a command in it.
    fn command_ring(&self) -> Option<u16> {
        let size = self.registers.get(registers::AQ_CAPS) >> 16;
        let depth = self.registers.depth(registers::AQ_CAPS)?;
        let waiting = self.admin.producer.wrapping_sub(self.admin.submitted);
        // More than the ring holds: the driver's index is wrong.
        let valid = size as usize == ENTRY && (1..=depth).contains(&waiting);
        (valid && !self.faults.dead_admin && !self.faults.gone).then_some(depth)
    }

    fn has_command(&self) -> bool {
        self.command_ring().is_some()
    }

    /// Carries out one command. False: there is none.
    fn next_command(&mut self, guest: &Guest) -> bool {
        let Some(depth) = self.command_ring() else {
            return false;
        };
        let index = u64::from(self.admin.submitted % depth);
        self.admin.submitted = self.admin.submitted.wrapping_add(1);
        let base = self.registers.address(registers::AQ_BASE);
        let mut command = [0; ENTRY];
        let at = base.wrapping_add(index * ENTRY as u64);
        if guest.load(at, &mut command).is_ok() {
            self.command(&command, guest);
        }
        true
    }

    fn command(&mut self, command: &[u8; ENTRY], guest: &Guest) {
        let opcode = u8_at(command, 2);
        *self.commands.entry(opcode).or_default() += 1;
        let result = match self.faults.refuse {
            Some(refused) if refused.opcode == opcode => Err(Status(refused.status)),
            _ => self.result(opcode, command, guest),
        };
        self.log(|| match &result {
            Ok(data) => format!("command {opcode}: {} bytes", data.len()),
            Err(status) => format!("command {opcode}: status {}", status.0),
        });
        let Some(depth) = self.registers.depth(registers::ACQ_CAPS) else {
            return;
        };
        let (status, data) = match result {
            Ok(data) => (0, data),
            Err(status) => (status.0, Vec::new()),
        };
        let (index, depth) = (self.admin.completed, u64::from(depth));
        self.admin.completed += 1;
        let base = self.registers.address(registers::ACQ_BASE);
        let at = base.wrapping_add(index % depth * ENTRY as u64);
        let rest = Fields::default().u16(0).u16(self.admin.submitted);
        let mut rest = rest.bytes(&data).done();
        rest.resize(ENTRY - 4, 0);
        let head = Fields::default().bytes(&command[..2]).u8(status).done();
        // The phase says that the rest is valid, so its byte goes last.
        let flags = [phase(index, depth)];
        let stored = guest
            .store(at.wrapping_add(4), &rest)
            .and_then(|()| guest.store(at, &head))
            .and_then(|()| guest.store(at.wrapping_add(3), &flags));
        const MASKED: u32 = 1;
        let masked = self.registers.get(registers::INTERRUPT_MASK) & MASKED != 0;
        if stored.is_ok() && !masked {
            guest.interrupt((self.registers.get(registers::ACQ_CAPS) >> 24) as usize);
        }
    }

    /// The answer to a command: what follows the head of its completion.
    fn result(
        &mut self,
        opcode: u8,
        command: &[u8; ENTRY],
        guest: &Guest,
    ) -> Result<Vec<u8>, Status> {
        let queues = &mut self.queues;
        match opcode {
            CREATE_QP => queues.create_pair(command),
            MODIFY_QP => queues.pairs.modify(command),
            QUERY_QP => queues.pairs.query(command),
            DESTROY_QP => queues.pairs.destroy(command),
            CREATE_AH => queues.handles.create(command),
            DESTROY_AH => queues.handles.destroy(command),
            REG_MR => queues.regions.register(command, guest),
            DEREG_MR => queues.regions.deregister(command),
            CREATE_CQ => queues.create_completions(command),
            DESTROY_CQ => queues.destroy_completions(command),
            GET_FEATURE => self.identity.feature(u8_at(command, 17), &LIMITS),
            SET_FEATURE => self.set_feature(command, guest),
            GET_STATS => {
                let group = self.counters.group(u8_at(command, 16));
                group.ok_or(Status::UNSUPPORTED_OPCODE)
            }
            ALLOC_PD => queues.domains.allocate(LIMITS.domains),
            DEALLOC_PD => queues.domains.free(u16_at(command, 4)),
            ALLOC_UAR => queues.user_regions.allocate(LIMITS.domains),
            DEALLOC_UAR => queues.user_regions.free(u16_at(command, 4)),
            CREATE_EQ => queues.events.create(command, self.identity.vectors),
            DESTROY_EQ => queues.events.destroy(u16_at(command, 4)),
            _ => Err(Status::UNSUPPORTED_OPCODE),
        }
    }

    /// What the driver sets has no effect here: every event is sent, and the host's
    /// description is only shown.
    fn set_feature(&mut self, command: &[u8; ENTRY], guest: &Guest) -> Result<Vec<u8>, Status> {
        if u8_at(command, 17) == features::HOST {
            let mut info = [0; 180];
            let at = u64_at(command, 8);
            guest
                .load(at, &mut info)
                .map_err(|_| Status::ILLEGAL_PARAMETER)?;
            let text = |bytes: &[u8]| {
                let text = String::from_utf8_lossy(bytes);
                let text = text.split('\0').next().unwrap_or_default();
                text.escape_default().to_string()
            };
            self.log(|| format!("the host is Linux {}", text(&info[4..132])));
        }
        Ok(Vec::new())
    }

    /// Sends an event. False: the driver has set up no queue for it.
    pub(crate) fn event(&mut self, group: u16, syndrome: u16, guest: &Guest) -> bool {
        let Some(depth) = self.registers.depth(registers::AENQ_CAPS) else {
            return false;
        };
        let (index, depth) = (self.admin.events, u64::from(depth));
        self.admin.events += 1;
        let base = self.registers.address(registers::AENQ_BASE);
        let at = base.wrapping_add(index % depth * ENTRY as u64);
        let head = Fields::default().u16(group).u16(syndrome).done();
        // The phase says that the rest is valid, so its byte goes last.
        let flags = [phase(index, depth)];
        let stored = guest
            .store(at, &head)
            .and_then(|()| guest.store(at.wrapping_add(5), &[0; ENTRY - 5]))
            .and_then(|()| guest.store(at.wrapping_add(4), &flags));
        guest.interrupt((self.registers.get(registers::AENQ_CAPS) >> 24) as usize);
        stored.is_ok()
    }
}
