//! Files and kernel as they are, with changes that happen on paper only: what
//! [`crate::reconcile()`] *would* do, found out by letting it do so.

use std::collections::BTreeMap;

use crate::pool::{Counts, Pool, PoolError, Pools};
use config::size::HugePages;
use host::state_dir::{StateDir, StateError, Store};

/// A directory of state whose changes are only remembered.
#[derive(Debug, Default)]
pub struct OverlayStore {
    /// `None`: there is no such directory, so it is empty.
    files: Option<StateDir>,
    /// `None`: removed.
    changed: BTreeMap<String, Option<Vec<u8>>>,
}

impl OverlayStore {
    /// On top of what is there.
    #[must_use]
    pub fn over(files: StateDir) -> Self {
        Self {
            files: Some(files),
            changed: BTreeMap::new(),
        }
    }
}

impl Store for OverlayStore {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        match (self.changed.get(name), &self.files) {
            (Some(changed), _) => Ok(changed.clone()),
            (None, Some(files)) => files.read(name),
            (None, None) => Ok(None),
        }
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        self.changed.insert(name.to_owned(), Some(bytes.to_vec()));
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), StateError> {
        self.changed.insert(name.to_owned(), None);
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, StateError> {
        let mut names = match &self.files {
            Some(files) => files.names()?,
            None => Vec::new(),
        };
        names.retain(|name| !self.changed.contains_key(name));
        let there = self.changed.iter().filter(|(_, bytes)| bytes.is_some());
        names.extend(there.map(|(name, _)| name.clone()));
        names.sort_unstable();
        Ok(names)
    }

    fn sweep(&mut self) -> Result<(), StateError> {
        Ok(())
    }
}

/// Pools whose changes are only remembered, of a kernel that has all the memory
/// that it is asked for.
#[derive(Debug)]
pub struct OverlayPools<P> {
    kernel: P,
    changed: Counts,
}

impl<P: Pools> OverlayPools<P> {
    /// On top of what the kernel has.
    pub fn over(kernel: P) -> Self {
        Self {
            kernel,
            changed: Counts::new(),
        }
    }
}

impl<P: Pools> Pools for OverlayPools<P> {
    fn pools(&self) -> Result<Vec<Pool>, PoolError> {
        self.kernel.pools()
    }

    fn persistent(&self, pool: Pool) -> Result<HugePages, PoolError> {
        match self.changed.get(&pool) {
            Some(pages) => Ok(*pages),
            None => self.kernel.persistent(pool),
        }
    }

    fn set_persistent(&mut self, pool: Pool, pages: HugePages) -> Result<(), PoolError> {
        self.changed.insert(pool, pages);
        Ok(())
    }

    fn compact(&mut self) -> Result<(), PoolError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_or_removed_on_paper_is_so_for_the_writer_and_for_nobody_else() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = StateDir::open(dir.path()).unwrap();
        files.write("a", b"1").unwrap();
        files.write("b", b"2").unwrap();
        let mut paper = OverlayStore::over(StateDir::open(dir.path()).unwrap());
        paper.remove("a").unwrap();
        paper.write("b", b"3").unwrap();
        paper.write("c", b"4").unwrap();
        paper.sweep().unwrap();
        assert_eq!(paper.names().unwrap(), ["b", "c"]);
        assert_eq!(paper.read("a").unwrap(), None);
        assert_eq!(paper.read("b").unwrap().unwrap(), b"3");
        assert_eq!(files.names().unwrap(), ["a", "b"]);
        assert_eq!(files.read("b").unwrap().unwrap(), b"2");
    }

    #[test]
    fn a_store_on_paper_without_a_directory_is_empty() {
        let paper = OverlayStore::default();
        assert!(paper.names().unwrap().is_empty());
        assert_eq!(paper.read("a").unwrap(), None);
    }
}
