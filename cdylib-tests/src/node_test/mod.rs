//! The virtual cluster of `make node-test`: a controller, a login node and a
//! compute node, each a whole Debian with systemd in QEMU, laid out as HyperPod
//! lays out its nodes. The package that `make dist` built is installed by the
//! lifecycle script, and every scene of [`scenes::SCENES`] looks at what is then
//! seen on whole machines.

mod cluster;
mod image;
mod machine;
mod scenes;

use std::io::Read;

use crate::machines::scene::{Scene, play};
use crate::machines::{Verdict, scratch};
use cluster::Cluster;
use image::Image;
use scenes::SCENES;

pub use crate::machines::in_own_namespaces;

/// What is run.
#[derive(Debug, Default)]
pub struct Selection {
    /// Scenes whose name contains this, and those without which no other can be.
    pub only: Option<String>,
    /// Leave the machines on at the end, until standard input ends.
    pub hold: bool,
}

/// Makes the cluster and plays the scenes, printing as it goes; true when every
/// one is fine.
///
/// # Errors
/// There is no cluster to play on.
pub fn run(selection: &Selection) -> Verdict<bool> {
    let scenes = Scene::select(SCENES, selection.only.as_deref());
    let image = Image::get()?;
    let mut cluster = Cluster::start(&image, scratch()?)?;
    let fine = play(&scenes, &mut cluster, |cluster| cluster.logs());
    if selection.hold {
        eprintln!("{}\nEnd of input (Ctrl-D) ends it.", cluster.way_in());
        std::io::stdin().read_to_end(&mut Vec::new())?;
    }
    Ok(fine)
}
