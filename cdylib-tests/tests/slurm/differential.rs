//! Slurm's files as this machine's Slurm reads them; the matrix has every release.

use cdylib_tests::differential::{gres_conf, plugstack, slurm_conf};
use cdylib_tests::modules;
use cdylib_tests::testbed::Testbed;

#[test]
fn slurm_conf_is_read_as_slurmctld_reads_it() {
    let tb = Testbed::builder().start().unwrap();
    slurm_conf::holds(&tb, 200).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn plugstack_conf_is_read_as_srun_reads_it() {
    let tb = Testbed::builder().start().unwrap();
    let noting = modules::example("noting_plugin");
    plugstack::holds(&tb, &noting, 150).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn gres_conf_is_read_as_slurmd_reads_it() {
    let tb = Testbed::builder().start().unwrap();
    gres_conf::holds(&tb, 200).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn gres_conf_is_counted_as_slurmctld_counts_it() {
    gres_conf::counts_hold(Testbed::builder(), 8).unwrap_or_else(|error| panic!("{error}"));
}
