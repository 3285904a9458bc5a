//! [`ContainerSpec`]: everything a user can ask of a container, validated, without pids or store paths.

use crate::model::health::{HealthPolicy, Healthcheck};
use crate::model::mount::{Device, ImageVolume, Mount};
use crate::model::network::Network;
use crate::model::resource::{CgroupsMode, Resources, Ulimit};
use crate::model::security::Security;
use crate::model::user::{UserNamespace, UserRef};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is wanted. The front ends fill it; `engine::create` merges the image's config into it once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerSpec {
    /// Where the root file system comes from.
    pub root: RootSource,
    /// The process.
    pub process: Process,
    /// Standard streams and terminal.
    pub stdio: Stdio,
    /// Mounts, in the order given.
    pub mounts: Vec<Mount>,
    /// `--volumes-from NAME[:OPTIONS]`; resolved into `mounts` at create, kept for inspect.
    pub volumes_from: Vec<String>,
    /// `--image-volume`.
    pub image_volume: ImageVolume,
    /// `--device`.
    pub devices: Vec<Device>,
    /// `--device-cgroup-rule`, `TYPE MAJOR:MINOR ACCESS`.
    pub device_rules: Vec<String>,
    /// `--read-only`.
    pub read_only: bool,
    /// `--read-only-tmpfs`; absent: true.
    pub read_only_tmpfs: Option<bool>,
    /// `--shm-size`, bytes; absent: 64 MiB.
    pub shm_size: Option<u64>,
    /// Namespaces other than user and network.
    pub namespaces: Namespaces,
    /// `--userns`.
    pub userns: UserNamespace,
    /// The network.
    pub network: Network,
    /// Limits.
    pub resources: Resources,
    /// `--cgroups`.
    pub cgroups: CgroupsMode,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
    /// `--oom-score-adj`.
    pub oom_score_adj: Option<i32>,
    /// `--cgroup-manager` of the command that created it; each start keeps to it.
    pub cgroup_manager: Option<String>,
    /// `--ulimit`.
    pub ulimits: Vec<Ulimit>,
    /// `--ulimit host`: those of the caller.
    pub ulimits_host: bool,
    /// Privileges.
    pub security: Security,
    /// `--label` and the image's.
    pub labels: BTreeMap<String, String>,
    /// `--annotation`.
    pub annotations: BTreeMap<String, String>,
    /// Life and end.
    pub lifecycle: Lifecycle,
    /// The log.
    pub log: Log,
    /// Health check; absent: the image's.
    pub health: Option<Healthcheck>,
    /// What follows from health checks.
    pub health_policy: HealthPolicy,
    /// The command that made it, for inspect (`CreateCommand`).
    pub create_command: Vec<String>,
}

/// Where the root file system comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootSource {
    /// An image, as the user named it. `hello` and `host` are names like any other until the store says otherwise.
    Image(String),
    /// `--rootfs PATH[:O]`.
    Directory {
        /// Absolute path.
        path: String,
        /// A throw-away overlay over it.
        overlay: bool,
        /// `:idmap`.
        idmap: bool,
    },
    /// The machine's own root file system under a throw-away overlay: the pseudo image `host`.
    Host,
    /// Nothing yet.
    #[default]
    Unset,
}

/// The process to run. `None` and empty mean "as the image says" until create has merged it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// `--entrypoint`; `Some(vec![])` clears the image's.
    pub entrypoint: Option<Vec<String>>,
    /// The arguments after the image's name.
    pub command: Vec<String>,
    /// `KEY=VALUE`, later wins; merged: the whole environment.
    pub env: Vec<(String, String)>,
    /// `env` of containers.conf: the image's variables of the same names win.
    pub env_base: Vec<(String, String)>,
    /// `--env-merge`: `KEY=VALUE` in which `${NAME}` stands for the image's variable; create merges it into `env`.
    pub env_merge: Vec<(String, String)>,
    /// `--unsetenv`.
    pub unset_env: Vec<String>,
    /// `--unsetenv-all`.
    pub unset_env_all: bool,
    /// `--workdir`.
    pub workdir: Option<String>,
    /// The directory is the image's and is made when missing; one named on the command line must be there.
    pub workdir_of_image: bool,
    /// `--user`.
    pub user: Option<UserRef>,
    /// `--group-add`: names or numbers.
    pub groups: Vec<String>,
    /// `--group-add keep-groups`.
    pub keep_groups: bool,
    /// `--umask`, e.g. 0o022.
    pub umask: Option<u32>,
    /// `--init`.
    pub init: bool,
    /// `--hostuser`.
    pub host_users: Vec<String>,
    /// `--passwd`; absent: true.
    pub passwd: Option<bool>,
    /// `--passwd-entry`.
    pub passwd_entry: Option<String>,
    /// `--group-entry`.
    pub group_entry: Option<String>,
    /// `--tz`.
    pub timezone: Option<String>,
    /// `--personality`.
    pub personality: Option<String>,
}

/// Standard streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stdio {
    /// `-t`.
    pub tty: bool,
    /// `-i`.
    pub interactive: bool,
    /// `--preserve-fds`: this many from fd 3 on.
    pub preserve_fds: u32,
}

/// Namespaces; see also `userns` and `network`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// `--pid`.
    pub pid: NamespaceMode,
    /// `--ipc`; `shareable` and `none` (no /dev/shm) are said by the flags below.
    pub ipc: NamespaceMode,
    /// `--ipc=none`.
    pub ipc_no_shm: bool,
    /// `--ipc=private`: no other container may join it.
    pub ipc_unshared: bool,
    /// `--uts`.
    pub uts: NamespaceMode,
    /// `--cgroupns`; absent: private on cgroup v2, host on v1.
    pub cgroup: Option<NamespaceMode>,
}

/// One namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamespaceMode {
    /// A new one.
    #[default]
    Private,
    /// That of the host.
    Host,
    /// That of a container: by name until create, then by id.
    Container(String),
    /// That at this path.
    Path(String),
}

/// When it ends and what then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lifecycle {
    /// `--rm`.
    pub remove: bool,
    /// `--rmi`.
    pub remove_image: bool,
    /// `--restart`.
    pub restart: Restart,
    /// `--stop-signal`, number; absent: the image's or SIGTERM.
    pub stop_signal: Option<i32>,
    /// `--stop-timeout`, seconds; absent: 10. -1 never kills.
    pub stop_timeout_s: Option<i64>,
    /// `--timeout`: seconds it may run at most.
    pub run_timeout_s: Option<u64>,
    /// `--pidfile`.
    pub pidfile: Option<String>,
    /// `--conmon-pidfile`.
    pub supervisor_pidfile: Option<String>,
    /// `--sdnotify`: `container`, `conmon`, `healthy` or `ignore`.
    pub sdnotify: Option<String>,
    /// `--systemd`: `true`, `false` or `always`.
    pub systemd: Option<String>,
    /// `--cidfile`, for inspect.
    pub cidfile: Option<String>,
    /// `--requires`: ids of containers started before.
    pub requires: Vec<String>,
}

/// `--restart`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// When it failed, so many times at most (0: no bound).
    OnFailure {
        /// The bound.
        retries: u32,
    },
    /// Whatever its exit code.
    Always,
    /// As `Always`, but not after a reboot if it was stopped.
    UnlessStopped,
}

/// `--log-driver` and `--log-opt`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    /// The driver.
    pub driver: LogDriver,
    /// `max-size`, bytes; absent: 10 MiB. 0: no bound.
    pub max_size: Option<u64>,
    /// `max-file`: how many files are kept; absent: 3.
    pub max_files: Option<u32>,
    /// `path=`.
    pub path: Option<String>,
    /// `tag=` (a template, filled in by the front end).
    pub tag: Option<String>,
    /// `label=`/`env=`… kept for inspect.
    pub other: BTreeMap<String, String>,
}

/// The log drivers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    /// Lines of `TIME STREAM F|P text` (podman's default).
    #[default]
    K8sFile,
    /// Docker's JSON lines. (podman takes the name as an alias of k8s-file; docker users read the file.)
    JsonFile,
    /// The systemd journal.
    Journald,
    /// Not kept.
    None,
    /// The container has the caller's own streams.
    Passthrough,
    /// The same for a terminal.
    PassthroughTty,
}
