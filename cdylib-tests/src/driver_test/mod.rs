//! The kernel's own efa driver under `make driver-test`: guests in QEMU whose EFA
//! devices are emulated (`cdylib-tests/efa-device`), with rdma-core, libfabric and a
//! Slurm of Debian's, and the programs that were just built. Every scene of
//! [`scenes::SCENES`] makes a device fail in one way, or moves data, and looks at
//! what is then said.

mod fabric;
mod guest;
mod image;
mod node;
mod scenes;
mod slurm;

use crate::machines::scene::{Scene, play};
use crate::machines::{Verdict, scratch};
use crate::matrix::guarded;
use image::Image;
use node::Stage;
use scenes::SCENES;

pub use crate::machines::in_own_namespaces;

/// Plays the scenes whose name contains `only`, printing as it goes; true when
/// every one is fine.
///
/// # Errors
/// There is nothing to play on, or no scene has such a name.
pub fn run(only: Option<&str>) -> Verdict<bool> {
    let scenes = Scene::select(SCENES, only);
    if scenes.is_empty() {
        let names: Vec<&str> = SCENES.iter().map(|scene| scene.name).collect();
        return Err(format!("no such scene; there are:\n{}", names.join("\n")).into());
    }
    let dir = scratch()?;
    // What is not built is said by a panic.
    let image = guarded(|| Image::get(dir))?;
    let mut stage = Stage::new(image, dir);
    Ok(play(&scenes, &mut stage, Stage::end_of_failure))
}
