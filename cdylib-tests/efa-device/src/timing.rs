//! What a device leaves to the fabric, whose clock it has.

use std::time::Duration;

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
    /// When it is due, from the moment at which the fabric hears of it.
    pub(crate) after: Duration,
    pub(crate) what: Happening,
}
