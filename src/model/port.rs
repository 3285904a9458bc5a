//! Published ports.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Transport protocol of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// `tcp`, `udp` or `sctp`.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// `-p [IP:][HOST:]CONTAINER[/PROTOCOL]`, with ranges: `length` ports from each number on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// Address on the host; absent: every one, both families.
    pub host_ip: Option<IpAddr>,
    /// First port on the host; 0: a free one, chosen at create.
    pub host_port: u16,
    /// First port inside.
    pub container_port: u16,
    /// How many, at least 1.
    pub length: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// Published ports as they are: what reaches the host there goes to `target`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Publication {
    /// Address on the host, of the target's family; absent: any.
    pub host: Option<IpAddr>,
    /// First port on the host.
    pub port: u16,
    /// How many.
    #[serde(default = "one")]
    pub length: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Address of the container.
    pub target: IpAddr,
    /// First port inside.
    pub target_port: u16,
}

fn one() -> u16 {
    1
}

impl Publication {
    /// Each port by itself: on the host, and inside.
    pub fn singles(&self) -> impl Iterator<Item = (u16, u16)> {
        (self.port..=self.port + (self.length - 1)).zip(self.target_port..)
    }

    /// Whether the two together are one range.
    pub fn is_followed_by(&self, next: &Publication) -> bool {
        let whole = Publication { port: next.port, length: next.length, target_port: next.target_port, ..*self };
        whole == *next
            && self.port.checked_add(self.length) == Some(next.port)
            && self.target_port.checked_add(self.length) == Some(next.target_port)
    }
}
