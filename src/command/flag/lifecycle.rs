//! When a container ends and what then.

use super::{Surroundings, csv};
use crate::model::container::{ContainerSpec, Restart};
use crate::model::signal;
use anyhow::{Context, Result, anyhow, bail, ensure};

// Life and end. No doc comment: clap would take it for the verb's help.
#[derive(clap::Args, Debug, Default)]
#[allow(missing_docs)]
pub struct Lifecycle {
    /// Remove the container and its anonymous volumes when it exits
    #[arg(long)]
    pub rm: bool,
    /// Restart policy: no, on-failure[:N], always or unless-stopped
    #[arg(long, value_name = "POLICY")]
    pub restart: Option<String>,
    /// Signal to stop the container
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Seconds to wait before the container is killed; -1 waits for ever
    #[arg(long, value_name = "SECONDS")]
    pub stop_timeout: Option<i64>,
    /// Seconds the container may run at most
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Write the PID of the container's process to a file
    #[arg(long, value_name = "FILE")]
    pub pidfile: Option<String>,
    /// Write the PID of the container's supervisor to a file
    #[arg(long, value_name = "FILE")]
    pub conmon_pidfile: Option<String>,
    /// Write the container ID to a file
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<String>,
    /// Who tells systemd that the service is ready: container, conmon, healthy or ignore
    #[arg(long, value_name = "MODE")]
    pub sdnotify: Option<String>,
    /// Systemd mode: true (if the command is systemd), false or always
    #[arg(long, value_name = "MODE")]
    pub systemd: Option<String>,
    /// Containers that must be started before this one
    #[arg(long, value_name = "CONTAINER")]
    pub requires: Vec<String>,
    /// Run the container in an existing pod
    #[arg(long, value_name = "POD", hide = true)]
    pub pod: Option<String>,
    /// Read the pod's ID from a file
    #[arg(long, value_name = "FILE", hide = true)]
    pub pod_id_file: Option<String>,
    /// Make this an init container of its pod
    #[arg(long, value_name = "KIND", hide = true)]
    pub init_ctr: Option<String>,
}

impl Lifecycle {
    /// Into the spec.
    pub fn apply(self, spec: &mut ContainerSpec, around: &Surroundings) -> Result<()> {
        let given = |value: &Option<String>| value.as_deref().is_some_and(|value| !value.is_empty());
        super::refuse("--pod", given(&self.pod))?;
        super::refuse("--pod-id-file", given(&self.pod_id_file))?;
        super::refuse("--init-ctr", given(&self.init_ctr))?;
        let path = |path: Option<String>| path.filter(|path| !path.is_empty()).map(|path| around.absolute(&path));
        let lifecycle = &mut spec.lifecycle;
        lifecycle.remove = self.rm;
        lifecycle.restart = restart(self.restart.as_deref().unwrap_or_default())?;
        ensure!(
            !self.rm || matches!(lifecycle.restart, Restart::No | Restart::OnFailure { .. }),
            "the --rm option conflicts with --restart, when the restartPolicy is not \"\" and \"no\""
        );
        let signal = self.stop_signal.filter(|signal| !signal.is_empty());
        lifecycle.stop_signal = signal.map(|text| signal::parse(&text)).transpose()?;
        ensure!(self.stop_timeout.is_none_or(|timeout| timeout >= -1), "--stop-timeout: must be at least -1");
        lifecycle.stop_timeout_s = self.stop_timeout;
        lifecycle.run_timeout_s = self.timeout.filter(|timeout| *timeout > 0);
        lifecycle.pidfile = path(self.pidfile);
        lifecycle.supervisor_pidfile = path(self.conmon_pidfile);
        lifecycle.cidfile = path(self.cidfile);
        lifecycle.sdnotify = match self.sdnotify.as_deref() {
            None | Some("") => None,
            Some(mode @ ("container" | "conmon" | "healthy" | "ignore")) => Some(mode.to_owned()),
            Some(mode) => bail!("invalid sdnotify value {mode:?}: must be container, conmon, healthy or ignore"),
        };
        lifecycle.systemd = match self.systemd.map(|mode| mode.to_ascii_lowercase()).as_deref() {
            None | Some("") => None,
            Some(mode @ ("true" | "false" | "always")) => Some(mode.to_owned()),
            Some(_) => bail!("--systemd values must be one of \"true, false, always\": invalid configuration"),
        };
        lifecycle.requires = csv(&self.requires)?;
        Ok(())
    }
}

/// `--restart`.
pub fn restart(text: &str) -> Result<Restart> {
    let (policy, retries) = match text.split_once(':') {
        Some((policy, retries)) => (policy, Some(retries)),
        None => (text, None),
    };
    ensure!(
        retries.is_none() || policy == "on-failure",
        "restart policy retries can only be specified with on-failure restart policy"
    );
    Ok(match policy {
        "" | "no" | "never" => Restart::No,
        "always" => Restart::Always,
        "unless-stopped" => Restart::UnlessStopped,
        "on-failure" => {
            let retries = retries.map_or(Ok(0), |retries| {
                retries.parse().map_err(|_| anyhow!("restart policy {text:?}: retries must be a number, 0 or more"))
            })?;
            Restart::OnFailure { retries }
        }
        _ => bail!("{policy:?} is not a valid restart policy: invalid argument"),
    })
}

/// Write the id where `--cidfile` says.
///
/// # Errors
/// The file must not be there yet: it is somebody else's container.
pub fn write_cidfile(path: &str, id: &str) -> Result<()> {
    std::fs::write(path, id).with_context(|| format!("creating container ID file {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        for (text, policy) in [
            ("", Restart::No),
            ("no", Restart::No),
            ("never", Restart::No),
            ("always", Restart::Always),
            ("on-failure", Restart::OnFailure { retries: 0 }),
            ("on-failure:3", Restart::OnFailure { retries: 3 }),
            ("unless-stopped", Restart::UnlessStopped),
        ] {
            assert_eq!(restart(text).unwrap(), policy, "{text}");
        }
        for text in ["always:3", "on-failure:x", "on-failure:-1", "sometimes"] {
            assert!(restart(text).is_err(), "{text}");
        }
    }
}
