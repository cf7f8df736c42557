//! The packages that `make dist` left, installed, upgraded and removed by dpkg
//! and rpm themselves, each in a throw-away copy of a Debian. Needs root, the
//! roots of `cargo xtask roots`, lintian, rpm and rpmlint: `make matrix` sees to
//! that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;

use tempfile::TempDir;

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");
const VERSION: &str = env!("CARGO_PKG_VERSION");
const NEWER: &str = "99.0.0";

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the workspace")
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().join("target"), |dir| workspace().join(dir))
}

fn dist() -> PathBuf {
    target().join("dist")
}

fn packages(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .expect("run `make dist` first")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.to_string_lossy().ends_with(end))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no *{end} in {}", folder.display());
    found
}

fn run(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Its standard output, after success.
fn stdout(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn packaging(version: &str, into: &Path) -> Command {
    let mut command = Command::new(XTASK);
    command
        .args(["package", "--package-version", version, "--into"])
        .arg(into);
    command
}

/// The same packages with a higher version.
fn newer() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory");
    stdout(&mut packaging(NEWER, folder.path()));
    folder
}

/// `SLURM SUITE DIRECTORY` of each root.
fn roots() -> Vec<(String, PathBuf)> {
    let list = stdout(Command::new(XTASK).args(["roots", "--list"]));
    list.lines()
        .map(|line| {
            let mut words = line.splitn(3, ' ').skip(1);
            let suite = words.next().expect("a suite").to_owned();
            (suite, PathBuf::from(words.next().expect("a directory")))
        })
        .collect()
}

/// Runs a shell script that finds a writable copy of a root at `$ROOT`, the
/// packages in `$ROOT/old` and `$ROOT/new`, and the function `inside`, which runs
/// its arguments in the root. All that it mounts ends with it.
fn with_root(root: &Path, new: &Path, script: &str) -> Output {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let prepare = r#"
        set -eu
        export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
        # An overlay's upper layer may not itself be on an overlay.
        mount -t tmpfs tmpfs "$SCRATCH"
        ROOT=$SCRATCH/root
        mkdir "$SCRATCH/upper" "$SCRATCH/work" "$ROOT"
        mount -t overlay overlay "$ROOT" \
            -o "lowerdir=$LOWER,upperdir=$SCRATCH/upper,workdir=$SCRATCH/work"
        mkdir "$ROOT/old" "$ROOT/new"
        mount --bind "$OLD" "$ROOT/old"
        mount --bind "$NEW" "$ROOT/new"
        inside() { chroot "$ROOT" "$@"; }
        fail() { echo "FAILED: $*"; exit 1; }
        # Every path that a package could leave something at.
        paths() {
            (cd "$ROOT" && find . -xdev \
                \( -path ./var/lib/dpkg -o -path ./var/lib/rpm -o -path ./var/log/dpkg.log \
                -o -path ./var/cache -o -path ./run/slurm-efa -o -path ./old -o -path ./new \) \
                -prune -o -print | sort)
        }
        configuration() {
            (cd "$ROOT/etc" && find . -type f -exec sha256sum {} + | sort)
        }
        paths >"$SCRATCH/paths"
        configuration >"$SCRATCH/configuration"
    "#;
    run(Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--", "sh", "-c"])
        .arg(format!("{prepare}\n{script}"))
        .env("SCRATCH", scratch.path())
        .env("LOWER", root)
        .env("OLD", dist())
        .env("NEW", new))
}

/// What is the same for both formats; the script says how to `install`,
/// `upgrade` and `remove`.
const LIFE: &str = r#"
    install || fail "it cannot be installed"

    # Nothing that was there is changed, and nothing is switched on.
    configuration | comm -23 "$SCRATCH/configuration" - >"$SCRATCH/changed"
    [ ! -s "$SCRATCH/changed" ] || fail "changed: $(cat "$SCRATCH/changed")"
    [ -z "$(find "$ROOT/etc/systemd" -name 'slurm-logout*')" ] || fail "a unit is enabled"
    paths | comm -13 "$SCRATCH/paths" - | grep ^./etc >"$SCRATCH/etc" || :
    echo "NEW IN ETC" $(cat "$SCRATCH/etc")

    # The programs run, and the plugin is one of this Slurm's.
    for program in efa-check slurm-efa slurm-logout slurm-logoutd gres-helper; do
        inside $program --version | grep -q "$VERSION" || fail "$program does not run"
    done
    mkdir -p "$ROOT/etc/slurm"
    cp -a "$ROOT/etc/slurm" "$SCRATCH/slurm"
    printf 'ClusterName=c\nSlurmctldHost=localhost\n' >"$ROOT/etc/slurm/slurm.conf"
    echo 'required /usr/lib/slurm-efa/spank_efa.so' >"$ROOT/etc/slurm/plugstack.conf"
    inside srun --help | grep -q efa-profile || fail "Slurm does not load the plugin"

    # Set-up on this release: its own programs take what was written, and every
    # byte of it goes again. No slurmctld runs and the machine is of no known
    # type, which is said and makes the exit code 1.
    printf 'NodeName=localhost\nPartitionName=p Nodes=ALL\n' >>"$ROOT/etc/slurm/slurm.conf"
    : >"$ROOT/etc/slurm/plugstack.conf"
    cp -a "$ROOT/etc/slurm" "$SCRATCH/plain"
    set_up() {
        for role in controller compute; do
            inside slurm-efa "$1" --role $role || [ $? = 1 ] || fail "$1 of a $role"
        done
    }
    set_up setup
    inside srun --help | grep -q efa-profile || fail "set-up switched nothing on"
    # It ends with 2: neither munge nor a daemon of Slurm runs here.
    inside slurm-efa doctor --role compute >"$SCRATCH/doctor" || [ $? = 2 ] || fail "doctor"
    for finding in slurm-conf plugstack plugin-loaded prolog-flags prolog epilog prolog-programs epilog-programs \
        health-program; do
        grep -q "^ok *$finding " "$SCRATCH/doctor" || fail "$finding: $(cat "$SCRATCH/doctor")"
    done
    set_up revert
    diff -r "$SCRATCH/plain" "$ROOT/etc/slurm" || fail "something of the set-up is left"
    echo 'required /usr/lib/slurm-efa/spank_efa.so' >"$ROOT/etc/slurm/plugstack.conf"

    # An upgrade asks nothing and keeps what the administrator wrote.
    echo '# mine' >>"$ROOT/etc/slurm-efa/slurm-efa.toml"
    upgrade </dev/null || fail "it cannot be upgraded"
    grep -q '^# mine$' "$ROOT/etc/slurm-efa/slurm-efa.toml" || fail "the configuration is lost"
    inside srun --help | grep -q efa-profile || fail "the upgrade broke the plugin"

    # While a line names a file of ours, that file stays.
    if remove; then fail "removed from under plugstack.conf"; fi
    inside srun --help | grep -q efa-profile || fail "a refused removal took the plugin"
    # All or nothing: what set-up wrote stays, too.
    echo 'optional /usr/lib/slurm-efa/spank_efa.so # slurm-efa' >"$ROOT/etc/slurm/plugstack.conf"
    mkdir -p "$ROOT/etc/pam.d"
    echo 'account required /usr/lib/slurm-efa/pam_slurm_logout.so' >"$ROOT/etc/pam.d/probe"
    if remove; then fail "removed from under PAM"; fi
    grep -q spank_efa "$ROOT/etc/slurm/plugstack.conf" || fail "a refused removal reverted a part"
    echo '#required /usr/lib/slurm-efa/spank_efa.so' >"$ROOT/etc/slurm/plugstack.conf"
    rm "$ROOT/etc/pam.d/probe"
    mkdir -p "$ROOT/run/slurm/conf"
    echo 'Prolog=/etc/slurm-efa/prolog.d/*' >"$ROOT/run/slurm/conf/slurm.conf"
    if remove; then fail "removed from under the controller's configuration"; fi
    rm -r "$ROOT/run/slurm"
    echo 'Prolog=/usr/sbin/efa-check-prolog' >>"$ROOT/etc/slurm/slurm.conf"
    if remove; then fail "removed from under Slurm's prolog"; fi

    # What `slurm-efa setup` wrote is taken out first.
    printf 'ClusterName=c\nSlurmctldHost=localhost\n' >"$ROOT/etc/slurm/slurm.conf"
    echo 'optional /usr/lib/slurm-efa/spank_efa.so # slurm-efa' >"$ROOT/etc/slurm/plugstack.conf"
    remove || fail "it cannot be removed"
    if grep -qs spank_efa "$ROOT/etc/slurm/plugstack.conf"; then fail "its line is left"; fi
    inside srun --help >/dev/null || fail "removal broke Slurm"
    rm -r "$ROOT/etc/slurm"
    cp -a "$SCRATCH/slurm" "$ROOT/etc/slurm"
"#;

fn assert_life(root: &Path, new: &Path, before: &str, after: &str) {
    let script = format!("VERSION={VERSION}\n{before}\n{LIFE}\n{after}\necho WHOLE LIFE");
    let output = with_root(root, new, &script);
    let said = said(&output);
    assert!(
        output.status.success() && said.contains("WHOLE LIFE"),
        "{}: {said}",
        root.display()
    );
    assert!(
        said.contains(
            "NEW IN ETC ./etc/logrotate.d/slurm-efa ./etc/slurm-efa ./etc/slurm-efa/slurm-efa.toml"
        ),
        "{said}"
    );
    for reason in [
        "/etc/slurm/plugstack.conf",
        "/etc/pam.d/probe",
        "/etc/slurm/slurm.conf",
    ] {
        let line = format!("slurm-efa: {reason}: line ");
        assert!(said.contains(&line), "{reason}: {said}");
    }
}

#[test]
fn the_deb_is_installed_upgraded_and_removed_on_every_debian() {
    let new = newer();
    let life = |root: &Path| {
        assert_life(
            root,
            new.path(),
            r#"
            deb=$(dpkg --print-architecture)
            install() { inside sh -c "dpkg --install /old/slurm-efa_*_$deb.deb"; }
            upgrade() { inside sh -c "dpkg --install /new/slurm-efa_*_$deb.deb"; }
            remove() { inside dpkg --remove slurm-efa; }
            "#,
            r#"
            [ -e "$ROOT/etc/slurm-efa/slurm-efa.toml" ] || fail "removal is no purge"
            inside dpkg --purge slurm-efa || fail "it cannot be purged"
            paths | diff "$SCRATCH/paths" - || fail "something is left or missing"
            configuration | diff "$SCRATCH/configuration" - || fail "a file was changed"
            "#,
        );
    };
    // Mostly they wait for scontrol, which tries to reach slurmctld for 10 s.
    thread::scope(|all| {
        for (_, root) in roots() {
            let life = &life;
            all.spawn(move || life(&root));
        }
    });
}

#[test]
fn the_rpm_is_installed_upgraded_and_removed_by_rpm() {
    let new = newer();
    // Debian's packages are not in rpm's database: only --nodeps finds its glibc
    // and shell.
    let (_, root) = roots()
        .into_iter()
        .find(|(suite, _)| suite == "bookworm")
        .expect("a root");
    assert_life(
        &root,
        new.path(),
        r#"
        old=$ROOT/old/slurm-efa-*.$(uname -m).rpm
        new=$ROOT/new/slurm-efa-*.$(uname -m).rpm
        # Debian's own rpm would keep its database in root's home.
        in_root() { rpm --root "$ROOT" --dbpath /var/lib/rpm "$@"; }
        install() {
            in_root --nodeps --install $old
            # Size, digest, mode and owner of each file as the package says.
            in_root --nodeps --verify slurm-efa
        }
        upgrade() {
            in_root --nodeps --upgrade $new
            [ "$(in_root --query --queryformat '%{version} ' slurm-efa)" = "99.0.0 " ]
        }
        remove() { in_root --nodeps --erase slurm-efa; }
        "#,
        r#"
        grep -q '^# mine$' "$ROOT/etc/slurm-efa/slurm-efa.toml.rpmsave" || fail "lost"
        rm -r "$ROOT/etc/slurm-efa" "$ROOT/var/lib/slurm-efa"
        # Folders that RHEL has of itself, and rpm made here; gone if empty.
        (cd "$ROOT/usr" && rmdir lib64/security && cd share &&
            rmdir -p fish/vendor_completions.d licenses zsh/site-functions) 2>/dev/null || :
        paths | diff "$SCRATCH/paths" - || fail "something is left or missing"
        configuration | diff "$SCRATCH/configuration" - || fail "a file was changed"
        "#,
    );
}

#[test]
fn packaging_again_gives_the_same_bytes() {
    let again = tempfile::tempdir().expect("a temporary directory");
    let script = r#"umask 077; exec "$0" package --into "$1""#;
    stdout(
        Command::new("sh")
            .args(["-c", script, XTASK])
            .arg(again.path())
            .env("TZ", "Asia/Kathmandu")
            .env("LC_ALL", "C.UTF-8"),
    );
    let mut compared = 0;
    for end in [".deb", ".rpm", ".cdx.json"] {
        for file in packages(&dist(), end) {
            let other = again.path().join(file.file_name().expect("a name"));
            let same = fs::read(&file).expect("a package") == fs::read(&other).expect("the other");
            assert!(same, "{} differs", file.display());
            compared += 1;
        }
    }
    assert!(compared >= 3, "only {compared} files were compared");
}

#[test]
fn packages_of_several_versions_can_be_made_at_the_same_time() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let versions = ["99.1.0", "99.2.0"];
    let running: Vec<_> = versions
        .iter()
        .map(|version| {
            packaging(version, &folder.path().join(version))
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("xtask")
        })
        .collect();
    for (version, child) in versions.iter().zip(running) {
        let output = child.wait_with_output().expect("its end");
        assert!(output.status.success(), "{version}: {}", said(&output));
        for deb in packages(&folder.path().join(version), ".deb") {
            let field = stdout(
                Command::new("dpkg-deb")
                    .arg("--field")
                    .args([deb.as_os_str(), "Version".as_ref()]),
            );
            assert_eq!(field.trim(), format!("{version}-1"), "{}", deb.display());
        }
    }
}

#[test]
fn sha256sums_holds_every_file_that_is_for_taking() {
    let sums = fs::read_to_string(dist().join("SHA256SUMS")).expect("SHA256SUMS");
    let listed: BTreeSet<&str> = sums
        .lines()
        .filter_map(|line| Some(line.split_once("  ")?.1))
        .collect();
    for end in [".deb", ".rpm", ".cdx.json"] {
        for file in packages(&dist(), end) {
            let name = file.file_name().expect("a name").to_string_lossy();
            assert!(listed.contains(name.as_ref()), "{name} is not in {sums}");
        }
    }
    assert!(listed.contains("x86_64/spank_efa.so"), "{sums}");
    stdout(
        Command::new("sha256sum")
            .args(["--check", "--strict", "SHA256SUMS"])
            .current_dir(dist()),
    );
}

/// Path to content of every regular file below `folder`.
fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let list = stdout(
        Command::new("find")
            .args([".", "-type", "f", "-printf", "%P\\n"])
            .current_dir(folder),
    );
    list.lines()
        .map(|path| {
            let content = fs::read(folder.join(path)).expect("a file");
            (path.to_owned(), content)
        })
        .collect()
}

/// A shell's redirections in the folder it runs in.
fn unpack(script: &str, package: &Path) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory");
    stdout(
        Command::new("sh")
            .args(["-ec", script, "sh"])
            .arg(package)
            .current_dir(folder.path()),
    );
    folder
}

#[test]
fn both_formats_hold_exactly_what_was_built() {
    for (arch, debian) in [("x86_64", "amd64"), ("aarch64", "arm64")] {
        let dist = dist();
        let deb = dist.join(format!("slurm-efa_{VERSION}-1_{debian}.deb"));
        if !deb.exists() && arch != std::env::consts::ARCH {
            continue;
        }
        let rpm = dist.join(format!("slurm-efa-{VERSION}-1.{arch}.rpm"));
        let deb = tree(unpack("dpkg-deb --extract \"$1\" .", &deb).path());
        let rpm = tree(unpack("rpm2cpio \"$1\" | cpio -id --quiet", &rpm).path());
        for (path, content) in tree(&dist.join(arch)) {
            let found = |files: &BTreeMap<String, Vec<u8>>| {
                files
                    .iter()
                    .any(|(name, other)| name.ends_with(&format!("/{path}")) && *other == content)
            };
            assert!(found(&deb) && found(&rpm), "{path} of {arch}");
        }
        let shared = |files: BTreeMap<String, Vec<u8>>| -> BTreeMap<String, Vec<u8>> {
            let own = [
                "usr/share/doc/",
                "usr/share/licenses/",
                "usr/share/zsh/",
                "usr/share/lintian/",
            ];
            files
                .into_iter()
                .filter(|(path, _)| !own.iter().any(|start| path.starts_with(start)))
                .filter(|(path, _)| !path.contains("/security/"))
                .collect()
        };
        let (deb, rpm) = (shared(deb), shared(rpm));
        assert_eq!(
            deb.keys().collect::<Vec<_>>(),
            rpm.keys().collect::<Vec<_>>(),
            "{arch}"
        );
        assert!(deb == rpm, "the formats of {arch} differ");
        assert!(deb.contains_key("usr/share/man/man8/efa-check.8.gz"));
    }
}

#[test]
fn the_scripts_in_the_packages_are_the_ones_of_the_tree() {
    let scripts = workspace().join("packaging/scripts");
    let ours = |name: &str| fs::read_to_string(scripts.join(name)).expect("a script");
    for deb in packages(&dist(), ".deb") {
        let control = unpack("dpkg-deb --control \"$1\" .", &deb);
        for (theirs, name) in [
            ("postinst", "after-install.sh"),
            ("prerm", "before-removal.sh"),
            ("postrm", "after-removal.sh"),
        ] {
            let theirs = fs::read_to_string(control.path().join(theirs)).expect("a script");
            assert_eq!(theirs, ours(name));
        }
        assert!(!control.path().join("preinst").exists());
    }
    for rpm in packages(&dist(), ".rpm") {
        let query = |tag: &str| {
            let format = format!("%{{{tag}}}");
            stdout(
                Command::new("rpm")
                    .args(["--query", "--package", "--queryformat", &format])
                    .arg(&rpm),
            )
        };
        for (tag, name) in [
            ("postin", "after-install.sh"),
            ("preun", "before-removal.sh"),
            ("postun", "after-removal.sh"),
        ] {
            assert_eq!(query(tag).trim_end(), ours(name).trim_end());
        }
        for tag in ["prein", "pretrans", "posttrans", "triggerscripts"] {
            assert_eq!(query(tag), "(none)", "{tag}");
        }
    }
}

#[test]
fn lintian_finds_nothing() {
    for deb in packages(&dist(), ".deb") {
        let output = run(Command::new("lintian")
            .args(["--allow-root", "--tag-display-limit", "0"])
            .arg(&deb));
        assert_eq!(said(&output).trim(), "", "{}", deb.display());
        assert!(output.status.success());
    }
}

#[test]
fn rpmlint_finds_nothing() {
    let config = workspace().join("packaging/rpm/rpmlint.toml");
    for rpm in packages(&dist(), ".rpm") {
        let output = run(Command::new("rpmlint")
            .arg("--config")
            .arg(&config)
            .arg(&rpm));
        let said = said(&output);
        assert!(
            output.status.success() && said.contains(" 0 errors, 0 warnings"),
            "{}: {said}",
            rpm.display()
        );
    }
}
