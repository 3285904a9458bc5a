//! `coracle events`.

use super::present::template::Template;
use super::present::{self, Reader};
use crate::engine::event::{self, Query};
use crate::engine::{Engine, moment};
use crate::state::event::{Event, now_ns};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::process::ExitCode;

/// Show events
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Filter output: KEY=VALUE
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Format the output to JSON lines or using a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Do not truncate the output (default true)
    #[arg(long, value_name = "BOOL")]
    no_trunc: Option<bool>,
    /// Show all events created since the time
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Show all events until the time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Stream events and do not exit after the last known event (default true)
    #[arg(long, value_name = "BOOL")]
    stream: Option<bool>,
}

/// Print what happened and what happens.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let time = |text: &Option<String>, what: &str| {
        let text = text.as_deref().filter(|text| !text.is_empty());
        text.map(|text| {
            moment::parse(text, now_ns())
                .with_context(|| format!("failed to parse event filters: unable to convert {what} time of {text}"))
        })
        .transpose()
    };
    let query = Query {
        since_ns: time(&args.since, "since")?,
        until_ns: time(&args.until, "until")?,
        stream: args.stream.unwrap_or(true),
        filters: event::parse_filters(&args.filter).context("failed to parse event filters")?,
    };
    let whole_ids = args.no_trunc.unwrap_or(true);
    let template = match args.format.as_deref() {
        None | Some("json") => None,
        Some(format) => Some(Template::parse(format)?),
    };
    event::follow(engine, &query, &mut |event| {
        let line = match (&template, args.format.as_deref()) {
            (Some(template), _) => template.render(&document(&event))?,
            (None, Some(_)) => serde_json::to_string(&without_empty(document(&event)))?,
            (None, None) => sentence(&event, whole_ids),
        };
        Ok(match present::write(format!("{line}\n").as_bytes())? {
            Reader::Reads => ControlFlow::Continue(()),
            Reader::Gone => ControlFlow::Break(()),
        })
    })?;
    Ok(ExitCode::SUCCESS)
}

/// podman's event object.
fn document(event: &Event) -> Value {
    json!({
        "Attributes": if event.attributes.is_empty() { Value::Null } else { json!(event.attributes) },
        "ContainerExitCode": event.exit_code,
        "ID": event.id,
        "Image": event.image,
        "Name": event.name,
        "network": event.network,
        "Network": event.network,
        "Status": event.status,
        "Time": event.time_ns / 1_000_000_000,
        "time": event.time_ns / 1_000_000_000,
        "TimeNano": event.time_ns,
        "timeNano": event.time_ns,
        "Type": event.kind,
        "HealthStatus": event.health,
        "health_status": event.health,
        "HealthFailingStreak": event.health_failing.unwrap_or(0),
        "health_failing_streak": event.health_failing,
        "HealthLog": event.health_log,
        "health_log": event.health_log,
        "PodID": "",
    })
}

/// JSON has each field once, and only those that say something.
fn without_empty(document: Value) -> Value {
    let Value::Object(fields) = document else { return document };
    let always = ["Status", "Type", "Attributes", "time", "timeNano"];
    let never = ["Time", "TimeNano", "Network", "HealthStatus", "HealthFailingStreak", "HealthLog"];
    let kept = fields.into_iter().filter(|(name, value)| {
        !never.contains(&name.as_str())
            && (always.contains(&name.as_str()) || !(value.is_null() || value.as_str() == Some("")))
    });
    Value::Object(kept.collect())
}

/// `TIME TYPE STATUS ID (image=…, name=…, LABEL=VALUE)`.
fn sentence(event: &Event, whole_ids: bool) -> String {
    let time = moment::go(event.time_ns);
    let id = if whole_ids { event.id.as_str() } else { event.id.get(..12).unwrap_or(&event.id) };
    let head = format!("{time} {} {}", event.kind, event.status);
    match event.kind.as_str() {
        "container" | "pod" => {
            let mut text = format!("{head} {id} (image={}, name={}", event.image, event.name);
            if !event.health.is_empty() {
                text.push_str(&format!(", health_status={}", event.health));
                if let Some(failing) = event.health_failing {
                    text.push_str(&format!(", health_failing_streak={failing}, health_log={}", event.health_log));
                }
            }
            for (key, value) in &event.attributes {
                text.push_str(&format!(", {key}={value}"));
            }
            text + ")"
        }
        "network" => match event.attributes.get("driver") {
            Some(driver) if ["create", "remove"].contains(&event.status.as_str()) => {
                format!("{head} {id} (name={}, type={driver})", network_name(event))
            }
            _ => format!("{head} {id} (container={id}, name={})", network_name(event)),
        },
        "image" | "artifact" => format!("{head} {id} {}", event.name),
        "secret" => format!("{head} {id}"),
        _ => format!("{head} {}", event.name).trim_end().to_owned(),
    }
}

fn network_name(event: &Event) -> &str {
    if event.network.is_empty() { &event.name } else { &event.network }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, status: &str) -> Event {
        Event {
            time_ns: 1_500_000_000,
            kind: kind.to_owned(),
            status: status.to_owned(),
            id: "ab".repeat(32),
            name: "web".to_owned(),
            image: "docker.io/library/a:1".to_owned(),
            ..Event::default()
        }
    }

    #[test]
    fn sentences() {
        let tail = |event: &Event| sentence(event, false).split_once(" container ").map(|(_, tail)| tail.to_owned());
        let mut start = event("container", "start");
        start.attributes.insert("a".to_owned(), "b".to_owned());
        assert_eq!(tail(&start).unwrap(), "start abababababab (image=docker.io/library/a:1, name=web, a=b)");
        assert!(sentence(&event("image", "pull"), true).ends_with(" web"));
        assert!(sentence(&event("volume", "create"), true).ends_with("volume create web"));
    }

    #[test]
    fn json_lines() {
        let mut died = event("container", "died");
        died.exit_code = Some(3);
        let line = serde_json::to_string(&without_empty(document(&died))).unwrap();
        assert!(line.contains("\"ContainerExitCode\":3") && line.contains("\"Attributes\":null"), "{line}");
        assert!(!line.contains("\"Time\"") && !line.contains("network"), "{line}");
    }
}
