//! A textfile for Prometheus' node_exporter.

use std::fmt::Write as _;

use efa::counters::{DEVICE, PORT};
use findings::prometheus::{escape, head};

use crate::observe::Observation;
use crate::probe_worker::Probe;
use crate::report::Report;

/// The file's text.
#[must_use]
pub fn text(report: &Report, seen: &Observation, unix: u64) -> String {
    let mut text = String::new();
    let devices = seen.devices.as_deref().unwrap_or_default();
    let instance = escape(report.instance_type.as_deref().unwrap_or("unknown"));
    head(
        &mut text,
        "efa_node_info",
        "gauge",
        "The node's instance type.",
    );
    let _ = writeln!(text, "efa_node_info{{instance_type=\"{instance}\"}} 1");
    if let Some(count) = report.devices {
        head(
            &mut text,
            "efa_devices",
            "gauge",
            "EFA devices that are there.",
        );
        let _ = writeln!(text, "efa_devices {count}");
    }
    if let Some(count) = report.expected_devices {
        head(
            &mut text,
            "efa_devices_expected",
            "gauge",
            "EFA devices that shall be there.",
        );
        let _ = writeln!(text, "efa_devices_expected {count}");
    }
    report.findings.worst_metric(
        &mut text,
        "efa_health_status",
        "Health of the node: 0 healthy, 1 warnings, 2 fatal, 3 could not tell.",
    );
    report.findings.each_metric(
        &mut text,
        "efa_check_status",
        "Result of one check: 0 fine, 1 warning, 2 fatal, 3 could not tell.",
    );
    head(
        &mut text,
        "efa_check_duration_seconds",
        "gauge",
        "Time that a part of the checks took.",
    );
    for (part, seconds) in &report.seconds {
        let _ = writeln!(
            text,
            "efa_check_duration_seconds{{part=\"{part}\"}} {seconds:.6}"
        );
    }
    head(
        &mut text,
        "efa_check_timestamp_seconds",
        "gauge",
        "When the checks were made.",
    );
    let _ = writeln!(text, "efa_check_timestamp_seconds {unix}");
    head(
        &mut text,
        "efa_device_readable",
        "gauge",
        "Whether the device answered when its counters were read.",
    );
    for device in devices {
        let readable = u8::from(matches!(device.probe, Probe::Values(_)));
        let labels = labels(&device.name, device.pci.as_deref());
        let _ = writeln!(text, "efa_device_readable{{{labels}}} {readable}");
    }
    for counter in PORT.into_iter().chain(DEVICE) {
        let mut samples = devices.iter().filter_map(|device| match &device.probe {
            Probe::Values(values) => Some((device, values.get(counter)?)),
            _ => None,
        });
        // A metric without samples has no head either.
        let Some(first) = samples.next() else {
            continue;
        };
        let name = format!("efa_{counter}_total");
        head(
            &mut text,
            &name,
            "counter",
            &format!("The EFA device's counter {counter}."),
        );
        for (device, value) in std::iter::once(first).chain(samples) {
            let labels = labels(&device.name, device.pci.as_deref());
            let _ = writeln!(text, "{name}{{{labels}}} {value}");
        }
    }
    text
}

fn labels(device: &str, pci: Option<&str>) -> String {
    let pci = pci.unwrap_or_default();
    format!("device=\"{}\",pci=\"{}\"", escape(device), escape(pci))
}
