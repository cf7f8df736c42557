//! An Elastic Fabric Adapter in software: the device's side of what the kernel's
//! own efa driver, rdma-core and libfabric do, served to QEMU guests over vfio-user.
//!
//! What it is for: the real driver on a device that can fail on purpose. What it is
//! not: a model of AWS's hardware. Its answers are our reading of the driver and of
//! its headers; its timing and its loss prove nothing about a real fabric.
//!
//! It was run with the efa driver of Linux 6.12, rdma-core 56.1, libfabric 2.1 and
//! QEMU 11.1: fi_pingpong, and a program of verbs that waits for each completion by
//! an event, over UD and SRD, also where packets are lost, and reads and writes by
//! RDMA.
//!
//! A guest is hostile input. Every index, address, length, page count and depth that
//! it names is checked, and what it can make is bounded (`limits.rs`).
//!
//! | file | what | known from |
//! |---|---|---|
//! | `vfio_user.rs` | the protocol to QEMU | its specification, QEMU 11.1 |
//! | `guest.rs` | guest memory and interrupts | |
//! | `pci.rs`, `registers.rs` | config space, BARs, registers | the driver |
//! | `device.rs` | one device: its BARs | the driver |
//! | `send_rings.rs` | BAR 2 | the driver |
//! | `admin_queue.rs` | commands, completions, events | the driver's headers |
//! | `features.rs` | models, and what a device says of itself | the driver; numbers chosen |
//! | `counters.rs` | counters of the port | the driver |
//! | `queues/` | queue pairs, completions, event queues, regions, handles | the driver's headers, rdma-core |
//! | `fabric.rs` | SRD and UD between devices, delay and loss | chosen |
//! | `timing.rs` | what a device leaves to the fabric's clock | |
//! | `limits.rs`, `status.rs` | bounds; how commands and work end | chosen; the driver's headers |
//! | `faults.rs` | what can be wrong | |
//! | `control.rs`, `server.rs` | steering, sockets | |

mod admin_queue;
mod bytes;
pub mod control;
mod counters;
mod device;
pub mod fabric;
mod faults;
mod features;
mod guest;
mod limits;
mod pci;
mod queues;
mod registers;
mod send_rings;
pub mod server;
mod status;
#[cfg(test)]
mod tests;
mod timing;
pub mod vfio_user;

pub use counters::{CounterSet, Counters};
pub use device::{Configuration, Efa};
pub use fabric::Fabric;
pub use faults::{Faults, Refusal};
pub use features::{MODELS, Model};
pub use guest::{Guest, Unmapped};
pub use queues::{Counts, Gid};
