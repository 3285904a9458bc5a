//! `coracle inspect`, and `coracle container inspect`.

use super::present;
use crate::engine::list::{self, Listed};
use crate::engine::{Engine, image, inspect, moment, network, top, volume};
use crate::failure::{self, Failure, Kind};
use crate::image::store;
use crate::state::container;
use crate::storage::volume::{self as stored, Volume};
use anyhow::{Result, bail, ensure};
use serde_json::Value;
use std::process::ExitCode;

/// Display the configuration of objects denoted by ID
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Format the output to a Go template or json
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Return the document of the latest container
    #[arg(short, long)]
    pub latest: bool,
    /// Display total file size of containers
    #[arg(short, long)]
    pub size: bool,
    /// Type of the objects: all, container, image, network, pod or volume
    #[arg(short, long, value_name = "TYPE", default_value = "all", hide_default_value = true)]
    pub r#type: String,
    /// Names or IDs
    #[arg(value_name = "CONTAINER|IMAGE|NETWORK|VOLUME")]
    pub names: Vec<String>,
}

/// Find each, print all that were found, and say what was not.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let kinds: &[Kinds] = match args.r#type.as_str() {
        "all" => &[Kinds::Container, Kinds::Image, Kinds::Volume, Kinds::Network],
        "container" => &[Kinds::Container],
        "image" => &[Kinds::Image],
        "volume" => &[Kinds::Volume],
        "network" => &[Kinds::Network],
        "pod" => bail!("inspect --type pod is not supported yet"),
        other => bail!(
            "the only recognized types are image, container, volume, network, pod, or all: invalid type {other:?}"
        ),
    };
    if args.latest {
        ensure!(args.names.is_empty(), "--latest and arguments cannot be used together");
        ensure!(kinds.contains(&Kinds::Container), "latest flag is not supported for type {:?}", args.r#type);
        let latest = inspect::document(engine, &list::latest(engine)?, args.size)?;
        return show(args.format.as_deref(), vec![latest], Vec::new());
    }
    ensure!(!args.names.is_empty(), "no names or ids specified");
    ensure!(!args.size || kinds.contains(&Kinds::Container), "size is not supported for type {:?}", args.r#type);
    let is_template = is_template(args.format.as_deref());
    let mut documents = Vec::new();
    let mut missing = Vec::new();
    for name in &args.names {
        match find(engine, kinds, name, (args.size, is_template))? {
            Some(document) => documents.push(document),
            None => missing.push(no_such(&args.r#type, name)),
        }
    }
    show(args.format.as_deref(), documents, missing)
}

/// What has documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kinds {
    Container,
    Image,
    Volume,
    Network,
}

/// The document of whatever has this name.
pub(super) fn any(engine: &Engine, name: &str) -> Option<Value> {
    let kinds = [Kinds::Container, Kinds::Image, Kinds::Volume, Kinds::Network];
    find(engine, &kinds, name, (false, true)).ok().flatten()
}

/// The first kind that knows the name; `wish`: with sizes, and with the fields only templates see.
fn find(engine: &Engine, kinds: &[Kinds], name: &str, wish: (bool, bool)) -> Result<Option<Value>> {
    let (size, is_template) = wish;
    for kind in kinds {
        let document = match kind {
            Kinds::Container => match container::find(&engine.layout, name)? {
                Some(id) => {
                    let record = container::ContainerRecord::load(&engine.layout, &id)?;
                    let state = container::state(&engine.layout, &id)?;
                    Some(inspect::document(engine, &Listed { record, state }, size)?)
                }
                None => None,
            },
            Kinds::Image => match store::resolve(&engine.layout, name)? {
                Some(found) => Some(image::inspect(engine, &found)?),
                None => None,
            },
            Kinds::Network => match network::find(engine, name) {
                Ok(record) => Some(super::network::document(&record, &network::members(engine, &record)?)?),
                Err(error) if failure::kind_of(&error) == Kind::Missing => None,
                Err(error) => return Err(error),
            },
            Kinds::Volume if stored::names(&engine.layout)?.iter().any(|known| known == name) => {
                let found = Volume::find(&engine.layout, name)?;
                Some(if is_template { volume::fields(engine, &found) } else { volume::document(engine, &found) })
            }
            Kinds::Volume => None,
        };
        if document.is_some() {
            return Ok(document);
        }
    }
    Ok(None)
}

fn no_such(kind: &str, name: &str) -> String {
    match kind {
        "container" => format!("no such container {name:?}"),
        "image" => format!("no such image {name:?}"),
        "volume" => format!("no such volume {name:?}"),
        "network" => format!("network {name}: unable to find network with name or ID {name}: network not found"),
        _ => format!("no such object: {name:?}"),
    }
}

fn is_template(format: Option<&str>) -> bool {
    !matches!(format.map(str::trim), None | Some("json" | ""))
}

/// Documents on standard output, complaints behind them.
fn show(format: Option<&str>, documents: Vec<Value>, missing: Vec<String>) -> Result<ExitCode> {
    // What is asked for as JSON again keeps JSON's shapes.
    let is_plain = is_template(format) && !format.is_some_and(|format| format.contains("json"));
    let documents = if is_plain { documents.into_iter().map(with_methods).collect() } else { documents };
    present::documents(format, documents)?;
    if missing.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::new(Kind::Engine, missing.join("\n")).into())
}

/// What templates find in podman's objects though JSON has it otherwise: methods, Go's names of fields, and times and
/// durations as Go prints them.
fn with_methods(mut document: Value) -> Value {
    if let Some(health) = document.pointer("/State/Health").cloned() {
        document["State"]["Healthcheck"] = health;
    }
    if let Some(id) = document.get("Id").cloned() {
        document["ID"] = id;
    }
    for (field, json) in
        [("HealthMaxLogCount", "HealthcheckMaxLogCount"), ("HealthMaxLogSize", "HealthcheckMaxLogSize")]
    {
        if let Some(value) = document.pointer(&format!("/Config/{json}")).cloned() {
            document["Config"][field] = value;
        }
    }
    let times = ["/Created", "/State/StartedAt", "/State/FinishedAt", "/State/CheckpointedAt", "/State/RestoredAt"];
    for pointer in times {
        if let Some(value) = document.pointer_mut(pointer)
            && let Some(text) = value.as_str().and_then(moment::go_of_rfc3339)
        {
            *value = Value::String(text);
        }
    }
    for check in ["/Config/Healthcheck", "/Config/StartupHealthCheck"] {
        for field in ["Interval", "Timeout", "StartPeriod", "StartInterval"] {
            if let Some(value) = document.pointer_mut(&format!("{check}/{field}"))
                && let Some(nanoseconds) = value.as_f64()
            {
                *value = Value::String(top::go_duration(nanoseconds / 1e9));
            }
        }
    }
    document
}
