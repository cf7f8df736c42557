//! The fabric between the devices of one process, and the clock of all of them: it
//! takes work to where it goes, and its end back.
//!
//! SRD and UD as far as a driver and a program see them. A real fabric's timing,
//! its paths and its congestion are not modelled: delay and loss are what the
//! configuration says, and prove nothing about AWS.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::device::{Configuration, Efa};
use crate::guest::Guest;
use crate::limits::MAX_RDMA;
use crate::queues::{Access, Arrival, Operation, Payload, Piece, Work};
use crate::status::CompletionStatus;
use crate::timing::{Event, Happening};
use crate::vfio_user::{Slot, lock};

/// A device where a guest and the fabric reach it.
pub type Port = Arc<Mutex<Slot<Efa>>>;

/// Until a lost packet is sent again.
const RETRANSMIT_AFTER: Duration = Duration::from_millis(5);
/// How often a packet is sent before the remote counts as unresponsive.
const MAX_SENDS: u32 = 20;
/// Until work is offered again to a remote that has no buffer posted.
const OFFER_AFTER: Duration = Duration::from_millis(1);
/// How often it is, unless the queue pair repeats for ever.
const MAX_OFFERS: u32 = 2000;
/// Bytes of an RDMA transfer before other work has its turn.
const SLICE: u64 = 1 << 20;

/// What is configured for the whole fabric; may change at any time.
#[derive(Debug, Default)]
pub struct Settings {
    /// Nothing arrives: a security group that does not admit itself.
    pub closed: AtomicBool,
    /// Lost packets of a million.
    pub loss: AtomicU32,
    /// Milliseconds that work takes to arrive.
    pub delay: AtomicU64,
}

/// Something that waits for its time.
#[derive(Debug)]
struct Waiting {
    due: Instant,
    /// Of what is due at the same time, the first comes first.
    order: u64,
    what: Due,
}

#[derive(Debug)]
enum Due {
    Command(usize),
    Work(Transit),
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    /// The greatest is due first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.order).cmp(&(self.due, self.order))
    }
}

/// Work on its way.
#[derive(Debug)]
struct Transit {
    work: Box<Work>,
    /// Packets that did not arrive yet; `None` before the first try.
    packets: Option<u64>,
    sends: u32,
    offers: u32,
    /// Bytes of an RDMA transfer that were copied.
    copied: u64,
}

/// What became of work in its turn.
enum Progress {
    Done(CompletionStatus),
    /// It left nothing behind: its queue pair is gone.
    Forgotten,
    /// It has its next turn after a while.
    Later(Duration),
}

/// The devices and what is between them.
#[derive(Debug)]
pub struct Fabric {
    ports: Vec<Port>,
    settings: Arc<Settings>,
    events: Receiver<Event>,
    waiting: BinaryHeap<Waiting>,
    order: u64,
    random: Random,
}

impl Fabric {
    /// A fabric with so many devices.
    #[must_use]
    pub fn new(configuration: &Configuration, devices: usize, seed: u64) -> Self {
        let (sender, events) = channel();
        let port = |index| {
            let device = Efa::new(index, configuration, sender.clone());
            let guest = Guest::default();
            Arc::new(Mutex::new(Slot { device, guest }))
        };
        Self {
            ports: (0..devices).map(port).collect(),
            settings: Arc::default(),
            events,
            waiting: BinaryHeap::new(),
            order: 0,
            random: Random(seed),
        }
    }

    /// Its devices.
    #[must_use]
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// What may be changed while it runs.
    #[must_use]
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Runs for ever.
    pub fn run(mut self) {
        loop {
            let now = Instant::now();
            let wait = match self.turn(now) {
                Some(due) => due.saturating_duration_since(now),
                None => Duration::from_secs(3600),
            };
            match self.events.recv_timeout(wait) {
                Ok(event) => self.accept(event, Instant::now()),
                Err(RecvTimeoutError::Timeout) => {}
                // The devices, which hold the other end, are this fabric's own.
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Gives everything that is due one turn. Returns when the next thing is due.
    pub fn turn(&mut self, now: Instant) -> Option<Instant> {
        while let Ok(event) = self.events.try_recv() {
            self.accept(event, now);
        }
        let last = self.order;
        // What is put back in this turn has a higher order, and waits for the next.
        let mut again = Vec::new();
        while self.waiting.peek().is_some_and(|it| it.due <= now) {
            let Some(waiting) = self.waiting.pop() else {
                break;
            };
            if waiting.order > last {
                again.push(waiting);
                continue;
            }
            match waiting.what {
                Due::Command(device) => self.command(device),
                Due::Work(transit) => self.advance(transit, now),
            }
        }
        self.waiting.extend(again);
        self.waiting.peek().map(|waiting| waiting.due)
    }

    fn accept(&mut self, event: Event, now: Instant) {
        let due = now + event.after;
        match event.what {
            Happening::Command { device } => self.wait(due, Due::Command(device)),
            Happening::Posted(work) => {
                let delay = Duration::from_millis(self.settings.delay.load(Relaxed));
                let transit = Transit {
                    work,
                    packets: None,
                    sends: 0,
                    offers: 0,
                    copied: 0,
                };
                self.wait(due + delay, Due::Work(transit));
            }
        }
    }

    fn wait(&mut self, due: Instant, what: Due) {
        self.order += 1;
        let order = self.order;
        self.waiting.push(Waiting { due, order, what });
    }

    fn command(&self, device: usize) {
        if let Some(port) = self.ports.get(device) {
            let Slot { device, guest } = &mut *lock(port);
            device.command_is_due(guest);
        }
    }

    fn advance(&mut self, mut transit: Transit, now: Instant) {
        match self.progress(&mut transit) {
            Progress::Later(after) => self.wait(now + after, Due::Work(transit)),
            Progress::Done(status) => self.finish(&transit.work, status),
            Progress::Forgotten => self.left(transit.work.device),
        }
    }

    fn left(&self, device: usize) {
        if let Some(port) = self.ports.get(device) {
            lock(port).device.in_transit -= 1;
        }
    }

    fn progress(&mut self, transit: &mut Transit) -> Progress {
        let work = &transit.work;
        let sender = Arc::clone(&self.ports[work.device]);
        let mtu = {
            let Slot { device, .. } = &*lock(&sender);
            if !device.queues.expects(work) {
                return Progress::Forgotten;
            }
            if let Err(status) = leaves(work, device) {
                return Progress::Done(status);
            }
            u64::from(device.identity.model.mtu)
        };
        let Some(receiver) = self.receiver(work) else {
            return Progress::Done(if work.datagram {
                CompletionStatus::OK
            } else {
                CompletionStatus::UNRESPONSIVE
            });
        };
        if transit.packets != Some(0)
            && let Some(progress) = self.transmit(transit, mtu, &sender)
        {
            return progress;
        }
        deliver(transit, &sender, &receiver)
    }

    /// The port that work goes to, if it answers.
    fn receiver(&self, work: &Work) -> Option<Port> {
        if self.settings.closed.load(Relaxed) {
            return None;
        }
        let there = |port: &&Port| {
            let slot = lock(port);
            Some(slot.device.gid()) == work.to
                && !slot.device.faults.gone
                && slot.guest.is_present()
        };
        self.ports.iter().find(there).cloned()
    }

    /// Sends the packets that did not arrive yet; some may be lost.
    fn transmit(&mut self, transit: &mut Transit, mtu: u64, sender: &Port) -> Option<Progress> {
        let length = length(&transit.work);
        let packets = transit.packets.unwrap_or(packets(length, mtu));
        let loss = self.settings.loss.load(Relaxed);
        let lost = (0..packets).filter(|_| self.random.below(1_000_000) < u64::from(loss));
        let lost = if loss == 0 { 0 } else { lost.count() as u64 };
        transit.packets = Some(lost);
        if lost == 0 {
            return None;
        }
        if transit.work.datagram {
            return Some(Progress::Done(CompletionStatus::OK));
        }
        transit.sends += 1;
        if transit.sends >= MAX_SENDS {
            return Some(Progress::Done(CompletionStatus::UNRESPONSIVE));
        }
        let counters = &mut lock(sender).device.counters;
        counters.add("retrans_pkts", lost);
        counters.add("retrans_bytes", lost.saturating_mul(mtu).min(length));
        Some(Progress::Later(RETRANSMIT_AFTER))
    }

    /// The sender counts what became of its work, and has its completion.
    fn finish(&self, work: &Work, status: CompletionStatus) {
        let Some(port) = self.ports.get(work.device) else {
            return;
        };
        let Slot { device, guest } = &mut *lock(port);
        device.in_transit -= 1;
        let well = status == CompletionStatus::OK;
        let length = if well { length(work) } else { 0 };
        let mtu = u64::from(device.identity.model.mtu);
        let counters = &mut device.counters;
        let failed = u64::from(!well);
        match work.operation {
            Operation::Send => {
                counters.add("send_wrs", 1);
                counters.add("send_bytes", length);
            }
            Operation::Write => {
                counters.add("rdma_write_wrs", 1);
                counters.add("rdma_write_bytes", length);
                counters.add("rdma_write_wr_err", failed);
            }
            Operation::Read => {
                counters.add("rdma_read_wrs", 1);
                counters.add("rdma_read_bytes", length);
                counters.add("rdma_read_wr_err", failed);
                counters.add("rx_bytes", length);
                counters.add("rx_pkts", if well { packets(length, mtu) } else { 0 });
            }
            Operation::Other(_) => {}
        }
        let sent = if work.operation == Operation::Read {
            0
        } else {
            length
        };
        counters.add("tx_bytes", sent);
        counters.add("tx_pkts", packets(sent, mtu));
        if status == CompletionStatus::UNRESPONSIVE {
            counters.add("retrans_timeout_events", 1);
            counters.add("unresponsive_remote_events", 1);
        }
        device.log(|| format!("{work:?}: status {}", status.0));
        device.queues.answered(work, status, guest);
    }
}

/// Bytes of a message or transfer.
fn length(work: &Work) -> u64 {
    match work.operation {
        Operation::Read => u64::from(work.remote.length),
        _ => work.payload.len(),
    }
}

fn packets(length: u64, mtu: u64) -> u64 {
    length.div_ceil(mtu.max(1)).max(1)
}

/// The sender's own memory of an RDMA transfer.
fn local(work: &Work) -> Piece {
    match &work.payload {
        Payload::Gather([local, _], _) => *local,
        Payload::Inline(..) => Piece::default(),
    }
}

/// What the sending device itself finds wrong.
fn leaves(work: &Work, device: &Efa) -> Result<(), CompletionStatus> {
    let model = device.identity.model;
    if let Some(status) = work.failed {
        return Err(status);
    }
    let able = match work.operation {
        Operation::Send => true,
        Operation::Read => model.rdma_read && !work.datagram,
        Operation::Write => model.rdma_write && !work.datagram,
        Operation::Other(_) => false,
    };
    if !able {
        return Err(CompletionStatus::UNSUPPORTED);
    }
    if work.to.is_none() {
        return Err(CompletionStatus::INVALID_HANDLE);
    }
    let (piece, access) = (
        local(work),
        match work.operation {
            Operation::Read => Access::LocalWrite,
            _ => Access::LocalRead,
        },
    );
    if work.operation == Operation::Send {
        let fits = length(work) <= u64::from(model.mtu);
        return if fits {
            Ok(())
        } else {
            Err(CompletionStatus::BAD_LENGTH)
        };
    }
    if piece.length != work.remote.length || piece.length > MAX_RDMA {
        return Err(CompletionStatus::BAD_LENGTH);
    }
    let regions = &device.queues.regions;
    let valid = regions.permits(piece.key, piece.address, u64::from(piece.length), access);
    if valid {
        Ok(())
    } else {
        Err(CompletionStatus::INVALID_KEY)
    }
}

/// All packets of work are at the receiver.
fn deliver(transit: &mut Transit, sender: &Port, receiver: &Port) -> Progress {
    let work = &transit.work;
    if let Err(status) = admits(work, receiver) {
        // Nobody hears of a datagram that is not admitted.
        return Progress::Done(if work.datagram {
            CompletionStatus::OK
        } else {
            status
        });
    }
    let payload = match work.operation {
        Operation::Send => {
            let slot = lock(sender);
            match gather(work, &slot) {
                Some(payload) => payload,
                None => return Progress::Done(CompletionStatus::INVALID_KEY),
            }
        }
        _ => match copy_slice(work, transit.copied, sender, receiver) {
            Ok(copied) => {
                transit.copied = copied;
                if copied < length(work) {
                    return Progress::Later(Duration::ZERO);
                }
                Vec::new()
            }
            Err(status) => return Progress::Done(status),
        },
    };
    let Slot { device, guest } = &mut *lock(receiver);
    let uses_buffer = work.operation == Operation::Send
        || (work.operation == Operation::Write && work.immediate.is_some());
    let arrival = Arrival {
        work,
        payload: &payload,
    };
    let received = if uses_buffer {
        device.queues.receive(&arrival, guest)
    } else {
        Ok(())
    };
    match received {
        Ok(()) => {
            count_received(work, device);
            Progress::Done(CompletionStatus::OK)
        }
        Err(_) if work.datagram => {
            device.counters.add("rx_drops", 1);
            Progress::Done(CompletionStatus::OK)
        }
        Err(CompletionStatus::REMOTE_NOT_READY) if work.patient || transit.offers < MAX_OFFERS => {
            transit.offers = transit.offers.saturating_add(1);
            Progress::Later(OFFER_AFTER)
        }
        Err(status) => Progress::Done(status),
    }
}

/// Whether there is a queue pair that takes the work.
fn admits(work: &Work, receiver: &Port) -> Result<(), CompletionStatus> {
    let device = &mut lock(receiver).device;
    if let Err(status) = device.queues.accepts(work) {
        if work.datagram {
            device.counters.add("rx_drops", 1);
        }
        return Err(status);
    }
    if !device.queues.knows_key(work) {
        device.counters.add("qkey_viol", 1);
        return Err(CompletionStatus::REMOTE_PAIR);
    }
    Ok(())
}

/// The bytes of a send.
fn gather(work: &Work, slot: &Slot<Efa>) -> Option<Vec<u8>> {
    match &work.payload {
        Payload::Inline(bytes, len) => bytes.get(..*len).map(<[u8]>::to_vec),
        Payload::Gather(pieces, count) => {
            let mut payload = Vec::new();
            for piece in pieces.iter().take(*count) {
                let from = payload.len();
                payload.resize(from + piece.length as usize, 0);
                let place = (piece.key, piece.address);
                let data = &mut payload[from..];
                let regions = &slot.device.queues.regions;
                if !regions.load(&slot.guest, place, Access::LocalRead, data) {
                    return None;
                }
            }
            Some(payload)
        }
    }
}

/// Copies the next part of an RDMA transfer. Returns how much was copied so far.
fn copy_slice(
    work: &Work,
    copied: u64,
    sender: &Port,
    receiver: &Port,
) -> Result<u64, CompletionStatus> {
    const CHUNK: usize = 64 << 10;
    let (local, remote) = (local(work), work.remote);
    let total = u64::from(remote.length);
    let remote_access = match work.operation {
        Operation::Read => Access::RemoteRead,
        _ => Access::RemoteWrite,
    };
    {
        let regions = &lock(receiver).device.queues.regions;
        if !regions.permits(remote.key, remote.address, total, remote_access) {
            return Err(CompletionStatus::REMOTE_ADDRESS);
        }
    }
    let load = |port: &Port, piece: Piece, at: u64, access, data: &mut [u8]| {
        let slot = lock(port);
        let place = (piece.key, piece.address.wrapping_add(at));
        slot.device
            .queues
            .regions
            .load(&slot.guest, place, access, data)
    };
    let store = |port: &Port, piece: Piece, at: u64, access, data: &[u8]| {
        let slot = lock(port);
        let place = (piece.key, piece.address.wrapping_add(at));
        slot.device
            .queues
            .regions
            .store(&slot.guest, place, access, data)
    };
    let mut buffer = vec![0; CHUNK];
    let end = copied.saturating_add(SLICE).min(total);
    let mut at = copied;
    while at < end {
        let data = &mut buffer[..((end - at) as usize).min(CHUNK)];
        let (here, there) = if work.operation == Operation::Read {
            let there = load(receiver, remote, at, Access::RemoteRead, data);
            (
                !there || store(sender, local, at, Access::LocalWrite, data),
                there,
            )
        } else {
            let here = load(sender, local, at, Access::LocalRead, data);
            (
                here,
                !here || store(receiver, remote, at, Access::RemoteWrite, data),
            )
        };
        if !here {
            return Err(CompletionStatus::INVALID_KEY);
        }
        if !there {
            return Err(CompletionStatus::REMOTE_ADDRESS);
        }
        at += data.len() as u64;
    }
    Ok(at)
}

fn count_received(work: &Work, device: &mut Efa) {
    let length = length(work);
    let packets = packets(length, u64::from(device.identity.model.mtu));
    let counters = &mut device.counters;
    match work.operation {
        Operation::Send => {
            counters.add("recv_wrs", 1);
            counters.add("recv_bytes", length);
        }
        Operation::Write => counters.add("rdma_write_recv_bytes", length),
        _ => {
            counters.add("rdma_read_resp_bytes", length);
            counters.add("tx_bytes", length);
            counters.add("tx_pkts", packets);
            // The request.
            counters.add("rx_pkts", 1);
            return;
        }
    }
    counters.add("rx_bytes", length);
    counters.add("rx_pkts", packets);
}

/// A sequence that is the same for the same seed (SplitMix64).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % limit
    }
}
