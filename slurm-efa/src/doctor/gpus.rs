//! NVIDIA's driver.

use super::look::{Look, unknown, warning};
use crate::setup::{login, run};

pub(super) fn nvml() -> Look {
    let Ok(program) = std::env::current_exe() else {
        return unknown("this program does not find itself", "look again");
    };
    match run::run(&program, &[login::NVML]).map(|ran| ran.status.and_then(|status| status.code()))
    {
        Ok(Some(0)) => Ok("libnvidia-ml.so.1 reaches its driver".to_owned()),
        Ok(Some(login::NO_LIBRARY)) => warning(
            "there is no libnvidia-ml.so.1",
            "install NVIDIA's driver of the right version",
        ),
        Ok(Some(code)) => warning(
            format!("nvmlInit_v2 answers {code}"),
            "see what nvidia-smi and dmesg say; the driver may have to be loaded",
        ),
        _ => unknown(
            "NVML did not answer in 30 s",
            "see dmesg: the driver may hang",
        ),
    }
}
