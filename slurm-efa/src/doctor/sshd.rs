//! What sshd does to an address from which logins are refused.

use super::look::{Look, shown, warning};
use crate::setup::discover::Site;
use crate::setup::run;

/// `PerSourcePenalties` of OpenSSH 9.8 and later, where it is on.
#[derive(Debug, PartialEq)]
struct Penalties {
    /// Seconds for each login that is refused.
    refused: f64,
    /// Nothing happens before an address has so many.
    least: f64,
    /// Whether `PerSourcePenaltyExemptList` names an address.
    has_exempt: bool,
}

impl Penalties {
    /// Of what `sshd -T` prints; `None` where refused logins have no such effect.
    fn of(text: &str) -> Option<Self> {
        let value = |key: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(' '))
        };
        let seconds = |name: &str| -> Option<f64> {
            let mut words = value("persourcepenalties")?.split_ascii_whitespace();
            let seconds = words.find_map(|word| word.strip_prefix(name)?.strip_prefix(':'))?;
            let seconds: f64 = seconds.trim_end_matches('s').parse().ok()?;
            (seconds.is_finite() && seconds > 0.0).then_some(seconds)
        };
        let exempt = value("persourcepenaltyexemptlist").map(str::trim);
        Some(Self {
            refused: seconds("authfail")?,
            least: seconds("min").unwrap_or(0.0),
            has_exempt: exempt.is_some_and(|list| !list.is_empty() && list != "none"),
        })
    }

    /// After how many refused logins in a row sshd keeps the address away.
    fn logins(&self) -> f64 {
        (self.least / self.refused).ceil().max(1.0)
    }

    fn judge(penalties: Option<&Self>) -> Look {
        match penalties {
            None => Ok("sshd keeps no address away for refused logins".to_owned()),
            Some(it) if it.has_exempt => {
                Ok("sshd keeps addresses away for refused logins, with exemptions".to_owned())
            }
            Some(it) => warning(
                format!(
                    "after {} refused logins sshd keeps their address away for {} s or longer: users \
                     without a job can shut out all who come by the same login node",
                    it.logins(),
                    it.least.max(it.refused)
                ),
                "name the login nodes in PerSourcePenaltyExemptList of sshd_config, or set \
                 `PerSourcePenalties authfail:0`",
            ),
        }
    }
}

pub(super) fn penalties(site: &Site) -> Look {
    // What sshd of this machine says is of no other tree.
    let sshd = run::find("sshd").filter(|_| site.wanted.root.is_none());
    let Some(sshd) = sshd else {
        return Ok("no sshd to ask for its penalties".to_owned());
    };
    match run::run(&sshd, &["-T"]) {
        Ok(said) if said.success() => Penalties::judge(Penalties::of(&said.stdout).as_ref()),
        // One that is started by its socket may have no /run/sshd now.
        Ok(_) | Err(_) => Ok(format!("{} -T does not show its penalties", shown(&sshd))),
    }
}

/// The finding and its remedy in one sentence.
pub(super) fn advice(look: Look) -> Option<String> {
    let (_, sentence, remedy) = look.err()?;
    Some(format!("{sentence}; {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: &str = "persourcepenalties crash:90 authfail:5 noauth:1 grace-exceeded:10 \
                            max:600 min:15 max-sources4:65536 max-sources6:65536 \
                            overflow:permissive overflow6:permissive\n";

    fn look(text: &str) -> Look {
        Penalties::judge(Penalties::of(text).as_ref())
    }

    #[test]
    fn with_sshds_defaults_refused_users_can_shut_out_others() {
        for text in [
            format!("port 22\n{DEFAULTS}persourcepenaltyexemptlist none\n"),
            DEFAULTS
                .replace(":5 ", ":5.000000 ")
                .replace(":15 ", ":15.000000 "),
        ] {
            let (_, sentence, remedy) = look(&text).unwrap_err();
            assert!(sentence.starts_with("after 3 refused logins"), "{sentence}");
            assert!(sentence.contains("for 15 s or longer"), "{sentence}");
            assert!(remedy.contains("PerSourcePenaltyExemptList"), "{remedy}");
        }
    }

    #[test]
    fn an_older_sshd_and_one_without_such_penalties_are_fine() {
        for text in [
            "port 22\npersourcemaxstartups none\n".to_owned(),
            "persourcepenalties no\n".to_owned(),
            DEFAULTS.replace("authfail:5", "authfail:0"),
            String::new(),
        ] {
            assert!(look(&text).is_ok(), "{text}");
        }
    }

    #[test]
    fn login_nodes_that_are_exempt_are_fine() {
        let text = format!("{DEFAULTS}persourcepenaltyexemptlist 10.0.0.0/24\n");
        assert!(look(&text).is_ok());
    }

    #[test]
    fn setup_gives_the_doctors_advice_where_penalties_are_on_and_none_elsewhere() {
        let said = advice(look(DEFAULTS)).unwrap();
        for words in [
            "after 3 refused logins",
            "; name the login nodes in PerSourcePenaltyExemptList",
        ] {
            assert!(said.contains(words), "{said}");
        }
        assert_eq!(advice(look("persourcepenalties no\n")), None);
    }
}
