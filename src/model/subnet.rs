//! Subnets, ranges and hardware addresses as numbers: pure arithmetic.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An address and the length of its network part. Written `10.89.0.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    /// An address in it; the first one after [`Subnet::network`].
    pub address: IpAddr,
    /// Bits of the network part.
    pub prefix: u8,
}

impl Subnet {
    /// The same with a host part of zeros.
    pub fn network(self) -> Subnet {
        Subnet { address: from_number(number(self.address) & !self.host_mask(), self.address), prefix: self.prefix }
    }

    /// Whether the address is in it.
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && (number(address) ^ number(self.address)) & !self.host_mask() == 0
    }

    /// Whether the two have an address in common.
    pub fn overlaps(self, other: Subnet) -> bool {
        if self.prefix <= other.prefix { self.contains(other.address) } else { other.contains(self.address) }
    }

    /// The last address.
    pub fn last(self) -> IpAddr {
        from_number(number(self.address) | self.host_mask(), self.address)
    }

    /// The first address that may be given to somebody: not the network's own, unless the subnet is a point to point one.
    pub fn first_host(self) -> IpAddr {
        let skip = u128::from(self.host_mask() > 1);
        from_number(number(self.network().address) + skip, self.address)
    }

    /// The last address that may be given to somebody: not the broadcast address.
    pub fn last_host(self) -> IpAddr {
        let skip = u128::from(self.address.is_ipv4() && self.host_mask() > 1);
        from_number(number(self.last()) - skip, self.address)
    }

    fn host_mask(self) -> u128 {
        let bits = if self.address.is_ipv4() { 32 } else { 128 };
        let host = bits - u32::from(self.prefix).min(bits);
        if host == 128 { u128::MAX } else { (1 << host) - 1 }
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Subnet> {
        let wrong = || format!("`{text}` is not a subnet: write it as 10.1.2.0/24 or fd00:1::/64");
        let (address, prefix) = text.split_once('/').with_context(wrong)?;
        let address: IpAddr = address.parse().with_context(wrong)?;
        let prefix: u8 = prefix.parse().with_context(wrong)?;
        ensure!(prefix <= if address.is_ipv4() { 32 } else { 128 }, "{}", wrong());
        Ok(Subnet { address, prefix })
    }
}

impl Serialize for Subnet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Subnet, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// An address as a number.
pub fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// A number as an address of the same family as `like`.
pub fn from_number(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(number as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

/// Parse `xx:xx:xx:xx:xx:xx` (or with `-`); refuses group addresses, which no link may have.
pub fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let separator = if text.contains('-') { '-' } else { ':' };
    let mut mac = [0; 6];
    let mut parts = text.split(separator);
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2);
        let value = part.and_then(|part| u8::from_str_radix(part, 16).ok());
        *byte = value.with_context(|| format!("`{text}` is not a MAC address: write it as 02:00:00:00:00:01"))?;
    }
    if parts.next().is_some() {
        bail!("`{text}` is not a MAC address: write it as 02:00:00:00:00:01");
    }
    ensure!(
        mac[0] & 1 == 0 && mac != [0; 6],
        "`{text}` is the address of a group or of nobody, no link can have it: Cannot assign requested address"
    );
    Ok(mac)
}

/// A MAC address as people write it.
pub fn format_mac(mac: [u8; 6]) -> String {
    let parts: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    parts.join(":")
}

/// A hardware address that follows from the address: whoever gets the address next gets the same neighbours' entries.
pub fn mac_of(address: IpAddr) -> [u8; 6] {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [0x02, 0x63, a, b, c, d]
        }
        IpAddr::V6(address) => {
            // FNV-1a over the whole address; the low bytes of two neighbours differ, so their hashes do.
            let hash = address
                .octets()
                .iter()
                .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
            let [a, b, c, d, e, ..] = hash.to_be_bytes();
            [0x06, a, b, c, d, e]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn ends() {
        for (text, first, last) in [
            ("10.89.0.0/24", "10.89.0.1", "10.89.0.254"),
            ("10.89.3.77/16", "10.89.0.1", "10.89.255.254"),
            ("10.0.0.4/31", "10.0.0.4", "10.0.0.5"),
            ("10.0.0.4/32", "10.0.0.4", "10.0.0.4"),
            ("fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:ffff"),
            ("0.0.0.0/0", "0.0.0.1", "255.255.255.254"),
        ] {
            assert_eq!(subnet(text).first_host().to_string(), first, "{text}");
            assert_eq!(subnet(text).last_host().to_string(), last, "{text}");
        }
    }

    #[test]
    fn overlap() {
        for (a, b, expected) in [
            ("10.0.0.0/8", "10.89.0.0/24", true),
            ("10.89.0.0/24", "10.89.1.0/24", false),
            ("10.89.0.0/24", "10.89.0.128/25", true),
            ("fd00::/8", "10.0.0.0/8", false),
            ("::/0", "fd00::/64", true),
        ] {
            assert_eq!(subnet(a).overlaps(subnet(b)), expected);
            assert_eq!(subnet(b).overlaps(subnet(a)), expected);
        }
    }

    #[test]
    fn wrong_ones() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "a/8", "10.0.0.0/-1"] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
        for text in
            ["", "02:00:00:00:00", "02:00:00:00:00:01:02", "01:00:00:00:00:01", "2:0:0:0:0:1", "zz:00:00:00:00:01"]
        {
            assert!(parse_mac(text).is_err(), "{text}");
        }
        assert_eq!(format_mac(parse_mac("02-00-00-aa-00-01").unwrap()), "02:00:00:aa:00:01");
    }
}
