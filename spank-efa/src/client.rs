//! srun, sbatch and salloc: as the user, before anything is queued.
//!
//! A refusal ends the client with Slurm's own exit code for wrong options
//! instead of returning an error: Slurm would ignore the error of an
//! `optional` plugin, and would echo the raw value of a refused option to the
//! terminal.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use config::{Config, Harmful as HarmfulPolicy};
use hugepages::{Request, Settings};
use spank::{Context, OptionValue, Origin, Outcome, Spank, log};

use crate::arguments::Arguments;
use crate::components::{self, Around, Change, Choices};
use crate::options;
use profiles::explain;
use profiles::export::Export;
use profiles::plan;
use profiles::profile;
use profiles::profile::Profile;
use profiles::request;
use profiles::request::{Explain, ProfileRequest};
use slurm::job_control;

/// The form in which an option that was given to sbatch or salloc reaches the
/// srun and sbatch inside (Slurm's name: `SLURM_SPANK_` and the option's).
pub const INHERITED_PROFILE: &str = "SLURM_SPANK__SLURM_SPANK_OPTION_spank_efa_efa_profile";
/// The same of `--efa-explain`.
pub const INHERITED_EXPLAIN: &str = "SLURM_SPANK__SLURM_SPANK_OPTION_spank_efa_efa_explain";
/// The same of `--efa-hugepages`.
pub const INHERITED_HUGEPAGES: &str = "SLURM_SPANK__SLURM_SPANK_OPTION_spank_efa_efa_hugepages";

/// The state of one client.
pub struct Client {
    profile: Choices,
    hugepages: Choices,
    /// The lists of the heterogeneous job around this client, before it
    /// changes them.
    around: Option<JobsLists>,
}

struct JobsLists {
    profile: String,
    hugepages: String,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            profile: Choices::default(),
            hugepages: Choices::shared(),
            around: None,
        }
    }
}

impl Client {
    /// Reads what the job around this client left, and
    /// lets `SBATCH_EFA_PROFILE`, `SALLOC_EFA_PROFILE` and `SRUN_EFA_PROFILE`
    /// (and `…_EFA_EXPLAIN`, `…_EFA_HUGEPAGES`) stand for the options, as Slurm's own options have
    /// such variables: by handing them to Slurm's mechanism, which puts them
    /// between `#SBATCH` and the command line.
    pub fn init(&mut self) {
        let env = |name: &str| std::env::var_os(name).map(OsStringExt::into_vec);
        self.around = components::inside_het_job(env).then(|| {
            let list = |name| std::env::var(name).unwrap_or_default();
            JobsLists {
                profile: list(components::PROFILES),
                hugepages: list(components::HUGEPAGES),
            }
        });
        let Some(prefix) = input_prefix() else { return };
        let given = |name: &str, target: &str| {
            let value = std::env::var_os(format!("{prefix}_EFA_{name}"));
            if let Some(value) = &value {
                set_env(target, value.as_bytes());
            }
            value.is_some()
        };
        given("EXPLAIN", INHERITED_EXPLAIN);
        if given("PROFILE", INHERITED_PROFILE) {
            self.profile.by_variable();
        }
        if given("HUGEPAGES", INHERITED_HUGEPAGES) {
            self.hugepages.by_variable();
        }
    }

    /// One place named an option.
    pub fn option(
        &mut self,
        index: usize,
        value: OptionValue<'_>,
        origin: Origin,
        arguments: &Arguments,
    ) -> Outcome {
        if index == options::EXPLAIN {
            if let Err(error) = Explain::parse(value) {
                refuse(&error.to_string());
            }
            return Ok(());
        }
        if index == options::HUGEPAGES {
            let asked =
                request::hugepages(value).unwrap_or_else(|error| refuse(&error.to_string()));
            judge_hugepages(asked, arguments);
            self.hugepages.record(&asked.to_string(), origin);
            return Ok(());
        }
        let asked = match ProfileRequest::parse(value) {
            Ok(asked) => asked,
            Err(error) => refuse(&error.to_string()),
        };
        let config = || {
            arguments
                .load_config()
                .unwrap_or_else(|reason| refuse(&cannot_serve(&reason)))
        };
        match &asked {
            ProfileRequest::List => {
                print(&explain::table(&config()));
                end(0);
            }
            ProfileRequest::Named(name) => {
                if let Err(error) = profile::resolve(name, &config()) {
                    refuse(&error.to_string());
                }
            }
            ProfileRequest::Auto | ProfileRequest::None => {}
        }
        self.profile.record(asked.as_str(), origin);
        Ok(())
    }

    /// A component (of an ordinary job: the job) is complete.
    pub fn init_post_opt(
        &mut self,
        spank: &mut Spank<'_>,
        context: Context,
        arguments: &Arguments,
    ) {
        let profile = self.profile.complete().map(|asked| asked.value.clone());
        if let Some(Ok(asked)) = profile
            .as_ref()
            .map(|name| ProfileRequest::parse(Some(name.as_bytes())))
            && asked != ProfileRequest::None
        {
            let config = arguments
                .load_config()
                .unwrap_or_else(|reason| refuse(&cannot_serve(&reason)));
            judge_environment(&asked, &config);
        }
        let hugepages = self.hugepages.complete().map(|asked| asked.value.clone());
        let is_later_component = self.profile.components().len() > 1;
        for (option, value) in [
            (job_control::PROFILE, profile),
            (job_control::HUGEPAGES, hugepages),
        ] {
            let inherits = || std::env::var_os(option.inherited()).is_some();
            if value.is_some() || is_later_component || inherits() {
                leave_for_prolog(spank, option.own, value.as_deref());
            }
        }
        let around = self.around.as_ref();
        for (choices, variable, list) in [
            (
                &self.profile,
                components::PROFILES,
                around.map(|lists| &lists.profile),
            ),
            (
                &self.hugepages,
                components::HUGEPAGES,
                around.map(|lists| &lists.hugepages),
            ),
        ] {
            match change(choices, list, context) {
                Change::Leave => {}
                Change::Remove => unset_env(variable),
                Change::Set(value) => set_env(variable, value.as_bytes()),
            }
        }
        if program().as_deref() == Some(OsStr::new("sbatch")) {
            self.warn_of_later_component();
        }
    }

    fn warn_of_later_component(&self) {
        if let [_, .., Some(asked)] = self.profile.components()
            && asked.explicit
            && asked.value != ProfileRequest::None.as_str()
        {
            let component = self.profile.components().len() - 1;
            let name = &asked.value;
            log::error(&format!(
                "warning: --efa-profile={name} of component {component} does not reach the steps that the batch \
                 script starts there; write srun --het-group={component} --efa-profile={name}"
            ));
        }
    }
}

/// What becomes of an option's list when a component is complete; `list` is
/// that of the heterogeneous job around this client.
fn change(choices: &Choices, list: Option<&String>, context: Context) -> Change {
    if context != Context::Local {
        return choices.list_of_job();
    }
    let line: Vec<OsString> = std::env::args_os().collect();
    let line = line.iter().map(|word| word.to_str().unwrap_or("?"));
    choices.list_of_step(&Around {
        list: list.map(String::as_str),
        groups: &list.map_or(Vec::new(), |_| components::het_groups(line)),
    })
}

/// Where there is no value, the prolog would see that of the component before, or
/// of the job around this one: an empty one says that there is none. It is not
/// unset, since salloc of Slurm 20.11 crashes in that.
fn leave_for_prolog(spank: &mut Spank<'_>, variable: &str, value: Option<&str>) {
    let done = spank.set_job_control_env(variable, value.unwrap_or_default());
    if let Err(error) = done {
        log::debug(&format!("spank_efa: {variable}: {error}"));
    }
}

fn cannot_serve(reason: &str) -> String {
    format!("--efa-profile cannot be used: {reason}; tell the administrator")
}

/// Refuses a size that no node of this site gives. What a node has is known there only.
fn judge_hugepages(asked: Request, arguments: &Arguments) {
    let cannot = |reason: String| -> ! {
        refuse(&format!(
            "--efa-hugepages cannot be used: {reason}; tell the administrator"
        ))
    };
    let config = match arguments.load_config() {
        Ok(config) => config,
        Err(reason) => cannot(reason),
    };
    let settings = match Settings::of(&config) {
        Ok(settings) => settings,
        Err(error) => cannot(error.to_string()),
    };
    // `auto` depends on the node: it is capped there.
    if let Request::Size(_) = asked
        && let Err(error) = asked.pages(settings.page_size, 0, Some(settings.max), None)
    {
        refuse(&format!("--efa-hugepages: {error}"));
    }
}

/// The option as this client was given it. sbatch leaves it in
/// `SLURM_EXPORT_ENV` before the plugin is asked; srun reads that variable
/// and its own command line, which wins.
fn exported() -> Export {
    let mut found = ["SRUN_EXPORT_ENV", "SLURM_EXPORT_ENV"]
        .iter()
        .find_map(std::env::var_os);
    if program().as_deref() != Some(OsStr::new("sbatch")) {
        let mut words = std::env::args_os().skip(1);
        while let Some(word) = words.next() {
            if word == "--export" {
                found = words.next();
            } else if let Some(value) = word.as_bytes().strip_prefix(b"--export=") {
                found = Some(OsStr::from_bytes(value).to_owned());
            } else if !word.as_bytes().starts_with(b"-") {
                // The user's program and its own words.
                break;
            }
        }
    }
    found.map_or_else(
        || Export::parse(b"ALL"),
        |value| Export::parse(value.as_bytes()),
    )
}

/// Refuses (or, if the site wants it, warns of) variables that abort libfabric.
fn judge_environment(asked: &ProfileRequest, config: &Config) {
    let profile = match asked {
        ProfileRequest::Named(name) => {
            profile::resolve(name, config).unwrap_or_else(|error| refuse(&error.to_string()))
        }
        // No node is known yet.
        _ => Profile::plain(asked.as_str()),
    };
    let exported = exported();
    let env = |name: &str| {
        if profile.unset.contains_key(name) {
            None
        } else {
            exported.value(name, |name| {
                std::env::var_os(name).map(OsStringExt::into_vec)
            })
        }
    };
    for row in plan::fatal_at_submission(&profile, &env) {
        let sentence = row.sentence(&env);
        match config.harmful {
            HarmfulPolicy::Refuse => refuse(&format!("{sentence}. Nothing was submitted")),
            HarmfulPolicy::Warn => log::error(&format!("warning: {sentence}")),
        }
    }
}

fn program() -> Option<std::ffi::OsString> {
    let path = std::env::args_os().next()?;
    std::path::Path::new(&path).file_name().map(OsStr::to_owned)
}

fn input_prefix() -> Option<&'static str> {
    match program()?.to_str()? {
        "sbatch" => Some("SBATCH"),
        "salloc" => Some("SALLOC"),
        "srun" => Some("SRUN"),
        _ => None,
    }
}

/// Ends the client with the reason on the user's stderr. Nothing was submitted.
fn refuse(reason: &str) -> ! {
    log::error(reason);
    // The exit code that srun(1), sbatch(1) and salloc(1) document for wrong options.
    let code = std::env::var("SLURM_EXIT_ERROR")
        .ok()
        .and_then(|text| text.parse().ok())
        .filter(|code| *code != 0);
    end(code.unwrap_or(1))
}

#[expect(
    clippy::disallowed_methods,
    reason = "srun, sbatch and salloc end so, too, when an option is wrong"
)]
fn end(code: u8) -> ! {
    // SAFETY: exit(3) runs the client's own handlers, as Slurm does itself when
    // an option is wrong. No lock of the plugin that a handler needs is held
    // across it: `State::enter` never waits.
    unsafe { libc::exit(i32::from(code)) }
}

fn print(text: &str) {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        // SAFETY: write(2) reads `rest.len()` bytes from a live slice.
        let written = unsafe { libc::write(libc::STDOUT_FILENO, rest.as_ptr().cast(), rest.len()) };
        match usize::try_from(written) {
            Ok(written) if written > 0 => rest = rest.get(written..).unwrap_or_default(),
            _ => return,
        }
    }
}

fn set_env(name: &str, value: &[u8]) {
    let (Ok(name), Ok(value)) = (CString::new(name), CString::new(value)) else {
        return;
    };
    // SAFETY: setenv(3) copies both strings. The hooks of a client run in its
    // main thread while it reads its options, before it starts another.
    unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) };
}

fn unset_env(name: &str) {
    let Ok(name) = CString::new(name) else { return };
    // SAFETY: as for `set_env`.
    unsafe { libc::unsetenv(name.as_ptr()) };
}
