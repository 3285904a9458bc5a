//! Mounts and volumes a container asks for.

use crate::model::unit::ByteSize;
use crate::model::user::IdMaps;
use serde::{Deserialize, Serialize};

/// One mount, from `-v`, `--mount`, `--tmpfs`, an image's VOLUME or `--volumes-from`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Absolute path inside the container.
    pub target: String,
    /// What is mounted there.
    pub source: MountSource,
    /// How.
    #[serde(default)]
    pub options: MountOptions,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A path of the host, absolute, as the user gave it (made absolute at the border).
    Bind {
        /// The path.
        path: String,
        /// Make the directory when it is missing (docker's `-v`; podman refuses: false).
        create: bool,
        /// `bind-nonrecursive`.
        recursive: bool,
    },
    /// A named or (name absent until create gives one) anonymous volume.
    Volume {
        /// The volume's name. After create always there.
        name: Option<String>,
        /// Anonymous: goes with `rm -v` and `--rm`.
        anonymous: bool,
        /// Directory inside the volume.
        subpath: Option<String>,
    },
    /// A tmpfs.
    Tmpfs {
        /// `size=`.
        size: Option<ByteSize>,
        /// `mode=`.
        mode: Option<u32>,
        /// `tmpcopyup`: begin with what the image has there.
        copy_up: bool,
    },
    /// An image's file system, read-only unless `rw` (then a throw-away overlay).
    Image {
        /// Reference of the image.
        reference: String,
        /// Directory inside it.
        subpath: Option<String>,
    },
    /// A ramfs.
    Ramfs,
    /// A devpts of its own.
    Devpts {
        /// `uid=`.
        uid: Option<u32>,
        /// `gid=`.
        gid: Option<u32>,
        /// `mode=`.
        mode: Option<u32>,
        /// `max=`.
        max: Option<u32>,
    },
}

/// Options of a mount; absent means the kind's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MountOptions {
    /// `ro`.
    pub read_only: bool,
    /// `rro`: read-only for all mounts below too.
    pub recursive_read_only: bool,
    /// `nosuid` (true) or `suid` (false).
    pub nosuid: Option<bool>,
    /// `nodev` (true) or `dev` (false).
    pub nodev: Option<bool>,
    /// `noexec` (true) or `exec` (false).
    pub noexec: Option<bool>,
    /// `[r]shared`, `[r]slave`, `[r]private`, `[r]unbindable`.
    pub propagation: Option<String>,
    /// `U`: give the files to the container's user.
    pub chown: bool,
    /// `z` (shared) or `Z` (private) SELinux label; nothing to do on a host without SELinux.
    pub relabel: Option<Relabel>,
    /// `idmap` or `idmap=…`; empty maps: those of the container.
    pub idmap: Option<IdMaps>,
    /// `idmap=uids=@…`: what files are mapped to are ids of the container, not of the host.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub idmap_relative: bool,
    /// `O`: a throw-away overlay over the source.
    pub overlay: Option<OverlayDirs>,
    /// `copy`/`nocopy`: whether a new volume begins with what the image has there.
    pub copy: Option<bool>,
    /// `noswap` and others passed to the file system as they are (tmpfs).
    pub data: Vec<String>,
}

/// `O,upperdir=…,workdir=…`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayDirs {
    /// Upper directory that is kept.
    pub upper: Option<String>,
    /// Its work directory.
    pub work: Option<String>,
}

/// SELinux relabelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relabel {
    /// `z`.
    Shared,
    /// `Z`.
    Private,
}

/// `--device HOST[:CONTAINER][:rwm]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Path on the host; a directory stands for all devices in it.
    pub source: String,
    /// Path inside.
    pub target: String,
    /// Some of `rwm`.
    pub access: String,
}

/// `--image-volume`: what becomes of an image's VOLUMEs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageVolume {
    /// Anonymous volumes.
    #[default]
    Anonymous,
    /// A tmpfs each.
    Tmpfs,
    /// Nothing.
    Ignore,
}
