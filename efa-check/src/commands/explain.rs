//! `efa-check explain`.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use efa_check::checks::{self, CHECKS, Check};

use super::output::print;

/// The names of all checks, which shells complete.
pub fn checks() -> impl TypedValueParser<Value = &'static Check> {
    PossibleValuesParser::new(CHECKS.iter().map(|check| check.id))
        .try_map(|id| checks::find(&id).ok_or("there is no such check"))
}

pub fn run(check: &Check) -> u8 {
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
