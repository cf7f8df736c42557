//! The only clock that decides anything.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since boot, including suspend (`CLOCK_BOOTTIME`). Setting the
/// wall clock does not move it, and it counts while the daemon is away.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct BootTime(pub u64);

impl BootTime {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        let whole = u64::try_from(now.tv_sec).unwrap_or(0).saturating_mul(1000);
        let rest = u64::try_from(now.tv_nsec / 1_000_000).unwrap_or(0);
        Self(whole.saturating_add(rest))
    }

    /// `later` from here.
    #[must_use]
    pub fn after(self, later: std::time::Duration) -> Self {
        let millis = u64::try_from(later.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// How long until `then`; zero if it has passed.
    #[must_use]
    pub fn until(self, then: Self) -> std::time::Duration {
        std::time::Duration::from_millis(then.0.saturating_sub(self.0))
    }
}
