//! The node and the job that a prolog or an epilog works with.

use std::path::PathBuf;

use config::Config;
use host::state_dir::StateDir;
use host::{BootId, Deadline, Sysroot};
use hugepages::hugetlb_cgroup::Groups;
use hugepages::machine::Pages;
use hugepages::{Report, Settings};
use jobs::registry::{Job, Registry};
use jobs::sweep::{self, Census, EPILOG_TIME, Remains, Swept};
use slurm::{Installation, JobKey, NodeName, installation};
use usage::counting::{self, Counters};

use crate::called_for::CalledFor;
use crate::log::{complain, log};

/// What prolog and epilog work with.
pub struct Here {
    pub config: Config,
    pub settings: Settings,
    pub key: JobKey,
    pub sysroot: Sysroot,
    pub state: StateDir,
    pub boot: BootId,
    pub spool: Result<PathBuf, String>,
    reader: PathBuf,
}

impl Here {
    pub fn new(called: &CalledFor) -> Result<Self, String> {
        let config = Config::named_or_usual(called.config.as_deref()).map_err(said)?;
        profiles::profile::check(&config).map_err(said)?;
        let settings = Settings::of(&config).map_err(said)?;
        let key = JobKey {
            job: called.job,
            node: called.node.clone(),
        };
        let sysroot = config.sysroot(Some(&key.node)).map_err(said)?;
        let place = config.state_dir(Some(&key.node)).map_err(said)?;
        let conf = installation::slurm_conf_of_environment();
        let slurm = Installation::discover(conf.as_deref());
        let own = std::env::current_exe().map_err(said)?;
        Ok(Self {
            settings,
            spool: slurm.spool_dir(&key.node),
            key,
            config,
            sysroot,
            state: StateDir::open(&place).map_err(said)?,
            boot: BootId::current().map_err(said)?,
            reader: counting::reader_beside(&own),
        })
    }

    pub fn node(&self) -> &NodeName {
        &self.key.node
    }

    pub fn counters<'a>(&'a self, job: &'a Job) -> Counters<'a> {
        Counters {
            program: &self.reader,
            sysroot: &self.sysroot,
            state: self.state.path(),
            known: &job.devices,
        }
    }

    /// Where the sockets of this node's steps lie. Where that is not known, a
    /// place without any: jobs then count as existing rather than gone.
    pub fn spool(&self) -> PathBuf {
        self.spool
            .clone()
            .unwrap_or_else(|_| PathBuf::from("/nonexistent"))
    }

    /// For whatever reconciles: the jobs of this node.
    fn census(&self) -> Census {
        Census {
            boot: self.boot.clone(),
            node: Some(self.node().clone()),
            spool: self.spool.clone().ok(),
            deadline: Deadline::after(self.settings.time_limit),
            epilog_time: EPILOG_TIME,
            starting: None,
        }
    }

    /// Removes what jobs left whose epilogs were killed.
    pub fn sweep(&self, registry: &mut Registry, pages: &mut Pages<'_>) -> Swept {
        let mut groups = Groups;
        let mut owners = self.owners(pages, &mut groups);
        let census = Census {
            starting: Some(self.key.clone()),
            ..self.census()
        };
        let swept = sweep::sweep(Some(registry), &self.state, &census, &mut owners);
        complain_of(&swept.failed);
        swept
    }

    /// Gives back what a job had whose record was removed.
    pub fn give_back(&self, registry: &Registry, pages: &mut Pages<'_>) {
        let mut groups = Groups;
        let mut owners = self.owners(pages, &mut groups);
        complain_of(&sweep::remains(
            Some(registry),
            &self.census(),
            &[],
            &mut owners,
        ));
    }

    fn owners<'a>(
        &self,
        pages: &'a mut Pages<'_>,
        groups: &'a mut Groups,
    ) -> Vec<&'a mut dyn Remains> {
        match self.settings.isolate {
            true => vec![pages, groups],
            false => vec![pages],
        }
    }
}

fn complain_of(failed: &[String]) {
    for reason in failed {
        complain("what jobs left", reason);
    }
}

pub fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// For the administrator: what was changed by others, and what is wrong.
fn tell(report: &Report) {
    for it in &report.noticed {
        log(&format!(
            "others changed the {} from {} to {}; the pages beside the jobs' are now {}",
            it.pool, it.expected, it.found, it.baseline
        ));
    }
    for problem in &report.problems {
        complain("hugepages", &problem.to_string());
    }
}

/// What a reconciliation did, of which the administrator is told.
pub fn outcome(pages: Pages<'_>) -> Option<Result<Report, String>> {
    let outcome = pages.outcome()?.map_err(said);
    if let Ok(report) = &outcome {
        tell(report);
    }
    Some(outcome)
}
