//! `gres-helper prolog`.

use gpu::settings::Settings;
use slurm::drain_policy::Failed;

use super::for_job::for_job;

pub fn run(settings: &Settings) -> Result<u8, String> {
    for_job(settings, Failed::Prolog)
}
