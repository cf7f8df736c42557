//! The module's arguments: `config=FILE` and the keys of `[logout]` that
//! concern a login. They win over the file, and hold even if it cannot be read.

use std::path::PathBuf;

use host::printable;

use crate::settings::{OnError, Settings};

/// Words that are read at most; a PAM line has no more.
pub const MOST: usize = 64;

/// What stands behind the module's name in the PAM file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arguments {
    /// `config=`
    pub config: Option<PathBuf>,
    /// `require_job=`
    pub require_job: Option<bool>,
    /// `exempt_users=`
    pub exempt_users: Vec<String>,
    /// `exempt_groups=`
    pub exempt_groups: Vec<String>,
    /// `services=`
    pub services: Vec<String>,
    /// `on_error=`
    pub on_error: Option<OnError>,
    /// `debug`
    pub debug: bool,
    /// `panic=`, in test builds
    pub panic: Option<String>,
    /// What was not understood; safe to print.
    pub unknown: Vec<String>,
}

impl Arguments {
    /// Reads the words. What is wrong is ignored, and reported in `unknown`:
    /// a typing error must not lock anybody out.
    #[must_use]
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        let mut arguments = Self::default();
        for word in words.into_iter().take(MOST) {
            if !arguments.take(word) {
                arguments.unknown.push(printable(word, 80));
            }
        }
        arguments
    }

    fn take(&mut self, word: &str) -> bool {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let list = || {
            value
                .split(',')
                .filter(|it| !it.is_empty())
                .map(str::to_owned)
        };
        match key {
            "config" if value.starts_with('/') => self.config = Some(value.into()),
            "require_job" => match value {
                "yes" | "true" => self.require_job = Some(true),
                "no" | "false" => self.require_job = Some(false),
                _ => return false,
            },
            "exempt_users" => self.exempt_users.extend(list()),
            "exempt_groups" => self.exempt_groups.extend(list()),
            "services" => self.services.extend(list()),
            "on_error" => match value {
                "deny" => self.on_error = Some(OnError::Deny),
                "allow" => self.on_error = Some(OnError::Allow),
                _ => return false,
            },
            "debug" if value.is_empty() => self.debug = true,
            "panic" if cfg!(feature = "panic-injection") => self.panic = Some(value.to_owned()),
            _ => return false,
        }
        true
    }

    /// Puts them over what the file says.
    #[must_use]
    pub fn over(&self, mut settings: Settings) -> Settings {
        settings.require_job = self.require_job.unwrap_or(settings.require_job);
        settings.on_error = self.on_error.unwrap_or(settings.on_error);
        settings.exempt_users.extend_from_slice(&self.exempt_users);
        settings
            .exempt_groups
            .extend_from_slice(&self.exempt_groups);
        settings.services.extend_from_slice(&self.services);
        settings.debug |= self.debug;
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_argument_is_understood_and_the_last_one_wins() {
        let words = "config=/etc/x.toml require_job=no exempt_users=a,b exempt_groups=wheel \
                     services=sshd on_error=deny on_error=allow debug exempt_users=c";
        let arguments = Arguments::parse(words.split(' '));
        assert_eq!(arguments.config, Some("/etc/x.toml".into()));
        assert_eq!(arguments.exempt_users, ["a", "b", "c"]);
        assert_eq!(arguments.on_error, Some(OnError::Allow));
        assert_eq!(arguments.require_job, Some(false));
        assert!(arguments.debug && arguments.unknown.is_empty());
    }

    #[test]
    fn a_typing_error_is_reported_and_changes_nothing() {
        let words = [
            "on_error=perhaps",
            "config=x",
            "require_job",
            "debgu",
            "\x1b[2J",
        ];
        let arguments = Arguments::parse(words);
        let unknown = Arguments {
            unknown: arguments.unknown.clone(),
            ..Arguments::default()
        };
        assert_eq!(arguments, unknown);
        assert_eq!(arguments.unknown.len(), words.len());
        assert!(!arguments.unknown.concat().contains('\x1b'));
    }

    proptest! {
        #[test]
        fn no_word_makes_the_reader_panic(words in proptest::collection::vec(".{0,30}", 0..80)) {
            let _ = Arguments::parse(words.iter().map(String::as_str));
        }
    }
}
