//! What `prolog` and `epilog` have in common: whose job it is, and what is said.

use cli::called::GRES_HELPER;
use cli::syslog;
use findings::Domain;
use gpu::settings::Settings;
use gres_helper::{drain, job};
use host::Uid;
use slurm::drain_policy::Failed;
use slurm::{JobId, JobKey};

use super::output::complain;

/// The job is slurmd's word; a user can forge none of these variables.
pub fn for_job(settings: &Settings, phase: Failed) -> Result<u8, String> {
    let number = |name: &str| -> Option<u32> { std::env::var(name).ok()?.parse().ok() };
    let (Some(job), Some(uid)) = (number("SLURM_JOB_ID"), number("SLURM_JOB_UID")) else {
        return Err(
            "SLURM_JOB_ID and SLURM_JOB_UID are not set: call this as Slurm's Prolog= or \
                    Epilog="
                .to_owned(),
        );
    };
    let uid = Uid(uid);
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
