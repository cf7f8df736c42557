//! The sockets of one fabric: at SOCKET a guest, at SOCKET.ctl who steers the
//! device.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::control;
use crate::fabric::{Fabric, Port, Settings};
use crate::vfio_user::{self, lock};

/// The socket that steers the device of a socket.
#[must_use]
pub fn control_socket(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".ctl");
    PathBuf::from(name)
}

/// Each device needs some fifteen descriptors: raises this process's limit on open
/// files as far as it may.
pub fn allow_many_files() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a pointer to a live rlimit, which getrlimit fills in.
    let read = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if read == 0 {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: a pointer to a live rlimit. Where it is refused, the old one stays.
        let _ = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    }
}

type Client = Arc<Mutex<Option<UnixStream>>>;

/// Serves the devices of a fabric, one at each socket, for ever. Calls `ready` when
/// all sockets are there.
///
/// # Errors
/// A socket could not be made.
pub fn serve(fabric: Fabric, sockets: &[PathBuf], ready: impl FnOnce()) -> io::Result<()> {
    for (port, socket) in fabric.ports().iter().zip(sockets) {
        let guests = listen(socket)?;
        let control = listen(&control_socket(socket))?;
        let client = Client::default();
        {
            let (port, client) = (Arc::clone(port), Arc::clone(&client));
            thread::Builder::new().spawn(move || accept(&guests, &port, &client))?;
        }
        let (port, settings) = (Arc::clone(port), Arc::clone(fabric.settings()));
        thread::Builder::new().spawn(move || steer(&control, &port, &settings, &client))?;
    }
    ready();
    fabric.run();
    Ok(())
}

/// Takes the place of a socket that an earlier process left, and of nothing else.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let left = fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
    if left {
        fs::remove_file(path)?;
    }
    let named = |error| io::Error::other(format!("{}: {error}", path.display()));
    UnixListener::bind(path).map_err(named)
}

fn accept(guests: &UnixListener, port: &Port, client: &Client) {
    for stream in guests.incoming().flatten() {
        *lock(client) = stream.try_clone().ok();
        if let Err(error) = vfio_user::serve(&stream, port) {
            eprintln!("efa-device: a guest was lost: {error}");
        }
        *lock(client) = None;
    }
}

fn steer(control: &UnixListener, port: &Port, settings: &Settings, client: &Client) {
    for stream in control.incoming().flatten() {
        // Who hung up or said nothing gets no answer.
        let _ = control::answer(&stream, port, settings, client);
    }
}
