//! `srun true` four ways, on four clusters that live side by side and take
//! turns: what disturbs the machine disturbs all four.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cdylib_tests::comparison::children_cpu;
use cdylib_tests::efa_cluster::{Vars, with_job_program};
use cdylib_tests::modules::{job_program_beside, reader_beside};
use cdylib_tests::simnode::Spec;
use cdylib_tests::statistics::{median, ratio};
use cdylib_tests::testbed::{NodeOptions, Testbed};

use crate::Outcome;

/// Rounds that are not counted.
const WARM_UP: u32 = 3;
/// How long the last process of a step may take to end.
const STEP_END: Duration = Duration::from_secs(10);

/// What a way may cost, as a ratio to a step without the plugin.
#[derive(Clone, Copy)]
struct Aim {
    wall: f64,
    cpu: f64,
}

/// One of the four ways.
struct Way {
    title: &'static str,
    aim: Option<Aim>,
    testbed: Testbed,
    args: &'static [&'static str],
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

/// Measures and prints.
///
/// # Errors
/// Without root, or when a step fails.
pub fn measure(plugin: &Path, rounds: u32) -> Outcome {
    // SAFETY: geteuid takes nothing and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        println!(
            "\nThe steps themselves were not measured: that needs the accounting of cgroups and so \
             root; run `sudo make bench`."
        );
        return Ok(());
    }
    let mut ways = start(plugin)?;
    for round in 0..WARM_UP + rounds {
        // Each way follows each other one equally often.
        let first = round as usize % ways.len();
        ways.rotate_left(first);
        for way in &mut ways {
            let (wall, cpu) = step(way)?;
            if round >= WARM_UP {
                way.wall.push(wall);
                way.cpu.push(cpu);
            }
        }
        ways.rotate_right(first);
    }
    report(&ways, rounds);
    Ok(())
}

fn start(plugin: &Path) -> Outcome<Vec<Way>> {
    let with_plugin = || -> Outcome<Testbed> { boot(Some(plugin), None) };
    let auto: &[&str] = &["--efa-profile=auto"];
    let profile = with_plugin()?;
    let exports = exports_of(&profile, auto)?;
    let prolog = boot(None, Some(&exports))?;
    let usual = environment(&prolog, &[])?;
    if let Some(missing) = exports
        .iter()
        .find(|line| !usual.efa().contains(&(*line).clone()))
    {
        return Err(format!("the TaskProlog does not export {missing}").into());
    }
    let way = |title, testbed, args, aim| Way {
        title,
        aim,
        testbed,
        args,
        wall: Vec::new(),
        cpu: Vec::new(),
    };
    let aim = |wall, cpu| Some(Aim { wall, cpu });
    let (without, with) = (aim(1.005, 1.03), aim(1.02, 1.10));
    Ok(vec![
        way("a  no plugin", boot(None, None)?, &[], None),
        way("b  plugin, no option", with_plugin()?, &[], without),
        way("c  plugin, --efa-profile=auto", profile, auto, with),
        way("d  no plugin, bash TaskProlog", prolog, &[], None),
    ])
}

fn boot(plugin: Option<&Path>, prolog: Option<&[String]>) -> Outcome<Testbed> {
    let node = NodeOptions {
        simulated: Spec::named("p5.48xlarge"),
        ..NodeOptions::default()
    };
    let mut builder = Testbed::builder().node(node);
    let program = std::env::current_exe()?;
    // Copies, since the users may not be let into the checkout.
    builder = builder.prepare(move |dir| fs::copy(program, dir.join("bench")).map(drop));
    if let Some(plugin) = plugin {
        let plugin = plugin.to_owned();
        builder = builder
            .plugstack("required {dir}/spank_efa.so config={dir}/slurm-efa.toml")
            .file("slurm-efa.toml", "sysroot = \"{dir}/sysroots/%n\"\n")
            .prepare(move |dir| {
                let there = dir.join("spank_efa.so");
                fs::copy(reader_beside(&plugin), reader_beside(&there))?;
                fs::copy(job_program_beside(&plugin), job_program_beside(&there))?;
                fs::copy(plugin, there).map(drop)
            });
        let program = Path::new("{dir}/slurm-efa-job");
        builder = with_job_program(builder, program, "slurm-efa.toml");
    }
    if let Some(exports) = prolog {
        let mut script = "#!/bin/bash\n".to_owned();
        for line in exports {
            script.push_str(&format!("echo 'export {line}'\n"));
        }
        builder = builder
            .slurm_conf_extra("TaskProlog={dir}/task-prolog")
            .prepare(move |dir| {
                let path = dir.join("task-prolog");
                fs::write(&path, script)?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o755))
            });
    }
    Ok(builder.start()?)
}

fn environment(testbed: &Testbed, args: &[&str]) -> Outcome<Vars> {
    let output = testbed
        .command("alice", &["srun"])
        .args(args)
        .arg("env")
        .success()?;
    Ok(Vars::of(&output.stdout))
}

/// What the profile sets, as a site's TaskProlog would write it.
fn exports_of(testbed: &Testbed, args: &[&str]) -> Outcome<Vec<String>> {
    let exports = environment(testbed, args)?.efa();
    if exports.is_empty() || exports.iter().any(|line| line.contains('\'')) {
        return Err(format!("these exports cannot be written to a TaskProlog: {exports:?}").into());
    }
    Ok(exports)
}

/// Wall and CPU time of one step, ms.
fn step(way: &Way) -> Outcome<(f64, f64)> {
    let testbed = &way.testbed;
    let before = daemons_cpu(testbed)?;
    let runner = testbed.dir().join("bench").display().to_string();
    let output = testbed
        .command("alice", &[runner.as_str(), "time", "--", "srun"])
        .args(way.args)
        .arg("true")
        .success()?;
    let mut fields = output.stdout.split_whitespace().map(str::parse::<f64>);
    let (Some(Ok(wall)), Some(Ok(client))) = (fields.next(), fields.next()) else {
        return Err(format!("{}: no times: {output}", way.title).into());
    };
    wait_for_end(testbed)?;
    let daemons = daemons_cpu(testbed)? - before;
    Ok((wall / 1e3, client / 1e3 + daemons))
}

/// Runs a command and prints its wall and CPU time in microseconds.
///
/// # Errors
/// When it cannot be started, or fails.
pub fn time(command: &[OsString]) -> Outcome {
    let (program, args) = command.split_first().ok_or("no command")?;
    let started = Instant::now();
    let mut child = Command::new(program).args(args).spawn()?;
    let status = child.wait()?;
    let wall = started.elapsed().as_micros();
    if !status.success() {
        return Err(format!("{}: {status}", program.to_string_lossy()).into());
    }
    println!("{wall} {}", children_cpu()?.as_micros());
    Ok(())
}

/// CPU time, ms, of everything that slurmctld, slurmd and munged started or
/// did since the testbed began: commands from outside are in other cgroups.
fn daemons_cpu(testbed: &Testbed) -> Outcome<f64> {
    let file = accounting(testbed)?.join("cpuacct.usage");
    let nanos: f64 = fs::read_to_string(file)?.trim().parse()?;
    Ok(nanos / 1e6)
}

fn accounting(testbed: &Testbed) -> Outcome<PathBuf> {
    testbed
        .cgroup_dirs()
        .into_iter()
        .find(|dir| dir.join("cpuacct.usage").exists())
        .ok_or_else(|| "this machine has no cgroup v1 with cpuacct, which counts CPU time".into())
}

/// Waits until the last slurmstepd has ended: its clean-up counts too.
fn wait_for_end(testbed: &Testbed) -> Outcome {
    let procs = accounting(testbed)?.join("cgroup.procs");
    let deadline = Instant::now() + STEP_END;
    loop {
        let steps = fs::read_to_string(&procs)?.lines().any(|pid| {
            // Gone in the meantime: ended.
            fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|comm| comm.trim() == "slurmstepd")
        });
        if !steps {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err("a slurmstepd does not end".into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn report(ways: &[Way], rounds: u32) {
    let Some(base) = ways.first() else { return };
    println!(
        "\n`srun true` under Slurm {}, one simulated p5.48xlarge each, {rounds} rounds of a b c d in \
         turn\nafter {WARM_UP} that were not counted. Medians in ms; ratio to a with the middle 95 % \
         of a bootstrap\nover rounds. CPU: user and system time of srun, slurmctld, slurmd, munged, \
         every slurmstepd and\ntask, until the last slurmstepd has ended. \
         A ratio should not be above its aim.\n",
        base.testbed.release()
    );
    println!(
        "{:<32} {:>9}  {:<24} {:<7} {:>9}  {:<24} aim",
        "", "wall", "ratio", "aim", "CPU", "ratio"
    );
    for way in ways {
        let shown = |values: &[f64], base: &[f64]| {
            let found = ratio(values, base);
            format!("{:.3} ({:.3} to {:.3})", found.ratio, found.low, found.high)
        };
        let aim = |part: fn(Aim) -> f64| {
            way.aim
                .map_or_else(String::new, |aim| format!("{:.3}", part(aim)))
        };
        println!(
            "{:<32} {:>9.2}  {:<24} {:<7} {:>9.2}  {:<24} {}",
            way.title,
            median(&way.wall),
            shown(&way.wall, &base.wall),
            aim(|aim| aim.wall),
            median(&way.cpu),
            shown(&way.cpu, &base.cpu),
            aim(|aim| aim.cpu)
        );
    }
}
