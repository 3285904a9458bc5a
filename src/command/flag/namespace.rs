//! Namespaces other than user and network.

use crate::model::container::{ContainerSpec, NamespaceMode};
use anyhow::{Result, bail, ensure};

// Namespaces. No doc comment: clap would take it for the verb's help.
#[derive(clap::Args, Debug, Default)]
#[allow(missing_docs)]
pub struct Namespace {
    /// PID namespace: private, host, container:NAME or ns:PATH
    #[arg(long, value_name = "MODE")]
    pub pid: Option<String>,
    /// IPC namespace: shareable, private, host, none, container:NAME or ns:PATH
    #[arg(long, value_name = "MODE")]
    pub ipc: Option<String>,
    /// UTS namespace: private, host, container:NAME or ns:PATH
    #[arg(long, value_name = "MODE")]
    pub uts: Option<String>,
    /// Cgroup namespace: private, host, container:NAME or ns:PATH
    #[arg(long, value_name = "MODE")]
    pub cgroupns: Option<String>,
}

impl Namespace {
    /// Into the spec.
    pub fn apply(self, spec: &mut ContainerSpec) -> Result<()> {
        spec.namespaces.pid = mode(self.pid.as_deref().unwrap_or(""))?;
        match self.ipc.as_deref() {
            None | Some("" | "shareable") => {}
            Some("none") => spec.namespaces.ipc_no_shm = true,
            Some("private") => spec.namespaces.ipc_unshared = true,
            Some(text) => spec.namespaces.ipc = mode(text)?,
        }
        spec.namespaces.uts = mode(self.uts.as_deref().unwrap_or(""))?;
        spec.namespaces.cgroup = self.cgroupns.filter(|text| !text.is_empty()).map(|text| mode(&text)).transpose()?;
        if spec.shm_size.is_some() {
            ensure!(
                spec.namespaces.ipc != NamespaceMode::Host && !spec.namespaces.ipc_no_shm,
                "cannot set shmsize when running in the {} IPC Namespace",
                if spec.namespaces.ipc_no_shm { "none" } else { "host" }
            );
        }
        Ok(())
    }
}

/// `private`, `host`, `container:NAME`, `ns:PATH`.
pub fn mode(text: &str) -> Result<NamespaceMode> {
    let required = |value: &str, kind: &str| -> Result<String> {
        ensure!(!value.is_empty(), "namespace mode {kind} requires a value");
        Ok(value.to_owned())
    };
    Ok(match text {
        "" | "private" => NamespaceMode::Private,
        "host" => NamespaceMode::Host,
        "pod" => bail!("namespace mode `pod` without --pod"),
        _ => match text.split_once(':') {
            Some(("container", name)) => NamespaceMode::Container(required(name, "container")?),
            Some(("ns", path)) => {
                let path = required(path, "path")?;
                ensure!(path.starts_with('/'), "namespace path {path:?}: must be absolute");
                NamespaceMode::Path(path)
            }
            _ => bail!("unrecognized namespace mode {text} passed"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        assert_eq!(mode("").unwrap(), NamespaceMode::Private);
        assert_eq!(mode("host").unwrap(), NamespaceMode::Host);
        assert_eq!(mode("container:web").unwrap(), NamespaceMode::Container("web".into()));
        assert_eq!(mode("ns:/proc/1/ns/pid").unwrap(), NamespaceMode::Path("/proc/1/ns/pid".into()));
        for text in ["container:", "ns:", "ns:x", "bridge", "Host"] {
            assert!(mode(text).is_err(), "{text}");
        }
    }
}
