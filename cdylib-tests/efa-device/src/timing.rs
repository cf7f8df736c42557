//! What a device leaves to the fabric, whose clock it has.

use std::time::Instant;

use crate::queues::Work;

/// What happens at a time.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A slow device has done a command.
    Command { device: usize },
    /// A driver has posted work.
    Posted(Box<Work>),
}

#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) due: Instant,
    pub(crate) what: Happening,
}
