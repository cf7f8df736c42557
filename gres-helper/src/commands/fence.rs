//! `gres-helper fence`, for the plugin.

use gpu::settings::Settings;
use gres_helper::job;
use host::Pid;
use slurm::{JobId, JobKey};

use super::output::complain;

pub fn run(settings: &Settings, job: u32, pid: u32) -> Result<u8, String> {
    let key = JobKey {
        job: JobId(job),
        node: settings.named()?.clone(),
    };
    match job::fence(settings, &key, Pid(pid)) {
        Ok(()) => Ok(0),
        Err(reason) => {
            complain(&reason);
            Ok(2)
        }
    }
}
