//! The client: QEMU's part of vfio-user, and above it what the kernel's driver and
//! rdma-core do with a device.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::{io, ptr};

use crate::bytes::{Fields, phase, u8_at, u16_at, u32_at, u64_at};
use crate::fabric::Port;
use crate::pci;
use crate::registers as reg;
use crate::vfio_user::{CONFIG, serve};

pub(super) const MEMORY: u64 = 32 << 20;
const DEPTH: u16 = 32;
const EVENTS_DEPTH: u16 = 16;

/// A command that has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    Status(u8),
    NoAnswer,
}

/// One guest with one device.
pub(super) struct Driver {
    stream: UnixStream,
    server: Option<JoinHandle<io::Result<()>>>,
    pub(super) memory: File,
    used: u64,
    pub(super) interrupts: Vec<File>,
    requests: u16,
    submission: u64,
    completions: u64,
    submission_base: u64,
    completion_base: u64,
    pub(super) events_base: u64,
    answer: u64,
    pub(super) event_queues: Vec<EventQueue>,
}

pub(super) struct EventQueue {
    pub(super) number: u16,
    base: u64,
    read: u64,
}

fn memory_file() -> File {
    // SAFETY: a name that ends with a zero, and no flags.
    let fd = unsafe { libc::memfd_create(c"guest".as_ptr(), 0) };
    assert!(fd >= 0);
    // SAFETY: just made, and nothing else has it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(MEMORY).unwrap();
    file
}

fn event_file() -> File {
    // SAFETY: two integers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK) };
    assert!(fd >= 0);
    // SAFETY: just made, and nothing else has it.
    unsafe { File::from_raw_fd(fd) }
}

fn send(stream: &UnixStream, message: &[u8], fds: &[RawFd]) {
    let mut control = [0u64; 32];
    let mut vector = libc::iovec {
        iov_base: message.as_ptr().cast_mut().cast(),
        iov_len: message.len(),
    };
    // SAFETY: msghdr is integers and pointers, of which all may be zero.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    let bytes = u32::try_from(size_of_val(fds)).unwrap();
    if !fds.is_empty() {
        header.msg_control = control.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE only computes.
        header.msg_controllen = unsafe { libc::CMSG_SPACE(bytes) } as usize;
        assert!(header.msg_controllen <= size_of_val(&control));
        // SAFETY: the header has a buffer with room for one message.
        let message = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
        // SAFETY: CMSG_LEN only computes.
        let cmsg_len = unsafe { libc::CMSG_LEN(bytes) } as usize;
        let head = libc::cmsghdr {
            cmsg_len,
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        };
        // SAFETY: within the buffer, which is aligned.
        unsafe { ptr::write(message, head) };
        // SAFETY: the data follows the head.
        let data = unsafe { libc::CMSG_DATA(message) };
        // SAFETY: CMSG_SPACE made room for these bytes.
        unsafe { ptr::copy_nonoverlapping(fds.as_ptr().cast(), data, size_of_val(fds)) };
    }
    // SAFETY: the header's pointers are to live locals.
    let sent = unsafe { libc::sendmsg(stream.as_raw_fd(), &raw const header, 0) };
    assert_eq!(usize::try_from(sent).unwrap(), message.len());
}

impl Driver {
    /// As QEMU does: version, memory, regions, interrupts.
    pub(super) fn connect(port: Port) -> Self {
        let (stream, other) = UnixStream::pair().unwrap();
        let server = thread::spawn(move || serve(&other, &port));
        let mut driver = Self {
            stream,
            server: Some(server),
            memory: memory_file(),
            used: 0x1000,
            interrupts: Vec::new(),
            requests: 0,
            submission: 0,
            completions: 0,
            submission_base: 0,
            completion_base: 0,
            events_base: 0,
            answer: 0,
            event_queues: Vec::new(),
        };
        let version = driver.request(1, &Fields::default().u16(0).u16(1).done(), &[]);
        assert!(version.unwrap()[4..].starts_with(b"{\"capabilities\""));
        driver.map(0, MEMORY, 0).unwrap();
        let vectors = driver.request(7, &words(&[16, 0, 2, 0]), &[]).unwrap();
        let vectors = u32_at(&vectors, 12);
        driver.interrupts = (0..vectors).map(|_| event_file()).collect();
        let fds: Vec<RawFd> = driver.interrupts.iter().map(AsRawFd::as_raw_fd).collect();
        driver
            .request(8, &words(&[20, 4, 2, 0, vectors]), &fds)
            .unwrap();
        driver
    }

    /// One message and its reply; an errno if it is an error.
    pub(super) fn request(
        &mut self,
        command: u16,
        body: &[u8],
        fds: &[RawFd],
    ) -> Result<Vec<u8>, u32> {
        self.requests = self.requests.wrapping_add(1);
        let size = u32::try_from(16 + body.len()).unwrap();
        let head = Fields::default().u16(self.requests).u16(command).u32(size);
        let message = head.u32(0).u32(0).bytes(body).done();
        send(&self.stream, &message, fds);
        let mut head = [0; 16];
        self.stream.read_exact(&mut head).unwrap();
        assert_eq!(
            (u16_at(&head, 0), u16_at(&head, 2)),
            (self.requests, command)
        );
        let mut reply = vec![0; u32_at(&head, 4) as usize - 16];
        self.stream.read_exact(&mut reply).unwrap();
        match u32_at(&head, 8) & 1 << 5 {
            0 => Ok(reply),
            _ => Err(u32_at(&head, 12)),
        }
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Leaves, and returns what the server says of it.
    pub(super) fn leave(mut self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Both).unwrap();
        self.server.take().unwrap().join().unwrap()
    }

    /// Waits until the server has thrown this client out.
    pub(super) fn thrown_out(mut self) -> io::Result<()> {
        self.server.take().unwrap().join().unwrap()
    }

    pub(super) fn map(&mut self, address: u64, size: u64, offset: u64) -> Result<Vec<u8>, u32> {
        let body = Fields::default().u32(32).u32(3).u64(offset);
        let body = body.u64(address).u64(size).done();
        let fd = self.memory.as_raw_fd();
        self.request(2, &body, &[fd])
    }

    pub(super) fn unmap(&mut self, address: u64, size: u64) {
        let body = Fields::default().u32(24).u32(0).u64(address).u64(size);
        self.request(3, &body.done(), &[]).unwrap();
    }

    pub(super) fn read_region(&mut self, region: u32, offset: u64, count: u32) -> Vec<u8> {
        let body = Fields::default().u64(offset).u32(region).u32(count).done();
        self.request(9, &body, &[]).unwrap()[16..].to_vec()
    }

    pub(super) fn write_region(&mut self, region: u32, offset: u64, data: &[u8]) {
        let count = u32::try_from(data.len()).unwrap();
        let body = Fields::default().u64(offset).u32(region).u32(count);
        self.request(10, &body.bytes(data).done(), &[]).unwrap();
    }

    pub(super) fn vendor(&mut self) -> u32 {
        u32_at(&self.read_region(CONFIG, 0, 4), 0)
    }

    pub(super) fn region_size(&mut self, region: u32) -> u64 {
        let reply = self.request(5, &words(&[32, 0, region, 0, 0, 0, 0, 0]), &[]);
        u64_at(&reply.unwrap(), 16)
    }

    /// Guest memory that nothing else uses, page by page.
    pub(super) fn allocate(&mut self, bytes: u64) -> u64 {
        let at = self.used;
        self.used += bytes.next_multiple_of(4096);
        assert!(self.used <= MEMORY);
        at
    }

    pub(super) fn put(&self, at: u64, data: &[u8]) {
        self.memory.write_all_at(data, at).unwrap();
    }

    pub(super) fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.memory.read_exact_at(&mut data, at).unwrap();
        data
    }

    pub(super) fn set(&mut self, register: u16, value: u32) {
        self.write_region(pci::REGISTERS, u64::from(register), &value.to_le_bytes());
    }

    fn set_address(&mut self, low: u16, address: u64) {
        self.set(low, address as u32);
        self.set(low + 4, (address >> 32) as u32);
    }

    /// A register, by DMA as the driver reads it. None: no answer.
    pub(super) fn register(&mut self, register: u16) -> Option<u32> {
        self.requests = self.requests.wrapping_add(1);
        let id = self.requests;
        self.put(self.answer, &(!id).to_le_bytes());
        self.set(reg::READ_REQUEST, u32::from(id) | u32::from(register) << 16);
        let answer = self.get(self.answer, 8);
        let same = u16_at(&answer, 0) == id && u16_at(&answer, 2) == register;
        same.then(|| u32_at(&answer, 4))
    }

    /// What the driver does when it binds, in its order. An error is what it would
    /// log.
    pub(super) fn probe(&mut self) -> Result<(), &'static str> {
        const STATUS_RESETTING: u32 = 1 << 3;
        const STATUS_RESET: u32 = 1 << 4;
        self.answer = self.allocate(8);
        self.set_address(reg::READ_ANSWER, self.answer);
        let status = self
            .register(reg::STATUS)
            .ok_or("registers do not answer")?;
        if status & reg::READY == 0 {
            return Err("not ready");
        }
        self.set(reg::CONTROL, 1);
        // A reset clears the address of answers.
        self.set_address(reg::READ_ANSWER, self.answer);
        if self.register(reg::STATUS).ok_or("registers")? & STATUS_RESETTING == 0 {
            return Err("the reset does not begin");
        }
        self.set(reg::CONTROL, 0);
        let status = self.register(reg::STATUS).ok_or("registers")?;
        if status & STATUS_RESET == 0 || status & STATUS_RESETTING != 0 {
            return Err("the reset does not end");
        }
        if self.register(reg::VERSION) != Some(1) {
            return Err("version");
        }
        self.rings();
        self.event_queues()?;
        Ok(())
    }

    fn rings(&mut self) {
        (self.submission, self.completions) = (0, 0);
        self.submission_base = self.allocate(4096);
        self.completion_base = self.allocate(4096);
        self.events_base = self.allocate(4096);
        for base in [self.submission_base, self.completion_base, self.events_base] {
            self.put(base, &[0; 4096]);
        }
        let depth = u32::from(DEPTH);
        self.set_address(reg::AQ_BASE, self.submission_base);
        self.set(reg::AQ_CAPS, depth | 64 << 16);
        self.set_address(reg::ACQ_BASE, self.completion_base);
        self.set(reg::ACQ_CAPS, depth | 64 << 16);
        self.set_address(reg::AENQ_BASE, self.events_base);
        self.set(reg::AENQ_CAPS, u32::from(EVENTS_DEPTH) | 64 << 16);
    }

    fn event_queues(&mut self) -> Result<(), &'static str> {
        const DEPTH: u16 = 64;
        let limits = self.feature(7).map_err(|_| "event queues")?;
        let count = u32_at(&limits, 0);
        for vector in 1..=count {
            let base = self.allocate(u64::from(DEPTH) * 16);
            self.put(base, &vec![0; usize::from(DEPTH) * 16]);
            let body = Fields::default().u16(DEPTH).u8(vector as u8).u8(4);
            let answer = self.admin(18, &body.u64(base).u32(1).done());
            let number = u16_at(&answer.map_err(|_| "an event queue")?, 0);
            self.event_queues.push(EventQueue {
                number,
                base,
                read: 0,
            });
            self.set(reg::EQ_DOORBELL, u32::from(number) | 1 << 31);
        }
        Ok(())
    }

    pub(super) fn feature(&mut self, id: u8) -> Result<Vec<u8>, Failure> {
        let body = Fields::default().bytes(&[0; 12]).u8(1).u8(id);
        self.admin(11, &body.done())
    }

    pub(super) fn stats(&mut self, group: u8) -> Result<Vec<u8>, Failure> {
        let body = Fields::default().bytes(&[0; 12]).u8(group);
        self.admin(13, &body.done())
    }

    /// Writes a command without an answer yet. `body` begins at byte 4.
    pub(super) fn submit(&mut self, opcode: u8, flags: u8, body: &[u8]) {
        let depth = u64::from(DEPTH);
        let flags = flags | phase(self.submission, depth);
        let id = (self.submission % 4096) as u16;
        let command = Fields::default().u16(id).u8(opcode).u8(flags);
        let mut command = command.bytes(body).done();
        command.resize(64, 0);
        let at = self.submission_base + self.submission % depth * 64;
        self.put(at, &command);
        self.submission += 1;
        self.set(reg::AQ_DOORBELL, (self.submission as u16).into());
    }

    /// The next completion.
    pub(super) fn completion(&mut self) -> Result<Vec<u8>, Failure> {
        let depth = u64::from(DEPTH);
        let at = self.completion_base + self.completions % depth * 64;
        let entry = self.get(at, 64);
        if u8_at(&entry, 3) & 1 != phase(self.completions, depth) {
            return Err(Failure::NoAnswer);
        }
        assert_eq!(u16_at(&entry, 0), (self.completions % 4096) as u16);
        self.completions += 1;
        match u8_at(&entry, 2) {
            0 => Ok(entry[8..].to_vec()),
            status => Err(Failure::Status(status)),
        }
    }

    pub(super) fn admin(&mut self, opcode: u8, body: &[u8]) -> Result<Vec<u8>, Failure> {
        self.submit(opcode, 0, body);
        self.completion()
    }

    pub(super) fn admin_with(
        &mut self,
        opcode: u8,
        flags: u8,
        body: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        self.submit(opcode, flags, body);
        self.completion()
    }

    /// How often an interrupt was raised since the last look.
    pub(super) fn raised(&mut self, vector: usize) -> u64 {
        let mut count = [0; 8];
        let read = self.interrupts[vector].read_exact(&mut count);
        read.map_or(0, |()| u64::from_ne_bytes(count))
    }

    /// The completion queues that event queues name, which are armed again after.
    pub(super) fn events(&mut self) -> Vec<u16> {
        const DEPTH: u64 = 64;
        let mut found = Vec::new();
        for index in 0..self.event_queues.len() {
            loop {
                let queue = &self.event_queues[index];
                let at = queue.base + queue.read % DEPTH * 16;
                let entry = self.get(at, 16);
                if u8_at(&entry, 0) & 1 != phase(queue.read, DEPTH) {
                    break;
                }
                found.push(u16_at(&entry, 8));
                self.event_queues[index].read += 1;
            }
            let number = self.event_queues[index].number;
            self.set(reg::EQ_DOORBELL, u32::from(number) | 1 << 31);
        }
        found
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

pub(super) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A file of the test's own as a descriptor to pass.
pub(super) fn owned(file: &File) -> OwnedFd {
    file.try_clone().unwrap().into()
}
