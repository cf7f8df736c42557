//! Jobs that are gone and what they left.

use std::path::PathBuf;

use host::BootId;
use host::Deadline;
use host::state_dir::StateError;
use slurm::NodeName;
use slurm::stepd_sockets::Sockets;

use crate::index::{Existence, JobIndex};
use crate::registry::{Job, Problem, Registry};

/// The jobs whose record outlived them, since their epilog was killed or never
/// ran; and the records that cannot be read. Of `node` only, where one is
/// named. `spool` is where jobs without a readable record have their sockets.
///
/// Failure direction: a job of which nobody can tell stays.
///
/// # Errors
/// The registry cannot be listed.
pub fn outlived(
    registry: &Registry,
    boot: BootId,
    node: Option<&NodeName>,
    spool: Option<PathBuf>,
    deadline: Deadline,
) -> Result<(Vec<Job>, Vec<Problem>), StateError> {
    let (mut gone, mut problems) = (Vec::new(), Vec::new());
    let mut keys = registry.keys()?;
    keys.retain(|key| node.is_none_or(|node| key.node == *node));
    // Most jobs have a socket, and their records need not be read.
    if let (Some(node), Some(spool)) = (node, &spool)
        && keys.len() > 1
        && let Ok(sockets) = Sockets::list(spool, node)
    {
        keys.retain(|key| !sockets.has(key.job));
    }
    let mut index = JobIndex::of_none(boot, deadline);
    index.default_spool = spool;
    for key in keys {
        match registry.get(&key) {
            Ok(Some(job)) => {
                index.jobs.insert(key.clone(), job.clone());
                // Where its record says, also if that is of an earlier boot.
                let asked = Some((&job.start, &*job.spool_dir));
                if index.existence(&key, asked) == Existence::Gone {
                    gone.push(job);
                }
            }
            Ok(None) => {}
            Err(problem) => problems.push(problem),
        }
    }
    Ok((gone, problems))
}
