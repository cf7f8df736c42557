//! What Slurm is asked to do with the node.

use efa_check::drain;
use efa_check::site::Site;
use slurm::drain_policy::NodeAction;

use super::output::complain;

/// What a site that only observes gets instead of a drain.
pub fn log_only(reason: &str) {
    drain::log(&format!(
        "nothing is done, because on_fatal is \"log\": {reason}"
    ));
}

pub fn ask_slurm(site: &Site, action: &NodeAction) {
    let Some(node) = &site.node else {
        complain("Slurm was not told: the name of this node is not known; set --node-name");
        return;
    };
    if let Err(error) = drain::send(action, &site.config, node) {
        let text = format!("Slurm was not told, because no process could be started: {error}");
        complain(&text);
        drain::log(&text);
    }
}
