//! Unix sockets that keep message borders and carry descriptors.

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind,
    connect, getsockopt, listen, recvmsg, sendmsg, socket, socketpair, sockopt,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

/// How many descriptors one message may carry.
pub const DESCRIPTORS_MAX: usize = 8;

/// A connected pair, both close-on-exec.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?)
}

/// A listening socket at this path, which must be free. It does not block.
pub fn listen_at(path: &Path) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    through_directory(path, |short| bind(listener.as_raw_fd(), &UnixAddr::new(short)?))?;
    listen(&listener, Backlog::MAXCONN)?;
    Ok(listener)
}

/// Connect to the socket at this path.
pub fn connect_to(path: &Path) -> io::Result<OwnedFd> {
    let connection = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    through_directory(path, |short| connect(connection.as_raw_fd(), &UnixAddr::new(short)?))?;
    Ok(connection)
}

/// The next connection to a listening socket. It does not block.
pub fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(accept4(listener, flags)?)
}

/// The uid at the other end when it connected, as this user namespace numbers it.
pub fn peer_uid(connection: impl AsFd) -> io::Result<u32> {
    Ok(getsockopt(&connection, sockopt::PeerCredentials)?.uid())
}

/// Send one message with descriptors.
pub fn send(connection: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let control = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
    let number = connection.as_fd().as_raw_fd();
    loop {
        match sendmsg::<()>(number, &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(nix::errno::Errno::EINTR) => {}
            other => return other.map(drop).map_err(io::Error::from),
        }
    }
}

/// Receive one message and its descriptors (close-on-exec); length 0 is the end.
pub fn receive(connection: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let number = connection.as_fd().as_raw_fd();
    let mut control = cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let mut parts = [IoSliceMut::new(bytes)];
    let message = loop {
        match recvmsg::<()>(number, &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(nix::errno::Errno::EINTR) => {}
            other => break other?,
        }
    };
    let mut descriptors = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            // SAFETY: the kernel has just made these descriptors for us; each is taken once.
            descriptors.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    Ok((message.bytes, descriptors))
}

/// Give `action` a path of the socket that fits into the 107 bytes of `sun_path`, by way of its directory's descriptor.
fn through_directory(path: &Path, action: impl Fn(&Path) -> nix::Result<()>) -> io::Result<()> {
    if path.as_os_str().len() < 100 {
        return Ok(action(path)?);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let directory = std::fs::File::open(parent)?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    Ok(action(&short)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn descriptors_travel() {
        let (here, there) = pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        send(&here, b"two", &[writer.as_fd(), writer.as_fd()]).unwrap();
        drop(writer);
        let mut bytes = [0; 16];
        let (length, descriptors) = receive(&there, &mut bytes).unwrap();
        assert_eq!((&bytes[..length], descriptors.len()), (&b"two"[..], 2));
        for descriptor in descriptors {
            std::fs::File::from(descriptor).write_all(b"x").unwrap();
        }
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "xx");
        drop(here);
        assert_eq!(receive(&there, &mut bytes).unwrap().0, 0);
    }

    #[test]
    fn long_paths() {
        let directory = std::env::temp_dir().join(format!("coracle-socket-{}-{}", std::process::id(), "x".repeat(120)));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("control.sock");
        let listener = listen_at(&path).unwrap();
        let client = connect_to(&path).unwrap();
        let server = accept(&listener).unwrap();
        assert_eq!(peer_uid(&server).unwrap(), nix::unistd::geteuid().as_raw());
        send(&client, b"a", &[]).unwrap();
        assert_eq!(receive(&server, &mut [0; 4]).unwrap().0, 1);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
