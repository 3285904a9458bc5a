//! Host names to addresses: /etc/hosts, then the servers of /etc/resolv.conf over UDP and TCP.
//!
//! Not a cache and not a server. It is here because `getaddrinfo` of a statically linked glibc loads NSS libraries at run
//! time, of whatever version the host has; those are never loaded.
//!
//! Invariant: an answer is taken only from the server that was asked, for the question that was asked.

use anyhow::{Context, Result, bail};
use std::hash::{BuildHasher, Hasher};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;

/// All addresses of a host, the preferred first.
///
/// # Errors
/// `lookup NAME: no such host`, or what stood in the way of asking.
pub fn addresses(host: &str) -> Result<Vec<IpAddr>> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![address]);
    }
    if host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost") {
        let found = std::fs::read_to_string("/etc/hosts").map(|text| in_hosts(&text, host)).unwrap_or_default();
        return Ok(if found.is_empty() { vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] } else { found });
    }
    if let Ok(text) = std::fs::read_to_string("/etc/hosts") {
        let found = in_hosts(&text, host);
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut found = ask(&Configuration::parse(&text), host).with_context(|| format!("lookup {host}"))?;
    sort_by_reachability(&mut found);
    Ok(found)
}

/// What resolv.conf(5) says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Configuration {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    dots: usize,
    timeout: Duration,
    attempts: u32,
}

impl Configuration {
    fn parse(text: &str) -> Configuration {
        let mut found = Configuration {
            servers: Vec::new(),
            search: Vec::new(),
            dots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in text.lines() {
            let mut words = line.split(['#', ';']).next().unwrap_or_default().split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    // A zone (`fe80::1%eth0`) needs an interface's number; such servers are passed over.
                    if let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) {
                        found.servers.push(SocketAddr::new(address, 53));
                    }
                }
                Some("search" | "domain") => found.search = words.map(str::to_owned).collect(),
                Some("options") => words.for_each(|option| match option.split_once(':') {
                    Some(("ndots", value)) => found.dots = value.parse().unwrap_or(1).min(15),
                    Some(("timeout", value)) => {
                        found.timeout = Duration::from_secs(value.parse().unwrap_or(5).clamp(1, 30));
                    }
                    Some(("attempts", value)) => found.attempts = value.parse().unwrap_or(2).clamp(1, 5),
                    _ => {}
                }),
                _ => {}
            }
        }
        found.servers.truncate(3);
        if found.servers.is_empty() {
            found.servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 53)));
        }
        found
    }

    /// The names to ask for, in order.
    fn candidates(&self, host: &str) -> Vec<String> {
        if let Some(absolute) = host.strip_suffix('.') {
            return vec![absolute.to_owned()];
        }
        let searched = self.search.iter().filter(|domain| *domain != ".").map(|domain| format!("{host}.{domain}"));
        let plain = std::iter::once(host.to_owned());
        if host.matches('.').count() >= self.dots {
            plain.chain(searched).collect()
        } else {
            searched.chain(plain).collect()
        }
    }
}

fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
        if words.any(|name| name.eq_ignore_ascii_case(host)) && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

fn ask(configuration: &Configuration, host: &str) -> Result<Vec<IpAddr>> {
    let mut trouble = None;
    for name in configuration.candidates(host) {
        match ask_one_name(configuration, &name) {
            Ok(found) if !found.is_empty() => return Ok(found),
            Ok(_) => {}
            Err(error) => trouble = Some(error),
        }
    }
    match trouble {
        Some(error) => Err(error),
        None => bail!("no such host"),
    }
}

fn ask_one_name(configuration: &Configuration, name: &str) -> Result<Vec<IpAddr>> {
    let mut trouble = None;
    for _ in 0..configuration.attempts {
        for server in &configuration.servers {
            match ask_server(*server, name, configuration.timeout) {
                Ok(found) => return Ok(found),
                Err(error) => trouble = Some(error.context(format!("ask {server}"))),
            }
        }
    }
    Err(trouble.unwrap_or_else(|| anyhow::anyhow!("no name server")))
}

/// Both questions at once over one socket; over TCP what was too long.
fn ask_server(server: SocketAddr, name: &str, timeout: Duration) -> Result<Vec<IpAddr>> {
    let local: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(local)?;
    socket.connect(server)?;
    let deadline = Instant::now() + timeout;
    let mut open: Vec<(u16, u16)> = vec![(random(), TYPE_A), (random(), TYPE_AAAA)];
    for (id, kind) in &open {
        socket.send(&question(*id, name, *kind)?)?;
    }
    let mut found = Vec::new();
    let mut packet = [0_u8; 4096];
    while !open.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // Some servers never answer AAAA: what came is good.
            if found.is_empty() {
                bail!("no answer within {} s", timeout.as_secs());
            }
            break;
        }
        socket.set_read_timeout(Some(left))?;
        let length = match socket.recv(&mut packet) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                continue;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        let Some(index) = open.iter().position(|(id, _)| packet[..length].starts_with(&id.to_be_bytes())) else {
            continue;
        };
        let (id, kind) = open[index];
        match read_answer(&packet[..length], id, name, kind) {
            Some(Answer::Addresses(more)) => found.extend(more),
            Some(Answer::Truncated) => found.extend(ask_by_tcp(server, name, kind, timeout)?),
            Some(Answer::Failed(code)) => bail!("the server answers {}", code_name(code)),
            None => continue,
        }
        open.swap_remove(index);
    }
    Ok(found)
}

fn ask_by_tcp(server: SocketAddr, name: &str, kind: u16, timeout: Duration) -> Result<Vec<IpAddr>> {
    let id = random();
    let mut stream = TcpStream::connect_timeout(&server, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let packet = question(id, name, kind)?;
    let mut framed = u16::try_from(packet.len())?.to_be_bytes().to_vec();
    framed.extend(packet);
    stream.write_all(&framed)?;
    let mut length = [0_u8; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0_u8; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    match read_answer(&answer, id, name, kind) {
        Some(Answer::Addresses(found)) => Ok(found),
        Some(Answer::Failed(code)) => bail!("the server answers {}", code_name(code)),
        _ => bail!("the server's answer makes no sense"),
    }
}

fn question(id: u16, name: &str, kind: u16) -> Result<Vec<u8>> {
    let mut packet = Vec::with_capacity(name.len() + 18);
    packet.extend(id.to_be_bytes());
    // Recursion desired, one question.
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        if label.is_empty() || label.len() > 63 || !label.is_ascii() {
            bail!("`{name}` is not a host name");
        }
        packet.push(label.len() as u8);
        packet.extend(label.as_bytes());
    }
    if packet.len() > 12 + 254 {
        bail!("`{name}` is not a host name: too long");
    }
    packet.push(0);
    packet.extend(kind.to_be_bytes());
    packet.extend([0, 1]);
    Ok(packet)
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Addresses(Vec<IpAddr>),
    Truncated,
    Failed(u8),
}

/// `None`: not an answer to this question.
fn read_answer(packet: &[u8], id: u16, name: &str, kind: u16) -> Option<Answer> {
    let half = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let flags = half(2)?;
    if half(0)? != id || flags & 0x8000 == 0 || half(4)? != 1 {
        return None;
    }
    let asked = question(id, name, kind).ok()?;
    let question_end = asked.len();
    if !packet.get(12..question_end)?.eq_ignore_ascii_case(&asked[12..]) {
        return None;
    }
    match (flags & 0x000f) as u8 {
        0 => {}
        3 => return Some(Answer::Addresses(Vec::new())),
        code => return Some(Answer::Failed(code)),
    }
    if flags & 0x0200 != 0 {
        return Some(Answer::Truncated);
    }
    let mut at = question_end;
    let mut found = Vec::new();
    for _ in 0..half(6)? {
        at = skip_name(packet, at)?;
        let (record, length) = (half(at)?, usize::from(half(at + 8)?));
        let data = packet.get(at + 10..at + 10 + length)?;
        // CNAMEs are followed by the server; their targets' addresses stand in the same answer.
        match (record, data) {
            (TYPE_A, [a, b, c, d]) if kind == TYPE_A => found.push(IpAddr::from([*a, *b, *c, *d])),
            (TYPE_AAAA, data) if kind == TYPE_AAAA => found.push(IpAddr::from(<[u8; 16]>::try_from(data).ok()?)),
            _ => {}
        }
        at += 10 + length;
    }
    Some(Answer::Addresses(found))
}

fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            length if length & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

fn code_name(code: u8) -> String {
    match code {
        1 => "that it cannot read the question".to_owned(),
        2 => "that it failed (SERVFAIL)".to_owned(),
        5 => "that it refuses (REFUSED)".to_owned(),
        other => format!("with code {other}"),
    }
}

/// Addresses the kernel has a route to come first, IPv6 before IPv4 among them (RFC 6724 in its simplest form).
fn sort_by_reachability(addresses: &mut [IpAddr]) {
    addresses.sort_by_key(|address| {
        let local: SocketAddr =
            if address.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        // Connecting a datagram socket sends nothing; it only looks for a route.
        let reachable = UdpSocket::bind(local).and_then(|socket| socket.connect((*address, 53))).is_ok();
        (!reachable, address.is_ipv4())
    });
}

/// A question's number: the standard library's hash keys are random, and the kernel chooses the port.
fn random() -> u16 {
    std::hash::RandomState::new().build_hasher().finish() as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_resolv_conf() {
        let text = "# x\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver ::1\nsearch a.test b.test\n\
                    options ndots:2 timeout:3 attempts:9\n";
        let found = Configuration::parse(text);
        assert_eq!(found.servers, ["192.0.2.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]);
        assert_eq!((found.dots, found.timeout.as_secs(), found.attempts), (2, 3, 5));
        assert_eq!(found.candidates("x.y"), ["x.y.a.test", "x.y.b.test", "x.y"]);
        assert_eq!(found.candidates("x.y.z"), ["x.y.z", "x.y.z.a.test", "x.y.z.b.test"]);
        assert_eq!(found.candidates("x."), ["x"]);
        assert_eq!(Configuration::parse("").servers, ["127.0.0.1:53".parse().unwrap()]);
    }

    #[test]
    fn reads_hosts() {
        let text = "127.0.0.1 localhost\n::1 LocalHost ip6\n192.0.2.7 a b # c\n";
        assert_eq!(in_hosts(text, "localhost").len(), 2);
        assert_eq!(in_hosts(text, "B"), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        assert!(in_hosts(text, "c").is_empty());
    }

    #[test]
    fn reads_answers_and_refuses_others() {
        let mut packet = question(7, "r.test", TYPE_A).unwrap();
        packet[2] = 0x81;
        packet[3] = 0x80;
        packet[7] = 2;
        // A CNAME first, then an address by a compressed name.
        packet.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 12]);
        packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 9]);
        let expected = Answer::Addresses(vec!["192.0.2.9".parse().unwrap()]);
        assert_eq!(read_answer(&packet, 7, "R.test", TYPE_A), Some(expected));
        assert_eq!(read_answer(&packet, 8, "r.test", TYPE_A), None);
        assert_eq!(read_answer(&packet, 7, "s.test", TYPE_A), None);
        for length in 0..packet.len() {
            let _ = read_answer(&packet[..length], 7, "r.test", TYPE_A);
        }
        packet[2] |= 2;
        assert_eq!(read_answer(&packet, 7, "r.test", TYPE_A), Some(Answer::Truncated));
        packet[3] = 0x83;
        assert_eq!(read_answer(&packet, 7, "r.test", TYPE_A), Some(Answer::Addresses(Vec::new())));
        assert!(question(1, "a..b", TYPE_A).is_err());
        assert!(question(1, &"a".repeat(64), TYPE_A).is_err());
    }
}
