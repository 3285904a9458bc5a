//! Volumes: create, list, remove, prune, inspect, export and import.

use crate::engine::moment;
use crate::engine::{Engine, remove};
use crate::failure::{Failure, Kind};
use crate::image::config::rfc3339;
use crate::model::id::Id;
use crate::state::event::now_ns;
use crate::storage::tar::read::{NoRaw, Reader};
use crate::storage::volume::{self, Volume, Wish};
use crate::storage::{compress, pack, tree, unpack};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::{BufReader, Read, Write};
use std::os::fd::AsFd;

/// Make a volume; without a name it gets one of 64 digits.
pub fn create(engine: &Engine, name: Option<&str>, wish: Wish, ignore: bool) -> Result<String> {
    let layout = &engine.layout;
    let name = match name {
        Some(name) => name.to_owned(),
        None => Id::from_random(crate::engine::create::random()?).to_string(),
    };
    match Volume::create(layout, &name, wish)? {
        Some(_) => Ok(name),
        None if ignore => Ok(name),
        None => {
            Err(Failure::new(Kind::Engine, format!("volume with name {name} already exists: volume already exists"))
                .into())
        }
    }
}

/// `--filter`s of `volume ls` and `volume prune`. Those of one key: any holds; of different keys: all hold.
#[derive(Clone, Debug, Default)]
pub struct Filters(Vec<(String, String)>);

impl Filters {
    /// Parse `KEY=VALUE`s.
    pub fn parse(texts: &[String]) -> Result<Filters> {
        let mut filters = Vec::new();
        for text in texts {
            let (key, value) = match text.split_once("!=") {
                Some(("label", value)) => ("label!", value),
                _ => text.split_once('=').with_context(|| {
                    format!("invalid volume filter {text:?}: must be in the format \"filter=value\"")
                })?,
            };
            let known = [
                "after",
                "all",
                "anonymous",
                "dangling",
                "driver",
                "label",
                "label!",
                "name",
                "opt",
                "scope",
                "since",
                "until",
            ];
            if !known.contains(&key) {
                bail!("{key:?} is an invalid volume filter");
            }
            filters.push((key.to_owned(), value.to_owned()));
        }
        Ok(Filters(filters))
    }

    /// The value of a filter that is there at most once.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn pass(&self, engine: &Engine, volume: &Volume) -> Result<bool> {
        for (index, (key, _)) in self.0.iter().enumerate() {
            if self.0[..index].iter().any(|(earlier, _)| earlier == key) {
                continue;
            }
            let mut values = self.0.iter().filter(|(name, _)| name == key);
            // Labels must all be there; of other keys one is enough.
            let good = if key.starts_with("label") {
                values.try_fold(true, |good, (key, value)| {
                    Ok::<_, anyhow::Error>(good && holds(engine, volume, key, value)?)
                })
            } else {
                values.try_fold(false, |good, (key, value)| {
                    Ok::<_, anyhow::Error>(good || holds(engine, volume, key, value)?)
                })
            };
            if !good? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn holds(engine: &Engine, volume: &Volume, key: &str, value: &str) -> Result<bool> {
    let truth = |value: &str| match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => bail!("{value:?} is not a valid value for the {key:?} filter - must be true or false"),
    };
    let pair = |map: &std::collections::BTreeMap<String, String>| match value.split_once('=') {
        Some((name, wanted)) => map.get(name).is_some_and(|found| found == wanted),
        None => map.contains_key(value),
    };
    Ok(match key {
        "name" => match regex_lite::Regex::new(value) {
            Ok(pattern) => pattern.is_match(&volume.name),
            Err(_) => volume.name.contains(value),
        },
        "driver" | "scope" => value == "local",
        "label" => pair(&volume.labels),
        "label!" => !pair(&volume.labels),
        "opt" => pair(&volume.options),
        "anonymous" => volume.anonymous == truth(value)?,
        "dangling" => volume::users(&engine.layout, &volume.name)?.is_empty() == truth(value)?,
        "until" => volume.created_ns < moment::parse(value, now_ns())?,
        "since" | "after" => volume.created_ns > Volume::find(&engine.layout, value)?.created_ns,
        // Decided by prune itself.
        _ => truth(value).map(|_| true)?,
    })
}

/// All volumes that pass the filters, by name.
pub fn list(engine: &Engine, filters: &Filters) -> Result<Vec<Volume>> {
    let mut kept = Vec::new();
    for volume in volume::list(&engine.layout)? {
        if filters.pass(engine, &volume)? {
            kept.push(volume);
        }
    }
    Ok(kept)
}

/// Remove a volume. With `force` the containers that use it go first.
///
/// # Errors
/// Unknown: exit code 1. In use: exit code 2.
pub fn delete(engine: &Engine, name: &str, force: bool, timeout_s: Option<i64>) -> Result<String> {
    let layout = &engine.layout;
    let volume = Volume::find(layout, name)?;
    if force {
        let wish = remove::Wish { force: true, timeout_s, dependents: true, ..remove::Wish::default() };
        for id in volume::users(layout, &volume.name)? {
            remove::remove(engine, &id, wish)?;
        }
    }
    // Shared by `create`: nobody begins to use it between the look and the removal.
    let _store = crate::image::store::exclusive(layout)?;
    let users = volume::users(layout, &volume.name)?;
    if !users.is_empty() {
        let list: Vec<String> = users.iter().map(Id::to_string).collect();
        return Err(Failure::new(
            Kind::InUse,
            format!(
                "volume {} is being used by the following container(s): {}: volume is being used",
                volume.name,
                list.join(", ")
            ),
        )
        .hint("remove them first, or all at once with --force")
        .into());
    }
    volume.remove(layout)?;
    Ok(volume.name)
}

/// Which volumes `prune` takes.
pub fn unused(engine: &Engine, all: bool, filters: &Filters) -> Result<Vec<Volume>> {
    let all = all || matches!(filters.get("all"), Some("true" | "1"));
    let mut found = list(engine, filters)?;
    found.retain(|volume| all || volume.anonymous || filters.get("anonymous").is_some());
    let mut free = Vec::new();
    for volume in found {
        if volume::users(&engine.layout, &volume.name)?.is_empty() {
            free.push(volume);
        }
    }
    Ok(free)
}

/// Remove unused volumes: the anonymous ones, or `all`. Returns names and bytes freed.
pub fn prune(engine: &Engine, all: bool, filters: &Filters) -> Result<(Vec<String>, u64)> {
    let mut gone = Vec::new();
    let mut freed = 0;
    for volume in unused(engine, all, filters)? {
        let size = tree::usage(&Volume::data(&engine.layout, &volume.name))?.apparent;
        match delete(engine, &volume.name, false, None) {
            Ok(name) => {
                gone.push(name);
                freed += size;
            }
            // Used or removed by somebody else since.
            Err(error) if matches!(crate::failure::kind_of(&error), Kind::InUse | Kind::Missing) => {}
            Err(error) => return Err(error),
        }
    }
    Ok((gone, freed))
}

/// The document of `volume inspect`, with podman's field names.
pub fn document(engine: &Engine, volume: &Volume) -> Value {
    let mut value = json!({
        "Name": volume.name,
        "Driver": "local",
        "Mountpoint": Volume::data(&engine.layout, &volume.name),
        "CreatedAt": rfc3339(volume.created_ns),
        "Labels": volume.labels,
        "Scope": "local",
        "Options": volume.options,
    });
    if let Some(uid) = volume.uid {
        value["UID"] = json!(uid);
    }
    if let Some(gid) = volume.gid {
        value["GID"] = json!(gid);
    }
    if volume.anonymous {
        value["Anonymous"] = json!(true);
    }
    value["MountCount"] = json!(0);
    if volume.needs_copy_up {
        value["NeedsCopyUp"] = json!(true);
    }
    if volume.needs_chown {
        value["NeedsChown"] = json!(true);
    }
    value
}

/// The same with the fields that podman's JSON leaves out when they say nothing: templates may name them.
pub fn fields(engine: &Engine, volume: &Volume) -> Value {
    let mut value = json!({
        "UID": 0, "GID": 0, "Anonymous": false, "NeedsCopyUp": false, "NeedsChown": false,
        "Status": {}, "Timeout": 0, "StorageID": "", "LockNumber": 0,
    });
    if let (Value::Object(fields), Value::Object(known)) = (&mut value, document(engine, volume)) {
        fields.extend(known);
    }
    value
}

/// Write a volume's files as a tar.
pub fn export(engine: &Engine, name: &str, target: &mut dyn Write) -> Result<()> {
    let volume = Volume::find(&engine.layout, name)?;
    let mount = volume.mount(&engine.layout)?;
    let root = tree::open_in_root(mount.as_fd(), b".", nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_DIRECTORY)?;
    pack::tree(root.as_fd(), target, pack::Options::default()).with_context(|| format!("export volume {}", volume.name))
}

/// Put the files of a tar, perhaps compressed, into a volume.
pub fn import(engine: &Engine, name: &str, source: impl Read + Send) -> Result<()> {
    let volume = Volume::find(&engine.layout, name)?;
    let mount = volume.mount(&engine.layout)?;
    let root = tree::open_in_root(mount.as_fd(), b".", nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_DIRECTORY)?;
    let (_, plain) = compress::decompress(source)?;
    let mut archive = Reader::new(BufReader::with_capacity(256 << 10, plain), NoRaw);
    let options = unpack::Options { whiteouts: false, ..unpack::Options::layer(&engine.privilege, root.as_fd())? };
    unpack::unpack(&mut archive, root.as_fd(), options)
        .with_context(|| format!("import into volume {}", volume.name))?;
    Ok(())
}
