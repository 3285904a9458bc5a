//! `NetworkSettings`: addresses and ports.

use super::ports;
use crate::engine::list::{self, Listed};
use crate::engine::{Engine, network};
use crate::model::network::{Endpoint, NetworkMode};
use crate::network::attach::{Attached, Interface};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// The document. Who shares another container's network shows that one's.
pub fn settings(engine: &Engine, container: &Listed) -> Value {
    if let Some(NetworkMode::Container(id)) = &container.record.spec.network.mode
        && let Ok(other) = list::get(engine, id)
        && !matches!(other.record.spec.network.mode, Some(NetworkMode::Container(_)))
    {
        return own(engine, &other);
    }
    own(engine, container)
}

fn own(engine: &Engine, container: &Listed) -> Value {
    let attached = ports::attached(container);
    let mut settings = addresses(None);
    if let Some([interface]) = attached.as_ref().map(|attached| attached.interfaces.as_slice()) {
        settings = addresses(Some(interface));
    }
    let pid = container.pid();
    let key = if pid > 0 { format!("/proc/{pid}/ns/net") } else { String::new() };
    let more = json!({
        "Bridge": "",
        "SandboxID": "",
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "Ports": ports::bindings(container, true),
        "SandboxKey": key,
    });
    let networks = match &container.record.spec.network.mode {
        Some(NetworkMode::Networks(endpoints)) => networks(container, endpoints, attached.as_ref()),
        Some(NetworkMode::Host) => nameless("host"),
        Some(NetworkMode::None) => nameless("none"),
        Some(NetworkMode::Pasta(_)) => nameless("pasta"),
        None if engine.privilege.rootless => nameless("pasta"),
        None => networks(container, std::slice::from_ref(&Endpoint::of_default()), attached.as_ref()),
        Some(NetworkMode::Container(_) | NetworkMode::Path(_)) => Map::new(),
    };
    if let (Value::Object(settings), Value::Object(more)) = (&mut settings, more) {
        settings.extend(more);
        settings.insert("Networks".to_owned(), Value::Object(networks));
    }
    settings
}

fn networks(container: &Listed, endpoints: &[Endpoint], attached: Option<&Attached>) -> Map<String, Value> {
    let interface =
        |name: &str| attached.and_then(|attached| attached.interfaces.iter().find(|own| own.network == name));
    endpoints
        .iter()
        .map(|endpoint| {
            let own = interface(&endpoint.network);
            let mut document = addresses(own);
            let mut aliases: Vec<&str> = endpoint.aliases.iter().map(String::as_str).collect();
            aliases.push(container.record.id.short());
            aliases.extend(container.record.spec.network.hostname.as_deref());
            document["NetworkID"] = json!(own.map_or(endpoint.network.as_str(), |interface| &interface.network_id));
            document["DriverOpts"] = Value::Null;
            document["IPAMConfig"] = Value::Null;
            document["Links"] = Value::Null;
            document["Aliases"] = json!(aliases);
            (network::shown_name(&endpoint.network).to_owned(), document)
        })
        .collect()
}

/// A mode that is no network of ours, in podman's shape.
fn nameless(mode: &str) -> Map<String, Value> {
    let mut document = addresses(None);
    document["NetworkID"] = json!(mode);
    for key in ["DriverOpts", "IPAMConfig", "Links"] {
        document[key] = Value::Null;
    }
    Map::from_iter([(mode.to_owned(), document)])
}

/// podman's basic network config, of an interface or of none.
fn addresses(interface: Option<&Interface>) -> Value {
    let mut document = json!({
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "MacAddress": "",
    });
    let Some(interface) = interface else { return document };
    document["MacAddress"] = json!(interface.mac);
    for address in &interface.addresses {
        let (field, length, more) = match address.address {
            IpAddr::V4(_) => ("IPAddress", "IPPrefixLen", "SecondaryIPAddresses"),
            IpAddr::V6(_) => ("GlobalIPv6Address", "GlobalIPv6PrefixLen", "SecondaryIPv6Addresses"),
        };
        if document[field] == "" {
            document[field] = json!(address.address);
            document[length] = json!(address.prefix);
            continue;
        }
        let further = json!({ "Addr": address.address, "PrefixLength": address.prefix });
        match &mut document[more] {
            Value::Array(list) => list.push(further),
            entry => *entry = json!([further]),
        }
    }
    for gateway in &interface.gateways {
        let field = if gateway.is_ipv4() { "Gateway" } else { "IPv6Gateway" };
        if document[field] == "" {
            document[field] = json!(gateway);
        }
    }
    document
}
