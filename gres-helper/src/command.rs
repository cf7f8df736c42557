//! The command line, and what each command does.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use cli::called;
use cli::called::GRES_HELPER;
use findings::{Domain, Severity};
use host::{Sysroot, date, printable, syslog, textfile};
use slurm::NodeName;
use slurm::conf::{Disk, GresConf};
use slurm::drain_policy::Failed;
use slurm::scontrol::Shown;
use slurm::{JobId, JobKey};

use crate::watch::Places;
use crate::{EX_CANTCREAT, EX_CONFIG, EX_USAGE};
use crate::{drain, generate, job, mig, status, verify, watch};
use config::values::size::{self, SizeError};
use gpu::inventory::{Answer, Ask, Machine, Profile};
use gpu::nvml_worker;
use gpu::nvml_worker::Agent;
use gpu::settings::{Settings, Shards};
use gpu::shares;

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

#[derive(Debug, Args)]
struct Where {
    /// The configuration [default: /etc/slurm-efa/slurm-efa.toml].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Slurm's name of this node [default: SLURMD_NODENAME, else the host's].
    #[arg(long, global = true, value_name = "NAME")]
    node_name: Option<NodeName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Gres,
    Slurm,
    Cgroup,
}

#[derive(Debug, Args)]
struct How {
    /// Memory of a shard, e.g. 10G; else as in [gres].
    #[arg(long, value_name = "SIZE", conflicts_with = "shards_per_gpu", value_parser = mib)]
    shard_size: Option<u64>,
    /// Shards of a GPU; else as in [gres].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    shards_per_gpu: Option<u64>,
}

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
        file: Option<Part>,
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
        command: Mig,
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

#[derive(Debug, Args)]
struct Choice {
    /// mig-parted's file.
    #[arg(long, short = 'f', value_name = "FILE")]
    file: PathBuf,
    /// The configuration in it.
    #[arg(long, short = 'c', value_name = "NAME")]
    configuration: String,
}

#[derive(Debug, Subcommand)]
enum Mig {
    /// Print what the GPUs are now, as such a file.
    Export,
    /// Show what apply would do.
    Plan(Choice),
    /// Change modes, or layouts, or put the old layouts back if that fails.
    Apply {
        #[command(flatten)]
        choice: Choice,
        /// Change MIG mode where it must change, and nothing else.
        #[arg(long)]
        mode: bool,
        /// Do not ask Slurm whether the node is drained.
        #[arg(long)]
        without_slurm: bool,
    },
    /// Whether the GPUs are what the file says.
    Verify(Choice),
    /// Go back to the layouts before the last apply.
    Rollback {
        /// Do not ask Slurm whether the node is drained.
        #[arg(long)]
        without_slurm: bool,
    },
}

/// Runs the program.
#[must_use]
pub fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let program = args.next().unwrap_or_default();
    let mut args: Vec<OsString> = args.collect();
    if args.first().is_some_and(|arg| arg == nvml_worker::AGENT) {
        return crate::nvml_worker::main(args.into_iter().skip(1));
    }
    if args.first().is_some_and(|arg| arg == drain::SPEAKER) {
        return drain::speaker_main(args.into_iter().skip(1));
    }
    // Slurm's Prolog= and Epilog= take a path and no arguments.
    let by_slurm = called::by_slurm(args.len(), |name| std::env::var_os(name));
    if let Some(command) = GRES_HELPER.command(&program) {
        args.insert(0, command.into());
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
        return completions(shell);
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
            generate(&settings, node.as_ref(), *file, *mig)
        }
        Command::Verify {
            how,
            gres_conf,
            offline,
        } => {
            how.apply(&mut settings);
            verify(&settings, gres_conf.as_deref(), *offline)
        }
        Command::Status { json } => show_status(&settings, *json),
        Command::Prolog => for_job(&settings, Failed::Prolog),
        Command::Epilog => for_job(&settings, Failed::Epilog),
        Command::Watch { once } => watch::run(&settings, *once).map(|()| 0),
        Command::ForgetXids { gpu } => job::forget_xids(&settings, gpu.as_deref()).map(|()| 0),
        Command::Mig { command } => mig(&settings, command),
        Command::Metrics { file } => metrics(&settings, file),
        Command::Fence { job, pid } => fence(&settings, *job, *pid),
        Command::Completions { .. } => Ok(0),
    };
    result.unwrap_or_else(|reason| {
        complain(&reason);
        Severity::Unknown.exit_code()
    })
}

fn completions(shell: Shell) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Line::command(), "gres-helper", &mut script);
    print(&String::from_utf8_lossy(&script));
    0
}

/// A sentence to whoever called; slurmd logs a prolog's words when it fails.
fn complain(text: &str) {
    let text = printable(text, 2000);
    let _ = writeln!(io::stderr().lock(), "gres-helper: {text}");
}

fn print(text: &str) {
    // A closed pipe: whoever read has seen enough.
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

/// A size on the command line.
fn mib(text: &str) -> Result<u64, SizeError> {
    let size = size::parse_with_old_spelling(text)?;
    if size::old_spelling(text).is_some() {
        complain(&format!(
            "--shard-size has an old spelling, which the next release will refuse; write {size}"
        ));
    }
    size::whole_mebibytes(size)
}

impl How {
    fn apply(&self, settings: &mut Settings) {
        if let Some(size) = self.shard_size {
            settings.shards = Shards::Size(size);
        }
        if let Some(count) = self.shards_per_gpu {
            settings.shards = Shards::PerGpu(count);
        }
    }
}

fn agent(settings: &Settings) -> Agent {
    Agent::new(settings.library.clone(), settings.nvml_limit)
}

/// The machine, and what gres.conf should say of it.
fn wanted(settings: &Settings) -> Result<(Machine, generate::Wanted), String> {
    let mut agent = agent(settings);
    let machine = agent.machine().map_err(|error| error.to_string())?;
    let mut profiles: BTreeMap<String, Vec<Profile>> = BTreeMap::new();
    for gpu in machine.gpus.iter().filter(|gpu| gpu.in_mig_mode()) {
        let found = agent
            .profiles(&gpu.uuid)
            .map_err(|error| error.to_string())?;
        profiles.insert(gpu.uuid.clone(), found);
    }
    let wanted = generate::wanted(&machine, &profiles, settings)?;
    Ok((machine, wanted))
}

fn generate(
    settings: &Settings,
    node: Option<&NodeName>,
    part: Option<Part>,
    mig: bool,
) -> Result<u8, String> {
    let node = match node {
        Some(node) => node,
        None => settings.named()?,
    };
    let (machine, wanted) = wanted(settings)?;
    if mig && !machine.gpus.iter().any(gpu::inventory::Gpu::in_mig_mode) {
        return Err("no GPU is divided by MIG; `gres-helper mig apply` does so".to_owned());
    }
    let gres = generate::gres_conf(&wanted, node);
    let slurm = generate::slurm_conf(&wanted, node);
    print(&match part {
        Some(Part::Gres) => gres,
        Some(Part::Slurm) => slurm,
        Some(Part::Cgroup) => generate::CGROUP_CONF.to_owned(),
        None => format!(
            "# gres.conf\n{gres}\n# slurm.conf\n{slurm}\n# cgroup.conf\n{}",
            generate::CGROUP_CONF
        ),
    });
    Ok(0)
}

fn verify(settings: &Settings, given: Option<&Path>, offline: bool) -> Result<u8, String> {
    let node = settings.named()?;
    let (_, wanted) = wanted(settings)?;
    let path = verify::gres_conf_path(given.or(settings.gres_conf.as_deref()), settings);
    let shown = path.display().to_string();
    let running = GresConf::read(&Disk, &path, node)
        .map_err(|error| format!("{error}; --gres-conf names another file"))?;
    let mut found = verify::compare(&running, &wanted);
    let mut unknown = false;
    if !offline {
        match drain::scontrol(settings).and_then(|scontrol| scontrol.node_line(node)) {
            Ok(line) => found.extend(verify::compare_with_slurm(&line, &wanted, node)),
            Err(reason) => {
                complain(&format!("slurmctld was not asked: {reason}"));
                unknown = true;
            }
        }
    }
    for difference in &found {
        print(&format!("{}\n", difference.text));
    }
    let severities = found.iter().map(|difference| difference.severity);
    let asked = if unknown {
        Severity::Unknown
    } else {
        Severity::Ok
    };
    let worst = severities.fold(asked, Severity::max);
    if found.iter().any(|difference| difference.needs_drain) {
        print(&format!(
            "drain {node} first: Slurm ends jobs whose GPUs or shards are no longer configured\n"
        ));
    }
    if worst == Severity::Ok {
        print(&format!(
            "{shown} agrees with {} lines of NVML's GPUs\n",
            wanted.lines.len()
        ));
    }
    Ok(worst.exit_code())
}

fn collect(settings: &Settings) -> Result<status::Status, String> {
    let state = settings.existing_state();
    let (state, mut problems) = match state {
        Ok(state) => (state, Vec::new()),
        Err(reason) => (None, vec![reason]),
    };
    let mut agent = agent(settings);
    let (machine, findings) =
        job::look(settings, state.as_ref(), &mut agent).map_err(|error| error.to_string())?;
    let mut records = Vec::new();
    let mut watchdog = false;
    if let (Some(state), Ok(node)) = (&state, settings.named()) {
        match shares::all(state, node) {
            Ok((found, more)) => {
                records = found;
                problems.extend(more);
            }
            Err(reason) => problems.push(reason),
        }
        match watch::runs(state) {
            Ok(runs) => watchdog = runs,
            Err(error) => problems.push(format!("whether a watchdog runs: {error}")),
        }
    }
    let held = watch::held(&machine, &records, &mut Places::default());
    let mut all = status::status(settings, &machine, &records, &held, watchdog);
    all.findings = findings;
    for gpu in &machine.gpus {
        problems.extend(
            gpu.trouble
                .iter()
                .map(|reason| format!("{}: {reason}", gpu.label())),
        );
    }
    all.problems = problems;
    Ok(all)
}

fn show_status(settings: &Settings, json: bool) -> Result<u8, String> {
    let all = collect(settings)?;
    if json {
        let document = status::document(&all, settings.node.as_ref(), date::now());
        let text = serde_json::to_string_pretty(&document).map_err(|error| error.to_string())?;
        print(&format!("{text}\n"));
    } else {
        print(&status::text(&all));
    }
    Ok(all.findings.exit_code())
}

fn metrics(settings: &Settings, file: &Path) -> Result<u8, String> {
    let text = status::metrics(&collect(settings)?);
    match textfile::write(file, &text) {
        Ok(()) => Ok(0),
        Err(error) => {
            complain(&format!("{}: {error}", file.display()));
            Ok(EX_CANTCREAT)
        }
    }
}

/// The job is slurmd's word; a user can forge none of these variables.
fn for_job(settings: &Settings, phase: Failed) -> Result<u8, String> {
    let number = |name: &str| -> Option<u32> { std::env::var(name).ok()?.parse().ok() };
    let (Some(job), Some(uid)) = (number("SLURM_JOB_ID"), number("SLURM_JOB_UID")) else {
        return Err(
            "SLURM_JOB_ID and SLURM_JOB_UID are not set: call this as Slurm's Prolog= or \
                    Epilog="
                .to_owned(),
        );
    };
    let key = JobKey {
        job: JobId(job),
        node: settings.named()?.clone(),
    };
    let outcome = match phase {
        Failed::Prolog => {
            let positions = std::env::var("SLURM_JOB_GPUS").ok();
            job::prolog(settings, &key, uid, positions.as_deref())
        }
        Failed::Epilog => job::epilog(settings, &key, uid),
    };
    for finding in &outcome.findings.0 {
        complain(&finding.advice());
    }
    for complaint in &outcome.complaints {
        complain(complaint);
    }
    let Some(reason) = outcome.findings.reason(Domain::Gpu) else {
        return Ok(0);
    };
    // The exit code drains the node; this gives the drain a reason.
    if let Err(error) = drain::send(settings, phase, &reason) {
        let text = format!("Slurm was not given the reason `{reason}`: {error}");
        complain(&text);
        syslog::warn(GRES_HELPER.name, &text);
    }
    Ok(2)
}

fn fence(settings: &Settings, job: u32, pid: u32) -> Result<u8, String> {
    let key = JobKey {
        job: JobId(job),
        node: settings.named()?.clone(),
    };
    match job::fence(settings, &key, pid) {
        Ok(()) => Ok(0),
        Err(reason) => {
            complain(&reason);
            Ok(2)
        }
    }
}

fn rules(choice: &Choice) -> Result<Vec<mig::spec::Rule>, String> {
    let path = choice.file.display().to_string();
    let text = std::path::absolute(&choice.file)
        .map_err(|error| format!("{path}: {error}"))
        .and_then(|path| {
            Sysroot::real()
                .read_bounded(&path.to_string_lossy(), mig::spec::LARGEST)
                .map_err(|error| error.to_string())
        })?;
    let mut spec = mig::spec::parse(&text).map_err(|error| format!("{path}: {error}"))?;
    spec.configs.remove(&choice.configuration).ok_or_else(|| {
        let names: Vec<String> = spec
            .configs
            .keys()
            .map(|name| printable(name, 40))
            .collect();
        format!(
            "{path} has no configuration `{}`; it has {}",
            printable(&choice.configuration, 40),
            names.join(", ")
        )
    })
}

/// Why the node's GPUs must be left alone now: Slurm has not drained it or a
/// job is left on it, or a GPU of the plan is in use.
fn refusal(
    settings: &Settings,
    machine: &Machine,
    plan: &mig::Plan,
    without_slurm: bool,
) -> Result<Option<String>, String> {
    let slurms = match without_slurm {
        true => None,
        false => not_drained(settings)?,
    };
    Ok(slurms.or_else(|| mig::busy(machine, plan)))
}

fn not_drained(settings: &Settings) -> Result<Option<String>, String> {
    let node = settings.named()?;
    let shown: Shown = drain::scontrol(settings)?.show(node)?;
    let has = |flags: &[&str]| {
        shown
            .flags
            .iter()
            .any(|flag| flags.contains(&flag.as_str()))
    };
    let out = has(&["DRAIN", "DRAINED", "DOWN"]);
    let busy = has(&[
        "ALLOCATED",
        "ALLOC",
        "MIXED",
        "MIX",
        "COMPLETING",
        "COMP",
        "DRAINING",
    ]);
    if out && !busy {
        return Ok(None);
    }
    Ok(Some(format!(
        "{node} is {}: drain it (`scontrol update NodeName={node} State=DRAIN Reason=MIG`) and wait \
         until its jobs have ended",
        shown.flags.join("+")
    )))
}

fn mig(settings: &Settings, command: &Mig) -> Result<u8, String> {
    let mut agent = agent(settings);
    let machine = agent.machine().map_err(|error| error.to_string())?;
    match command {
        Mig::Export => export(&mut agent, &machine),
        Mig::Plan(choice) => {
            let plan = mig::plan(&mut agent, &machine, &rules(choice)?)?;
            show_plan(&mut agent, &plan)?;
            Ok(0)
        }
        Mig::Verify(choice) => {
            let plan = mig::plan(&mut agent, &machine, &rules(choice)?)?;
            show_plan(&mut agent, &plan)?;
            Ok(if plan == mig::Plan::default() { 0 } else { 2 })
        }
        Mig::Apply {
            choice,
            mode,
            without_slurm,
        } => {
            let plan = mig::plan(&mut agent, &machine, &rules(choice)?)?;
            if *mode {
                if let Some(reason) = refusal(settings, &machine, &plan, *without_slurm)? {
                    complain(&reason);
                    return Ok(2);
                }
                return modes(&mut agent, &plan);
            }
            if let Some((_, label, on)) = plan.modes.first() {
                complain(&format!(
                    "{label}: MIG must be {} first: `gres-helper mig apply --mode`",
                    if *on { "on" } else { "off" }
                ));
                return Ok(2);
            }
            let way = Way::Forth;
            carry_out(settings, &mut agent, &machine, &plan, *without_slurm, way)
        }
        Mig::Rollback { without_slurm } => {
            let state = settings.existing_state()?;
            let state = state.ok_or("there is nothing to go back to")?;
            let plan = mig::back(&state, &mut agent, &machine)?;
            let way = Way::Back;
            carry_out(settings, &mut agent, &machine, &plan, *without_slurm, way)
        }
    }
}

fn export(agent: &mut Agent, machine: &Machine) -> Result<u8, String> {
    let mut gpus = Vec::new();
    for gpu in &machine.gpus {
        let on = gpu.in_mig_mode();
        let devices = match on {
            true => {
                let profiles = agent
                    .profiles(&gpu.uuid)
                    .map_err(|error| error.to_string())?;
                mig::devices(&gpu.instances, &profiles)
            }
            false => BTreeMap::new(),
        };
        gpus.push((gpu.index, on, devices));
    }
    print(&mig::spec::export("current", &gpus));
    Ok(0)
}

fn show_plan(agent: &mut Agent, plan: &mig::Plan) -> Result<(), String> {
    if *plan == mig::Plan::default() {
        print("nothing to do: the GPUs are what the file says\n");
    }
    for (_, label, on) in &plan.modes {
        print(&format!(
            "{label}: MIG mode {}\n",
            if *on { "on" } else { "off" }
        ));
    }
    for step in &plan.steps {
        let profiles = agent
            .profiles(&step.gpu)
            .map_err(|error| error.to_string())?;
        print(&format!(
            "{}: {} → {}\n",
            step.label,
            mig::words(&step.before, &profiles),
            mig::words(&step.after, &profiles)
        ));
    }
    Ok(())
}

fn modes(agent: &mut Agent, plan: &mig::Plan) -> Result<u8, String> {
    let mut reset = false;
    for (uuid, label, on) in &plan.modes {
        match agent.ask(&Ask::SetMigMode(uuid.clone(), *on)) {
            Ok(Answer::Mode(true)) => print(&format!("{label}: done\n")),
            Ok(_) => {
                reset = true;
                print(&format!(
                    "{label}: in force after a reset of the GPU or a reboot\n"
                ));
            }
            Err(error) => return Err(format!("{label}: {error}")),
        }
    }
    Ok(u8::from(reset))
}

/// Which way a plan leads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To a layout that was asked for: what is there now is kept.
    Forth,
    /// To the layouts that were kept, which stay what to go back to until they
    /// are there.
    Back,
}

fn carry_out(
    settings: &Settings,
    agent: &mut Agent,
    machine: &Machine,
    plan: &mig::Plan,
    without_slurm: bool,
    way: Way,
) -> Result<u8, String> {
    show_plan(agent, plan)?;
    if plan.steps.is_empty() {
        return Ok(0);
    }
    if let Some(reason) = refusal(settings, machine, plan, without_slurm)? {
        complain(&reason);
        return Ok(2);
    }
    let mut state = settings.state()?;
    if way == Way::Forth {
        mig::keep(&mut state, plan)?;
    }
    match mig::apply(agent, plan) {
        mig::Applied::New => {
            if let Err(reason) = mig::close(&mut state) {
                complain(&reason);
            }
            print("applied and verified; new lines of gres.conf:\n");
            match wanted(settings) {
                Ok((_, wanted)) => print(&generate::gres_conf(&wanted, settings.named()?)),
                Err(reason) => complain(&format!("no lines: {reason}")),
            }
            Ok(0)
        }
        mig::Applied::Old { reason } if way == Way::Back => {
            complain(&format!(
                "{reason}; the layout is what it was before this rollback, verified: mend that, \
                 then run it again"
            ));
            Ok(2)
        }
        mig::Applied::Old { reason } => {
            complain(&format!(
                "{reason}; the old layout is back and verified, nothing has changed"
            ));
            Ok(2)
        }
        mig::Applied::Between { reason, back } => {
            complain(&format!(
                "{reason}; and the way back failed: {back}. The layout is neither the old nor the \
                 new one: leave the node drained and run `gres-helper mig rollback`"
            ));
            Ok(2)
        }
    }
}
