//! Which tier the site wants, and how long the lock of the shares is waited for.

use std::time::Duration;

use gpu::inventory::Machine;
use gpu::settings::{Settings, WantedTier};
use gpu::shares::Tier;

/// How long the lock is waited for.
pub(super) const LOCK_LIMIT: Duration = Duration::from_secs(20);

/// What the site wants on this machine.
#[must_use]
pub fn wanted_tier(settings: &Settings, machine: &Machine) -> Tier {
    match settings.gres.tier {
        WantedTier::Auto if machine.can_limit => Tier::Cgroup,
        WantedTier::Auto | WantedTier::Watchdog => Tier::Watchdog,
        WantedTier::Count => Tier::CountOnly,
        WantedTier::Mps => Tier::Mps,
        WantedTier::Cgroup => Tier::Cgroup,
    }
}
