//! What is here: which Slurm, which files, which role.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use cluster::{Role, Roster, own_role};
use config::Config;
use config::{DEFAULT_PATH, MissingIs};
use findings::Findings;
use host::{Sysroot, Uid, printable};
use slurm::Installation;

use crate::configuration::check;

/// The folder of HyperPod's files.
const HYPERPOD: &str = "/opt/ml/config";

/// Largest file of HyperPod's that is read, in bytes.
const LARGEST_JSON: usize = 16 * 1024 * 1024;

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The role, unless the files shall tell.
    pub role: Option<Role>,
    /// slurm.conf, unless it is looked for.
    pub slurm_conf: Option<PathBuf>,
    /// The configuration of this suite.
    pub config: Option<PathBuf>,
    /// Instead of HyperPod's.
    pub resource_config: Option<PathBuf>,
    /// Instead of HyperPod's.
    pub provisioning: Option<PathBuf>,
    /// What stands for `/` for our own files and PAM's: tests.
    pub root: Option<PathBuf>,
}

/// What is here.
#[derive(Debug)]
pub struct Site {
    /// What the command line says.
    pub wanted: Wanted,
    /// Its Slurm: slurm.conf, programs, release.
    pub slurm: Installation,
    /// Whether slurm.conf, or plugstack.conf, lies on a network file system: then it is
    /// other nodes' too (ParallelCluster's /opt/slurm).
    pub shared: bool,
    /// This suite's configuration, or why there is none.
    pub config: Result<Config, String>,
    /// What is wrong with its text, for any program.
    pub mistakes: Findings,
}

impl Site {
    /// Looks around. Changes nothing.
    #[must_use]
    pub fn look(wanted: Wanted) -> Self {
        // What cannot be read is Slurm's to complain about.
        let slurm = Installation::discover(wanted.slurm_conf.as_deref());
        let (path, missing) = config_file(&wanted);
        let examined = config::examine(&path, missing);
        let mistakes = check::text(&examined);
        // One reading: what is judged is what is used.
        let config = examined.and_then(|(config, _)| config.strict());
        let mut site = Self {
            slurm,
            shared: false,
            config: config.map_err(|error| error.to_string()),
            mistakes,
            wanted,
        };
        let mut files = site
            .slurm
            .slurm_conf
            .iter()
            .cloned()
            .chain(site.plugstack());
        site.shared = files.any(|path| lies_on_network(&path));
        site
    }

    /// The account that slurm.conf names as SlurmUser, if this machine has it
    /// and it is not root. Slurm runs as that user and believes what it writes.
    #[must_use]
    pub fn slurm_user(&self) -> Option<Uid> {
        let name = self.slurm.conf.value("SlurmUser")?;
        let number = name.parse().ok();
        let uid = number.or_else(|| Some(uzers::get_user_by_name(name)?.uid()))?;
        (uid != 0).then_some(Uid(uid))
    }

    /// Where a file of the system is.
    #[must_use]
    pub fn place(&self, path: &str) -> PathBuf {
        under(self.wanted.root.as_deref(), path)
    }

    /// Whether `path`, an absolute one, is other nodes' too.
    #[must_use]
    pub fn is_shared(&self, path: &Path) -> bool {
        let conf = self.slurm.slurm_conf.as_deref().and_then(Path::parent);
        let beside_conf = conf.is_some_and(|folder| path.starts_with(folder));
        (self.shared && beside_conf) || lies_on_network(path)
    }

    /// Where `path` is, as text for a configuration.
    #[must_use]
    pub fn place_text(&self, path: &str) -> String {
        self.place(path).to_string_lossy().into_owned()
    }

    /// Whether this suite's configuration has a section.
    #[must_use]
    pub fn has_section(&self, name: &str) -> bool {
        let config = self.config.as_ref().ok();
        config.is_some_and(|it| matches!(it.section::<toml::Table>(name), Ok(Some(_))))
    }

    /// A key of a section of this suite's configuration.
    #[must_use]
    pub fn key(&self, section: &str, key: &str) -> Option<toml::Value> {
        let table = self.config.as_ref().ok()?.section::<toml::Table>(section);
        table.ok()??.remove(key)
    }

    /// The files of others that setup edits on this node in a role, or in any.
    #[must_use]
    pub fn edited(&self, role: Option<Role>) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        if role.is_none_or(|it| it == Role::Compute) {
            let nhc = self.place(super::paths::NHC_CONF);
            paths.push(self.place(super::paths::SSHD));
            paths.extend((!self.is_shared(&nhc)).then_some(nhc));
        }
        let conf = self.slurm.slurm_conf.as_ref();
        let edits = self.has_original() && role.is_none_or(|it| self.edits_slurm(it));
        if let Some(conf) = conf.filter(|_| edits) {
            paths.push(conf.clone());
            paths.extend(self.plugstack());
            paths.push(conf.with_file_name("cgroup.conf"));
            paths.push(conf.with_file_name("gres.conf"));
        }
        paths
    }

    /// Whether the file that is read here is the one that is edited: on a
    /// configless cluster only the controller's is, and what nodes share is
    /// edited once.
    #[must_use]
    pub fn edits_slurm(&self, role: Role) -> bool {
        let elsewhere = self.is_configless() || self.shared;
        self.has_original() && (role == Role::Controller || !elsewhere)
    }

    /// Whether there is a slurm.conf that is not slurmd's or a client's copy.
    #[must_use]
    pub fn has_original(&self) -> bool {
        let clients = self.place("/run/slurm/conf");
        let original = |path: &PathBuf| {
            let mut folders = path.components();
            !folders.any(|it| it.as_os_str() == "conf-cache") && !path.starts_with(&clients)
        };
        self.slurm.slurm_conf.as_ref().is_some_and(original)
    }

    /// Whether nodes get their files from slurmctld.
    #[must_use]
    pub fn is_configless(&self) -> bool {
        let parameters = self
            .slurm
            .conf
            .value("SlurmctldParameters")
            .unwrap_or_default();
        let mut parameters = parameters.split(',');
        parameters.any(|it| it.eq_ignore_ascii_case("enable_configless"))
    }

    /// plugstack.conf of the slurm.conf in force.
    #[must_use]
    pub fn plugstack(&self) -> Option<PathBuf> {
        let conf = self.slurm.slurm_conf.as_deref()?;
        Some(match self.slurm.conf.value("PlugStackConfig") {
            Some(path) if path.starts_with('/') => PathBuf::from(path),
            Some(path) => conf.with_file_name(path),
            None => conf.with_file_name("plugstack.conf"),
        })
    }

    /// The node's role.
    ///
    /// # Errors
    /// Why it is not known, and what to do.
    pub fn role(&self) -> Result<Role, String> {
        if let Some(role) = self.wanted.role {
            return Ok(role);
        }
        const SAY: &str = "say it with --role controller, login or compute";
        let unknown = |error| format!("this node's role is not known: {error}; {SAY}");
        let given = |path: &Option<PathBuf>, name: &str| {
            path.clone()
                .unwrap_or_else(|| self.place(&format!("{HYPERPOD}/{name}")))
        };
        let text = |path: &Path| {
            Sysroot::real()
                .read_bounded(&path.to_string_lossy(), LARGEST_JSON)
                .map_err(|error| error.to_string())
        };
        let resources = given(&self.wanted.resource_config, "resource_config.json");
        let provisioning = given(&self.wanted.provisioning, "provisioning_parameters.json");
        if resources.exists() && provisioning.exists() {
            let parameters = text(&provisioning)?;
            let role = own_role::from_resource_config(
                &text(&resources)?,
                Some(parameters.as_str()),
                own_role::is_own,
            );
            return role.map_err(unknown);
        }
        let info = self.place(&format!("{HYPERPOD}/nodeinfo.json"));
        if info.exists() {
            let role = own_role::from_node_info(&text(&info)?);
            return role.map_err(unknown);
        }
        // Where SageMaker itself sets Slurm up there are no parameters, and the
        // groups name their roles. Elsewhere they do not, once the parameters of
        // the lifecycle scripts are gone, and what those said was recorded.
        if resources.exists() {
            let resources = text(&resources)?;
            if Roster::parse(&resources).is_ok_and(|it| it.names_roles()) {
                let role = own_role::from_resource_config(&resources, None, own_role::is_own);
                return role.map_err(unknown);
            }
        }
        let recorded = self.place(super::paths::ROLE);
        if recorded.exists() {
            let role = text(&recorded)?.trim().parse::<Role>();
            return role.map_err(|_| {
                let recorded = recorded.to_string_lossy();
                let recorded = printable(&recorded, 200);
                format!("this node's role is not known: {recorded} names none; {SAY}")
            });
        }
        Err(format!(
            "this node's role is not known: there is no {} with {}; {SAY}",
            printable(&resources.to_string_lossy(), 200),
            printable(&provisioning.to_string_lossy(), 200),
        ))
    }
}

/// Whether `path`, or the folder where it would be, lies on a file system that
/// nodes share. One that does not answer is asked by Slurm all the same.
fn lies_on_network(path: &Path) -> bool {
    let kinds = [Some(path), path.parent()].map(|it| it.and_then(file_system));
    kinds.into_iter().flatten().any(is_network)
}

/// The type number of the file system that `path` lies on, statfs(2).
fn file_system(path: &Path) -> Option<u32> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut about = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the path ends with a zero, and there is room for the answer.
    if unsafe { libc::statfs(path.as_ptr(), about.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: numbers only, zeroed above and filled by the kernel.
    let about = unsafe { about.assume_init() };
    // The kernel's numbers have 32 bits, whatever the type is here.
    Some(about.f_type as u32)
}

/// Whether file systems of this type are other nodes' too. FUSE's mostly are
/// (s3fs, glusterfs, mountpoint-s3), so they count; before-removal.sh has the
/// same list.
fn is_network(kind: u32) -> bool {
    const NETWORK: [u32; 9] = [
        0x6969,      // NFS
        0x0bd0_0bd0, // Lustre
        0x517b,      // SMB
        0xff53_4d42, // CIFS
        0xfe53_4d42, // SMB2
        0x4750_4653, // GPFS
        0x1983_0326, // BeeGFS
        0x00c3_6400, // CephFS
        0x6573_5546, // FUSE
    ];
    NETWORK.contains(&kind)
}

fn config_file(wanted: &Wanted) -> (PathBuf, MissingIs) {
    match &wanted.config {
        Some(path) => (path.clone(), MissingIs::Error),
        None => (
            under(wanted.root.as_deref(), DEFAULT_PATH),
            MissingIs::Default,
        ),
    }
}

fn under(root: Option<&Path>, path: &str) -> PathBuf {
    match root {
        Some(root) => root.join(path.trim_start_matches('/')),
        None => PathBuf::from(path),
    }
}

/// Where efa-check keeps what it expects.
#[must_use]
pub fn expectation(site: &Site) -> PathBuf {
    let path = site.key("health", "record");
    let path = path.as_ref().and_then(|it| it.as_str());
    // A path with the node's name is of a test cluster; efa-check knows it.
    match path {
        Some(path) if !path.contains('%') => PathBuf::from(path),
        _ => site.place("/var/lib/slurm-efa/efa-expected.json"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slurm::conf::SlurmConf;
    use slurm::conf::reader::InMemory;

    #[test]
    fn a_configless_nodes_copy_is_not_edited() {
        let site = |path: &str, text: &str| Site {
            wanted: Wanted::default(),
            slurm: Installation::known(
                PathBuf::from(path),
                SlurmConf::read(&InMemory::new(&[(path, text)]), Path::new(path)).unwrap(),
                None,
            ),
            shared: false,
            config: Err(String::new()),
            mistakes: Findings::default(),
        };
        let copy = site("/var/spool/slurmd/conf-cache/slurm.conf", "");
        for role in [Role::Compute, Role::Login, Role::Controller] {
            assert!(!copy.edits_slurm(role));
        }
        let configless = "SlurmctldParameters=enable_configless,idle_on_node_suspend\n";
        let left_over = site("/opt/slurm/etc/slurm.conf", configless);
        assert!(!left_over.edits_slurm(Role::Compute));
        assert!(left_over.edits_slurm(Role::Controller));
        assert!(site("/etc/slurm/slurm.conf", "").edits_slurm(Role::Login));
        let mut shared = site("/opt/slurm/etc/slurm.conf", "");
        shared.shared = true;
        assert!(!shared.edits_slurm(Role::Compute));
        assert!(!shared.edits_slurm(Role::Login));
        assert!(shared.edits_slurm(Role::Controller));
    }

    #[test]
    fn what_nodes_share_is_told_by_the_type_of_the_file_system() {
        let network = [
            libc::NFS_SUPER_MAGIC as u32,
            libc::SMB_SUPER_MAGIC as u32,
            libc::FUSE_SUPER_MAGIC as u32,
            0xff53_4d42,
            0x0bd0_0bd0,
        ];
        assert!(network.into_iter().all(is_network));
        let own = [
            libc::EXT4_SUPER_MAGIC as u32,
            libc::XFS_SUPER_MAGIC as u32,
            libc::TMPFS_MAGIC as u32,
            libc::OVERLAYFS_SUPER_MAGIC as u32,
            // 9p: virtual machines' and WSL's, of one machine.
            0x0102_1997,
        ];
        assert!(!own.into_iter().any(is_network));
        assert!(!lies_on_network(Path::new("/proc/self/status")));
        assert_eq!(file_system(Path::new("/nowhere/at/all")), None);
    }
}
