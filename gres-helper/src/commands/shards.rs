//! Options that say how a GPU is shared.

use clap::Args;
use config::values::size::{self, SizeError};
use gpu::settings::{Settings, Shards};

use super::output::complain;

#[derive(Debug, Args)]
pub struct How {
    /// Memory of a shard, e.g. 10G; else as in [gres].
    #[arg(long, value_name = "SIZE", conflicts_with = "shards_per_gpu", value_parser = mib)]
    shard_size: Option<u64>,
    /// Shards of a GPU; else as in [gres].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1024))]
    shards_per_gpu: Option<u64>,
}

/// A size on the command line.
fn mib(text: &str) -> Result<u64, SizeError> {
    let size = size::parse_with_old_spelling(text)?;
    if size::old_spelling(text).is_some() {
        complain(&format!(
            "--shard-size has an old spelling, which the next release will refuse; write {size}"
        ));
    }
    size::whole_mebibytes(size)
}

impl How {
    pub fn apply(&self, settings: &mut Settings) {
        if let Some(size) = self.shard_size {
            settings.gres.shards = Shards::Size(size);
        }
        if let Some(count) = self.shards_per_gpu {
            settings.gres.shards = Shards::PerGpu(count);
        }
    }
}
