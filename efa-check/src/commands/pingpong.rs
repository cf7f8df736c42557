//! `efa-check pingpong`.

use std::time::Duration;

use efa_check::pingpong;
use efa_check::site::Site;
use findings::{Envelope, Severity};
use host::printable;
use slurm::NodeName;

use super::output::{complain, print, print_json};

pub fn run(site: &Site, only: Option<&str>, json: bool) -> u8 {
    let devices = match efa::devices::devices(&site.sysroot) {
        Ok(devices) => devices,
        Err(error) => {
            complain(&error.to_string());
            return Severity::Unknown.exit_code();
        }
    };
    let names: Vec<&str> = devices
        .iter()
        .map(|device| device.name.as_str())
        .filter(|name| only.is_none_or(|only| only == *name))
        .collect();
    if names.is_empty() {
        complain(match only {
            Some(_) => "there is no such EFA device; `efa-check node` counts them",
            None => "there is no EFA device",
        });
        return Severity::Unknown.exit_code();
    }
    let program = match pingpong::program(&site.settings) {
        Ok(program) => program,
        Err(reason) => {
            complain(&reason);
            return Severity::Unknown.exit_code();
        }
    };
    let mut results = Vec::new();
    for (done, name) in names.iter().enumerate() {
        let shown = printable(name, 60);
        let result = pingpong::test(&program, &site.settings, name);
        let words = match &result {
            Ok(took) => format!("fine, {} ms", took.as_millis()),
            Err(reason) => format!("FAILED: {reason}"),
        };
        if !json {
            print(&format!(
                "{:>3}/{} {shown}: {words}\n",
                done + 1,
                names.len()
            ));
        }
        results.push(serde_json::json!({
            "device": name,
            "ok": result.is_ok(),
            "reason": result.as_ref().err(),
            "seconds": result.as_ref().ok().map(Duration::as_secs_f64),
        }));
    }
    if json {
        let node = site.node.as_ref().map(NodeName::as_str);
        let devices = serde_json::json!({ "devices": results });
        print_json(&Envelope::of_now(node, devices));
    }
    let failed = results.iter().any(|result| result["ok"] != true);
    if failed { 2 } else { 0 }
}
