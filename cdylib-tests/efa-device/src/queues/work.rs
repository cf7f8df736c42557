//! Send work requests: 64 bytes that a program writes to its send ring in BAR 2,
//! past the driver. The layout is that of the driver's headers; rdma-core writes it.

use super::handles::Gid;
use crate::bytes::{u8_at, u16_at, u32_at, u64_at};
use crate::status::CompletionStatus;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Send,
    Read,
    Write,
    /// Fast registration and others that the model lacks.
    Other(u8),
}

impl Operation {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Send => 0,
            Self::Read => 1,
            Self::Write => 2,
            Self::Other(code) => code,
        }
    }
}

/// A range of registered memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) length: u32,
    pub(crate) key: u32,
    pub(crate) address: u64,
}

impl Piece {
    fn parse(entry: &[u8]) -> Self {
        Self {
            length: u32_at(entry, 0),
            key: u32_at(entry, 4),
            address: u64_at(entry, 8),
        }
    }
}

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Payload {
    /// In the work request itself: the bytes and how many of them count.
    Inline([u8; 32], usize),
    /// In the sender's memory: at most two pieces.
    Gather([Piece; 2], usize),
}

impl Payload {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Inline(_, len) => *len as u64,
            Self::Gather(pieces, count) => {
                let lengths = pieces.iter().take(*count);
                lengths.map(|piece| u64::from(piece.length)).sum()
            }
        }
    }
}

/// A work request on its way.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// The index of the sending device.
    pub(crate) device: usize,
    pub(crate) source: Gid,
    pub(crate) pair: u16,
    /// Which queue pair had that number when this was posted.
    pub(crate) serial: u64,
    pub(crate) request: u16,
    pub(crate) operation: Operation,
    pub(crate) wants_completion: bool,
    pub(crate) immediate: Option<u32>,
    pub(crate) to: Option<Gid>,
    pub(crate) to_pair: u16,
    pub(crate) qkey: u32,
    pub(crate) payload: Payload,
    /// The remote's memory.
    pub(crate) remote: Piece,
    pub(crate) datagram: bool,
    /// The queue pair repeats for ever when the remote has no buffer.
    pub(crate) patient: bool,
    /// What the sender itself found wrong.
    pub(crate) failed: Option<CompletionStatus>,
}

/// The fields of an entry of the ring.
pub(crate) struct Entry<'a>(pub(crate) &'a [u8]);

impl Entry<'_> {
    pub(crate) fn request(&self) -> u16 {
        u16_at(self.0, 0)
    }

    pub(crate) fn operation(&self) -> Operation {
        match u8_at(self.0, 2) & 0xf {
            0 => Operation::Send,
            1 => Operation::Read,
            2 => Operation::Write,
            code => Operation::Other(code),
        }
    }

    pub(crate) fn wants_completion(&self) -> bool {
        u8_at(self.0, 3) & 1 << 4 != 0
    }

    pub(crate) fn immediate(&self) -> Option<u32> {
        (u8_at(self.0, 2) & 1 << 4 != 0).then(|| u32_at(self.0, 8))
    }

    pub(crate) fn to_pair(&self) -> u16 {
        u16_at(self.0, 4)
    }

    pub(crate) fn handle(&self) -> u16 {
        u16_at(self.0, 12)
    }

    pub(crate) fn qkey(&self) -> u32 {
        u32_at(self.0, 16)
    }

    pub(crate) fn remote(&self) -> Piece {
        match self.operation() {
            Operation::Read | Operation::Write => Piece::parse(self.part(32)),
            _ => Piece::default(),
        }
    }

    /// None: more than an entry holds.
    pub(crate) fn payload(&self) -> Option<Payload> {
        let length = usize::from(u16_at(self.0, 6));
        let inline = u8_at(self.0, 2) & 1 << 5 != 0;
        match self.operation() {
            Operation::Send if inline => {
                let bytes = self.part(32).first_chunk().copied()?;
                (length <= 32).then_some(Payload::Inline(bytes, length))
            }
            Operation::Send => {
                let pieces = [Piece::parse(self.part(32)), Piece::parse(self.part(48))];
                (length <= 2).then_some(Payload::Gather(pieces, length))
            }
            _ => {
                let local = Piece::parse(self.part(48));
                Some(Payload::Gather([local, Piece::default()], 1))
            }
        }
    }

    fn part(&self, at: usize) -> &[u8] {
        self.0.get(at..).unwrap_or_default()
    }
}
