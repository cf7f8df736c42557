//! `slurm-efa doctor`: is everything as `setup` leaves it, and does it work?
//! Looks and asks, and changes nothing. One file for each subject.

mod configuration;
mod daemons;
mod devices;
mod gpus;
mod health;
pub mod in_time;
mod logins;
mod look;
pub mod merge;
mod outlive;
mod plugin;
mod policy;
mod programs;
mod slurm_daemons;
mod slurm_files;
mod sshd;
mod state;
mod users;

use std::path::Path;
use std::time::Duration;

use cli::called;
use findings::{Document, Finding, Findings, Remedies, Severity, Show};
use host::printable;
use serde::Serialize;
use serde::de::DeserializeOwned;
use slurm::{NodeName, Program};

use crate::setup::discover::Site;
use crate::setup::parts::{Item, Parts};
use crate::setup::paths;
use cluster::Role;

use self::devices::recorded;
use self::logins::Stack;
use self::look::{Look, SETUP, unknown};
use self::programs::{executable, folder, health_check, health_link, others, program_key};

/// How long a look at files may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The same, once one has not ended: others may wait for the same file system.
const SHORT_LIMIT: Duration = Duration::from_secs(2);

/// How long a look may take that runs programs: each has a limit of its own, of 30 s
/// at most.
const PROGRAMS_LIMIT: Duration = Duration::from_secs(45);

/// Where a look does not end.
const SILENT: &str = "this look did not end in time: it may wait for a file system or a daemon that \
                      does not answer";
const FIND_SILENT: &str = "see which does not answer: timeout 5 df; then look again";

/// All that was looked at.
#[derive(Debug)]
pub struct Examination {
    /// The node's role.
    pub role: Option<Role>,
    /// The parts that are set up here.
    parts: Parts,
    /// In the order of the looks.
    pub findings: Findings,
    /// How long a look at files may take; `None` where it is made without a child.
    limit: Option<Duration>,
}

/// The key of the JSON document beside those of every [`Document`].
#[derive(Debug, Serialize)]
pub struct Keys {
    role: Option<Role>,
}

/// A finding, with the keys that it had up to 0.1, for one release.
#[derive(Debug, Serialize)]
pub struct ShownFinding<'a> {
    #[serde(flatten)]
    finding: &'a Finding,
    grade: Severity,
    evidence: &'a str,
}

/// Looks at everything that the node's role has to do with.
#[must_use]
pub fn examine(site: &Site) -> Examination {
    // Each look would ask for it otherwise.
    let _ = site.slurm.release();
    let role = site.role();
    let mut all = Examination {
        role: role.as_ref().ok().copied(),
        parts: Parts::recorded(site).unwrap_or(Parts::ALL),
        findings: Findings::default(),
        limit: Some(LIMIT),
    };
    all.add(
        "role",
        match &role {
            Ok(role) => Ok(role.to_string()),
            Err(error) => unknown(error.clone(), "say it with --role"),
        },
    );
    all.looks("configuration", || configuration::configuration(site));
    all.look("slurm", || slurm_files::slurm(site));
    if all.parts != Parts::ALL {
        all.add("parts", Ok(format!("set up here: {}", all.parts)));
    }
    if site.slurm.slurm_conf.is_some() {
        all.ask("slurm-conf", || slurm_files::slurm_conf(site));
        all.slurm_files(site);
        if all.has(Item::EfaPlugin) {
            all.ask("plugin-loaded", || plugin::plugin_loaded(site));
        }
    }
    all.running(site);
    if all.role == Some(Role::Compute) {
        all.called_programs(site);
        if all.has(Item::EfaCheck) {
            all.look("expectation", || recorded(site));
        }
        let gres = all.has(Item::GresHelper) && site.has_section("gres");
        if gres {
            all.look("gres-watch", || daemons::gres_watch(site));
        }
        if gres || Path::new("/proc/driver/nvidia/version").exists() {
            all.ask("nvml", gpus::nvml);
        }
        if all.has(Item::EfaCheck) {
            all.ask("efa-check", || health::efa_check(site));
        }
        all.look("job-log", || health::log_folder(site));
        all.look("selinux", || health::selinux(site));
        if gres {
            all.look("gres-spool-dir", || health::spool_dir(site, "gres", &[]));
        }
        all.logins(site);
    }
    let parts = all.parts;
    all.look("configuration-in-force", || {
        configuration::in_force(site, parts)
    });
    all.ask("versions", || health::versions(site));
    all.look("state", || state::state(site));
    all.look("left-over", || state::left_over(site));
    all
}

/// What is known where looking for slurm.conf and slurm-efa.toml does not end.
#[must_use]
pub fn silent(limit: Duration) -> Examination {
    let mut all = Examination {
        role: None,
        parts: Parts::ALL,
        findings: Findings::default(),
        limit: None,
    };
    let limit = limit.as_secs();
    all.add(
        "slurm",
        unknown(
            format!(
                "reading slurm.conf, what it includes, and slurm-efa.toml did not end in {limit} s: \
                 a file system may not answer"
            ),
            FIND_SILENT,
        ),
    );
    all
}

/// What is found in the files of Slurm, of set-up and of PAM alone: nothing is run,
/// and no daemon is asked.
#[must_use]
pub fn of_files(site: &Site) -> Findings {
    let mut all = Examination {
        role: site.role().ok(),
        parts: Parts::recorded(site).unwrap_or(Parts::ALL),
        findings: Findings::default(),
        limit: None,
    };
    if site.slurm.slurm_conf.is_some() {
        all.slurm_files(site);
    }
    if all.role == Some(Role::Compute) {
        all.called_programs(site);
        all.stack(site);
    }
    all.look("left-over", || state::left_over(site));
    all.findings
}

/// What sshd's penalties for refused logins do to other users, and what to do about
/// it, for setup; `None` where they do nothing.
#[must_use]
pub fn penalties(site: &Site) -> Option<String> {
    sshd::advice(sshd::penalties(site))
}

impl Examination {
    fn add(&mut self, id: &'static str, look: Look) {
        let (severity, sentence, remedy) = match look {
            Ok(evidence) => (Severity::Ok, evidence, None),
            Err((severity, evidence, remedy)) => (severity, evidence, Some(remedy)),
        };
        self.put(id, severity, &sentence, remedy);
    }

    fn put(&mut self, id: &'static str, severity: Severity, text: &str, remedy: Option<String>) {
        self.findings.0.push(Finding {
            id,
            severity,
            subject: None,
            sentence: printable(text, 600),
            remedy,
        });
    }

    /// Makes a look at files with a time limit; whether all is well there.
    fn look(&mut self, id: &'static str, look: impl FnOnce() -> Look) -> bool {
        let seen = self.in_time(look);
        self.add_seen(id, seen)
    }

    /// The same of a look that runs programs.
    fn ask(&mut self, id: &'static str, look: impl FnOnce() -> Look) -> bool {
        let seen = match self.limit {
            Some(_) => in_time::in_time(PROGRAMS_LIMIT, look),
            None => Some(look()),
        };
        self.add_seen(id, seen)
    }

    fn add_seen(&mut self, id: &'static str, seen: Option<Look>) -> bool {
        let look = seen.unwrap_or_else(|| unknown(SILENT, FIND_SILENT));
        let is_well = look.is_ok();
        self.add(id, look);
        is_well
    }

    /// A look at files with any number of findings.
    fn looks(&mut self, id: &'static str, look: impl FnOnce() -> Findings) {
        let seen = self.in_time(|| {
            let findings = look().0.into_iter();
            let parts = findings.map(|it| (it.severity, it.sentence, it.remedy));
            parts.collect::<Vec<(Severity, String, Option<String>)>>()
        });
        match seen {
            None => self.add(id, unknown(SILENT, FIND_SILENT)),
            Some(seen) => {
                for (severity, sentence, remedy) in seen {
                    self.put(id, severity, &sentence, remedy);
                }
            }
        }
    }

    fn in_time<T: Serialize + DeserializeOwned>(&mut self, look: impl FnOnce() -> T) -> Option<T> {
        let Some(limit) = self.limit else {
            return Some(look());
        };
        let seen = in_time::in_time(limit, look);
        if seen.is_none() {
            self.limit = Some(SHORT_LIMIT);
        }
        seen
    }

    /// Whether a part that is set up here needs this.
    fn has(&self, item: Item) -> bool {
        item.parts().meets(self.parts)
    }

    /// What slurm.conf and plugstack.conf say.
    fn slurm_files(&mut self, site: &Site) {
        self.look("files-read", || slurm_files::read_whole(site));
        if self.has(Item::EfaPlugin) {
            self.look("plugstack", || plugin::plugstack(site));
            self.look("plugin-file", || plugin::plugin_file(site));
        }
        self.look("plugstack-includes", || plugin::plugstack_includes(site));
        self.look("prolog-flags", || slurm_files::prolog_flags(site));
        if self.has(Item::Prolog) {
            self.look("prolog", || program_key(site, "Prolog", paths::PROLOGS));
        }
        if self.has(Item::HealthCheck) {
            self.look("health-check", || health_check(site));
            self.look("health-states", || health::node_state_of_checks(site));
        }
        if self.has(Item::Epilog) {
            self.look("epilog", || program_key(site, "Epilog", paths::EPILOGS));
        }
    }

    /// The programs that slurmd calls on a compute node.
    fn called_programs(&mut self, site: &Site) {
        if self.has(Item::Prolog) {
            let prologs = [called::SLURM_EFA_JOB, called::EFA_CHECK];
            let prologs = self.links(&prologs, "prolog");
            self.look("prolog-programs", || {
                folder(site, paths::PROLOGS, &prologs, SETUP)
            });
        }
        if site.slurm.slurm_conf.is_some() {
            self.look("prolog-others", || others(site));
        }
        if self.has(Item::EfaCheck) {
            let link = site.place(health_link(site));
            self.look("health-program", || executable(&link));
        }
        if self.has(Item::Epilog) {
            let mut epilogs = vec![called::SLURM_EFA_JOB];
            if site.has_section("gres") {
                epilogs.push(called::GRES_HELPER);
            }
            let epilogs = self.links(&epilogs, "epilog");
            self.look("epilog-programs", || {
                folder(site, paths::EPILOGS, &epilogs, SETUP)
            });
        }
    }

    /// The links to those of these programs that the parts set up here need.
    fn links(&self, programs: &[called::Program], command: &str) -> Vec<String> {
        let programs = programs.iter();
        let needed = programs.filter(|it| self.has(Item::of_program(it)));
        needed.map(|it| it.link(command)).collect()
    }

    fn logins(&mut self, site: &Site) {
        if !self.stack(site) {
            return;
        }
        self.ask("sshd-penalties", || sshd::penalties(site));
        self.look("logoutd", || daemons::logoutd(site));
        let usual = slurm::installation::USUAL_SPOOLS;
        self.look("spool-dir", || health::spool_dir(site, "logout", &usual));
        self.look("outlive", || outlive::outlive(site));
    }

    /// sshd's PAM stack; `false` where logins are not ours to judge.
    fn stack(&mut self, site: &Site) -> bool {
        let stack = Stack::read(site);
        let ours = stack.as_ref().is_ok_and(Stack::has_ours);
        let wanted = self.has(Item::Logins) && site.has_section("logout");
        if !wanted && !ours {
            return false;
        }
        match &stack {
            Err(error) => self.add("pam", unknown(error.clone(), "correct the stack by hand")),
            Ok(stack) => {
                self.add("pam", stack.account());
                self.add("pam-session", stack.session());
                self.add("pam-adopt", stack.adopt());
                self.look("pam-module", || stack.module(site));
            }
        }
        true
    }

    /// Slurm's daemons, and what users can do.
    fn running(&mut self, site: &Site) {
        if site.slurm.slurm_conf.is_none() {
            return;
        }
        if self.role != Some(Role::Controller) {
            self.ask("users-read", || users::users_read(site));
        }
        let works = self.ask("munge", || slurm_daemons::munge(site));
        // Without munge no question to slurmctld has an answer.
        if !works || site.slurm.programs.find(Program::Scontrol).is_none() {
            return;
        }
        let in_force = slurm_daemons::config_in_force(site);
        let answers = in_force.is_ok();
        match in_force {
            Ok(in_force) => {
                self.add("slurmctld", Ok("slurmctld answers".to_owned()));
                self.add("reconfigured", slurm_daemons::reconfigured(site, &in_force));
                self.policy(site, &in_force);
            }
            Err(look) => self.add("slurmctld", Err(look)),
        }
        if self.role == Some(Role::Compute) {
            self.look("slurmd", slurm_daemons::slurmd);
            if answers {
                self.ask("node-state", || slurm_daemons::node_state(site));
            }
        }
    }

    /// What slurm.conf asks of slurmctld, where it asks for it.
    fn policy(&mut self, site: &Site, in_force: &str) {
        if self.role == Some(Role::Controller) {
            self.look_if_asked("job-submit", || policy::job_submit(site, in_force));
        }
        self.look_if_asked("accounting-enforce", || {
            policy::accounting_enforce(site, in_force)
        });
    }

    /// The same as [`Self::look`], of what need not be there.
    fn look_if_asked(&mut self, id: &'static str, look: impl FnOnce() -> Option<Look>) {
        match self.in_time(look) {
            Some(None) => {}
            Some(Some(look)) => self.add(id, look),
            None => self.add(id, unknown(SILENT, FIND_SILENT)),
        }
    }

    /// For a person: a line for each, and what to do below.
    #[must_use]
    pub fn to_text(&self) -> String {
        self.findings.text(Show::All, Remedies::Shown)
    }

    /// For a program.
    #[must_use]
    pub fn document<'a>(
        &'a self,
        node: Option<&'a NodeName>,
        unix: u64,
    ) -> Document<'a, ShownFinding<'a>, Keys> {
        let shown = |finding: &'a Finding| ShownFinding {
            finding,
            grade: finding.severity,
            evidence: &finding.sentence,
        };
        let node = node.map(NodeName::as_str);
        self.findings
            .document(node, unix, shown, Keys { role: self.role })
    }
}

#[cfg(test)]
mod tests {
    use super::look::{fatal, warning};
    use super::*;

    fn examined(severities: &[Severity]) -> Examination {
        let mut all = Examination {
            role: None,
            parts: Parts::ALL,
            findings: Findings::default(),
            limit: None,
        };
        for severity in severities {
            let look = match severity {
                Severity::Ok => Ok("seen".to_owned()),
                Severity::Warning => warning("seen", "look"),
                Severity::Unknown => unknown("seen", "look"),
                Severity::Fatal => fatal("seen", "look"),
            };
            all.add("slurm", look);
        }
        all
    }

    #[test]
    fn the_exit_code_is_that_of_the_worst_finding() {
        use Severity::{Fatal, Ok, Unknown, Warning};
        for (severities, code) in [
            (&[Ok] as &[Severity], 0),
            (&[Ok, Warning], 1),
            (&[Unknown, Ok], 3),
            (&[Warning, Unknown], 3),
            (&[Unknown, Warning, Fatal], 2),
        ] {
            let examination = examined(severities);
            assert_eq!(examination.findings.exit_code(), code, "{severities:?}");
        }
    }

    #[test]
    fn a_finding_in_json_has_the_keys_of_the_last_release_too() {
        let examination = examined(&[Severity::Unknown]);
        let node: NodeName = "n1".parse().unwrap();
        let document = examination.document(Some(&node), 0);
        let expected = serde_json::json!({
            "version": 1,
            "node": "n1",
            "time": "1970-01-01T00:00:00Z",
            "severity": "unknown",
            "findings": [{
                "id": "slurm",
                "severity": "unknown",
                "sentence": "seen",
                "remedy": "look",
                "grade": "unknown",
                "evidence": "seen",
            }],
            "role": null,
        });
        assert_eq!(serde_json::to_value(document).unwrap(), expected);
    }
}
