//! Memory regions: a range of a process's addresses as a list of pages of the
//! guest. The three forms of the list are known from the kernel's driver.

use std::collections::BTreeMap;

use crate::bytes::{Fields, u8_at, u32_at, u64_at};
use crate::guest::Guest;
use crate::limits::LIMITS;
use crate::status::Status;

/// What a region's owner permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Every region may be sent from.
    LocalRead,
    LocalWrite,
    RemoteWrite,
    RemoteRead,
}

impl Access {
    fn permitted(self, permissions: u8) -> bool {
        match self {
            Self::LocalRead => true,
            Self::LocalWrite => permissions & 1 != 0,
            Self::RemoteWrite => permissions & 1 << 1 != 0,
            Self::RemoteRead => permissions & 1 << 2 != 0,
        }
    }
}

#[derive(Debug)]
struct Region {
    start: u64,
    length: u64,
    shift: u32,
    permissions: u8,
    pages: Vec<u64>,
}

impl Region {
    fn covers(&self, address: u64, len: u64) -> bool {
        let end = address
            .checked_sub(self.start)
            .and_then(|offset| offset.checked_add(len));
        end.is_some_and(|end| end <= self.length)
    }

    /// Calls `each` with the guest's address and the range of the data for the
    /// piece within each page. False: not covered, or `each` failed.
    fn pieces(
        &self,
        address: u64,
        len: usize,
        mut each: impl FnMut(u64, std::ops::Range<usize>) -> bool,
    ) -> bool {
        if !self.covers(address, len as u64) {
            return false;
        }
        let size = 1u64 << self.shift;
        let mut at = (self.start & (size - 1)) + (address - self.start);
        let mut done = 0;
        while done < len {
            let page = usize::try_from(at >> self.shift).ok();
            let Some(page) = page.and_then(|page| self.pages.get(page)) else {
                return false;
            };
            let within = at & (size - 1);
            let left = usize::try_from(size - within).unwrap_or(usize::MAX);
            let end = done + left.min(len - done);
            if !each(page.wrapping_add(within), done..end) {
                return false;
            }
            at += (end - done) as u64;
            done = end;
        }
        true
    }
}

#[derive(Debug, Default)]
pub(crate) struct Regions {
    regions: BTreeMap<u32, Region>,
    pages: usize,
    last_key: u32,
}

/// A key in a work request has other bits above.
const KEY: u32 = 0xff_ffff;

impl Regions {
    pub(crate) fn len(&self) -> usize {
        self.regions.len()
    }

    pub(crate) fn pages(&self) -> usize {
        self.pages
    }

    /// The region of a key, if it covers a range and permits the access.
    fn find(&self, key: u32, address: u64, len: u64, access: Access) -> Option<&Region> {
        let region = self.regions.get(&(key & KEY))?;
        (region.covers(address, len) && access.permitted(region.permissions)).then_some(region)
    }

    pub(crate) fn permits(&self, key: u32, address: u64, len: u64, access: Access) -> bool {
        self.find(key, address, len, access).is_some()
    }

    /// Reads from a region. False: not covered, not permitted, or not memory.
    pub(crate) fn load(
        &self,
        guest: &Guest,
        (key, address): (u32, u64),
        access: Access,
        data: &mut [u8],
    ) -> bool {
        let region = self.find(key, address, data.len() as u64, access);
        region.is_some_and(|region| {
            region.pieces(address, data.len(), |at, range| {
                guest.load(at, &mut data[range]).is_ok()
            })
        })
    }

    /// Writes to a region. False: not covered, not permitted, or not memory.
    pub(crate) fn store(
        &self,
        guest: &Guest,
        (key, address): (u32, u64),
        access: Access,
        data: &[u8],
    ) -> bool {
        let region = self.find(key, address, data.len() as u64, access);
        region.is_some_and(|region| {
            region.pieces(address, data.len(), |at, range| {
                guest.store(at, &data[range]).is_ok()
            })
        })
    }

    /// REG_MR.
    pub(crate) fn register(
        &mut self,
        command: &[u8; 64],
        guest: &Guest,
    ) -> Result<Vec<u8>, Status> {
        const PHYSICAL: u8 = 1 << 7;
        let (length, start) = (u64_at(command, 40), u64_at(command, 56));
        let (flags, permissions) = (u8_at(command, 48), u8_at(command, 49));
        let shift = u32::from(flags & 0x1f);
        start.checked_add(length).ok_or(Status::ILLEGAL_PARAMETER)?;
        if flags & PHYSICAL != 0 || shift < 12 || length == 0 {
            return Err(Status::ILLEGAL_PARAMETER);
        }
        // The driver leaves the field for the number of pages empty.
        let size = 1u64 << shift;
        let bytes = (start & (size - 1)).checked_add(length);
        let count = bytes.ok_or(Status::ILLEGAL_PARAMETER)?.div_ceil(size);
        let free = (LIMITS.pages as usize).saturating_sub(self.pages);
        let count = usize::try_from(count).ok().filter(|count| *count <= free);
        let count = count.ok_or(Status::NO_RESOURCE)?;
        if self.regions.len() >= LIMITS.regions as usize {
            return Err(Status::NO_RESOURCE);
        }
        let pages = page_list(command, count, guest).ok_or(Status::ILLEGAL_PARAMETER)?;
        let key = self.free_key();
        self.pages += pages.len();
        let region = Region {
            start,
            length,
            shift,
            permissions,
            pages,
        };
        self.regions.insert(key, region);
        Ok(Fields::default().u32(key).u32(key).u32(0).done())
    }

    /// A key that was not used lately, so that a stale one is noticed.
    fn free_key(&mut self) -> u32 {
        loop {
            self.last_key = (self.last_key + 1) & KEY;
            if self.last_key != 0 && !self.regions.contains_key(&self.last_key) {
                return self.last_key;
            }
        }
    }

    pub(crate) fn deregister(&mut self, command: &[u8; 64]) -> Result<Vec<u8>, Status> {
        let region = self.regions.remove(&(u32_at(command, 4) & KEY));
        let region = region.ok_or(Status::ILLEGAL_PARAMETER)?;
        self.pages -= region.pages.len();
        Ok(Vec::new())
    }
}

/// The addresses of `count` pages: in the command itself, in a list, or in a chain
/// of chunks that name pieces of the list.
fn page_list(command: &[u8; 64], count: usize, guest: &Guest) -> Option<Vec<u64>> {
    const INLINE: usize = 4;
    const LIST: u8 = 1 << 1;
    const CHUNKS: u8 = 1 << 2;
    let flags = u8_at(command, 3);
    let list = u64_at(command, 12);
    let mut pages = Vec::new();
    if flags & CHUNKS != 0 {
        chunks(list, u32_at(command, 8), count, &mut pages, guest)?;
    } else if flags & LIST != 0 {
        while pages.len() < count {
            let at = list.checked_add(pages.len() as u64 * 8)?;
            piece(at, count, &mut pages, guest)?;
        }
    } else {
        let inline = (0..count.min(INLINE)).map(|index| u64_at(command, 8 + index * 8));
        pages.extend(inline);
    }
    (pages.len() == count).then_some(pages)
}

/// The next up to 512 addresses of the list.
fn piece(at: u64, count: usize, pages: &mut Vec<u64>, guest: &Guest) -> Option<()> {
    const PIECE: usize = 512;
    let some = (count - pages.len()).min(PIECE);
    let mut data = [0; PIECE * 8];
    let data = &mut data[..some * 8];
    guest.load(at, data).ok()?;
    pages.extend(data.chunks_exact(8).map(|page| u64_at(page, 0)));
    Some(())
}

/// Each chunk has addresses of pieces, and at its end length and address of the
/// next chunk.
fn chunks(
    mut at: u64,
    mut length: u32,
    count: usize,
    pages: &mut Vec<u64>,
    guest: &Guest,
) -> Option<()> {
    const CHUNK: usize = 4096;
    const NEXT: usize = 12;
    while pages.len() < count {
        let mut data = [0; CHUNK];
        let data = data.get_mut(..(length as usize).min(CHUNK))?;
        guest.load(at, data).ok()?;
        let last = data.len().checked_sub(NEXT)?;
        // A chunk without a piece could lead to itself for ever.
        if last < 8 {
            return None;
        }
        for address in data[..last].chunks_exact(8) {
            if pages.len() < count {
                piece(u64_at(address, 0), count, pages, guest)?;
            }
        }
        (length, at) = (u32_at(data, last), u64_at(data, last + 4));
    }
    Some(())
}
