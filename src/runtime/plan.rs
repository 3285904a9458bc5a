//! From the spec to a plan: every step of parent and child on the way to execve, in order, before the first is taken.
//!
//! Pure: nothing is opened or asked of the host here; what depends on it comes in as [`PlanOptions`]. A spec that asks
//! for what cannot be is refused with the JSON path of the wrong value. The goldens in tests/golden/plan are printed
//! with [`Plan`]'s `Display`.

mod check;
#[cfg(test)]
mod golden;
mod mount;
mod namespace;
mod process;

use super::hook::{HookStep, Stage, State};
use super::idmap::{IdMaps, Range};
use super::rootfs::CgroupMount;
use super::step::{DeviceStep, Limit, Place, Step};
use super::sync::Word;
use anyhow::{Context, Result, bail};
use oci_spec::runtime::{Hook, Linux, LinuxDevice, LinuxDeviceType, LinuxNamespaceType, Spec};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use namespace::Namespaces;

pub use check::check_process;
pub use mount::option_names as mount_options;
pub use namespace::namespace_kind;
pub use process::{Tail, capability_names, tail};

/// What a plan needs to know beside the spec.
#[derive(Default)]
pub struct PlanOptions {
    /// For the state on the hooks' stdin and the keyring's name.
    pub id: String,
    /// The bundle directory, to which relative paths refer. Absolute.
    pub bundle: PathBuf,
    /// The root file system comes as a detached mount ([`super::launch::Rootfs::Mount`]).
    pub root_is_prepared: bool,
    /// Namespaces to join, held by whoever calls; they go before what the spec says of that kind.
    pub namespaces: Vec<(LinuxNamespaceType, OwnedFd)>,
    /// Detached mounts in the place of a mount's source, by index into the spec's `mounts`.
    pub mounts: BTreeMap<usize, OwnedFd>,
    /// Descriptors 3.. that the command is to have.
    pub preserve_fds: u32,
    /// For hosts whose root is the initial ramfs.
    pub no_pivot: bool,
    /// Stay in the caller's session keyring.
    pub no_new_keyring: bool,
    /// The process is killed when the caller dies.
    pub die_with_parent: bool,
    /// The listening socket at which a created container waits for `start`; None: `start` comes over the channel.
    pub door: Option<OwnedFd>,
    /// Keep the caller's supplementary groups (`run.oci.keep_original_groups`).
    pub keep_groups: bool,
    /// This host confines with SELinux: mount labels are meant.
    pub has_selinux: bool,
    /// The process may run on every processor of its cgroup, wherever the caller is bound to.
    pub reset_affinity: bool,
    /// More of its environment, which goes before its own (LISTEN_FDS).
    pub environment: Vec<String>,
}

/// Everything that will be done.
pub struct Plan {
    /// CLONE_NEW*.
    pub flags: u64,
    /// The parent's part.
    pub tasks: Vec<Task>,
    /// The child's part.
    pub child: Vec<Step>,
    /// Namespaces that the parent enters for the time of the clone, and how to call them.
    pub borrowed: Vec<(i32, &'static str, Place)>,
    /// A process in whose user namespace alone one may enter the pid namespace, for who has no rights outside of it.
    pub detour: Option<OwnedFd>,
    /// The spec asks for a terminal.
    pub wants_terminal: bool,
    /// What is asked for and cannot be had, where the specification says to go on without.
    pub warnings: Vec<String>,
    pub(super) seed: Seed,
}

/// What the child starts with.
#[derive(Default)]
pub(super) struct Seed {
    pub prepared: BTreeMap<usize, OwnedFd>,
    pub door: Option<OwnedFd>,
    pub arguments: Vec<CString>,
    pub environment: Vec<CString>,
    pub user: u32,
    pub preserve_fds: u32,
}

/// One thing the parent does while the child is in the making.
pub enum Task {
    Say(Word),
    Hear(Word),
    WriteIdMaps(IdMaps),
    OomScore(i32),
    /// Raise the hard limit, where it must be; the child sets its limits itself.
    RaiseLimit(Limit),
    Affinity(Vec<u64>),
    NetDevices(Vec<(String, String)>),
    Hook(Box<HookStep>),
}

/// The plan of a container.
pub fn plan(spec: &Spec, options: PlanOptions) -> Result<Plan> {
    check::check(spec)?;
    let process = spec.process().as_ref().context("process: missing")?;
    let linux = spec.linux().as_ref().context("linux: missing")?;
    let state = State {
        oci_version: spec.version().clone(),
        id: options.id.clone(),
        bundle: options.bundle.clone(),
        annotations: spec.annotations().clone().unwrap_or_default(),
        ..State::default()
    };
    let mut plan = Plan {
        flags: 0,
        tasks: Vec::new(),
        child: Vec::new(),
        borrowed: Vec::new(),
        detour: None,
        wants_terminal: process.terminal().unwrap_or(false),
        warnings: Vec::new(),
        seed: Seed {
            prepared: options.mounts,
            door: options.door,
            preserve_fds: options.preserve_fds,
            ..Seed::default()
        },
    };
    let namespaces = Namespaces::new(linux, options.namespaces)?;
    let maps = IdMaps { uid: Range::all(linux.uid_mappings()), gid: Range::all(linux.gid_mappings()) };
    let has_cgroup_namespace = namespaces.has(LinuxNamespaceType::Cgroup);
    if !namespaces.has(LinuxNamespaceType::Mount) {
        bail!("linux.namespaces: a container needs a mount namespace");
    }
    let makes_mounts = namespaces.makes(LinuxNamespaceType::Mount);

    let has_user = namespaces.makes(LinuxNamespaceType::User);
    if has_user {
        plan.tasks.push(Task::WriteIdMaps(maps.clone()));
    }
    plan.tasks.push(Task::Say(Word::Mapped));
    plan.child.extend([Step::EnterCgroups, Step::Hear(Word::Mapped)]);
    let offsets = linux.time_offsets().as_ref();
    namespaces.enter(&mut plan, if has_user { Some(&maps) } else { None }, mount::time_offsets(offsets)?)?;
    if !options.no_new_keyring {
        plan.child.push(Step::Keyring(c_string("_ses.", &options.id)?));
    }
    if let Some(name) = spec.hostname().as_ref().filter(|name| !name.is_empty()) {
        plan.child.push(Step::HostName(c_string("", name)?));
    }
    if let Some(name) = spec.domainname().as_ref().filter(|name| !name.is_empty()) {
        plan.child.push(Step::DomainName(c_string("", name)?));
    }
    let layout = Layout {
        spec,
        linux,
        bundle: &options.bundle,
        root_is_prepared: options.root_is_prepared,
        cgroup: CgroupMount { has_namespace: has_cgroup_namespace },
        label: linux.mount_label().clone().filter(|label| options.has_selinux && !label.is_empty()),
    };
    if makes_mounts {
        layout.root_steps(&mut plan)?;
    }
    host_hooks(spec, &state, &mut plan);
    for hook in hook_steps(spec, Stage::CreateContainer, &state) {
        plan.child.push(Step::Hook(Box::new(hook)));
    }
    for (path, value) in mount::sysctls(linux)? {
        plan.child.push(Step::Sysctl { path, value });
    }
    if makes_mounts {
        layout.sealing_steps(options.no_pivot, &mut plan)?;
    }
    // crun's annotation: a name that no kernel knows is an error rather than nothing.
    if spec.annotations().as_ref().is_some_and(|all| all.contains_key("run.oci.seccomp_fail_unknown_syscall")) {
        check::check_filter_names(linux)?;
    }
    let tail = process::Tail {
        linux: Some(linux),
        start_hooks: hook_steps(spec, Stage::StartContainer, &state).collect(),
        environment: options.environment,
        die_with_parent: options.die_with_parent,
        keep_groups: options.keep_groups,
        reset_affinity: options.reset_affinity,
        wait_for_start: true,
    };
    process::tail(&mut plan, process, tail)?;
    Ok(plan)
}

/// Hooks of the runtime's own namespace run between two words.
fn host_hooks(spec: &Spec, state: &State, plan: &mut Plan) {
    let devices = spec.linux().as_ref().and_then(|linux| linux.net_devices().as_ref());
    let mut tasks = Vec::new();
    if let Some(devices) = devices.filter(|devices| !devices.is_empty()) {
        let name = |(host, device): (&String, &oci_spec::runtime::LinuxNetDevice)| {
            (host.clone(), device.name().clone().unwrap_or_else(|| host.clone()))
        };
        let mut moves: Vec<_> = devices.iter().map(name).collect();
        moves.sort();
        tasks.push(Task::NetDevices(moves));
    }
    for stage in [Stage::Prestart, Stage::CreateRuntime] {
        tasks.extend(hook_steps(spec, stage, state).map(|hook| Task::Hook(Box::new(hook))));
    }
    if tasks.is_empty() {
        return;
    }
    plan.child.extend([Step::Say(Word::Mounted), Step::Hear(Word::HooksRun)]);
    plan.tasks.push(Task::Hear(Word::Mounted));
    plan.tasks.extend(tasks);
    plan.tasks.push(Task::Say(Word::HooksRun));
}

/// The hooks of a stage, ready to run.
pub fn hook_steps(spec: &Spec, stage: Stage, state: &State) -> impl Iterator<Item = HookStep> {
    hooks(spec, stage).into_iter().enumerate().map(move |(index, hook)| HookStep {
        stage,
        index,
        hook,
        state: state.clone(),
    })
}

/// The hooks of a stage.
pub fn hooks(spec: &Spec, stage: Stage) -> Vec<Hook> {
    let Some(hooks) = spec.hooks() else { return Vec::new() };
    let hooks = match stage {
        Stage::Prestart => hooks.prestart(),
        Stage::CreateRuntime => hooks.create_runtime(),
        Stage::CreateContainer => hooks.create_container(),
        Stage::StartContainer => hooks.start_container(),
        Stage::Poststart => hooks.poststart(),
        Stage::Poststop => hooks.poststop(),
    };
    hooks.clone().unwrap_or_default()
}

/// A C string of two parts.
fn c_string(prefix: &str, text: &str) -> Result<CString> {
    CString::new(format!("{prefix}{text}")).with_context(|| format!("{text:?} has a zero byte"))
}

fn path_string(path: &Path) -> Result<CString> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).with_context(|| format!("{path:?} has a zero byte"))
}

/// What the root file system's steps need.
struct Layout<'a> {
    spec: &'a Spec,
    linux: &'a Linux,
    bundle: &'a Path,
    root_is_prepared: bool,
    cgroup: CgroupMount,
    label: Option<String>,
}

/// The devices that every container has (config-linux, "Default Devices").
const DEVICES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("pts/ptmx", "/dev/ptmx"),
];

impl Layout<'_> {
    /// Attach the root and mount all that belongs into it.
    fn root_steps(&self, plan: &mut Plan) -> Result<()> {
        let root = self.spec.root().as_ref().context("root: missing")?;
        let propagation = mount::root_propagation(self.linux.rootfs_propagation().as_deref())?;
        plan.child.push(mount::host_propagation(propagation));
        if propagation.is_some_and(|(flags, _)| flags == libc::MS_SHARED) {
            // The root itself must be private to be changed.
            plan.child.push(Step::Propagation { flags: libc::MS_PRIVATE, recursive: false });
        }
        let path = path_string(&self.bundle.join(root.path()))?;
        let is_hidden = propagation.is_some_and(|(flags, _)| flags == libc::MS_SHARED);
        plan.child.push(Step::AttachRoot { path, prepared: self.root_is_prepared, is_hidden });
        let mut late = Vec::new();
        for (index, mount) in self.spec.mounts().iter().flatten().enumerate() {
            let is_prepared = plan.seed.prepared.contains_key(&index);
            let mut step = mount::mount_step(mount, &mount::Surroundings { index, is_prepared, layout: self })
                .with_context(|| format!("mounts[{index}]"))?;
            // Nodes, links and mount points are still to be made in it.
            late.extend(step.put_off_read_only().map(|step| Step::Mount(Box::new(step))));
            plan.child.push(Step::Mount(Box::new(step)));
        }
        self.device_steps(plan)?;
        if plan.wants_terminal {
            plan.child.push(Step::Console { binds: true });
        }
        let process = self.spec.process().as_ref().context("process: missing")?;
        if process.cwd() != Path::new("/") {
            plan.child.push(Step::MakeWorkDir(path_string(process.cwd())?));
        }
        plan.child.extend(late);
        Ok(())
    }

    fn device_steps(&self, plan: &mut Plan) -> Result<()> {
        let asked = self.linux.devices().as_deref().unwrap_or_default();
        // A bind mount of the host's /dev already has all that a container may want.
        let is_bound =
            |mount: &oci_spec::runtime::Mount| mount.destination() == Path::new("/dev") && mount::is_bind(mount);
        if self.spec.mounts().iter().flatten().any(is_bound) {
            return Ok(());
        }
        for (path, major, minor) in DEVICES {
            if asked.iter().any(|device| device.path() == Path::new(path)) {
                continue;
            }
            plan.child.push(Step::Device(DeviceStep {
                path: c_string("", path)?,
                kind: libc::S_IFCHR,
                major,
                minor,
                mode: 0o666,
                uid: 0,
                gid: 0,
                is_default: true,
            }));
        }
        for (index, device) in asked.iter().enumerate() {
            let step = device_step(device).with_context(|| format!("linux.devices[{index}]"))?;
            plan.child.push(Step::Device(step));
        }
        for (target, path) in LINKS {
            plan.child.push(Step::Link { target: c_string("", target)?, path: c_string("", path)? });
        }
        Ok(())
    }

    /// Close what is to be closed, and make the root the root.
    fn sealing_steps(&self, no_pivot: bool, plan: &mut Plan) -> Result<()> {
        let mut masked = std::collections::HashSet::new();
        for path in self.linux.masked_paths().iter().flatten().filter(|path| masked.insert(path.as_str())) {
            plan.child.push(Step::Mask(c_string("", path)?));
        }
        for path in self.linux.readonly_paths().iter().flatten() {
            plan.child.push(Step::ReadOnly(c_string("", path)?));
        }
        let root = self.spec.root().as_ref().context("root: missing")?;
        if root.readonly().unwrap_or(false) {
            plan.child.push(Step::ReadOnlyRoot);
        }
        plan.child.push(if no_pivot { Step::MoveRoot } else { Step::PivotRoot });
        if let Some((flags, recursive)) = mount::root_propagation(self.linux.rootfs_propagation().as_deref())? {
            plan.child.push(Step::RootPropagation { flags, recursive });
        }
        Ok(())
    }
}

fn device_step(device: &LinuxDevice) -> Result<DeviceStep> {
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
        LinuxDeviceType::B => libc::S_IFBLK,
        LinuxDeviceType::P => libc::S_IFIFO,
        LinuxDeviceType::A => bail!("type: `a` is for cgroup rules; a device is `c`, `u`, `b` or `p`"),
    };
    let number = |value: i64, name: &str| {
        u32::try_from(value).with_context(|| format!("{name}: {value} is no number of a device"))
    };
    Ok(DeviceStep {
        path: path_string(device.path())?,
        kind,
        major: number(device.major(), "major")?,
        minor: number(device.minor(), "minor")?,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        is_default: false,
    })
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Task::Say(word) => write!(f, "say {word:?}"),
            Task::Hear(word) => write!(f, "wait for {word:?}"),
            Task::WriteIdMaps(maps) => write!(f, "map {maps}"),
            Task::OomScore(score) => write!(f, "set oom_score_adj {score}"),
            Task::RaiseLimit(limit) => write!(f, "allow {limit}"),
            Task::Affinity(mask) => write!(f, "set cpu affinity {mask:x?}"),
            Task::NetDevices(devices) => {
                let moves: Vec<_> = devices.iter().map(|(host, name)| format!("{host} as {name}")).collect();
                write!(f, "move network devices {}", moves.join(", "))
            }
            Task::Hook(hook) => hook.fmt(f),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = [
            LinuxNamespaceType::User,
            LinuxNamespaceType::Mount,
            LinuxNamespaceType::Pid,
            LinuxNamespaceType::Network,
            LinuxNamespaceType::Ipc,
            LinuxNamespaceType::Uts,
        ]
        .into_iter()
        .map(namespace_kind)
        .filter(|(flag, _)| self.flags & *flag as u64 != 0)
        .map(|(_, name)| name)
        .collect();
        for (_, name, place) in &self.borrowed {
            match place {
                Place::Path(path) => writeln!(f, "borrow {name} namespace {}", path.to_string_lossy())?,
                Place::Fd(_) => writeln!(f, "borrow {name} namespace by descriptor")?,
            }
        }
        writeln!(f, "clone: new {}", names.join(" "))?;
        for task in &self.tasks {
            writeln!(f, "parent: {task}")?;
        }
        for step in &self.child {
            match step {
                Step::Mount(mount) if !mount.details().is_empty() => {
                    writeln!(f, "child: {step} ({})", mount.details())?;
                }
                _ => writeln!(f, "child: {step}")?,
            }
        }
        Ok(())
    }
}
