//! Health checks: what is run, how often, and what follows.

use crate::model::container::ContainerSpec;
use crate::model::health::{HealthPolicy, Healthcheck, OnFailure, StartupCheck};
use crate::model::unit::parse_duration_ns;
use anyhow::{Context, Result, bail, ensure};

// Health. No doc comment: clap would take it for the verb's help.
#[derive(clap::Args, Debug, Default)]
#[allow(missing_docs)]
pub struct Health {
    /// Command of the health check; `none` for no check
    #[arg(long, value_name = "COMMAND")]
    pub health_cmd: Option<String>,
    /// Time between two checks; `disable` for none by itself
    #[arg(long, value_name = "DURATION")]
    pub health_interval: Option<String>,
    /// Failures in a row that make it unhealthy
    #[arg(long, value_name = "NUMBER")]
    pub health_retries: Option<u32>,
    /// Time after the start in which failures do not count
    #[arg(long, value_name = "DURATION")]
    pub health_start_period: Option<String>,
    /// Time between two checks within the start period
    #[arg(long, value_name = "DURATION")]
    pub health_start_interval: Option<String>,
    /// Time a check may take
    #[arg(long, value_name = "DURATION")]
    pub health_timeout: Option<String>,
    /// What is done when it becomes unhealthy: none, kill, restart or stop
    #[arg(long, value_name = "ACTION")]
    pub health_on_failure: Option<String>,
    /// Where results are kept: local, events_logger or a directory
    #[arg(long, value_name = "DESTINATION")]
    pub health_log_destination: Option<String>,
    /// How many results are kept; 0 for all
    #[arg(long, value_name = "NUMBER")]
    pub health_max_log_count: Option<u32>,
    /// How many characters of a result are kept; 0 for all
    #[arg(long, value_name = "NUMBER")]
    pub health_max_log_size: Option<u32>,
    /// Command of the check that must succeed first
    #[arg(long, value_name = "COMMAND")]
    pub health_startup_cmd: Option<String>,
    /// Time between two startup checks
    #[arg(long, value_name = "DURATION")]
    pub health_startup_interval: Option<String>,
    /// Failed startup checks before the container is restarted
    #[arg(long, value_name = "NUMBER")]
    pub health_startup_retries: Option<u32>,
    /// Successful startup checks before the regular check begins
    #[arg(long, value_name = "NUMBER")]
    pub health_startup_success: Option<u32>,
    /// Time a startup check may take
    #[arg(long, value_name = "DURATION")]
    pub health_startup_timeout: Option<String>,
    /// Disable any health check of the image
    #[arg(long)]
    pub no_healthcheck: bool,
}

/// `--health-interval disable`: the largest number that fits a Go duration, some centuries.
pub const NEVER_NS: u64 = i64::MAX as u64;

impl Health {
    /// Into the spec.
    pub fn apply(self, spec: &mut ContainerSpec) -> Result<()> {
        self.merge(&mut spec.health, &mut spec.health_policy)
    }

    /// Over what is there: `update` uses it too.
    pub fn merge(self, health: &mut Option<Healthcheck>, policy: &mut HealthPolicy) -> Result<()> {
        let given = |value: &Option<String>| value.as_deref().is_some_and(|value| !value.is_empty());
        ensure!(
            !(self.no_healthcheck && given(&self.health_cmd)),
            "cannot specify both --no-healthcheck and --health-cmd"
        );
        ensure!(
            !(self.no_healthcheck && given(&self.health_startup_cmd)),
            "cannot specify both --no-healthcheck and --health-startup-cmd"
        );
        self.check(health)?;
        self.startup(policy)?;
        match self.health_on_failure.as_deref() {
            None | Some("") => {}
            Some("none") => policy.on_failure = OnFailure::None,
            Some("kill") => policy.on_failure = OnFailure::Kill,
            Some("restart") => policy.on_failure = OnFailure::Restart,
            Some("stop") => policy.on_failure = OnFailure::Stop,
            Some(action) => bail!(
                "invalid on-failure action {action:?} for health check: supported actions are none,kill,restart,stop"
            ),
        }
        if let Some(destination) = self.health_log_destination {
            ensure!(
                ["local", "events_logger", ""].contains(&destination.as_str())
                    || std::path::Path::new(&destination).is_dir(),
                "health log destination {destination:?}: must be local, events_logger or a directory"
            );
            policy.log_destination =
                Some(destination).filter(|destination| !["local", ""].contains(&destination.as_str()));
        }
        policy.max_log_count = self.health_max_log_count.or(policy.max_log_count);
        policy.max_log_size = self.health_max_log_size.or(policy.max_log_size);
        Ok(())
    }

    fn check(&self, health: &mut Option<Healthcheck>) -> Result<()> {
        if self.no_healthcheck {
            *health = Some(Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() });
            return Ok(());
        }
        let given = |value: &Option<String>| value.as_deref().is_some_and(|value| !value.is_empty());
        let durations =
            [&self.health_interval, &self.health_timeout, &self.health_start_period, &self.health_start_interval];
        if !given(&self.health_cmd) && !durations.into_iter().any(given) && self.health_retries.is_none() {
            return Ok(());
        }
        let check = health.get_or_insert_default();
        if let Some(command) = self.health_cmd.as_deref().filter(|command| !command.is_empty()) {
            check.test = test(command)?;
        }
        match self.health_interval.as_deref() {
            Some("disable") => check.interval = NEVER_NS,
            Some(text) if !text.is_empty() => {
                // podman's 0 is "disable" too.
                let interval = duration(text, "healthcheck-interval")?;
                check.interval = if interval == 0 { NEVER_NS } else { interval };
            }
            _ => {}
        }
        if let Some(retries) = self.health_retries {
            ensure!(retries > 0, "healthcheck-retries must be greater than 0");
            check.retries = retries;
        }
        if let Some(text) = self.health_timeout.as_deref().filter(|text| !text.is_empty()) {
            check.timeout = duration(text, "healthcheck-timeout")?;
            ensure!(check.timeout > 0, "healthcheck-timeout must be at least 1 second");
        }
        if let Some(text) = self.health_start_period.as_deref().filter(|text| !text.is_empty()) {
            check.start_period = duration(text, "healthcheck-start-period")?;
        }
        if let Some(text) = self.health_start_interval.as_deref().filter(|text| !text.is_empty()) {
            check.start_interval = duration(text, "healthcheck-start-interval")?;
        }
        Ok(())
    }

    fn startup(&self, policy: &mut HealthPolicy) -> Result<()> {
        let others = self.health_startup_interval.is_some()
            || self.health_startup_timeout.is_some()
            || self.health_startup_retries.is_some()
            || self.health_startup_success.is_some();
        let startup = match self.health_startup_cmd.as_deref().filter(|command| !command.is_empty()) {
            Some(command) => {
                let startup = policy.startup.get_or_insert_with(StartupCheck::default);
                startup.check.test = test(command)?;
                startup
            }
            None if !others => return Ok(()),
            None => policy
                .startup
                .as_mut()
                .context("healthcheck command is not set: --health-startup-* options need a --health-startup-cmd")?,
        };
        if let Some(text) = &self.health_startup_interval {
            startup.check.interval = duration(text, "healthcheck-interval")?;
        }
        if let Some(text) = &self.health_startup_timeout {
            startup.check.timeout = duration(text, "healthcheck-timeout")?;
        }
        startup.check.retries = self.health_startup_retries.unwrap_or(startup.check.retries);
        startup.successes = self.health_startup_success.unwrap_or(startup.successes);
        Ok(())
    }
}

fn duration(text: &str, what: &str) -> Result<u64> {
    parse_duration_ns(text).with_context(|| format!("invalid {what}"))
}

/// The command as docker's list: JSON, words that begin with `CMD`, `CMD-SHELL` or `NONE`, or a line for the shell.
fn test(command: &str) -> Result<Vec<String>> {
    let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    if let Ok(words) = serde_json::from_str::<Vec<String>>(command) {
        let first = words.first().context("must define a healthcheck command for all healthchecks")?;
        return Ok(match first.to_ascii_uppercase().as_str() {
            "NONE" => own(&["NONE"]),
            "CMD" | "CMD-SHELL" => words,
            _ if words.len() == 1 => own(&["CMD-SHELL", first]),
            _ => own(&["CMD"]).into_iter().chain(words).collect(),
        });
    }
    let (first, rest) = command.split_once(' ').unwrap_or((command, ""));
    Ok(match first.to_ascii_uppercase().as_str() {
        "NONE" => own(&["NONE"]),
        "CMD" => command.split_whitespace().map(str::to_owned).collect(),
        "CMD-SHELL" => own(&["CMD-SHELL", rest]),
        _ => own(&["CMD-SHELL", command]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        for (command, expected) in [
            ("curl -f x || exit 1", &["CMD-SHELL", "curl -f x || exit 1"][..]),
            ("none", &["NONE"]),
            ("CMD a b", &["CMD", "a", "b"]),
            ("[\"a\",\"b c\"]", &["CMD", "a", "b c"]),
            ("[\"a b\"]", &["CMD-SHELL", "a b"]),
            ("[\"CMD-SHELL\",\"x\"]", &["CMD-SHELL", "x"]),
            ("CMD-SHELL a b", &["CMD-SHELL", "a b"]),
        ] {
            assert_eq!(test(command).unwrap(), expected, "{command}");
        }
        assert!(test("[]").is_err());
    }

    #[test]
    fn options_alone_leave_the_command_to_the_image() {
        let mut spec = ContainerSpec::default();
        Health { health_interval: Some("5s".into()), ..Health::default() }.apply(&mut spec).unwrap();
        let check = spec.health.unwrap();
        assert_eq!((check.test.len(), check.interval), (0, 5_000_000_000));
    }

    #[test]
    fn contradictions() {
        let mut spec = ContainerSpec::default();
        let both = Health { health_cmd: Some("x".into()), no_healthcheck: true, ..Health::default() };
        assert!(both.apply(&mut spec).is_err());
        let startup = Health { health_startup_interval: Some("5s".into()), ..Health::default() };
        assert!(startup.apply(&mut spec).is_err());
    }
}
