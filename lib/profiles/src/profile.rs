//! Profiles: the built-in ones come from the instance table, a site's own from the configuration.

use std::collections::{BTreeMap, BTreeSet};

use config::{Config, Memlock};
use efa::instance_types;
use efa::instance_types::InstanceType;
use host::Gather;
use host::printable;
use hugepages::Request;

use crate::request::ProfileName;

/// The built-in profile that `auto` takes on a type that the instance table
/// does not know but that has EFA devices.
pub const GENERIC: &str = "efa";

/// Which nodes a profile is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Any node that has EFA devices.
    Any,
    /// Nodes of this family.
    Family(String),
    /// Nodes of this type.
    Type(InstanceType),
}

impl Fit {
    /// Whether a node of this type is meant.
    pub fn accepts(&self, node: &InstanceType) -> bool {
        match self {
            Self::Any => true,
            Self::Family(family) => node.family() == family,
            Self::Type(instance) => node == instance,
        }
    }
}

/// A profile with everything that its bases give it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The name by which it was asked for.
    pub name: String,
    /// The nodes it is for.
    pub fit: Fit,
    /// Variables that the site sets, with the site profile that says so.
    pub env: BTreeMap<String, (String, String)>,
    /// Variables that the site removes, with the site profile that says so.
    pub unset: BTreeMap<String, String>,
    /// The least number of EFA devices, if the site gives one.
    pub devices: Option<u32>,
    /// The hugepages on each node of a job that names none itself.
    pub hugepages: Option<Request>,
    /// The tasks' limit of locked memory.
    pub memlock: Memlock,
}

impl Profile {
    /// One that fits every node and adds nothing of the site's.
    pub fn plain(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            fit: Fit::Any,
            env: BTreeMap::new(),
            unset: BTreeMap::new(),
            devices: None,
            hugepages: None,
            memlock: Memlock::default(),
        }
    }
}

/// Why a profile cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// No such name.
    #[error("--efa-profile: there is no profile \"{name}\"{}; `srun --efa-profile=list` shows all", did_you_mean(.nearest))]
    Unknown {
        /// The name asked for.
        name: String,
        /// The nearest valid name.
        nearest: Option<String>,
    },
    /// The site's file contradicts itself.
    #[error("{0}")]
    Configuration(String),
}

fn did_you_mean(nearest: &Option<String>) -> String {
    nearest
        .as_ref()
        .map(|name| format!("; did you mean \"{name}\"?"))
        .unwrap_or_default()
}

/// The nodes that a built-in name stands for.
fn built_in(name: &str) -> Option<Fit> {
    if name == GENERIC {
        return Some(Fit::Any);
    }
    if instance_types::families().any(|family| family == name) {
        return Some(Fit::Family(name.to_owned()));
    }
    let instance: InstanceType = name.parse().ok()?;
    instance_types::lookup(&instance).map(|_| Fit::Type(instance))
}

/// Every name that a user may give, without the reserved words.
pub fn names(config: &Config) -> BTreeSet<String> {
    let types = instance_types::TABLE
        .iter()
        .map(|spec| spec.name.to_owned());
    let families = instance_types::families().map(str::to_owned);
    types
        .chain(families)
        .chain([GENERIC.to_owned()])
        .chain(config.profiles.keys().cloned())
        .gather()
}

/// Looks a profile up and joins it with its bases.
///
/// A site's profile of a built-in's name changes the built-in one: its base is
/// the built-in unless it names another.
pub fn resolve(name: &ProfileName, config: &Config) -> Result<Profile, ProfileError> {
    check(config)?;
    resolve_unchecked(name.as_str(), config)
}

/// What `auto` means on a node of this type: the site's profile for the type,
/// else the family (the site's or the built-in), else the generic one.
pub fn for_node(node: Option<&InstanceType>, config: &Config) -> Result<Profile, ProfileError> {
    check(config)?;
    let name = match node {
        Some(node) if config.profiles.contains_key(node.as_str()) => node.as_str(),
        Some(node)
            if config.profiles.contains_key(node.family()) || built_in(node.family()).is_some() =>
        {
            node.family()
        }
        _ => GENERIC,
    };
    resolve_unchecked(name, config)
}

/// Checks the profiles of a configuration as a whole: bases that do not exist,
/// cycles, an unknown default. Names and types were checked when the file was
/// read.
pub fn check(config: &Config) -> Result<(), ProfileError> {
    problems(config).next().map_or(Ok(()), Err)
}

/// All that is wrong with them.
pub fn problems(config: &Config) -> impl Iterator<Item = ProfileError> {
    let names = config.profiles.keys();
    let broken = names.filter_map(|name| resolve_unchecked(name, config).err());
    broken.chain(unknown_default(config))
}

fn unknown_default(config: &Config) -> Option<ProfileError> {
    let default = config.default_profile.as_deref()?;
    if matches!(default, "auto" | "none") || names(config).contains(default) {
        return None;
    }
    let line = config.line_of(&["default_profile"]).unwrap_or(1);
    let meant = nearest(default, &names(config));
    let meant = meant.map_or_else(String::new, |name| format!("; did you mean `{name}`?"));
    Some(ProfileError::Configuration(format!(
        "{}:{line}: `default_profile`: there is no profile \"{}\"{meant}",
        config.path.display(),
        printable(default, 64)
    )))
}

/// An error on the line of a site's profile.
fn broken_profile(config: &Config, name: &str, what: &str) -> ProfileError {
    let line = config.profiles.get(name).map_or(1, |site| site.line);
    ProfileError::Configuration(format!(
        "{}:{line}: [profile.{name}]: {what}",
        config.path.display()
    ))
}

fn resolve_unchecked(name: &str, config: &Config) -> Result<Profile, ProfileError> {
    // From the profile asked for down to the built-in one.
    let mut chain = Vec::new();
    let mut current = name.to_owned();
    let fit = loop {
        let Some(site) = config.profiles.get(&current) else {
            break match built_in(&current) {
                Some(fit) => fit,
                None if chain.is_empty() => {
                    return Err(ProfileError::Unknown {
                        name: printable(name, 64),
                        nearest: nearest(name, &names(config)),
                    });
                }
                None => {
                    let base = printable(&current, 64);
                    let user = chain.last().copied().unwrap_or(name);
                    return Err(broken_profile(
                        config,
                        user,
                        &format!("base \"{base}\" does not exist"),
                    ));
                }
            };
        };
        let key = config
            .profiles
            .get_key_value(&current)
            .map_or(name, |(key, _)| key.as_str());
        if chain.contains(&key) {
            return Err(broken_profile(
                config,
                key,
                &format!("base leads back to itself: {}", cycle(&chain, key)),
            ));
        }
        chain.push(key);
        match site.base.as_deref() {
            Some(base) if base != key => current = base.to_owned(),
            // Its own name, or none: the built-in one of that name.
            _ => break built_in(key).unwrap_or(Fit::Any),
        }
    };

    let mut profile = Profile {
        fit,
        ..Profile::plain(name)
    };
    for key in chain.into_iter().rev() {
        let Some(site) = config.profiles.get(key) else {
            continue;
        };
        for (variable, value) in &site.env {
            profile.unset.remove(variable);
            profile
                .env
                .insert(variable.clone(), (value.clone(), key.to_owned()));
        }
        for variable in &site.unset {
            profile.env.remove(variable);
            profile.unset.insert(variable.clone(), key.to_owned());
        }
        profile.devices = site.devices.or(profile.devices);
        profile.hugepages = site.hugepages.or(profile.hugepages);
        profile.memlock = site.memlock.unwrap_or(profile.memlock);
    }
    Ok(profile)
}

fn cycle(chain: &[&str], back_to: &str) -> String {
    let start = chain.iter().position(|key| *key == back_to).unwrap_or(0);
    let mut names = chain[start..].to_vec();
    names.push(back_to);
    names.join(" -> ")
}

/// The valid name that differs in the fewest letters; none if nothing is near.
fn nearest(name: &str, names: &BTreeSet<String>) -> Option<String> {
    names
        .iter()
        .map(|candidate| {
            (
                strsim::damerau_levenshtein(&name.to_lowercase(), candidate),
                candidate,
            )
        })
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, candidate)| (*distance, candidate.len()))
        .map(|(_, candidate)| candidate.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        config::parse(text, std::path::Path::new("/etc/slurm-efa/slurm-efa.toml")).unwrap()
    }

    fn get(name: &str, config: &Config) -> Result<Profile, ProfileError> {
        resolve(&ProfileName::new(name).unwrap(), config)
    }

    #[test]
    fn a_family_and_a_type_are_built_in() {
        let config = config("");
        assert_eq!(get("p5", &config).unwrap().fit, Fit::Family("p5".into()));
        let full = get("ml.p5.48xlarge", &config).unwrap();
        assert_eq!(full.name, "p5.48xlarge");
        assert_eq!(full.fit, Fit::Type("p5.48xlarge".parse().unwrap()));
    }

    #[test]
    fn a_family_does_not_accept_its_longer_named_sister() {
        let p5 = get("p5", &config("")).unwrap();
        assert!(p5.fit.accepts(&"p5.48xlarge".parse().unwrap()));
        assert!(!p5.fit.accepts(&"p5en.48xlarge".parse().unwrap()));
    }

    #[test]
    fn a_mistyped_name_is_answered_with_the_nearest() {
        let config = config("");
        let error = get("P5", &config).unwrap_err().to_string();
        assert!(error.contains("did you mean \"p5\""), "{error}");
        let error = get("p5.48xlarg", &config).unwrap_err().to_string();
        assert!(error.contains("did you mean \"p5.48xlarge\""), "{error}");
        let error = get("something-else", &config).unwrap_err().to_string();
        assert!(!error.contains("did you mean"), "{error}");
    }

    #[test]
    fn a_site_profile_adds_to_its_base_and_the_later_one_wins() {
        let config = config(
            r#"
            [profile.site]
            base = "p5"
            env = { A = "1", B = "1" }
            devices = 32
            [profile.team]
            base = "site"
            env = { B = "2" }
            unset = ["A"]
            "#,
        );
        let team = get("team", &config).unwrap();
        assert_eq!(team.fit, Fit::Family("p5".into()));
        assert_eq!(team.env.get("B"), Some(&("2".into(), "team".into())));
        assert!(!team.env.contains_key("A"));
        assert!(team.unset.contains_key("A"));
        assert_eq!(team.devices, Some(32));
    }

    #[test]
    fn a_site_may_change_a_built_in_profile_under_its_own_name() {
        let config = config("[profile.p5]\nenv = { A = \"1\" }");
        let p5 = get("p5", &config).unwrap();
        assert_eq!(p5.fit, Fit::Family("p5".into()));
        assert!(p5.env.contains_key("A"));
        let auto = for_node(Some(&"p5.48xlarge".parse().unwrap()), &config).unwrap();
        assert!(auto.env.contains_key("A"));
    }

    #[test]
    fn a_cycle_of_bases_is_named() {
        let config = config("[profile.a]\nbase = \"b\"\n[profile.b]\nbase = \"a\"");
        let error = get("p5", &config).unwrap_err().to_string();
        assert!(
            error.contains("a -> b -> a") || error.contains("b -> a -> b"),
            "{error}"
        );
    }

    #[test]
    fn a_base_that_does_not_exist_is_named() {
        let error = get("p5", &config("[profile.a]\nbase = \"p55\""))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("[profile.a]") && error.contains("p55"),
            "{error}"
        );
    }

    #[test]
    fn a_default_that_does_not_exist_is_refused() {
        assert!(get("p5", &config("default_profile = \"p6\"")).is_err());
        assert!(get("p5", &config("default_profile = \"auto\"")).is_ok());
    }

    #[test]
    fn auto_takes_the_site_profile_of_the_type_before_that_of_the_family() {
        let config = config("[profile.p5]\n[profile.\"p5.4xlarge\"]");
        assert_eq!(
            for_node(Some(&"p5.4xlarge".parse().unwrap()), &config)
                .unwrap()
                .name,
            "p5.4xlarge"
        );
        assert_eq!(
            for_node(Some(&"p5.48xlarge".parse().unwrap()), &config)
                .unwrap()
                .name,
            "p5"
        );
        assert_eq!(
            for_node(Some(&"p99.xlarge".parse().unwrap()), &config)
                .unwrap()
                .name,
            GENERIC
        );
        assert_eq!(for_node(None, &config).unwrap().name, GENERIC);
    }
}
