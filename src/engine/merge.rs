//! The image's config merged into the wish, once, at create. Pure.
//!
//! The image is untrusted: nothing in it can name a path of the host, an option of ours, or an environment variable of
//! the caller.

use crate::failure::{Failure, Kind};
use crate::model::container::ContainerSpec;
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
    if spec.health.is_none() {
        spec.health.clone_from(&image.healthcheck);
    }
    // `--no-healthcheck` is a check that is none.
    if spec.health.as_ref().is_some_and(|health| health.test.first().is_some_and(|first| first == "NONE")) {
        spec.health = None;
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

/// The image's variables first, so that the user's win.
fn environment(spec: &mut ContainerSpec, image: &ImageConfig) {
    if spec.process.unset_env_all {
        return;
    }
    let own = std::mem::take(&mut spec.process.env);
    let images = image.env.iter().flatten().filter_map(|entry| entry.split_once('='));
    for (name, value) in images.filter(|(name, _)| !name.is_empty()) {
        spec.process.env.push((name.to_owned(), value.to_owned()));
    }
    for (name, value) in own {
        spec.process.env.retain(|(known, _)| *known != name);
        spec.process.env.push((name, value));
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
