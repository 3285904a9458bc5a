//! `create` and `run`: make the directory, the cgroup, the process; undo all of it where one fails.

use super::record::{start_time, user_name};
use super::{Container, Record, Root, ShortPath};
use crate::runtime::cgroup::{Cgroup, Manager, Request, Saved};
use crate::runtime::hook::Stage;
use crate::runtime::launch::{self, Created, Forward, Rootfs, Running, Stdio};
use crate::runtime::plan::{self, Plan, PlanOptions};
use crate::runtime::{label, sync};
use crate::state::file::{self, Durability};
use crate::sys::{fd, terminal};
use anyhow::{Context, Result, bail};
use oci_spec::runtime::{Capability, LinuxNamespaceType, Spec};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What `create` and `run` are told.
pub struct CreateRequest {
    pub id: String,
    pub bundle: PathBuf,
    /// The spec's name in the bundle.
    pub config: PathBuf,
    pub console: Console,
    pub pid_file: Option<PathBuf>,
    /// The socket that a pidfd of the process is sent to.
    pub pidfd_socket: Option<PathBuf>,
    pub no_pivot: bool,
    pub no_new_keyring: bool,
    /// Beside those of LISTEN_FDS.
    pub preserve_fds: u32,
    /// None: it stays in the caller's cgroups.
    pub manager: Option<Manager>,
    pub rootless: bool,
    /// The steps of the plan are told.
    pub debug: bool,
}

/// What is told on the way.
pub enum Note<'a> {
    /// A line of the plan.
    Step(&'a str),
    /// What is asked for and is not to be had, where the specification says to go on without.
    Warning(&'a str),
}

/// Who is told.
pub type Tell<'a> = &'a mut dyn FnMut(Note<'_>);

/// Where the master of a terminal goes.
#[derive(Clone, Debug)]
pub enum Console {
    /// To the socket at this path.
    Socket(PathBuf),
    /// To the caller, who relays.
    Caller,
    /// Nowhere: the caller goes away, and a terminal is an error.
    None,
}

/// Make a container that waits at its door for `start`.
pub fn create(root: &Root, request: CreateRequest, tell: Tell<'_>) -> Result<Container> {
    let (container, created) = make(root, request, true, tell)?;
    created.leave()?;
    Ok(container)
}

/// Make a container and start it: (container, its process, the master of its terminal).
pub fn run(root: &Root, request: CreateRequest, tell: Tell<'_>) -> Result<(Container, Running, Option<OwnedFd>)> {
    let (container, mut created) = make(root, request, false, tell)?;
    let terminal = created.terminal.take();
    let running = created.start().inspect_err(|_| {
        // The first error is the one to tell.
        let _ = container.delete(true);
    })?;
    container.poststart()?;
    Ok((container, running, terminal))
}

/// A half-made container, removed unless it becomes whole.
struct Half(Option<Container>);

impl Drop for Half {
    fn drop(&mut self) {
        if let Some(container) = &self.0 {
            // Its making has failed, and that is the error to tell.
            let _ = container.delete(true);
        }
    }
}

/// Everything up to where it waits for `start`.
fn make(root: &Root, request: CreateRequest, has_door: bool, tell: Tell<'_>) -> Result<(Container, Created)> {
    let text = read_spec(&request.bundle, &request.config)?;
    let (spec, unknown) = parse_leniently(&text)?;
    let process = spec.process().as_ref().context("process: missing")?;
    check_console(&request.console, process.terminal().unwrap_or(false))?;
    let rootfs = request.bundle.join(spec.root().as_ref().context("root: missing")?.path());
    if !rootfs.is_dir() {
        bail!("root.path: {} is not a directory", rootfs.display());
    }
    let dir = root.make(&request.id)?;
    let own_pid = std::process::id() as i32;
    let record = Record {
        version: 1,
        oci_version: spec.version().clone(),
        id: request.id.clone(),
        creator: own_pid,
        creator_start_time: start_time(own_pid)?,
        bundle: request.bundle.clone(),
        rootfs: rootfs.clone(),
        created: jiff::Timestamp::now().to_string(),
        owner: user_name(nix::unistd::geteuid().as_raw()),
        annotations: spec.annotations().clone().unwrap_or_default(),
        has_late_hooks: [Stage::Poststart, Stage::Poststop].iter().any(|stage| !plan::hooks(&spec, *stage).is_empty()),
        shares_pids: shares_pids(&spec),
        ..Record::default()
    };
    let mut half = Half(Some(Container { dir, record }));
    let Some(container) = &mut half.0 else { bail!("the container is gone") };
    file::replace(&container.dir.join("config.json"), &text, Durability::Volatile)?;
    let linux = spec.linux().as_ref();
    let mut cgroup = match request.manager {
        None => Cgroup::open(Saved::default()),
        Some(manager) => Cgroup::create(&Request {
            id: &request.id,
            path: linux.and_then(|linux| linux.cgroups_path().as_deref()),
            resources: linux.and_then(|linux| linux.resources().as_ref()),
            manager,
            rootless: request.rootless,
            everywhere: spec.mounts().iter().flatten().any(|mount| mount.typ().as_deref() == Some("cgroup")),
        })?,
    };
    if cgroup.is_frozen_already() {
        bail!("linux.cgroupsPath: container's cgroup unexpectedly frozen");
    }
    // Whoever is in it would be limited with this container, and killed with it.
    if linux.is_some_and(|linux| linux.cgroups_path().is_some()) && cgroup.population() > 0 {
        bail!("linux.cgroupsPath: container's cgroup is not empty: {} process(es) found", cgroup.population());
    }
    container.record.cgroup = cgroup.saved().clone();
    container.save()?;
    let plan = make_plan(&request, container, &spec, has_door)?;
    if request.debug {
        plan.to_string().lines().for_each(|line| tell(Note::Step(line)));
    }
    if !unknown.is_empty() {
        tell(Note::Warning(&format!("ignoring unknown or unavailable capabilities: [{}]", unknown.join(" "))));
    }
    plan.warnings.iter().for_each(|warning| tell(Note::Warning(warning)));
    let mut created = start_process(plan, container, &spec, &mut cgroup)?;
    container.record.pid = created.pid;
    container.record.start_time = start_time(created.pid)?;
    container.record.cgroup = cgroup.saved().clone();
    container.save()?;
    created.terminal = hand_over(&request.console, created.terminal.take())?;
    if let (Some(path), Some(pidfd)) = (&request.pidfd_socket, created.pidfd()) {
        send_pidfd(path, pidfd)?;
    }
    if let Some(path) = &request.pid_file {
        write_pid_file(path, created.pid)?;
    }
    match half.0.take() {
        Some(container) => Ok((container, created)),
        None => bail!("the container is gone"),
    }
}

fn make_plan(request: &CreateRequest, container: &Container, spec: &Spec, has_door: bool) -> Result<Plan> {
    let (listened, environment) = listen_fds();
    let mut options = PlanOptions {
        id: request.id.clone(),
        bundle: request.bundle.clone(),
        preserve_fds: request.preserve_fds + listened,
        no_pivot: request.no_pivot,
        no_new_keyring: request.no_new_keyring,
        keep_groups: container.record.annotations.get("run.oci.keep_original_groups").is_some_and(|v| v == "1"),
        has_selinux: label::has_selinux(),
        reset_affinity: true,
        environment,
        ..PlanOptions::default()
    };
    if has_door {
        let at = ShortPath::new(&container.dir)?;
        options.door = Some(sync::door(&at.join("door")).context("make the door")?);
    }
    plan::plan(spec, options)
}

fn start_process(plan: Plan, container: &Container, spec: &Spec, cgroup: &mut Cgroup) -> Result<Created> {
    let stdio = if plan.wants_terminal { Stdio::Terminal } else { Stdio::Inherit };
    let cgroup = Some(cgroup).filter(|cgroup| cgroup.exists());
    let mut created = launch::launch(plan, Rootfs::Path(container.record.rootfs.clone()), stdio, cgroup)?;
    created.forward = forwarder(container, spec);
    Ok(created)
}

/// Passes the listener of the container's filter on, where it is to have one.
pub(super) fn forwarder(container: &Container, spec: &Spec) -> Option<Forward> {
    spec.linux().as_ref()?.seccomp().as_ref()?.listener_path().as_ref()?;
    let (mut container, spec) = (container.clone(), spec.clone());
    Some(Box::new(move |listener, pid| {
        container.record.pid = pid;
        container.forward_listener(&spec, listener)
    }))
}

/// No new pid namespace: what the first process leaves behind lives on.
fn shares_pids(spec: &Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let own = namespaces.iter().find(|namespace| namespace.typ() == LinuxNamespaceType::Pid);
    own.is_none_or(|namespace| namespace.path().is_some())
}

/// Socket activation: the descriptors of LISTEN_FDS go on to the container, and their environment with them.
pub(super) fn listen_fds() -> (u32, Vec<String>) {
    let count = std::env::var("LISTEN_FDS").ok().and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    if count == 0 || count > 1024 {
        return (0, Vec::new());
    }
    let mut environment = vec![format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()];
    if let Ok(names) = std::env::var("LISTEN_FDNAMES") {
        environment.push(format!("LISTEN_FDNAMES={names}"));
    }
    (count, environment)
}

fn read_spec(bundle: &Path, name: &Path) -> Result<Vec<u8>> {
    let path = bundle.join(name);
    match std::fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("JSON specification file {} not found in {}", name.display(), bundle.display())
        }
        other => other.with_context(|| format!("read {}", path.display())),
    }
}

/// The spec; an error names the place in the document.
pub fn parse_spec(text: &[u8]) -> Result<Spec> {
    parse_leniently(text).map(|(spec, _)| spec)
}

/// The spec without the capabilities that nobody knows, and their names: the specification wants a warning.
fn parse_leniently(text: &[u8]) -> Result<(Spec, Vec<String>)> {
    let text = &with_known_names(text);
    // Following the path costs as much as the parsing: only where it is needed.
    if let Ok(spec) = serde_json::from_slice(text) {
        return Ok((spec, Vec::new()));
    }
    if let Some((text, unknown)) = without_unknown_capabilities(text) {
        if let Ok(spec) = serde_json::from_slice(&text) {
            return Ok((spec, unknown));
        }
    }
    let mut reader = serde_json::Deserializer::from_slice(text);
    serde_path_to_error::deserialize(&mut reader).map(|spec| (spec, Vec::new())).map_err(|error| {
        let path = error.path().to_string();
        anyhow::Error::new(error.into_inner()).context(if path == "." { "config.json".to_owned() } else { path })
    })
}

fn without_unknown_capabilities(text: &[u8]) -> Option<(Vec<u8>, Vec<String>)> {
    let mut document: serde_json::Value = serde_json::from_slice(text).ok()?;
    let mut unknown: Vec<String> = Vec::new();
    for set in document.pointer_mut("/process/capabilities")?.as_object_mut()?.values_mut() {
        set.as_array_mut()?.retain(|name| match serde_json::from_value::<Capability>(name.clone()) {
            Err(_) if name.is_string() => {
                unknown.extend(name.as_str().map(str::to_owned));
                false
            }
            _ => true,
        });
    }
    unknown.sort();
    unknown.dedup();
    Some((serde_json::to_vec(&document).ok()?, unknown))
}

/// The names of two scheduler flags as the specification has them, for a library that has them otherwise.
pub fn with_known_names(text: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    const NAMES: [(&str, &str); 2] = [
        ("\"SCHED_FLAG_RESET_ON_FORK\"", "\"SCHED_RESET_ON_FORK\""),
        ("\"SCHED_FLAG_DL_OVERRUN\"", "\"SCHED_FLAG_D_L_OVERRUN\""),
    ];
    match std::str::from_utf8(text) {
        Ok(text) if text.contains("\"SCHED_FLAG_") => {
            let renamed = NAMES.iter().fold(text.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours));
            std::borrow::Cow::Owned(renamed.into_bytes())
        }
        _ => std::borrow::Cow::Borrowed(text),
    }
}

fn check_console(console: &Console, wants_terminal: bool) -> Result<()> {
    match console {
        Console::None if wants_terminal => {
            bail!("process.terminal: cannot allocate a terminal without --console-socket, for nobody would hold it")
        }
        Console::Socket(_) if !wants_terminal => {
            bail!("--console-socket: process.terminal is not set, there is nothing to send")
        }
        _ => Ok(()),
    }
}

/// Give the master of the terminal away, or keep it for the caller.
pub(super) fn hand_over(console: &Console, master: Option<OwnedFd>) -> Result<Option<OwnedFd>> {
    match (console, master) {
        (Console::Socket(path), Some(master)) => send_console(path, &master).map(|()| None),
        (_, Some(master)) => {
            if !terminal::is_terminal(std::io::stdin()) {
                // Nobody looks at it: lines are to end as the command writes them.
                terminal::keep_newlines(&master)?;
            }
            Ok(Some(master))
        }
        (_, None) => Ok(None),
    }
}

/// Give the master of the terminal to whoever listens at the console socket.
fn send_console(path: &Path, master: &OwnedFd) -> Result<()> {
    let what = || format!("send the terminal to --console-socket {}", path.display());
    let socket = std::os::unix::net::UnixStream::connect(path).with_context(what)?;
    fd::send(socket.as_fd(), b"/dev/ptmx", Some(master.as_fd())).with_context(what)
}

/// Give a pidfd of the process to whoever listens.
pub(super) fn send_pidfd(path: &Path, pidfd: &OwnedFd) -> Result<()> {
    let what = || format!("send the pidfd to --pidfd-socket {}", path.display());
    let socket = std::os::unix::net::UnixStream::connect(path).with_context(what)?;
    fd::send(socket.as_fd(), b"pidfd", Some(pidfd.as_fd())).with_context(what)
}

/// The pid as text, there at once or not at all.
pub(super) fn write_pid_file(path: &Path, pid: i32) -> Result<()> {
    file::replace(path, pid.to_string().as_bytes(), Durability::Volatile)
        .with_context(|| format!("write --pid-file {}", path.display()))
}
