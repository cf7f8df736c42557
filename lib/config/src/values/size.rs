//! Sizes as people write them, in pages.

use std::fmt;
use std::iter::Sum;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use host::printable;

/// Most that anybody may ask for, in bytes: far above any node's memory, and
/// low enough that no sum of sizes overflows.
const MOST: u64 = 1 << 50;

/// Longest text that is looked at.
const LONGEST: usize = 32;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl Bytes {
    /// In MiB, rounded down: what `SLURM_EFA_HUGEPAGES_MIB` tells.
    #[must_use]
    pub fn mebibytes(self) -> u64 {
        self.0 >> 20
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes > 0 && bytes % (1 << 30) == 0 => write!(f, "{}G", bytes >> 30),
            bytes if bytes > 0 && bytes % (1 << 20) == 0 => write!(f, "{}M", bytes >> 20),
            bytes => write!(f, "{bytes} bytes"),
        }
    }
}

/// A number of hugepages of one size. Arithmetic saturates: counts come from
/// files and from the kernel, and a wrong one must not become a huge one.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct HugePages(pub u64);

impl HugePages {
    /// None.
    pub const ZERO: Self = Self(0);

    /// With `more`.
    #[must_use]
    pub fn plus(self, more: Self) -> Self {
        Self(self.0.saturating_add(more.0))
    }

    /// Without `less`; never below zero.
    #[must_use]
    pub fn minus(self, less: Self) -> Self {
        Self(self.0.saturating_sub(less.0))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl Sum for HugePages {
    fn sum<I: Iterator<Item = Self>>(pages: I) -> Self {
        pages.fold(Self::ZERO, Self::plus)
    }
}

impl fmt::Display for HugePages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The sizes that x86-64 and 4-KiB-page arm64 have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PageSize {
    /// 2 MiB.
    #[serde(rename = "2M")]
    TwoMiB,
    /// 1 GiB.
    #[serde(rename = "1G")]
    OneGiB,
}

impl PageSize {
    /// Both.
    pub const ALL: [Self; 2] = [Self::TwoMiB, Self::OneGiB];

    /// In bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            Self::TwoMiB => 2 << 20,
            Self::OneGiB => 1 << 30,
        }
    }

    /// The kernel's name for its directory, e.g. `hugepages-2048kB`.
    #[must_use]
    pub fn directory(self) -> &'static str {
        match self {
            Self::TwoMiB => "hugepages-2048kB",
            Self::OneGiB => "hugepages-1048576kB",
        }
    }

    /// What this number of pages holds.
    #[must_use]
    pub fn total(self, pages: HugePages) -> Bytes {
        Bytes(pages.0.saturating_mul(self.bytes()))
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TwoMiB => "2M",
            Self::OneGiB => "1G",
        })
    }
}

impl FromStr for PageSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let bytes = bytes(text)?;
        Self::ALL
            .into_iter()
            .find(|size| size.bytes() == bytes.0)
            .ok_or_else(|| SizeError::PageSize { text: quoted(text) })
    }
}

/// Why a text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SizeError {
    /// Not a number with a unit.
    #[error("{text} is not a size; write a size such as 512M or 10G")]
    Syntax {
        /// What was written, safe to print.
        text: String,
    },
    /// The same, where there are words beside sizes.
    #[error("{text} is not a size; write 512M, 10G, `auto` or `none`")]
    NoRequest {
        /// What was written, safe to print.
        text: String,
    },
    /// A number alone: bytes, pages and MiB would all be plausible.
    #[error("{text} has no unit; write {number}M for MiB or {number}G for GiB")]
    NoUnit {
        /// What was written, safe to print.
        text: String,
        /// The number in it.
        number: u64,
    },
    /// Zero.
    #[error("{text} is not a valid size; write a size such as 512M or 10G")]
    Zero {
        /// What was written, safe to print.
        text: String,
    },
    /// The same, where there is a word for it.
    #[error("{text} is not a valid size; use `none` to reserve nothing")]
    ZeroRequest {
        /// What was written, safe to print.
        text: String,
    },
    /// More than any node has.
    #[error("{text} is more than any node has; the most that can be asked for is 1024T")]
    TooLarge {
        /// What was written, safe to print.
        text: String,
    },
    /// Not a whole number of pages.
    #[error("{size} is not a whole number of {page} hugepages; {} or {} would be", low(*size, *page), high(*size, *page))]
    NotWholePages {
        /// What was asked for.
        size: Bytes,
        /// The size of a page.
        page: PageSize,
    },
    /// Not a whole number of MiB.
    #[error("{size} is not a whole number of MiB; write a size such as 512M or 10G")]
    NotWholeMebibytes {
        /// What was written.
        size: Bytes,
    },
    /// A page size that the kernel does not have.
    #[error("{text} is not the size of a hugepage; there are 2M and 1G")]
    PageSize {
        /// What was written, safe to print.
        text: String,
    },
    /// More than the site allows for a job on a node.
    #[error("{size} of hugepages is more than the {most} that this site allows on each node")]
    AboveMaximum {
        /// What was asked for.
        size: Bytes,
        /// The site's maximum.
        most: Bytes,
    },
    /// More than the node has.
    #[error("{size} of hugepages is more than the {memory} of memory that this node has")]
    AboveMemory {
        /// What was asked for.
        size: Bytes,
        /// The node's memory.
        memory: Bytes,
    },
}

fn low(size: Bytes, page: PageSize) -> Bytes {
    let pages = (size.0 / page.bytes()).max(1);
    page.total(HugePages(pages))
}

fn high(size: Bytes, page: PageSize) -> Bytes {
    let pages = (size.0 / page.bytes() + 1).max(2);
    page.total(HugePages(pages))
}

fn quoted(text: &str) -> String {
    format!("`{}`", printable(text, 40))
}

/// `<digits><unit>`, the unit one of K M G T in either case, with or without
/// `iB` behind it.
fn bytes(text: &str) -> Result<Bytes, SizeError> {
    let syntax = || SizeError::Syntax { text: quoted(text) };
    if text.len() > LONGEST {
        return Err(syntax());
    }
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if digits.is_empty() {
        return Err(syntax());
    }
    let shift = match unit.strip_suffix("iB").unwrap_or(unit) {
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        "" if unit.is_empty() => {
            return Err(match digits.parse() {
                Ok(number) if number > 0 => SizeError::NoUnit {
                    text: quoted(text),
                    number,
                },
                _ => syntax(),
            });
        }
        _ => return Err(syntax()),
    };
    let too_large = || SizeError::TooLarge { text: quoted(text) };
    let number: u64 = digits.parse().map_err(|_| too_large())?;
    match number.checked_mul(1 << shift) {
        Some(0) => Err(SizeError::Zero { text: quoted(text) }),
        Some(bytes) if bytes <= MOST => Ok(Bytes(bytes)),
        _ => Err(too_large()),
    }
}

/// A size as gres-helper of release 0.1 accepted it: `10GB`, `1 TiB`, `2gb`.
/// `None` where it was none, or where [`Bytes`] reads it.
#[must_use]
pub fn old_spelling(text: &str) -> Option<Bytes> {
    if text.len() > LONGEST || bytes(text).is_ok() {
        return None;
    }
    let text = text.trim();
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let unit = unit.trim_start().to_ascii_uppercase();
    let unit = unit.strip_suffix('B').unwrap_or(&unit);
    let unit = unit.strip_suffix('I').unwrap_or(unit);
    let known = matches!(unit, "M" | "G" | "T");
    known.then(|| bytes(&format!("{digits}{unit}")).ok())?
}

/// The MiB of a size that must be a whole number of them.
///
/// # Errors
/// It is not.
pub fn whole_mebibytes(size: Bytes) -> Result<u64, SizeError> {
    if size.0.is_multiple_of(1 << 20) {
        return Ok(size.mebibytes());
    }
    Err(SizeError::NotWholeMebibytes { size })
}

/// Reads a size, also in a former release's spelling.
///
/// # Errors
/// It is none.
pub fn parse_with_old_spelling(text: &str) -> Result<Bytes, SizeError> {
    old_spelling(text).map_or_else(|| bytes(text), Ok)
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for Bytes {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        bytes(text)
    }
}

/// What `--efa-hugepages` or a profile's `hugepages` asks for, on each node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// `none`: nothing, whatever the profile says.
    None,
    /// `auto`: as AWS's efa-config computes it.
    Auto,
    /// This size.
    Size(Bytes),
}

impl FromStr for Request {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        match text {
            "none" => Ok(Self::None),
            "auto" => Ok(Self::Auto),
            _ => bytes(text).map(Self::Size).map_err(|error| match error {
                SizeError::Syntax { text } => SizeError::NoRequest { text },
                SizeError::Zero { text } => SizeError::ZeroRequest { text },
                error => error,
            }),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Auto => f.write_str("auto"),
            Self::Size(bytes) => bytes.fmt(f),
        }
    }
}

impl Request {
    /// How many pages of this size it is on a node with this number of CPUs, if the
    /// site (`most`) and the node (`memory`) allow it. To be called where the
    /// user asks, for a word in time, and again as root: what comes from a
    /// job's environment can be forged.
    ///
    /// `auto` is rounded up to whole pages.
    ///
    /// # Errors
    /// Not a whole number of pages, or too much.
    pub fn pages(
        self,
        page: PageSize,
        cpus: u32,
        most: Option<Bytes>,
        memory: Option<Bytes>,
    ) -> Result<HugePages, SizeError> {
        let pages = match self {
            Self::None => return Ok(HugePages::ZERO),
            Self::Auto => HugePages(automatic(cpus).0.div_ceil(page.bytes())),
            Self::Size(size) if size.0 % page.bytes() == 0 => HugePages(size.0 / page.bytes()),
            Self::Size(size) => return Err(SizeError::NotWholePages { size, page }),
        };
        let size = page.total(pages);
        match (most, memory) {
            (Some(most), _) if size > most => Err(SizeError::AboveMaximum { size, most }),
            (_, Some(memory)) if size > memory => Err(SizeError::AboveMemory { size, memory }),
            _ => Ok(pages),
        }
    }
}

/// AWS's efa-config: 110 pages of 2 MiB for each CPU, and one.
#[must_use]
pub fn automatic(cpus: u32) -> Bytes {
    let pages = u64::from(cpus) * 110 + 1;
    PageSize::TwoMiB.total(HugePages(pages))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TWO: PageSize = PageSize::TwoMiB;

    fn pages(text: &str) -> Result<HugePages, SizeError> {
        text.parse::<Request>()?.pages(TWO, 192, None, None)
    }

    #[test]
    fn sizes_are_whole_numbers_of_pages() {
        for (text, expected) in [
            ("2M", 1),
            ("512M", 256),
            ("5120M", 2560),
            ("10G", 5120),
            ("10g", 5120),
            ("10GiB", 5120),
            ("1T", 524_288),
            ("2048K", 1),
            ("none", 0),
        ] {
            assert_eq!(pages(text), Ok(HugePages(expected)), "{text}");
        }
    }

    #[test]
    fn old_spellings_of_sizes_mean_the_same_as_the_new_ones() {
        for (old, new) in [
            ("10GB", "10G"),
            ("1 TiB", "1T"),
            ("2gb", "2G"),
            (" 512M ", "512M"),
        ] {
            assert_eq!(old_spelling(old), new.parse().ok(), "{old}");
            assert!(old.parse::<Bytes>().is_err(), "{old}");
        }
        for none in [
            "10G", "10GiB", "", "G", "10", "-1G", "0G", "1.5G", "1KB", "1é", "2000T",
        ] {
            assert_eq!(old_spelling(none), None, "{none}");
        }
    }

    #[test]
    fn auto_is_what_efa_config_reserves_on_p4de_and_p5() {
        let auto = |cpus| Request::Auto.pages(TWO, cpus, None, None);
        assert_eq!(auto(96), Ok(HugePages(10_561)));
        assert_eq!(auto(192), Ok(HugePages(21_121)));
        let in_large = Request::Auto.pages(PageSize::OneGiB, 192, None, None);
        assert_eq!(in_large, Ok(HugePages(42)), "41.25 GiB, rounded up");
    }

    #[test]
    fn what_is_not_a_size_is_refused_with_a_sentence_that_says_how_to_write_it() {
        for (text, sentence) in [
            (
                "-1",
                "`-1` is not a size; write 512M, 10G, `auto` or `none`",
            ),
            ("1", "`1` has no unit; write 1M for MiB or 1G for GiB"),
            (
                "3M",
                "3M is not a whole number of 2M hugepages; 2M or 4M would be",
            ),
            (
                "1M",
                "1M is not a whole number of 2M hugepages; 2M or 4M would be",
            ),
            (
                "99999999T",
                "`99999999T` is more than any node has; the most that can be asked for is 1024T",
            ),
            (
                "99999999999999999999999G",
                "`99999999999999999999999G` is more than any node has; the most that can be \
                 asked for is 1024T",
            ),
            (
                "5G;rm",
                "`5G;rm` is not a size; write 512M, 10G, `auto` or `none`",
            ),
            (
                "0M",
                "`0M` is not a valid size; use `none` to reserve nothing",
            ),
            ("0", "`0` is not a size; write 512M, 10G, `auto` or `none`"),
        ] {
            assert_eq!(pages(text).unwrap_err().to_string(), sentence);
        }
        for text in [
            "",
            "M",
            "1.5G",
            "+1G",
            " 1G",
            "1G ",
            "1 G",
            "1GB",
            "iB",
            "1iB",
            "0x10M",
            "1e3M",
            "AUTO",
            "١G",
            "\u{1b}[2J",
        ] {
            let error = pages(text).unwrap_err();
            assert!(
                matches!(error, SizeError::NoRequest { .. }),
                "{text:?}: {error}"
            );
        }
    }

    #[test]
    fn the_site_and_the_node_cap_what_is_asked_for() {
        let most = Some(Bytes(4 << 30));
        let memory = Some(Bytes(8 << 30));
        let ask = |text: &str, most, memory| {
            text.parse::<Request>()
                .unwrap()
                .pages(TWO, 192, most, memory)
        };
        assert_eq!(ask("4G", most, memory), Ok(HugePages(2048)));
        for (text, sentence) in [
            (
                "6G",
                "6G of hugepages is more than the 4G that this site allows on each node",
            ),
            (
                "auto",
                "42242M of hugepages is more than the 4G that this site allows on each node",
            ),
        ] {
            let error = ask(text, most, memory).unwrap_err();
            assert_eq!(error.to_string(), sentence);
        }
        let error = ask("10G", None, memory).unwrap_err();
        assert_eq!(
            error.to_string(),
            "10G of hugepages is more than the 8G of memory that this node has"
        );
    }

    #[test]
    fn the_size_of_a_page_is_2m_or_1g() {
        assert_eq!("2M".parse(), Ok(PageSize::TwoMiB));
        assert_eq!("1024M".parse(), Ok(PageSize::OneGiB));
        assert!("16M".parse::<PageSize>().is_err());
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_a_size_below_the_limit_or_an_error(text in ".{0,40}") {
            if let Ok(Request::Size(size)) = text.parse() {
                prop_assert!(size.0 > 0 && size.0 <= MOST);
            }
        }

        #[test]
        fn no_text_panics_as_an_old_spelling(text in ".{0,40}") {
            let _ = parse_with_old_spelling(&text);
        }

        #[test]
        fn what_is_shown_means_the_same(mebibytes in 1u64..1 << 30) {
            let size = Bytes(mebibytes << 20);
            prop_assert_eq!(size.to_string().parse::<Bytes>(), Ok(size));
        }
    }
}
