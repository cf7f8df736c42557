//! `gres-helper verify`.

use std::path::Path;

use findings::Severity;
use gpu::settings::Settings;
use gres_helper::{drain, slurm_files, verify};
use slurm::conf::{Disk, GresConf};

use super::machine::wanted;
use super::output::{complain, print};

pub fn run(settings: &Settings, given: Option<&Path>, offline: bool) -> Result<u8, String> {
    let node = settings.named()?;
    let (_, wanted) = wanted(settings)?;
    let path = slurm_files::gres_conf_path(given.or(settings.gres.gres_conf.as_deref()), settings);
    let shown = path.display().to_string();
    let running = GresConf::read(&Disk, &path, node)
        .map_err(|error| format!("{error}; --gres-conf names another file"))?;
    let mut found = verify::compare(&running, &wanted);
    let mut unknown = false;
    if !offline {
        match drain::scontrol(settings).and_then(|scontrol| scontrol.node_line(node)) {
            Ok(line) => found.extend(verify::compare_with_slurm(&line, &wanted, node)),
            Err(reason) => {
                complain(&format!("slurmctld was not asked: {reason}"));
                unknown = true;
            }
        }
    }
    for difference in &found {
        print(&format!("{}\n", difference.text));
    }
    let severities = found.iter().map(|difference| difference.severity);
    let asked = if unknown {
        Severity::Unknown
    } else {
        Severity::Ok
    };
    let worst = severities.fold(asked, Severity::max);
    if found.iter().any(|difference| difference.needs_drain) {
        print(&format!(
            "drain {node} first: Slurm ends jobs whose GPUs or shards are no longer configured\n"
        ));
    }
    if worst == Severity::Ok {
        print(&format!(
            "{shown} agrees with {} lines of NVML's GPUs\n",
            wanted.lines.len()
        ));
    }
    Ok(worst.exit_code())
}
