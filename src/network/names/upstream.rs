//! Who is asked about names that are no container's.

use crate::network::names::wire::Code;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// At most so many name servers are asked, as in resolv.conf(5).
const SERVERS: usize = 3;

/// Who is asked.
#[derive(Clone, Debug)]
pub enum Upstream {
    /// Nobody: all of the container's networks are internal.
    Nobody,
    /// Nobody, for others know: the host's resolver asks us about our own names only.
    Others,
    /// These, whatever the host says (`--dns`).
    Fixed(Vec<SocketAddr>),
    /// Those of this resolv.conf, as it is when a question comes.
    Host(Followed),
}

/// A resolv.conf, read again when it changes.
#[derive(Clone, Debug)]
pub struct Followed {
    path: PathBuf,
    read: Option<(SystemTime, u64, u64)>,
    servers: Vec<SocketAddr>,
}

impl Upstream {
    /// These addresses, port 53.
    pub fn fixed(addresses: &[IpAddr]) -> Upstream {
        Upstream::Fixed(addresses.iter().map(|address| SocketAddr::new(*address, 53)).collect())
    }

    /// The host's resolv.conf.
    pub fn host(path: &Path) -> Upstream {
        Upstream::Host(Followed { path: path.to_owned(), read: None, servers: Vec::new() })
    }

    /// What is answered where nobody is asked.
    pub fn code(&self) -> Code {
        match self {
            Upstream::Others => Code::Refused,
            // Nothing leaves an internal network, so nobody but us can know the name, and we do not.
            _ => Code::NoSuchName,
        }
    }

    /// Whom to ask now, in this order; none: nobody.
    pub fn servers(&mut self) -> &[SocketAddr] {
        match self {
            Upstream::Nobody | Upstream::Others => &[],
            Upstream::Fixed(servers) => servers,
            Upstream::Host(followed) => followed.servers(),
        }
    }
}

impl Followed {
    fn servers(&mut self) -> &[SocketAddr] {
        use std::os::unix::fs::MetadataExt;
        // Following a link (resolved's, NetworkManager's) to the file that is replaced: a new inode is a change too.
        let stamp = std::fs::metadata(&self.path)
            .ok()
            .and_then(|metadata| Some((metadata.modified().ok()?, metadata.ino(), metadata.len())));
        if stamp.is_none() || stamp != self.read {
            self.read = stamp;
            self.servers = servers_in(&std::fs::read_to_string(&self.path).unwrap_or_default());
        }
        &self.servers
    }
}

/// The name servers of a resolv.conf; with none given, the local one (resolv.conf(5)).
fn servers_in(text: &str) -> Vec<SocketAddr> {
    let mut servers: Vec<SocketAddr> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter(|rest| rest.starts_with([' ', '\t']))
        .filter_map(|rest| parse_address(rest.split_whitespace().next()?))
        .take(SERVERS)
        .collect();
    if servers.is_empty() {
        servers.push(SocketAddr::from(([127, 0, 0, 1], 53)));
    }
    servers
}

/// `fe80::1%eth0` has the link behind a percent sign.
fn parse_address(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, 53));
    }
    let (address, link) = text.split_once('%')?;
    let index = nix::net::if_::if_nametoindex(link).ok()?;
    Some(SocketAddr::V6(std::net::SocketAddrV6::new(address.parse().ok()?, 53, 0, index)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_a_file() {
        let text = "# c\nnameserver 10.0.0.1\n nameserver\t::1 # x\nnameserverx 1.1.1.1\nnameserver a\nsearch b\nnameserver 1.1.1.1\nnameserver 8.8.8.8\n";
        let found: Vec<String> = servers_in(text).iter().map(|server| server.ip().to_string()).collect();
        assert_eq!(found, ["10.0.0.1", "::1", "1.1.1.1"]);
        assert_eq!(servers_in(""), [SocketAddr::from(([127, 0, 0, 1], 53))]);
    }

    #[test]
    fn changes_are_followed() {
        let path = std::env::temp_dir().join(format!("coracle-resolv-{}", std::process::id()));
        std::fs::write(&path, "nameserver 10.0.0.1\n").unwrap();
        let mut upstream = Upstream::host(&path);
        assert_eq!(upstream.servers()[0].ip().to_string(), "10.0.0.1");
        std::fs::write(&path, "nameserver 10.0.0.20\n").unwrap();
        assert_eq!(upstream.servers()[0].ip().to_string(), "10.0.0.20");
        std::fs::remove_file(&path).unwrap();
        assert!(Upstream::Nobody.servers().is_empty());
    }
}
