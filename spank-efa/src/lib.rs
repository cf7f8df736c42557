//! `spank_efa.so`: `sbatch --efa-profile=p5`, for every supported Slurm release.
//!
//! [`plugin`] holds the hooks, each a switch on the program that it runs in;
//! [`client`] is what happens in srun, sbatch and salloc as the user, and
//! [`components`] which component of a job or step an option belongs to;
//! [`slurmstepd`] is what happens in slurmstepd as root, [`prolog_epilog`] in
//! prolog and epilog. All only carry out what `lib/profiles` decides. The module
//! `usage` reports what EFA moved.

mod arguments;
mod client;
mod components;
mod options;
mod plugin;
mod prolog_epilog;
mod slurmstepd;
mod usage;

use plugin::Efa;

spank::plugin! {
    name: "spank_efa",
    plugin: Efa,
    hooks: [
        job_prolog,
        init_post_opt,
        user_init,
        task_init_privileged,
        task_init,
        task_exit,
        job_epilog,
    ],
}
