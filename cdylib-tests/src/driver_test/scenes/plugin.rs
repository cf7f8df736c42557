//! Devices that fail under a job: what the plugin says at its end. efa-check's prolog
//! is not called, so that the job starts. The driver's limit is a second here; that
//! nobody waits for it is shown with 30 s (`jobs.rs`).

use crate::driver_test::guest::Said;
use crate::driver_test::node::{FOUR, Node, Stage, Wanted};
use crate::driver_test::slurm;
use crate::machines::Verdict;
use crate::machines::scene::expect;

/// The device that fails.
const FAILS: usize = 2;
const DEVICE: &str = "/sys/class/infiniband/efa_2";

/// A step that lasts until [`during`] lets it end.
const WORK: &str = "#!/bin/sh\ntouch /tmp/begun; until [ -e /tmp/go ]; do sleep 0.05; done\n";

fn node(stage: &mut Stage) -> Verdict<&mut Node> {
    let node = stage.node(FOUR)?;
    node.slurm()?;
    Ok(node)
}

/// A job succeeds, and its closing line has these words.
fn says(said: &Said, words: &[&str]) -> Verdict {
    for word in words {
        expect(said.code == 0 && said.text.contains(word), word, said)?;
    }
    Ok(())
}

/// What a job says whose devices were read in time.
fn healthy_job(node: &mut Node) -> Verdict<Said> {
    slurm::read_in_time(|| slurm::srun(&mut node.guest, "true"))
}

/// A job that is running when something happens to its node, and what it says.
fn during(node: &mut Node, happens: impl FnOnce(&mut Node) -> Verdict) -> Verdict<Said> {
    node.guest.run(&format!(
        "rm -f /tmp/go /tmp/begun /tmp/during; printf '{}' >/tmp/work; chmod 755 /tmp/work",
        WORK.replace('\n', "\\n")
    ))?;
    node.guest.run(&format!(
        "({} srun -w n1 -N1 --efa-profile=auto /tmp/work; echo \"exit code $?\") \
         >/tmp/during 2>&1 &",
        slurm::AS_ALICE
    ))?;
    node.guest.wait("the job", "[ -e /tmp/begun ]")?;
    // What the job's start has read is there.
    node.guest.wait(
        "the last reader's end",
        "! grep -l counter-reade[r] /proc/[0-9]*/cmdline",
    )?;
    happens(node)?;
    let said = node.guest.output(
        "touch /tmp/go; until grep -q 'exit code' /tmp/during; do sleep 0.05; done; \
         cat /tmp/during; grep -q 'exit code 0' /tmp/during",
    )?;
    slurm::wait_gone(&mut node.guest)?;
    Ok(said)
}

/// Every way not to answer looks the same to a job: its readings hang, until the
/// driver gives up and refuses.
fn unanswered_after(node: &mut Node, fault: &str) -> Verdict {
    node.tell(FAILS, fault)?;
    let said = slurm::srun(&mut node.guest, "true")?;
    expect(
        said.code == 0
            && ["did not answer", "could not be read", "not known"]
                .iter()
                .any(|reason| said.text.contains(reason)),
        &format!("{fault}: a job that ends, and what is unknown"),
        said,
    )?;
    // The driver has given up.
    let refused = || slurm::srun(&mut node.guest, "true");
    says(
        &slurm::read_in_time(refused)?,
        &[
            "efa_2: a counter could not be read at the start",
            "at least 0 B",
        ],
    )
}

pub fn unanswered(stage: &mut Stage) -> Verdict {
    for fault in ["dead-admin on", "muted on", "gone on"] {
        unanswered_after(node(stage)?, fault)?;
    }
    Ok(())
}

/// To QEMU and the driver, it is as a device that fell off the bus.
pub fn process_ends(stage: &mut Stage) -> Verdict {
    unanswered_after(node(stage)?, "hang-up")?;
    // QEMU does not connect again.
    stage.clear();
    Ok(())
}

/// The driver gives such a device up when it comes: a job has those that are there.
pub fn not_ready(stage: &mut Stage) -> Verdict {
    let node = node(stage)?;
    let mut bind = String::new();
    let said = slurm::read_in_time(|| {
        node.tell(FAILS, "not-ready off")?;
        node.heal()?;
        during(node, |node| {
            node.tell(FAILS, "not-ready on")?;
            bind = node.unbind_for_good(FAILS)?;
            Ok(())
        })
    })?;
    says(
        &said,
        &["efa_2: the device vanished in between", "at least"],
    )?;
    says(&healthy_job(node)?, &["(3 devices): sent 0 B"])?;
    node.tell(FAILS, "not-ready off")?;
    node.guest.run(&bind)?;
    says(&healthy_job(node)?, &["(4 devices): sent 0 B"])
}

/// Slow is not dead, but later than a job's end waits.
pub fn slow(stage: &mut Stage) -> Verdict {
    let node = node(stage)?;
    for device in 0..4 {
        node.tell(device, "slow 300")?;
    }
    let said = slurm::srun(&mut node.guest, "true")?;
    expect(
        said.code == 0
            && ["did not answer", "not known"]
                .iter()
                .any(|reason| said.text.contains(reason)),
        "a job that ends, and what is unknown",
        said,
    )
}

pub fn refused(stage: &mut Stage) -> Verdict {
    let node = node(stage)?;
    node.tell(FAILS, "refuse 13 1")?;
    says(
        &healthy_job(node)?,
        &["(4 devices)", "efa_2: a counter could not be read at the"],
    )
}

/// The driver says nothing of it but in its log.
pub fn fatal_event(stage: &mut Stage) -> Verdict {
    let node = node(stage)?;
    node.tell(FAILS, "event 1 0")?;
    says(
        &healthy_job(node)?,
        &["(4 devices): sent 0 B, received 0 B"],
    )
}

pub fn removed(stage: &mut Stage) -> Verdict {
    let node = node(stage)?;
    let said = slurm::read_in_time(|| {
        node.guest.run("echo 1 >/sys/bus/pci/rescan")?;
        during(node, |node| {
            let remove = format!("echo 1 >$(readlink -f {DEVICE}/device)/remove");
            node.guest.run(&remove).map(drop)
        })
    })?;
    says(
        &said,
        &["efa_2: the device vanished in between", "at least"],
    )?;
    // The next job has what is left.
    says(&healthy_job(node)?, &["(3 devices): sent 0 B"])
}

pub fn rebound(stage: &mut Stage) -> Verdict {
    let node = node(stage)?;
    let said = slurm::read_in_time(|| during(node, |node| node.rebind(FAILS)))?;
    says(&said, &["efa_2: the device went away and came back"])
}

/// A node with three devices, which gets the fourth while a job runs.
pub fn hot_plug(stage: &mut Stage) -> Verdict {
    let node = stage.node(Wanted {
        devices: 3,
        spare: 1,
        ..FOUR
    })?;
    node.slurm()?;
    // QEMU cannot unplug it: this job has one try.
    let said = during(node, |node| node.plug(3))?;
    expect(
        said.code == 0
            && ["efa_3: the device was added", "did not answer", "not known"]
                .iter()
                .any(|reason| said.text.contains(reason)),
        "a device that was added",
        said,
    )?;
    says(&healthy_job(node)?, &["(4 devices): sent 0 B"])
}

/// A device that is set back, and ones that have counted all that there is.
pub fn lies(stage: &mut Stage) -> Verdict {
    const ALL: &str = "18446744073709551615";
    let cases: [(&[usize], &str, &str, &str); 3] = [
        (
            &[FAILS],
            "5000000",
            "4000000",
            "efa_2: a counter went backwards",
        ),
        (&[FAILS], "0", ALL, "sent 15.9 EiB"),
        (&[0, FAILS], "0", ALL, "sent at least 15.9 EiB"),
    ];
    let node = node(stage)?;
    for (devices, before, after, words) in cases {
        let tell = |node: &Node, value: &str| -> Verdict {
            for device in devices {
                node.tell(*device, &format!("set tx_bytes {value}"))?;
            }
            Ok(())
        };
        let said = slurm::read_in_time(|| {
            tell(node, before)?;
            during(node, |node| tell(node, after))
        })?;
        says(&said, &[words])?;
    }
    Ok(())
}
