//! `efa-check explain`.

use efa_check::EX_USAGE;
use efa_check::checks;
use host::printable;

use super::output::{complain, print};

pub fn run(id: &str) -> u8 {
    let Some(check) = checks::find(id) else {
        let id = printable(id, 60);
        complain(&format!(
            "there is no check `{id}`; `efa-check list` shows all"
        ));
        return EX_USAGE;
    };
    print(&format!(
        "{} ({})\n\nFinds nothing: {}.\nCost:          {}.\nSource:        {}.\n\n{}\n",
        check.id,
        check.severity.word(),
        check.proves,
        check.cost,
        check.source,
        check.remedy
    ));
    0
}
