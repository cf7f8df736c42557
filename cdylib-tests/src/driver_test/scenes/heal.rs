//! Devices that are brought back by `efa-check rebind`.

use std::time::Duration;

use crate::driver_test::node::{FOUR, Stage};
use crate::machines::Verdict;

/// The device that fails.
const FAILS: usize = 2;

/// The driver's limit for a command is a second here.
const WITH_A_HANG: Duration = Duration::from_secs(8);

/// A device that is well again stays dead to its driver until it is rebound.
pub fn rebind(stage: &mut Stage) -> Verdict {
    let node = stage.node(FOUR)?;
    node.tell(FAILS, "dead-admin on")?;
    node.efa_check("node", 2, "efa_2", WITH_A_HANG)?;
    node.tell(FAILS, "dead-admin off")?;
    node.efa_check("node", 2, "efa_2", WITH_A_HANG)?;
    node.efa_check("rebind --force efa_2", 0, "answers again", WITH_A_HANG)?;
    node.efa_check("node", 0, "4 of 4 EFA devices", WITH_A_HANG)?;
    Ok(())
}

/// The driver lets such a device go and cannot take it again. Once it is well, it is
/// bound by the name that it had: the health check leaves it alone.
pub fn rebind_of_a_dead_device(stage: &mut Stage) -> Verdict {
    let node = stage.node(FOUR)?;
    node.efa_check("healthcheck", 0, "", WITH_A_HANG)?;
    node.tell(FAILS, "dead-admin on")?;
    node.efa_check("node", 2, "efa_2", WITH_A_HANG)?;
    let refused = "the device has no driver now";
    node.efa_check("rebind --force efa_2", 2, refused, WITH_A_HANG)?;
    node.tell(FAILS, "dead-admin off")?;
    let gone = "3/4 devices, efa_2 gone since";
    node.efa_check("healthcheck", 2, gone, WITH_A_HANG)?;
    node.devices(3)?;
    node.efa_check("rebind --force efa_2", 0, "answers again", WITH_A_HANG)?;
    node.efa_check("node", 0, "4 of 4 EFA devices", WITH_A_HANG)?;
    Ok(())
}
