//! Where the built plugin is, for the tests that load it into a real Slurm.
//!
//! `make modules` builds it, twice: as it is, and able to panic in any hook.

use std::path::{Path, PathBuf};

/// The plugin.
///
/// # Panics
/// When it has not been built.
pub fn plugin() -> PathBuf {
    built(Path::new("debug/libspank_efa.so"), MODULES)
}

/// The plugin of test builds, which panics in the hook that `panic=HOOK`
/// behind its path in plugstack.conf names.
///
/// # Panics
/// When it has not been built.
pub fn injected() -> PathBuf {
    built(Path::new("inject/debug/libspank_efa.so"), MODULES)
}

/// The PAM module.
///
/// # Panics
/// When it has not been built.
pub fn pam_module() -> PathBuf {
    built(Path::new("debug/libpam_slurm_logout.so"), MODULES)
}

/// The PAM module of test builds, which panics in the phase that `panic=PHASE`
/// names.
///
/// # Panics
/// When it has not been built.
pub fn pam_injected() -> PathBuf {
    built(Path::new("inject/debug/libpam_slurm_logout.so"), MODULES)
}

/// An example of lib/spank or lib/pam-stack: a plugin, a PAM module or a
/// libslurm made up for tests.
///
/// # Panics
/// When it has not been built.
pub fn example(name: &str) -> PathBuf {
    built(Path::new(&format!("debug/examples/lib{name}.so")), MODULES)
}

/// What a plugin starts to read counters, and looks for beside itself.
#[must_use]
pub fn reader_beside(plugin: &Path) -> PathBuf {
    plugin.with_file_name(efa::counter_reader::PROGRAM)
}

/// The program that slurmd runs before and after each job, beside a plugin of the
/// same build.
#[must_use]
pub fn job_program_beside(plugin: &Path) -> PathBuf {
    plugin.with_file_name("slurm-efa-job")
}

/// Puts a plugin, as a link, and what lies beside it into a folder of root's,
/// which is made.
///
/// # Errors
/// They cannot be put there.
pub fn put_plugin(plugin: &Path, dir: &Path) -> std::io::Result<()> {
    std::fs::create_dir(dir)?;
    let name = plugin.file_name().unwrap_or_default();
    std::os::unix::fs::symlink(plugin, dir.join(name))?;
    put(&job_program_beside(plugin), dir)?;
    put(&reader_beside(plugin), dir).map(drop)
}

/// A program of the suite.
///
/// # Panics
/// When it has not been built.
pub fn program(name: &str) -> PathBuf {
    built(&Path::new("debug").join(name), MODULES)
}

/// A program or object of the suite as cargo builds it for release, by its file's
/// name.
///
/// # Panics
/// When it has not been built.
pub fn released(name: &str) -> PathBuf {
    built(
        &Path::new("release").join(name),
        "`cargo build --release` with its package",
    )
}

/// A program of this crate, which cargo builds before its tests.
///
/// # Panics
/// When it has not been built.
pub fn test_program(name: &str) -> PathBuf {
    built(
        &Path::new("debug").join(name),
        "`cargo build -p cdylib-tests --bins`",
    )
}

/// The plugin of shared GPUs.
///
/// # Panics
/// When it has not been built.
pub fn gres_plugin() -> PathBuf {
    built(Path::new("debug/libspank_gres.so"), MODULES)
}

/// NVML over a machine in a file.
///
/// # Panics
/// When it has not been built.
pub fn mock_nvml() -> PathBuf {
    built(Path::new("debug/libmock_nvml.so"), MODULES)
}

/// The plugin as it is shipped.
///
/// # Panics
/// When it has not been built.
pub fn shipped() -> PathBuf {
    shipped_file("spank_efa.so")
}

/// A file of the suite as it is shipped, by its name.
///
/// # Panics
/// When it has not been built.
pub fn shipped_file(name: &str) -> PathBuf {
    let dir = Path::new("dist").join(std::env::consts::ARCH);
    built(&dir.join(name), "`make dist`")
}

/// The same with what [`injected`] can do.
///
/// # Panics
/// When it has not been built.
pub fn shipped_injected() -> PathBuf {
    let dir = Path::new("dist-test").join(std::env::consts::ARCH);
    built(&dir.join("spank_efa.so"), "`cargo xtask dist --inject`")
}

/// An [`example`] for the oldest glibc, which every release loads.
///
/// # Panics
/// When it has not been built.
pub fn portable_example(name: &str) -> PathBuf {
    let dir = Path::new("dist-test").join(std::env::consts::ARCH);
    built(
        &dir.join(format!("{name}.so")),
        "`cargo xtask dist --inject`",
    )
}

/// Puts a program into a folder of root's: as a link, or as a copy where root
/// does not believe the program itself, such as in a checkout of another user.
///
/// # Errors
/// It cannot be put there.
pub fn put(program: &Path, dir: &Path) -> std::io::Result<PathBuf> {
    let there = dir.join(program.file_name().unwrap_or_default());
    match host::trust::program(program) {
        Ok(_) => std::os::unix::fs::symlink(program, &there)?,
        Err(_) => drop(std::fs::copy(program, &there)?),
    }
    Ok(there)
}

const MODULES: &str = "`make test`, or `make modules` first";

fn built(file: &Path, fix: &str) -> PathBuf {
    let path = target().join(file);
    assert!(path.is_file(), "{} is not built; run {fix}", path.display());
    path
}

/// The target directory that this very program was built into.
///
/// # Panics
/// When it lies in none.
pub fn target() -> PathBuf {
    let program = std::env::current_exe().expect("the test's own path");
    target_dir(&program)
        .unwrap_or_else(|| panic!("{} lies in no target directory", program.display()))
        .to_owned()
}

/// Tests lie in `TARGET/PROFILE/deps/`, examples in `TARGET/PROFILE/examples/`,
/// binaries in `TARGET/PROFILE/`.
fn target_dir(program: &Path) -> Option<&Path> {
    let dir = program.parent()?;
    let profile = if dir.ends_with("deps") || dir.ends_with("examples") {
        dir.parent()?
    } else {
        dir
    };
    profile.parent()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_an_example_and_a_program_find_the_same_target_directory() {
        for program in [
            "/t/debug/deps/scope-1a2b",
            "/t/debug/demo",
            "/t/release/bench",
            "/t/release/examples/bench",
        ] {
            assert_eq!(target_dir(Path::new(program)), Some(Path::new("/t")));
        }
    }
}
