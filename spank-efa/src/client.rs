//! srun, sbatch and salloc: as the user, before anything is queued.
//!
//! A refusal ends the client with Slurm's own exit code for wrong options
//! instead of returning an error: Slurm would ignore the error of an
//! `optional` plugin, and would echo the raw value of a refused option to the
//! terminal.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use node::config::{Config, Harmful as HarmfulPolicy};
use slurm_spank::{OptionValue, Outcome, log};

use crate::arguments::Arguments;
use crate::explain;
use crate::plan;
use crate::profile::{self, Fit, Profile};
use crate::request::{self, Explain, ProfileRequest};

/// The form in which an option that was given to sbatch or salloc reaches the
/// srun and sbatch inside (Slurm's name: `SLURM_SPANK_` and the option's).
pub const INHERITED_PROFILE: &str = "SLURM_SPANK__SLURM_SPANK_OPTION_spank_efa_efa_profile";
/// The same of `--efa-explain`.
pub const INHERITED_EXPLAIN: &str = "SLURM_SPANK__SLURM_SPANK_OPTION_spank_efa_efa_explain";

/// What was asked for one component of a heterogeneous job, by the number of
/// the component; empty where nothing was asked.
///
/// Slurm hands the option of component 0 to all later ones; this is how a node
/// knows better.
pub fn component_variable(component: u32) -> String {
    format!("SLURM_EFA_REQUEST_HET_GROUP_{component}")
}

/// More components than Slurm takes (`MAX_HET_JOB_COMPONENTS` is 128).
pub const MAX_COMPONENTS: u32 = 128;

/// The state of one client.
#[derive(Default)]
pub struct Client {
    /// The value that an outer job's option left in our environment.
    inherited: Option<Vec<u8>>,
    /// What the option callback said since the last component was complete.
    request: Option<ProfileRequest>,
    calls: u32,
    /// Complete components, each with what was asked for it.
    components: Vec<Option<ProfileRequest>>,
}

impl Client {
    /// Lets `SBATCH_EFA_PROFILE`, `SALLOC_EFA_PROFILE` and `SRUN_EFA_PROFILE`
    /// (and `…_EFA_EXPLAIN`) stand for the options, as Slurm's own options have
    /// such variables: by handing them to Slurm's mechanism, which puts them
    /// between `#SBATCH` and the command line.
    pub fn init(&mut self) {
        if let Some(prefix) = input_prefix() {
            for (name, target) in [("PROFILE", INHERITED_PROFILE), ("EXPLAIN", INHERITED_EXPLAIN)] {
                if let Some(value) = std::env::var_os(format!("{prefix}_EFA_{name}")) {
                    set_env(target, value.as_bytes());
                }
            }
        }
        self.inherited = std::env::var_os(INHERITED_PROFILE).map(OsStringExt::into_vec);
    }

    /// One place named an option.
    pub fn option(&mut self, index: usize, value: OptionValue<'_>, arguments: &Arguments) -> Outcome {
        if index == request::EXPLAIN {
            if let Err(error) = Explain::parse(value) {
                refuse(&error.to_string());
            }
            return Ok(());
        }
        let asked = match ProfileRequest::parse(value) {
            Ok(asked) => asked,
            Err(error) => refuse(&error.to_string()),
        };
        let config = || arguments.load_config().unwrap_or_else(|reason| refuse(&cannot_serve(&reason)));
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
        self.calls += 1;
        self.request = Some(asked);
        Ok(())
    }

    /// A component (of an ordinary job: the job) is complete.
    pub fn init_post_opt(&mut self, arguments: &Arguments) {
        let asked = self.take_request();
        if let Some(asked) = asked.as_ref().filter(|asked| **asked != ProfileRequest::None) {
            let config = arguments.load_config().unwrap_or_else(|reason| refuse(&cannot_serve(&reason)));
            judge_environment(asked, &config);
        }
        self.note_component(asked);
    }

    /// What was asked for this component alone. From the second component on,
    /// Slurm replays the first one's value out of the environment that it
    /// itself has just filled.
    fn take_request(&mut self) -> Option<ProfileRequest> {
        let (calls, request) = (std::mem::take(&mut self.calls), self.request.take());
        let earlier = self.components.iter().rev().flatten().next();
        let replayed = self.inherited.is_none() && calls == 1 && earlier.is_some() && request.as_ref() == earlier;
        request.filter(|_| !replayed)
    }

    /// Leaves the map of components for the nodes. An ordinary job leaves none.
    fn note_component(&mut self, asked: Option<ProfileRequest>) {
        let only_inherited = self.inherited.is_some()
            && asked.as_ref().map(|asked| asked.as_str().as_bytes()) == self.inherited.as_deref();
        self.components.push(asked);
        if only_inherited {
            // The outer job's map, if there is one, says more than we know.
            return;
        }
        if self.components.len() == 1 {
            for component in 0..MAX_COMPONENTS {
                unset_env(&component_variable(component));
            }
            return;
        }
        for (component, asked) in (0..MAX_COMPONENTS).zip(&self.components) {
            let value = asked.as_ref().map_or("", ProfileRequest::as_str);
            set_env(&component_variable(component), value.as_bytes());
        }
    }
}

fn cannot_serve(reason: &str) -> String {
    format!("--efa-profile cannot be used: {reason}; tell the administrator")
}

/// Refuses (or, if the site wants it, warns of) variables that abort libfabric.
fn judge_environment(asked: &ProfileRequest, config: &Config) {
    let profile = match asked {
        ProfileRequest::Named(name) => profile::resolve(name, config).unwrap_or_else(|error| refuse(&error.to_string())),
        // No node is known yet.
        _ => Profile {
            name: asked.as_str().to_owned(),
            fit: Fit::Any,
            env: BTreeMap::new(),
            unset: BTreeMap::new(),
            devices: None,
        },
    };
    let exported = Export::of_this_client();
    let env = |name: &str| {
        if profile.unset.contains_key(name) { None } else { exported.value(name, |name| std::env::var_os(name).map(OsStringExt::into_vec)) }
    };
    for row in plan::fatal_at_submission(&profile, &env) {
        let sentence = row.sentence(&env);
        match config.harmful {
            HarmfulPolicy::Refuse => refuse(&format!("{sentence}. Nothing was submitted")),
            HarmfulPolicy::Warn => log::error(&format!("warning: {sentence}")),
        }
    }
}

/// What `--export` lets through to the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    all: bool,
    names: Vec<Vec<u8>>,
    assigned: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Export {
    /// Reads the value of `--export`, as sbatch(1) describes it: `ALL`, `NIL`,
    /// `NONE`, or a list of names and assignments.
    pub fn parse(value: &[u8]) -> Self {
        let mut export = Self { all: false, names: Vec::new(), assigned: BTreeMap::new() };
        for word in value.split(|byte| *byte == b',') {
            match word.iter().position(|byte| *byte == b'=') {
                Some(at) => {
                    export.assigned.insert(word[..at].to_vec(), word[at + 1..].to_vec());
                }
                None if word.eq_ignore_ascii_case(b"ALL") => export.all = true,
                None => export.names.push(word.to_vec()),
            }
        }
        export
    }

    /// The option as this client was given it. sbatch leaves it in
    /// `SLURM_EXPORT_ENV` before the plugin is asked; srun reads that variable
    /// and its own command line, which wins.
    fn of_this_client() -> Self {
        let mut found = ["SRUN_EXPORT_ENV", "SLURM_EXPORT_ENV"].iter().find_map(std::env::var_os);
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
        found.map_or_else(|| Self::parse(b"ALL"), |value| Self::parse(value.as_bytes()))
    }

    /// The variable as the job will have it.
    pub fn value(&self, name: &str, client: impl Fn(&str) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
        if let Some(value) = self.assigned.get(name.as_bytes()) {
            return Some(value.clone());
        }
        if self.all || self.names.iter().any(|listed| listed == name.as_bytes()) { client(name) } else { None }
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
    let code = std::env::var("SLURM_EXIT_ERROR").ok().and_then(|text| text.parse().ok()).filter(|code| *code != 0);
    end(code.unwrap_or(1))
}

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
            Ok(written) if written > 0 => rest = &rest[written.min(rest.len())..],
            _ => return,
        }
    }
}

fn set_env(name: &str, value: &[u8]) {
    let (Ok(name), Ok(value)) = (CString::new(name), CString::new(value)) else { return };
    // SAFETY: setenv(3) copies both strings. The hooks of a client run in its
    // main thread while it reads its options, before it starts another.
    unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) };
}

fn unset_env(name: &str) {
    let Ok(name) = CString::new(name) else { return };
    // SAFETY: as for `set_env`.
    unsafe { libc::unsetenv(name.as_ptr()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(export: &str, name: &str) -> Option<Vec<u8>> {
        Export::parse(export.as_bytes()).value(name, |name| (name == "A").then(|| b"client".to_vec()))
    }

    #[test]
    fn export_decides_which_of_the_clients_variables_the_job_has() {
        assert_eq!(through("ALL", "A"), Some(b"client".to_vec()));
        assert_eq!(through("NONE", "A"), None);
        assert_eq!(through("B,C=1", "A"), None);
        assert_eq!(through("B,A", "A"), Some(b"client".to_vec()));
        assert_eq!(through("ALL,A=own", "A"), Some(b"own".to_vec()));
        assert_eq!(through("A=", "A"), Some(Vec::new()));
        assert_eq!(through("NONE", "B"), None);
    }

    fn asked(text: &str) -> Option<ProfileRequest> {
        ProfileRequest::parse(Some(text.as_bytes())).ok()
    }

    #[test]
    fn a_component_is_not_given_what_slurm_replays_from_the_one_before() {
        let mut client = Client { request: asked("p5"), calls: 1, ..Client::default() };
        let first = client.take_request();
        assert_eq!(first, asked("p5"));
        client.components.push(first);
        (client.request, client.calls) = (asked("p5"), 1);
        assert_eq!(client.take_request(), None);
        (client.request, client.calls) = (asked("p5"), 2);
        assert_eq!(client.take_request(), asked("p5"), "replayed, then given on the command line");
    }
}
