//! Which hugepages are in force for a job, and how that is said.

use config::size::SizeError;
use host::Sysroot;
use hugepages::{Bytes, HugePages, PageSize, Request, Settings};
use jobs::registry::Reservation;

use crate::profile::Profile;

/// A request and who made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// How much; never [`Request::None`].
    pub request: Request,
    /// Whose word it is.
    pub source: Source,
}

/// Whose word a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The user's `--efa-hugepages`. Only such a job may fail for it.
    Option,
    /// The profile of this name.
    Profile(String),
    /// `default` in `[hugepages]`.
    Site,
}

impl Wanted {
    /// As it would be written.
    pub fn label(&self) -> String {
        match &self.source {
            Source::Option => format!("--efa-hugepages={}", self.request),
            Source::Profile(name) => format!("hugepages = \"{}\" of profile {name}", self.request),
            Source::Site => format!("default = \"{}\" in [hugepages]", self.request),
        }
    }
}

/// The user's word, else the profile's, else the site's.
pub fn in_force(
    option: Option<Request>,
    profile: Option<&Profile>,
    settings: &Settings,
) -> Option<Wanted> {
    let of_profile = |profile: &Profile| {
        let source = Source::Profile(profile.name.clone());
        Some((profile.hugepages?, source))
    };
    let (request, source) = option
        .map(|request| (request, Source::Option))
        .or_else(|| profile.and_then(of_profile))
        .or_else(|| settings.default.map(|request| (request, Source::Site)))?;
    (request != Request::None).then_some(Wanted { request, source })
}

/// The pages that a request means on a node with so many CPUs and so much
/// memory, or what becomes of the job. As root, in the prolog: whatever was
/// checked at submission may be forged.
pub fn decide(
    wanted: &Wanted,
    settings: &Settings,
    cpus: u32,
    memory: Bytes,
) -> Result<HugePages, Reservation> {
    let pages = wanted
        .request
        .pages(settings.page_size, cpus, Some(settings.max), Some(memory));
    pages.map_err(|error| reject(wanted, &error))
}

/// The user's own wish fails the job; the site's is only told.
pub fn reject(wanted: &Wanted, error: &SizeError) -> Reservation {
    let sentence = format!("{}: {error}", wanted.label());
    match wanted.source {
        Source::Option => Reservation {
            refused: Some(sentence),
            ..Reservation::default()
        },
        Source::Profile(_) | Source::Site => Reservation {
            short: Some(format!("{sentence}; tell the administrator")),
            ..Reservation::default()
        },
    }
}

/// What the job's tasks may map of each page size.
pub fn limits(settings: &Settings, reservation: Option<&Reservation>) -> Vec<(PageSize, Bytes)> {
    let granted = Bytes(reservation.map_or(0, |it| it.mib.saturating_mul(1 << 20)));
    let limit = |size| {
        let bytes = if size == settings.page_size {
            granted
        } else {
            Bytes(0)
        };
        (size, bytes)
    };
    PageSize::ALL.into_iter().map(limit).collect()
}

/// The CPUs that are online, which `auto` counts: as the sysroot says, else as
/// the kernel does.
pub fn cpus(sysroot: &Sysroot) -> u32 {
    const ONLINE: &str = "sys/devices/system/cpu/online";
    let read = |root: &Sysroot| {
        let text = root.read_small(ONLINE).ok()?;
        count(&text)
    };
    read(sysroot)
        .or_else(|| read(&Sysroot::real()))
        .unwrap_or(1)
}

/// How many numbers a list such as `0-3,8` has.
fn count(list: &str) -> Option<u32> {
    list.split(',').try_fold(0_u32, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::path::Path;

    fn settings(text: &str) -> Settings {
        Settings::of(&config::parse(text, Path::new("/etc/x.toml")).unwrap()).unwrap()
    }

    fn profile(hugepages: Option<&str>) -> Profile {
        Profile {
            hugepages: hugepages.map(|text| text.parse().unwrap()),
            ..Profile::plain("p5")
        }
    }

    #[test]
    fn the_users_word_wins_over_the_profiles_and_that_over_the_sites() {
        let site = settings("[hugepages]\ndefault = \"1G\"\n");
        let of = |option: Option<&str>, profile: &Profile| {
            in_force(option.map(|it| it.parse().unwrap()), Some(profile), &site)
                .map(|wanted| wanted.label())
        };
        let label = of(Some("4G"), &profile(Some("2G"))).unwrap();
        assert_eq!(label, "--efa-hugepages=4G");
        let label = of(None, &profile(Some("2G"))).unwrap();
        assert_eq!(label, "hugepages = \"2G\" of profile p5");
        let label = of(None, &profile(None)).unwrap();
        assert_eq!(label, "default = \"1G\" in [hugepages]");
        assert_eq!(of(Some("none"), &profile(Some("2G"))), None);
        assert_eq!(of(None, &profile(Some("none"))), None);
    }

    #[test]
    fn nobody_asked_nothing_is_wanted() {
        assert_eq!(in_force(None, None, &settings("")), None);
    }

    #[test]
    fn a_forged_size_is_capped_again_and_fails_only_the_job_that_asked() {
        let settings = settings("[hugepages]\nmax = \"8G\"\n");
        let memory = Bytes(4 << 30);
        for (size, words) in [
            ("10G", "more than the 8G that this site allows"),
            ("6G", "more than the 4G of memory"),
            ("3M", "not a whole number of 2M hugepages"),
        ] {
            let mut wanted = Wanted {
                request: size.parse().unwrap(),
                source: Source::Option,
            };
            let refused = decide(&wanted, &settings, 2, memory).unwrap_err().refused;
            assert!(refused.unwrap().contains(words), "{size}");
            wanted.source = Source::Site;
            let told = decide(&wanted, &settings, 2, memory).unwrap_err();
            assert_eq!(told.refused, None);
            assert!(told.short.unwrap().contains(words), "{size}");
        }
    }

    #[test]
    fn auto_counts_the_nodes_cpus() {
        let wanted = Wanted {
            request: Request::Auto,
            source: Source::Option,
        };
        let pages = decide(&wanted, &settings(""), 192, Bytes(2 << 40)).unwrap();
        assert_eq!(pages, HugePages(21121));
        assert_eq!(count("0-95,128-223"), Some(192));
        assert_eq!(count("0"), Some(1));
        for odd in ["", "3-1", "a", "0-4294967295", "-1"] {
            assert_eq!(count(odd), None, "{odd}");
        }
    }
}
