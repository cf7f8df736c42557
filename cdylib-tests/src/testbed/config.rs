//! The texts of slurm.conf and cgroup.conf, release by release.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use super::namespaces::{ADDRESS, HOSTNAME};
use crate::simnode;

/// A Slurm release, e.g. 22.05.8.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// Year, e.g. 22.
    pub year: u8,
    /// Month, e.g. 5.
    pub month: u8,
    /// Maintenance release.
    pub micro: u8,
}

impl Release {
    /// Reads what `slurmd -V` prints: `slurm-wlm 22.05.8` or `slurm 23.11.1`.
    pub(super) fn parse(text: &str) -> Option<Release> {
        let version = text.split_whitespace().nth(1)?;
        let mut parts = version.split(['.', '-']).map(str::parse);
        Some(Release {
            year: parts.next()?.ok()?,
            month: parts.next()?.ok()?,
            micro: parts.next().and_then(Result::ok).unwrap_or(0),
        })
    }

    /// Is this the release `year.month` or a later one?
    pub fn at_least(self, year: u8, month: u8) -> bool {
        (self.year, self.month) >= (year, month)
    }
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:02}.{}", self.year, self.month, self.micro)
    }
}

/// What slurm.conf says about one node. The default is the shape of a
/// p5.48xlarge: 192 CPUs, 2 TiB, which `config_overrides` makes Slurm believe.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// Sockets.
    pub sockets: u32,
    /// Cores of a socket.
    pub cores_per_socket: u32,
    /// Threads of a core.
    pub threads_per_core: u32,
    /// Memory, MiB.
    pub real_memory: u64,
    /// `Gres=`, e.g. `gpu:8`.
    pub gres: Option<String>,
    /// Anything else for the node's line, e.g. `Weight=2 Feature=efa`.
    pub extra: String,
    /// The hardware tree to build at `{dir}/sysroots/<node name>`.
    pub simulated: Option<simnode::Spec>,
}

impl Default for NodeOptions {
    fn default() -> Self {
        NodeOptions {
            sockets: 2,
            cores_per_socket: 48,
            threads_per_core: 2,
            real_memory: 2_000_000,
            gres: None,
            extra: String::new(),
            simulated: None,
        }
    }
}

impl NodeOptions {
    /// A node whose hardware tree is built from `spec`.
    pub fn simulated(spec: simnode::Spec) -> Self {
        NodeOptions {
            simulated: Some(spec),
            ..NodeOptions::default()
        }
    }

    /// The number of CPUs, in Slurm's sense: hardware threads.
    pub fn cpus(&self) -> u32 {
        self.sockets * self.cores_per_socket * self.threads_per_core
    }
}

/// Everything that the configuration texts depend on.
pub(super) struct Site<'a> {
    pub dir: &'a Path,
    pub hostname: &'a str,
    pub address: Ipv4Addr,
    /// `root`, or the one user of the unprivileged mode.
    pub daemon_user: &'a str,
    pub release: Release,
    pub ctld_port: u16,
    pub nodes: &'a [(String, u16, NodeOptions)],
    /// proctrack/cgroup and task/cgroup, or neither.
    pub cgroups: bool,
    pub contain: bool,
    pub debug: &'a str,
    pub extra: &'a str,
}

impl Site<'_> {
    pub(super) fn slurm_conf(&self) -> String {
        let dir = self.dir.display();
        let (proctrack, task) = if self.cgroups {
            ("proctrack/cgroup", "task/cgroup")
        } else {
            ("proctrack/linuxproc", "task/none")
        };
        let mut text = format!(
            "# Written by the testbed for Slurm {release}.\n\
             ClusterName=testbed\n\
             SlurmctldHost={host}({address})\n\
             SlurmUser={user}\n\
             SlurmdUser={user}\n\
             SlurmctldPort={port}\n\
             AuthType=auth/munge\n\
             AuthInfo=socket={dir}/munge/socket\n\
             StateSaveLocation={dir}/state\n\
             SlurmdSpoolDir={dir}/spool/%n\n\
             SlurmctldPidFile={dir}/pid/slurmctld\n\
             SlurmdPidFile={dir}/pid/slurmd-%n\n\
             SlurmctldLogFile={dir}/log/slurmctld.log\n\
             SlurmdLogFile={dir}/log/slurmd-%n.log\n\
             SlurmctldDebug={debug}\n\
             SlurmdDebug={debug}\n\
             ProctrackType={proctrack}\n\
             SelectType=select/cons_tres\n\
             SelectTypeParameters=CR_CPU\n\
             SwitchType=switch/none\n\
             MpiDefault=none\n\
             PlugStackConfig={dir}/plugstack.conf\n\
             SlurmdParameters=config_overrides\n\
             ReturnToService=2\n\
             SlurmctldTimeout=30\n\
             SlurmdTimeout=30\n\
             MessageTimeout=10\n\
             KillWait=2\n\
             InactiveLimit=0\n\
             SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1\n",
            release = self.release,
            host = self.hostname,
            address = self.address,
            user = self.daemon_user,
            port = self.ctld_port,
            debug = self.debug,
        );
        // The default; its plugin, and from 24.11 its name, went away.
        if self.cgroups || !self.release.at_least(23, 2) {
            let _ = writeln!(text, "TaskPlugin={task}");
        }
        if !self.release.at_least(23, 2) {
            text.push_str("JobAcctGatherType=jobacct_gather/none\n");
        }
        if self.contain {
            // Contain works with proctrack/cgroup only, and includes Alloc.
            let flag = if self.cgroups { "Contain" } else { "Alloc" };
            let _ = writeln!(text, "PrologFlags={flag}");
        }
        for (name, port, node) in self.nodes {
            let _ = write!(
                text,
                "NodeName={name} NodeHostname={host} NodeAddr={address} Port={port} \
                 CPUs={cpus} Boards=1 SocketsPerBoard={} CoresPerSocket={} ThreadsPerCore={} \
                 RealMemory={} State=UNKNOWN",
                node.sockets,
                node.cores_per_socket,
                node.threads_per_core,
                node.real_memory,
                host = self.hostname,
                address = self.address,
                cpus = node.cpus(),
            );
            if let Some(gres) = &node.gres {
                let _ = write!(text, " Gres={gres}");
            }
            let _ = writeln!(text, " {}", node.extra);
        }
        let names: Vec<&str> = self.nodes.iter().map(|(name, ..)| name.as_str()).collect();
        let _ = writeln!(
            text,
            "PartitionName=all Nodes={} Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO",
            names.join(",")
        );
        text.push_str(self.extra);
        text.push('\n');
        text
    }

    /// cgroup.conf, or nothing where no cgroups are used.
    pub(super) fn cgroup_conf(&self) -> Option<String> {
        if !self.cgroups {
            // 24.11 and later load a cgroup plugin even when nothing uses it.
            return self
                .release
                .at_least(23, 11)
                .then(|| "CgroupPlugin=disabled\n".to_owned());
        }
        let mut text = "CgroupMountpoint=/sys/fs/cgroup\n".to_owned();
        // The parameter came with the v2 plugin, in 22.05.
        if self.release.at_least(22, 5) {
            text.push_str("CgroupPlugin=cgroup/v1\n");
        }
        Some(text)
    }
}

/// A user inside a testbed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Home directory; same path inside and outside.
    pub home: PathBuf,
}

/// /etc files of a testbed, made from those of the root it runs in.
pub(super) struct Accounts {
    pub passwd: String,
    pub group: String,
    pub shadow: String,
    pub hosts: String,
}

impl Accounts {
    pub(super) fn new(root: &Path, users: &[User], nodes: &[String]) -> Accounts {
        let users: Vec<_> = users.iter().filter(|user| user.uid != 0).collect();
        // A line that our users would be in conflict with. Shadow has no ids.
        let own = |file: &str, line: &str| {
            let mut fields = line.split(':');
            let name = fields.next().unwrap_or_default();
            let id = fields.nth(1).filter(|_| file != "shadow");
            users
                .iter()
                .any(|user| user.name == name || Some(user.uid.to_string().as_str()) == id)
        };
        // A machine's file may lack its last newline, or not exist.
        let base = |name: &str| -> String {
            let text = std::fs::read_to_string(root.join("etc").join(name)).unwrap_or_default();
            text.lines()
                .filter(|line| !own(name, line))
                .map(|line| format!("{line}\n"))
                .collect()
        };
        let (mut passwd, mut group, mut shadow) = (base("passwd"), base("group"), base("shadow"));
        for user in users {
            let (name, uid, gid) = (&user.name, user.uid, user.gid);
            let home = user.home.display();
            let _ = writeln!(passwd, "{name}:x:{uid}:{gid}::{home}:/bin/bash");
            let _ = writeln!(group, "{name}:x:{gid}:");
            let _ = writeln!(shadow, "{name}:*:20000:0:99999:7:::");
        }
        Accounts {
            passwd,
            group,
            shadow,
            hosts: format!(
                "127.0.0.1 localhost\n::1 localhost\n{ADDRESS} {HOSTNAME} {}\n",
                nodes.join(" ")
            ),
        }
    }
}

/// The Debian package that a program belongs to.
pub(super) const PROGRAMS: [(&str, &str); 7] = [
    ("/usr/sbin/slurmctld", "slurmctld"),
    ("/usr/sbin/slurmd", "slurmd"),
    ("/usr/bin/srun", "slurm-client"),
    ("/usr/bin/sbatch", "slurm-client"),
    ("/usr/sbin/munged", "munge"),
    ("/usr/bin/setpriv", "util-linux"),
    ("/bin/bash", "bash"),
];

/// The absolute path of a program, as it is inside `root`.
pub(super) fn in_root(root: Option<&Path>, program: &str) -> PathBuf {
    match root {
        Some(root) => root.join(program.trim_start_matches('/')),
        None => PathBuf::from(program),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_read_from_what_slurmd_prints() {
        let release = Release::parse("slurm-wlm 22.05.8\n").unwrap();
        assert_eq!(release.to_string(), "22.05.8");
        assert!(release.at_least(22, 5) && !release.at_least(23, 2));
        assert!(Release::parse("slurm 26.05.0-0rc1").is_some());
        assert!(Release::parse("nonsense").is_none());
        assert!(Release::parse("").is_none());
    }
}
