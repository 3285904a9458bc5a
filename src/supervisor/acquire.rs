//! Acquire all that a container needs before it starts, and release it after.
//!
//! Order: root file system, user, mounts, network, cgroup path, spec. What outlives this process when it is killed (the
//! network, volumes of type mount) is told to the caller as an intent before it is taken, so that the next command can
//! give it back from `attachments.json`. Mounts are detached and die with their descriptors: there is nothing to release.

use super::confinement;
use super::etc;
use super::limit;
use super::notify::Notify;
use super::root::root;
use super::source;
use crate::bundle::{self, Facts, mount::Prepared, user};
use crate::failure::{Explain, Failure, Kind};
use crate::host::{device, userns::Privilege};
use crate::model::container::{ContainerSpec, NamespaceMode};
use crate::model::id::Id;
use crate::model::network::NetworkMode;
use crate::model::resource::CgroupsMode;
use crate::network::attach::{self, Attached};
use crate::network::conf;
use crate::runtime::cgroup::{self, Cgroup, Manager};
use crate::runtime::plan::{self, Plan, PlanOptions};
use crate::state::container::{self, ContainerRecord, State};
use crate::state::layout::Layout;
use crate::storage::tree;
use crate::sys::{fd, mount};
use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use oci_spec::runtime::{Capability, LinuxNamespaceType, Spec};
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// An image's passwd or group larger than this is nobody's (CVE-2024-9676).
const ACCOUNT_FILE_LIMIT: u64 = 1 << 20;

/// For whom and where.
pub struct Request<'a> {
    /// The paths.
    pub layout: &'a Layout,
    /// As whom we work.
    pub privilege: &'a Privilege,
    /// The container.
    pub record: &'a ContainerRecord,
    /// `--cgroup-manager`.
    pub cgroup_manager: Option<&'a str>,
    /// Rows and columns of the terminal.
    pub console_size: Option<(u64, u64)>,
}

/// What is held now; written to `attachments.json` so that whoever finds it can release.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Attachments {
    /// What `network::attach` took.
    pub network: serde_json::Value,
    /// The cgroup as `runtime::cgroup` saved it.
    pub cgroup: serde_json::Value,
}

/// All that launch needs.
pub struct Acquired {
    /// Every step to execve.
    pub plan: Plan,
    /// The root, a detached mount.
    pub rootfs: OwnedFd,
    /// The cgroup; absent with `--cgroups=disabled`.
    pub cgroup: Option<Cgroup>,
    /// Its networks: addresses, ports, and the name server to poll.
    pub network: Attached,
    /// Where it speaks to the service manager.
    pub notify: Option<Notify>,
    /// What must be released.
    pub held: Attachments,
}

/// Acquire.
pub fn acquire(request: &Request<'_>, intend: &mut dyn FnMut(&Attachments) -> Result<()>) -> Result<Acquired> {
    let (layout, record, spec) = (request.layout, request.record, &request.record.spec);
    let (rootfs, mut sources) = root(request).context("mount the root file system")?;
    // A root in parts has no files of its own yet.
    let machine = (!sources.is_empty()).then(|| File::open("/")).transpose().context("open /")?;
    let seen = machine.as_ref().map_or(rootfs.as_fd(), AsFd::as_fd);
    let hosts_file = spec.network.hosts_file.as_deref().or(conf::get()?.hosts_file.as_deref());
    let mut accounts = Accounts::read(seen, hosts_file == Some("image"))?;
    accounts.added = etc::host_accounts(request, &accounts.passwd).kind(Kind::NotExecutable)?;
    accounts.passwd.push_str(&accounts.added);
    // podman's code for a user that is not there.
    let user = accounts.resolve(spec).kind(Kind::NotExecutable)?;
    if machine.is_none() {
        work_directory(request, rootfs.as_fd(), &user)?;
    }
    let mut namespaces = joined(layout, spec)?;
    let network_namespace = network_namespace(request)?;
    if let Some(namespace) = &network_namespace {
        namespaces.push((LinuxNamespaceType::Network, namespace.try_clone()?));
    }
    let mut held = Attachments::default();
    let hostname = hostname(record)?;
    let network = connect(request, &hostname, network_namespace.as_ref(), &mut held, intend)?;
    sources.extend(source::all(request, rootfs.as_fd(), &user)?);
    let inside = etc::Inside { user: &user, accounts: &accounts, hostname: &hostname, network: &network };
    sources.extend(etc::files(request, &inside)?);
    let (notify, notified) = Notify::open(request)?.unzip();
    let (mount, variable) = notified.map(|inside| (inside.mount, inside.variable)).unzip();
    sources.extend(mount);
    let (prepared, descriptors): (Vec<Prepared>, Vec<OwnedFd>) = sources.into_iter().unzip();
    let mut facts = facts(request, user, prepared, hostname)?;
    facts.environment.extend(variable);
    let bundle = bundle::bundle(record, &facts)?;
    let cgroup = cgroup(request, &bundle.spec)?;
    if let Some(cgroup) = &cgroup {
        held.cgroup = serde_json::to_value(cgroup.saved())?;
        intend(&held)?;
    }
    let mut descriptors: Vec<Option<OwnedFd>> = descriptors.into_iter().map(Some).collect();
    let mounts =
        bundle.prepared.iter().filter_map(|(place, index)| Some((*place, descriptors.get_mut(*index)?.take()?)));
    let options = PlanOptions {
        id: record.id.to_string(),
        bundle: layout.running(&record.id),
        root_is_prepared: true,
        namespaces,
        mounts: mounts.collect(),
        preserve_fds: spec.stdio.preserve_fds,
        die_with_parent: true,
        keep_groups: spec.process.keep_groups,
        ..PlanOptions::default()
    };
    let plan = plan::plan(&bundle.spec, options)?;
    Ok(Acquired { plan, rootfs, cgroup, network, notify, held })
}

/// Connect the network namespace as the record asks for.
fn connect(
    request: &Request<'_>,
    hostname: &str,
    namespace: Option<&OwnedFd>,
    held: &mut Attachments,
    intend: &mut dyn FnMut(&Attachments) -> Result<()>,
) -> Result<Attached> {
    let record = request.record;
    let wanted = attach::Request {
        id: &record.id,
        name: &record.name,
        hostname,
        aliases: &[],
        namespace: namespace.map(AsFd::as_fd),
        network: &record.spec.network,
        layout: request.layout,
        rootless: request.privilege.rootless,
    };
    let attached = attach::up(&wanted, &mut |attached| {
        held.network = serde_json::to_value(attached)?;
        intend(held)
    })
    // podman's code for a port that is taken.
    .kind(Kind::NotExecutable)?;
    held.network = serde_json::to_value(&attached)?;
    Ok(attached)
}

/// The cgroup with its limits.
fn cgroup(request: &Request<'_>, oci: &Spec) -> Result<Option<Cgroup>> {
    let record = request.record;
    if record.spec.cgroups == CgroupsMode::Disabled {
        return Ok(None);
    }
    let linux = oci.linux().as_ref();
    let split = (record.spec.cgroups == CgroupsMode::Split).then(|| cgroup::split(record.id.as_str())).transpose()?;
    let path = split.as_deref().or_else(|| linux.and_then(|linux| linux.cgroups_path().as_deref()));
    let capabilities = oci.process().as_ref().and_then(|process| process.capabilities().as_ref());
    let bounding = capabilities.and_then(|capabilities| capabilities.bounding().as_ref());
    let wanted = cgroup::Request {
        id: record.id.as_str(),
        path,
        resources: linux.and_then(|linux| linux.resources().as_ref()),
        // The unit's own group is not one systemd would make a scope in.
        manager: if split.is_some() { Manager::Cgroupfs } else { manager(request) },
        rootless: request.privilege.rootless,
        everywhere: bounding.is_some_and(|set| set.contains(&Capability::SysAdmin)),
    };
    Cgroup::create(&wanted).map(Some)
}

/// A detached copy of the mount at a path of the host.
pub(super) fn clone_path(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let text = CString::new(path.as_os_str().as_bytes())?;
    mount::clone_tree(nix::fcntl::AT_FDCWD, &text, recursive).with_context(|| format!("bind {}", path.display()))
}

/// The image's passwd and group, and its hosts where they are asked for.
pub(super) struct Accounts {
    /// Text of /etc/passwd; empty when there is none.
    pub passwd: String,
    /// What of it is the host's, at its end: `--hostuser` and keep-id.
    pub added: String,
    /// Text of /etc/group; empty when there is none.
    pub group: String,
    /// Text of /etc/hosts, for `--hosts-file image`.
    pub hosts: String,
}

impl Accounts {
    /// Read them, without following anything out of the root.
    pub fn read(rootfs: BorrowedFd<'_>, hosts: bool) -> Result<Accounts> {
        Ok(Accounts {
            passwd: read_inside(rootfs, "etc/passwd")?,
            added: String::new(),
            group: read_inside(rootfs, "etc/group")?,
            hosts: if hosts { read_inside(rootfs, "etc/hosts")? } else { String::new() },
        })
    }

    fn resolve(&self, spec: &ContainerSpec) -> Result<user::Resolved> {
        user::resolve(spec.process.user.as_ref(), &spec.process.groups, &self.passwd, &self.group)
    }
}

/// The text of a small regular file inside; empty when it is not there. A fifo, device or huge file is refused.
pub fn read_inside(rootfs: BorrowedFd<'_>, path: &str) -> Result<String> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = match tree::open_in_root(rootfs, path.as_bytes(), flags) {
        Ok(file) => File::from(file),
        Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR | nix::errno::Errno::ELOOP) => {
            return Ok(String::new());
        }
        Err(error) => return Err(error).with_context(|| format!("open /{path} of the container")),
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > ACCOUNT_FILE_LIMIT {
        return Err(Failure::new(
            Kind::Engine,
            format!("/{path} of the container is not a regular file of up to 1 MiB"),
        )
        .into());
    }
    let mut bytes = Vec::new();
    file.take(ACCOUNT_FILE_LIMIT).read_to_end(&mut bytes).with_context(|| format!("read /{path} of the container"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Make the image's working directory when it is missing; one named by the user must be there, or be a mount's target.
fn work_directory(request: &Request<'_>, rootfs: BorrowedFd<'_>, user: &user::Resolved) -> Result<()> {
    let spec = &request.record.spec;
    let Some(directory) = spec.process.workdir.as_deref() else { return Ok(()) };
    if tree::open_in_root(rootfs, directory.as_bytes(), OFlag::O_PATH | OFlag::O_DIRECTORY).is_ok() {
        return Ok(());
    }
    // Below it, too: a mount makes the directories that lead to it.
    let covered = |target: &str| Path::new(directory).starts_with(target) || Path::new(target).starts_with(directory);
    if spec.mounts.iter().any(|mount| covered(&mount.target)) || ["/dev", "/proc", "/sys"].into_iter().any(covered) {
        return Ok(());
    }
    if spec.process.workdir_of_image {
        return source::make_directory(rootfs, directory, Some((user.uid, user.gid)));
    }
    Err(Failure::new(
        Kind::NotExecutable,
        format!("workdir {directory:?} does not exist on container {}", request.record.id),
    )
    .into())
}

/// Namespaces of other containers.
fn joined(layout: &Layout, spec: &ContainerSpec) -> Result<Vec<(LinuxNamespaceType, OwnedFd)>> {
    let mut list = Vec::new();
    let modes = [
        (LinuxNamespaceType::Pid, "pid", Some(&spec.namespaces.pid)),
        (LinuxNamespaceType::Ipc, "ipc", Some(&spec.namespaces.ipc)),
        (LinuxNamespaceType::Uts, "uts", Some(&spec.namespaces.uts)),
        (LinuxNamespaceType::Cgroup, "cgroup", spec.namespaces.cgroup.as_ref()),
    ];
    for (kind, name, mode) in modes {
        if let Some(NamespaceMode::Container(id)) = mode {
            list.push((kind, namespace_of(layout, id, name)?));
        }
    }
    if let Some(NetworkMode::Container(id)) = &spec.network.mode {
        list.push((LinuxNamespaceType::Network, namespace_of(layout, id, "net")?));
    }
    if let crate::model::user::UserNamespace::Container(id) = &spec.userns {
        list.push((LinuxNamespaceType::User, namespace_of(layout, id, "user")?));
    }
    Ok(list)
}

/// A namespace of a running container, by descriptor.
pub(super) fn namespace_of(layout: &Layout, id: &str, name: &str) -> Result<OwnedFd> {
    let pid = running_pid(layout, id)?;
    let path = CString::new(format!("/proc/{pid}/ns/{name}"))?;
    fd::open(&path, libc::O_RDONLY).with_context(|| format!("join the {name} namespace of container {id}"))
}

/// The first process of a running container.
pub(super) fn running_pid(layout: &Layout, id: &str) -> Result<i32> {
    let id = Id::parse(id)?;
    match container::state(layout, &id)? {
        State::Live(status) if status.pid > 0 => Ok(status.pid),
        _ => Err(Failure::new(Kind::Engine, format!("cannot join namespaces of container {id}: it is not running"))
            .hint(format!("start it first: coracle start {}", id.short()))
            .into()),
    }
}

/// A new network namespace with its loopback up, held by descriptor. Made here and not by the child so that it is there
/// before launch and has the engine's user namespace as its owner.
fn network_namespace(request: &Request<'_>) -> Result<Option<OwnedFd>> {
    match &request.record.spec.network.mode {
        Some(NetworkMode::Host | NetworkMode::Container(_) | NetworkMode::Path(_)) => Ok(None),
        _ => crate::host::netns::create().map(Some).context("make a network namespace"),
    }
}

/// The name inside: the one asked for, that of the host where its names are shared, else the short id.
fn hostname(record: &ContainerRecord) -> Result<String> {
    let spec = &record.spec;
    if let Some(name) = &spec.network.hostname {
        return Ok(name.clone());
    }
    let of_host = spec.namespaces.uts == NamespaceMode::Host || spec.network.mode == Some(NetworkMode::Host);
    if of_host {
        let name = nix::unistd::gethostname().context("read the host's name")?;
        return Ok(name.to_string_lossy().into_owned());
    }
    Ok(record.id.short().to_owned())
}

/// What another process of a running container needs to know.
pub fn joining(request: &Request<'_>, pid: i32) -> Result<Facts> {
    let (record, privilege) = (request.record, request.privilege);
    let capabilities = own_capabilities()?;
    let root = File::open(format!("/proc/{pid}/root")).context("look into the container")?;
    let accounts = Accounts::read(root.as_fd(), false)?;
    Ok(Facts {
        user: accounts.resolve(&record.spec)?,
        rootless: privilege.rootless,
        single_id: privilege.single,
        hostname: hostname(record)?,
        hard_limits: limit::hard_limits(&record.spec.ulimits),
        may_raise_limits: limit::may_raise(privilege, capabilities),
        capabilities,
        apparmor: confinement::apparmor(&record.spec.security, privilege.rootless)?,
        selinux: confinement::selinux(&record.spec.security)?,
        console_size: request.console_size,
        kernel: bundle::seccomp::running_kernel(),
        ..Facts::default()
    })
}

fn facts(request: &Request<'_>, user: user::Resolved, prepared: Vec<Prepared>, hostname: String) -> Result<Facts> {
    let (record, privilege) = (request.record, request.privilege);
    let spec = &record.spec;
    let capabilities = own_capabilities()?;
    let mut block_devices = bundle::resource::BlockDevices::new();
    for path in bundle::resource::block_device_paths(&spec.resources) {
        block_devices.insert(path.to_owned(), device::block_number(path)?);
    }
    Ok(Facts {
        user,
        rootfs: request.layout.running(&record.id).join("rootfs"),
        rootless: privilege.rootless,
        single_id: privilege.single,
        without_mqueue: spec.namespaces.ipc == NamespaceMode::Host && !Path::new("/dev/mqueue").exists(),
        cgroup_v2: crate::host::is_cgroup_v2(),
        cgroups_path: cgroups_path(record),
        default_pids_limit: may_limit_pids(request).then_some(DEFAULT_PIDS),
        hostname,
        prepared,
        devices: device::asked(&spec.devices)?,
        host_devices: if spec.security.privileged {
            device::of_host(privilege.rootless, !bundle::wants_systemd(spec))
        } else {
            Vec::new()
        },
        block_devices,
        hard_limits: limit::hard_limits(&record.spec.ulimits),
        may_raise_limits: limit::may_raise(privilege, capabilities),
        capabilities,
        apparmor: confinement::apparmor(&spec.security, privilege.rootless)?,
        selinux: confinement::selinux(&spec.security)?,
        environment: Vec::new(),
        console_size: request.console_size,
        kernel: bundle::seccomp::running_kernel(),
        systemd: bundle::wants_systemd(spec),
    })
}

/// `--cgroup-parent`: from the root of the tree, also when it does not say so (podman-run(1)).
fn cgroups_path(record: &ContainerRecord) -> Option<String> {
    let parent = record.spec.cgroup_parent.as_deref().filter(|parent| !parent.is_empty())?;
    Some(format!("/{}/{}", parent.trim_matches('/'), record.id))
}

/// podman's default (containers.conf(5), pids_limit).
const DEFAULT_PIDS: i64 = 2048;

/// A limit that nobody asked for is set where it can be, and is no reason to fail where it cannot.
fn may_limit_pids(request: &Request<'_>) -> bool {
    if request.record.spec.cgroups == CgroupsMode::Disabled {
        return false;
    }
    cgroup::may_limit("pids", manager(request), request.privilege.rootless)
}

fn manager(request: &Request<'_>) -> Manager {
    match request.cgroup_manager {
        Some("systemd") => Manager::Systemd,
        _ => Manager::Cgroupfs,
    }
}

/// A bit for each capability this process has.
fn own_capabilities() -> Result<u64> {
    Ok(crate::sys::capability::get().context("read our capabilities")?.effective)
}

/// Give back what is held, all that can be; the first error is told. Idempotent: what is gone already is no error.
pub fn release(layout: &Layout, held: &Attachments) -> Result<()> {
    let cgroup = release_cgroup(held);
    let network = match held.network.is_null() {
        true => Ok(()),
        false => serde_json::from_value::<Attached>(held.network.clone())
            .map_err(anyhow::Error::from)
            .and_then(|attached| attach::down(&attached, layout))
            .context("disconnect the container's network"),
    };
    cgroup.and(network)
}

fn release_cgroup(held: &Attachments) -> Result<()> {
    if held.cgroup.is_null() {
        return Ok(());
    }
    let saved = serde_json::from_value(held.cgroup.clone()).context("read the cgroup that is held")?;
    let mut cgroup = Cgroup::open(saved);
    cgroup.kill().and_then(|()| cgroup.delete()).context("remove the container's cgroup")
}
