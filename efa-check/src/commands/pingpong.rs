//! `efa-check pingpong`.

use efa_check::pingpong;
use efa_check::pingpong::Outcome;
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
    let mut worst = Severity::Ok;
    for (done, name) in names.iter().enumerate() {
        let shown = printable(name, 60);
        let outcome = pingpong::test(&program, site, name);
        let (words, severity) = match &outcome {
            Outcome::Fine(took) => (format!("fine, {} ms", took.as_millis()), Severity::Ok),
            Outcome::Failed(reason) => (format!("FAILED: {reason}"), Severity::Fatal),
            Outcome::Unknown(reason) => (format!("UNKNOWN: {reason}"), Severity::Unknown),
        };
        worst = worst.max(severity);
        if !json {
            print(&format!(
                "{:>3}/{} {shown}: {words}\n",
                done + 1,
                names.len()
            ));
        }
        results.push(entry(name, &outcome));
    }
    if json {
        let node = site.node.as_ref().map(NodeName::as_str);
        let devices = serde_json::json!({ "devices": results });
        print_json(&Envelope::of_now(node, devices));
    }
    worst.exit_code()
}

/// One device in JSON. `ok` is null where it could not be found out.
fn entry(device: &str, outcome: &Outcome) -> serde_json::Value {
    let (ok, reason, seconds) = match outcome {
        Outcome::Fine(took) => (Some(true), None, Some(took.as_secs_f64())),
        Outcome::Failed(reason) => (Some(false), Some(reason), None),
        Outcome::Unknown(reason) => (None, Some(reason), None),
    };
    serde_json::json!({ "device": device, "ok": ok, "reason": reason, "seconds": seconds })
}
