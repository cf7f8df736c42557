//! How commands and work end; the numbers are those of the driver's headers.

/// What a command ends with, if not well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status(pub(crate) u8);

impl Status {
    pub(crate) const NO_RESOURCE: Self = Self(1);
    pub(crate) const UNSUPPORTED_OPCODE: Self = Self(3);
    pub(crate) const ILLEGAL_PARAMETER: Self = Self(5);
    pub(crate) const RESOURCE_BUSY: Self = Self(7);
}

/// What a completion ends with; the driver's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CompletionStatus(pub(crate) u8);

impl CompletionStatus {
    pub(crate) const OK: Self = Self(0);
    pub(crate) const FLUSHED: Self = Self(1);
    pub(crate) const UNSUPPORTED: Self = Self(3);
    pub(crate) const INVALID_HANDLE: Self = Self(4);
    pub(crate) const INVALID_KEY: Self = Self(5);
    pub(crate) const BAD_LENGTH: Self = Self(6);
    pub(crate) const REMOTE_ADDRESS: Self = Self(7);
    pub(crate) const REMOTE_PAIR: Self = Self(9);
    pub(crate) const REMOTE_NOT_READY: Self = Self(10);
    pub(crate) const REMOTE_LENGTH: Self = Self(11);
    pub(crate) const REMOTE_STATUS: Self = Self(12);
    pub(crate) const UNRESPONSIVE: Self = Self(13);
}
