//! Slurm's files as the release reads them: with four releases, 10,000 trees in all.

use super::{Context, Verdict};
use crate::differential;
use crate::modules;
use crate::testbed::{Builder, Testbed};

impl Context {
    /// A Slurm of the release, whose files a row may change.
    fn bare(&self) -> Result<Testbed, Box<dyn std::error::Error>> {
        Ok(self.builder().start()?)
    }

    fn builder(&self) -> Builder {
        Testbed::builder().root(&self.release.root)
    }
}

pub(super) fn slurm_conf(c: &Context) -> Verdict {
    differential::slurm_conf::holds(&c.bare()?, 1_000)
}

pub(super) fn plugstack(c: &Context) -> Verdict {
    let noting = modules::portable_example("noting_plugin");
    differential::plugstack::holds(&c.bare()?, &noting, 750)
}

pub(super) fn gres_conf(c: &Context) -> Verdict {
    differential::gres_conf::holds(&c.bare()?, 750)
}

pub(super) fn gres_counts(c: &Context) -> Verdict {
    differential::gres_conf::counts_hold(c.builder(), 20)
}
