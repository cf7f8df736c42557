//! The words behind the plugin's path in plugstack.conf.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use config::Config;
use host::printable;

/// `config=FILE`, and whatever should not be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    config: Option<PathBuf>,
    unknown: Vec<String>,
    /// Test builds only: the hook that shall panic.
    #[cfg(feature = "panic-injection")]
    pub panic: Option<String>,
}

impl Arguments {
    /// Reads the words. Nothing is opened.
    pub fn parse(words: &[OsString]) -> Self {
        let mut arguments = Self::default();
        for word in words {
            let bytes = word.as_bytes();
            if let Some(path) = bytes.strip_prefix(b"config=") {
                arguments.config = Some(PathBuf::from(std::ffi::OsStr::from_bytes(path)));
                continue;
            }
            #[cfg(feature = "panic-injection")]
            if let Some(hook) = bytes.strip_prefix(b"panic=") {
                arguments.panic = Some(String::from_utf8_lossy(hook).into_owned());
                continue;
            }
            arguments
                .unknown
                .push(printable(&word.to_string_lossy(), 64));
        }
        arguments
    }

    /// Loads and checks the site's configuration. Without `config=` the
    /// default file may be missing; a file that was named must be there.
    ///
    /// # Errors
    /// A sentence with file, line and reason.
    pub fn load_config(&self) -> Result<Config, String> {
        if let Some(word) = self.unknown.first() {
            return Err(format!(
                "plugstack.conf: spank_efa.so takes config=FILE, not \"{word}\""
            ));
        }
        let config =
            Config::named_or_usual(self.config.as_deref()).map_err(|error| error.to_string())?;
        profiles::profile::check(&config).map_err(|error| error.to_string())?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Arguments {
        Arguments::parse(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_mistyped_argument_is_an_error_and_not_the_default_file() {
        let error = parse(&["confg=/x"]).load_config().unwrap_err();
        assert!(error.contains("confg=/x"), "{error}");
    }

    #[test]
    fn a_file_that_plugstack_names_must_exist() {
        let error = parse(&["config=/nonexistent/slurm-efa.toml"])
            .load_config()
            .unwrap_err();
        assert!(error.contains("/nonexistent/slurm-efa.toml"), "{error}");
    }
}
