//! The image's config merged into the wish, once, at create. Pure.
//!
//! The image is untrusted: nothing in it can name a path of the host, an option of ours, or an environment variable of
//! the caller.

use crate::failure::{Failure, Kind};
use crate::model::container::ContainerSpec;
use crate::model::health::{Healthcheck, OnFailure};
use crate::model::image::ImageConfig;
use crate::model::mount::{ImageVolume, Mount, MountOptions, MountSource};
use crate::model::port::Protocol;
use crate::model::user::UserRef;
use anyhow::Result;

/// Fill in whatever the user left to the image.
pub fn merge(spec: &mut ContainerSpec, image: &ImageConfig) -> Result<()> {
    command(spec, image);
    environment(spec, image);
    volumes(spec, image);
    if spec.process.user.is_none()
        && let Some(user) = image.user.as_deref().filter(|user| !user.is_empty())
    {
        spec.process.user = Some(UserRef::parse(user)?);
    }
    if spec.process.workdir.is_none()
        && let Some(directory) = image.working_dir.as_deref().filter(|directory| !directory.is_empty())
    {
        let absolute = if directory.starts_with('/') { directory.to_owned() } else { format!("/{directory}") };
        spec.process.workdir = Some(absolute);
        spec.process.workdir_of_image = true;
    }
    if spec.lifecycle.stop_signal.is_none()
        && let Some(signal) = image.stop_signal.as_deref().filter(|signal| !signal.is_empty())
    {
        spec.lifecycle.stop_signal = Some(crate::model::signal::parse(signal)?);
    }
    for (name, value) in image.labels.iter().flatten() {
        spec.labels.entry(name.clone()).or_insert_with(|| value.clone());
    }
    for port in image.exposed_ports.iter().flat_map(|ports| ports.keys()) {
        let exposed = parse_exposed(port)?;
        if !spec.network.expose.contains(&exposed) {
            spec.network.expose.push(exposed);
        }
    }
    health(spec, image);
    let checked = spec.health.as_ref().is_some_and(Healthcheck::runs);
    if spec.health_policy.on_failure != OnFailure::None && !checked {
        let action = spec.health_policy.on_failure.as_str();
        let text = format!("cannot set on-failure action to {action} without a health check");
        return Err(Failure::new(Kind::Engine, text).hint("name a check with --health-cmd").into());
    }
    Ok(())
}

/// A given entrypoint drops the image's command too (docker-run(1)).
fn command(spec: &mut ContainerSpec, image: &ImageConfig) {
    let process = &mut spec.process;
    if process.entrypoint.is_none() {
        process.entrypoint.clone_from(&image.entrypoint);
        if process.command.is_empty() {
            process.command = image.cmd.clone().unwrap_or_default();
        }
    }
    // `--entrypoint ""` clears.
    if process.entrypoint.as_ref().is_some_and(|words| words.iter().all(String::is_empty)) {
        process.entrypoint = None;
    }
}

/// Those of containers.conf and the image's first, so that the user's win.
fn environment(spec: &mut ContainerSpec, image: &ImageConfig) {
    let process = &mut spec.process;
    let own = std::mem::take(&mut process.env);
    if !process.unset_env_all {
        for (name, value) in &process.env_base {
            if !process.unset_env.contains(name) {
                process.env.push((name.clone(), value.clone()));
            }
        }
        let images = image.env.iter().flatten().filter_map(|entry| entry.split_once('='));
        for (name, value) in images.filter(|(name, _)| !name.is_empty()) {
            if !process.unset_env.iter().any(|unset| unset == name) {
                process.env.retain(|(known, _)| known != name);
                process.env.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    let merged = process.env_merge.iter().map(|(name, value)| (name.clone(), expand(value, &process.env)));
    let merged: Vec<(String, String)> = merged.collect();
    for (name, value) in merged.into_iter().chain(own) {
        process.env.retain(|(known, _)| *known != name);
        process.env.push((name, value));
    }
}

/// `$NAME` and `${NAME}` of `--env-merge`, by the image's own variables: an unknown one is empty.
fn expand(text: &str, environment: &[(String, String)]) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let name_end = |text: &str| {
            text.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(text.len())
        };
        let (name, behind) = match after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            Some(braced) => braced,
            None => after.split_at(name_end(after)),
        };
        if name.is_empty() {
            expanded.push('$');
        }
        if let Some((_, value)) = environment.iter().find(|(known, _)| known == name) {
            expanded.push_str(value);
        }
        rest = behind;
    }
    expanded.push_str(rest);
    expanded
}

/// What the user left open of a check is the image's.
fn health(spec: &mut ContainerSpec, image: &ImageConfig) {
    match (&mut spec.health, &image.healthcheck) {
        (health @ None, images) => health.clone_from(images),
        (Some(own), Some(images)) if own.test.is_empty() => {
            own.test.clone_from(&images.test);
            let fill = |own: &mut u64, images: u64| {
                if *own == 0 {
                    *own = images;
                }
            };
            fill(&mut own.interval, images.interval);
            fill(&mut own.timeout, images.timeout);
            fill(&mut own.start_period, images.start_period);
            fill(&mut own.start_interval, images.start_interval);
            if own.retries == 0 {
                own.retries = images.retries;
            }
        }
        _ => {}
    }
    // Options without a command, of them or the image, check nothing. (`--no-healthcheck` is a check that is none.)
    if spec.health.as_ref().is_some_and(|health| health.test.is_empty()) {
        spec.health = None;
    }
}

fn volumes(spec: &mut ContainerSpec, image: &ImageConfig) {
    for target in image.volumes.iter().flat_map(|volumes| volumes.keys()) {
        let target = if target.starts_with('/') { target.clone() } else { format!("/{target}") };
        let known = |mount: &Mount| mount.target.trim_end_matches('/') == target.trim_end_matches('/');
        if spec.mounts.iter().any(known) {
            continue;
        }
        let source = match spec.image_volume {
            ImageVolume::Ignore => continue,
            ImageVolume::Tmpfs => MountSource::Tmpfs { size: None, mode: None, copy_up: true },
            ImageVolume::Anonymous => MountSource::Volume { name: None, anonymous: true, subpath: None },
        };
        spec.mounts.push(Mount { target, source, options: MountOptions::default() });
    }
}

/// `80`, `80/udp`, `8000-8010/tcp`.
pub fn parse_exposed(text: &str) -> Result<(u16, u16, Protocol)> {
    let wrong = || Failure::new(Kind::Engine, format!("invalid port {text:?}: write PORT[-PORT][/tcp|udp|sctp]"));
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol {
        "tcp" | "" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return Err(wrong().into()),
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(wrong);
    let (first, last) = (number(first)?, number(last)?);
    if last < first {
        return Err(wrong().into());
    }
    Ok((first, last, protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ImageConfig {
        serde_json::from_str(
            r#"{"Entrypoint":["/e"],"Cmd":["c"],"Env":["A=1","B=2","BARE","=x"],"WorkingDir":"srv","User":"web",
            "Volumes":{"/data":{}},"ExposedPorts":{"80/tcp":{}},"StopSignal":"SIGQUIT","Labels":{"l":"image"}}"#,
        )
        .unwrap()
    }

    #[test]
    fn what_the_user_leaves_open() {
        let mut spec = ContainerSpec::default();
        spec.process.env = vec![("B".to_owned(), "3".to_owned())];
        merge(&mut spec, &image()).unwrap();
        assert_eq!(spec.process.entrypoint.as_deref(), Some(&["/e".to_owned()][..]));
        assert_eq!(spec.process.command, ["c"]);
        let env: Vec<String> = spec.process.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(env, ["A=1", "B=3"]);
        assert_eq!(spec.process.workdir.as_deref(), Some("/srv"));
        assert_eq!(spec.lifecycle.stop_signal, Some(3));
        assert_eq!(spec.network.expose, [(80, 80, Protocol::Tcp)]);
        assert!(matches!(spec.mounts[0].source, MountSource::Volume { anonymous: true, .. }));
    }

    #[test]
    fn variables_are_unset_and_merged() {
        let mut spec = ContainerSpec::default();
        spec.process.unset_env = vec!["B".to_owned()];
        spec.process.env_merge = vec![("A".to_owned(), "${A}:$A:$B.$".to_owned()), ("C".to_owned(), "c${A".to_owned())];
        merge(&mut spec, &image()).unwrap();
        let env: Vec<String> = spec.process.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(env, ["A=1:1:.$", "C=c${A"]);
    }

    #[test]
    fn an_entrypoint_of_the_user_drops_the_images_command() {
        let mut spec = ContainerSpec::default();
        spec.process.entrypoint = Some(vec!["/mine".to_owned()]);
        merge(&mut spec, &image()).unwrap();
        assert!(spec.process.command.is_empty());
        spec.process.entrypoint = Some(vec![String::new()]);
        merge(&mut spec, &image()).unwrap();
        assert_eq!(spec.process.entrypoint, None);
    }
}
