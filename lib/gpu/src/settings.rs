//! The `[gres]` section of the configuration.

use std::path::{Path, PathBuf};

use config::Config;
use config::sections::gres::Section;
pub use config::sections::gres::{OnOver, Shards, WantedTier};
use host::Sysroot;
use host::state_dir::StateDir;
use host::state_layout::gres;
use slurm::NodeName;
use slurm::node_name::{self, NameError};

/// Where this is and what the site wants.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The configuration's path.
    pub config: PathBuf,
    /// Old spellings in the section, as sentences.
    pub warnings: Vec<String>,
    /// Slurm's name of this node.
    pub node: Option<NodeName>,
    /// The tree to look at.
    pub sysroot: Sysroot,
    /// Run-time state.
    pub state_dir: PathBuf,
    /// NVML's library.
    pub library: PathBuf,
    /// Slurm's SlurmdSpoolDir, if the site names one.
    pub spool_dir: Option<PathBuf>,
    /// The section itself. The library and the spool directory in it may depend
    /// on the node's name: the ones above do not.
    pub gres: Section,
}

impl Settings {
    /// Reads the configuration; without `path` the default file, which may be
    /// missing. Without `node`, the name is slurmd's or the machine's.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn load(path: Option<&Path>, node: Option<NodeName>) -> Result<Self, String> {
        let config = Config::named_or_usual(path).map_err(|error| error.to_string())?;
        let node = node.or_else(node_name::of_this_process);
        Self::of(&config, node)
    }

    /// From a configuration that is read already.
    ///
    /// # Errors
    /// As [`Settings::load`].
    pub fn of(config: &Config, node: Option<NodeName>) -> Result<Self, String> {
        let section = Section::of(config).map_err(|error| error.to_string())?;
        let unknown = |error: NameError| format!("{}: [gres]: {error}", config.path.display());
        let node = node.as_ref();
        let spool_dir = section.spool_dir.as_ref().map(|path| path.on(node));
        Ok(Self {
            config: config.path.clone(),
            warnings: config.warnings_of("gres"),
            sysroot: config.sysroot(node).map_err(|error| error.to_string())?,
            state_dir: config.state_dir(node).map_err(|error| error.to_string())?,
            library: section.nvml_library.on(node).map_err(unknown)?,
            spool_dir: spool_dir.transpose().map_err(unknown)?,
            node: node.cloned(),
            gres: section,
        })
    }

    /// The node's name.
    ///
    /// # Errors
    /// Nobody said.
    pub fn named(&self) -> Result<&NodeName, String> {
        self.node.as_ref().ok_or_else(|| {
            "the name of this node is not known; give --node-name, or run under slurmd, which sets \
             SLURMD_NODENAME"
                .to_owned()
        })
    }

    /// The directory of this program's state, made if it is missing.
    ///
    /// # Errors
    /// It cannot be made or somebody else could change it.
    pub fn state(&self) -> Result<StateDir, String> {
        StateDir::open(&self.state_dir)
            .and_then(|dir| dir.folder(gres::FOLDER))
            .map_err(|error| error.to_string())
    }

    /// As [`Settings::state`], but makes nothing.
    ///
    /// # Errors
    /// It is there, and somebody else could change it.
    pub fn existing_state(&self) -> Result<Option<StateDir>, String> {
        let dir = StateDir::open_existing(&self.state_dir).map_err(|error| error.to_string())?;
        match dir {
            Some(dir) => dir
                .existing_folder(gres::FOLDER)
                .map_err(|error| error.to_string()),
            None => Ok(None),
        }
    }

    /// MiB of one shard of a GPU with so much memory, and how many it has;
    /// `None` where GPUs are not shared or not even one shard fits.
    #[must_use]
    pub fn shards_of(&self, memory: crate::inventory::Memory) -> Option<(u64, u64)> {
        let usable = memory
            .total
            .checked_sub(memory.reserved)?
            .checked_sub(self.gres.reserve_mib)?;
        let (size, count) = match self.gres.shards {
            Shards::Size(size) => (size, usable / size),
            Shards::PerGpu(count) => (usable / count, count),
            Shards::None => return None,
        };
        (size > 0 && count > 0).then_some((size, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Memory;

    fn settings(text: &str) -> Result<Settings, String> {
        let path = Path::new("/etc/slurm-efa/slurm-efa.toml");
        Settings::of(&config::parse(text, path).unwrap(), "n1".parse().ok())
    }

    #[test]
    fn shards_are_what_fits_beside_the_drivers_memory_and_the_reserve() {
        let memory = Memory {
            total: 81_559,
            reserved: 600,
            used: 0,
        };
        let of = |text: &str| settings(text).unwrap().shards_of(memory);
        assert_eq!(of("[gres]\nshard_size = \"10G\""), Some((10_240, 7)));
        assert_eq!(
            of("[gres]\nshard_size = \"10G\"\nreserve = \"12G\""),
            Some((10_240, 6))
        );
        assert_eq!(of("[gres]\nshards_per_gpu = 8"), Some((10_119, 8)));
        assert_eq!(of("[gres]\nshard_size = \"100G\""), None);
        assert_eq!(of("[gres]\nreserve = \"1T\"\nshard_size = \"1G\""), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn old_spellings_are_handed_to_the_program_that_prints_them() {
        let old = settings("[gres]\nshard_size = '10GB'\nreserve = '1 gib'").unwrap();
        assert_eq!(old.warnings.len(), 2);
    }
}
