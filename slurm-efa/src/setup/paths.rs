//! Where the suite's programs, links and notes lie on a node.

/// Where the plugin is installed.
pub const PLUGIN: &str = "/usr/lib/slurm-efa/spank_efa.so";

/// Where that of shared GPUs is.
pub const GRES_PLUGIN: &str = "/usr/lib/slurm-efa/spank_gres.so";

/// Links to the programs that slurmd runs before a job, a folder of ours, since
/// Slurm takes a pattern but no arguments. **A pattern that matches nothing fails
/// the prolog and drains the node** (22.05, 24.11), so nodes come before the
/// controller.
pub const PROLOGS: &str = "/etc/slurm-efa/prolog.d";

/// The same after a job.
pub const EPILOGS: &str = "/etc/slurm-efa/epilog.d";

/// The health check.
pub const HEALTHCHECK: &str = "/etc/slurm-efa/efa-check-healthcheck";

/// What setup of the last release called it. It stays for this release, as long as
/// slurm.conf names it.
pub const OLD_HEALTHCHECK: &str = "/etc/slurm-efa/efa-check-watch";

/// What the health check is on a node without jobs, whose slurmd calls it all
/// the same (HyperPod's login nodes), and without it complains at each round.
pub const NO_HEALTHCHECK: &str = "/bin/true";

/// NHC's configuration, on each node.
pub const NHC_CONF: &str = "/etc/nhc/nhc.conf";

/// PAM's stack of sshd.
pub const SSHD: &str = "/etc/pam.d/sshd";

/// What runs before and after each job.
pub const JOB_PROGRAM: &str = "/usr/lib/slurm-efa/slurm-efa-job";

/// Where the programs are.
pub const EFA_CHECK: &str = "/usr/sbin/efa-check";

/// Where the other may be.
pub const GRES_HELPERS: [&str; 2] = ["/usr/sbin/gres-helper", "/usr/bin/gres-helper"];

/// The daemon that ends logins.
pub const LOGOUTD: &str = "/usr/sbin/slurm-logoutd";

/// Where PAM's module is installed: the same path on every distribution.
pub const PAM_MODULE: &str = "/usr/lib/slurm-efa/pam_slurm_logout.so";

/// The role that the last set-up had: what told it may be gone (HyperPod's
/// lifecycle files lie in /tmp), and `doctor` wants to know it.
pub const ROLE: &str = "/var/lib/slurm-efa/role";

/// Which parts of the setup are in place, one a line.
pub const PARTS: &str = "/var/lib/slurm-efa/parts";

/// Copies of what was changed.
pub const BACKUPS: &str = "/var/lib/slurm-efa/backups";

/// Where PAM's own modules are, and ours if somebody put it there.
pub const SECURITY: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/security",
    "/usr/lib/aarch64-linux-gnu/security",
    "/usr/lib64/security",
    "/usr/lib/security",
];

/// The first line of a file that we made.
pub const MADE: &str = "# Made by slurm-efa setup.";
