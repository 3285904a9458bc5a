//! Privileges and confinement.

use super::{Surroundings, csv};
use crate::model::container::{ContainerSpec, NamespaceMode};
use crate::model::network::NetworkMode;
use crate::model::security::Seccomp;
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::str::FromStr;

// Security. No doc comment: clap would take it for the verb's help.
#[derive(clap::Args, Debug, Default)]
#[allow(missing_docs)]
pub struct Security {
    /// Give extended privileges to the container
    #[arg(long)]
    pub privileged: bool,
    /// Add Linux capabilities
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<String>,
    /// Security options: apparmor=, label=, mask=, unmask=, no-new-privileges, seccomp=, proc-opts=
    #[arg(long, value_name = "OPTION")]
    pub security_opt: Vec<String>,
    /// Set namespaced kernel parameters: NAME=VALUE
    #[arg(long, value_name = "NAME=VALUE")]
    pub sysctl: Vec<String>,
    /// Policy for the choice of a seccomp profile
    #[arg(long, value_name = "POLICY", hide = true)]
    pub seccomp_policy: Option<String>,
}

impl Security {
    /// Into the spec. Namespaces and network must be there already: kernel parameters belong to one.
    pub fn apply(self, spec: &mut ContainerSpec, around: &Surroundings) -> Result<()> {
        super::refuse("--seccomp-policy", self.seccomp_policy.is_some_and(|policy| policy != "default"))?;
        spec.security.privileged = self.privileged;
        spec.security.cap_add = capabilities(&csv(&self.cap_add)?)?;
        spec.security.cap_drop = capabilities(&csv(&self.cap_drop)?)?;
        let clash = spec.security.cap_add.iter().find(|name| *name != "ALL" && spec.security.cap_drop.contains(name));
        if let Some(name) = clash {
            bail!("capability {name:?} cannot be dropped and added");
        }
        for word in &self.security_opt {
            option(spec, word, around)?;
        }
        for word in csv(&self.sysctl)? {
            let (name, value) = word.split_once('=').ok_or_else(|| anyhow!("invalid sysctl value {word:?}"))?;
            // systemd's and procps' slashes are dots.
            let name = name.trim().replace('/', ".");
            check_sysctl(&name, spec)?;
            spec.security.sysctl.retain(|(other, _)| *other != name);
            spec.security.sysctl.push((name, value.to_owned()));
        }
        Ok(())
    }
}

/// One of containers.conf: it is for containers that have the namespace it belongs to, and for those that set it
/// themselves it is none.
pub fn default_sysctl(spec: &mut ContainerSpec, name: &str, value: &str) {
    let name = name.trim().replace('/', ".");
    let given = spec.security.sysctl.iter().any(|(known, _)| *known == name);
    // A user namespace of the container's own may not own the network namespace: nobody asked for it by name.
    let is_foreign = name.starts_with("net.") && spec.userns != crate::model::user::UserNamespace::default();
    if !given && !is_foreign && check_sysctl(&name, spec).is_ok() {
        spec.security.sysctl.push((name, value.to_owned()));
    }
}

/// Upper case, with `CAP_`, or `ALL`.
pub fn capabilities(words: &[String]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for word in words.iter().map(|word| word.trim()).filter(|word| !word.is_empty()) {
        let upper = word.to_ascii_uppercase();
        let name = match upper.as_str() {
            "ALL" | "CAP_ALL" => "ALL".to_owned(),
            name if name.starts_with("CAP_") => name.to_owned(),
            name => format!("CAP_{name}"),
        };
        ensure!(
            name == "ALL" || caps::Capability::from_str(&name).is_ok(),
            "unknown capability {name:?}: invalid argument"
        );
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn option(spec: &mut ContainerSpec, word: &str, around: &Surroundings) -> Result<()> {
    // Docker's older form has a colon.
    let split = if word.contains('=') { word.split_once('=') } else { word.split_once(':') };
    let security = &mut spec.security;
    let list = |value: &str| -> Result<Vec<String>> {
        value
            .split(':')
            .map(|path| {
                ensure!(path.starts_with('/'), "invalid --security-opt: {word:?}: paths must be absolute");
                Ok(path.to_owned())
            })
            .collect()
    };
    match split {
        None if word == "no-new-privileges" => security.no_new_privileges = true,
        None => bail!("invalid --security-opt 1: {word:?}"),
        Some(("no-new-privileges", value)) => {
            security.no_new_privileges =
                super::parse_bool(value).map_err(|_| anyhow!("invalid --security-opt 2: {word:?}"))?;
        }
        Some(("apparmor", profile)) => security.apparmor = Some(profile.to_owned()),
        Some(("label", label)) => {
            super::refuse("--security-opt label=nested", label == "nested")?;
            let (kind, value) = label.split_once(':').unwrap_or((label, ""));
            let known = ["user", "role", "type", "level", "filetype"].contains(&kind) && !value.is_empty();
            ensure!(known || label == "disable", "invalid --security-opt label: {label:?}");
            security.label.push(label.to_owned());
        }
        Some(("mask", paths)) => security.mask.extend(list(paths)?),
        Some(("unmask", paths)) if paths.eq_ignore_ascii_case("all") => security.unmask.push("ALL".to_owned()),
        Some(("unmask", paths)) => security.unmask.extend(list(paths)?),
        Some(("systempaths", "unconfined")) => security.unmask.push("ALL".to_owned()),
        Some(("systempaths", value)) => {
            bail!("invalid systempaths option {value:?}, only `unconfined` is supported")
        }
        Some(("proc-opts", options)) => security.proc_options = options.split(',').map(str::to_owned).collect(),
        Some(("seccomp", "unconfined")) => security.seccomp = Seccomp::Unconfined,
        Some(("seccomp", "" | "default" | "builtin")) => security.seccomp = Seccomp::Default,
        Some(("seccomp", file)) => {
            let path = around.absolute(file);
            let json =
                std::fs::read_to_string(&path).with_context(|| format!("opening seccomp profile failed: {file}"))?;
            serde_json::from_str::<serde_json::Value>(&json)
                .with_context(|| format!("decoding seccomp profile failed: {file}"))?;
            security.seccomp = Seccomp::File { path, json };
        }
        Some(_) => bail!("invalid --security-opt 2: {word:?}"),
    }
    Ok(())
}

/// Only parameters that a namespace of the container's own has: others would change the host.
fn check_sysctl(name: &str, spec: &ContainerSpec) -> Result<()> {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    const UTS: [&str; 2] = ["kernel.domainname", "kernel.hostname"];
    let plain =
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte)) && !name.contains("..");
    let (namespace, private) = if name.starts_with("net.") {
        ("Network", !matches!(spec.network.mode, Some(NetworkMode::Host)))
    } else if IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        ("IPC", spec.namespaces.ipc != NamespaceMode::Host)
    } else if UTS.contains(&name) {
        ("UTS", spec.namespaces.uts != NamespaceMode::Host)
    } else {
        bail!("sysctl '{name}' is not allowed");
    };
    ensure!(plain, "sysctl '{name}' is not allowed");
    ensure!(private, "sysctl {name:?} can't be set since {namespace} Namespace set to host: invalid argument");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> Result<crate::model::security::Security> {
        let mut spec = ContainerSpec::default();
        for word in words {
            option(&mut spec, word, &Surroundings { directory: "/".into(), ..Surroundings::default() })?;
        }
        Ok(spec.security)
    }

    #[test]
    fn security_options() {
        let security = options(&[
            "no-new-privileges:true",
            "label=disable",
            "label=type:x_t",
            "mask=/a:/b",
            "unmask=ALL",
            "seccomp=unconfined",
            "apparmor:unconfined",
        ])
        .unwrap();
        assert!(security.no_new_privileges);
        assert_eq!(security.label, ["disable", "type:x_t"]);
        assert_eq!(security.mask, ["/a", "/b"]);
        assert_eq!(security.unmask, ["ALL"]);
        assert_eq!(security.seccomp, Seccomp::Unconfined);
        assert_eq!(security.apparmor.as_deref(), Some("unconfined"));
        for word in
            ["x", "x=y", "seccomp=/nothing/here", "label=foo", "mask=a", "no-new-privileges=maybe", "systempaths=x"]
        {
            assert!(options(&[word]).is_err(), "{word}");
        }
    }

    #[test]
    fn capability_names() {
        let names = |words: &[&str]| capabilities(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(names(&["net_admin", "CAP_SYS_ADMIN", "all"]).unwrap(), ["CAP_NET_ADMIN", "CAP_SYS_ADMIN", "ALL"]);
        assert!(names(&["foo"]).is_err());
    }

    #[test]
    fn sysctls_of_the_host_are_refused() {
        let mut spec = ContainerSpec::default();
        assert!(check_sysctl("net.ipv4.ip_forward", &spec).is_ok());
        assert!(check_sysctl("vm.swappiness", &spec).is_err());
        assert!(check_sysctl("net.../x", &spec).is_err());
        spec.network.mode = Some(NetworkMode::Host);
        assert!(check_sysctl("net.ipv4.ip_forward", &spec).is_err());
    }
}
