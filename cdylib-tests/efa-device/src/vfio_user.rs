//! The server's side of the vfio-user protocol (version 0.0), as far as QEMU's
//! `vfio-user-pci` uses it: one PCI device, one client, MSI-X by eventfd, and DMA
//! to guest memory whose files the client passes.
//!
//! Known from the protocol's specification in QEMU's documentation, and from
//! QEMU 11.1, which was run against it.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use crate::bytes::{Fields, u16_at, u32_at, u64_at};
use crate::guest::Guest;

/// Regions by index: BARs 0-5, the ROM, config space, VGA.
pub const CONFIG: u32 = 7;
const REGIONS: u32 = 9;
/// Interrupts by index: INTx, MSI, MSI-X, errors, requests.
const MSIX: u32 = 2;
const INTERRUPTS: u32 = 5;

const HEADER: usize = 16;
/// A message is a header and at most one transfer.
const MAX_MESSAGE: usize = 2 << 20;
const MAX_TRANSFER: u32 = 1 << 20;

const VERSION: u16 = 1;
const DMA_MAP: u16 = 2;
const DMA_UNMAP: u16 = 3;
const GET_INFO: u16 = 4;
const GET_REGION_INFO: u16 = 5;
const GET_IRQ_INFO: u16 = 7;
const SET_IRQS: u16 = 8;
const REGION_READ: u16 = 9;
const REGION_WRITE: u16 = 10;
const RESET: u16 = 13;

const REPLY: u32 = 1;
const TYPE_MASK: u32 = 0xf;
const NO_REPLY: u32 = 1 << 4;
const ERROR: u32 = 1 << 5;

/// A PCI device that is served.
pub trait PciDevice: Send {
    /// The size of a region, 0 for none.
    fn region_size(&self, region: u32) -> u64;
    /// The number of MSI-X vectors.
    fn vectors(&self) -> u32;
    /// The guest reads a region.
    fn read(&mut self, region: u32, offset: u64, data: &mut [u8]);
    /// The guest writes to a region.
    fn write(&mut self, region: u32, offset: u64, data: &[u8], guest: &Guest);
    /// The client resets the device.
    fn reset(&mut self);
}

/// A device in its slot: what the guest and the fabric share under one lock.
#[derive(Debug)]
pub struct Slot<D> {
    /// The device.
    pub device: D,
    /// The guest that has it.
    pub guest: Guest,
}

/// Locks; a thread that panicked has left nothing that is worse than what a guest
/// may do.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves one client until it leaves.
///
/// # Errors
/// The connection failed, or the client does not speak the protocol.
pub fn serve<D: PciDevice>(stream: &UnixStream, slot: &Mutex<Slot<D>>) -> io::Result<()> {
    let served = converse(stream, slot);
    let mut slot = lock(slot);
    slot.guest.forget();
    slot.device.reset();
    served
}

fn converse<D: PciDevice>(mut stream: &UnixStream, slot: &Mutex<Slot<D>>) -> io::Result<()> {
    loop {
        let mut header = [0; HEADER];
        let mut fds = Vec::new();
        if !receive(stream, &mut header, &mut fds)? {
            return Ok(());
        }
        let (id, command) = (u16_at(&header, 0), u16_at(&header, 2));
        let (size, flags) = (u32_at(&header, 4) as usize, u32_at(&header, 8));
        if !(HEADER..=MAX_MESSAGE).contains(&size) {
            return Err(io::Error::other(format!("a message of {size} bytes")));
        }
        let mut body = vec![0; size - HEADER];
        stream.read_exact(&mut body)?;
        if flags & TYPE_MASK == REPLY {
            continue;
        }
        let answer = answer(&mut lock(slot), command, &body, fds);
        if flags & NO_REPLY != 0 {
            continue;
        }
        let (flags, errno, body) = match answer {
            Ok(body) => (REPLY, 0, body),
            Err(errno) => (REPLY | ERROR, errno.unsigned_abs(), Vec::new()),
        };
        let length = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
        let message = Fields::default().u16(id).u16(command).u32(length);
        let message = message.u32(flags).u32(errno).bytes(&body).done();
        stream.write_all(&message)?;
    }
}

/// The body of the reply to a command.
///
/// # Errors
/// An errno for the client.
pub fn answer<D: PciDevice>(
    slot: &mut Slot<D>,
    command: u16,
    body: &[u8],
    mut fds: Vec<OwnedFd>,
) -> Result<Vec<u8>, i32> {
    let Slot { device, guest } = slot;
    let at_least = |len: usize| {
        let enough = body.len() >= len;
        if enough { Ok(()) } else { Err(libc::EINVAL) }
    };
    match command {
        VERSION => version(body),
        GET_INFO => {
            const RESETS: u32 = 1;
            const PCI: u32 = 2;
            let info = Fields::default().u32(16).u32(RESETS | PCI);
            Ok(info.u32(REGIONS).u32(INTERRUPTS).done())
        }
        GET_REGION_INFO => {
            at_least(16)?;
            const READ_WRITE: u32 = 3;
            let region = u32_at(body, 8);
            let size = device.region_size(region);
            let flags = if size > 0 { READ_WRITE } else { 0 };
            let info = Fields::default().u32(32).u32(flags).u32(region).u32(0);
            Ok(info.u64(size).u64(0).done())
        }
        GET_IRQ_INFO => {
            at_least(12)?;
            const EVENTFD: u32 = 1;
            let index = u32_at(body, 8);
            let count = if index == MSIX { device.vectors() } else { 0 };
            let info = Fields::default().u32(16).u32(EVENTFD);
            Ok(info.u32(index).u32(count).done())
        }
        SET_IRQS => {
            at_least(20)?;
            set_interrupts(body, fds, device.vectors(), guest)
        }
        DMA_MAP => {
            at_least(32)?;
            // Memory without a file (a ROM) holds no queue.
            if let Some(fd) = fds.pop() {
                guest.map(u64_at(body, 16), u64_at(body, 24), u64_at(body, 8), fd)?;
            }
            Ok(Vec::new())
        }
        DMA_UNMAP => {
            at_least(24)?;
            const ALL: u32 = 2;
            if u32_at(body, 4) & ALL != 0 {
                guest.unmap_all();
            } else {
                guest.unmap(u64_at(body, 8), u64_at(body, 16));
            }
            Ok(body[..24].to_vec())
        }
        REGION_READ => {
            at_least(16)?;
            let count = u32_at(body, 12);
            if count > MAX_TRANSFER {
                return Err(libc::EINVAL);
            }
            let mut reply = body[..16].to_vec();
            reply.resize(16 + count as usize, 0);
            device.read(u32_at(body, 8), u64_at(body, 0), &mut reply[16..]);
            Ok(reply)
        }
        REGION_WRITE => {
            at_least(16)?;
            let end = 16usize.checked_add(u32_at(body, 12) as usize);
            let data = end.and_then(|end| body.get(16..end)).ok_or(libc::EINVAL)?;
            device.write(u32_at(body, 8), u64_at(body, 0), data, guest);
            Ok(body[..16].to_vec())
        }
        RESET => {
            device.reset();
            Ok(Vec::new())
        }
        _ => Err(libc::ENOSYS),
    }
}

fn version(body: &[u8]) -> Result<Vec<u8>, i32> {
    const MAJOR: u16 = 0;
    if body.len() < 4 || u16_at(body, 0) != MAJOR {
        return Err(libc::EINVAL);
    }
    let capabilities = br#"{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":1048576,"pgsizes":4096,"max_dma_maps":8192}}"#;
    let version = Fields::default().u16(MAJOR).u16(0);
    Ok(version.bytes(capabilities).u8(0).done())
}

fn set_interrupts(
    body: &[u8],
    fds: Vec<OwnedFd>,
    vectors: u32,
    guest: &mut Guest,
) -> Result<Vec<u8>, i32> {
    const BY_EVENTFD: u32 = 4;
    let [flags, index, start, count] = [4, 8, 12, 16].map(|at| u32_at(body, at));
    if index != MSIX {
        return Ok(Vec::new());
    }
    if flags & BY_EVENTFD == 0 {
        if count == 0 {
            guest.clear_interrupts();
        }
        return Ok(Vec::new());
    }
    let end = start.checked_add(count).filter(|end| *end <= vectors);
    end.ok_or(libc::EINVAL)?;
    guest.set_interrupts(start as usize, count as usize, fds.into_iter());
    Ok(Vec::new())
}

/// Reads exactly `data.len()` bytes and the descriptors that come with them. False:
/// the client has left.
pub(crate) fn receive(
    stream: &UnixStream,
    data: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<bool> {
    let mut done = 0;
    while done < data.len() {
        match receive_some(stream, &mut data[done..], fds) {
            Ok(0) if done == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(some) => done += some,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// One recvmsg.
fn receive_some(stream: &UnixStream, data: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    // Aligned for a cmsghdr; what does not fit, the kernel closes.
    let mut control = [0u64; 16];
    let mut vector = libc::iovec {
        iov_base: data.as_mut_ptr().cast(),
        iov_len: data.len(),
    };
    // SAFETY: msghdr is integers and pointers, of which all may be zero.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    // SAFETY: the header's pointers are to live locals of the lengths beside them,
    // which recvmsg does not exceed.
    let got = unsafe { libc::recvmsg(stream.as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: recvmsg filled the header in.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !message.is_null() {
        take_descriptors(message, fds);
        // SAFETY: the message is one of this header.
        message = unsafe { libc::CMSG_NXTHDR(&raw const header, message) };
    }
    Ok(got)
}

/// The descriptors of one control message that recvmsg has filled in.
fn take_descriptors(message: *const libc::cmsghdr, fds: &mut Vec<OwnedFd>) {
    // SAFETY: the caller's pointer is to a control message within a live buffer.
    let head = unsafe { ptr::read(message) };
    if (head.cmsg_level, head.cmsg_type) != (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
        return;
    }
    // SAFETY: CMSG_LEN only computes.
    let head_len = unsafe { libc::CMSG_LEN(0) } as usize;
    // SAFETY: the data follows the head within the same buffer.
    let data = unsafe { libc::CMSG_DATA(message) };
    let first: *const RawFd = data.cast();
    let count = head.cmsg_len.saturating_sub(head_len) / size_of::<RawFd>();
    for index in 0..count {
        // SAFETY: `count` descriptors fit into the message's length.
        let place = unsafe { first.add(index) };
        // SAFETY: as above; control data need not be aligned.
        let fd = unsafe { place.read_unaligned() };
        // SAFETY: the kernel made this descriptor for us, and nothing else has it.
        fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
    }
}
