//! Jobs of a real Slurm on two nodes.

use std::ops::Range;
use std::time::Duration;

use serde_json::Value;
use usage::text::bytes;

use crate::driver_test::guest::Said;
use crate::driver_test::node::{Pair, Stage};
use crate::driver_test::slurm;
use crate::machines::Verdict;
use crate::machines::scene::expect;

/// A job of two nodes; each runs one end of fi_pingpong, and data are verified.
const TRAFFIC: &str = r#"#!/bin/bash
#SBATCH -N2 --efa-profile=auto -o /tmp/traffic.out -e /tmp/traffic.out
srun /usr/libexec/traffic
"#;

/// What a job did.
struct Ended {
    id: u32,
    said: String,
}

/// Submits a batch script as alice, and waits until it has ended and its epilogs
/// have run.
fn batch(pair: &mut Pair, script: &str, output: &str) -> Verdict<Ended> {
    let [first, _] = &mut pair.guests;
    let submitted = first.run(&format!(
        "rm -f {output}; cat >/tmp/job <<'END'\n{script}END\n\
         {} sbatch --parsable /tmp/job",
        slurm::AS_ALICE
    ))?;
    let id: u32 = submitted.trim().parse()?;
    first.wait(
        "the job's end",
        &format!("squeue -h -j {id} -o %T; ! squeue -h -j {id} 2>/dev/null | grep -q ."),
    )?;
    let said = first.run(&format!("cat {output}"))?;
    Ok(Ended { id, said })
}

/// The closing line and `slurm-efa report` are what the devices counted, to the byte.
pub fn traffic(stage: &mut Stage) -> Verdict {
    let pair = stage.pair()?;
    pair.slurm()?;
    // A hook waits 0.5 s for what reads counters. An emulated machine on busy CPUs may
    // be slower; then the job says that it knows nothing, and another one is run.
    for _ in 0..5 {
        let before = counted(pair)?;
        let job = batch(pair, TRAFFIC, "/tmp/traffic.out")?;
        let after = counted(pair)?;
        expect(
            job.said.contains("verified on n1"),
            "data that arrived",
            &job.said,
        )?;
        let mut moved = [[0; 2]; 2];
        for (place, measure) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            moved[place][measure] = after[place][measure] - before[place][measure];
        }
        let Some(reported) = reported(pair, job.id)? else {
            expect(
                job.said.contains("did not answer") || job.said.contains("are not known"),
                "why nothing is known",
                &job.said,
            )?;
            continue;
        };
        expect(
            reported == moved,
            &format!("{moved:?}"),
            format!("{reported:?}"),
        )?;
        let [sent, received] = moved[0].map(bytes);
        let id = job.id;
        let line = format!("efa: job {id} on n1 (4 devices): sent {sent}, received {received}");
        let said = job.said.replace("at least ", "");
        return expect(said.contains(&line), &line, &job.said);
    }
    Err("no job of five was read in time".into())
}

/// What `slurm-efa report` says that each node has sent and received. A job starts
/// without waiting for the first reading: where that was late, as is usual on an emulated
/// machine, the sum is called a lower bound.
fn reported(pair: &mut Pair, job: u32) -> Verdict<Option<[[u64; 2]; 2]>> {
    let mut all = [[0; 2]; 2];
    for (guest, node) in pair.guests.iter_mut().zip(&mut all) {
        let report = guest.run(&format!("slurm-efa report {job} --json"))?;
        let report: Value = serde_json::from_str(&report)?;
        for (key, bytes) in ["sent_bytes", "received_bytes"].into_iter().zip(node) {
            let total = &report["totals"][key];
            match total.as_u64().or_else(|| total["at_least"].as_u64()) {
                Some(total) => *bytes = total,
                None => return Ok(None),
            }
        }
    }
    Ok(Some(all))
}

/// What the closing line of a job says when no device was read in time.
const NOT_KNOWN: &str = "sent an unknown amount";

/// What the devices of each node have sent and received.
fn counted(pair: &Pair) -> Verdict<[[u64; 2]; 2]> {
    let of = |devices: &Range<usize>| -> Verdict<[u64; 2]> {
        let sum = |counter| pair.fabric.counted(devices.clone(), counter);
        Ok([sum("tx_bytes")?, sum("rx_bytes")?])
    };
    Ok([of(&Pair::DEVICES[0])?, of(&Pair::DEVICES[1])?])
}

/// Far below the driver's 30 s, and far above what an emulated machine needs.
const PROMPT: Duration = Duration::from_secs(12);
/// What the fault begins and ends with: the third device of the first node.
const FAILS: usize = 2;

/// The prolog looks, and the job does not start: the node is drained with the device's
/// name, and no prolog of the plugin hangs before efa-check has its turn.
pub fn dead_before_a_job(stage: &mut Stage) -> Verdict {
    let pair = stage.pair()?;
    pair.slurm()?;
    pair.fabric.tell(FAILS, "dead-admin on")?;
    let [first, _] = &mut pair.guests;
    let job = first.output(&format!(
        "{} timeout 60 srun -w n1 -N1 --efa-profile=auto -I30 true & \
         end=$((SECONDS + 12)); until scontrol show node n1 | grep 'Reason=EFA: '; do \
         [ $SECONDS -lt $end ] || exit 1; sleep 0.1; done; scancel -u alice; wait; exit 0",
        slurm::AS_ALICE
    ))?;
    expect(
        job.code == 0
            && job
                .text
                .contains("libfabric fails on the whole node: efa_2")
            && job.text.contains("does not answer"),
        "a drain with the device's name, in 12 s",
        job,
    )
}

/// The job ends, and says that it does not know all.
pub fn dies_during_a_job(stage: &mut Stage) -> Verdict {
    let pair = stage.pair()?;
    pair.slurm()?;
    let [first, _] = &mut pair.guests;
    first.run(
        "rm -f /tmp/go /tmp/begun /tmp/during; cd /tmp; printf '#!/bin/sh\\ntouch /tmp/begun; \
         until [ -e /tmp/go ]; do sleep 0.1; done\\n' >/tmp/work; chmod 755 /tmp/work; \
         (setpriv --reuid=alice --regid=alice --init-groups srun -w n1 -N1 --efa-profile=auto \
         /tmp/work; echo \"exit code $?\") >/tmp/during 2>&1 &",
    )?;
    first.wait("the job", "[ -e /tmp/begun ]")?;
    pair.fabric.tell(FAILS, "dead-admin on")?;
    let [first, _] = &mut pair.guests;
    let end = first.output(
        "touch /tmp/go; until grep 'exit code' /tmp/during; do sleep 0.05; done; cat /tmp/during",
    )?;
    prompt(&end, "exit code 0")?;
    expect(
        (end.text.contains("at least") || end.text.contains(NOT_KNOWN))
            && end.text.contains("did not answer"),
        "what is unknown, and why",
        end,
    )
}

/// Without efa-check's prolog, a job starts and ends beside a dead device.
pub fn start_beside_a_dead_device(stage: &mut Stage) -> Verdict {
    let pair = stage.pair()?;
    pair.slurm()?;
    pair.fabric.tell(FAILS, "dead-admin on")?;
    let [first, _] = &mut pair.guests;
    let link = "/etc/slurm-efa/prolog.d/efa-check-prolog";
    first.run(&format!("mv {link} /tmp/"))?;
    let job = slurm::srun(first, "true")?;
    first.run(&format!("mv /tmp/efa-check-prolog {link}"))?;
    prompt(&job, "")
}

fn prompt(said: &Said, what: &str) -> Verdict {
    expect(
        said.code == 0 && said.took < PROMPT && said.text.contains(what),
        &format!("an end within {} s", PROMPT.as_secs()),
        said,
    )
}
