//! Files that every container gets from us: /etc/hosts, /etc/resolv.conf, /etc/hostname, /run/.containerenv, and passwd
//! and group with a line for a user the image does not know.
//!
//! They are written in the container's RUN directory and bound over the image's, so that nothing of ours is ever written
//! by a path inside a root file system (CVE-2025-24965).

use super::acquire::{Accounts, Request, clone_path};
use super::source::ours;
use crate::bundle::mount::Prepared;
use crate::bundle::user::{Resolved, accounts};
use crate::failure::{Failure, Kind};
use crate::model::mount::{Mount, MountSource};
use crate::model::network::NetworkMode;
use crate::model::user::{IdMaps, UserNamespace, outside};
use crate::network::attach::Attached;
use crate::network::conf;
use crate::state::file::{self, Durability};
use anyhow::{Context, Result};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What is known of the inside.
pub(super) struct Inside<'a> {
    /// Who runs.
    pub user: &'a Resolved,
    /// The image's accounts.
    pub accounts: &'a Accounts,
    /// The name.
    pub hostname: &'a str,
    /// How it is connected.
    pub network: &'a Attached,
}

/// Write them and bind them, but those whose place the user mounts over.
pub(super) fn files(request: &Request<'_>, inside: &Inside<'_>) -> Result<Vec<(Prepared, OwnedFd)>> {
    let spec = &request.record.spec;
    let network = &spec.network;
    let mut list = Vec::new();
    let mut add = |target: &str, content: Option<Vec<u8>>| -> Result<()> {
        let Some(content) = content else { return Ok(()) };
        // A tmpfs over /run is ours to write to, a directory of the user's is not.
        let covers = |mount: &Mount| {
            let over = mount.target.trim_end_matches('/');
            let keeps = !matches!(mount.source, MountSource::Tmpfs { .. });
            over == target || target.starts_with("/run/") && over == "/run" && keeps
        };
        if spec.mounts.iter().any(covers) {
            return Ok(());
        }
        let name = target.rsplit('/').next().unwrap_or(target).trim_start_matches('.');
        let path = request.layout.running(&request.record.id).join(name);
        write(&path, &content, root_of(&request.record.id_maps))?;
        list.push((ours(target, &path, spec.read_only && target != "/etc/hosts"), clone_path(&path, false)?));
        Ok(())
    };
    let own_network = !matches!(network.mode, Some(NetworkMode::Container(_)));
    add("/etc/hostname", (!network.no_hostname).then(|| format!("{}\n", inside.hostname).into()))?;
    if own_network {
        add("/etc/hosts", (!network.no_hosts).then(|| hosts(request, inside)).transpose()?.map(Into::into))?;
        add("/etc/resolv.conf", inside.network.resolv_text().map(Into::into))?;
    }
    add("/run/.containerenv", Some(container_env(request).into()))?;
    add("/etc/localtime", spec.process.timezone.as_deref().map(localtime).transpose()?)?;
    if spec.process.passwd.unwrap_or(true) {
        add("/etc/passwd", passwd(request, inside).map(Into::into))?;
        add("/etc/group", group(request, inside).map(Into::into))?;
    }
    Ok(list)
}

/// World readable, whatever the umask: they are read by the container's user.
fn write(path: &Path, content: &[u8], owner: Option<(u32, u32)>) -> Result<()> {
    file::replace(path, content, Durability::Volatile)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)))
        .with_context(|| format!("write {}", path.display()))?;
    if let Some((uid, gid)) = owner {
        std::os::unix::fs::chown(path, Some(uid), Some(gid))
            .with_context(|| format!("give {} to the container's root", path.display()))?;
    }
    Ok(())
}

/// Who is root inside; `None`: who we are, or nobody is.
fn root_of(maps: &IdMaps) -> Option<(u32, u32)> {
    if maps.uid.is_empty() { None } else { outside(&maps.uid, 0).zip(outside(&maps.gid, 0)) }
}

/// Built on the host's file, as podman's (containers.conf(5), base_hosts_file).
fn hosts(request: &Request<'_>, inside: &Inside<'_>) -> Result<String> {
    let network = &request.record.spec.network;
    let configured = conf::get()?.hosts_file.as_deref();
    let base = match network.hosts_file.as_deref().or(configured) {
        Some("none") => String::new(),
        Some("image") => inside.accounts.hosts.clone(),
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("read {path}"))?,
        None => std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
    };
    let mut text = inside.network.hosts_text(network, &base)?;
    if network.mode == Some(NetworkMode::None) {
        text.push_str(&format!("127.0.0.1\t{} {}\n", inside.hostname, request.record.name));
    }
    Ok(text)
}

/// `--tz`: the host's data of that zone, for most images have none.
fn localtime(zone: &str) -> Result<Vec<u8>> {
    let path = if zone == "local" { "/etc/localtime".into() } else { Path::new("/usr/share/zoneinfo").join(zone) };
    let unknown = || Failure::new(Kind::Engine, format!("finding timezone: unknown time zone {zone}"));
    // A zone is a name, not a way out of the zones' directory.
    if Path::new(zone).components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        return Err(unknown().into());
    }
    std::fs::read(&path)
        .map_err(|_| unknown().hint(format!("{} is not there: is tzdata installed?", path.display())).into())
}

/// What toolbx, distrobox and systemd look for.
fn container_env(request: &Request<'_>) -> String {
    let record = request.record;
    if !record.spec.security.privileged {
        return String::new();
    }
    format!(
        "engine=\"coracle-{}\"\nname=\"{}\"\nid=\"{}\"\nimage=\"{}\"\nimageid=\"{}\"\nrootless={}\n",
        env!("CARGO_PKG_VERSION"),
        record.name,
        record.id,
        record.image.as_ref().map_or("", |image| &image.name),
        record.image.as_ref().map_or("", |image| &image.id),
        u8::from(request.privilege.rootless),
    )
}

/// Lines of passwd(5) for the host's users that are asked for.
pub(super) fn host_accounts(request: &Request<'_>, image: &str) -> Result<String> {
    let wanted = &request.record.spec.process.host_users;
    if wanted.is_empty() {
        return Ok(String::new());
    }
    let host = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut text = if image.is_empty() || image.ends_with('\n') { String::new() } else { "\n".to_owned() };
    for wanted in wanted {
        let found = accounts(&host).find(|account| account.name == wanted || account.uid.to_string() == *wanted);
        let Some(found) = found else {
            return Err(Failure::new(Kind::Engine, format!("looking up user: unknown user {wanted}")).into());
        };
        let home = home(request, found.home);
        text.push_str(&format!("{0}:*:{1}:{2}:{0}:{home}:/bin/sh\n", found.name, found.uid, found.gid));
    }
    Ok(text)
}

/// A host user's home: their own if it is mounted, else where they work.
fn home<'a>(request: &'a Request<'_>, own: &'a str) -> &'a str {
    let spec = &request.record.spec;
    let is_mounted = |mount: &Mount| mount.target != "/" && Path::new(own).starts_with(&mount.target);
    if spec.mounts.iter().any(is_mounted) { own } else { spec.process.workdir.as_deref().unwrap_or("/") }
}

/// The image's passwd with a line for the user, and those of the host's; `None` when it needs none.
fn passwd(request: &Request<'_>, inside: &Inside<'_>) -> Option<String> {
    let process = &request.record.spec.process;
    let mut text = inside.accounts.passwd.clone();
    let mut changed = !inside.accounts.added.is_empty();
    let user = inside.user;
    let own_name = own_name(request)
        .filter(|name| !accounts(&text).any(|account| account.name == *name))
        .unwrap_or_else(|| user.uid.to_string());
    if !user.known && user.uid != 0 {
        let home = request.record.spec.process.workdir.as_deref().unwrap_or("/");
        let entry = match &process.passwd_entry {
            Some(template) => template
                .replace("$USERNAME", &own_name)
                .replace("$UID", &user.uid.to_string())
                .replace("$GID", &user.gid.to_string())
                .replace("$NAME", &user.uid.to_string())
                .replace("$HOME", home),
            None => format!("{own_name}:*:{}:{}:container user:{home}:/bin/sh", user.uid, user.gid),
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(entry.trim_end());
        text.push('\n');
        changed = true;
    }
    changed.then_some(text)
}

/// The caller's name on the host, for one who keeps their ids and is nobody to the image.
fn own_name(request: &Request<'_>) -> Option<String> {
    let spec = &request.record.spec;
    let keeps = matches!(spec.userns, UserNamespace::KeepId { .. });
    let root = request.privilege.maps.uid.iter().find(|range| keeps && range.inside == 0)?.outside;
    let passwd = std::fs::read_to_string("/etc/passwd").ok()?;
    Some(accounts(&passwd).find(|account| account.uid == root)?.name.to_owned())
}

/// The image's group with a line for the user's group; `None` when it has one.
fn group(request: &Request<'_>, inside: &Inside<'_>) -> Option<String> {
    let user = inside.user;
    if user.group_known || user.gid == 0 {
        return None;
    }
    let entry = match &request.record.spec.process.group_entry {
        Some(template) => template
            .replace("$GROUPNAME", &user.gid.to_string())
            .replace("$GID", &user.gid.to_string())
            .replace("$USERLIST", ""),
        None => format!("{0}:x:{0}:{1}", user.gid, user.name.clone().unwrap_or_else(|| user.uid.to_string())),
    };
    let mut text = inside.accounts.group.clone();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(entry.trim_end());
    text.push('\n');
    Some(text)
}
