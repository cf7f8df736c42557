//! plugstack.conf: the SPANK plugins that Slurm loads (spank(7)).

use std::collections::BTreeSet;
use std::path::Path;

use super::reader::{self, ConfError, Files, Grammar, Include, Origin, Problem};

/// A plugin and its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// Its path; a relative one is looked for in Slurm's `PluginDir`.
    pub path: String,
    /// Whether a plugin that cannot be loaded fails the job.
    pub required: bool,
    /// What follows the path.
    pub arguments: Vec<String>,
    /// Where the line is written.
    pub origin: Origin,
}

/// plugstack.conf and the files that it includes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plugstack {
    /// In the order in which they are loaded. A path that comes again is left
    /// out: Slurm loads a file once.
    pub plugins: Vec<Plugin>,
    /// The includes. Slurm ignores one that matches no file.
    pub includes: Vec<Include>,
    /// Includes that could not be followed.
    pub problems: Vec<Problem>,
}

impl Plugstack {
    /// Reads the file. Lines of other words are left out, as Slurm does after a
    /// message.
    ///
    /// # Errors
    /// The file itself cannot be read.
    pub fn read(files: &dyn Files, path: &Path) -> Result<Self, ConfError> {
        let conf = reader::read(files, path, Grammar::Plugstack)?;
        let plugins = conf.lines.into_iter().filter_map(|line| {
            let mut words = reader::words(&line.text).map(str::to_owned);
            let required = match &*words.next()? {
                "required" => true,
                "optional" => false,
                _ => return None,
            };
            Some(Plugin {
                path: words.next()?,
                required,
                arguments: words.collect(),
                origin: line.origin,
            })
        });
        let mut named = BTreeSet::new();
        let plugins = plugins.filter(|plugin| named.insert(plugin.path.clone()));
        Ok(Self {
            plugins: plugins.collect(),
            includes: conf.includes,
            problems: conf.problems,
        })
    }

    /// The plugin whose file has this name.
    #[must_use]
    pub fn plugin(&self, file_name: &str) -> Option<&Plugin> {
        let named = |path: &str| {
            Path::new(path)
                .file_name()
                .is_some_and(|it| it == file_name)
        };
        self.plugins.iter().find(|plugin| named(&plugin.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::reader::InMemory;

    #[test]
    fn plugins_are_read_with_their_arguments_in_the_order_of_loading() {
        let files = InMemory::new(&[
            (
                "/e/plugstack.conf",
                "include ps.d/[0-9]*.conf\nrequired /a/pyxis.so x=1 y # z\nOptional no.so\n",
            ),
            ("/e/ps.d/10-efa.conf", "optional /b/spank_efa.so\n"),
            ("/e/ps.d/efa.conf.off", "optional /c/spank_efa.so\n"),
        ]);
        let stack = Plugstack::read(&files, Path::new("/e/plugstack.conf")).unwrap();
        let paths: Vec<&str> = stack.plugins.iter().map(|it| &*it.path).collect();
        assert_eq!(paths, ["/b/spank_efa.so", "/a/pyxis.so"]);
        assert_eq!(stack.plugins[1].arguments, ["x=1", "y"]);
        assert!(stack.plugins[1].required);
        let efa = stack.plugin("spank_efa.so").unwrap();
        assert_eq!(efa.origin.to_string(), "/e/ps.d/10-efa.conf line 1");
    }

    #[test]
    fn an_include_that_matches_nothing_is_listed_without_files() {
        let files = InMemory::new(&[("/e/plugstack.conf", "include none/*.conf\n")]);
        let stack = Plugstack::read(&files, Path::new("/e/plugstack.conf")).unwrap();
        assert!(stack.includes[0].files.is_empty());
        assert!(stack.problems.is_empty());
    }
}
