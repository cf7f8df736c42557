//! Ways to do the same, run in turn and measured side by side.

use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::statistics::median;

/// One way to do it.
#[derive(Debug)]
pub struct Way {
    name: &'static str,
    commands: Vec<Command>,
    share: usize,
    walls: Vec<f64>,
    cpus: Vec<f64>,
}

/// Medians, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// On the clock.
    pub wall: f64,
    /// On processors, with all children that were waited for.
    pub cpu: f64,
}

impl Way {
    /// These commands, one after the other. A slow way may run in every
    /// `share`-th round only.
    #[must_use]
    pub fn new(name: &'static str, mut commands: Vec<Command>, share: usize) -> Self {
        for command in &mut commands {
            command.stdin(Stdio::null()).stdout(Stdio::null());
        }
        Self {
            name,
            commands,
            share,
            walls: Vec::new(),
            cpus: Vec::new(),
        }
    }

    fn run(&mut self) -> Result<Cost, Box<dyn std::error::Error>> {
        let before = children_cpu()?;
        let start = Instant::now();
        for command in &mut self.commands {
            if !command.status()?.success() {
                return Err(format!("{} failed: {command:?}", self.name).into());
            }
        }
        Ok(Cost {
            wall: start.elapsed().as_secs_f64(),
            cpu: (children_cpu()? - before).as_secs_f64(),
        })
    }

    /// What it took.
    #[must_use]
    pub fn cost(&self) -> Cost {
        Cost {
            wall: median(&self.walls),
            cpu: median(&self.cpus),
        }
    }
}

/// Runs all ways in turn, so that what disturbs the machine disturbs all, and
/// prints a table that compares the first one with each.
///
/// # Errors
/// A command fails.
pub fn compare(ways: &mut [Way], rounds: usize) -> Result<(), Box<dyn std::error::Error>> {
    for way in &mut *ways {
        // The first finds cold caches.
        way.run()?;
    }
    for round in 0..rounds {
        for way in &mut *ways {
            if round % way.share == 0 {
                let cost = way.run()?;
                way.walls.push(cost.wall);
                way.cpus.push(cost.cpu);
            }
        }
    }
    let Some(own) = ways.first().map(Way::cost) else {
        return Ok(());
    };
    println!(
        "{:<44}{:>9}{:>9}  first's wall to it",
        "", "wall ms", "CPU ms"
    );
    for way in ways {
        let cost = way.cost();
        println!(
            "{:<44}{:>9.2}{:>9.2}  {:.3}",
            way.name,
            cost.wall * 1e3,
            cost.cpu * 1e3,
            own.wall / cost.wall
        );
    }
    Ok(())
}

/// Time on processors of children that ended and were waited for, and of
/// theirs.
///
/// # Errors
/// The system does not tell.
pub fn children_cpu() -> io::Result<Duration> {
    // SAFETY: rusage is plain old data, for which all zeros is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to one writable rusage: getrusage(2).
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let micros = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    let both = micros(usage.ru_utime) + micros(usage.ru_stime);
    Ok(Duration::from_micros(both.try_into().unwrap_or(0)))
}
