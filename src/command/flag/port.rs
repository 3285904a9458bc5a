//! The grammar of `--publish` and `--expose`.

use crate::model::port::{PortMapping, Protocol};
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::net::IpAddr;

/// `[[IP:][HOST[-HOST]]:]CONTAINER[-CONTAINER][/PROTOCOL]`, IPv6 in brackets.
pub fn publish(word: &str) -> Result<PortMapping> {
    let (ports, protocol) = protocol(word)?;
    let (host_ip, rest) = match ports.split_once(']') {
        Some((address, rest)) => {
            ensure!(
                !rest.contains(']'),
                "invalid port format - at most one IPv6 address can be specified in a --publish"
            );
            let address =
                address.strip_prefix('[').context("invalid port format - IPv6 addresses must be enclosed by []")?;
            let rest = rest
                .strip_prefix(':')
                .context("invalid port format - IPv6 address must be followed by a colon (':')")?;
            ensure!(
                rest.contains(':'),
                "invalid port format - must provide host and destination port if specifying an IP"
            );
            (Some(address), rest)
        }
        None => (None, ports),
    };
    let parts: Vec<&str> = rest.split(':').collect();
    let (host_ip, host, container) = match (host_ip, parts.as_slice()) {
        (None, [container]) => (None, None, *container),
        (host_ip, [host, container]) => (host_ip, Some(*host), *container),
        (None, [host_ip, host, container]) => (Some(*host_ip), Some(*host), *container),
        (Some(_), _) => bail!("invalid port format - when v6 address specified, must be [ipv6]:hostPort:ctrPort"),
        _ => bail!("invalid port format - format is [[hostIP:]hostPort:]containerPort"),
    };
    ensure!(!container.is_empty(), "must provide a non-empty container port to publish");
    let (container_port, length) = range(container).context("parsing container port")?;
    let host_ip = host_ip.map(address).transpose()?;
    let host_port = match host {
        None | Some("") => 0,
        Some(host) => {
            let (first, host_length) = range(host).context("parsing host port")?;
            ensure!(
                host_length == length,
                "host and container port ranges have different lengths: {host_length} vs {length}"
            );
            first
        }
    };
    Ok(PortMapping { host_ip, host_port, container_port, length, protocol })
}

/// `PORT[-PORT][/PROTOCOL]` to first port, last port, protocol.
pub fn expose(word: &str) -> Result<(u16, u16, Protocol)> {
    let (ports, protocol) = protocol(word)?;
    let (first, length) = range(ports)?;
    Ok((first, first + (length - 1), protocol))
}

fn protocol(word: &str) -> Result<(&str, Protocol)> {
    let Some((ports, protocol)) = word.split_once('/') else { return Ok((word, Protocol::Tcp)) };
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        "" => bail!("must provide a non-empty protocol to publish"),
        other if other.contains('/') => bail!("invalid port format - protocol can only be specified once"),
        other => bail!("unrecognized protocol {other:?} in port mapping"),
    };
    Ok((ports, protocol))
}

fn address(text: &str) -> Result<IpAddr> {
    ensure!(!text.is_empty(), "must provide a non-empty container host IP to publish");
    text.parse().map_err(|_| anyhow!("cannot parse {text:?} as an IP address"))
}

/// First port and how many.
fn range(text: &str) -> Result<(u16, u16)> {
    let (first, last) = match text.split_once('-') {
        None => (text, None),
        Some(("", _)) => bail!("port numbers cannot be negative"),
        Some((_, last)) if last.contains('-') => {
            bail!("invalid port format - port ranges are formatted as startPort-stopPort")
        }
        Some((_, "")) => bail!("must provide ending number for port range"),
        Some((first, last)) => (first, Some(last)),
    };
    let first = port(first)?;
    let Some(last) = last else { return Ok((first, 1)) };
    let last = port(last)?;
    ensure!(
        last > first,
        "the end port of a range must be higher than the start port - {last} is not higher than {first}"
    );
    Ok((first, last - first + 1))
}

fn port(text: &str) -> Result<u16> {
    let number: i64 = text.parse().map_err(|_| anyhow!("invalid port number: {text:?}"))?;
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => bail!("port numbers must be between 1 and 65535 (inclusive), got {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published() {
        let text = |word: &str| {
            publish(word).map(|port| {
                let ip = port.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
                format!("{ip} {} {} {} {}", port.host_port, port.container_port, port.length, port.protocol.as_str())
            })
        };
        for (word, expected) in [
            ("80", " 0 80 1 tcp"),
            ("8080:80", " 8080 80 1 tcp"),
            (":80", " 0 80 1 tcp"),
            ("127.0.0.1::80/udp", "127.0.0.1 0 80 1 udp"),
            ("127.0.0.1:8080:80/SCTP", "127.0.0.1 8080 80 1 sctp"),
            ("8000-8005:9000-9005", " 8000 9000 6 tcp"),
            ("9000-9005", " 0 9000 6 tcp"),
            ("[::1]:8080:80", "::1 8080 80 1 tcp"),
            ("[::]::80", ":: 0 80 1 tcp"),
        ] {
            assert_eq!(text(word).unwrap(), expected, "{word}");
        }
        for word in [
            "",
            "80/tcp/udp",
            "80/",
            "1:2:3:4",
            "[::1]:80",
            "::1:80:80",
            "[::1]80",
            "8000-8001:80",
            "80-70",
            "80-80",
            "0",
            "65536",
            "-80",
            "a",
            "x:1:80",
            "80-",
            "1-2-3",
            "80/icmp",
        ] {
            assert!(publish(word).is_err(), "{word}");
        }
    }

    #[test]
    fn exposed() {
        assert_eq!(expose("80").unwrap(), (80, 80, Protocol::Tcp));
        assert_eq!(expose("80-82/udp").unwrap(), (80, 82, Protocol::Udp));
        assert_eq!(expose("1-65535").unwrap(), (1, 65535, Protocol::Tcp));
        assert!(expose("80-79").is_err());
    }
}
