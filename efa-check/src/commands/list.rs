//! `efa-check list`.

use efa_check::checks::{self, CHECKS};
use findings::Envelope;
use slurm::{NodeName, node_name};

use super::output::{print, print_json};

pub fn run(json: bool, markdown: bool) -> u8 {
    if markdown {
        print(&checks::markdown());
    } else if json {
        let all: Vec<_> = CHECKS
            .iter()
            .map(|check| {
                serde_json::json!({
                    "id": check.id,
                    "proves": check.proves,
                    "severity": check.severity.word(),
                    "cost": check.cost,
                    "source": check.source,
                    "remedy": check.remedy,
                })
            })
            .collect();
        let node = node_name::of_this_process();
        let node = node.as_ref().map(NodeName::as_str);
        print_json(&Envelope::of_now(
            node,
            serde_json::json!({ "checks": all }),
        ));
    } else {
        let mut text = String::new();
        for check in CHECKS {
            let severity = check.severity.word();
            text.push_str(&format!(
                "{:<20} {severity:<8} {}\n",
                check.id, check.proves
            ));
        }
        print(&text);
    }
    0
}
