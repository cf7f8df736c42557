//! What slurm.conf asks of slurmctld beside running jobs: checks at submission, and
//! limits of accounts. slurmctld reads both when it starts; `scontrol reconfigure`
//! shows a new value and leaves the old one in force (seen with 22.05).

use std::path::Path;

use host::printable;

use super::look::{Look, fatal, shown, warning};
use super::slurm_daemons::in_force_value;
use crate::setup::discover::Site;

const RESTART: &str = "systemctl restart slurmctld; `scontrol reconfigure` is not enough";

/// The values of a key in slurm.conf that is a list; `None` where it asks for nothing.
fn asked<'a>(site: &'a Site, key: &str) -> Option<Vec<&'a str>> {
    let value = site.slurm.conf.value(key)?;
    let values = value.split(',').map(str::trim);
    let values: Vec<&str> = values
        .filter(|it| !it.is_empty() && !["none", "0"].contains(&it.to_lowercase().as_str()))
        .collect();
    (!values.is_empty()).then_some(values)
}

fn in_force_since(key: &str, values: &[&str], in_force: &str) -> Look {
    let values = printable(&values.join(","), 100);
    let since = in_force_value(in_force, "BOOT_TIME").unwrap_or("a time that it does not show");
    Ok(format!(
        "{key}={values}, as slurmctld found it when it started at {since}, if slurm.conf had it then"
    ))
}

/// Whether slurmctld has, and can load again, the plugins of `JobSubmitPlugins`;
/// `None` where there are none. For the controller.
pub(super) fn job_submit(site: &Site, in_force: &str) -> Option<Look> {
    const KEY: &str = "JobSubmitPlugins";
    let names = asked(site, KEY)?;
    let folders = in_force_value(in_force, "PluginDir").unwrap_or_default();
    let has = |file: &str| {
        folders
            .split(':')
            .any(|it| Path::new(it).join(file).exists())
    };
    for name in &names {
        let name = name.strip_prefix("job_submit/").unwrap_or(name);
        let plugin = format!("job_submit_{name}.so");
        let conf = site.slurm.slurm_conf.as_deref().and_then(Path::parent);
        let missing = match conf {
            _ if !has(&plugin) => (plugin, folders.to_owned()),
            Some(conf) if name == "lua" && !conf.join("job_submit.lua").exists() => {
                ("job_submit.lua".to_owned(), shown(conf))
            }
            _ => continue,
        };
        return Some(fatal(
            format!(
                "slurm.conf has {KEY}={}, but there is no {} in {}: slurmctld does not start with it",
                printable(&names.join(","), 100),
                printable(&missing.0, 100),
                printable(&missing.1, 300)
            ),
            format!("put it there, or take it out of {KEY} in slurm.conf"),
        ));
    }
    let in_force_now = in_force_value(in_force, KEY).unwrap_or("(null)");
    let is_shown = |name: &&str| {
        in_force_now
            .split(',')
            .any(|it| it.eq_ignore_ascii_case(name))
    };
    if !names.iter().all(is_shown) {
        return Some(warning(
            format!(
                "slurm.conf has {KEY}={}, but slurmctld has {}",
                printable(&names.join(","), 100),
                printable(&in_force_now.replace("(null)", "none"), 100)
            ),
            RESTART,
        ));
    }
    Some(in_force_since(KEY, &names, in_force))
}

/// Whether what `AccountingStorageEnforce` asks for can be in force; `None` where it
/// asks for nothing.
pub(super) fn accounting_enforce(site: &Site, in_force: &str) -> Option<Look> {
    const KEY: &str = "AccountingStorageEnforce";
    const STORAGE: &str = "accounting_storage/slurmdbd";
    let words = asked(site, KEY)?;
    let listed = printable(&words.join(","), 100);
    let storage = site.slurm.conf.value("AccountingStorageType");
    let storage = storage.unwrap_or("accounting_storage/none");
    if !storage.eq_ignore_ascii_case(STORAGE) && !storage.eq_ignore_ascii_case("slurmdbd") {
        return Some(warning(
            format!(
                "slurm.conf has {KEY}={listed}, but AccountingStorageType={}: slurmctld enforces nothing",
                printable(storage, 100)
            ),
            format!("write AccountingStorageType={STORAGE} into slurm.conf; {RESTART}"),
        ));
    }
    // Numbers and `all` are shown as the words that they are for.
    let shown = in_force_value(in_force, KEY)
        .unwrap_or_default()
        .to_lowercase();
    let is_word = |it: &str| it != "all" && it.parse::<u32>().is_err();
    let is_shown = |it: &String| shown.split(',').any(|shown| shown == it);
    let words_asked = words.iter().map(|it| it.to_lowercase());
    let mut words_asked = words_asked.filter(|it| is_word(it));
    if shown == "none" || shown.is_empty() || !words_asked.all(|it| is_shown(&it)) {
        return Some(warning(
            format!(
                "slurm.conf has {KEY}={listed}, but slurmctld has {}",
                printable(&shown, 100)
            ),
            RESTART,
        ));
    }
    Some(in_force_since(KEY, &words, in_force))
}

#[cfg(test)]
mod tests {
    use findings::Severity;

    use super::*;
    use crate::setup::discover::Wanted;

    fn enforced(conf: &str, shown: &str) -> Option<Look> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("slurm.conf");
        std::fs::write(&path, conf).unwrap();
        let wanted = Wanted {
            slurm_conf: Some(path),
            ..Wanted::default()
        };
        let in_force =
            format!("AccountingStorageEnforce = {shown}\nBOOT_TIME = 2026-11-28T14:01:39\n");
        accounting_enforce(&Site::look(wanted), &in_force)
    }

    const DBD: &str = "AccountingStorageType=accounting_storage/slurmdbd\n";

    #[test]
    fn limits_without_slurmdbd_are_a_warning_for_slurm_enforces_none() {
        let look = enforced("AccountingStorageEnforce=limits\n", "associations,limits");
        let (severity, sentence, _) = look.unwrap().unwrap_err();
        assert_eq!(severity, Severity::Warning);
        assert!(
            sentence.contains("slurmctld enforces nothing"),
            "{sentence}"
        );
    }

    #[test]
    fn what_slurmctld_does_not_show_needs_its_restart() {
        for (asked, shown) in [("qos,safe", "associations,qos"), ("limits", "none")] {
            let conf = format!("{DBD}AccountingStorageEnforce={asked}\n");
            let (_, sentence, remedy) = enforced(&conf, shown).unwrap().unwrap_err();
            assert!(sentence.contains("but slurmctld has "), "{sentence}");
            assert!(remedy.contains("restart slurmctld"), "{remedy}");
        }
    }

    #[test]
    fn words_numbers_and_case_are_found_in_what_slurmctld_shows() {
        for (asked, shown) in [
            ("limits", "associations,limits"),
            ("QOS, Safe", "associations,limits,qos,safe"),
            ("1", "associations"),
            ("all", "associations,limits,nojobs,nosteps,qos,safe,wckeys"),
        ] {
            let look = enforced(&format!("{DBD}AccountingStorageEnforce={asked}\n"), shown);
            assert!(look.unwrap().is_ok(), "{asked}");
        }
    }

    #[test]
    fn a_cluster_that_enforces_nothing_has_no_such_finding() {
        for conf in [
            "",
            "AccountingStorageEnforce=none\n",
            "AccountingStorageEnforce=0\n",
        ] {
            assert_eq!(enforced(conf, "none"), None, "{conf}");
        }
    }
}
