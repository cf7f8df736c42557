//! `gres-helper status`.

use gpu::settings::Settings;
use gpu::shares;
use gres_helper::watch::Places;
use gres_helper::{job, status, watch};
use host::date;

use super::machine::agent;
use super::output::print;

pub fn collect(settings: &Settings) -> Result<status::Status, String> {
    let state = settings.existing_state();
    let (state, mut problems) = match state {
        Ok(state) => (state, Vec::new()),
        Err(reason) => (None, vec![reason]),
    };
    let mut agent = agent(settings);
    let (machine, findings) =
        job::look(settings, state.as_ref(), &mut agent).map_err(|error| error.to_string())?;
    let mut records = Vec::new();
    let mut watchdog = false;
    if let (Some(state), Ok(node)) = (&state, settings.named()) {
        match shares::all(state, node) {
            Ok((found, more)) => {
                records = found;
                problems.extend(more);
            }
            Err(reason) => problems.push(reason),
        }
        match watch::runs(state) {
            Ok(runs) => watchdog = runs,
            Err(error) => problems.push(format!("whether a watchdog runs: {error}")),
        }
    }
    let held = watch::held(&machine, &records, &mut Places::default());
    let mut all = status::status(settings, &machine, &records, &held, watchdog);
    all.findings = findings;
    for gpu in &machine.gpus {
        problems.extend(
            gpu.trouble
                .iter()
                .map(|reason| format!("{}: {reason}", gpu.label())),
        );
    }
    all.problems = problems;
    Ok(all)
}

pub fn run(settings: &Settings, json: bool) -> Result<u8, String> {
    let all = collect(settings)?;
    if json {
        let document = status::document(&all, settings.node.as_ref(), date::now());
        let text = serde_json::to_string_pretty(&document).map_err(|error| error.to_string())?;
        print(&format!("{text}\n"));
    } else {
        print(&status::text(&all));
    }
    Ok(all.findings.exit_code())
}
