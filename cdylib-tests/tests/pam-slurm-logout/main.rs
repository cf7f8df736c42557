//! The PAM module, and slurm-logoutd, under a real libpam, sshd and Slurm.

mod libpam;
mod logins;
mod stacks;
