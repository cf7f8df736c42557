//! The entry points that libpam calls, in sshd, as root.
//!
//! | fails | account | open_session |
//! |---|---|---|
//! | configuration, look-up, panic | `on_error` | `on_error` |
//! | of root or an exempt user | admitted | admitted |
//!
//! `close_session` never fails: libpam answers with the verdict that
//! open_session gave, whatever it returns.

// Stricter than the workspace: see clippy.toml.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::print_stdout,
        clippy::print_stderr,
        clippy::exit,
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::disallowed_macros,
        clippy::allow_attributes_without_reason
    )
)]
#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        clippy::disallowed_macros,
        reason = "a test runs in a process of its own"
    )
)]

mod account;

use std::ffi::CStr;
use std::path::Path;
use std::time::Duration;

use host::BootId;
use host::Pid;
use host::printable;
use host::process::{ProcessIdentity, read};
use host::state_dir::StateDir;

use account::Account;
use logins::clock::BootTime;
use logins::group;
use logins::module_arguments::Arguments;
use logins::process;
use logins::session::{PamItems, Records, Session, daemon_runs};
use logins::settings::{OnError, Settings};
use logins::user_jobs::{Job, Jobs, Presence};
use pam::{
    PAM_SILENT, PamFlag, PamHandle, PamHooks, PamResultCode, RHost, Service, Transaction, Tty, User,
};

/// How long a login may wait for slurmstepds that do not answer.
const LOOK: Duration = Duration::from_secs(3);

/// Longest argument that is read, in bytes.
const LONGEST: usize = 4096;

/// What a login is about.
struct Login {
    name: String,
    service: String,
    account: Account,
}

/// A user who cannot be looked up.
struct Unknown {
    name: String,
    reason: String,
}

/// What becomes of a login, before it is turned into a number.
enum Outcome {
    /// Not ours to judge: another service, an unknown user.
    NotOurs,
    /// Come in.
    Admit,
    /// Stay out, with what the user is told.
    Refuse(String),
    /// It could not be found out.
    Failed(String),
}

/// The settings of a login, and whether the user is exempt.
struct Rules {
    settings: Result<Settings, String>,
    arguments: Arguments,
}

impl Rules {
    fn load(words: &[String]) -> Self {
        let arguments = Arguments::parse(words.iter().map(String::as_str));
        for word in &arguments.unknown {
            pam::log(
                libc::LOG_WARNING,
                &format!(
                    "argument `{word}` is not understood and ignored; see pam_slurm_logout(8)"
                ),
            );
        }
        let settings = Settings::load(arguments.config.as_deref().map(Path::new))
            .map(|settings| arguments.over(settings))
            .map_err(|error| error.to_string());
        Self {
            settings,
            arguments,
        }
    }

    fn on_error(&self) -> OnError {
        match &self.settings {
            Ok(settings) => settings.on_error,
            Err(_) => self.arguments.on_error.unwrap_or_default(),
        }
    }

    /// Root always; others by name and group, by the arguments alone if the
    /// file cannot be read.
    fn exempt(&self, login: &Login) -> bool {
        let groups = match &self.settings {
            Ok(settings) => &settings.exempt_groups,
            Err(_) => &self.arguments.exempt_groups,
        };
        login.account.uid.is_root()
            || self.exempt_by_name(&login.name)
            || account::in_groups(&login.name, login.account, groups)
    }

    /// Those who are exempt by their name alone: all that can be said where
    /// users cannot be looked up.
    fn exempt_by_name(&self, name: &str) -> bool {
        let users = match &self.settings {
            Ok(settings) => &settings.exempt_users,
            Err(_) => &self.arguments.exempt_users,
        };
        name == "root" || users.iter().any(|it| it == name)
    }

    fn concerns(&self, service: &str) -> bool {
        let services = match &self.settings {
            Ok(settings) => &settings.services,
            Err(_) => &self.arguments.services,
        };
        services.is_empty() || services.iter().any(|it| it == service)
    }

    fn debug(&self, text: &str) {
        if self.settings.as_ref().is_ok_and(|it| it.debug) || self.arguments.debug {
            pam::log(libc::LOG_DEBUG, text);
        }
    }
}

impl Login {
    /// `Ok(None)`: nobody whom this node knows.
    fn of(handle: &PamHandle) -> Result<Option<Self>, Unknown> {
        let Some(name) = handle.text::<User<'_>>() else {
            return Ok(None);
        };
        let account = match account::account(&name) {
            Ok(account) => account,
            Err(reason) => return Err(Unknown { name, reason }),
        };
        let service = handle.text::<Service<'_>>().unwrap_or_default();
        Ok(account.map(|account| Self {
            name,
            service,
            account,
        }))
    }
}

/// Whether the login may go on.
fn judge(rules: &Rules, login: &Login) -> Outcome {
    if rules.exempt(login) {
        return Outcome::Admit;
    }
    if !rules.concerns(&login.service) {
        return Outcome::NotOurs;
    }
    let settings = match &rules.settings {
        Ok(settings) => settings,
        Err(reason) => return Outcome::Failed(reason.clone()),
    };
    if !settings.require_job {
        return Outcome::NotOurs;
    }
    let jobs = Jobs::look_for(settings, login.account.uid, LOOK);
    match jobs.of(login.account.uid) {
        Presence::Has => Outcome::Admit,
        Presence::None => Outcome::Refuse(refusal(settings.node_name())),
        Presence::Unknown => Outcome::Failed(jobs.doubts().join("; ")),
    }
}

/// Root gets in to mend what is broken.
fn judge_unknown(rules: &Rules, unknown: &Unknown) -> Outcome {
    if rules.exempt_by_name(&unknown.name) {
        Outcome::Admit
    } else {
        Outcome::Failed(unknown.reason.clone())
    }
}

fn refusal(node: &str) -> String {
    format!(
        "Access to {node} is refused: you have no job running on it.\n\
         Start one first (salloc, sbatch or srun); you may log in to its nodes while it runs."
    )
}

fn account_phase(handle: &PamHandle, rules: &Rules, silent: bool) -> PamResultCode {
    let outcome = match Login::of(handle) {
        Ok(Some(login)) => {
            let outcome = judge(rules, &login);
            let name = printable(&login.name, 80);
            match &outcome {
                Outcome::Refuse(_) => pam::log(
                    libc::LOG_NOTICE,
                    &format!(
                        "{name} is refused: no job of uid {} here",
                        login.account.uid
                    ),
                ),
                Outcome::Failed(reason) => pam::log(
                    libc::LOG_ERR,
                    &format!("{name}: {reason}; the login goes by on_error"),
                ),
                Outcome::Admit => rules.debug(&format!("{name} is admitted")),
                Outcome::NotOurs => rules.debug(&format!("{name}: not judged")),
            }
            outcome
        }
        Ok(None) => Outcome::NotOurs,
        Err(unknown) => judge_unknown(rules, &unknown),
    };
    match outcome {
        Outcome::NotOurs => PamResultCode::PAM_IGNORE,
        Outcome::Admit => PamResultCode::PAM_SUCCESS,
        Outcome::Refuse(text) => {
            if !silent {
                handle.tell(&text);
            }
            PamResultCode::PAM_PERM_DENIED
        }
        Outcome::Failed(_) => match rules.on_error() {
            // Not Ignore: libpam refuses where no module has an opinion.
            OnError::Allow => PamResultCode::PAM_SUCCESS,
            OnError::Deny => {
                if !silent {
                    handle.tell(
                        "Access is refused: it cannot be found out whether you have a job here. \
                         Ask the administrators to look at the log of this node.",
                    );
                }
                PamResultCode::PAM_PERM_DENIED
            }
        },
    }
}

/// Records the session, and gives it the job's variables.
fn open_phase(handle: &mut PamHandle, rules: &Rules) -> PamResultCode {
    let failed = |reason: &str| {
        pam::log(
            libc::LOG_ERR,
            &format!("the session cannot be recorded: {reason}; the login goes by on_error"),
        );
        match rules.on_error() {
            OnError::Allow => PamResultCode::PAM_SUCCESS,
            OnError::Deny => PamResultCode::PAM_SESSION_ERR,
        }
    };
    let login = match Login::of(handle) {
        Ok(Some(login)) => login,
        Ok(None) => return PamResultCode::PAM_IGNORE,
        // Without a record it is never ended.
        Err(unknown) if rules.exempt_by_name(&unknown.name) => return PamResultCode::PAM_SUCCESS,
        Err(unknown) => return failed(&unknown.reason),
    };
    let exempt = rules.exempt(&login);
    if !exempt && !rules.concerns(&login.service) {
        return PamResultCode::PAM_IGNORE;
    }
    let recorded = rules
        .settings
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|settings| record(handle, settings, &login, exempt));
    match recorded {
        Ok(()) => PamResultCode::PAM_SUCCESS,
        Err(reason) if exempt => {
            rules.debug(&reason);
            PamResultCode::PAM_SUCCESS
        }
        Err(reason) => failed(&reason),
    }
}

fn record(
    handle: &mut PamHandle,
    settings: &Settings,
    login: &Login,
    exempt: bool,
) -> Result<(), String> {
    let own = Pid::own();
    let leader = ProcessIdentity::of(own)
        .map_err(|error| error.to_string())?
        .ok_or("/proc does not show this process")?;
    let boot = BootId::current().map_err(|error| error.to_string())?;
    let told = PamItems {
        service: login.service.clone(),
        tty: handle.text::<Tty<'_>>(),
        remote: handle.text::<RHost<'_>>(),
    };
    let mut session = Session::new(boot, login.account.uid, &login.name, leader, told);
    session.audit = process::audit_session(own);
    session.scope = read(own, "cgroup")
        .ok()
        .flatten()
        .and_then(|text| process::session_scope(&text, session.uid));
    session.exempt = exempt;
    if !exempt {
        // Whatever the user starts is in it. Without it the session is ended
        // by what the daemon sees.
        if let Err(error) = group::enter(leader, session.scope.as_deref()) {
            pam::log(
                libc::LOG_NOTICE,
                &format!("the session has no control group of its own: {error}"),
            );
        }
        let jobs = Jobs::look_for(settings, login.account.uid, LOOK);
        let jobs = jobs.list(login.account.uid);
        session.jobs = jobs.iter().map(|job| job.id).collect();
        if settings.job_variables {
            give_variables(handle, jobs);
        }
    }
    let state = StateDir::open(&settings.state_dir).map_err(|error| error.to_string())?;
    // The look above may have taken seconds. A notice of that time has not
    // told this session anything.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place: a login begins now"
    )]
    let now = BootTime::now();
    session.opened = now;
    Records::open(&state)
        .and_then(|mut records| records.put(&session))
        .map_err(|error| error.to_string())
}

/// The variables of the only job, or of the newest: the one with the highest
/// id, of those in the registry if it knows any.
fn give_variables(handle: &mut PamHandle, jobs: &[Job]) {
    let Some(job) = jobs.last() else {
        return;
    };
    let id = job.id.to_string();
    handle.putenv("SLURM_JOB_ID", &id);
    handle.putenv("SLURM_JOBID", &id);
    if let Some(profile) = &job.profile {
        handle.putenv("SLURM_EFA_PROFILE", &printable(profile, 64));
    }
    // By UUID: the login is not in the job's cgroup, where GPUs count from 0.
    if !job.gpus.is_empty() && job.gpus.iter().all(|uuid| is_uuid(uuid)) {
        handle.putenv("CUDA_VISIBLE_DEVICES", &job.gpus.join(","));
    }
}

/// NVML's name of a GPU: `GPU-` and hexadecimal groups.
fn is_uuid(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    text.starts_with("GPU-") && text.len() <= 80 && text.bytes().all(plain)
}

/// Removes the record. If processes of the session may be left, a daemon that
/// runs needs it to find them, and removes it itself.
fn close_phase(rules: &Rules) {
    let Ok(settings) = &rules.settings else {
        return;
    };
    let Ok(Some(leader)) = ProcessIdentity::of(Pid::own()) else {
        return;
    };
    let Ok(Some(state)) = StateDir::open_existing(&settings.state_dir) else {
        return;
    };
    if daemon_runs(&state) {
        return;
    }
    if let Ok(Some(mut records)) = Records::open_existing(&state)
        && let Err(error) = records.remove(leader)
    {
        pam::log(libc::LOG_WARNING, &error.to_string());
    }
}

// ------------------------------------------------------------ entry points

#[cfg(feature = "panic-injection")]
#[expect(clippy::disallowed_macros, reason = "test builds panic on purpose")]
fn inject(rules: &Rules, phase: &str) {
    assert!(
        rules.arguments.panic.as_deref() != Some(phase),
        "injected panic in {phase}"
    );
}

#[cfg(not(feature = "panic-injection"))]
fn inject(_: &Rules, _: &str) {}

/// Copies the arguments of an entry point.
fn words(args: &[&CStr]) -> Vec<String> {
    args.iter()
        .take(logins::module_arguments::MOST)
        .filter(|word| word.count_bytes() <= LONGEST)
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
}

/// Runs an entry point's body; `None` if it panicked, which the log then tells.
fn guarded<T>(name: &str, body: impl FnOnce() -> T) -> Option<T> {
    guard::guard(name, |line| pam::log(libc::LOG_ERR, line), body)
}

/// What a panic leads to: as any failure, but root still gets in.
fn after_panic(handle: &PamHandle, words: &[String], denied: PamResultCode) -> PamResultCode {
    let admitted = guarded("after a panic", || {
        let login = Login::of(handle);
        let rules = Rules::load(words);
        match login {
            Ok(Some(login)) if rules.exempt(&login) => true,
            Err(unknown) if rules.exempt_by_name(&unknown.name) => true,
            _ => rules.on_error() == OnError::Allow,
        }
    });
    if admitted == Some(true) {
        PamResultCode::PAM_SUCCESS
    } else {
        denied
    }
}

/// The answer to a line of a type that the module does not have: libpam's own
/// for a module without that function, which no `required` line survives.
fn not_our_type(name: &str) -> PamResultCode {
    let _ = guarded(name, || {
        pam::log(
            libc::LOG_ERR,
            &format!("lines of type {name} are not supported; see pam_slurm_logout(8)"),
        );
    });
    PamResultCode::PAM_MODULE_UNKNOWN
}

/// The release, for `slurm-efa doctor`, which reads it from the file.
#[used]
static RELEASE: &str = concat!("slurm-efa-release=", env!("CARGO_PKG_VERSION"), "=");

struct Module;

/// The functions that libpam looks for. Each of the six is exported.
mod hooks {
    use super::Module;

    pam::pam_hooks!(Module);
}

impl PamHooks for Module {
    /// May this user log in here now?
    fn acct_mgmt(handle: &mut PamHandle, args: Vec<&CStr>, flags: PamFlag) -> PamResultCode {
        let words = words(&args);
        let verdict = guarded("account", || {
            let rules = Rules::load(&words);
            inject(&rules, "account");
            account_phase(handle, &rules, flags & PAM_SILENT != 0)
        });
        verdict.unwrap_or_else(|| after_panic(handle, &words, PamResultCode::PAM_PERM_DENIED))
    }

    fn sm_open_session(handle: &mut PamHandle, args: Vec<&CStr>, _: PamFlag) -> PamResultCode {
        let words = words(&args);
        let verdict = guarded("open_session", || {
            let rules = Rules::load(&words);
            inject(&rules, "open_session");
            open_phase(handle, &rules)
        });
        verdict.unwrap_or_else(|| after_panic(handle, &words, PamResultCode::PAM_SESSION_ERR))
    }

    fn sm_close_session(_: &mut PamHandle, args: Vec<&CStr>, _: PamFlag) -> PamResultCode {
        let words = words(&args);
        // What fails here has been logged, and has no consequence.
        let _ = guarded("close_session", || {
            let rules = Rules::load(&words);
            inject(&rules, "close_session");
            close_phase(&rules);
        });
        PamResultCode::PAM_SUCCESS
    }

    fn sm_authenticate(_: &mut PamHandle, _: Vec<&CStr>, _: PamFlag) -> PamResultCode {
        not_our_type("auth")
    }

    fn sm_setcred(_: &mut PamHandle, _: Vec<&CStr>, _: PamFlag) -> PamResultCode {
        not_our_type("auth")
    }

    fn sm_chauthtok(_: &mut PamHandle, _: Vec<&CStr>, _: PamFlag) -> PamResultCode {
        not_our_type("password")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nobody_can_be_looked_up_root_and_those_exempt_by_name_are_admitted() {
        let given = Rules::load(&["exempt_users=alice".to_owned()]);
        let broken = Rules {
            settings: Err("line 1 is wrong".to_owned()),
            arguments: Arguments::parse(["exempt_users=alice"]),
        };
        for rules in [given, broken] {
            let admitted = |name: &str| {
                let unknown = Unknown {
                    name: name.to_owned(),
                    reason: "the directory does not answer".to_owned(),
                };
                matches!(judge_unknown(&rules, &unknown), Outcome::Admit)
            };
            assert!(admitted("root") && admitted("alice"));
            assert!(!admitted("bob") && !admitted("toor") && !admitted(""));
        }
    }
}
