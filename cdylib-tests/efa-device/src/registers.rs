//! The registers in BAR 0. The driver only writes them: it reads one by asking for
//! it, and the device answers by DMA.
//!
//! Known from the kernel's driver (6.12 and 7.3), which ran against them.

use crate::bytes::Fields;
use crate::guest::Guest;

pub(crate) const VERSION: u16 = 0x00;
pub(crate) const CONTROLLER_VERSION: u16 = 0x04;
pub(crate) const CAPS: u16 = 0x08;
pub(crate) const AQ_BASE: u16 = 0x10;
pub(crate) const AQ_CAPS: u16 = 0x18;
pub(crate) const ACQ_BASE: u16 = 0x20;
pub(crate) const ACQ_CAPS: u16 = 0x28;
pub(crate) const AQ_DOORBELL: u16 = 0x2c;
pub(crate) const AENQ_CAPS: u16 = 0x34;
pub(crate) const AENQ_BASE: u16 = 0x38;
pub(crate) const INTERRUPT_MASK: u16 = 0x4c;
pub(crate) const CONTROL: u16 = 0x54;
pub(crate) const STATUS: u16 = 0x58;
pub(crate) const READ_REQUEST: u16 = 0x5c;
pub(crate) const READ_ANSWER: u16 = 0x60;
pub(crate) const EQ_DOORBELL: u16 = 0x68;
/// Just past the last register.
const END: u16 = 0x70;

/// Bits of `STATUS`.
pub(crate) const READY: u32 = 1;
const RESETTING: u32 = 1 << 3;
const RESET_DONE: u32 = 1 << 4;

/// The registers' values.
#[derive(Debug)]
pub(crate) struct Registers {
    words: [u32; END as usize / 4],
    status: u32,
    /// The time limit of the admin queue, in units of 100 ms; 0: the driver's own.
    admin_timeout: u32,
}

impl Registers {
    pub(crate) fn new(admin_timeout: u32) -> Self {
        Self {
            words: [0; END as usize / 4],
            status: READY,
            admin_timeout,
        }
    }

    pub(crate) fn get(&self, register: u16) -> u32 {
        const CONTIGUOUS: u32 = 1;
        /// In units of 100 ms.
        const RESET_TIMEOUT: u32 = 20;
        const ADDRESS_BITS: u32 = 48;
        match register {
            VERSION | CONTROLLER_VERSION => 1,
            CAPS => CONTIGUOUS | RESET_TIMEOUT << 1 | ADDRESS_BITS << 8 | self.admin_timeout << 16,
            STATUS => self.status,
            _ => {
                let word = self.words.get(usize::from(register / 4));
                word.copied().unwrap_or(0)
            }
        }
    }

    pub(crate) fn set(&mut self, register: u16, value: u32) {
        if let Some(word) = self.words.get_mut(usize::from(register / 4)) {
            *word = value;
        }
    }

    /// An address in a pair of registers.
    pub(crate) fn address(&self, low: u16) -> u64 {
        u64::from(self.get(low)) | u64::from(self.get(low + 4)) << 32
    }

    /// The depth of a ring, if it is one that an index can run through.
    pub(crate) fn depth(&self, caps: u16) -> Option<u16> {
        const MAX_DEPTH: u16 = 4096;
        let depth = self.get(caps) as u16;
        (depth.is_power_of_two() && depth <= MAX_DEPTH).then_some(depth)
    }

    pub(crate) fn begin_reset(&mut self) {
        self.words.fill(0);
        self.status = READY | RESETTING;
    }

    pub(crate) fn end_reset(&mut self) {
        self.status = READY | RESET_DONE;
    }

    /// As after power-on.
    pub(crate) fn clear(&mut self) {
        self.words.fill(0);
        self.status = READY;
    }

    /// Answers a request to read: the register's value and number, then the number
    /// of the request, which the driver polls.
    pub(crate) fn answer(&self, request: u32, value: u32, guest: &Guest) {
        let (id, register) = (request as u16, (request >> 16) as u16);
        let to = self.address(READ_ANSWER);
        let rest = Fields::default().u16(register).u32(value).done();
        // A driver that named no memory gets no answer.
        if guest.store(to.wrapping_add(2), &rest).is_ok() {
            let _ = guest.store(to, &id.to_le_bytes());
        }
    }
}
