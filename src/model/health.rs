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
    /// Nanoseconds between two checks within the start period; 0: 5 s.
    pub start_interval: u64,
    /// Failures in a row that make it unhealthy; 0: 3.
    pub retries: u32,
}

impl Healthcheck {
    /// Whether there is something to run: not so with `--no-healthcheck`.
    pub fn runs(&self) -> bool {
        self.test.first().is_some_and(|kind| kind != "NONE")
    }
}

/// What follows from checks, and the check that comes before them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HealthPolicy {
    /// `--health-on-failure`.
    pub on_failure: OnFailure,
    /// `--health-startup-cmd` and what belongs to it.
    pub startup: Option<StartupCheck>,
    /// `--health-log-destination`: `local` (absent), `events_logger`, or a directory.
    pub log_destination: Option<String>,
    /// `--health-max-log-count`; absent: 5. 0: no bound.
    pub max_log_count: Option<u32>,
    /// `--health-max-log-size`, characters; absent: 500. 0: no bound.
    pub max_log_size: Option<u32>,
}

/// `--health-on-failure`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// Only say so.
    #[default]
    None,
    /// Kill it.
    Kill,
    /// Restart it.
    Restart,
    /// Stop it.
    Stop,
}

impl OnFailure {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            OnFailure::None => "none",
            OnFailure::Kill => "kill",
            OnFailure::Restart => "restart",
            OnFailure::Stop => "stop",
        }
    }
}

/// A check that must succeed before the regular one begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StartupCheck {
    /// The check; its `retries` (0: no bound) are failures after which the container is restarted.
    pub check: Healthcheck,
    /// Successes in a row that are needed; 0: 1.
    pub successes: u32,
}
