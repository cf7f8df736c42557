//! All that is wrong with the file, by the parsers that the programs use.

use crate::error::ConfigError;
use crate::file::Config;
use crate::sections::{gres, health, hugepages, logout, report};

impl Config {
    /// What the programs that read a section would refuse: each section is read
    /// by their own parser, which gives its first problem. The top level was
    /// read when the file was loaded. Whether a profile's name exists is for
    /// `profiles` to say, which knows the built-in ones.
    #[must_use]
    pub fn problems(&self) -> Vec<ConfigError> {
        let sections = [
            hugepages::Settings::of(self).err(),
            report::Settings::of(self).err(),
            health::Settings::of(self).err(),
            logout::Section::of(self).err(),
            gres::Section::of(self).err(),
        ];
        sections.into_iter().flatten().collect()
    }
}
