//! The plugin of `--efa-profile` and `--efa-hugepages` under a real Slurm.

mod accounting;
mod crash_prolog_epilog;
mod hugepages;
mod inheritance;
mod loading;
mod node_faults;
mod profile;
mod submission;
