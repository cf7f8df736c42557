//! `gres-helper mig`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use gpu::inventory::{Answer, Ask, Machine};
use gpu::nvml_worker::Agent;
use gpu::settings::Settings;
use gres_helper::{drain, generate, mig};
use host::printable;
use host::sysroot::read_named;
use slurm::scontrol::Shown;

use super::machine::{agent, wanted};
use super::output::{complain, print};

#[derive(Debug, Args)]
pub struct Choice {
    /// mig-parted's file.
    #[arg(long, short = 'f', value_name = "FILE")]
    file: PathBuf,
    /// The configuration in it.
    #[arg(long, short = 'c', value_name = "NAME")]
    configuration: String,
}

#[derive(Debug, Subcommand)]
pub enum Command {
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

fn rules(choice: &Choice) -> Result<Vec<mig::spec::Rule>, String> {
    let path = choice.file.display().to_string();
    let text = read_named(&choice.file, mig::spec::LARGEST).map_err(|error| error.to_string())?;
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

pub fn run(settings: &Settings, command: &Command) -> Result<u8, String> {
    let mut agent = agent(settings);
    let machine = agent.machine().map_err(|error| error.to_string())?;
    match command {
        Command::Export => export(&mut agent, &machine),
        Command::Plan(choice) => {
            let plan = mig::plan(&mut agent, &machine, &rules(choice)?)?;
            show_plan(&mut agent, &plan)?;
            Ok(0)
        }
        Command::Verify(choice) => {
            let plan = mig::plan(&mut agent, &machine, &rules(choice)?)?;
            show_plan(&mut agent, &plan)?;
            Ok(if plan == mig::Plan::default() { 0 } else { 2 })
        }
        Command::Apply {
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
        Command::Rollback { without_slurm } => {
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
