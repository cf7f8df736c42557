//! What is looked at.

mod cost;
mod data_path;
mod devices;
mod faults;
mod heal;
mod jobs;
mod late;
mod newer_driver;
mod plugin;

use super::node::Stage;
use crate::machines::scene::Scene;

/// A new scene is one entry and its function. Scenes in a row that want the same node
/// share it.
pub const SCENES: &[Scene<Stage>] = &[
    Scene::new("one device", devices::one),
    Scene::new("32 devices", devices::all),
    Scene::new(
        "one dead of 32 takes libfabric from the node",
        faults::one_dead_of_32,
    ),
    Scene::new("four devices", devices::four),
    Scene::new("data over SRD", data_path::srd),
    Scene::new("data over UD", data_path::ud),
    Scene::new(
        "data over UD, with interrupts",
        data_path::completion_events,
    ),
    Scene::new("efa-check pingpong", data_path::loopback),
    Scene::new("closed fabric: a security group", data_path::closed),
    Scene::new("removed from the bus, and rescanned", devices::rescan),
    Scene::new("dead admin queue", faults::dead_admin_queue),
    Scene::new(
        "dead admin queue while efa-check looks",
        faults::dies_during_a_look,
    ),
    Scene::new("no interrupts", faults::no_interrupts),
    Scene::new("off the bus", faults::off_the_bus),
    Scene::new("slow: 300 ms for each command", faults::slow),
    Scene::new("refused commands", faults::refused),
    Scene::new("fatal event", faults::fatal_event),
    Scene::new("not ready when the driver comes", faults::not_ready),
    Scene::new("late device: a deferred probe", faults::late_device),
    Scene::new(
        "a removal waits for a reader that hangs",
        faults::removed_while_read,
    ),
    Scene::new("counters that lie", faults::lies),
    Scene::new("GUIDs that are zero or another device's", devices::guids),
    Scene::new("the longest name of a device", devices::longest_name),
    Scene::new("RDMA in software beside EFA", devices::soft_roce),
    Scene::new("the device's process ends", faults::process_ends),
    Scene::new(
        "dead admin queue, with the driver's own 30 s",
        faults::thirty_seconds,
    ),
    Scene::new(
        "a second look sends no second reader",
        faults::no_second_reader,
    ),
    Scene::new("a device is brought back by hand", heal::rebind),
    Scene::new(
        "a device that stays dead is not brought back",
        heal::rebind_of_a_dead_device,
    ),
    Scene::new(
        "a job beside a device that does not answer",
        plugin::unanswered,
    ),
    Scene::new("a job beside slow devices", plugin::slow),
    Scene::new("a job while commands are refused", plugin::refused),
    Scene::new(
        "a job while a device sends a fatal event",
        plugin::fatal_event,
    ),
    Scene::new("a device is removed during a job", plugin::removed),
    Scene::new("a device is rebound during a job", plugin::rebound),
    Scene::new("counters that lie to a job", plugin::lies),
    Scene::new(
        "a device is not ready for its driver during a job",
        plugin::not_ready,
    ),
    Scene::new("a prolog waits for a late device", late::prolog_waits),
    // Its node is of no use after it.
    Scene::new(
        "a job beside a device whose process has ended",
        plugin::process_ends,
    ),
    Scene::new("hot plug", devices::hot_plug),
    Scene::new("hot plug during a job", plugin::hot_plug),
    Scene::new(
        "hot plug: the health check resumes the node",
        late::health_check_resumes,
    ),
    Scene::new("22 counters: a newer driver", newer_driver::counters),
    Scene::new("22 counters: thresholds", newer_driver::thresholds),
    Scene::new(
        "22 counters: dead admin queue",
        newer_driver::dead_admin_queue,
    ),
    Scene::new(
        "22 counters: a job whose packets are lost",
        newer_driver::loss,
    ),
    Scene::new(
        "22 counters: a job on a closed fabric",
        newer_driver::closed,
    ),
    Scene::new("what slow and dead devices add to a job", cost::of_jobs),
    Scene::new("NUMA", devices::numa),
    Scene::new("two nodes on one fabric", data_path::two_nodes),
    Scene::new("a job's traffic, to the byte", jobs::traffic),
    Scene::new("a device is dead before a job", jobs::dead_before_a_job),
    Scene::new("a device dies during a job", jobs::dies_during_a_job),
    Scene::new(
        "a job beside a dead device",
        jobs::start_beside_a_dead_device,
    ),
];
#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::SCENES;

    #[test]
    fn the_document_says_what_each_scene_shows_and_of_no_other() {
        const DOCUMENT: &str = include_str!("../../../../docs/driver-test.md");
        let documented: BTreeSet<&str> = DOCUMENT
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('|').next())
            .flat_map(|cell| cell.split('`').step_by(2))
            .filter(|name| !name.trim().is_empty())
            .collect();
        let scenes: BTreeSet<&str> = SCENES.iter().map(|scene| scene.name).collect();
        assert_eq!(documented, scenes);
        assert_eq!(SCENES.len(), scenes.len(), "each name is used once");
    }
}
