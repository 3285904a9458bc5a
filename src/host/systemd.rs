//! systemd's manager, system's or user's: transient scopes.
#![forbid(unsafe_code)]

use super::bus::{self, Body, Bus, Method, Refusal};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// A property of a unit, as systemd.resource-control(5) names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// Such as `MemoryMax`.
    pub name: &'static str,
    /// Its value.
    pub value: Value,
}

/// The types that unit properties have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `b`
    Truth(bool),
    /// `s`
    Text(String),
    /// `t`; `u64::MAX` is systemd's "infinity".
    Number(u64),
    /// `ay`: a bit mask, lowest byte first.
    Bytes(Vec<u8>),
    /// `au`
    Pids(Vec<u32>),
}

impl Property {
    /// A property with a value.
    pub fn new(name: &'static str, value: Value) -> Property {
        Property { name, value }
    }

    fn append(&self, body: &mut Body) {
        body.structure(|pair| {
            pair.text(self.name);
            match &self.value {
                Value::Truth(value) => pair.variant("b", |body| {
                    body.truth(*value);
                }),
                Value::Text(value) => pair.variant("s", |body| {
                    body.text(value);
                }),
                Value::Number(value) => pair.variant("t", |body| {
                    body.large(*value);
                }),
                Value::Bytes(value) => pair.variant("ay", |body| {
                    body.array(1, |list| {
                        value.iter().for_each(|byte| {
                            list.byte(*byte);
                        })
                    });
                }),
                Value::Pids(value) => pair.variant("au", |body| {
                    body.array(4, |list| {
                        value.iter().for_each(|pid| {
                            list.number(*pid);
                        })
                    });
                }),
            };
        });
    }
}

const SERVICE: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

fn method(name: &str) -> Method<'_> {
    Method { service: SERVICE, path: OBJECT, interface: MANAGER, name }
}

/// A connection to a manager.
#[derive(Debug)]
pub struct Manager {
    bus: Bus,
}

/// Where the bus of the system's (`None`) or a user's manager is.
fn bus_path(user: Option<u32>) -> PathBuf {
    user.map_or_else(bus::system_path, bus::user_path)
}

/// Whether systemd runs this host and the manager (a user's, by id on the host) can be asked.
pub fn is_there(user: Option<u32>) -> bool {
    // sd_booted(3)
    Path::new("/run/systemd/system").is_dir() && bus_path(user).exists()
}

impl Manager {
    /// Connects to the system's manager, or to that of the user with this id on the host.
    pub fn connect(user: Option<u32>) -> Result<Manager> {
        Ok(Manager { bus: Bus::connect(&bus_path(user)).context("ask systemd")? })
    }

    /// Starts a transient unit and waits until it stands. One of the same name that is left over gives way.
    pub fn start_transient(&mut self, unit: &str, properties: &[Property]) -> Result<()> {
        self.bus.listen(&format!("type='signal',sender='{SERVICE}',interface='{MANAGER}',member='JobRemoved'"))?;
        // Without it the manager sends no signals at all.
        self.bus.call(method("Subscribe"), "", &Body::default()).map(drop).or_else(already_subscribed)?;
        let mut body = Body::default();
        body.text(unit).text("replace");
        body.array(8, |list| properties.iter().for_each(|property| property.append(list)));
        body.array(8, |_| {});
        let start = |manager: &mut Manager| manager.run_job("StartTransientUnit", "ssa(sv)a(sa(sv))", &body);
        match start(self) {
            Err(error) if is_refusal(&error, "UnitExists") => {
                self.stop(unit)?;
                start(self)
            }
            result => result,
        }
        .with_context(|| format!("start unit {unit}"))
    }

    /// Stops a unit and waits for it; one that is not there is stopped.
    pub fn stop(&mut self, unit: &str) -> Result<()> {
        let mut body = Body::default();
        body.text(unit).text("replace");
        match self.run_job("StopUnit", "ss", &body) {
            Err(error) if is_refusal(&error, "NoSuchUnit") => Ok(()),
            result => {
                // A failed unit keeps its name until told to forget.
                let _ = self.bus.call(method("ResetFailedUnit"), "s", Body::default().text(unit));
                result.with_context(|| format!("stop unit {unit}"))
            }
        }
    }

    fn run_job(&mut self, name: &str, signature: &str, body: &Body) -> Result<()> {
        let answer = self.bus.call(method(name), signature, body)?;
        let job = bus::Reader::new(&answer).text().context("the answer names no job")?;
        // JobRemoved(u id, o job, s unit, s result)
        let result = self.bus.wait_for("JobRemoved", |reader| {
            reader.number()?;
            let removed = reader.text()?;
            reader.text()?;
            let result = reader.text()?;
            (removed == job).then_some(result)
        })?;
        match result.as_str() {
            "done" => Ok(()),
            other => bail!("systemd's job ended as `{other}`"),
        }
    }

    /// Sets properties of a unit that runs.
    pub fn set(&mut self, unit: &str, properties: &[Property]) -> Result<()> {
        let mut body = Body::default();
        body.text(unit).truth(true);
        body.array(8, |list| properties.iter().for_each(|property| property.append(list)));
        self.bus
            .call(method("SetUnitProperties"), "sba(sv)", &body)
            .map(drop)
            .with_context(|| format!("set properties of unit {unit}"))
    }

    /// Moves a process into a unit; systemd may where a user may not.
    pub fn attach(&mut self, unit: &str, pid: u32) -> Result<()> {
        let mut body = Body::default();
        body.text(unit).text("");
        body.array(4, |list| {
            list.number(pid);
        });
        self.bus
            .call(method("AttachProcessesToUnit"), "ssau", &body)
            .map(drop)
            .with_context(|| format!("move process {pid} to unit {unit}"))
    }
}

fn already_subscribed(error: anyhow::Error) -> Result<()> {
    if is_refusal(&error, "AlreadySubscribed") { Ok(()) } else { Err(error) }
}

fn is_refusal(error: &anyhow::Error, name: &str) -> bool {
    error.downcast_ref::<Refusal>().is_some_and(|refusal| refusal.name.ends_with(name))
}
