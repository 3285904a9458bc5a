//! Published and exposed ports, in podman's shapes.

use crate::engine::list::Listed;
use crate::model::port::{PortMapping, Protocol};
use crate::network::attach::Attached;
use crate::state::container::State;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// What the network of a running container looks like.
pub fn attached(container: &Listed) -> Option<Attached> {
    match &container.state {
        State::Live(status) if !status.network.is_null() => serde_json::from_value(status.network.clone()).ok(),
        _ => None,
    }
}

/// Ports as they are published, or will be.
pub fn published(container: &Listed) -> Vec<PortMapping> {
    let wanted = &container.record.spec.network.publish;
    // Most containers publish nothing: their network is not looked at.
    match &container.state {
        State::Live(_) if !wanted.is_empty() || container.record.spec.network.publish_all => {
            attached(container).map_or_else(|| wanted.clone(), |attached| attached.ports)
        }
        _ => wanted.clone(),
    }
}

/// `0.0.0.0:8080->80/tcp, 443/tcp`.
pub fn text(container: &Listed) -> String {
    let exposed = &container.record.spec.network.expose;
    let published = published(container);
    if published.is_empty() && exposed.is_empty() {
        return String::new();
    }
    let mut parts = Vec::new();
    let mut known = BTreeSet::new();
    for port in &published {
        let address = host_address(port);
        let (first, inside, length) = (port.host_port, port.container_port, port.length.max(1));
        let protocol = port.protocol.as_str();
        parts.push(if length > 1 {
            format!(
                "{address}:{}->{}/{protocol}",
                range(first, first + (length - 1)),
                range(inside, inside + (length - 1))
            )
        } else {
            format!("{address}:{first}->{inside}/{protocol}")
        });
        known.extend((inside..=inside + (length - 1)).map(|number| (port.protocol.as_str(), number)));
    }
    let others: BTreeSet<(&str, u16)> = exposed
        .iter()
        .flat_map(|(first, last, protocol)| (*first..=*last).map(|number| (protocol.as_str(), number)))
        .filter(|port| !known.contains(port))
        .collect();
    let mut run: Option<(&str, u16, u16)> = None;
    for (protocol, number) in others {
        match &mut run {
            Some((own, _, last)) if *own == protocol && *last + 1 == number => *last = number,
            _ => {
                parts.extend(run.map(|(protocol, first, last)| format!("{}/{protocol}", range(first, last))));
                run = Some((protocol, number, number));
            }
        }
    }
    parts.extend(run.map(|(protocol, first, last)| format!("{}/{protocol}", range(first, last))));
    parts.join(", ")
}

fn range(first: u16, last: u16) -> String {
    let mut text = first.to_string();
    if last > first {
        let _ = write!(text, "-{last}");
    }
    text
}

fn host_address(port: &PortMapping) -> String {
    match port.host_ip {
        None => "0.0.0.0".to_owned(),
        Some(std::net::IpAddr::V6(address)) => format!("[{address}]"),
        Some(address) => address.to_string(),
    }
}

/// `ps --format json`: podman's list of mappings, `null` for none.
pub fn mappings(container: &Listed) -> Value {
    let published = published(container);
    if published.is_empty() {
        return Value::Null;
    }
    published
        .iter()
        .map(|port| {
            json!({
                "host_ip": port.host_ip.map_or(String::new(), |address| address.to_string()),
                "container_port": port.container_port,
                "host_port": port.host_port,
                "range": port.length.max(1),
                "protocol": port.protocol.as_str(),
            })
        })
        .collect()
}

/// `{"80": ["tcp"]}`, `null` for none.
pub fn exposed(container: &Listed) -> Value {
    let mut ports: BTreeMap<u16, BTreeSet<&str>> = BTreeMap::new();
    for (first, last, protocol) in &container.record.spec.network.expose {
        for number in *first..=*last {
            ports.entry(number).or_default().insert(protocol.as_str());
        }
    }
    if ports.is_empty() { Value::Null } else { json!(ports) }
}

/// One port inside and where it is on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Single {
    /// Port inside.
    pub inside: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Address of the host; empty: all.
    pub address: String,
    /// Port of the host.
    pub outside: u16,
}

/// Every published port by itself.
pub fn singles(container: &Listed) -> Vec<Single> {
    singles_of(&published(container))
}

/// Every port of these mappings by itself.
pub fn singles_of(mappings: &[PortMapping]) -> Vec<Single> {
    mappings
        .iter()
        .flat_map(|port| {
            (0..port.length.max(1)).map(|offset| Single {
                inside: port.container_port + offset,
                protocol: port.protocol,
                address: port.host_ip.map_or(String::new(), |address| address.to_string()),
                outside: if port.host_port == 0 { 0 } else { port.host_port + offset },
            })
        })
        .collect()
}

/// `{"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}`.
pub fn bindings(container: &Listed, with_exposed: bool) -> Value {
    let mut ports = Map::new();
    if with_exposed {
        for (first, last, protocol) in &container.record.spec.network.expose {
            for number in *first..=*last {
                ports.insert(format!("{number}/{}", protocol.as_str()), Value::Null);
            }
        }
    }
    for port in singles(container) {
        let address = if port.address.is_empty() { "0.0.0.0" } else { &port.address };
        let binding = json!({ "HostIp": address, "HostPort": port.outside.to_string() });
        match ports.entry(format!("{}/{}", port.inside, port.protocol.as_str())).or_insert(Value::Null) {
            Value::Array(bindings) => bindings.push(binding),
            entry => *entry = json!([binding]),
        }
    }
    Value::Object(ports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::list::tests::container;

    fn ports(publish: &[(Option<&str>, u16, u16, u16)], expose: &[(u16, u16, Protocol)]) -> Listed {
        let mut container = container("image");
        container.record.spec.network.publish = publish
            .iter()
            .map(|(address, host_port, container_port, length)| PortMapping {
                host_ip: address.map(|address| address.parse().unwrap()),
                host_port: *host_port,
                container_port: *container_port,
                length: *length,
                protocol: Protocol::Tcp,
            })
            .collect();
        container.record.spec.network.expose = expose.to_vec();
        container
    }

    #[test]
    fn as_ps_shows_them() {
        for (container, expected) in [
            (ports(&[], &[]), ""),
            (ports(&[(None, 8080, 80, 1)], &[]), "0.0.0.0:8080->80/tcp"),
            (ports(&[(Some("127.0.0.1"), 8000, 9000, 3)], &[]), "127.0.0.1:8000-8002->9000-9002/tcp"),
            (
                ports(&[(None, 8080, 80, 1)], &[(80, 83, Protocol::Tcp), (53, 53, Protocol::Udp)]),
                "0.0.0.0:8080->80/tcp, 81-83/tcp, 53/udp",
            ),
        ] {
            assert_eq!(text(&container), expected);
        }
    }

    #[test]
    fn as_inspect_shows_them() {
        let container = ports(&[(None, 8080, 80, 2)], &[(443, 443, Protocol::Tcp)]);
        assert_eq!(
            bindings(&container, true).to_string(),
            r#"{"443/tcp":null,"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}],"81/tcp":[{"HostIp":"0.0.0.0","HostPort":"8081"}]}"#
        );
        assert_eq!(exposed(&container).to_string(), r#"{"443":["tcp"]}"#);
    }
}
