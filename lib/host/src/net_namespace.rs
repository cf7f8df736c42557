//! A network namespace of its own for a process: no other process of the machine
//! can take its ports or connect to them.

use std::io;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{recv, sendto, socket_with};
use rustix::thread::UnshareFlags;

/// The loopback interface: the first one of every namespace (the kernel's
/// `LOOPBACK_IFINDEX`).
const LOOPBACK: i32 = 1;

/// rtnetlink(7), netlink(7).
const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST_ACK: u16 = 1 | 4;
const NLMSG_ERROR: u16 = 2;
const IFF_UP: u32 = 1;
/// A header, and what follows it: `struct ifinfomsg`, or an error's number.
const HEADER: usize = 16;
const REQUEST: usize = HEADER + 16;

/// Moves this process, and what it starts from now on, into a network namespace
/// of its own, which has 127.0.0.1 and nothing else. Needs root. A thread that
/// runs already stays where it is.
///
/// # Errors
/// The system's.
pub fn enter_own() -> io::Result<()> {
    #[allow(
        deprecated,
        reason = "only the flag FILES makes it unsafe, and this is NEWNET"
    )]
    rustix::thread::unshare(UnshareFlags::NEWNET)?;
    switch_loopback_on()
}

fn switch_loopback_on() -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // NETLINK_ROUTE.
        None,
    )?;
    let mut request = Vec::with_capacity(REQUEST);
    request.extend(u32::try_from(REQUEST).unwrap_or(0).to_ne_bytes());
    request.extend(RTM_NEWLINK.to_ne_bytes());
    request.extend(NLM_F_REQUEST_ACK.to_ne_bytes());
    // Number and sender of the message.
    request.extend([0; 8]);
    // Family and type of the interface.
    request.extend([0; 4]);
    request.extend(LOOPBACK.to_ne_bytes());
    // The flags, and which of them are set.
    request.extend(IFF_UP.to_ne_bytes());
    request.extend(IFF_UP.to_ne_bytes());
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(&socket, &request, SendFlags::empty(), &kernel)?;
    let mut answer = [0; 256];
    let (length, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    acknowledged(answer.get(..length).unwrap_or_default())
}

/// Reads the kernel's answer to a request.
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let odd = || io::Error::other("an odd answer of rtnetlink");
    let kind: [u8; 2] = answer
        .get(4..6)
        .and_then(|it| it.try_into().ok())
        .ok_or_else(odd)?;
    let error: [u8; 4] = answer
        .get(HEADER..HEADER + 4)
        .and_then(|it| it.try_into().ok())
        .ok_or_else(odd)?;
    match (u16::from_ne_bytes(kind), i32::from_ne_bytes(error)) {
        (NLMSG_ERROR, 0) => Ok(()),
        (NLMSG_ERROR, error) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        _ => Err(odd()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_port_that_is_taken_outside_is_free_inside() {
        let outside = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = outside.local_addr().unwrap();
        // Only the thread that calls moves.
        let inside = std::thread::spawn(move || -> io::Result<()> {
            enter_own()?;
            assert!(TcpStream::connect(address).is_err(), "it is reachable");
            let inside = TcpListener::bind(address)?;
            TcpStream::connect(address)?;
            inside.accept().map(drop)
        });
        match inside.join().unwrap() {
            Ok(()) => {}
            // Whoever runs this is not root.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn an_odd_answer_is_an_error() {
        for answer in [&[][..], &[0; 15], &[0; 20]] {
            assert!(acknowledged(answer).is_err());
        }
    }
}
