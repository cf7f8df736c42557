//! How long one waits.

use std::time::{Duration, Instant};

/// A point on the monotonic clock after which nobody waits any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// The point `limit` from now. At most a day, so that no sum overflows.
    #[must_use]
    pub fn after(limit: Duration) -> Self {
        Self(Instant::now() + limit.min(Duration::from_secs(86_400)))
    }

    /// What is left; zero once it has passed.
    #[must_use]
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    #[must_use]
    pub fn passed(self) -> bool {
        self.left().is_zero()
    }
}
