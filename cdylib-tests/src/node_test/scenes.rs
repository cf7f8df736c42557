//! What is looked at, in this order: later scenes find what earlier ones left.

use std::time::Duration;

use super::cluster::{Cluster, GPUS, LIFECYCLE, NEWER, NEWER_VERSION, SYSROOT};
use super::machine::Machine;
use crate::machines::Verdict;
use crate::machines::scene::{Scene, expect, expect_line};
use crate::testbed::Output;

/// A new scene is one entry and its function.
pub const SCENES: &[Scene<Cluster>] = &[
    Scene::needed("three machines boot, with systemd as PID 1", boot),
    Scene::needed("the lifecycle script installs and sets up each", install),
    Scene::new("doctor finds nothing on any of them", doctor),
    Scene::new("doctor names each thing that somebody broke", sabotage),
    Scene::new("a job with a profile", profile),
    Scene::new(
        "hugepages on two NUMA nodes, fenced by cgroup v2",
        hugepages,
    ),
    Scene::new("a page of 1 GiB", gigantic),
    Scene::new("an adapter breaks and comes back", health),
    Scene::new("soft-RoCE is no EFA device", soft_roce),
    Scene::new("jobs share a GPU", shards),
    Scene::new("a login with logind ends with the job", login),
    Scene::new("the compute node loses its power", power),
    Scene::new("an upgrade under a running job", upgrade),
    Scene::new("revert and removal leave a cluster that works", removal),
];

fn boot(cluster: &mut Cluster) -> Verdict {
    Cluster::on_each(&cluster.all(), |machine| {
        machine.wait_up()?;
        let first = machine.run("cat /proc/1/comm; stat -fc %T /sys/fs/cgroup")?;
        expect(
            first == "systemd\ncgroup2fs\n",
            "systemd and cgroup v2",
            first,
        )
    })
}

/// In the order of docs/hyperpod.md: the nodes before start_slurm.sh, the
/// controller behind it and behind the nodes.
fn install(cluster: &mut Cluster) -> Verdict {
    let files = &cluster.files;
    Cluster::on_each(&cluster.all(), |machine| machine.unpack(files))?;
    Cluster::on_each(&cluster.all(), |machine| match machine.name {
        "controller" => start_slurm(machine),
        _ => lifecycle(machine, "").map(drop),
    })?;
    lifecycle(&cluster.controller, "")?;
    Cluster::on_each(&[&cluster.login, &cluster.compute], start_slurm)?;
    idle(cluster)
}

/// `ExecuteBashScript("./utils/install_slurm_efa.sh").run(node_type)`; each machine
/// is called what it is.
fn lifecycle(machine: &Machine, package: &str) -> Verdict<String> {
    let node_type = machine.name;
    machine.run(&format!(
        "cd {LIFECYCLE} && bash ./utils/install_slurm_efa.sh {node_type} {package} 2>&1"
    ))
}

fn start_slurm(machine: &Machine) -> Verdict {
    let node_type = machine.name;
    machine.run(&format!(
        "cd {LIFECYCLE} && bash ./start_slurm.sh {node_type}"
    ))?;
    Ok(())
}

/// Waits until the compute node takes jobs and has none.
fn idle(cluster: &Cluster) -> Verdict {
    cluster.controller.wait(
        "the compute node to be idle",
        "sinfo -h -n compute -o '%T %E'; [ \"$(sinfo -h -n compute -o %T)\" = idle ]",
    )
}

fn doctor(cluster: &mut Cluster) -> Verdict {
    Cluster::on_each(&cluster.all(), |machine| {
        let said = machine.output("slurm-efa doctor")?;
        expect(
            said.success(),
            &format!("{} all green", machine.name),
            &said,
        )?;
        let again = machine.output("slurm-efa setup --check")?;
        expect(again.success(), "nothing left to set up", again)?;
        // slurmd runs on login nodes too.
        let missing = machine.output("grep -h 'can not be executed' /var/log/slurm/*.log")?;
        expect(
            missing.stdout.is_empty(),
            "slurmd finds its programs",
            missing,
        )
    })
}

/// What somebody may do to a compute node, in slurmd's copy of the controller's
/// files, and the finding that names it. Files in use are replaced, not written.
const SABOTAGES: &[(&str, &str)] = &[
    ("plugstack", "sed -i /spank_efa/d plugstack.conf"),
    ("plugstack", "sed -i s,/usr/lib/slurm-efa/,, plugstack.conf"),
    ("plugin-file", "rm $lib/spank_efa.so"),
    (
        "plugin-file",
        "echo '<html>' >$lib/new && mv $lib/new $lib/spank_efa.so",
    ),
    ("plugin-file", "chmod 777 $lib/spank_efa.so"),
    (
        "sshd-penalties",
        "rm /etc/ssh/sshd_config.d/login-nodes.conf",
    ),
    (
        "plugin-loaded",
        "cp $pam/pam_permit.so $lib/new && mv $lib/new $lib/spank_efa.so",
    ),
    (
        "plugin-loaded",
        "echo optional /nowhere/pyxis.so >>plugstack.conf",
    ),
    (
        "plugstack-includes",
        "echo 'include /nowhere/*.conf' >>plugstack.conf",
    ),
    ("slurm-conf", "echo Prologgg=/x >>slurm.conf"),
    ("prolog-flags", "sed -i s/^PrologFlags=/#/ slurm.conf"),
    ("prolog", "sed -i '/^Prolog=.*slurm-efa/d' slurm.conf"),
    (
        "prolog-others",
        "echo Prolog=/nowhere/prolog.sh >>slurm.conf",
    ),
    (
        "prolog-programs",
        "rm /etc/slurm-efa/prolog.d/efa-check-prolog",
    ),
    ("prolog-programs", "chmod 644 /usr/sbin/efa-check"),
    ("health-check", "sed -i /^HealthCheckProgram=/d slurm.conf"),
    (
        "health-check",
        "sed -i s/^HealthCheckInterval=.*/HealthCheckInterval=0/ slurm.conf",
    ),
    ("health-program", "rm /etc/slurm-efa/efa-check-healthcheck"),
    ("expectation", "rm /var/lib/slurm-efa/efa-expected.json"),
    (
        "configuration",
        "echo '= 1' >>/etc/slurm-efa/slurm-efa.toml",
    ),
    (
        "pam",
        "sed -i '/^account.*pam_slurm_logout/d' /etc/pam.d/sshd",
    ),
    (
        "pam-session",
        "sed -i '/^session.*pam_slurm_logout/d' /etc/pam.d/sshd",
    ),
    ("pam-module", "rm $pam/pam_slurm_logout.so"),
    ("state", "chmod 777 /run/slurm-efa"),
    // Last, since its start puts that folder right, too.
    ("logoutd", "systemctl stop slurm-logoutd"),
];

fn sabotage(cluster: &mut Cluster) -> Verdict {
    const PLACES: &str = "cd /var/spool/slurmd/conf-cache; lib=/usr/lib/slurm-efa; \
                          pam=/usr/lib/x86_64-linux-gnu/security";
    const SOUND: &str = "/root/sound.tar";
    let compute = &cluster.compute;
    compute.run(&format!(
        "{PLACES}; tar -cf {SOUND} $PWD $lib $pam /etc/slurm-efa /etc/pam.d /usr/sbin/efa-check \
         /var/lib/slurm-efa /etc/ssh/sshd_config.d"
    ))?;
    for (id, broken) in SABOTAGES {
        // At once: without its module nobody can log in to mend it.
        let said = compute.run(&format!(
            "{PLACES}; {broken}; slurm-efa doctor 2>&1; \
             tar -xpf {SOUND} -C / && chmod 755 /run/slurm-efa && systemctl start slurm-logoutd"
        ))?;
        let named = said.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next().is_some_and(|grade| grade != "ok") && words.next() == Some(id)
        });
        expect(named, &format!("{id}, after `{broken}`"), &said)?;
    }
    // slurmd may have missed its programs meanwhile.
    compute.run("truncate -s 0 /var/log/slurm/slurmd.log")?;
    compute.wait(
        "slurm-logoutd to hold its lock",
        "slurm-logout status --json | grep '\"daemon\": true'",
    )?;
    doctor(cluster)
}

fn profile(cluster: &mut Cluster) -> Verdict {
    let seen = cluster.login.run_as(
        "alice",
        "srun --efa-profile=p5 bash -c 'env; ulimit -l' 2>&1",
    )?;
    for line in [
        "SLURM_EFA_PROFILE=p5",
        "SLURM_EFA_INSTANCE_TYPE=p5.48xlarge",
        "SLURM_EFA_DEVICES=32",
        "unlimited",
    ] {
        expect_line(&seen, line)?;
    }
    let script = "cd /tmp; sbatch --wait --efa-profile=p4d --wrap 'echo this never runs'";
    let wrong = cluster.login.output_as("alice", script)?;
    expect(!wrong.success(), "a job that fails", &wrong)?;
    // The job's fault, not the node's.
    idle(cluster)
}

/// The pages of a size that each NUMA node has set aside.
fn pages(machine: &Machine, size: &str) -> Verdict<String> {
    let said = machine.run(&format!(
        "cd /sys/devices/system/node && cat node[0-9]/hugepages/hugepages-{size}/nr_hugepages"
    ))?;
    Ok(said.trim().replace('\n', " "))
}

/// Submits a job of alice's that goes on until [`finish`], and waits until it runs.
fn hold(cluster: &Cluster, options: &str, then: &str) -> Verdict<String> {
    cluster.compute.run("rm -f /tmp/go")?;
    let script = format!(
        "cd /tmp && sbatch --parsable --output=/tmp/job-%j.out {options} --wrap '\
         echo started; until [ -e /tmp/go ]; do sleep 0.2; done; {then}'"
    );
    let job = cluster.login.run_as("alice", &script)?.trim().to_owned();
    cluster.compute.wait(
        "the job's first word",
        &format!("grep started /tmp/job-{job}.out"),
    )?;
    Ok(job)
}

/// Has that job go on to its end, and returns what it printed.
fn finish(cluster: &Cluster, job: &str) -> Verdict<String> {
    cluster.compute.run("touch /tmp/go")?;
    ended(cluster, job, "COMPLETED")?;
    cluster.compute.run(&format!("cat /tmp/job-{job}.out"))
}

fn ended(cluster: &Cluster, job: &str, state: &str) -> Verdict {
    cluster.controller.wait(
        &format!("job {job} to be {state}"),
        &format!(
            "scontrol -o show job {job} | grep -E -o 'JobState=[^ ]*|Reason=[^ ]*'; \
                  scontrol -o show job {job} | grep -q JobState={state}"
        ),
    )?;
    // Its epilog is over too.
    idle(cluster)
}

fn hugepages(cluster: &mut Cluster) -> Verdict {
    const SMALL: &str = "2048kB";
    let compute = &cluster.compute;
    expect(pages(compute, SMALL)? == "0 0", "no pages at first", "")?;
    let then = "hugemap 65; hugemap 64; echo $SLURM_EFA_HUGEPAGES_MIB MiB";
    let job = hold(cluster, "--efa-hugepages=128M", then)?;
    let during = pages(compute, SMALL)?;
    expect(
        during == "32 32",
        "as many pages on each NUMA node",
        &during,
    )?;
    let limit = compute.run(&format!(
        "cat /sys/fs/cgroup/system.slice/*slurmstepd.scope/job_{job}/hugetlb.2MB.rsvd.max"
    ))?;
    expect(
        limit.trim() == "134217728",
        "the limit of the job's group",
        &limit,
    )?;
    // All 64 pages are free, and none of them is the neighbour's.
    let neighbour = |options: &str, pages: u32| {
        let script = format!("srun {options} hugemap {pages} 2>&1");
        cluster.login.output_as("bob", &script)
    };
    let none = neighbour("", 1)?;
    expect(
        none.stdout.contains("no pages"),
        "a neighbour without pages",
        &none,
    )?;
    let own = neighbour("--efa-hugepages=16M", 8)?;
    expect(
        own.stdout.contains("mapped"),
        "a neighbour's own pages",
        &own,
    )?;
    let more = neighbour("--efa-hugepages=16M", 9)?;
    expect(
        more.stdout.contains("no pages"),
        "no page more than its own",
        &more,
    )?;

    let said = finish(cluster, &job)?;
    let printed: Vec<&str> = said.lines().take(4).collect();
    expect(
        printed == ["started", "no pages", "mapped", "128 MiB"],
        "64 pages and no 65th",
        &said,
    )?;
    let after = pages(&cluster.compute, SMALL)?;
    expect(after == "0 0", "all pages given back", &after)?;
    nothing_left(cluster)
}

/// Neither a job nor a page is in the books.
fn nothing_left(cluster: &Cluster) -> Verdict {
    let left = cluster
        .compute
        .run("find /run/slurm-efa/jobs /run/slurm-efa/hugepages -name '[0-9]*'")?;
    expect(left.is_empty(), "an empty ledger", left)
}

fn gigantic(cluster: &mut Cluster) -> Verdict {
    const CONFIG: &str = "/etc/slurm-efa/slurm-efa.toml";
    let set = |expression: &str| {
        Cluster::on_each(&cluster.all(), |machine| {
            machine.run(&format!("sed -i '{expression}' {CONFIG}"))?;
            Ok(())
        })
    };
    set("s/^isolate = true/&\\npage_size = \"1G\"/")?;
    // Memory that is in use is moved away for a page of this size.
    cluster.compute.run("echo 1 >/proc/sys/vm/drop_caches")?;
    let job = hold(
        cluster,
        "--efa-hugepages=1G",
        "echo $SLURM_EFA_HUGEPAGES_MIB MiB",
    )?;
    let during = pages(&cluster.compute, "1048576kB")?;
    let said = finish(cluster, &job)?;
    expect(
        during == "0 1",
        "a page of 1 GiB",
        format!("{during}\n{said}"),
    )?;
    expect_line(&said, "1024 MiB")?;
    let after = pages(&cluster.compute, "1048576kB")?;
    expect(after == "0 0", "the page given back", after)?;
    nothing_left(cluster)?;
    set("/^page_size/d")
}

fn health(cluster: &mut Cluster) -> Verdict {
    let (controller, compute) = (&cluster.controller, &cluster.compute);
    // The health check is due each minute; nobody waits that long here.
    controller.run(
        "sed -i 's/^HealthCheckInterval=60/HealthCheckInterval=5/' /opt/slurm/etc/slurm.conf && \
         scontrol reconfigure",
    )?;
    let adapter = format!("{SYSROOT}/sys/class/infiniband/rdmap182s0");
    compute.run(&format!("mv {adapter} /srv/aside"))?;
    let drained = controller.wait(
        "the node to be drained",
        "scontrol -o show node compute | grep -o 'State=.*Reason=[^[]*'; \
         sinfo -h -n compute -o '%T %E' | grep '^drained EFA: 31/32 devices, rdmap182s0 gone'",
    );
    compute.run(&format!("mv /srv/aside {adapter}"))?;
    drained?;
    // Slurm shows the reason until the next job is over.
    idle(cluster)?;
    cluster.login.run_as("alice", "srun true")?;
    // As it was: our lines are set right by the next set-up.
    controller.run("slurm-efa setup")?;
    Ok(())
}

/// The real tree of the kernel's InfiniBand devices has one that is no adapter of
/// Amazon's; so does, for this scene, the tree of the p5.
fn soft_roce(cluster: &mut Cluster) -> Verdict {
    let compute = &cluster.compute;
    compute.run(
        "modprobe rdma_rxe && rdma link add rxe0 type rxe netdev eth0 && cd /srv && \
         printf 'state_dir = \"/run/real\"\n[health]\nrecord = \"/srv/none\"\nexpected_devices = 1\n' >real.toml",
    )?;
    let real = compute.output("efa-check node --config /srv/real.toml")?;
    expect(
        real.stdout.contains("0/1 devices") && !real.stdout.contains("rxe0"),
        "no EFA device in the real tree, and no word of rxe0",
        &real,
    )?;
    let place = format!("{SYSROOT}/sys/class/infiniband/rxe0");
    let beside = compute.output(&format!(
        "mkdir {place} && mount --bind /sys/class/infiniband/rxe0 {place} && efa-check node; \
         code=$?; umount {place}; rmdir {place}; exit $code"
    ))?;
    compute.run("rdma link delete rxe0")?;
    expect(
        beside.success() && beside.stdout.contains("32 of 32 EFA devices"),
        "32 EFA devices beside it",
        &beside,
    )
}

/// As docs/gpu-sharing.md says, on a cluster that is in use: the section in the
/// configuration, the lifecycle script again on the nodes, then the controller.
fn shards(cluster: &mut Cluster) -> Verdict {
    let (controller, compute) = (&cluster.controller, &cluster.compute);
    Cluster::on_each(&cluster.all(), |machine| {
        let section = "printf '[gres]\nshard_size = \"10G\"\n'";
        machine.run(&format!("{section} >>{LIFECYCLE}/utils/slurm-efa.toml"))?;
        match machine.name {
            "controller" => Ok(()),
            _ => lifecycle(machine, "").map(drop),
        }
    })?;
    let generated = compute.run("gres-helper generate --file gres")?;
    controller.run(&format!(
        "cat >/root/gres.conf <<'END'\n{generated}END\n\
         cd /opt/slurm/etc && \
         sed -i 's/^NodeName=compute/& Gres=gpu:h100:{GPUS},shard:{}/' slurm.conf && \
         echo GresTypes=gpu,shard >>slurm.conf",
        7 * GPUS
    ))?;
    lifecycle(controller, "")?;
    controller.run("slurm-efa setup --gres-conf /root/gres.conf")?;
    idle(cluster)?;
    let seen = cluster.login.run_as(
        "alice",
        "srun --gres=shard:3 bash -c 'echo share: $SLURM_GPU_SHARE_MIB MiB of GPU $CUDA_VISIBLE_DEVICES' 2>&1",
    )?;
    expect_line(&seen, "share: 30720 MiB of GPU 0")?;
    idle(cluster)?;
    doctor(cluster)
}

fn login(cluster: &mut Cluster) -> Verdict {
    let compute = &cluster.compute;
    let refused = cluster.ssh("alice", "true")?;
    expect(!refused.success(), "a refusal", &refused)?;
    expect(
        refused
            .stderr
            .contains("Access to compute is refused: you have no job"),
        "the reason, at the client",
        &refused,
    )?;
    let exempt = cluster.ssh("ubuntu", "true")?;
    expect(exempt.success(), "the exempt let in", &exempt)?;

    let job = hold(cluster, "", "true")?;
    let who = cluster.ssh(
        "alice",
        "echo $SLURM_JOB_ID $XDG_RUNTIME_DIR; stat -c %U $XDG_RUNTIME_DIR",
    )?;
    expect(
        who.stdout == format!("{job} /run/user/2001\nalice\n"),
        "the job and the folder of logind",
        &who,
    )?;
    // As an editor leaves a server behind: in the session, but nobody's child.
    cluster.ssh(
        "alice",
        "setsid nohup sleep 4712 </dev/null >/dev/null 2>&1 &",
    )?;
    compute.run("pgrep -u alice -fx 'sleep 4712'")?;
    let terminal = cluster.terminal("alice")?;
    compute.wait("alice's shell", "ps -o tty= -u alice | grep pts")?;
    const SESSION: &str = "loginctl list-sessions --no-legend | \
                           awk '$3 == \"alice\" && $6 == \"user\" { print $1 }'";
    const SCOPES: &str = "ls -d /sys/fs/cgroup/user.slice/user-2001.slice/session-*.scope";
    for session in compute.run(SESSION)?.lines() {
        compute.run(&format!("{SCOPES} | grep session-{session}.scope"))?;
    }

    let roots = "loginctl list-sessions --no-legend | awk '$3 == \"root\"' | wc -l";
    let before = compute.run(roots)?;
    finish(cluster, &job)?;
    let shown = terminal.wait(Duration::from_secs(120))?;
    expect(
        shown.contains("your last job on compute has ended, so this login ends in 10 s"),
        "the warning",
        &shown,
    )?;
    compute.wait(
        "logind to forget the session",
        &format!("{SESSION}; [ -z \"$({SESSION})\" ]"),
    )?;
    compute.run(&format!("! {SCOPES} && ! pgrep -u alice -fx 'sleep 4712'"))?;
    compute.wait("logind to remove the folder", "! [ -e /run/user/2001 ]")?;
    expect(
        compute.run(roots)? == before,
        "root's sessions as before",
        before,
    )
}

fn power(cluster: &mut Cluster) -> Verdict {
    let job = hold(cluster, "--requeue --efa-hugepages=64M", "true")?;
    cluster.compute.lose_power()?;
    let compute = &cluster.compute;
    compute.wait_up()?;
    let services = compute.run("systemctl is-active slurmd slurm-logoutd munge ssh")?;
    expect(services == "active\n".repeat(4), "all services", services)?;
    let failed = compute.run("systemctl --failed --no-legend")?;
    expect(failed.is_empty(), "no failed unit", failed)?;
    // Slurm puts the job back into the queue when the node registers anew. What
    // its first life wrote into /tmp is gone with the power.
    let word = format!("grep started /tmp/job-{job}.out");
    compute.wait("the job's second life", &word)?;
    let during = pages(compute, "2048kB")?;
    expect(
        during == "16 16",
        "the pages of its second life only",
        during,
    )?;
    finish(cluster, &job)?;
    let after = pages(&cluster.compute, "2048kB")?;
    expect(after == "0 0", "all pages given back", after)?;
    nothing_left(cluster)?;
    doctor(cluster)
}

fn version(machine: &Machine) -> Verdict<String> {
    machine.run("dpkg-query -W -f '${Version}' slurm-efa")
}

fn upgrade(cluster: &mut Cluster) -> Verdict {
    let job = hold(cluster, "--efa-profile=p5 --efa-hugepages=64M", "srun env")?;
    Cluster::on_each(&cluster.all(), |machine| {
        lifecycle(machine, &format!("{NEWER}/slurm-efa_*.deb"))?;
        let version = version(machine)?;
        expect(version.starts_with(NEWER_VERSION), NEWER_VERSION, version)
    })?;
    let during = pages(&cluster.compute, "2048kB")?;
    expect(
        during == "16 16",
        "the job's pages during the upgrade",
        during,
    )?;
    let said = finish(cluster, &job)?;
    expect_line(&said, "SLURM_EFA_HUGEPAGES_MIB=64")?;
    let after = pages(&cluster.compute, "2048kB")?;
    expect(after == "0 0", "all pages given back", after)?;
    nothing_left(cluster)?;
    doctor(cluster)
}

fn removal(cluster: &mut Cluster) -> Verdict {
    // The package of a node that still has its lines from the controller stays.
    let early = cluster.compute.output("dpkg --remove slurm-efa 2>&1")?;
    expect(
        !early.success() && early.stdout.contains("slurm-efa revert"),
        "a refusal to be removed before the controller's lines",
        &early,
    )?;
    // What the site itself wrote about GPUs goes with our lines about them.
    cluster.controller.run(
        "sed -i -e 's/ Gres=[^ ]*//' -e /^GresTypes=/d /opt/slurm/etc/slurm.conf && slurm-efa revert 2>&1",
    )?;
    let gone = "! grep -r slurm-efa /var/spool/slurmd/conf-cache/";
    for machine in [&cluster.compute, &cluster.login] {
        machine.wait("the controller's new lines", gone)?;
    }
    Cluster::on_each(&cluster.all(), |machine| {
        machine.run("dpkg --remove slurm-efa 2>&1")?;
        let left: Output = machine.output(
            "grep -rl -e slurm-efa -e slurm_logout -e efa-check /etc/pam.d /opt/slurm/etc",
        )?;
        expect(left.stdout.is_empty(), "no line of ours left", left)
    })?;
    cluster.login.run_as("alice", "srun true")?;
    let open = cluster.ssh("alice", "true")?;
    expect(open.success(), "logins as before", open)?;
    idle(cluster)
}
