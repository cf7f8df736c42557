//! A file that hangs whoever opens it in the kernel, as a device does that no
//! longer answers its driver: not even SIGKILL ends the wait.
//!
//! It is a FUSE file system (kernel documentation, `filesystems/fuse`) whose
//! server accepts every request and answers none but the first. A process waits
//! for an accepted request in uninterruptible sleep once it is killed.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// Larger than any request of the kernel (`FUSE_MIN_READ_BUFFER` is 8 KiB).
const LARGEST: usize = 256 * 1024;

/// A mounted file system on which every look hangs, until this is dropped.
#[derive(Debug)]
pub struct Stuck {
    place: PathBuf,
    server: Option<JoinHandle<()>>,
    accepted: Receiver<()>,
}

impl Stuck {
    /// Mounts it on an empty directory. Needs root and `/dev/fuse`.
    ///
    /// # Errors
    /// The system's.
    pub fn mount(place: &Path) -> io::Result<Self> {
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .map_err(|error| io::Error::new(error.kind(), format!("/dev/fuse: {error}")))?;
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
            device.as_raw_fd()
        );
        let (target, options) = (
            c_string(place.as_os_str().as_bytes())?,
            c_string(options.as_bytes())?,
        );
        // SAFETY: mount(2) reads four strings that end in NUL and live until it
        // returns.
        let mounted = unsafe {
            libc::mount(
                c"slurm-efa-test".as_ptr(),
                target.as_ptr(),
                c"fuse".as_ptr(),
                libc::MS_NOSUID | libc::MS_NODEV,
                options.as_ptr().cast(),
            )
        };
        if mounted != 0 {
            return Err(io::Error::last_os_error());
        }
        let (accepts, accepted) = mpsc::channel();
        let mut stuck = Self {
            place: place.to_owned(),
            server: None,
            accepted,
        };
        let server = std::thread::Builder::new().spawn(move || serve(device, &accepts))?;
        stuck.server = Some(server);
        Ok(stuck)
    }

    /// Waits until one more process hangs; false when none does in this time.
    #[must_use]
    pub fn hangs_one(&self, limit: Duration) -> bool {
        self.accepted.recv_timeout(limit).is_ok()
    }

    /// A file on it.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.place.join("file")
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        if let Ok(target) = c_string(self.place.as_os_str().as_bytes()) {
            // SAFETY: umount2(2) reads a string that ends in NUL. By force, so
            // that who hangs is woken and the server's read ends.
            let _ = unsafe { libc::umount2(target.as_ptr(), libc::MNT_FORCE | libc::MNT_DETACH) };
        }
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// Answers FUSE_INIT; accepts what follows and keeps silent, until unmounted.
fn serve(mut device: File, accepts: &Sender<()>) {
    const INIT: u32 = 26;
    let mut request = vec![0; LARGEST];
    while let Ok(length) = device.read(&mut request) {
        // fuse_in_header: u32 length, u32 opcode, u64 id, and more.
        let Some(head) = request.get(..length).and_then(|it| it.get(4..16)) else {
            return;
        };
        let (opcode, id) = head.split_at(4);
        if opcode != INIT.to_ne_bytes() {
            // Nobody may want to know.
            let _ = accepts.send(());
            continue;
        }
        // fuse_out_header: u32 length, i32 error, u64 id; then fuse_init_out of
        // 7.31: u32 major, minor, max_readahead, flags, u16 max_background,
        // congestion_threshold, u32 max_write, and what may be 0.
        let mut answer = Vec::with_capacity(80);
        answer.extend(80u32.to_ne_bytes());
        answer.extend(0i32.to_ne_bytes());
        answer.extend(id);
        for field in [7u32, 31, 4096, 0, 0, 4096] {
            answer.extend(field.to_ne_bytes());
        }
        answer.resize(80, 0);
        if device.write_all(&answer).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use host::Pid;
    use host::late;
    use host::late::Fate;
    use std::process::{Child, Command, Stdio};

    fn reader(file: &Path) -> Child {
        let mut command = Command::new("cat");
        command
            .arg(file)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().unwrap()
    }

    #[test]
    fn a_reader_stays_after_sigkill_until_the_file_system_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let stuck = Stuck::mount(dir.path()).unwrap();
        let mut child = reader(&stuck.file());
        let pid = Pid(child.id());
        assert!(stuck.hangs_one(Duration::from_secs(20)), "it does not wait");
        let fate = late::end([&mut child])[0];
        assert!(
            matches!(fate, Fate::Hangs(life) if life.pid == pid),
            "{fate:?}"
        );
        drop(stuck);
        assert!(!child.wait().unwrap().success());
    }
}
