//! `efa-check rebind`.

use clap::Args;
use efa_check::rebind::{self, How, Outcome};
use efa_check::site::Site;
use findings::Severity;
use host::printable;

use super::output::{complain, print};

#[derive(Debug, Args)]
pub struct Arguments {
    /// The device, as `efa-check node` names it, or its PCI address.
    device: String,
    /// Also while a job is on the node: it loses the device.
    #[arg(long)]
    force: bool,
}

pub fn run(site: &Site, arguments: &Arguments) -> u8 {
    let how = if arguments.force {
        How::Forced
    } else {
        How::ByHand
    };
    let device = printable(&arguments.device, 60);
    let severity = match rebind::wait_for(site, &arguments.device, how) {
        Ok(Outcome::Healed(text)) => {
            print(&format!("{device}: {text}\n"));
            Severity::Ok
        }
        Ok(Outcome::Failed(reason)) => {
            complain(&format!("{device} was rebound, and is not well: {reason}"));
            Severity::Fatal
        }
        Ok(Outcome::Refused(reason)) => {
            complain(&format!("{device} was not rebound: {reason}"));
            Severity::Unknown
        }
        Err(reason) => {
            complain(&reason);
            Severity::Unknown
        }
    };
    severity.exit_code()
}
