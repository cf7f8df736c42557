//! What devices that are slow or dead add to a job. The guest's clock counts
//! instructions, so that a busy machine changes little. The numbers are printed beside
//! their aims; what fails is a job whose hook waits as long as it may.

use std::time::Duration;

use crate::driver_test::guest::Hardware;
use crate::driver_test::node::{FOUR, Node, Stage, Wanted};
use crate::driver_test::slurm;
use crate::machines::Verdict;
use crate::machines::qemu::Clock;
use crate::machines::scene::expect;

/// The driver's limit is its own, 30 s: longer than all jobs beside a dead device take.
const MEASURED: Wanted = Wanted {
    hardware: Hardware {
        cpus: 1,
        clock: Clock::Instructions,
        ..FOUR.hardware
    },
    limit: Duration::ZERO,
    ..FOUR
};

/// Jobs of each kind.
const JOBS: usize = 3;
/// What a hook waits for a reader at most. The driver hangs for 30 s.
const WAITED: Duration = Duration::from_millis(500);

/// How long each of some jobs took from its submission to its end.
fn jobs(node: &mut Node, count: usize) -> Verdict<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..count {
        let said = slurm::srun(&mut node.guest, "true")?;
        expect(said.code == 0, "a job that succeeds", &said)?;
        times.push(said.took);
        // The epilog of this one is no part of the next.
        slurm::wait_gone(&mut node.guest)?;
        node.guest.run("sleep 0.5")?;
    }
    Ok(times)
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[times.len() / 2]
}

pub fn of_jobs(stage: &mut Stage) -> Verdict {
    let node = stage.node(MEASURED)?;
    node.slurm()?;
    // The first ones read programs from disk.
    jobs(node, 2)?;
    let healthy = jobs(node, JOBS)?;
    for device in 0..FOUR.devices {
        node.tell(device, "slow 3")?;
    }
    let slow = jobs(node, JOBS)?;
    node.fabric.heal()?;
    node.tell(2, "dead-admin on")?;
    let dead = jobs(node, JOBS)?;
    let usual = median(&healthy);
    let added = |time: Duration| time.as_secs_f64() * 1e3 - usual.as_secs_f64() * 1e3;
    let spread = healthy.iter().max().zip(healthy.iter().min());
    let spread = spread.map_or(0, |(most, least)| (*most - *least).as_millis());
    eprintln!(
        "\n       a job on healthy devices: {} ms (median of {JOBS}, which differ by {spread} ms)\n       \
         3 ms for each command: {:+.1} ms (aim: 5)\n       \
         a dead device: {:+.1} ms for the job that meets it, {:+.1} ms for the next ones (aim: 50)",
        usual.as_millis(),
        added(median(&slow)),
        added(dead[0]),
        added(median(&dead[1..])),
    );
    let longest = dead.iter().chain(&slow).max().copied().unwrap_or_default();
    expect(
        longest < usual + WAITED,
        "jobs that do not wait for the driver",
        format!("{dead:?} {slow:?}"),
    )
}
