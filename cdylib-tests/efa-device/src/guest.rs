//! The device's way to a guest: its memory, which a device reads and writes by
//! DMA, and its interrupts.
//!
//! Memory is accessed by pread and pwrite on the files that the client passes,
//! never mapped: a file that is cut short is an error, not a SIGBUS, and the
//! kernel copies what the guest writes at the same time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

/// QEMU needs some tens of sections.
const MAX_SECTIONS: usize = 8192;

/// The guest named an address that is not its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unmapped;

#[derive(Debug)]
struct Section {
    size: u64,
    /// Where it begins in the file.
    offset: u64,
    file: Arc<File>,
}

/// A guest's memory and interrupts, as far as the client has passed them.
#[derive(Debug, Default)]
pub struct Guest {
    /// By the address of their first byte; they do not overlap.
    memory: BTreeMap<u64, Section>,
    interrupts: Vec<Option<File>>,
    /// Interrupts are lost: a fault.
    pub muted: bool,
}

impl Guest {
    /// Calls `each` with the file, the offset in it and the range of the data for
    /// every piece of guest memory.
    fn pieces(
        &self,
        address: u64,
        len: usize,
        mut each: impl FnMut(&File, u64, std::ops::Range<usize>) -> io::Result<()>,
    ) -> Result<(), Unmapped> {
        let mut done = 0;
        while done < len {
            let from = address.checked_add(done as u64).ok_or(Unmapped)?;
            let (start, section) = self.memory.range(..=from).next_back().ok_or(Unmapped)?;
            let within = from - start;
            let left = section.size.checked_sub(within).filter(|left| *left > 0);
            let left = usize::try_from(left.ok_or(Unmapped)?).unwrap_or(usize::MAX);
            let end = done + left.min(len - done);
            each(&section.file, section.offset + within, done..end).map_err(|_| Unmapped)?;
            done = end;
        }
        Ok(())
    }

    /// Reads guest memory.
    ///
    /// # Errors
    /// A part of it is not the guest's memory.
    pub fn load(&self, address: u64, data: &mut [u8]) -> Result<(), Unmapped> {
        let len = data.len();
        self.pieces(address, len, |file, offset, range| {
            file.read_exact_at(&mut data[range], offset)
        })
    }

    /// Writes guest memory. Two calls are seen in their order.
    ///
    /// # Errors
    /// A part of it is not the guest's memory.
    pub fn store(&self, address: u64, data: &[u8]) -> Result<(), Unmapped> {
        self.pieces(address, data.len(), |file, offset, range| {
            file.write_all_at(&data[range], offset)
        })
    }

    /// Raises an MSI-X vector.
    pub fn interrupt(&self, vector: usize) {
        if self.muted {
            return;
        }
        if let Some(Some(event)) = self.interrupts.get(vector) {
            // Full is raised already.
            let _ = (&*event).write(&1u64.to_ne_bytes());
        }
    }

    /// Adds a section of guest memory.
    ///
    /// # Errors
    /// An errno: the section wraps, overlaps another, is longer than its file, or
    /// there are too many.
    pub fn map(&mut self, address: u64, size: u64, offset: u64, fd: OwnedFd) -> Result<(), i32> {
        let file = File::from(fd);
        let metadata = file.metadata().map_err(|_| libc::EINVAL)?;
        // What is not a file of bytes (a device's window) holds no queue.
        if !metadata.is_file() {
            return Ok(());
        }
        let end = address.checked_add(size).ok_or(libc::EINVAL)?;
        let last = offset.checked_add(size).ok_or(libc::EINVAL)?;
        if size == 0 || last > metadata.len() {
            return Err(libc::EINVAL);
        }
        let before = self.memory.range(..end).next_back();
        if before.is_some_and(|(start, section)| start + section.size > address) {
            return Err(libc::EEXIST);
        }
        if self.memory.len() >= MAX_SECTIONS {
            return Err(libc::ENOSPC);
        }
        let file = self.known(&metadata).unwrap_or_else(|| Arc::new(file));
        let section = Section { size, offset, file };
        self.memory.insert(address, section);
        Ok(())
    }

    /// QEMU passes the same file for every section: one descriptor is kept.
    fn known(&self, metadata: &std::fs::Metadata) -> Option<Arc<File>> {
        let same = |file: &File| {
            file.metadata()
                .is_ok_and(|it| (it.dev(), it.ino()) == (metadata.dev(), metadata.ino()))
        };
        let mut files = self.memory.values().map(|section| &section.file);
        files.find(|file| same(file)).cloned()
    }

    /// Whether a guest is there: one that has memory.
    #[must_use]
    pub fn is_present(&self) -> bool {
        !self.memory.is_empty()
    }

    /// Removes the sections that begin in a range.
    pub fn unmap(&mut self, address: u64, size: u64) {
        self.memory
            .retain(|start, _| !(*start >= address && start - address < size));
    }

    /// Removes all sections.
    pub fn unmap_all(&mut self) {
        self.memory.clear();
    }

    /// Takes the eventfds of some vectors, beginning with `first`.
    pub(crate) fn set_interrupts(
        &mut self,
        first: usize,
        count: usize,
        mut fds: impl Iterator<Item = OwnedFd>,
    ) {
        let end = first.saturating_add(count);
        if self.interrupts.len() < end {
            self.interrupts.resize_with(end, || None);
        }
        for vector in &mut self.interrupts[first..end] {
            *vector = fds.next().filter(set_nonblocking).map(File::from);
        }
    }

    pub(crate) fn clear_interrupts(&mut self) {
        self.interrupts.clear();
    }

    /// The client has gone.
    pub(crate) fn forget(&mut self) {
        self.unmap_all();
        self.clear_interrupts();
    }
}

/// An interrupt must not block the device, whatever file the client passed.
fn set_nonblocking(fd: &OwnedFd) -> bool {
    // SAFETY: fcntl(F_SETFL) takes any descriptor and flags; this one is open.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) == 0 }
}
