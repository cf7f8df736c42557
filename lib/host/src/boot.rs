//! Which boot of the machine this is.

use serde::{Deserialize, Serialize};

use crate::{ReadError, Sysroot};

/// Which boot of this machine. What was recorded during another one is void.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(String);

impl BootId {
    /// This boot.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn current() -> Result<Self, ReadError> {
        Ok(Self(
            Sysroot::real().read_small("proc/sys/kernel/random/boot_id")?,
        ))
    }

    /// A boot of this name, for tests.
    #[cfg(any(test, feature = "for-tests"))]
    #[must_use]
    pub fn for_test(name: &str) -> Self {
        Self(name.to_owned())
    }
}
