//! Whether the bindings in the tree hold for a release.

use anyhow::{Context, Result, bail};

use super::compare::{self, Difference};
use super::generate::{FILE, VERSION_MARK};
use super::version::SlurmVersion;

/// Items that may differ in the releases before one.
struct Handled {
    before: (u8, u8),
    /// Names; a final `*` stands for any rest.
    items: &'static [&'static str],
    because: &'static str,
}

/// Differences that the safe wrapper takes care of.
const HANDLED: &[Handled] = &[Handled {
    before: (21, 8),
    items: &["ESPANK_*", "spank_err_t", "slurm_err_t"],
    because: "renumbered in 21.08; lib/spank knows both numberings",
}];

/// Compares the bindings in the tree with those `generated` from the headers of
/// `theirs`, and prints what differs.
///
/// # Errors
/// When the same release gives anything else, or when another release has
/// changed or dropped an item and `HANDLED` does not list it. What a release
/// adds does no harm.
pub fn check(kept: &str, generated: &str, theirs: SlurmVersion) -> Result<()> {
    let ours = version_of(kept)?;
    let same_release = ours == theirs.to_string();
    let mut faults = 0_usize;
    for difference in compare::compare(kept, generated)? {
        let name = difference.name();
        match (handled(theirs, name), &difference) {
            _ if same_release => {
                faults += 1;
                println!("  {difference}");
            }
            (Some(reason), _) => println!("  handled  {name}: {reason}"),
            (None, Difference::Added(_)) => println!("  {difference}"),
            (None, Difference::Removed(_) | Difference::Changed { .. }) => {
                faults += 1;
                println!("  {difference}");
            }
        }
    }
    if faults > 0 && same_release {
        bail!(
            "{FILE} is not what the headers of Slurm {theirs} give; run `cargo xtask bindings` \
             and look at the change"
        );
    }
    if faults > 0 {
        bail!(
            "{faults} items of Slurm {theirs} are not as in {FILE} (Slurm {ours}); take care of \
             each in lib/spank, then list it in xtask/src/bindings/check.rs"
        );
    }
    println!("bindings of Slurm {ours} hold for Slurm {theirs}");
    Ok(())
}

/// The version that a generated file says it is from.
fn version_of(kept: &str) -> Result<&str> {
    kept.lines()
        .find_map(|line| line.split_once(VERSION_MARK))
        .and_then(|(_, rest)| rest.split_once(';'))
        .map(|(version, _)| version)
        .with_context(|| format!("{FILE} does not say which release it is from"))
}

/// The reason why `item` may differ in release `version`, if there is one.
fn handled(version: SlurmVersion, item: &str) -> Option<&'static str> {
    let covers = |name: &&str| match name.strip_suffix('*') {
        Some(start) => item.starts_with(start),
        None => item == *name,
    };
    HANDLED
        .iter()
        .find(|entry| version.release < entry.before && entry.items.iter().any(covers))
        .map(|entry| entry.because)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: SlurmVersion = SlurmVersion {
        release: (20, 11),
        micro: 4,
    };
    const SAME: SlurmVersion = SlurmVersion {
        release: (22, 5),
        micro: 8,
    };
    const NEW: SlurmVersion = SlurmVersion {
        release: (24, 11),
        micro: 5,
    };
    const KEPT: &str = "//! Raw bindings to SPANK from the\n\
                        //! slurm/spank.h of Slurm 22.05.8; do not edit.\n\
                        pub const S_JOB_UID: u32 = 0;\n\
                        pub const ESPANK_ERROR: u32 = 3000;\n";

    #[test]
    fn the_same_header_again_passes() {
        assert!(check(KEPT, KEPT, SAME).is_ok());
    }

    #[test]
    fn the_same_release_must_give_not_even_an_addition() {
        let more = format!("{KEPT}pub const ESPANK_NEW: u32 = 1;");
        assert!(check(KEPT, &more, SAME).is_err());
    }

    #[test]
    fn another_release_may_add() {
        let more = format!("{KEPT}pub const ESPANK_NEW: u32 = 1;");
        assert!(check(KEPT, &more, NEW).is_ok());
    }

    #[test]
    fn error_numbers_may_differ_only_before_their_renumbering() {
        let renumbered = KEPT.replace("3000", "1");
        assert!(check(KEPT, &renumbered, OLD).is_ok());
        assert!(check(KEPT, &renumbered, NEW).is_err());
    }

    #[test]
    fn item_numbers_may_differ_in_no_release() {
        let renumbered = KEPT.replace("= 0;", "= 1;");
        assert!(check(KEPT, &renumbered, OLD).is_err());
        assert!(check(KEPT, &renumbered, NEW).is_err());
    }

    #[test]
    fn an_item_that_a_release_lacks_is_a_fault() {
        let less = KEPT.replace("pub const S_JOB_UID: u32 = 0;\n", "");
        assert!(check(KEPT, &less, NEW).is_err());
    }

    #[test]
    fn bindings_of_unknown_origin_are_an_error() {
        assert!(check("pub const S_JOB_UID: u32 = 0;", KEPT, SAME).is_err());
    }
}
