//! What can be wrong with a device. What each looks like to the kernel and to
//! libfabric was seen with the drivers of 6.12 and 7.3.

use std::time::Duration;

use serde::Serialize;

/// What is wrong with one device. Interrupts that are lost are in [`crate::Guest`],
/// a closed fabric is in [`crate::fabric::Settings`].
#[derive(Debug, Default, Clone, Serialize)]
pub struct Faults {
    /// Commands are read and never answered: readers of counters hang in D.
    pub dead_admin: bool,
    /// Each command takes this long.
    pub slow: Duration,
    /// Requests to read a register are never answered.
    pub dead_registers: bool,
    /// The device says that it is not ready: the driver does not bind.
    pub not_ready: bool,
    /// A reset never ends: the driver defers its probe, and the device is late.
    pub stuck_reset: bool,
    /// The device has fallen off the bus: all ones, and it hears nothing.
    pub gone: bool,
    /// Commands with an opcode end with a status.
    pub refuse: Option<Refusal>,
}

/// Commands that are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The opcode of the admin queue.
    pub opcode: u8,
    /// What they end with.
    pub status: u8,
}
