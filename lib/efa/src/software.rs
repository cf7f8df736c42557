//! The communication stack that is installed on this node, each version with
//! the evidence it was read from.
//!
//! Only what the dynamic loader would use counts: versions of libraries come
//! from where their `.so` links point, not from searching directories. That
//! also keeps a probe to a few dozen system calls, cheap enough for every job
//! step.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::Version;
use host::sysroot::shown;
use host::{ReadError, Sysroot, printable};

/// What the EFA installer leaves behind, below the sysroot.
pub const MANIFEST: &str = "opt/amazon/efa_installed_packages";

/// A real manifest has about 2 KB.
const LARGEST_MANIFEST: usize = 64 * 1024;

/// The most of a plugin file that is searched for its version, in bytes.
const LARGEST_PLUGIN: u64 = 16 * 1024 * 1024;

/// The installer puts libfabric's description in one of these.
const LIBFABRIC_PC: [&str; 2] = [
    "opt/amazon/efa/lib/pkgconfig/libfabric.pc",
    "opt/amazon/efa/lib64/pkgconfig/libfabric.pc",
];

/// Directories that hold the system's libibverbs.
const VERBS_DIRS: [&str; 3] = [
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
];

/// Directories that hold NCCL: distribution packages, CUDA, AWS's deep
/// learning images and the usual hand-built places.
const NCCL_DIRS: [&str; 7] = [
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/local/cuda/lib64",
    "usr/local/cuda/lib",
    "usr/local/lib",
    "opt/nccl/build/lib",
];

/// Directories of the plugin that the EFA installer brings (since 1.39), the
/// newest layout first. The installer puts them on the loader's path, so they
/// win over the others.
const INSTALLER_PLUGIN_DIRS: [&str; 4] = [
    "opt/amazon/ofi-nccl/lib",
    "opt/amazon/ofi-nccl/lib64",
    "opt/amazon/ofi-nccl/lib/x86_64-linux-gnu",
    "opt/amazon/ofi-nccl/lib/aarch64-linux-gnu",
];

/// Directories of plugins built by hand or by machine images.
const OTHER_PLUGIN_DIRS: [&str; 3] = [
    "opt/aws-ofi-nccl/lib",
    "opt/aws-ofi-nccl/lib64",
    "opt/aws-ofi-nccl/install/lib",
];

const PLUGIN_FILES: [&str; 2] = ["libnccl-net-ofi.so", "libnccl-net.so"];
const TUNER_FILES: [&str; 2] = ["libnccl-ofi-tuner.so", "libnccl-tuner-ofi.so"];

/// The plugin logs its name at start, so its file contains it: `Initializing
/// aws-ofi-nccl 1.13.2-aws` (`nccl_net_ofi_create_plugin`), and in 1.5.0 `Using
/// aws-ofi-nccl 1.5.0aws` (logs in public issues). This is what both have in
/// common; the version follows.
const PLUGIN_BANNER: &[u8] = b"ing aws-ofi-nccl ";

/// No version text is longer, in bytes or characters.
const LONGEST_VERSION: usize = 64;

/// A version, and how it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The version.
    pub version: Version,
    /// As it is written there, safe to print: `1.22.0amzn4.0`.
    pub raw: String,
    /// For a person: the path (and line) it was read from, and what disagrees.
    pub evidence: String,
}

impl Found {
    fn new(raw: &str, evidence: String) -> Option<Self> {
        let version = Version::parse(raw)?;
        Some(Self {
            version,
            raw: printable(raw, LONGEST_VERSION),
            evidence,
        })
    }
}

/// The communication stack of a node. `None` means that no evidence was found,
/// not that the component is absent.
#[derive(Debug, Default)]
pub struct Stack {
    /// EFA installer, from its manifest.
    pub efa_installer: Option<Found>,
    /// libfabric in `/opt/amazon/efa`: its `libfabric.pc`, else the manifest.
    pub libfabric: Option<Found>,
    /// aws-ofi-nccl: the manifest where it describes the plugin in use, else
    /// the version that the plugin's file contains.
    pub aws_ofi_nccl: Option<Found>,
    /// NCCL, from where `libnccl.so.2` points. An application may bring another.
    pub nccl: Option<Found>,
    /// rdma-core, from where `libibverbs.so.1` points, else the manifest.
    pub rdma_core: Option<Found>,
    /// The running kernel.
    pub kernel: Option<Found>,
    /// The loaded EFA driver; a driver of the kernel's own tree has no version.
    pub efa_driver: Option<Found>,
    /// See [`is_kernels_driver`].
    pub is_kernels_driver: bool,
    /// NCCL's network plugin.
    pub ofi_plugin_path: Option<PathBuf>,
    /// NCCL's tuner plugin beside it.
    pub ofi_tuner_path: Option<PathBuf>,
    /// Files that are there but could not be read. What they would have told
    /// is missing above.
    pub unreadable: Vec<ReadError>,
}

impl Stack {
    /// Reads the stack. Never fails: what cannot be read is `None`, and
    /// [`Stack::unreadable`] says why.
    #[must_use]
    pub fn probe(sysroot: &Sysroot) -> Self {
        let mut stack = Self::default();
        let manifest = stack
            .read(sysroot, MANIFEST, LARGEST_MANIFEST)
            .map(|text| parse_manifest(&text));
        let manifest = manifest.unwrap_or_default();
        let manifest_path = sysroot.path(MANIFEST);
        let packaged = |entry: Option<&Entry>| {
            entry.and_then(|e| Found::new(&e.version, at(&manifest_path, e.line)))
        };

        stack.efa_installer = packaged(manifest.installer.as_ref());
        stack.libfabric = prefer(stack.libfabric_pc(sysroot), packaged(manifest.libfabric()));
        let verbs = linked(sysroot, &VERBS_DIRS, "libibverbs.so.1", rdma_core_version);
        stack.rdma_core = prefer(verbs, packaged(manifest.rdma_core()));
        stack.nccl = linked(sysroot, &NCCL_DIRS, "libnccl.so.2", nccl_version);
        stack.kernel = stack.whole_file(sysroot, "proc/sys/kernel/osrelease");
        stack.efa_driver = stack.whole_file(sysroot, "sys/module/efa/version");
        stack.is_kernels_driver = is_kernels_driver(sysroot);

        let packaged_plugin = packaged(manifest.aws_ofi_nccl());
        stack.find_plugin(sysroot, packaged_plugin);
        stack
    }

    /// A file's text, or `None` with the reason kept unless it is missing.
    fn read(&mut self, sysroot: &Sysroot, rel: &str, max: usize) -> Option<String> {
        match sysroot.read_bounded(rel, max) {
            Ok(text) => Some(text),
            Err(reason) => {
                if !reason.is_missing() {
                    self.unreadable.push(reason);
                }
                None
            }
        }
    }

    /// A version that is all a file holds.
    fn whole_file(&mut self, sysroot: &Sysroot, rel: &str) -> Option<Found> {
        let text = self.read(sysroot, rel, 256)?;
        Found::new(&text, at(&sysroot.path(rel), 1))
    }

    fn libfabric_pc(&mut self, sysroot: &Sysroot) -> Option<Found> {
        LIBFABRIC_PC.iter().find_map(|rel| {
            let text = self.read(sysroot, rel, 16 * 1024)?;
            let (line, version) = text
                .lines()
                .zip(1..)
                .find_map(|(line, n)| Some((n, line.trim().strip_prefix("Version:")?.trim())))?;
            Found::new(version, at(&sysroot.path(rel), line))
        })
    }

    /// Finds the plugin's file, the tuner beside it, and the version of that
    /// very file. The manifest only speaks for the installer's own directories.
    fn find_plugin(&mut self, sysroot: &Sysroot, packaged: Option<Found>) {
        let installed = first_file(sysroot, &INSTALLER_PLUGIN_DIRS, &PLUGIN_FILES);
        let by_installer = installed.is_some();
        let plugin = installed.or_else(|| first_file(sysroot, &OTHER_PLUGIN_DIRS, &PLUGIN_FILES));
        let Some((dir, file)) = plugin else {
            self.aws_ofi_nccl = packaged;
            return;
        };
        self.ofi_plugin_path = Some(sysroot.path(&file));
        self.ofi_tuner_path =
            first_file(sysroot, &[dir], &TUNER_FILES).map(|(_, file)| sysroot.path(&file));
        self.aws_ofi_nccl = match packaged {
            Some(found) if by_installer => Some(found),
            _ => self.embedded_version(sysroot, &file),
        };
    }

    fn embedded_version(&mut self, sysroot: &Sysroot, rel: &str) -> Option<Found> {
        let path = sysroot.path(rel);
        let searched = sysroot.open(rel).and_then(|file| {
            find_banner(file.take(LARGEST_PLUGIN)).map_err(|source| ReadError::io(&path, source))
        });
        match searched {
            Ok(raw) => Found::new(&raw?, format!("text in {}", shown(&path))),
            Err(reason) => {
                self.unreadable.push(reason);
                None
            }
        }
    }
}

fn at(path: &Path, line: usize) -> String {
    format!("{}:{line}", shown(path))
}

/// The library on disk wins over the manifest: that is what a job loads.
/// Where the two disagree, the evidence says so.
fn prefer(on_disk: Option<Found>, packaged: Option<Found>) -> Option<Found> {
    match (on_disk, packaged) {
        (Some(mut disk), Some(package)) => {
            if disk.version != package.version {
                disk.evidence = format!(
                    "{} (but {} says {})",
                    disk.evidence, package.evidence, package.version
                );
            }
            Some(disk)
        }
        (disk, package) => disk.or(package),
    }
}

/// The version in the name that a library's link points to.
fn linked(
    sysroot: &Sysroot,
    dirs: &[&str],
    link: &str,
    version: fn(&str) -> Option<&str>,
) -> Option<Found> {
    dirs.iter().find_map(|dir| {
        let rel = format!("{dir}/{link}");
        let target = sysroot.link_target_name(&rel)?;
        Found::new(
            version(&target)?,
            format!(
                "{} -> {}",
                shown(&sysroot.path(&rel)),
                printable(&target, 80)
            ),
        )
    })
}

/// `libibverbs.so.1.<ABI>.<rdma-core version>`: 46.0 of `libibverbs.so.1.14.46.0`.
fn rdma_core_version(name: &str) -> Option<&str> {
    let (abi, version) = name.strip_prefix("libibverbs.so.1.")?.split_once('.')?;
    abi.bytes().all(|b| b.is_ascii_digit()).then_some(version)
}

/// `libnccl.so.<NCCL version>`.
fn nccl_version(name: &str) -> Option<&str> {
    let version = name.strip_prefix("libnccl.so.")?;
    version.contains('.').then_some(version)
}

/// Whether the loaded efa driver is the kernel's own: unlike AWS's, it states no
/// version.
#[must_use]
pub fn is_kernels_driver(sysroot: &Sysroot) -> bool {
    let module = sysroot.path("sys/module/efa");
    module.is_dir() && !module.join("version").exists()
}

/// NCCL's network plugin, wherever it was installed; only whether it is there,
/// for who does not need a version.
#[must_use]
pub fn plugin_file(sysroot: &Sysroot) -> Option<PathBuf> {
    first_file(sysroot, &INSTALLER_PLUGIN_DIRS, &PLUGIN_FILES)
        .or_else(|| first_file(sysroot, &OTHER_PLUGIN_DIRS, &PLUGIN_FILES))
        .map(|(_, file)| sysroot.path(&file))
}

/// The libfabric of the EFA installer, likewise.
#[must_use]
pub fn libfabric_file(sysroot: &Sysroot) -> Option<PathBuf> {
    const DIRS: [&str; 2] = ["opt/amazon/efa/lib", "opt/amazon/efa/lib64"];
    first_file(sysroot, &DIRS, &["libfabric.so.1"]).map(|(_, file)| sysroot.path(&file))
}

/// The first of `files` in the first of `dirs` that has one: directory and path.
fn first_file<'d>(
    sysroot: &Sysroot,
    dirs: &[&'d str],
    files: &[&str],
) -> Option<(&'d str, String)> {
    dirs.iter().find_map(|dir| {
        files.iter().find_map(|file| {
            let rel = format!("{dir}/{file}");
            let is_file = fs::metadata(sysroot.path(&rel)).is_ok_and(|meta| meta.is_file());
            is_file.then_some((*dir, rel))
        })
    })
}

/// The version text after [`PLUGIN_BANNER`] in `plugin`, in constant memory.
fn find_banner(mut plugin: impl Read) -> io::Result<Option<String>> {
    const CHUNK: usize = 64 * 1024;
    // What the end of one chunk may owe to the next.
    const OVERLAP: usize = PLUGIN_BANNER.len() + LONGEST_VERSION;
    let mut window = Vec::with_capacity(CHUNK + OVERLAP);
    loop {
        let read = plugin
            .by_ref()
            .take(CHUNK as u64)
            .read_to_end(&mut window)?;
        let last = read < CHUNK;
        if let Some(start) = position(&window, PLUGIN_BANNER) {
            let text = &window[start + PLUGIN_BANNER.len()..];
            if last || text.len() >= LONGEST_VERSION {
                return Ok(version_text(text));
            }
            // The version may go on in the next chunk: keep from the banner.
            window.drain(..start);
            continue;
        }
        if last {
            return Ok(None);
        }
        let keep = window.len().saturating_sub(OVERLAP);
        window.drain(..keep);
    }
}

fn position(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let (first, _) = needle.split_first()?;
    let mut from = 0;
    while let Some(offset) = haystack[from..].iter().position(|byte| byte == first) {
        let start = from + offset;
        if haystack[start..].starts_with(needle) {
            return Some(start);
        }
        from = start + 1;
    }
    None
}

fn version_text(text: &[u8]) -> Option<String> {
    let allowed = |b: &&u8| b.is_ascii_alphanumeric() || b".-+~_".contains(b);
    let version: Vec<u8> = text
        .iter()
        .take(LONGEST_VERSION)
        .take_while(allowed)
        .copied()
        .collect();
    String::from_utf8(version).ok().filter(|v| !v.is_empty())
}

/// One version in the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Package name; empty for the installer's own line.
    pub package: String,
    /// Version as written, without the packaging release of an rpm.
    pub version: String,
    /// Line in the manifest, from 1.
    pub line: usize,
}

/// What the EFA installer says it installed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The installer itself.
    pub installer: Option<Entry>,
    /// Its packages in the manifest's order; tokens of another form are left out.
    pub packages: Vec<Entry>,
}

impl Manifest {
    /// The first of `names` that is installed.
    fn package(&self, names: &[&str]) -> Option<&Entry> {
        names
            .iter()
            .find_map(|name| self.packages.iter().find(|entry| entry.package == *name))
    }

    fn libfabric(&self) -> Option<&Entry> {
        // deb, rpm, and both of installers before 1.8.
        self.package(&["libfabric1-aws", "libfabric-aws", "libfabric1", "libfabric"])
    }

    fn rdma_core(&self) -> Option<&Entry> {
        self.package(&["rdma-core", "libibverbs1", "libibverbs"])
    }

    fn aws_ofi_nccl(&self) -> Option<&Entry> {
        // The second is the build for NVIDIA's container images.
        self.package(&["libnccl-ofi", "libnccl-ofi-ngc-v3", "aws-ofi-nccl"])
    }
}

/// Parses `/opt/amazon/efa_installed_packages`. The installer writes three
/// comment lines, then every package on one line:
///
/// ```text
/// # EFA installer version: 1.22.0
/// # Debug packages installed: no
/// # Packages installed:
/// efa-config-1.13-1.el8.noarch libfabric-aws-1.17.0-1.el8.x86_64 …
/// ```
///
/// On Debian and Ubuntu a package is written `libfabric1-aws_2.4.0amzn3.0_amd64`.
/// Anything else is ignored.
#[must_use]
pub fn parse_manifest(text: &str) -> Manifest {
    let mut manifest = Manifest::default();
    for (line, number) in text.lines().zip(1..) {
        let Some(comment) = line.trim_start().strip_prefix('#') else {
            let packages = line
                .split_ascii_whitespace()
                .filter_map(|token| package(token, number));
            manifest.packages.extend(packages);
            continue;
        };
        if let Some(version) = comment.trim().strip_prefix("EFA installer version:") {
            let version = version.trim().to_owned();
            manifest.installer.get_or_insert(Entry {
                package: String::new(),
                version,
                line: number,
            });
        }
    }
    manifest
}

fn package(token: &str, line: usize) -> Option<Entry> {
    let (name, version) = rpm(token).or_else(|| deb(token))?;
    let starts_with_digit = version.starts_with(|c: char| c.is_ascii_digit());
    (starts_with_digit && !name.is_empty()).then(|| Entry {
        package: name.to_owned(),
        version: version.to_owned(),
        line,
    })
}

/// `name-version-release.arch`
fn rpm(token: &str) -> Option<(&str, &str)> {
    let token = [".x86_64", ".aarch64", ".noarch"]
        .iter()
        .find_map(|arch| token.strip_suffix(arch))?;
    let (name_version, _release) = token.rsplit_once('-')?;
    name_version.rsplit_once('-')
}

/// `name_version_arch`
fn deb(token: &str) -> Option<(&str, &str)> {
    let token = ["_amd64", "_arm64", "_all"]
        .iter()
        .find_map(|arch| token.strip_suffix(arch))?;
    token.split_once('_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    const DEB: &str = "# EFA installer version: 1.45.0\n# Debug packages installed: no\n# Packages installed:\n\
        efa-config_1.18_all efa-profile_1.7_all libfabric-aws-bin_2.4.0amzn3.0_amd64 \
        libfabric1-aws_2.4.0amzn3.0_amd64 libnccl-ofi_1.19.0-1_amd64 openmpi40-aws_4.1.7-1_amd64 \
        rdma-core_61.0-1_amd64 efa_2.17.3-1.amzn1_amd64\n";
    const RPM: &str = "# EFA installer version: 1.22.0\n# Debug packages installed: no\n# Packages installed:\n\
        efa-config-1.13-1.el8.noarch libfabric-aws-1.17.0-1.el8.x86_64 libfabric-aws-devel-1.17.0-1.el8.x86_64 \
        openmpi40-aws-4.1.5-1.x86_64 rdma-core-43.0-1.el8.x86_64 rdma-core-devel-43.0-1.el8.x86_64\n";

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }
        fn file(self, rel: &str, content: impl AsRef<[u8]>) -> Self {
            let path = self.0.path().join(rel);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
            self
        }
        fn link(self, rel: &str, target: &str) -> Self {
            let path = self.0.path().join(rel);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            symlink(target, path).unwrap();
            self
        }
        fn path(&self, rel: &str) -> PathBuf {
            self.0.path().join(rel)
        }
        fn probe(&self) -> Stack {
            Stack::probe(&Sysroot::new(self.0.path().into()))
        }
    }

    fn version(found: &Option<Found>) -> String {
        found
            .as_ref()
            .map_or_else(|| "-".into(), |f| f.version.to_string())
    }

    fn entry(package: &str, version: &str, line: usize) -> Entry {
        Entry {
            package: package.into(),
            version: version.into(),
            line,
        }
    }

    #[test]
    fn a_debian_manifest_names_installer_and_packages() {
        let manifest = parse_manifest(DEB);
        assert_eq!(manifest.installer, Some(entry("", "1.45.0", 1)));
        assert_eq!(
            manifest.libfabric(),
            Some(&entry("libfabric1-aws", "2.4.0amzn3.0", 4))
        );
        assert_eq!(
            manifest.aws_ofi_nccl(),
            Some(&entry("libnccl-ofi", "1.19.0-1", 4))
        );
        assert_eq!(manifest.rdma_core(), Some(&entry("rdma-core", "61.0-1", 4)));
        assert_eq!(manifest.packages.len(), 8);
    }

    #[test]
    fn an_rpm_manifest_names_installer_and_packages() {
        let manifest = parse_manifest(RPM);
        assert_eq!(manifest.installer, Some(entry("", "1.22.0", 1)));
        assert_eq!(
            manifest.libfabric(),
            Some(&entry("libfabric-aws", "1.17.0", 4))
        );
        assert_eq!(manifest.aws_ofi_nccl(), None);
        assert_eq!(manifest.rdma_core(), Some(&entry("rdma-core", "43.0", 4)));
        assert_eq!(manifest.packages.len(), 6);
    }

    #[test]
    fn packages_of_old_installers_and_prereleases_are_understood() {
        for (token, version) in [
            ("libfabric1_1.8.0amzn1.0_amd64", Version::new(1, 8, 0)),
            (
                "libfabric1-aws_1.16.0~amzn3.0_amd64",
                Version::new(1, 16, 0),
            ),
            ("libfabric1-aws_1.18.0amzn2.0_arm64", Version::new(1, 18, 0)),
            (
                "libfabric-aws-2.4.0amzn5.0-1.amzn2023.x86_64",
                Version::new(2, 4, 0),
            ),
        ] {
            let manifest = parse_manifest(token);
            let raw = &manifest.libfabric().unwrap().version;
            assert_eq!(Version::parse(raw), Some(version), "{token}");
        }
    }

    #[test]
    fn tokens_of_another_form_are_ignored() {
        let manifest = parse_manifest(
            "libfabric1-aws libfabric1-aws_x_amd64 _1_all -1-1.x86_64 .x86_64 _amd64 \u{1b}[2J",
        );
        assert_eq!(manifest, Manifest::default());
    }

    #[test]
    fn an_empty_node_has_no_stack_and_no_complaint() {
        let stack = Tree::new().probe();
        assert!(
            stack.efa_installer.is_none()
                && stack.kernel.is_none()
                && stack.ofi_plugin_path.is_none()
        );
        assert!(stack.unreadable.is_empty());
    }

    #[test]
    fn every_component_is_found_with_its_evidence() {
        let tree = Tree::new()
            .file(MANIFEST, DEB)
            .file(
                "opt/amazon/efa/lib/pkgconfig/libfabric.pc",
                "prefix=/opt/amazon/efa\n\nName: libfabric\nVersion: 2.4.0amzn3.0\n",
            )
            .link(
                "usr/lib/x86_64-linux-gnu/libibverbs.so.1",
                "libibverbs.so.1.14.61.0",
            )
            .link("usr/local/cuda/lib64/libnccl.so.2", "libnccl.so.2.27.7")
            .file("proc/sys/kernel/osrelease", "6.8.0-1021-aws\n")
            .file("sys/module/efa/version", "2.17.3g\n")
            .file("opt/amazon/ofi-nccl/lib/libnccl-net-ofi.so", "")
            .file("opt/amazon/ofi-nccl/lib/libnccl-ofi-tuner.so", "");
        let stack = tree.probe();
        for (found, expected) in [
            (&stack.efa_installer, "1.45.0"),
            (&stack.libfabric, "2.4.0"),
            (&stack.aws_ofi_nccl, "1.19.0"),
            (&stack.nccl, "2.27.7"),
            (&stack.rdma_core, "61.0.0"),
            (&stack.kernel, "6.8.0"),
            (&stack.efa_driver, "2.17.3"),
        ] {
            assert_eq!(version(found), expected);
        }
        let pc = tree.path("opt/amazon/efa/lib/pkgconfig/libfabric.pc");
        assert_eq!(
            stack.libfabric.unwrap().evidence,
            format!("{}:4", pc.display())
        );
        let verbs = tree.path("usr/lib/x86_64-linux-gnu/libibverbs.so.1");
        assert_eq!(
            stack.rdma_core.unwrap().evidence,
            format!("{} -> libibverbs.so.1.14.61.0", verbs.display())
        );
        assert_eq!(
            stack.ofi_plugin_path,
            Some(tree.path("opt/amazon/ofi-nccl/lib/libnccl-net-ofi.so"))
        );
        assert_eq!(
            stack.ofi_tuner_path,
            Some(tree.path("opt/amazon/ofi-nccl/lib/libnccl-ofi-tuner.so"))
        );
        assert!(stack.unreadable.is_empty());
    }

    #[test]
    fn the_library_on_disk_wins_over_the_manifest_and_the_evidence_says_both() {
        let tree = Tree::new().file(MANIFEST, DEB).file(
            "opt/amazon/efa/lib64/pkgconfig/libfabric.pc",
            "Version: 1.22.0amzn1.0\n",
        );
        let libfabric = tree.probe().libfabric.unwrap();
        assert_eq!(libfabric.version, Version::new(1, 22, 0));
        assert!(
            libfabric.evidence.contains("libfabric.pc:1 (but "),
            "{}",
            libfabric.evidence
        );
        assert!(
            libfabric
                .evidence
                .ends_with("efa_installed_packages:4 says 2.4.0)"),
            "{}",
            libfabric.evidence
        );
    }

    #[test]
    fn where_the_manifest_does_not_name_the_plugin_its_file_does() {
        let plugin = [
            b"\x7fELF\0".as_slice(),
            &[b'I'; 70_000],
            b"NET/OFI Initializing aws-ofi-nccl 1.7.3-aws\0rest",
        ]
        .concat();
        let tree = Tree::new()
            .file(MANIFEST, RPM)
            .file("opt/aws-ofi-nccl/lib/libnccl-net.so", plugin);
        let found = tree.probe().aws_ofi_nccl.unwrap();
        assert_eq!(
            (found.version, found.raw.as_str()),
            (Version::new(1, 7, 3), "1.7.3-aws")
        );
        assert!(
            found.evidence.starts_with("text in ") && found.evidence.ends_with("libnccl-net.so")
        );
    }

    #[test]
    fn the_banner_of_1_5_is_read_too() {
        let tree = Tree::new().file(
            "opt/aws-ofi-nccl/lib/libnccl-net.so",
            "NET/OFI Using aws-ofi-nccl 1.5.0aws\0",
        );
        assert_eq!(version(&tree.probe().aws_ofi_nccl), "1.5.0");
    }

    #[test]
    fn the_manifest_does_not_speak_for_a_plugin_built_elsewhere() {
        let tree = Tree::new().file(MANIFEST, DEB).file(
            "opt/aws-ofi-nccl/install/lib/libnccl-net.so",
            "Initializing aws-ofi-nccl 1.13.2-aws\0",
        );
        assert_eq!(version(&tree.probe().aws_ofi_nccl), "1.13.2");
    }

    #[test]
    fn a_plugin_built_from_a_commit_has_a_path_but_no_version() {
        let tree = Tree::new().file(
            "opt/aws-ofi-nccl/lib/libnccl-net.so",
            "Initializing aws-ofi-nccl git-6e504db\0",
        );
        let stack = tree.probe();
        assert!(
            stack.ofi_plugin_path.is_some()
                && stack.aws_ofi_nccl.is_none()
                && stack.unreadable.is_empty()
        );
    }

    #[test]
    fn the_banner_is_found_wherever_chunks_are_cut() {
        let banner = b"Initializing aws-ofi-nccl 1.13.2-aws\0";
        for before in (65_536 - 110)..(65_536 + 10) {
            let file = [vec![b'.'; before], banner.to_vec()].concat();
            assert_eq!(
                find_banner(&file[..]).unwrap().as_deref(),
                Some("1.13.2-aws"),
                "{before}"
            );
            let long = [file, vec![0; 70_000]].concat();
            assert_eq!(
                find_banner(&long[..]).unwrap().as_deref(),
                Some("1.13.2-aws"),
                "{before}"
            );
        }
        assert_eq!(
            find_banner(&b"Initializing aws-ofi-nccl "[..]).unwrap(),
            None
        );
    }

    #[test]
    fn garbage_in_every_place_yields_nothing_and_says_what_was_unreadable() {
        let huge = vec![b'x'; LARGEST_MANIFEST + 1];
        let tree = Tree::new()
            .file(MANIFEST, huge)
            .file("opt/amazon/efa/lib/pkgconfig/libfabric.pc/directory", "")
            .link("usr/lib64/libibverbs.so.1", "libibverbs.so.1.x.46.0")
            .link("usr/lib64/libnccl.so.2", "libnccl.so.2")
            .file("proc/sys/kernel/osrelease", "")
            .file("sys/module/efa/version", b"\xff");
        let stack = tree.probe();
        assert!(
            stack.efa_installer.is_none() && stack.libfabric.is_none() && stack.rdma_core.is_none()
        );
        assert!(stack.nccl.is_none() && stack.kernel.is_none() && stack.efa_driver.is_none());
        assert_eq!(stack.unreadable.len(), 3, "{:?}", stack.unreadable);
    }

    #[test]
    fn a_version_with_escape_sequences_is_shown_escaped() {
        let tree = Tree::new()
            .file("proc/sys/kernel/osrelease", "5.15.0\x1b[2J\nsecond line")
            .link("usr/lib64/libnccl.so.2", "libnccl.so.2.21.5\x1b[2J");
        let stack = tree.probe();
        let (kernel, nccl) = (stack.kernel.unwrap(), stack.nccl.unwrap());
        assert_eq!(
            (kernel.version, kernel.raw.as_str()),
            (Version::new(5, 15, 0), "5.15.0\\u{1b}[2J\\nsecond line")
        );
        assert!(!nccl.raw.contains('\x1b') && !nccl.evidence.contains('\x1b'));
    }

    proptest! {
        #[test]
        fn parsing_a_manifest_never_panics(text in any::<String>()) {
            let _ = parse_manifest(&text);
        }

        #[test]
        fn any_package_is_read_back_from_both_forms(name in "[a-z][a-z0-9]{0,8}(-[a-z][a-z0-9]{0,4})?", v in "[0-9]{1,3}(\\.[0-9a-z~]{1,3}){1,2}") {
            for token in [format!("{name}_{v}_amd64"), format!("{name}-{v}-1.amzn2023.x86_64")] {
                prop_assert_eq!(parse_manifest(&token).packages, vec![entry(&name, &v, 1)]);
            }
        }
    }
}
