//! sd_notify(3): tell the service manager that started us how far we are.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Send `KEY=VALUE` lines to whoever listens at NOTIFY_SOCKET; nobody may.
pub fn notify(lines: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
        _ => SocketAddr::from_pathname(&name),
    };
    // A manager that does not listen has its own time-out; there is nobody else to tell.
    if let (Ok(socket), Ok(address)) = (UnixDatagram::unbound(), address) {
        let _ = socket.send_to_addr(lines.as_bytes(), &address);
    }
}
