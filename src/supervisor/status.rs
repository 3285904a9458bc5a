//! `status.json`: what a supervisor says of its container, for everybody to read.

use super::acquire::Attachments;
use crate::model::id::Id;
use crate::network::attach::Attached;
use crate::state::container::{ContainerRecord, Status, VERSION};
use crate::state::file::{self, Durability};
use crate::state::layout::Layout;
use anyhow::Result;
use std::path::PathBuf;

/// The status and its file; this process is its only writer.
#[derive(Debug)]
pub struct StatusFile {
    layout: Layout,
    id: Id,
    path: PathBuf,
    status: Status,
}

impl StatusFile {
    /// A container's, not yet written.
    pub fn new(layout: &Layout, id: &Id) -> StatusFile {
        let supervisor_pid = std::process::id() as i32;
        let status = Status { version: VERSION, supervisor_pid, ..Status::default() };
        let path = layout.running(id).join("status.json");
        StatusFile { layout: layout.clone(), id: id.clone(), path, status }
    }

    /// Where all is.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The container's record as it is now: `update` and `rename` change it.
    pub fn record(&self) -> Result<ContainerRecord> {
        ContainerRecord::load(&self.layout, &self.id)
    }

    /// What it says now.
    pub fn get(&self) -> &Status {
        &self.status
    }

    /// What is to be said with the next change.
    pub fn prepare(&mut self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status);
    }

    /// Say something else. RUN is memory: if it is full the old status stands, and the container goes on.
    pub fn change(&mut self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status);
        let _ = file::replace_json(&self.path, &self.status, Durability::Volatile);
    }

    /// The networks have changed, or are about to: whoever finds us dead must know what to release.
    pub fn note_network(&self, network: &Attached) -> Result<()> {
        let path = self.path.with_file_name("attachments.json");
        let mut held: Attachments = file::read_json(&path)?.unwrap_or_default();
        held.network = serde_json::to_value(network)?;
        file::replace_json(&path, &held, Durability::Volatile)
    }
}
