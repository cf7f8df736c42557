//! slurmstepd: the node's side, as root, once for each step.
//!
//! `init_post_opt` decides and sets the environment; `user_init` speaks, since
//! from there words reach the user's stderr; `task_init` fails the
//! tasks of a job that cannot run here. No hook returns an error: a failed
//! `init_post_opt` or `user_init` drains the node for a batch job.

use node::config::Config;
use node::{Stack, efa, instance};
use slurm_spank::{JobId, OptionValue, Overwrite, Spank, SpankError, StepId, log};

use crate::arguments::Arguments;
use crate::client::{INHERITED_EXPLAIN, INHERITED_PROFILE, REQUESTS};
use crate::explain;
use crate::node_name::node_name;
use crate::own;
use crate::plan::{self, Action, NodeFacts, Plan};
use crate::profile;
use crate::request::{self, BadValue, Explain, ProfileRequest};

/// Variables whose presence means that the step runs in an image's software.
/// The first two are pyxis' options as its users' environment carries them,
/// before and after Slurm's clean-up; the last is Slurm's own `--container`.
const CONTAINER: &[(&str, &str)] = &[
    (
        "_SLURM_SPANK_OPTION_pyxis_container_image",
        "--container-image",
    ),
    (
        "_SLURM_SPANK_OPTION_pyxis_container_name",
        "--container-name",
    ),
    (
        "SLURM_SPANK__SLURM_SPANK_OPTION_pyxis_container_image",
        "--container-image",
    ),
    (
        "SLURM_SPANK__SLURM_SPANK_OPTION_pyxis_container_name",
        "--container-name",
    ),
    ("SLURM_CONTAINER", "--container"),
];

/// The state of one step on one node.
#[derive(Default)]
pub struct Stepd {
    request: Option<Result<ProfileRequest, BadValue>>,
    explain: Explain,
    container: Option<&'static str>,
    outcome: Outcome,
}

/// What was decided.
#[derive(Default)]
enum Outcome {
    /// Nothing was asked, or this is the extern step.
    #[default]
    Nothing,
    /// The tasks run; the lines are for the user.
    Run {
        warnings: Vec<String>,
        explanation: Vec<String>,
    },
    /// The tasks fail with this sentence.
    Fail(String),
}

impl Stepd {
    /// Looks for a container before Slurm clears the options of other plugins
    /// out of the environment.
    pub fn init(&mut self, spank: &Spank<'_>) {
        self.container = container(spank);
    }

    /// An option came with the step.
    pub fn option(&mut self, index: usize, value: OptionValue<'_>) {
        match index {
            request::PROFILE => self.request = Some(ProfileRequest::parse(value)),
            _ => self.explain = Explain::parse(value).unwrap_or_default(),
        }
    }

    /// Decides and sets the environment.
    pub fn init_post_opt(&mut self, spank: &mut Spank<'_>, arguments: &Arguments) {
        let Ok(step) = spank.step_id() else { return };
        if step == StepId::Extern {
            return;
        }
        self.container = self.container.or_else(|| container(spank));
        if step == StepId::Batch {
            self.inherit(spank);
        }
        let asked = match self.request.take() {
            Some(Ok(asked)) => Some(asked),
            Some(Err(error)) => {
                self.outcome = Outcome::Fail(error.to_string());
                return;
            }
            None => None,
        };
        let own = own_request(spank, asked.clone());
        let foreign = own.is_none() && asked.is_some();
        self.outcome = match serve(spank, own, foreign, arguments, self.container) {
            Ok(outcome) => outcome,
            Err(error) => Outcome::Fail(format!("the EFA environment could not be set: {error}")),
        };
    }

    /// A batch step gets its options in the environment; `--export=NONE` drops
    /// one of the two forms before 23.11.
    fn inherit(&mut self, spank: &Spank<'_>) {
        if self.request.is_none()
            && let Ok(Some(value)) = spank.env(INHERITED_PROFILE)
        {
            self.request = Some(ProfileRequest::parse(Some(&value)));
        }
        if self.explain == Explain::No
            && let Ok(Some(value)) = spank.env(INHERITED_EXPLAIN)
        {
            let value = Some(&value[..]).filter(|value| !value.is_empty() && *value != b"(null)");
            self.explain = Explain::parse(value).unwrap_or_default();
        }
    }

    /// Speaks to the user.
    pub fn user_init(&mut self, spank: &Spank<'_>) {
        match &self.outcome {
            Outcome::Nothing => {}
            Outcome::Fail(sentence) => log::user(&format!("efa: error: {sentence}")),
            Outcome::Run {
                warnings,
                explanation,
            } => {
                for warning in warnings {
                    log::user(&format!("efa: warning: {warning}"));
                }
                let speaks = match self.explain {
                    Explain::No => false,
                    Explain::First => spank.node_index() == Ok(0),
                    Explain::All => true,
                };
                for line in explanation.iter().filter(|_| speaks) {
                    log::user(&format!("efa: {line}"));
                }
            }
        }
    }

    /// Whether the tasks must not run.
    pub fn has_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Fail(_))
    }
}

fn container(spank: &Spank<'_>) -> Option<&'static str> {
    CONTAINER
        .iter()
        .find(|(variable, _)| matches!(spank.env(variable), Ok(Some(_))))
        .map(|(_, option)| *option)
}

/// What was asked for this step, given what Slurm delivered: of a
/// heterogeneous job's components, each has its own request, and what the job
/// around the step asked for is component 0's.
fn own_request(spank: &Spank<'_>, delivered: Option<ProfileRequest>) -> Option<ProfileRequest> {
    let (Some(requests), Some(group)) = (spank.env(REQUESTS).ok().flatten(), het_group(spank))
    else {
        return delivered;
    };
    let name = requests
        .split(|byte| *byte == b',')
        .nth(group)
        .filter(|name| !name.is_empty())?;
    ProfileRequest::parse(Some(name)).ok()
}

/// The component of a heterogeneous job that this step runs in.
fn het_group(spank: &Spank<'_>) -> Option<usize> {
    /// Slurm's `MAX_HET_JOB_COMPONENTS`.
    const MOST: usize = 128;
    let JobId(job) = spank.job_id().ok()?;
    let job = job.to_string();
    // The first is the present name; 22.05 gives a step of srun's own job only the old one.
    ["HET", "PACK"].iter().find_map(|kind| {
        let id = |group| {
            spank
                .env(&format!("SLURM_JOB_ID_{kind}_GROUP_{group}"))
                .ok()
                .flatten()
        };
        (0..MOST).map_while(id).position(|id| id == job.as_bytes())
    })
}

/// Carries out what the configuration and the pure middle decide. `foreign`:
/// the environment is that of another component, which did ask.
fn serve(
    spank: &mut Spank<'_>,
    asked: Option<ProfileRequest>,
    foreign: bool,
    arguments: &Arguments,
    container: Option<&'static str>,
) -> Result<Outcome, SpankError> {
    if asked == Some(ProfileRequest::None) {
        return withdraw(spank, "--efa-profile=none");
    }
    let config = match arguments.load_config() {
        Ok(config) => config,
        Err(reason) if asked.is_some() => {
            return Ok(Outcome::Fail(format!(
                "--efa-profile cannot be used: {reason}; tell the administrator"
            )));
        }
        // slurmd said so when it started; a job that asked for nothing runs on.
        Err(_) => return nothing_asked(spank, foreign),
    };
    let (request, by_default) = match (asked, config.default_profile.as_deref()) {
        (Some(asked), _) => (asked, false),
        (None, Some(default)) => match ProfileRequest::parse(Some(default.as_bytes())) {
            Ok(ProfileRequest::None | ProfileRequest::List) | Err(_) => {
                return nothing_asked(spank, foreign);
            }
            Ok(default) => (default, true),
        },
        (None, None) => return nothing_asked(spank, foreign),
    };
    match plan_for(spank, &request, &config, container) {
        Ok((plan, facts)) => {
            apply(spank, &plan, Some(&facts))?;
            let asked = if by_default {
                format!(
                    "{}: default_profile = \"{}\"",
                    config.path.display(),
                    request.as_str()
                )
            } else {
                format!("--efa-profile={}", request.as_str())
            };
            let explanation = explain::lines(&plan, Some(&facts), &asked);
            Ok(Outcome::Run {
                warnings: plan.warnings,
                explanation,
            })
        }
        // Nobody asked: the job runs without.
        Err(reason) if by_default => {
            log::info(&format!("spank_efa: default profile not used: {reason}"));
            Ok(Outcome::Nothing)
        }
        Err(reason) => Ok(Outcome::Fail(reason)),
    }
}

fn nothing_asked(spank: &mut Spank<'_>, foreign: bool) -> Result<Outcome, SpankError> {
    if foreign {
        withdraw(spank, "another component's profile")
    } else {
        Ok(Outcome::Nothing)
    }
}

/// Takes back what an outer step's profile set.
fn withdraw(spank: &mut Spank<'_>, asked: &str) -> Result<Outcome, SpankError> {
    let plan = plan::none(&|name| spank.env(name).ok().flatten());
    apply(spank, &plan, None)?;
    Ok(Outcome::Run {
        warnings: Vec::new(),
        explanation: explain::lines(&plan, None, asked),
    })
}

fn plan_for(
    spank: &Spank<'_>,
    request: &ProfileRequest,
    config: &Config,
    container: Option<&'static str>,
) -> Result<(Plan, NodeFacts), String> {
    let facts = observe(config, container)?;
    let (profile, auto) = match request {
        ProfileRequest::Named(name) => (profile::resolve(name, config), false),
        _ => (
            profile::for_node(facts.instance.as_ref().ok(), config),
            true,
        ),
    };
    let profile = profile.map_err(|error| error.to_string())?;
    let env = |name: &str| spank.env(name).ok().flatten();
    let plan = plan::plan(&profile, auto, config.harmful, &facts, &env)
        .map_err(|misfit| misfit.to_string())?;
    Ok((plan, facts))
}

/// Reads what this node is.
fn observe(config: &Config, container: Option<&'static str>) -> Result<NodeFacts, String> {
    let name = node_name();
    let sysroot = config
        .sysroot(name.as_ref())
        .map_err(|error| format!("{}: {error}", config.path.display()))?;
    Ok(NodeFacts {
        instance: instance::detect(&sysroot).map_err(|error| error.to_string()),
        devices: efa::count(&sysroot)
            .map_err(|error| error.to_string())
            .and_then(|count| u32::try_from(count).map_err(|error| error.to_string())),
        // In a container the host's software says nothing.
        stack: if container.is_some() {
            Stack::default()
        } else {
            Stack::probe(&sysroot)
        },
        name,
        container,
    })
}

/// Sets and removes what the plan says, and tells the job about it.
fn apply(spank: &mut Spank<'_>, plan: &Plan, facts: Option<&NodeFacts>) -> Result<(), SpankError> {
    for entry in &plan.entries {
        match &entry.action {
            Action::Set { value } => spank.set_env(&entry.variable, value, Overwrite::Yes)?,
            Action::Removed => spank.unset_env(&entry.variable)?,
            Action::Kept { .. } | Action::NotSet | Action::Harmful => {}
        }
    }
    let list = own::list(plan.entries.iter().filter_map(|entry| match &entry.action {
        Action::Set { value } => Some((entry.variable.as_str(), value.as_str())),
        _ => None,
    }));
    let facts = facts.filter(|_| plan.profile.is_some());
    let values = [
        plan.profile.clone(),
        facts
            .and_then(|facts| facts.instance.as_ref().ok())
            .map(ToString::to_string),
        facts
            .and_then(|facts| facts.devices.as_ref().ok())
            .map(ToString::to_string),
        (!list.is_empty()).then_some(list),
    ];
    for (variable, value) in own::REPORT.iter().zip(values) {
        match value {
            Some(value) => spank.set_env(variable, &value, Overwrite::Yes)?,
            None => spank.unset_env(variable)?,
        }
    }
    Ok(())
}
