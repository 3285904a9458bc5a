//! Health checks: what was asked for. Kept in the record; run by the supervisor.

use serde::{Deserialize, Serialize};

/// A health check as docker's image config has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["CMD", …]`, `["CMD-SHELL", text]`, `["NONE"]`, or empty: inherit.
    pub test: Vec<String>,
    /// Nanoseconds between two checks; 0: 30 s.
    pub interval: u64,
    /// Nanoseconds a check may take; 0: 30 s.
    pub timeout: u64,
    /// Nanoseconds after start in which failures do not count.
    pub start_period: u64,
    /// Failures in a row that make it unhealthy; 0: 3.
    pub retries: u32,
}
