//! `coracle network`: one file per verb.

pub mod connect;
pub mod create;
pub mod disconnect;
pub mod exists;
pub mod inspect;
pub mod ls;
pub mod prune;
pub mod reload;
pub mod rm;
pub mod update;

use crate::engine::network;
use crate::state::network::{Member, NetworkRecord};
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

/// A network as podman's `network inspect` shows it.
pub fn document(record: &NetworkRecord, members: &[Member]) -> Result<Value> {
    let subnets: Vec<Value> = record
        .subnets
        .iter()
        .map(|pool| {
            let mut subnet = json!({ "subnet": pool.subnet });
            if let Some(gateway) = pool.gateway {
                subnet["gateway"] = json!(gateway);
            }
            if let Some((first, last)) = pool.range {
                subnet["lease_range"] = json!({ "start_ip": first, "end_ip": last });
            }
            subnet
        })
        .collect();
    let mut containers = Map::new();
    for member in members {
        containers.insert(member.id.clone(), container(record, member));
    }
    let mut document = json!({
        "name": network::shown_name(&record.name),
        "id": record.id,
        "driver": record.driver,
        "network_interface": record.interface,
        "created": created(record)?,
        "subnets": subnets,
        "ipv6_enabled": record.ipv6,
        "internal": record.internal,
        "dns_enabled": record.dns,
        "ipam_options": { "driver": record.ipam },
        "containers": containers,
    });
    let routes: Vec<Value> = record
        .routes
        .iter()
        .map(|route| {
            let mut value = json!({ "destination": route.destination, "gateway": route.gateway });
            if let Some(metric) = route.metric {
                value["metric"] = json!(metric);
            }
            value
        })
        .collect();
    for (key, value) in [
        ("routes", json!(routes)),
        ("network_dns_servers", json!(record.dns_servers)),
        ("labels", json!(record.labels)),
        ("options", json!(record.options)),
    ] {
        let empty = value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty);
        if !empty {
            document[key] = value;
        }
    }
    Ok(document)
}

fn container(record: &NetworkRecord, member: &Member) -> Value {
    let subnets: Vec<Value> = member
        .addresses
        .iter()
        .map(|address| {
            let pool = record.subnets.iter().find(|pool| pool.subnet.contains(address.address));
            match pool.and_then(|pool| pool.gateway) {
                Some(gateway) => json!({ "ipnet": address, "gateway": gateway }),
                None => json!({ "ipnet": address }),
            }
        })
        .collect();
    json!({
        "name": member.name,
        "interfaces": { member.interface.as_str(): { "subnets": subnets, "mac_address": member.mac } },
    })
}

fn created(record: &NetworkRecord) -> Result<String> {
    let time = jiff::Timestamp::from_nanosecond(record.created_ns.into()).context("read a time of creation")?;
    Ok(time.to_zoned_datetime(jiff::tz::TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string())
}
