//! What `containers.conf` says where an option of `run` or `create` was not given.
//!
//! Its values become words of the options they stand for, so that there is one parser of each: [`before`] fills in what
//! was left open, [`after`] adds what the command line is judged against first (mounts of the same place, kernel
//! parameters of a namespace the container does not have).

use super::container::Container;
use super::{Surroundings, csv, mount, process, security};
use crate::host::config::{Config, Containers};
use crate::model::container::ContainerSpec;
use crate::model::network::NetworkMode;
use anyhow::{Context, Result};

/// Fill in options that were not given.
pub fn before(container: &mut Container, config: &Config, around: &Surroundings) {
    let Config { containers, engine } = config;
    security_options(container, containers);
    namespaces(container, containers);
    names(container, containers);
    logs(container, containers);
    let process = &mut container.process;
    process.env_host = process.env_host.or(containers.env_host);
    process.http_proxy = process.http_proxy.or(containers.http_proxy);
    process.init = process.init.or(containers.init);
    fill(&mut process.tz, &containers.tz);
    fill(&mut process.umask, &containers.umask);
    prepend(&mut process.annotation, &containers.annotations);
    let resource = &mut container.resource;
    // Without a delegated cgroup an ordinary user's container has no limit to set; nobody asked for it by name.
    if !around.rootless || crate::host::is_cgroup_v2() {
        resource.limits.pids_limit = resource.limits.pids_limit.or(containers.pids_limit);
    }
    resource.oom_score_adj = resource.oom_score_adj.or(containers.oom_score_adj);
    fill(&mut resource.cgroups, &containers.cgroups);
    if !resource.ulimit.iter().any(|limit| limit == "host") {
        prepend(&mut resource.ulimit, &containers.default_ulimits);
    }
    container.mount.read_only = container.mount.read_only.or(containers.read_only);
    prepend(&mut container.mount.device, &containers.devices);
    container.lifecycle.stop_timeout = container.lifecycle.stop_timeout.or(engine.stop_timeout);
    container.image.retry = container.image.retry.or(engine.retry);
    fill(&mut container.image.retry_delay, &engine.retry_delay);
    fill(&mut container.image.pull, &engine.pull_policy);
}

fn security_options(container: &mut Container, containers: &Containers) {
    let security = &mut container.security;
    security.privileged |= containers.privileged;
    let mut default = |key: &str, word: String| {
        if !security.security_opt.iter().any(|option| option.starts_with(key)) {
            security.security_opt.push(word);
        }
    };
    if !containers.seccomp_profile.is_empty() {
        default("seccomp", format!("seccomp={}", containers.seccomp_profile));
    }
    // The name of podman's own profile, which is generated, stands for ours.
    if !containers.apparmor_profile.is_empty() && !containers.apparmor_profile.starts_with("container") {
        default("apparmor", format!("apparmor={}", containers.apparmor_profile));
    }
    if containers.label == Some(false) {
        default("label", "label=disable".to_owned());
    }
}

fn namespaces(container: &mut Container, containers: &Containers) {
    let namespace = &mut container.namespace;
    fill(&mut namespace.pid, &containers.pidns);
    fill(&mut namespace.ipc, &containers.ipcns);
    fill(&mut namespace.uts, &containers.utsns);
    fill(&mut namespace.cgroupns, &containers.cgroupns);
    let own_shm = matches!(namespace.ipc.as_deref(), None | Some("" | "private" | "shareable"));
    if own_shm {
        fill(&mut container.resource.shm_size, &containers.shm_size);
    }
    let userns = &mut container.userns;
    if userns.uidmap.is_empty() && userns.gidmap.is_empty() && userns.subuidname.is_none() {
        fill(&mut userns.userns, &containers.userns);
    }
    if container.network.network.is_empty() && !containers.netns.is_empty() {
        container.network.network.push(containers.netns.clone());
    }
}

/// Who is asked for names, and /etc/hosts.
fn names(container: &mut Container, containers: &Containers) {
    let network = &mut container.network;
    let resolves = !network.network.iter().any(|mode| mode == "none" || mode.starts_with("container:"));
    if resolves {
        for (given, default) in [
            (&mut network.dns, &containers.dns_servers),
            (&mut network.dns_option, &containers.dns_options),
            (&mut network.dns_search, &containers.dns_searches),
        ] {
            if given.is_empty() {
                given.clone_from(default);
            }
        }
    }
    // Lines or a file that were asked for are no default's to drop.
    if network.no_hosts.is_none() && network.add_host.is_empty() && network.hosts_file.is_none() {
        network.no_hosts = containers.no_hosts;
    }
    if network.no_hosts != Some(true) {
        fill(&mut network.hosts_file, &containers.base_hosts_file);
    }
}

fn logs(container: &mut Container, containers: &Containers) {
    let log = &mut container.log;
    let has = |log: &super::log::Log, key: &str| log.log_opt.iter().any(|option| option.starts_with(key));
    if !has(log, "driver=") {
        fill(&mut log.log_driver, &containers.log_driver);
    }
    let size = containers.log_size_max.filter(|size| *size > 0).map(|size| size.to_string()).unwrap_or_default();
    for (key, value) in [("path", &containers.log_path), ("max-size", &size), ("tag", &containers.log_tag)] {
        if !value.is_empty() && !has(log, &format!("{key}=")) {
            log.log_opt.push(format!("{key}={value}"));
        }
    }
}

/// Add to a spec that holds all that was typed.
pub fn after(spec: &mut ContainerSpec, config: &Config, around: &Surroundings) -> Result<()> {
    let containers = &config.containers;
    for word in &containers.env {
        process::variable(&mut spec.process.env_base, word, around).context("containers.conf: env")?;
    }
    mount::defaults(spec, &containers.volumes, &containers.mounts, around).context("containers.conf")?;
    if let Some(names) = &containers.default_capabilities {
        spec.security.cap_default =
            Some(security::capabilities(names).context("containers.conf: default_capabilities")?);
    }
    for word in csv(&containers.default_sysctls)? {
        let (name, value) = word.split_once('=').with_context(|| format!("containers.conf: sysctl {word:?}"))?;
        security::default_sysctl(spec, name, value);
    }
    let asked = spec.network.add_hosts.iter().any(|(name, _)| name == "host.containers.internal");
    let joined = matches!(spec.network.mode, Some(NetworkMode::Container(_)));
    if !asked && !joined && !spec.network.no_hosts && !containers.host_containers_internal_ip.is_empty() {
        spec.network.host_address = Some(containers.host_containers_internal_ip.clone());
    }
    Ok(())
}

fn fill(option: &mut Option<String>, default: &str) {
    if option.is_none() && !default.is_empty() {
        *option = Some(default.to_owned());
    }
}

/// Before what was typed, which so overrides it.
fn prepend(words: &mut Vec<String>, defaults: &[String]) {
    words.splice(0..0, defaults.iter().cloned());
}
