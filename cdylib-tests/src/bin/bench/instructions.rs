//! User-space instructions of the plugin's hooks, counted by callgrind: the
//! same in every run, whatever else the machine does.
//!
//! Counted is everything below the hooks (the plugin, libc and the dynamic
//! linker on its behalf) except what [`crate::plugin_host`] itself executes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use cdylib_tests::simnode::SimNode;

use crate::Outcome;

/// What is counted: for a person, role, value of --efa-profile.
const CASES: [(&str, &str, Option<&str>); 4] = [
    ("srun, no option", "srun", None),
    ("srun --efa-profile=auto", "srun", Some("auto")),
    ("slurmstepd, no option", "slurmstepd", None),
    ("slurmstepd --efa-profile=auto", "slurmstepd", Some("auto")),
];

/// Counts and prints.
///
/// # Errors
/// Without valgrind, or when a hook fails.
pub fn measure(plugin: &Path) -> Outcome {
    let dir = tempfile::tempdir()?;
    SimNode::p5_48xlarge(dir.path().join("p5"))?;
    let config = dir.path().join("slurm-efa.toml");
    fs::write(
        &config,
        format!("sysroot = \"{}\"\n", dir.path().join("p5").display()),
    )?;
    let word = format!("config={}", config.display());
    println!(
        "User-space instructions by callgrind, on a simulated p5.48xlarge. Hooks in srun: init,\n\
         init_post_opt; in slurmstepd: these, user_init and task_init. The dynamic linker's and\n\
         libc's work for them is included.\n"
    );
    println!(
        "{:<32} {:>12}   of which: {:>10} {:>10} {:>10}",
        "hooks", "all", "plugin", "libc", "ld.so"
    );
    for (title, role, profile) in CASES {
        let count = count(plugin, "bench_hooks", role, &word, profile, dir.path())?;
        println!("{title:<32} {count}");
    }
    let load = count(plugin, "bench_load", "slurmstepd", &word, None, dir.path())?;
    println!("{:<32} {load}", "loading the object (dlopen)");
    Ok(())
}

/// Instructions by who executed them.
struct Count {
    plugin: u64,
    libc: u64,
    linker: u64,
    rest: u64,
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = self.plugin + self.libc + self.linker + self.rest;
        write!(
            f,
            "{all:>12}   {:>20} {:>10} {:>10}",
            self.plugin, self.libc, self.linker
        )
    }
}

fn count(
    plugin: &Path,
    function: &str,
    role: &str,
    word: &str,
    profile: Option<&str>,
    dir: &Path,
) -> Outcome<Count> {
    let (out, log) = (dir.join("callgrind.out"), dir.join("valgrind.log"));
    let program = std::env::current_exe()?;
    let mut command = Command::new("valgrind");
    command
        .arg("--tool=callgrind")
        .arg(format!("--toggle-collect={function}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(format!("--log-file={}", log.display()))
        .arg(&program)
        .arg("host")
        .args([plugin.as_os_str(), role.as_ref(), word.as_ref()])
        .env("SLURMD_NODENAME", "n1")
        .env_remove("LD_BIND_NOW");
    if let Some(profile) = profile {
        command.args(["--profile", profile]);
    }
    let status = command
        .status()
        .map_err(|error| format!("valgrind cannot be run: {error}; apt-get install valgrind"))?;
    if !status.success() {
        let said = fs::read_to_string(&log).unwrap_or_default();
        return Err(format!("the hooks did not run under valgrind ({status})\n{said}").into());
    }
    let objects = by_object(&fs::read_to_string(&out)?);
    let sum = |wanted: &dyn Fn(&str) -> bool| {
        objects
            .iter()
            .filter(|(object, _)| wanted(object))
            .map(|(_, cost)| *cost)
            .sum::<u64>()
    };
    let is_plugin = |object: &str| Path::new(object).file_name() == plugin.file_name();
    let is_host = |object: &str| Path::new(object).file_name() == program.file_name();
    let is_libc = |object: &str| object.contains("/libc.so") || object.contains("/libc-");
    let is_linker = |object: &str| object.contains("/ld-linux") || object.contains("/ld-2");
    let count = Count {
        plugin: sum(&is_plugin),
        libc: sum(&is_libc),
        linker: sum(&is_linker),
        rest: sum(&|object| {
            !(is_plugin(object) || is_host(object) || is_libc(object) || is_linker(object))
        }),
    };
    if count.plugin == 0 {
        return Err(format!("callgrind saw no instruction of the plugin in {function}").into());
    }
    Ok(count)
}

/// Self cost of each object in a file of callgrind's format (one event, `Ir`).
///
/// The format: valgrind's manual, "Callgrind Format Specification".
fn by_object(text: &str) -> BTreeMap<String, u64> {
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    let mut costs: BTreeMap<String, u64> = BTreeMap::new();
    let mut object = "";
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("ob=") {
            object = resolve(name, &mut names);
        } else if let Some(name) = line.strip_prefix("cob=") {
            // The called object: only its name is of interest.
            resolve(name, &mut names);
        } else if line.starts_with("calls=") {
            // The next line is the cost of what was called, counted there.
            lines.next();
        } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
            let cost = line.split_whitespace().nth(1).and_then(|n| n.parse().ok());
            *costs.entry(object.to_owned()).or_default() += cost.unwrap_or(0);
        }
    }
    costs
}

/// `(3) /lib/x.so` names number 3; `(3)` is that name again.
fn resolve<'t>(name: &'t str, names: &mut BTreeMap<&'t str, &'t str>) -> &'t str {
    match name.split_once(' ') {
        Some((number, name)) if number.starts_with('(') => {
            names.insert(number, name);
            name
        }
        _ => names.get(name).copied().unwrap_or(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_self_cost_counts_and_a_number_stands_for_its_name() {
        let text = "events: Ir\n\nob=(1) /bin/host\nfn=(1) main\n5 10\ncob=(2) /lib/x.so\n\
                    cfn=(2) hook\ncalls=1 7\n5 900\n\nob=(2)\nfn=(2)\n7 100\n+1 20\n* 3\n\
                    ob=(1)\nfn=(3) more\n9 1\ntotals: 134\n";
        let costs = by_object(text);
        assert_eq!(costs["/bin/host"], 11);
        assert_eq!(costs["/lib/x.so"], 123);
    }
}
