//! Volumes: directories that outlive containers.
//!
//! `volumes/NAME/{volume.json, _data}`. A volume is made in `tmp/` and renamed in, so that two creates of one name have
//! one winner; it is removed by a rename out first. Whether it still waits for its first use (its owner, and a copy of what
//! the image has at its place) stands in `volume.json`, changed under the volume's lock only: content is copied once, and
//! only into an empty volume (CVE-2020-1726).

use crate::failure::{Explain, Failure, Kind};
use crate::model::id::{Id, check_name};
use crate::model::mount::{Mount, MountSource};
use crate::state::container::{self, ContainerRecord};
use crate::state::event::{self, Event, now_ns};
use crate::state::file::{self, Durability};
use crate::state::layout::Layout;
use crate::state::lock::{self, Guard, Mode, Rank};
use crate::storage::layer::{Staging, discard};
use crate::storage::{copy, tree};
use crate::sys::mount;
use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The number in `volume.json`.
pub const VERSION: u32 = 1;

/// `volume.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// Format of this document.
    pub version: u32,
    /// Its name.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `-o type=,device=,o=…` as they were given.
    pub options: BTreeMap<String, String>,
    /// When, in nanoseconds since 1970.
    pub created_ns: i64,
    /// Made for one container, and removed with it.
    pub anonymous: bool,
    /// Owner that was asked for.
    pub uid: Option<u32>,
    /// Group that was asked for.
    pub gid: Option<u32>,
    /// Nothing was put in by an image yet.
    pub needs_copy_up: bool,
    /// It does not belong to a container's user yet.
    pub needs_chown: bool,
}

/// What `volume create` is asked for.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Options.
    pub options: BTreeMap<String, String>,
    /// Made for one container.
    pub anonymous: bool,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

impl Volume {
    /// Where its files are.
    pub fn data(layout: &Layout, name: &str) -> PathBuf {
        layout.volumes().join(name).join("_data")
    }

    /// Its record; `None`: there is no such volume.
    pub fn load(layout: &Layout, name: &str) -> Result<Option<Volume>> {
        if check_name(name).is_err() {
            return Ok(None);
        }
        let path = layout.volumes().join(name).join("volume.json");
        let volume: Option<Volume> = file::read_json(&path)?;
        if let Some(volume) = &volume
            && volume.version > VERSION
        {
            bail!("{} has version {}, this coracle knows {VERSION}", path.display(), volume.version);
        }
        Ok(volume)
    }

    /// The volume of this name, or of the only name that begins so.
    ///
    /// # Errors
    /// podman's words when there is none, with exit code 1.
    pub fn find(layout: &Layout, name: &str) -> Result<Volume> {
        if let Some(volume) = Volume::load(layout, name)? {
            return Ok(volume);
        }
        let names: Vec<String> = names(layout)?.into_iter().filter(|known| known.starts_with(name)).collect();
        match names.as_slice() {
            [only] if !name.is_empty() => Volume::load(layout, only)?.with_context(|| format!("volume {only} is gone")),
            [] => {
                let message = format!("no volume with name {name:?} found: no such volume");
                Err(Failure::new(Kind::Missing, message).into())
            }
            _ => bail!("more than one result for volume name {name:?}"),
        }
    }

    /// Make a volume.
    ///
    /// # Returns
    /// `None`: the name is taken.
    pub fn create(layout: &Layout, name: &str, wish: Wish) -> Result<Option<Volume>> {
        check_name(name)?;
        check_options(&wish.options)?;
        let staging = Staging::create(layout, "volume")?;
        let data = staging.path().join("_data");
        std::fs::DirBuilder::new().mode(0o755).create(&data).with_context(|| format!("make {}", data.display()))?;
        let directory = tree::open_directory(&data)?;
        nix::sys::stat::fchmod(&directory, nix::sys::stat::Mode::from_bits_truncate(0o755))?;
        let words = mount_words(&wish.options);
        let number = |key: &str| words.iter().find_map(|word| word.strip_prefix(key)?.parse::<u32>().ok());
        let (uid, gid) = (wish.uid.or_else(|| number("uid=")), wish.gid.or_else(|| number("gid=")));
        let needs_copy_up = !words.contains(&"nocopy");
        if uid.is_some() || gid.is_some() {
            nix::unistd::fchown(&directory, uid.map(Into::into), gid.map(Into::into))
                .with_context(|| format!("give volume {name} to its owner"))?;
        }
        let volume = Volume {
            version: VERSION,
            name: name.to_owned(),
            labels: wish.labels,
            options: wish.options,
            created_ns: now_ns(),
            anonymous: wish.anonymous,
            needs_copy_up,
            needs_chown: uid.is_none() && gid.is_none(),
            uid,
            gid,
        };
        let record = staging.path().join("volume.json");
        let durability = if volume.anonymous { Durability::Volatile } else { Durability::Durable };
        file::create_new(&record, &serde_json::to_vec(&volume)?, durability)
            .with_context(|| format!("write {}", record.display()))?;
        match file::rename_new(staging.path(), &layout.volumes().join(name)) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), ErrorKind::AlreadyExists | ErrorKind::DirectoryNotEmpty) => {
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(|| format!("make volume {name}")),
        }
        if durability == Durability::Durable {
            file::sync_directory(&layout.volumes())?;
        }
        volume.event(layout, "create");
        Ok(Some(volume))
    }

    /// Remove it with all that is in it. The caller has seen that nobody uses it.
    pub fn remove(&self, layout: &Layout) -> Result<()> {
        discard(layout, &layout.volumes().join(&self.name)).with_context(|| format!("remove volume {}", self.name))?;
        self.event(layout, "remove");
        Ok(())
    }

    /// Take it alone.
    pub fn lock(&self, layout: &Layout) -> Result<Guard> {
        lock::lock(&layout.volumes().join(&self.name), Rank::Volume, Mode::Exclusive)
    }

    /// Its files as a detached mount.
    pub fn mount(&self, layout: &Layout) -> Result<OwnedFd> {
        let kind = self.options.get("type").map(String::as_str).unwrap_or_default();
        let device = self.options.get("device").map(String::as_str).unwrap_or_default();
        let words = mount_words(&self.options);
        let context = || format!("mount volume {}", self.name);
        if let Some(recursive) = bind_of(&self.options) {
            let path = CString::new(device)?;
            let tree = mount::clone_tree(nix::fcntl::AT_FDCWD, &path, recursive);
            return finish(tree.with_context(|| format!("bind {device}")).with_context(context)?, &words);
        }
        if matches!(kind, "" | "none") {
            let path = CString::new(Volume::data(layout, &self.name).into_os_string().into_encoded_bytes())?;
            return mount::clone_tree(nix::fcntl::AT_FDCWD, &path, false).with_context(context);
        }
        self.file_system(kind, device, &words).with_context(context)
    }

    fn file_system(&self, kind: &str, device: &str, words: &[&str]) -> Result<OwnedFd> {
        let file_system = mount::fsopen(&CString::new(kind)?)
            .with_context(|| format!("open file system {kind}"))
            .hint("an ordinary user may mount tmpfs only; others need root and the kernel's module")?;
        if !device.is_empty() {
            mount::fsconfig_string(file_system.as_fd(), c"source", &CString::new(device)?)?;
        }
        for word in words.iter().filter(|word| attribute_of(word).is_none()) {
            let set = match word.split_once('=') {
                Some((key, value)) => {
                    mount::fsconfig_string(file_system.as_fd(), &CString::new(key)?, &CString::new(value)?)
                }
                None => mount::fsconfig_flag(file_system.as_fd(), &CString::new(*word)?),
            };
            set.with_context(|| format!("option {word}"))?;
        }
        let made = mount::fsconfig_create(file_system.as_fd()).map_err(|error| {
            let said = mount::fs_message(file_system.as_fd());
            anyhow::Error::from(error).context(said.unwrap_or_else(|| format!("make a {kind} of {device:?}")))
        });
        made?;
        finish(mount::fsmount(file_system.as_fd(), 0)?, words)
    }

    /// Whether its files are in the store, so that they can be filled and handed over.
    pub fn is_plain(&self) -> bool {
        bind_of(&self.options).is_none() && matches!(self.options.get("type").map_or("", String::as_str), "" | "none")
    }

    /// The first use: copy what the image has at the volume's place, and give the volume its owner.
    ///
    /// Costs one read of `volume.json` (which the caller has done) on every later use.
    pub fn first_use(&self, layout: &Layout, place: &Place<'_>) -> Result<()> {
        let wants_copy = self.needs_copy_up && place.copy;
        if !self.is_plain() || !(wants_copy || self.needs_chown) {
            return Ok(());
        }
        let _lock = self.lock(layout)?;
        // Another container may have been faster.
        let Some(mut volume) = Volume::load(layout, &self.name)? else { bail!("volume {} is gone", self.name) };
        let data = tree::open_directory(&Volume::data(layout, &self.name))?;
        let empty = is_empty(&data)?;
        let mut filled = !empty;
        if empty && (volume.needs_copy_up && place.copy || volume.needs_chown) {
            let source =
                tree::open_in_root(place.rootfs, place.target.as_bytes(), OFlag::O_RDONLY | OFlag::O_DIRECTORY);
            match source {
                Ok(source) => {
                    let options = copy::Options { lenient: place.lenient, ..copy::Options::default() };
                    if volume.needs_copy_up && place.copy {
                        copy::content(source.as_fd(), data.as_fd(), options)
                            .with_context(|| format!("fill volume {} with the image's {}", self.name, place.target))?;
                        filled = !is_empty(&data)?;
                    }
                    if volume.needs_chown {
                        copy::directory_attributes(source.as_fd(), data.as_fd(), options)?;
                    }
                }
                // The image has nothing there: the volume belongs to who uses it.
                Err(_) if volume.needs_chown => {
                    let (uid, gid) = place.user;
                    match nix::unistd::fchown(&data, Some(uid.into()), Some(gid.into())) {
                        Err(_) if place.lenient => {}
                        result => result.with_context(|| format!("give volume {} to {uid}:{gid}", self.name))?,
                    }
                }
                Err(_) => {}
            }
        }
        // A volume that is still empty may be filled, and find its owner, where it is used next.
        if !filled {
            return Ok(());
        }
        volume.needs_copy_up &= !place.copy;
        volume.needs_chown = false;
        let path = layout.volumes().join(&self.name).join("volume.json");
        let durability = if volume.anonymous { Durability::Volatile } else { Durability::Durable };
        file::replace_json(&path, &volume, durability)
    }

    /// Write an event about it.
    pub fn event(&self, layout: &Layout, status: &str) {
        event::record(
            layout,
            Event {
                kind: "volume".to_owned(),
                status: status.to_owned(),
                name: self.name.clone(),
                attributes: self.labels.clone(),
                ..Event::default()
            },
        );
    }
}

/// Where a container has a volume.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The container's root.
    pub rootfs: BorrowedFd<'a>,
    /// The path inside.
    pub target: &'a str,
    /// Whether the image's content is wanted (`nocopy`).
    pub copy: bool,
    /// The container's user as the volume's file system numbers it.
    pub user: (u32, u32),
    /// Owners that cannot be given are passed over (only one id is mapped).
    pub lenient: bool,
}

/// Names of all volumes, sorted.
pub fn names(layout: &Layout) -> Result<Vec<String>> {
    let path = layout.volumes();
    let entries = match std::fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| check_name(name).is_ok())
        .collect();
    names.sort();
    Ok(names)
}

/// All volumes, by name. One that cannot be read is told on standard error and passed over.
pub fn list(layout: &Layout) -> Result<Vec<Volume>> {
    let mut volumes = Vec::new();
    for name in names(layout)? {
        match Volume::load(layout, &name) {
            Ok(volume) => volumes.extend(volume),
            Err(error) => eprintln!("coracle: passed over: {error:#}"),
        }
    }
    Ok(volumes)
}

/// Ids of containers that have this volume among their mounts.
pub fn users(layout: &Layout, name: &str) -> Result<Vec<Id>> {
    let mut users = Vec::new();
    for id in container::list(layout)? {
        // A record that cannot be read is the container's trouble, not the volume's. Parsed only if the name is in it.
        let text = std::fs::read_to_string(ContainerRecord::path(layout, &id)).unwrap_or_default();
        if !text.contains(name) {
            continue;
        }
        let Ok(record) = serde_json::from_str::<ContainerRecord>(&text) else { continue };
        let uses = |mount: &Mount| matches!(&mount.source, MountSource::Volume { name: Some(own), .. } if own == name);
        if record.spec.mounts.iter().any(uses) {
            users.push(id);
        }
    }
    Ok(users)
}

/// Remove the volumes that were made for a container which is gone, unless another one has taken to them.
pub fn remove_anonymous(layout: &Layout, record: &ContainerRecord) -> Result<()> {
    for mount in &record.spec.mounts {
        if let MountSource::Volume { name: Some(name), anonymous: true, .. } = &mount.source
            && let Some(volume) = Volume::load(layout, name)?
            && volume.anonymous
            && users(layout, name)?.is_empty()
        {
            volume.remove(layout)?;
        }
    }
    Ok(())
}

/// Check the options of the driver `local`.
fn check_options(options: &BTreeMap<String, String>) -> Result<()> {
    for key in options.keys() {
        if !matches!(key.as_str(), "type" | "device" | "o" | "UID" | "GID") {
            bail!("invalid mount option {key} for driver 'local': invalid argument");
        }
    }
    for word in mount_words(options) {
        // A tmpfs has a size of its own; a directory has one only by project quotas.
        let bounded = options.get("type").is_some_and(|kind| kind == "tmpfs");
        if (word.starts_with("size=") || word.starts_with("inodes=")) && !bounded {
            return Err(Failure::new(
                Kind::Engine,
                format!("volume option {word}: sizes of directories are not supported"),
            )
            .hint(
                "use a tmpfs (`-o type=tmpfs -o device=tmpfs -o o=size=…`) or a file system of its own (`-o device=…`)",
            )
            .into());
        }
    }
    if bind_of(options).is_some() {
        let device = options.get("device").map(Path::new).filter(|device| device.is_absolute());
        let device = device.context("a volume of option bind needs `device=` with an absolute path")?;
        if let Err(error) = std::fs::metadata(device) {
            let cause = nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or_default()).desc().to_lowercase();
            bail!("invalid volume option device for driver 'local': faccessat {}: {cause}", device.display());
        }
    }
    Ok(())
}

/// Whether the volume is a directory of the host's (`o=bind`, or `type=bind`), and if so whether with all that is
/// mounted below.
fn bind_of(options: &BTreeMap<String, String>) -> Option<bool> {
    let kind = options.get("type").map(String::as_str);
    let words = mount_words(options);
    let has = |word: &str| kind == Some(word) || words.contains(&word);
    if has("rbind") { Some(true) } else { has("bind").then_some(false) }
}

/// The words of `o=`, without those that speak to us and not to the kernel.
fn mount_words(options: &BTreeMap<String, String>) -> Vec<&str> {
    let text = options.get("o").map(String::as_str).unwrap_or_default();
    let kind = options.get("type").map(String::as_str).unwrap_or_default();
    let words = text.split(',').filter(|word| !word.is_empty() && *word != "noquota");
    // uid= and gid= are options of many file systems, tmpfs among them: there they go to the kernel too.
    words.filter(|word| *word != "copy" || !kind.is_empty()).collect()
}

/// The mount attribute a word stands for.
fn attribute_of(word: &str) -> Option<u64> {
    Some(match word {
        "ro" => mount::ATTR_RDONLY,
        "nosuid" => mount::ATTR_NOSUID,
        "nodev" => mount::ATTR_NODEV,
        "noexec" => mount::ATTR_NOEXEC,
        "noatime" => mount::ATTR_NOATIME,
        "nodiratime" => mount::ATTR_NODIRATIME,
        "rw" | "suid" | "dev" | "exec" | "bind" | "rbind" | "nocopy" | "copy" | "defaults" => 0,
        _ => return None,
    })
}

fn finish(tree: OwnedFd, words: &[&str]) -> Result<OwnedFd> {
    let set = words.iter().filter_map(|word| attribute_of(word)).fold(0, |all, one| all | one);
    if set != 0 {
        let attributes = mount::Attributes { set, ..mount::Attributes::default() };
        mount::mount_setattr(tree.as_fd(), words.contains(&"rbind"), &attributes).context("set mount options")?;
    }
    Ok(tree)
}

fn is_empty(directory: &OwnedFd) -> Result<bool> {
    let fd = tree::open_in_root(directory.as_fd(), b".", OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
    let mut stream = nix::dir::Dir::from_fd(fd)?;
    let mut others = stream.iter().flatten().filter(|entry| !matches!(entry.file_name().to_bytes(), b"." | b".."));
    Ok(others.next().is_none())
}
