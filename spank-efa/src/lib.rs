//! `spank_efa.so`: `sbatch --efa-profile=p5`, for every supported Slurm release.
//!
//! [`plugin`] holds the hooks, each a switch on the program that it runs in;
//! [`client`] is what happens in srun, sbatch and salloc as the user;
//! [`stepd`] is what happens in slurmstepd as root. Both only carry out what
//! the pure middle decides: [`request`] (what was asked), [`profile`] (what it
//! means), [`rules`] (the tables), [`plan`] (what to do on this node) and
//! [`explain`] (how to say it).

mod arguments;
mod client;
pub mod explain;
mod node_name;
pub mod own;
pub mod plan;
pub mod plugin;
pub mod profile;
pub mod request;
pub mod rules;
mod stepd;

pub use client::Export;
use plugin::Efa;

slurm_spank::plugin! {
    name: "spank_efa",
    plugin: Efa,
    hooks: [init_post_opt, user_init, task_init],
}
