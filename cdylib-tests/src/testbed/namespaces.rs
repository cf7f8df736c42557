//! The private world of one testbed: namespaces, cgroups and their end.
//!
//! One cloned child is the init (PID 1) of new mount, PID, network, UTS, IPC
//! and cgroup namespaces. It does nothing but wait for the end of a pipe whose
//! only writer is the test process. When that process ends, for whatever
//! reason, SIGKILL included, the pipe ends, init ends, and the kernel ends
//! every process and mount of the testbed. A *keeper*, a small shell outside
//! the namespaces, waits on the same pipe and then removes what the kernel
//! does not remove by itself: the cgroup directories and the directory tree.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::error::{Context, Error};
use crate::modules;

/// First part of the name of every cgroup directory that a testbed makes.
const CGROUP_PREFIX: &str = "slurm-efa-tb";
/// The host name inside a testbed.
pub(crate) const HOSTNAME: &str = "testbed";
/// The address of that host, on its loopback interface: glibc's getaddrinfo,
/// as Slurm calls it (`AI_ADDRCONFIG`), finds no IPv4 on a host that has only
/// 127.0.0.1. From the block that RFC 5737 reserves for examples.
pub(crate) const ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(192, 0, 2, 1);

/// A cgroup v1 hierarchy of the machine and the directory in it that is ours.
#[derive(Debug, Clone)]
pub(crate) struct Hierarchy {
    /// Mount options that name the hierarchy, e.g. `freezer` or `none,name=systemd`.
    options: String,
    /// Last component of the mount point, e.g. `freezer`.
    name: String,
    /// The testbed's own directory, as seen from outside.
    dir: PathBuf,
}

/// What the private world shall look like.
pub(crate) struct Plan<'a> {
    /// The testbed's directory; same path inside and outside.
    pub dir: &'a Path,
    /// Another Debian root to live in, or `None` for the machine's own.
    pub root: Option<&'a Path>,
    /// Paths of the machine to see, read-only, inside another root.
    pub binds: &'a [PathBuf],
    /// Files of `/etc` that are replaced by `dir/etc/NAME`.
    pub etc: &'a [&'a str],
    /// Keep `dir` when the testbed ends.
    pub keep: bool,
}

/// A running private world; its end is [`Drop`].
#[derive(Debug)]
pub(crate) struct Namespaces {
    init: libc::pid_t,
    lifeline: Lifeline,
    hierarchies: Vec<Hierarchy>,
}

impl Namespaces {
    /// Starts the init of a new private world and waits until it is furnished.
    pub(crate) fn start(plan: &Plan<'_>) -> Result<Namespaces, Error> {
        let hierarchies = own_hierarchies();
        let cgroup_dirs: Vec<PathBuf> = hierarchies.iter().map(|h| h.dir.clone()).collect();
        let (lifeline, read_end) = Lifeline::start(plan.dir, plan.keep, KEEPER, &cgroup_dirs)?;
        for hierarchy in &hierarchies {
            sweep(hierarchy);
            make_cgroup(&hierarchy.dir)
                .context(|| format!("make the cgroup {}", hierarchy.dir.display()))?;
        }
        let steps = furnish(plan, &hierarchies)?;
        let init = spawn_init(&steps, read_end.as_raw_fd())?;
        Ok(Namespaces {
            init,
            lifeline,
            hierarchies,
        })
    }

    /// Kills every process inside, without waiting for their end.
    pub(crate) fn kill(&self) {
        // SAFETY: takes plain integers; `init` is our own child and has not been
        // waited for, so the pid cannot belong to another process.
        unsafe { libc::kill(self.init, libc::SIGKILL) };
    }

    /// The pid of the private world's init, as seen from outside.
    pub(crate) fn init(&self) -> libc::pid_t {
        self.init
    }

    /// Is the cgroup v1 controller `name` there to be used inside?
    pub(crate) fn has_cgroup(&self, name: &str) -> bool {
        self.hierarchies.iter().any(|h| h.name == name)
    }

    /// The testbed's own cgroup directories, as seen from outside.
    pub(crate) fn cgroup_dirs(&self) -> impl Iterator<Item = &Path> {
        self.hierarchies.iter().map(|h| h.dir.as_path())
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        self.kill();
        let mut status = 0;
        // SAFETY: `status` is a valid, writable int for the whole call.
        while unsafe { libc::waitpid(self.init, &raw mut status, 0) } == -1
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
        self.lifeline.cut();
    }
}

/// The pipe whose end is the end of a testbed, and the keeper that waits for it.
#[derive(Debug)]
pub(crate) struct Lifeline {
    write_end: Option<OwnedFd>,
    keeper: Child,
}

impl Lifeline {
    /// Starts a keeper that runs `script` with `keep|remove`, `dir` and `args`;
    /// the script's standard input ends when this process ends or [`cut`]s.
    ///
    /// [`cut`]: Lifeline::cut
    pub(crate) fn start(
        dir: &Path,
        keep: bool,
        script: &str,
        args: &[PathBuf],
    ) -> Result<(Lifeline, OwnedFd), Error> {
        let (read_end, write_end) = pipe().context(|| "make a pipe".to_owned())?;
        let stdin = read_end
            .try_clone()
            .context(|| "duplicate a pipe".to_owned())?;
        let keeper = Command::new("/bin/sh")
            .args(["-c", script, "keeper"])
            .arg(if keep { "keep" } else { "remove" })
            .arg(dir)
            .args(args)
            .current_dir("/")
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // An interrupt from the terminal must reach the tests, not the keeper.
            .process_group(0)
            .spawn()
            .context(|| "start /bin/sh".to_owned())?;
        Ok((
            Lifeline {
                write_end: Some(write_end),
                keeper,
            },
            read_end,
        ))
    }

    /// Ends the pipe and waits until the keeper has cleaned up.
    pub(crate) fn cut(&mut self) {
        drop(self.write_end.take());
        // The keeper's loops are bounded. An error here means that there is no
        // keeper to wait for, and a destructor has nobody to tell.
        let _ = self.keeper.wait();
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        self.cut();
    }
}

/// Waits for the end of its input, then for the cgroups to be empty; at most 10 s.
const KEEPER: &str = r#"
mode=$1; dir=$2; shift 2
while read -r _; do :; done
tries=0
while [ $tries -lt 500 ]; do
    left=0
    for group; do
        [ -d "$group" ] || continue
        find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null
        [ -d "$group" ] && left=1
    done
    [ $left = 0 ] && break
    tries=$((tries + 1))
    sleep 0.02
done
[ "$mode" = keep ] || rm -rf --one-file-system -- "$dir"
"#;

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds: [RawFd; 2] = [-1; 2];
    // SAFETY: pipe2 writes exactly two descriptors into the array of two.
    if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: pipe2 succeeded, so the descriptor is open and nobody else's.
    let read_end = unsafe { OwnedFd::from_raw_fd(fds[0]) };
    // SAFETY: as above.
    let write_end = unsafe { OwnedFd::from_raw_fd(fds[1]) };
    Ok((read_end, write_end))
}

// ---------------------------------------------------------------- cgroups

/// Every cgroup v1 hierarchy mounted in `/sys/fs/cgroup`, each with a name for
/// a directory of our own *below the cgroup this process is in*, so that the
/// limits set on this process hold for the testbed too.
fn own_hierarchies() -> Vec<Hierarchy> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!(
        "{CGROUP_PREFIX}.{}.{}",
        owner_tag(std::process::id()).unwrap_or_default(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    );
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    mountinfo
        .lines()
        .filter_map(|line| parse_hierarchy(line, &membership, &name))
        .collect()
}

fn parse_hierarchy(line: &str, membership: &str, own: &str) -> Option<Hierarchy> {
    let (mount, fs) = line.split_once(" - ")?;
    let mount_point = Path::new(mount.split(' ').nth(4)?);
    let mut fs = fs.split(' ');
    if fs.next()? != "cgroup" || !mount_point.starts_with("/sys/fs/cgroup") {
        return None;
    }
    let super_options: Vec<&str> = fs.nth(1)?.split(',').collect();
    // /proc/self/cgroup names the hierarchy by its controllers: "4:memory:/path".
    let (controllers, path) = membership.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next().filter(|c| !c.is_empty())?;
        let path = fields.next()?;
        controllers
            .split(',')
            .all(|c| super_options.contains(&c))
            .then_some((controllers, path))
    })?;
    let current = mount_point.join(path.trim_start_matches('/'));
    let parent = if current.is_dir() {
        current
    } else {
        mount_point.to_owned()
    };
    let options = if controllers.starts_with("name=") {
        format!("none,{controllers}")
    } else {
        controllers.to_owned()
    };
    Some(Hierarchy {
        options,
        name: mount_point.file_name()?.to_str()?.to_owned(),
        dir: parent.join(own),
    })
}

/// `<pid namespace>.<pid>.<start time>`: names one process for ever.
fn owner_tag(pid: u32) -> Option<String> {
    let namespace = fs::read_link("/proc/self/ns/pid").ok()?;
    let digits: String = namespace
        .to_string_lossy()
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc(5): the start time is field 22; the name, field 2, may hold anything.
    let start = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?;
    Some(format!("{digits}.{pid}.{start}"))
}

/// Removes what a testbed left that was killed together with its keeper.
fn sweep(hierarchy: &Hierarchy) {
    let Some(parent) = hierarchy.dir.parent() else {
        return;
    };
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(tag) = name
            .to_str()
            .and_then(|name| name.strip_prefix(CGROUP_PREFIX)?.strip_prefix('.'))
        else {
            continue;
        };
        let mut parts = tag.split('.');
        let namespace = parts.next().unwrap_or_default();
        let pid = parts.next().and_then(|pid| pid.parse().ok());
        let here = owner_tag(std::process::id())
            .is_some_and(|own| own.split('.').next() == Some(namespace));
        let alive = pid
            .and_then(owner_tag)
            .is_some_and(|owner| tag.starts_with(&format!("{owner}.")));
        if here && !alive {
            remove_cgroup(&entry.path());
        }
    }
}

/// Removes a cgroup and those below it, as far as they are empty of processes.
fn remove_cgroup(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    // Fails while a process is inside: then it is somebody's and stays.
    let _ = fs::remove_dir(dir);
}

fn make_cgroup(dir: &Path) -> io::Result<()> {
    fs::create_dir(dir)?;
    // A v1 cpuset admits no process until it has CPUs and memory nodes.
    let parent = dir.parent().unwrap_or(dir);
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if dir.join(file).exists() {
            fs::write(dir.join(file), fs::read(parent.join(file))?)?;
        }
    }
    Ok(())
}

// ------------------------------------------------------- furnishing the space

/// One system call of the set-up, prepared before the clone, because the clone
/// of a process with threads may neither allocate nor take a lock.
enum Step {
    Mount {
        source: CString,
        target: CString,
        kind: CString,
        flags: libc::c_ulong,
        data: CString,
    },
    Mkdir(CString),
    Touch(CString),
    /// Moves init into a cgroup, by way of its `cgroup.procs`.
    Enter(CString),
    NewCgroupNamespace,
    LoopbackUp,
    Hostname(CString),
    Chroot(CString),
}

impl Step {
    fn mount(source: &Path, target: &Path, kind: &str, flags: libc::c_ulong, data: &str) -> Step {
        Step::Mount {
            source: c_path(source),
            target: c_path(target),
            kind: c_string(kind.as_bytes()),
            flags,
            data: c_string(data.as_bytes()),
        }
    }

    fn bind(source: &Path, target: &Path, recursive: bool) -> Step {
        let depth = if recursive { libc::MS_REC } else { 0 };
        Step::mount(source, target, "none", libc::MS_BIND | depth, "")
    }

    fn describe(&self) -> String {
        let text = |c: &CString| c.to_string_lossy().into_owned();
        match self {
            Step::Mount {
                source,
                target,
                kind,
                ..
            } => format!(
                "mount {} on {} (type {})",
                text(source),
                text(target),
                text(kind)
            ),
            Step::Mkdir(path) => format!("make the directory {}", text(path)),
            Step::Touch(path) => format!("make the file {}", text(path)),
            Step::Enter(path) => format!("enter a cgroup through {}", text(path)),
            Step::NewCgroupNamespace => "make a cgroup namespace".to_owned(),
            Step::LoopbackUp => "bring up the loopback interface and give it an address".to_owned(),
            Step::Hostname(name) => format!("set the host name {}", text(name)),
            Step::Chroot(path) => format!("change the root to {}", text(path)),
        }
    }

    /// Performs the step. Async-signal-safe: system calls only.
    fn run(&self) -> Result<(), i32> {
        match self {
            Step::Mount {
                source,
                target,
                kind,
                flags,
                data,
            } => {
                // SAFETY: four valid C strings that outlive the call.
                check(unsafe {
                    libc::mount(
                        source.as_ptr(),
                        target.as_ptr(),
                        kind.as_ptr(),
                        *flags,
                        data.as_ptr().cast(),
                    )
                })
            }
            Step::Mkdir(path) => {
                // SAFETY: a valid C string that outlives the call.
                match check(unsafe { libc::mkdir(path.as_ptr(), 0o755) }) {
                    Err(libc::EEXIST) => Ok(()),
                    other => other,
                }
            }
            Step::Touch(path) => {
                let flags = libc::O_CREAT | libc::O_RDONLY | libc::O_CLOEXEC;
                // SAFETY: a valid C string that outlives the call; the mode is
                // an unsigned int, as open's third argument has to be.
                let fd = unsafe { libc::open(path.as_ptr(), flags, 0o644 as libc::c_uint) };
                check(fd)?;
                // SAFETY: the descriptor was opened above and is closed once.
                check(unsafe { libc::close(fd) })
            }
            Step::Enter(path) => {
                // SAFETY: a valid C string that outlives the call.
                let fd = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
                check(fd)?;
                // "0" is the writer itself: cgroups(7).
                // SAFETY: one byte is read from a static string of one byte.
                let written = unsafe { libc::write(fd, c"0".as_ptr().cast(), 1) };
                let outcome = if written == 1 { Ok(()) } else { Err(errno()) };
                // SAFETY: the descriptor was opened above and is closed once.
                unsafe { libc::close(fd) };
                outcome
            }
            Step::NewCgroupNamespace => {
                // SAFETY: takes one flag; affects this process only.
                check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) })
            }
            Step::LoopbackUp => loopback_up(),
            Step::Hostname(name) => {
                let bytes = name.as_bytes();
                // SAFETY: the pointer and the length describe one byte slice.
                check(unsafe { libc::sethostname(bytes.as_ptr().cast(), bytes.len()) })
            }
            Step::Chroot(path) => {
                // SAFETY: a valid C string that outlives the call.
                check(unsafe { libc::chroot(path.as_ptr()) })?;
                // SAFETY: a static C string.
                check(unsafe { libc::chdir(c"/".as_ptr()) })
            }
        }
    }
}

fn loopback_up() -> Result<(), i32> {
    // SAFETY: takes three integers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    check(socket)?;
    let outcome = loopback_request(socket, c"lo", libc::SIOCSIFFLAGS, |request| {
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    })
    .and_then(|()| {
        // An alias keeps 127.0.0.1, which the kernel gives to lo by itself.
        loopback_request(socket, c"lo:1", libc::SIOCSIFADDR, |request| {
            let [a, b, c, d] = ADDRESS.octets().map(u8::cast_signed);
            request.ifr_ifru.ifru_addr = libc::sockaddr {
                sa_family: libc::AF_INET as libc::sa_family_t,
                // Of a sockaddr_in: port, address, padding.
                sa_data: [0, 0, a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0],
            };
        })
    });
    // SAFETY: the socket was opened above and is closed once.
    unsafe { libc::close(socket) };
    outcome
}

fn loopback_request(
    socket: libc::c_int,
    name: &std::ffi::CStr,
    code: libc::Ioctl,
    fill: impl FnOnce(&mut libc::ifreq),
) -> Result<(), i32> {
    // SAFETY: ifreq is plain old data, for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.to_bytes()) {
        *to = *from as libc::c_char;
    }
    fill(&mut request);
    // SAFETY: both requests read one ifreq, which lives on: netdevice(7).
    check(unsafe { libc::ioctl(socket, code, &raw const request) })
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Turns C's −1 into the error number.
fn check(result: libc::c_int) -> Result<(), i32> {
    if result == -1 { Err(errno()) } else { Ok(()) }
}

/// A path with a NUL byte cannot exist; cut there, the system call says so.
fn c_path(path: &Path) -> CString {
    c_string(path.as_os_str().as_bytes())
}

fn c_string(bytes: &[u8]) -> CString {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    CString::new(&bytes[..end]).unwrap_or_default()
}

/// The whole set-up, in order.
fn furnish(plan: &Plan<'_>, hierarchies: &[Hierarchy]) -> Result<Vec<Step>, Error> {
    const TIGHT: libc::c_ulong = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let mut steps: Vec<Step> = mounts_to_make_private(plan.dir)?
        .iter()
        .map(|mount_point| {
            let flags = libc::MS_REC | libc::MS_PRIVATE;
            Step::mount(Path::new("none"), mount_point, "none", flags, "")
        })
        .collect();
    steps.push(Step::LoopbackUp);
    steps.push(Step::Hostname(c_string(HOSTNAME.as_bytes())));
    for hierarchy in hierarchies {
        steps.push(Step::Enter(c_path(&hierarchy.dir.join("cgroup.procs"))));
    }
    steps.push(Step::NewCgroupNamespace);

    let new_root = match plan.root {
        Some(root) => foreign_root(plan, root, &mut steps)?,
        None => {
            show(&modules::target(), plan.dir, &mut steps)?;
            PathBuf::from("/")
        }
    };
    let within = |path: &str| new_root.join(path.trim_start_matches('/'));

    for name in plan.etc {
        let target = within("etc").join(name);
        // Where the file is missing it has to be made as a mount point; on the
        // machine's own root that would leave it behind, so only elsewhere.
        if plan.root.is_some() {
            steps.push(Step::Touch(c_path(&target)));
        } else if !target.exists() {
            continue;
        }
        steps.push(Step::bind(&plan.dir.join("etc").join(name), &target, false));
    }
    steps.push(Step::mount(
        Path::new("proc"),
        &within("proc"),
        "proc",
        TIGHT,
        "",
    ));
    // State and logs of whatever runs inside belong to this testbed alone.
    for (path, mode) in [("run", "mode=755"), ("var/log", "mode=755")] {
        steps.push(Step::mount(
            Path::new("tmpfs"),
            &within(path),
            "tmpfs",
            libc::MS_NOSUID | libc::MS_NODEV,
            mode,
        ));
    }
    if !hierarchies.is_empty() {
        let cgroups = within("sys/fs/cgroup");
        steps.push(Step::mount(
            Path::new("tmpfs"),
            &cgroups,
            "tmpfs",
            TIGHT,
            "mode=755",
        ));
        for hierarchy in hierarchies {
            let target = cgroups.join(&hierarchy.name);
            steps.push(Step::Mkdir(c_path(&target)));
            steps.push(Step::mount(
                Path::new("cgroup"),
                &target,
                "cgroup",
                TIGHT,
                &hierarchy.options,
            ));
        }
    }
    if plan.root.is_some() {
        steps.push(Step::Chroot(c_path(&new_root)));
    }
    Ok(steps)
}

/// Lets the testbed's users reach `path`, what was built, although a directory
/// above it (`/root`, somebody's home) lets only its owner in: in their view
/// that directory holds nothing else.
fn show(path: &Path, dir: &Path, steps: &mut Vec<Step>) -> Result<(), Error> {
    let closed = |ancestor: &Path| {
        fs::metadata(ancestor).is_ok_and(|about| about.permissions().mode() & 0o001 == 0)
    };
    let mut ancestors: Vec<&Path> = path.ancestors().collect();
    ancestors.reverse();
    let Some(first) = ancestors.iter().position(|ancestor| closed(ancestor)) else {
        return Ok(());
    };
    let (aside, flags) = (dir.join("built"), libc::MS_NOSUID | libc::MS_NODEV);
    fs::create_dir(&aside).context(|| format!("make the directory {}", aside.display()))?;
    steps.push(Step::bind(path, &aside, false));
    let tmpfs = Path::new("tmpfs");
    steps.push(Step::mount(
        tmpfs,
        ancestors[first],
        "tmpfs",
        flags,
        "mode=755",
    ));
    let below = &ancestors[first + 1..];
    steps.extend(below.iter().map(|dir| Step::Mkdir(c_path(dir))));
    steps.push(Step::bind(&aside, path, false));
    Ok(())
}

/// What to take out of all sharing, so that no mount of a testbed is seen
/// outside: `/` with all below it or, in a chroot whose root is no mount point,
/// each mount below it.
fn mounts_to_make_private(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mount_points = mount_points()?;
    if mount_points.iter().any(|point| point == Path::new("/")) {
        return Ok(vec![PathBuf::from("/")]);
    }
    if is_shared(dir)? {
        return Err(Error::Isolation {
            step: "keep mounts to itself: this root is a directory of another system (a chroot), whose \
                   mounts are shared. From outside, run `mount --bind DIR DIR` and \
                   `mount --make-private DIR` for that directory, and enter it again"
                .to_owned(),
            source: io::Error::from_raw_os_error(libc::EINVAL),
        });
    }
    Ok(mount_points)
}

/// The mount points below our root: proc_pid_mountinfo(5). One with a space or
/// another escaped character stays escaped.
fn mount_points() -> Result<Vec<PathBuf>, Error> {
    let file = "/proc/self/mountinfo";
    let text = fs::read_to_string(file).context(|| format!("read {file} (is /proc mounted?)"))?;
    let point = |line: &str| line.split(' ').nth(4).map(PathBuf::from);
    Ok(text.lines().filter_map(point).collect())
}

/// Whether a mount that another mount namespace makes in `dir` is seen here.
/// Nothing in a chroot tells the propagation of the mount around it, so this
/// is tried: unmounting is propagated as mounting is, and leaves no trace.
fn is_shared(dir: &Path) -> Result<bool, Error> {
    let script = r#"mount -t tmpfs probe "$0" && echo mounted && read _; umount "$0""#;
    let because = || format!("try a mount on {}", dir.display());
    let mut probe = Command::new("unshare")
        .args(["--mount", "--propagation", "unchanged", "sh", "-c", script])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context(because)?;
    let mut said = [0; 8];
    let mounted = probe.stdout.as_mut().map(|out| out.read_exact(&mut said));
    let seen = mount_points().map(|points| points.iter().any(|point| point == dir));
    // The end of its input lets the probe unmount and go.
    drop(probe.stdin.take());
    probe.wait().context(because)?;
    mounted.transpose().context(because)?;
    seen
}

/// Lays a throw-away layer over another root, so that it is never written to,
/// and shows the machine's devices, our directory and the wanted paths in it.
fn foreign_root(plan: &Plan<'_>, root: &Path, steps: &mut Vec<Step>) -> Result<PathBuf, Error> {
    let (layer, new_root) = (plan.dir.join("layer"), plan.dir.join("root"));
    for dir in [&layer, &new_root] {
        fs::create_dir(dir).context(|| format!("make the directory {}", dir.display()))?;
    }
    // A tmpfs, because the upper layer may not itself be on an overlay.
    steps.push(Step::mount(Path::new("tmpfs"), &layer, "tmpfs", 0, ""));
    for name in ["upper", "work"] {
        steps.push(Step::Mkdir(c_path(&layer.join(name))));
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        root.display(),
        layer.join("upper").display(),
        layer.join("work").display()
    );
    steps.push(Step::mount(
        Path::new("overlay"),
        &new_root,
        "overlay",
        0,
        &options,
    ));
    steps.push(Step::bind(Path::new("/dev"), &new_root.join("dev"), true));
    steps.push(Step::bind(Path::new("/sys"), &new_root.join("sys"), false));
    let own = [plan.dir.to_owned()];
    for (path, writable) in own
        .iter()
        .map(|p| (p, true))
        .chain(plan.binds.iter().map(|p| (p, false)))
    {
        let target = new_root.join(path.strip_prefix("/").unwrap_or(path));
        let is_dir = path.is_dir();
        let mut ancestors: Vec<&Path> = target
            .ancestors()
            .skip(usize::from(!is_dir))
            .take_while(|ancestor| *ancestor != new_root)
            .collect();
        ancestors.reverse();
        steps.extend(ancestors.into_iter().map(|dir| Step::Mkdir(c_path(dir))));
        if !is_dir {
            steps.push(Step::Touch(c_path(&target)));
        }
        steps.push(Step::bind(path, &target, false));
        if !writable {
            steps.push(Step::mount(
                Path::new("none"),
                &target,
                "none",
                libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY,
                "",
            ));
        }
    }
    Ok(new_root)
}

// --------------------------------------------------------------------- init

/// Sent by init when the whole set-up is done; otherwise it sends the index of
/// the failed step.
const READY: u32 = u32::MAX;

/// Clones the init of new namespaces and waits for its report.
fn spawn_init(steps: &[Step], lifeline: RawFd) -> Result<libc::pid_t, Error> {
    let (report, reporter) = pipe().context(|| "make a pipe".to_owned())?;
    let flags = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::SIGCHLD;
    // SAFETY: clone without CLONE_VM and with a null stack behaves like fork:
    // clone(2). The child goes straight to `init_main`, which makes system
    // calls only, as the clone of a process with threads must, and never returns.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if pid == 0 {
        init_main(steps, lifeline, reporter.as_raw_fd());
    }
    if pid == -1 {
        return Err(Error::Isolation {
            step: "make new namespaces".to_owned(),
            source: io::Error::last_os_error(),
        });
    }
    drop(reporter);
    let mut message = [0; 8];
    let outcome = fs::File::from(report).read_exact(&mut message);
    let [a, b, c, d, e, f, g, h] = message;
    let step = u32::from_ne_bytes([a, b, c, d]);
    let error = i32::from_ne_bytes([e, f, g, h]);
    if outcome.is_ok() && step == READY {
        return Ok(pid as libc::pid_t);
    }
    let mut status = 0;
    // SAFETY: `status` is a valid int; `pid` is our own, unwaited child, which
    // is about to exit, having reported.
    unsafe { libc::waitpid(pid as libc::pid_t, &raw mut status, 0) };
    Err(Error::Isolation {
        step: steps
            .get(step as usize)
            .map_or_else(|| "hear from init".to_owned(), Step::describe),
        source: match outcome {
            Ok(()) => io::Error::from_raw_os_error(error),
            Err(error) => error,
        },
    })
}

/// The life of PID 1. Async-signal-safe: system calls only.
fn init_main(steps: &[Step], lifeline: RawFd, reporter: RawFd) -> ! {
    // SAFETY: plain integers and static strings; every failure is harmless
    // (a lesser name, a session that already exists).
    unsafe { libc::setsid() };
    // SAFETY: as above.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"testbed-init".as_ptr()) };
    // Ignoring SIGCHLD lets the kernel reap orphans: signal(7).
    // SAFETY: SIG_IGN installs no function.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    // SAFETY: plain integer.
    unsafe { libc::umask(0o022) };
    // SAFETY: dup2 takes plain integers. Nothing in this process uses the
    // replaced descriptor again, and it is single-threaded.
    let stdin = unsafe { libc::dup2(lifeline, 0) };
    // SAFETY: as above.
    let report = unsafe { libc::dup2(reporter, 1) };
    // Descriptors of other testbeds' lifelines must not stay open here.
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_close_range, 2, libc::c_uint::MAX, 0) };

    let mut message = (READY, 0);
    if stdin == -1 || report == -1 {
        exit_now(1);
    }
    for (index, step) in steps.iter().enumerate() {
        if let Err(error) = step.run() {
            message = (index as u32, error);
            break;
        }
    }
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&message.0.to_ne_bytes());
    bytes[4..].copy_from_slice(&message.1.to_ne_bytes());
    // SAFETY: eight bytes of a local array; a pipe takes them at once.
    unsafe { libc::write(1, bytes.as_ptr().cast(), bytes.len()) };
    // SAFETY: plain integer.
    unsafe { libc::close(1) };
    if message.0 != READY {
        exit_now(1);
    }
    loop {
        let mut byte = 0_u8;
        // SAFETY: one byte is read into a local of one byte.
        let n = unsafe { libc::read(0, (&raw mut byte).cast(), 1) };
        if n == 0 || (n == -1 && errno() != libc::EINTR) {
            exit_now(0);
        }
    }
}

fn exit_now(code: i32) -> ! {
    // SAFETY: _exit runs no destructors and no atexit handlers, which belong to
    // the process this one was cloned from.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBERSHIP: &str = "9:name=systemd:/\n4:memory:/a/b\n1:cpu,cpuacct:/\n0::/\n";

    #[test]
    fn a_cgroup_v1_mount_is_matched_to_our_membership_by_its_controllers() {
        let line =
            "33 26 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct";
        let hierarchy = parse_hierarchy(line, MEMBERSHIP, "own").unwrap();
        assert_eq!(hierarchy.options, "cpu,cpuacct");
        assert_eq!(hierarchy.name, "cpu,cpuacct");
        assert!(hierarchy.dir.ends_with("own"));
    }

    #[test]
    fn a_named_hierarchy_is_mounted_without_controllers() {
        let line =
            "39 26 0:35 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd";
        let hierarchy = parse_hierarchy(line, MEMBERSHIP, "own").unwrap();
        assert_eq!(hierarchy.options, "none,name=systemd");
    }

    #[test]
    fn other_filesystems_and_cgroup_v2_are_no_v1_hierarchy() {
        for line in [
            "40 26 0:36 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
            "41 26 0:37 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755",
            "garbage",
            "",
        ] {
            assert!(parse_hierarchy(line, MEMBERSHIP, "own").is_none(), "{line}");
        }
    }

    #[test]
    fn a_process_is_named_by_its_start_too() {
        let tag = owner_tag(std::process::id()).unwrap();
        assert_eq!(tag.split('.').count(), 3, "{tag}");
        assert!(owner_tag(u32::MAX).is_none());
    }
}
