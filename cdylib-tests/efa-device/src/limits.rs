//! How much a guest may make and ask for, and where its doorbells are.

/// Where the doorbells of completion queues begin in the doorbells' BAR; those of
/// queue pairs come before.
pub(crate) const CQ_DOORBELLS: u32 = 0x8000;

/// How much a driver may make: the bounds on this process's memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) pairs: u32,
    pub(crate) send_depth: u32,
    pub(crate) inline: u32,
    pub(crate) receive_depth: u32,
    pub(crate) completion_queues: u32,
    pub(crate) completion_depth: u32,
    pub(crate) regions: u32,
    /// Pages of all regions together: 8 GiB in pages of 4 KiB.
    pub(crate) pages: u32,
    pub(crate) domains: u32,
    pub(crate) handles: u32,
}

/// libfabric asks for completion queues as deep as a send and a receive queue
/// together.
pub(crate) const LIMITS: Limits = Limits {
    pairs: 63,
    send_depth: 4096,
    inline: 32,
    receive_depth: 8192,
    completion_queues: 512,
    completion_depth: 32768,
    regions: 65536,
    pages: 1 << 21,
    domains: 256,
    handles: 2048,
};

/// Bytes of one RDMA transfer.
pub(crate) const MAX_RDMA: u32 = 1 << 30;
/// Entries of an event queue.
pub(crate) const MAX_EVENTS: u32 = 1024;
/// Bytes of an entry of a send ring.
pub(crate) const SEND_ENTRY: u32 = 64;
/// Bytes of BAR 2 for the send ring of one queue pair.
pub(crate) const SEND_RING: u32 = LIMITS.send_depth * SEND_ENTRY;
