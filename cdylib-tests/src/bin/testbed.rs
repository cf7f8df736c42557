//! Boots a private Slurm to try things on.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use cdylib_tests::testbed::{Error, Testbed, boots_and_runs_jobs};
use clap::Parser;

/// Boot a private Slurm, run a command on it, and remove it again.
///
/// Without a command, its configuration's place is printed and it runs until
/// standard input ends.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// How many nodes.
    #[arg(long, default_value_t = 2)]
    nodes: usize,
    /// Another Debian root whose Slurm is run.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// A path of this machine to show, read-only, in that root.
    #[arg(long, value_name = "PATH", requires = "root")]
    bind: Vec<PathBuf>,
    /// A line for plugstack.conf; may be given several times.
    #[arg(long, value_name = "LINE")]
    plugstack: Vec<String>,
    /// Who runs the command; alice unless unprivileged.
    #[arg(long)]
    user: Option<String>,
    /// Run everything as the calling user, without namespaces and cgroups.
    #[arg(long)]
    unprivileged: bool,
    /// Check that steps, batch jobs, users and cgroups work, and say so.
    #[arg(long, conflicts_with_all = ["unprivileged", "command"])]
    check: bool,
    /// The command, for instance `srun -N2 hostname`.
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("testbed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode, Error> {
    if arguments.check {
        let release = boots_and_runs_jobs(arguments.root.as_deref())?;
        println!("Slurm {release}: steps, batch jobs, users and cgroups work");
        return Ok(ExitCode::SUCCESS);
    }
    let mut builder = Testbed::builder().nodes(arguments.nodes);
    if let Some(root) = arguments.root {
        builder = builder.root(root);
    }
    for path in arguments.bind {
        builder = builder.bind(path);
    }
    for line in &arguments.plugstack {
        builder = builder.plugstack(line);
    }
    if arguments.unprivileged {
        builder = builder.unprivileged();
    }
    let testbed = builder.start()?;
    if arguments.command.is_empty() {
        println!("{}", testbed.dir().display());
        if let Some(init) = testbed.init_pid() {
            println!("nsenter -t {init} -m -u -i -n -p -C -r -w");
        }
        for dir in testbed.cgroup_dirs() {
            println!("{}", dir.display());
        }
        // Whatever comes, and whatever ends it, is the end.
        let _ = std::io::stdin().read(&mut [0]);
        return Ok(ExitCode::SUCCESS);
    }
    let users = testbed.users();
    let user = match &arguments.user {
        Some(name) => testbed.user(name)?,
        None => &users[usize::from(users.len() > 1)],
    };
    let output = testbed.command(&user.name, &arguments.command).output()?;
    print!("{}", output.stdout);
    eprint!("{}", output.stderr);
    Ok(u8::try_from(output.code()).map_or(ExitCode::FAILURE, ExitCode::from))
}
