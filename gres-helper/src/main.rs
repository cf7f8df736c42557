//! `gres-helper`: see `gres-helper --help` and gres-helper(8).

mod commands;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use cli::called;
use cli::called::GRES_HELPER;
use cli::syslog;
use findings::Severity;
use gpu::nvml_worker;
use gpu::settings::Settings;
use gres_helper::{EX_CONFIG, EX_USAGE, drain};
use slurm::NodeName;

use crate::commands::output::complain;
use crate::commands::place::Where;
use crate::commands::shards::How;
use crate::commands::{
    completions, epilog, fence, forget_xids, generate, metrics, mig, prolog, status, verify, watch,
};

/// Fractional GPUs in Slurm: configuration, shares, health, MIG.
#[derive(Debug, Parser)]
#[command(name = "gres-helper", version, about, after_help = EXIT_CODES)]
struct Line {
    #[command(flatten)]
    place: Where,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 fine, 1 warnings, 2 wrong or failed, 3 could not tell; 64 and \
up: wrong use.\n`prolog` and `epilog` exit with 2 for a GPU that no job should get, and with 0 \
otherwise, whatever happens: any other code would drain the node.\nCalled by a link named \
gres-helper-prolog or gres-helper-epilog, it does what the link says; a number in front \
(50-gres-helper-prolog) and an extension do not matter.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Write gres.conf, and the lines of slurm.conf and cgroup.conf that go with it.
    Generate {
        #[command(flatten)]
        how: How,
        /// The name in NodeName= [default: this node's].
        #[arg(long, value_name = "NAME")]
        node: Option<NodeName>,
        /// Only this file's part.
        #[arg(long)]
        file: Option<generate::Part>,
        /// Fail unless a GPU is divided by MIG.
        #[arg(long)]
        mig: bool,
    },
    /// Compare the running configuration with the GPUs.
    Verify {
        #[command(flatten)]
        how: How,
        /// The running gres.conf [default: conf-cache, else beside slurm.conf].
        #[arg(long, value_name = "FILE")]
        gres_conf: Option<PathBuf>,
        /// Do not ask slurmctld.
        #[arg(long)]
        offline: bool,
    },
    /// Show who shares which GPU, and what holds them to their shares.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// For slurm.conf's Prolog=.
    Prolog,
    /// For slurm.conf's Epilog=.
    Epilog,
    /// Watch jobs' GPU memory against their shares; a service.
    Watch {
        /// Take one sample and end.
        #[arg(long)]
        once: bool,
    },
    /// Divide GPUs by MIG, with mig-parted's configuration files.
    Mig {
        #[command(subcommand)]
        command: mig::Command,
    },
    /// Write metrics for node_exporter's textfile collector.
    Metrics {
        /// Ends in .prom.
        file: PathBuf,
    },
    /// Forget XID errors, after a reset of the GPU: the prolog counts them until the next boot.
    ForgetXids {
        /// Only this GPU's [default: those of all].
        #[arg(value_name = "UUID")]
        gpu: Option<String>,
    },
    /// The shell's completions, for packages.
    #[command(hide = true)]
    Completions { shell: Shell },
    /// For the plugin: hold a job to its share.
    #[command(hide = true)]
    Fence {
        /// The job.
        job: u32,
        /// A process in its cgroup.
        pid: u32,
    },
}

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = args.next().unwrap_or_default();
    let mut args: Vec<OsString> = args.collect();
    if args.first().is_some_and(|arg| arg == nvml_worker::AGENT) {
        return gres_helper::nvml_worker::main(args.into_iter().skip(1));
    }
    if args.first().is_some_and(|arg| arg == drain::SPEAKER) {
        return drain::speaker_main(args.into_iter().skip(1));
    }
    // Slurm's Prolog= and Epilog= take a path and no arguments.
    let typed = if called::is_of_script(&args) {
        0
    } else {
        args.len()
    };
    let by_slurm = called::by_slurm(typed, |name| std::env::var_os(name));
    if let Some(command) = GRES_HELPER.command(&program) {
        args.insert(0, command.into());
    } else if let Some(of_script) = GRES_HELPER.of_script(&args) {
        args = of_script.into();
    }
    let drains = args.iter().any(|arg| arg == "prolog" || arg == "epilog");
    let parsed = Line::try_parse_from(std::iter::once("gres-helper".into()).chain(args));
    let code = match parsed {
        Ok(line) => run(&line),
        Err(error) if by_slurm && error.use_stderr() => {
            wrong_use(&program, &error);
            0
        }
        Err(error) => {
            // Nothing can be done if even this cannot be printed.
            let _ = error.print();
            if error.use_stderr() { EX_USAGE } else { 0 }
        }
    };
    // Any other code of a prolog or epilog drains the node, for a slip of the site's.
    let forgive = drains || by_slurm && code >= EX_USAGE;
    ExitCode::from(if forgive && code != 2 { 0 } else { code })
}

/// In a prolog wrong use is the site's fault: it is logged, and drains nothing.
fn wrong_use(program: &OsStr, error: &clap::Error) {
    let without_command = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    let reason = (!without_command).then(|| error.to_string());
    let text = GRES_HELPER.misuse(program, reason.as_deref());
    complain(&text);
    syslog::warn(GRES_HELPER.name, &text);
}

fn run(line: &Line) -> u8 {
    if let Command::Completions { shell } = line.command {
        return completions::run(shell, &Line::command());
    }
    let settings = Settings::load(line.place.config.as_deref(), line.place.node_name.clone());
    let mut settings = match settings {
        Ok(settings) => settings,
        Err(reason) => {
            complain(&reason);
            return EX_CONFIG;
        }
    };
    // slurmd logs them when it starts; each job need not.
    if !matches!(line.command, Command::Prolog | Command::Epilog) {
        settings.warnings.iter().for_each(|text| complain(text));
    }
    let result = match &line.command {
        Command::Generate {
            how,
            node,
            file,
            mig,
        } => {
            how.apply(&mut settings);
            generate::run(&settings, node.as_ref(), *file, *mig)
        }
        Command::Verify {
            how,
            gres_conf,
            offline,
        } => {
            how.apply(&mut settings);
            verify::run(&settings, gres_conf.as_deref(), *offline)
        }
        Command::Status { json } => status::run(&settings, *json),
        Command::Prolog => prolog::run(&settings),
        Command::Epilog => epilog::run(&settings),
        Command::Watch { once } => watch::run(&settings, *once),
        Command::ForgetXids { gpu } => forget_xids::run(&settings, gpu.as_deref()),
        Command::Mig { command } => mig::run(&settings, command),
        Command::Metrics { file } => metrics::run(&settings, file),
        Command::Fence { job, pid } => fence::run(&settings, *job, *pid),
        Command::Completions { .. } => Ok(0),
    };
    result.unwrap_or_else(|reason| {
        complain(&reason);
        Severity::Unknown.exit_code()
    })
}
