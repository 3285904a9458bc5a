//! The few packets the forwarder reads and writes itself: the first of a TCP connection, its refusal, and echoes. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A packet that somebody has to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Somebody connects.
    Connect {
        /// Who.
        source: SocketAddr,
        /// To whom.
        target: SocketAddr,
        /// The sequence number, for a refusal.
        sequence: u32,
    },
    /// Somebody asks for an echo.
    Echo {
        /// Who.
        source: IpAddr,
        /// Of whom.
        target: IpAddr,
        /// The ICMP message from its type on.
        message: Vec<u8>,
    },
}

/// Read a frame; `None`: it is none of our business.
pub fn parse(frame: &[u8]) -> Option<Seen> {
    let packet = frame.get(ETHERNET..)?;
    let (source, target, protocol, body) = match frame[12..14] {
        [0x08, 0x00] => parse_ipv4(packet)?,
        [0x86, 0xdd] => parse_ipv6(packet)?,
        _ => return None,
    };
    match protocol {
        TCP => {
            let header = body.get(..20)?;
            if header[13] & (SYN | ACK | RST) != SYN {
                return None;
            }
            let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
            Some(Seen::Connect {
                source: SocketAddr::new(source, port(0)),
                target: SocketAddr::new(target, port(2)),
                sequence: u32::from_be_bytes(header[4..8].try_into().ok()?),
            })
        }
        ICMP | ICMPV6 => {
            let request = if protocol == ICMP { 8 } else { 128 };
            let is_echo = body.len() >= 8 && body[0] == request && source.is_ipv4() == (protocol == ICMP);
            is_echo.then(|| Seen::Echo { source, target, message: body.to_vec() })
        }
        _ => None,
    }
}

type Parsed<'a> = (IpAddr, IpAddr, u8, &'a [u8]);

fn parse_ipv4(packet: &[u8]) -> Option<Parsed<'_>> {
    let header = packet.get(..20)?;
    let length = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    // Version 4, and no fragment: what we look at is never longer than a packet.
    if header[0] >> 4 != 4 || u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return None;
    }
    let address = |at: usize| IpAddr::V4(Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]));
    Some((address(12), address(16), header[9], packet.get(length..total)?))
}

fn parse_ipv6(packet: &[u8]) -> Option<Parsed<'_>> {
    let header = packet.get(..40)?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let address = |at: usize| -> Option<IpAddr> {
        Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&header[at..at + 16]).ok()?)))
    };
    Some((address(8)?, address(24)?, header[6], packet.get(40..40 + length)?))
}

/// Write the checksum of a frame that [`parse`] took for a connection. The one who sent it left that to hardware which is
/// not there.
pub fn settle(frame: &mut [u8]) {
    let Some(packet) = frame.get(ETHERNET..) else { return };
    let is_ipv4 = packet.first().is_some_and(|first| first >> 4 == 4);
    let Some((source, target, protocol, body)) = (if is_ipv4 { parse_ipv4(packet) } else { parse_ipv6(packet) }) else {
        return;
    };
    let length = body.len();
    let mut pseudo = Vec::with_capacity(32);
    for address in [source, target] {
        match address {
            IpAddr::V4(address) => pseudo.extend(address.octets()),
            IpAddr::V6(address) => pseudo.extend(address.octets()),
        }
    }
    // An IPv4 packet may be followed by the padding of a short frame.
    let end = if is_ipv4 {
        ETHERNET + usize::from(u16::from_be_bytes([packet[2], packet[3]]))
    } else {
        ETHERNET + 40 + length
    };
    let start = end - length;
    frame[start + 16..start + 18].fill(0);
    let total = sum(sum(0, &pseudo), &frame[start..end]) + u32::from(protocol) + length as u32;
    let checksum = finish(total).to_be_bytes();
    frame[start + 16..start + 18].copy_from_slice(&checksum);
}

/// The answer to a connection that is refused: to the one who asked, in the name of the one asked.
pub fn refusal(source: SocketAddr, target: SocketAddr, sequence: u32, ethernet: [u8; 12]) -> Vec<u8> {
    let mut tcp = vec![0; 20];
    tcp[0..2].copy_from_slice(&target.port().to_be_bytes());
    tcp[2..4].copy_from_slice(&source.port().to_be_bytes());
    tcp[8..12].copy_from_slice(&sequence.wrapping_add(1).to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = RST | ACK;
    frame(target.ip(), source.ip(), TCP, tcp, 16, ethernet)
}

/// The answer to an echo: `message` is the ICMP message as the other end gave it.
pub fn echo(source: IpAddr, target: IpAddr, mut message: Vec<u8>, ethernet: [u8; 12]) -> Vec<u8> {
    message[2..4].fill(0);
    let protocol = if source.is_ipv4() { ICMP } else { ICMPV6 };
    frame(target, source, protocol, message, 2, ethernet)
}

/// A frame with a packet with a body whose checksum is at `checksum`.
fn frame(
    source: IpAddr,
    target: IpAddr,
    protocol: u8,
    mut body: Vec<u8>,
    checksum: usize,
    ethernet: [u8; 12],
) -> Vec<u8> {
    let mut pseudo = Vec::with_capacity(40);
    let mut packet = Vec::with_capacity(ETHERNET + 40 + body.len());
    packet.extend(ethernet);
    match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            packet.extend([0x08, 0x00]);
            let mut header = [0u8; 20];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&((20 + body.len()) as u16).to_be_bytes());
            header[6] = 0x40;
            header[8] = 64;
            header[9] = protocol;
            header[12..16].copy_from_slice(&source.octets());
            header[16..20].copy_from_slice(&target.octets());
            let sum = finish(sum(0, &header));
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            packet.extend(header);
            if protocol != ICMP {
                pseudo.extend(source.octets());
                pseudo.extend(target.octets());
            }
        }
        (source, target) => {
            packet.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            packet.extend((body.len() as u16).to_be_bytes());
            packet.extend([protocol, 64]);
            for address in [source, target] {
                if let IpAddr::V6(address) = address {
                    packet.extend(address.octets());
                    pseudo.extend(address.octets());
                }
            }
        }
    }
    let mut total = sum(0, &body);
    if !pseudo.is_empty() {
        total = sum(total, &pseudo) + u32::from(protocol) + body.len() as u32;
    }
    body[checksum..checksum + 2].copy_from_slice(&finish(total).to_be_bytes());
    packet.extend(body);
    packet
}

fn sum(start: u32, bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(start, |total, pair| {
        let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        let total = total + u32::from(word);
        (total & 0xffff) + (total >> 16)
    })
}

fn finish(mut total: u32) -> u16 {
    while total >> 16 != 0 {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETHER: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

    fn syn(source: &str, target: &str) -> Vec<u8> {
        // A refusal is a TCP packet too: turned round and with another flag it is a SYN.
        let (source, target): (SocketAddr, SocketAddr) = (source.parse().unwrap(), target.parse().unwrap());
        let mut frame = refusal(target, source, 6, ETHER);
        let flags = frame.len() - 7;
        frame[flags] = SYN;
        let at = frame.len() - 16;
        frame[at..at + 4].copy_from_slice(&7u32.to_be_bytes());
        frame
    }

    #[test]
    fn sees_connections_only() {
        for (source, target) in [("10.0.0.2:40000", "1.2.3.4:80"), ("[fd00::2]:40000", "[fd00::1]:80")] {
            let mut frame = syn(source, target);
            let expected =
                Seen::Connect { source: source.parse().unwrap(), target: target.parse().unwrap(), sequence: 7 };
            assert_eq!(parse(&frame), Some(expected));
            let flags = frame.len() - 7;
            frame[flags] = SYN | ACK;
            assert_eq!(parse(&frame), None);
        }
    }

    #[test]
    fn checksums_add_up() {
        let frame = refusal("10.0.0.2:1".parse().unwrap(), "1.2.3.4:80".parse().unwrap(), 7, ETHER);
        assert_eq!(finish(sum(0, &frame[14..34])), 0);
        let mut spoiled = frame.clone();
        spoiled[50..52].fill(0xab);
        settle(&mut spoiled);
        assert_eq!(spoiled, frame);
        let mut pseudo = frame[26..34].to_vec();
        pseudo.extend([0, TCP, 0, 20]);
        assert_eq!(finish(sum(sum(0, &pseudo), &frame[34..])), 0);
        let reply =
            echo("10.0.0.2".parse().unwrap(), "1.2.3.4".parse().unwrap(), vec![0, 0, 9, 9, 0, 1, 0, 1, 65], ETHER);
        assert_eq!(finish(sum(0, &reply[34..])), 0);
    }

    #[test]
    fn noise_is_nobodys_business() {
        let good = syn("10.0.0.2:40000", "1.2.3.4:80");
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..20_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let mut frame = good.clone();
            let length = frame.len();
            frame[state as usize % length] = (state >> 8) as u8;
            frame[(state >> 16) as usize % length] = (state >> 24) as u8;
            frame.truncate((state >> 32) as usize % (length + 1));
            if let Some(Seen::Connect { .. }) = parse(&frame) {
                settle(&mut frame);
            }
        }
    }
}
