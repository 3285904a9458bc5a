//! Who has a port; only looked for when an error is to be told.

use crate::model::port::Protocol;
use std::net::SocketAddr;

/// The process that has the port, as `nginx (pid 12)`; of another user's, which cannot be looked into, the user.
pub(super) fn holder(address: SocketAddr, protocol: Protocol) -> Option<String> {
    let inodes = inodes_of_port(address.port(), protocol);
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else { continue };
        let Ok(files) = std::fs::read_dir(process.path().join("fd")) else { continue };
        for file in files.flatten() {
            let Ok(target) = std::fs::read_link(file.path()) else { continue };
            let target = target.to_string_lossy();
            let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            if inode.is_some_and(|inode| inodes.iter().any(|other| other == inode)) {
                return Some(format!("{} (pid {pid})", command_of(&process.path())));
            }
        }
    }
    (!inodes.is_empty()).then(|| "a process of another user".to_owned())
}

/// What a process calls itself: a supervisor bears its container's name there.
fn command_of(process: &std::path::Path) -> String {
    let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
    let first = String::from_utf8_lossy(line.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    let name = if first.starts_with('/') { first.rsplit('/').next().unwrap_or_default() } else { &first };
    match name {
        "" => std::fs::read_to_string(process.join("comm")).unwrap_or_default().trim().to_owned(),
        name => name.to_owned(),
    }
}

fn inodes_of_port(port: u16, protocol: Protocol) -> Vec<String> {
    let mut inodes = Vec::new();
    for suffix in ["", "6"] {
        let path = format!("/proc/net/{}{suffix}", protocol.as_str());
        inodes.extend(inodes_in(&std::fs::read_to_string(path).unwrap_or_default(), port, protocol));
    }
    inodes
}

/// Inodes of the sockets bound to a local port, in the text of /proc/net/tcp and its kin.
fn inodes_in(text: &str, port: u16, protocol: Protocol) -> Vec<String> {
    text.lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let local = fields.get(1)?.rsplit_once(':')?.1;
            // 0A is LISTEN; a socket of UDP has no such state.
            let counts = protocol != Protocol::Tcp || fields.get(3) == Some(&"0A");
            (u16::from_str_radix(local, 16) == Ok(port) && counts)
                .then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_a_port() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n   1: 0100007F:1F90 0100007F:0050 06 00000000:00000000 03:00000000 00000000     0        0 0 3\n";
        assert_eq!(inodes_in(text, 8080, Protocol::Tcp), ["4711"]);
        assert!(inodes_in(text, 80, Protocol::Tcp).is_empty());
    }
}
