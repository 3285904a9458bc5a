//! Mounts, volumes and devices.

use super::mount_option::Reader;
use super::{Surroundings, clean, csv, glob};
use crate::model::container::ContainerSpec;
use crate::model::mount::{Device, ImageVolume, Mount as Wanted, MountOptions, MountSource};
use crate::model::unit::ByteSize;
use anyhow::{Context, Result, anyhow, bail, ensure};

// Mounts and devices. No doc comment: clap would take it for the verb's help.
#[derive(clap::Args, Debug, Default)]
#[allow(missing_docs)]
pub struct Mount {
    /// Bind mount or volume: [SOURCE:]TARGET[:OPTIONS]
    #[arg(short, long, value_name = "VOLUME")]
    pub volume: Vec<String>,
    /// Attach a file system: type=bind|volume|tmpfs|image|ramfs|devpts|glob,…
    #[arg(long, value_name = "MOUNT")]
    pub mount: Vec<String>,
    /// Make a tmpfs mount: TARGET[:OPTIONS]
    #[arg(long, value_name = "TARGET")]
    pub tmpfs: Vec<String>,
    /// Mount volumes of other containers: NAME[:OPTIONS]
    #[arg(long, value_name = "CONTAINER")]
    pub volumes_from: Vec<String>,
    /// What becomes of the volumes an image names: anonymous, bind, tmpfs or ignore
    #[arg(long, value_name = "MODE")]
    pub image_volume: Option<String>,
    /// Driver of named volumes
    #[arg(long, value_name = "DRIVER", hide = true)]
    pub volume_driver: Option<String>,
    /// Make the container's root file system read-only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub read_only: Option<bool>,
    /// With --read-only: a tmpfs on /dev/shm, /run, /tmp and /var/tmp (default true)
    #[arg(long, value_name = "BOOL")]
    pub read_only_tmpfs: Option<bool>,
    /// Add a device of the host: HOST[:CONTAINER][:rwm]
    #[arg(long, value_name = "DEVICE")]
    pub device: Vec<String>,
    /// Add a rule to the list of allowed devices: TYPE MAJOR:MINOR ACCESS
    #[arg(long, value_name = "RULE")]
    pub device_cgroup_rule: Vec<String>,
    /// Devices of graphics processors
    #[arg(long, value_name = "DEVICE", hide = true)]
    pub gpus: Vec<String>,
    /// Give the container a secret
    #[arg(long, value_name = "SECRET", hide = true)]
    pub secret: Vec<String>,
}

impl Mount {
    /// Into the spec.
    pub fn apply(self, spec: &mut ContainerSpec, around: &Surroundings) -> Result<()> {
        super::refuse("--gpus", !self.gpus.is_empty())?;
        super::refuse("--secret", !self.secret.is_empty())?;
        super::refuse("--volume-driver", self.volume_driver.is_some_and(|driver| driver != "local"))?;
        let mut mounts = Vec::new();
        for word in &self.volume {
            add(&mut mounts, volume(word, around)?)?;
        }
        for word in &self.mount {
            for mount in mount(word, around)? {
                add(&mut mounts, mount)?;
            }
        }
        for word in &self.tmpfs {
            add(&mut mounts, tmpfs(word)?)?;
        }
        spec.mounts = mounts;
        spec.volumes_from = csv(&self.volumes_from)?;
        spec.image_volume = match self.image_volume.as_deref() {
            None | Some("" | "anonymous" | "bind") => ImageVolume::Anonymous,
            Some("tmpfs") => ImageVolume::Tmpfs,
            Some("ignore") => ImageVolume::Ignore,
            Some(other) => {
                bail!("invalid image volume mode {other:?} required value: anonymous, bind, tmpfs, ignore")
            }
        };
        spec.read_only = self.read_only.unwrap_or(false);
        spec.read_only_tmpfs = self.read_only_tmpfs;
        spec.devices = self.device.iter().map(|word| device(word)).collect::<Result<_>>()?;
        spec.device_rules = csv(&self.device_cgroup_rule)?;
        ensure!(
            spec.device_rules.is_empty() || !around.rootless,
            "device cgroup rules are not supported in rootless mode or in a user namespace"
        );
        spec.device_rules.iter().try_for_each(|rule| check_device_rule(rule))
    }
}

/// Mounts of containers.conf, unless something else was asked for at their place.
pub fn defaults(spec: &mut ContainerSpec, volumes: &[String], mounts: &[String], around: &Surroundings) -> Result<()> {
    let mut more = Vec::new();
    for word in volumes {
        more.push(volume(word, around)?);
    }
    for word in mounts {
        more.extend(mount(word, around)?);
    }
    for one in more {
        if !spec.mounts.iter().any(|known| known.target == one.target) {
            spec.mounts.push(one);
        }
    }
    Ok(())
}

/// One mount a target; the same one twice is one.
fn add(mounts: &mut Vec<Wanted>, mount: Wanted) -> Result<()> {
    match mounts.iter().find(|other| other.target == mount.target) {
        Some(other) if *other == mount => Ok(()),
        Some(_) => bail!("{}: duplicate mount destination", mount.target),
        None => {
            mounts.push(mount);
            Ok(())
        }
    }
}

/// An absolute path inside the container.
fn target(path: &str) -> Result<String> {
    ensure!(!path.is_empty(), "container directory cannot be empty");
    ensure!(path.starts_with('/'), "invalid container path {path:?}, must be an absolute path");
    let path = clean(path);
    ensure!(path != "/", "invalid container path {path:?}: a mount would hide the whole container");
    Ok(path)
}

/// `-v [SOURCE:]TARGET[:OPTIONS]`.
pub fn volume(word: &str, around: &Surroundings) -> Result<Wanted> {
    let parts: Vec<&str> = word.split(':').collect();
    let (source, inside, options) = match parts[..] {
        [inside] => (None, inside, ""),
        [source, inside] => (Some(source), inside, ""),
        [source, inside, options] => (Some(source), inside, options),
        _ => bail!("{word}: incorrect volume format, should be [host-dir:]ctr-dir[:option]"),
    };
    ensure!(source != Some(""), "host directory cannot be empty");
    let mut reader = Reader::default();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        ensure!(reader.read(option)?, "invalid option type {option:?}");
    }
    let recursive = !reader.not_recursive;
    let options = reader.finish()?;
    let source = match source {
        Some(source) if source.starts_with(['/', '.']) => {
            MountSource::Bind { path: around.absolute(source), create: false, recursive }
        }
        Some(name) => {
            crate::model::id::check_name(name).with_context(|| format!("volume name {name:?}"))?;
            MountSource::Volume { name: Some(name.to_owned()), anonymous: false, subpath: None }
        }
        None => MountSource::Volume { name: None, anonymous: true, subpath: None },
    };
    Ok(Wanted { target: target(inside)?, source, options })
}

/// `--tmpfs TARGET[:OPTIONS]`.
pub fn tmpfs(word: &str) -> Result<Wanted> {
    let (inside, options) = word.split_once(':').unwrap_or((word, ""));
    let mut reader = Reader::default();
    let mut tmpfs = Tmpfs::default();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        if !tmpfs.read(option)? && !reader.read(option)? {
            tmpfs.other(option)?;
        }
    }
    tmpfs.finish(target(inside)?, reader)
}

/// What a tmpfs has beside the options of all mounts.
#[derive(Debug, Default)]
struct Tmpfs {
    size: Option<ByteSize>,
    mode: Option<u32>,
    copy_up: Option<bool>,
    data: Vec<String>,
}

impl Tmpfs {
    fn read(&mut self, option: &str) -> Result<bool> {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match key {
            // A percentage is the kernel's to compute.
            "size" | "tmpfs-size" if value.ends_with('%') => self.data.push(format!("size={value}")),
            "size" | "tmpfs-size" => {
                self.size = Some(value.parse().with_context(|| format!("tmpfs option {option:?}"))?)
            }
            "mode" | "tmpfs-mode" => {
                let mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777);
                self.mode = Some(mode.with_context(|| format!("tmpfs option {option:?}: octal digits are wanted"))?);
            }
            "tmpcopyup" | "notmpcopyup" => {
                ensure!(self.copy_up.is_none(), "cannot pass 'tmpcopyup' and 'notmpcopyup' options more than once");
                self.copy_up = Some(key == "tmpcopyup");
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// An option of the file system itself: only what the kernel's tmpfs knows.
    fn other(&mut self, option: &str) -> Result<()> {
        let key = option.split('=').next().unwrap_or_default();
        let known = ["uid", "gid", "nr_inodes", "nr_blocks", "huge", "mpol", "noswap", "inode32", "inode64"];
        let flags = ["noatime", "relatime", "strictatime", "nodiratime"];
        ensure!(known.contains(&key) || flags.contains(&option), "{option}: invalid mount option");
        self.data.push(option.to_owned());
        Ok(())
    }

    fn finish(self, target: String, reader: Reader) -> Result<Wanted> {
        let mut options = reader.finish()?;
        options.data = self.data;
        let source = MountSource::Tmpfs { size: self.size, mode: self.mode, copy_up: self.copy_up.unwrap_or(true) };
        Ok(Wanted { target, source, options })
    }
}

/// What `--mount` said, kind by kind.
#[derive(Debug, Default)]
struct Words {
    source: Option<String>,
    target: Option<String>,
    subpath: Option<String>,
    reader: Reader,
    tmpfs: Tmpfs,
    devpts: [Option<u32>; 4],
    not_recursive: bool,
}

/// `--mount type=…,KEY=VALUE,…`; without a type it is a volume. A glob makes several.
pub fn mount(word: &str, around: &Surroundings) -> Result<Vec<Wanted>> {
    let fields = csv(&[word.to_owned()])?;
    let mut kind = "volume";
    for field in &fields {
        if let Some(value) = field.strip_prefix("type=") {
            kind = value;
        }
    }
    ensure!(fields.iter().any(|field| !field.is_empty()), "invalid filesystem type {word:?}");
    let kinds = ["bind", "volume", "tmpfs", "ramfs", "image", "devpts", "glob"];
    super::refuse("--mount type=artifact", kind == "artifact")?;
    ensure!(kinds.contains(&kind), "invalid filesystem type {kind:?}");
    let mut words = Words::default();
    for field in fields.iter().filter(|field| !field.starts_with("type=") && !field.is_empty()) {
        words.read(kind, field)?;
    }
    words.finish(kind, around)
}

impl Words {
    fn read(&mut self, kind: &str, field: &str) -> Result<()> {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field, None),
        };
        let only = |kinds: &[&str]| -> Result<()> {
            ensure!(kinds.contains(&kind), "{key:?} option not supported for {kind:?} mount types");
            Ok(())
        };
        let needed = || value.ok_or_else(|| anyhow!("{key}: must provide an argument for option"));
        let truth = || super::parse_bool(value.unwrap_or("true")).map_err(|error| anyhow!("{field:?}: {error}"));
        match key {
            "src" | "source" => {
                only(&["bind", "volume", "image", "glob"])?;
                ensure!(self.source.is_none(), "cannot pass {key:?} option more than once");
                let value = needed()?;
                // An empty source of a volume is an anonymous one, as docker has it.
                ensure!(
                    !value.is_empty() || kind == "volume",
                    "host directory cannot be empty: must provide an argument for option"
                );
                self.source = Some(value.to_owned()).filter(|source| !source.is_empty());
            }
            "target" | "dst" | "dest" | "destination" => {
                ensure!(self.target.is_none(), "cannot pass {key:?} option more than once");
                self.target = Some(target(needed()?)?);
            }
            "subpath" | "volume-subpath" | "image-subpath" => {
                ensure!(["volume", "image"].contains(&kind), "cannot set option {key:?} on non-volume mounts");
                self.subpath = Some(clean_subpath(needed()?)?);
            }
            "readonly" | "ro" => return self.access(truth()?),
            "rw" | "readwrite" => return self.access(!truth()?),
            "bind-nonrecursive" => {
                only(&["bind", "glob"])?;
                self.not_recursive = truth()?;
            }
            "bind-recursive" => {
                only(&["bind", "glob"])?;
                match needed()? {
                    "enabled" | "true" | "1" => {}
                    "disabled" | "false" | "0" => self.not_recursive = true,
                    "writable" => self.reader.options.recursive_read_only = false,
                    "readonly" => self.reader.options.recursive_read_only = true,
                    _ => bail!("invalid value {field:?}"),
                }
            }
            "bind-propagation" => {
                only(&["bind", "glob"])?;
                let value = needed()?;
                let known =
                    ["shared", "rshared", "private", "rprivate", "slave", "rslave", "unbindable", "runbindable"];
                ensure!(known.contains(&value), "invalid value {field:?}");
                self.reader.read(value)?;
            }
            "relabel" => {
                let label = match value {
                    Some("shared") => "z",
                    Some("private") => "Z",
                    _ => bail!("relabel mount option must be 'private' or 'shared': invalid mount option"),
                };
                self.reader.read(label)?;
            }
            "U" | "chown" => {
                let chown = match value.map(str::to_ascii_lowercase).as_deref() {
                    None | Some("" | "true") => true,
                    Some("false") => false,
                    Some(other) => bail!("'U' or 'chown' must be set to true or false, instead received {other:?}"),
                };
                if chown {
                    self.reader.read("U")?;
                }
            }
            "volume-nocopy" => {
                only(&["volume"])?;
                self.reader.read(if truth()? { "nocopy" } else { "copy" })?;
            }
            "consistency" => {}
            "volume-driver" if value == Some("local") => only(&["volume"])?,
            "volume-driver"
            | "volume-opt"
            | "volume-label"
            | "no-dereference"
            | "nocreate"
            | "bind-create-host-path"
            | "bind-create-src" => {
                super::refuse(&format!("--mount option {key}"), true)?;
            }
            "uid" | "gid" | "mode" | "max" if kind == "devpts" => self.devpts(key, needed()?)?,
            // Every devpts of ours is a new instance, and its ptmx is for all, as on any host.
            "newinstance" | "ptmxmode" if kind == "devpts" => {}
            _ if kind == "tmpfs" && self.tmpfs.read(field)? => {}
            _ if self.reader.read(field)? => {}
            _ if kind == "tmpfs" => self.tmpfs.other(field)?,
            _ => bail!("{key}: invalid mount option"),
        }
        Ok(())
    }

    fn access(&mut self, read_only: bool) -> Result<()> {
        ensure!(
            self.reader.access.is_none(),
            "cannot pass 'readonly', 'ro', or 'rw' options more than once: must provide an argument for option"
        );
        self.reader.access = Some(read_only);
        self.reader.options.read_only = read_only;
        Ok(())
    }

    fn devpts(&mut self, key: &str, value: &str) -> Result<()> {
        let radix = if key == "mode" { 8 } else { 10 };
        let number = u32::from_str_radix(value, radix).with_context(|| format!("devpts option {key}={value}"))?;
        let index = ["uid", "gid", "mode", "max"].iter().position(|name| *name == key).unwrap_or_default();
        self.devpts[index] = Some(number);
        Ok(())
    }

    fn finish(self, kind: &str, around: &Surroundings) -> Result<Vec<Wanted>> {
        if kind == "glob" {
            return self.globs(around);
        }
        let access = self.reader.access;
        let not_recursive = self.not_recursive || self.reader.not_recursive;
        if kind == "image" {
            ensure!(self.source.is_some() && self.target.is_some(), "must set source and destination for image volume");
        }
        let target = self.target.context("must set volume destination")?;
        if kind == "tmpfs" {
            return Ok(vec![self.tmpfs.finish(target, self.reader)?]);
        }
        let mut options = self.reader.finish()?;
        let source = match kind {
            "bind" => {
                let path = self.source.as_deref().unwrap_or(&target);
                MountSource::Bind { path: around.absolute(path), create: false, recursive: !not_recursive }
            }
            "volume" => {
                if let Some(name) = &self.source {
                    crate::model::id::check_name(name).with_context(|| format!("volume name {name:?}"))?;
                }
                let anonymous = self.source.is_none();
                MountSource::Volume { name: self.source, anonymous, subpath: self.subpath }
            }
            "image" => {
                // An image is read-only unless told otherwise.
                options.read_only = access.unwrap_or(true);
                MountSource::Image { reference: self.source.unwrap_or_default(), subpath: self.subpath }
            }
            "ramfs" => MountSource::Ramfs,
            _ => {
                let [uid, gid, mode, max] = self.devpts;
                MountSource::Devpts { uid, gid, mode, max }
            }
        };
        Ok(vec![Wanted { target, source, options }])
    }

    fn globs(self, around: &Surroundings) -> Result<Vec<Wanted>> {
        let pattern = self.source.context("must set the source of a glob mount")?;
        let paths = glob::expand(&around.absolute(&pattern)).with_context(|| format!("glob {pattern:?}"))?;
        ensure!(!paths.is_empty(), "no file paths matching glob {pattern:?}");
        let recursive = !(self.not_recursive || self.reader.not_recursive);
        let options: MountOptions = self.reader.finish()?;
        let mounts = paths.into_iter().map(|path| {
            let name = path.rsplit('/').next().unwrap_or_default();
            Wanted {
                target: self.target.as_ref().map_or_else(|| path.clone(), |target| clean(&format!("{target}/{name}"))),
                source: MountSource::Bind { path, create: false, recursive },
                options: options.clone(),
            }
        });
        Ok(mounts.collect())
    }
}

/// A directory inside a volume or image: no way out of it.
fn clean_subpath(path: &str) -> Result<String> {
    let cleaned = clean(path.trim_start_matches('/'));
    ensure!(cleaned != ".." && !cleaned.starts_with("../"), "volume subpath {path:?} leads out of the volume");
    Ok(if cleaned == "." { String::new() } else { cleaned })
}

/// `HOST[:CONTAINER][:rwm]`.
pub fn device(word: &str) -> Result<Device> {
    let access = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| b"rwm".contains(&byte))
            && text.bytes().enumerate().all(|(index, byte)| !text.as_bytes()[..index].contains(&byte))
    };
    let parts: Vec<&str> = word.split(':').collect();
    let (source, inside, rights) = match parts[..] {
        [source] => (source, source, "rwm"),
        [source, rights] if access(rights) => (source, source, rights),
        [source, inside] => (source, inside, "rwm"),
        [source, inside, rights] => (source, inside, rights),
        _ => bail!("invalid device specification: {word}"),
    };
    ensure!(!source.is_empty(), "invalid device specification: {word}");
    ensure!(access(rights), "invalid device mode: {rights}");
    if !source.starts_with('/') && source.contains('=') {
        super::refuse("--device with a CDI name", true)?;
    }
    ensure!(inside.starts_with('/'), "invalid device mode: {inside}");
    ensure!(source.starts_with('/'), "invalid device specification: {word}");
    Ok(Device { source: clean(source), target: clean(inside), access: rights.to_owned() })
}

/// `TYPE MAJOR:MINOR ACCESS`.
fn check_device_rule(rule: &str) -> Result<()> {
    let parts: Vec<&str> = rule.split(' ').collect();
    let [kind, numbers, access] = parts[..] else {
        bail!("invalid device cgroup rule requires type, major:Minor, and access rules: {rule:?}");
    };
    ensure!(["a", "b", "c"].contains(&kind), "invalid device type in device-access-add: {kind}");
    let (major, minor) = numbers.split_once(':').unwrap_or((numbers, "*"));
    for number in [major, minor].into_iter().filter(|number| *number != "*") {
        ensure!(number.parse::<u32>().is_ok(), "strconv.ParseUint: parsing {number:?}: invalid syntax");
    }
    ensure!(!access.is_empty(), "invalid device access in device-access-add: {access}");
    if let Some(letter) = access.chars().find(|letter| !"rwm".contains(*letter)) {
        bail!("invalid device access in device-access-add: {letter}");
    }
    Ok(())
}

#[cfg(test)]
#[path = "mount_tests.rs"]
mod tests;
