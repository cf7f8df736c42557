//! All that is wrong with the file, by the parsers that the programs use.

use crate::error::ConfigError;
use crate::file::Config;
use crate::sections::{gres, health, hugepages, logout, report};

impl Config {
    /// What the programs that read a section would refuse: each section is read
    /// by their own parser, which gives one problem for each key. The top level
    /// was read when the file was loaded. Whether a profile's name exists is for
    /// `profiles` to say, which knows the built-in ones.
    #[must_use]
    pub fn problems(&self) -> Vec<ConfigError> {
        let sections = [
            hugepages::Settings::problems(self),
            report::Settings::problems(self),
            health::Settings::problems(self),
            logout::Section::problems(self),
            gres::Section::problems(self),
        ];
        sections.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn a_word_of_another_type_is_named_with_its_key_and_what_would_fit() {
        for (section, key) in [
            ("hugepages", "spread"),
            ("hugepages", "on_shortfall"),
            ("health", "on_fatal"),
            ("health", "stack"),
            ("logout", "on_error"),
            ("logout", "leftovers"),
            ("gres", "tier"),
            ("gres", "on_over"),
        ] {
            let said = |value: &str| {
                let text = format!("[{section}]\n{key} = {value}\n");
                let config = crate::parse(&text, Path::new("/x.toml")).unwrap();
                config.problems()[0].to_string()
            };
            let number = said("5");
            let words = format!("`{key}`: invalid type: integer `5`, expected a string");
            assert!(number.contains(&words), "{number}");
            let unknown = said("'often'");
            assert!(
                unknown.contains("unknown variant `often`, expected"),
                "{unknown}"
            );
        }
    }
}
