//! The file, and where it is.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use crate::machine::Machine;

/// The library's name in its directory.
pub const LIBRARY: &str = "libnvidia-ml.so.1";
/// The machine's file beside it.
pub const FILE: &str = "machine.json";

/// A directory with a library and its machine.
#[derive(Debug, Clone)]
pub struct Here(pub PathBuf);

/// An exclusive `flock` on the directory.
struct Locked(#[allow(dead_code)] File);

impl Here {
    fn lock(&self) -> io::Result<Locked> {
        let dir = File::open(&self.0)?;
        // SAFETY: flock takes an open descriptor, which `dir` is.
        if unsafe { libc::flock(dir.as_raw_fd(), libc::LOCK_EX) } == 0 {
            Ok(Locked(dir))
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// The machine as it is now.
    ///
    /// # Errors
    /// The file is missing or no machine.
    pub fn read(&self) -> io::Result<Machine> {
        Ok(serde_json::from_slice(&fs::read(self.0.join(FILE))?)?)
    }

    fn write(&self, machine: &Machine) -> io::Result<()> {
        let new = self.0.join(format!(".{FILE}.new"));
        let bytes = serde_json::to_vec(machine)?;
        let mut file = File::create(&new)?;
        // Without room taken beforehand, ext4 waits for the disk when a file is
        // renamed over another.
        let length = libc::off_t::try_from(bytes.len()).map_err(io::Error::other)?;
        // SAFETY: posix_fallocate takes numbers; the descriptor is open. A file
        // system that cannot do it is only slower.
        let _ = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, length) };
        file.write_all(&bytes)?;
        fs::rename(new, self.0.join(FILE))
    }

    /// Changes the machine in one step.
    ///
    /// # Errors
    /// As [`Here::read`].
    pub fn change<T>(&self, change: impl FnOnce(&mut Machine) -> T) -> io::Result<T> {
        let _locked = self.lock()?;
        let mut machine = self.read()?;
        let result = change(&mut machine);
        self.write(&machine)?;
        Ok(result)
    }

    /// Where the library lies.
    pub fn library(&self) -> PathBuf {
        self.0.join(LIBRARY)
    }
}

/// Puts the built library and a machine into `dir`.
///
/// # Errors
/// They cannot be written.
pub fn install(built: &Path, dir: &Path, machine: &Machine) -> io::Result<Here> {
    install_without(built, dir, machine, &[])
}

/// As [`install`], of an older driver whose library lacks `symbols`: their
/// names in the copy are spoilt, so that dlsym does not find them.
///
/// # Errors
/// As [`install`]; also where the library has no such symbol.
pub fn install_without(
    built: &Path,
    dir: &Path,
    machine: &Machine,
    symbols: &[&str],
) -> io::Result<Here> {
    fs::create_dir_all(dir)?;
    let here = Here(dir.to_owned());
    here.write(machine)?;
    let mut library = fs::read(built)?;
    for symbol in symbols {
        let name = [b"\0", symbol.as_bytes(), b"\0"].concat();
        let mut found = false;
        let mut at = 0;
        while let Some(next) = library[at..]
            .windows(name.len())
            .position(|window| window == name)
        {
            at += next + 1;
            library[at] = b'X';
            found = true;
        }
        if !found {
            return Err(io::Error::other(format!("no symbol {symbol}")));
        }
    }
    fs::write(here.library(), library)?;
    Ok(here)
}

/// The machine, as long as its file stays the same.
struct Cache {
    stamp: (u64, i64, i64),
    machine: Machine,
}

static CACHE: Mutex<Option<Cache>> = Mutex::new(None);
/// Calls of this process so far, of each fault.
static CALLS: Mutex<Option<HashMap<String, u32>>> = Mutex::new(None);

/// The directory of this very library, as it was loaded.
fn here() -> Option<&'static Here> {
    static HERE: OnceLock<Option<Here>> = OnceLock::new();
    HERE.get_or_init(|| {
        // SAFETY: Dl_info is plain old data, for which all zeros is a valid value.
        let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
        // SAFETY: dladdr takes any address and writes to `info`.
        let found = unsafe { libc::dladdr((here as *const ()).cast(), &raw mut info) };
        if found == 0 || info.dli_fname.is_null() {
            return None;
        }
        // SAFETY: dladdr gave a NUL-terminated name that lives as long as the object is loaded.
        let name = unsafe { CStr::from_ptr(info.dli_fname) };
        let path = Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()));
        Some(Here(path.parent()?.to_owned()))
    })
    .as_ref()
}

/// What a call does with the machine.
pub enum Body<'a> {
    /// Looks at it.
    Look(&'a mut dyn FnMut(&Machine) -> Result<(), u32>),
    /// Changes it.
    Change(&'a mut dyn FnMut(&mut Machine) -> Result<(), u32>),
}

/// Runs one exported function: its faults, then its body; NVML's code.
pub fn call(function: &str, gpu: Option<usize>, body: Body<'_>) -> u32 {
    match try_call(function, gpu, body) {
        Ok(()) => 0,
        Err(code) => code,
    }
}

fn try_call(function: &str, gpu: Option<usize>, body: Body<'_>) -> Result<(), u32> {
    const UNINITIALIZED: u32 = 1;
    const OPERATING_SYSTEM: u32 = 17;
    const DRIVER_NOT_LOADED: u32 = 9;
    let here = here().ok_or(UNINITIALIZED)?;
    let failed = |_| OPERATING_SYSTEM;
    let _locked = here.lock().map_err(failed)?;
    let mut cache = CACHE.lock().map_err(|_| OPERATING_SYSTEM)?;
    let status = fs::metadata(here.0.join(FILE)).map_err(failed)?;
    let stamp = (status.ino(), status.mtime(), status.mtime_nsec());
    if cache.as_ref().is_none_or(|cache| cache.stamp != stamp) {
        let machine = here.read().map_err(failed)?;
        *cache = Some(Cache { stamp, machine });
    }
    let Some(Cache { machine, .. }) = cache.as_mut() else {
        return Err(OPERATING_SYSTEM);
    };
    if let Some(place) = due(machine, function, gpu) {
        let fault = &machine.faults[place];
        let code = fault.code;
        if fault.call > 0 {
            machine.faults.remove(place);
            here.write(machine).map_err(failed)?;
            *cache = None;
        }
        drop(cache);
        drop(_locked);
        if code == 0 {
            loop {
                // SAFETY: pause takes nothing and returns after a signal.
                unsafe { libc::pause() };
            }
        }
        return Err(code);
    }
    if !machine.loaded {
        return Err(DRIVER_NOT_LOADED);
    }
    if gpu.is_some_and(|gpu| machine.gpus.get(gpu).is_some_and(|gpu| gpu.lost)) {
        return Err(crate::machine::LOST);
    }
    match body {
        Body::Look(look) => look(machine),
        Body::Change(change) => {
            let mut changed = machine.clone();
            change(&mut changed)?;
            here.write(&changed).map_err(failed)?;
            let status = fs::metadata(here.0.join(FILE)).map_err(failed)?;
            *cache = Some(Cache {
                stamp: (status.ino(), status.mtime(), status.mtime_nsec()),
                machine: changed,
            });
            Ok(())
        }
    }
}

/// The fault whose turn it is; each keeps count of the calls that it is about.
fn due(machine: &Machine, function: &str, gpu: Option<usize>) -> Option<usize> {
    let mut calls = CALLS.lock().ok()?;
    let calls = calls.get_or_insert_default();
    let mut found = None;
    for (place, fault) in machine.faults.iter().enumerate() {
        let about = (fault.function == "*" || fault.function == function)
            && (fault.gpu.is_none() || fault.gpu == gpu);
        if !about {
            continue;
        }
        let count = calls
            .entry(format!("{} {:?} {}", fault.function, fault.gpu, fault.call))
            .or_default();
        *count += 1;
        if fault.call == 0 || *count == fault.call {
            found = found.or(Some(place));
        }
    }
    found
}
