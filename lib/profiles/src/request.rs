//! What the user asked for on the command line.

use config::size::SizeError;
use efa::InstanceType;
use host::printable;
use hugepages::Request;

/// The longest name taken. The longest instance type is under 30 characters.
const MAX_NAME: usize = 64;

/// The value of `--efa-profile`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProfileRequest {
    /// What the node says it is.
    Auto,
    /// Nothing, and not the site's default either.
    None,
    /// Print the table.
    List,
    /// A family, a type or a site's profile; not yet looked up.
    Named(ProfileName),
}

/// The name of a profile: 1 to 64 characters of `[A-Za-z0-9._-]`, without the `ml.` that HyperPod
/// puts before an instance type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProfileName(String);

impl ProfileName {
    /// Checks a name from a command line or a configuration file.
    pub fn new(text: &str) -> Result<Self, BadValue> {
        let fits = !text.is_empty()
            && text.len() <= MAX_NAME
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        if !fits {
            return Err(BadValue::Profile(printable(text, MAX_NAME)));
        }
        // Only before a type: `ml.auto` is not the word `auto`, nor `ml.` a name.
        Ok(Self(match text.parse::<InstanceType>() {
            Ok(instance) => instance.to_string(),
            Err(_) => text.to_owned(),
        }))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ProfileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// On which nodes the step explains itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Explain {
    /// Nowhere.
    #[default]
    No,
    /// On the step's first node.
    First,
    /// On every node.
    All,
}

/// A value that no node could make sense of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    /// Not a profile name.
    #[error(
        "--efa-profile: \"{0}\" is not a profile name (1 to 64 letters, digits, '.', '_' or '-'); \
         `srun --efa-profile=list` shows the names"
    )]
    Profile(String),
    /// Not a value of `--efa-explain`.
    #[error(
        "--efa-explain: \"{0}\" is not known; use --efa-explain for the first node or --efa-explain=all"
    )]
    Explain(String),
    /// Not a size for `--efa-hugepages`.
    #[error("--efa-hugepages: {0}")]
    Hugepages(SizeError),
}

/// Reads the value of `--efa-hugepages`: hostile, any bytes of any length.
pub fn hugepages(value: Option<&[u8]>) -> Result<Request, BadValue> {
    let bytes = value.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * MAX_NAME)]);
    text.parse().map_err(BadValue::Hugepages)
}

impl ProfileRequest {
    /// Reads the value of `--efa-profile`: hostile, any bytes of any length.
    pub fn parse(value: Option<&[u8]>) -> Result<Self, BadValue> {
        let bytes = value.unwrap_or_default();
        // A name of 10 MB is not decoded whole to say that it is no name.
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(4 * MAX_NAME)]);
        Ok(match &*text {
            "auto" => Self::Auto,
            "none" => Self::None,
            "list" => Self::List,
            name => Self::Named(ProfileName::new(name)?),
        })
    }

    /// The value that parses to this.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Auto => "auto",
            Self::None => "none",
            Self::List => "list",
            Self::Named(name) => name.as_str(),
        }
    }
}

impl Explain {
    /// Reads the value of `--efa-explain`.
    pub fn parse(value: Option<&[u8]>) -> Result<Self, BadValue> {
        match value {
            None => Ok(Self::First),
            Some(b"all") => Ok(Self::All),
            Some(other) => {
                let shown = &other[..other.len().min(4 * MAX_NAME)];
                Err(BadValue::Explain(printable(
                    &String::from_utf8_lossy(shown),
                    MAX_NAME,
                )))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<ProfileRequest, BadValue> {
        ProfileRequest::parse(Some(text.as_bytes()))
    }

    #[test]
    fn hyperpods_prefix_means_the_same_type() {
        assert_eq!(parse("ml.p5.48xlarge"), parse("p5.48xlarge"));
    }

    #[test]
    fn hyperpods_prefix_stays_where_no_type_follows() {
        for name in ["ml.", "ml.auto", "ml.none", "ml.ml.auto", "ml.p5"] {
            let request = parse(name).unwrap();
            assert_eq!(request.as_str(), name);
            assert!(matches!(request, ProfileRequest::Named(_)), "{name}");
        }
    }

    #[test]
    fn the_reserved_words_are_not_names() {
        assert_eq!(parse("auto"), Ok(ProfileRequest::Auto));
        assert_eq!(parse("none"), Ok(ProfileRequest::None));
        assert_eq!(parse("list"), Ok(ProfileRequest::List));
    }

    #[test]
    fn names_that_no_profile_can_have_are_refused_without_echoing_them_raw() {
        for hostile in [
            "",
            "../../etc/passwd",
            "p5\nfoo",
            "\u{1b}[31mp5",
            "p5 ",
            "p5;rm -rf",
            "pé",
        ] {
            let message = parse(hostile).unwrap_err().to_string();
            assert!(!message.contains(['\n', '\u{1b}']), "{message:?}");
        }
        let message = parse(&"x".repeat(10 << 20)).unwrap_err().to_string();
        assert!(message.len() < 1000, "{} bytes", message.len());
        let non_utf8 = ProfileRequest::parse(Some(b"\xff\xfe")).unwrap_err();
        assert!(matches!(non_utf8, BadValue::Profile(_)));
    }

    #[test]
    fn explain_takes_nothing_or_all() {
        assert_eq!(Explain::parse(None), Ok(Explain::First));
        assert_eq!(Explain::parse(Some(b"all")), Ok(Explain::All));
        assert!(Explain::parse(Some(b"none")).is_err());
    }

    #[test]
    fn hugepages_are_a_size_with_its_unit_or_a_word() {
        for fine in ["512M", "5120M", "10G", "auto", "none"] {
            assert!(hugepages(Some(fine.as_bytes())).is_ok(), "{fine}");
        }
        for bad in [
            "",
            "-1",
            "1",
            "5G;rm",
            "99999999T",
            "0M",
            "5G\n",
            "\u{1b}[31m5G",
        ] {
            let message = hugepages(Some(bad.as_bytes())).unwrap_err().to_string();
            assert!(message.starts_with("--efa-hugepages: "), "{message}");
            assert!(!message.chars().any(char::is_control), "{message:?}");
        }
        assert!(hugepages(Some(b"\xff5G")).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_a_printable_refusal(bytes: Vec<u8>) {
            match ProfileRequest::parse(Some(&bytes)) {
                Ok(request) => prop_assert_eq!(parse(request.as_str()), Ok(request)),
                Err(error) => prop_assert!(!error.to_string().chars().any(char::is_control)),
            }
        }
    }
}
