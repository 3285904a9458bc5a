//! The story of a supervisor: load the record, acquire, launch, keep, release; again if the restart policy says so.
//!
//! It is born by `engine::start` with a socket as its standard input, over which it hears how to start and tells what
//! came of it. It has one thread, and while the container runs almost no memory of its own.

use super::acquire::{self, Acquired, Attachments};
use super::client::socket_path;
use super::exit::{self, Alive};
use super::health::Health;
use super::log::{self, Log, Owner};
use super::message::{Attach, Connection, Reply, Request, Start, Trouble};
use super::relay::{Relay, Viewer};
use super::serve::{Client, House, Process, StopWish, Turn, viewer};
use super::status::StatusFile;
use super::streams::Streams;
use crate::failure::{self, Failure, Kind};
use crate::host::notify;
use crate::host::userns::{self, Privilege};
use crate::image::discard;
use crate::model::container::NamespaceMode;
use crate::model::id::Id;
use crate::network::attach::Attached;
use crate::runtime::cgroup::Cgroup;
use crate::runtime::launch::{self, Created, Rootfs, Running};
use crate::state::container::{ContainerRecord, Exit, Phase, VERSION};
use crate::state::event::{self, now_ns};
use crate::state::file::{self, Durability};
use crate::state::layout::Layout;
use crate::storage::volume;
use crate::sys::{fd, pipe, process, socket};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Where and as whom.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The paths.
    pub layout: &'a Layout,
    /// As whom we work.
    pub privilege: &'a Privilege,
    /// `--cgroup-manager`.
    pub cgroup_manager: Option<&'a str>,
}

/// How long a stop may take, if nobody says.
const STOP_TIMEOUT_S: i64 = 10;

/// Supervise a container until its end. What goes wrong before it runs is told over the socket.
pub fn supervise(place: Place<'_>, id: &Id) -> Result<()> {
    let (connection, start, descriptors) = first_words()?;
    let starter = Starter { start, descriptors, client: None };
    match prepare(place, id) {
        Ok((alive, house)) => {
            let result = live(place, id, house, Starter { client: Some(connection), ..starter }, alive);
            if place.privilege.rootless {
                userns::unregister(place.layout.run());
            }
            result
        }
        Err(error) => connection.send(&Reply::Failed(Trouble::of(&error)), &[]),
    }
}

/// Whoever started us, and what they wish.
struct Starter {
    start: Start,
    descriptors: Vec<OwnedFd>,
    client: Option<Connection>,
}

/// Take the socket from our standard input, and hear the first word.
fn first_words() -> Result<(Connection, Start, Vec<OwnedFd>)> {
    use nix::fcntl::{FcntlArg, fcntl};
    let strangers = inherited_descriptors();
    let number = fcntl(std::io::stdin(), FcntlArg::F_DUPFD_CLOEXEC(3)).context("find the socket to the command")?;
    let null = File::options().read(true).write(true).open("/dev/null").context("open /dev/null")?;
    fd::place_at(null.as_fd(), 0)?;
    let socket = fd::inherited(number).context("find the socket to the command")?;
    let connection = Connection::new(socket);
    match connection.receive::<Request>()? {
        Some((Request::Start(start), descriptors)) => {
            let first = 3 + start.preserve_fds as i32;
            // What the caller's caller has left open (a test's log, a lock) must not stay open for as long as we live.
            strangers.into_iter().filter(|number| *number >= first).for_each(|number| drop(fd::inherited(number)));
            Ok((connection, start, descriptors))
        }
        _ => bail!("supervise: this command is for coracle itself"),
    }
}

/// Numbers from 3 on that were open when this process began.
fn inherited_descriptors() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    // The one through which we looked is closed by now.
    numbers.into_iter().filter(|number| *number >= 3 && fd::is_open(*number)).collect()
}

/// Become the container's one supervisor.
fn prepare(place: Place<'_>, id: &Id) -> Result<(Alive, House)> {
    // Fails where we lead a session already; then there is no need.
    let _ = nix::unistd::setsid();
    process::set_child_subreaper()?;
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
        mask.add(signal);
    }
    // Whatever the command had blocked while it started us is not ours.
    mask.thread_set_mask().context("block signals")?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let Some(alive) = exit::take_alive(place.layout, id)? else {
        return Err(Failure::new(Kind::Engine, format!("container {} is already running", id.short())).into());
    };
    if place.privilege.rootless {
        userns::register(&place.layout.run().join("userns"))?;
    }
    let path = socket_path(place.layout, id);
    let _ = std::fs::remove_file(&path);
    let listener = socket::listen_at(&path).with_context(|| format!("listen at {}", path.display()))?;
    Ok((alive, House::new(listener, signals, StatusFile::new(place.layout, id))))
}

/// One life after the other.
fn live(place: Place<'_>, id: &Id, mut house: House, starter: Starter, alive: Alive) -> Result<()> {
    let layout = place.layout;
    let mut starter = Some(starter);
    let mut restarts = 0;
    let mut delay = None;
    loop {
        let record = ContainerRecord::load(layout, id)?;
        let begin = Instant::now();
        let exit = one_life(place, &record, &mut house, starter.take(), restarts);
        // `update` and `rename` may have changed it meanwhile.
        let record = ContainerRecord::load(layout, id).unwrap_or(record);
        delay = exit::restart_delay(&record, &exit, begin.elapsed(), delay);
        if house.restart_wanted {
            delay.get_or_insert(Duration::ZERO);
        }
        if delay.is_some() || !record.spec.lifecycle.remove {
            // Without it the container is shown as "exit unknown"; on a full disk there is no better.
            let _ = exit::write(layout, &record, &exit);
        }
        if exit.started_ns > 0 {
            let mut died = record.event("died");
            died.exit_code = Some(exit.code);
            event::record(layout, died);
        }
        let Some(wait) = delay else {
            finish(place, &record, alive, &mut house, &exit);
            return Ok(());
        };
        house.status.change(|status| {
            status.phase = Phase::Restarting;
            status.pid = 0;
        });
        house.tell_exit(exit.code);
        if house.keep(None, Some(Instant::now() + wait))? == Turn::Stop {
            let stopped = Exit { stopped_by_user: true, ..exit };
            let _ = exit::write(layout, &record, &stopped);
            finish(place, &record, alive, &mut house, &stopped);
            return Ok(());
        }
        restarts += 1;
    }
}

/// Nothing of the container is left but its record, or not even that; then the others are told.
fn finish(place: Place<'_>, record: &ContainerRecord, alive: Alive, house: &mut House, exit: &Exit) {
    let mut grave = None;
    if record.spec.lifecycle.remove {
        let buried = exit::bury(place.layout, record).map(|buried| grave = buried);
        if let Err(error) = buried.and_then(|()| volume::remove_anonymous(place.layout, record)) {
            // Nobody is there to be told; the container stays, and `rm` or `prune` will say the same again.
            let _ = exit::write(place.layout, record, exit);
            house.status.change(|status| {
                status.shown.insert("remove".to_owned(), failure::message_of(&error));
            });
        }
    }
    if let Some(image) = record.image.as_ref().filter(|_| record.spec.lifecycle.remove_image) {
        // One that others use stays.
        let _ = discard::discard(place.layout, &image.name);
    }
    alive.release(place.layout, &record.id);
    if let (Some(trouble), Some(starter)) = (house.refusal.take(), house.clients.last_mut()) {
        starter.tell(&Reply::Failed(trouble), None);
    }
    house.tell_exit(exit.code);
    house.linger();
    // Whoever sat before it need not wait for its files to be gone.
    let _ = grave.map(exit::Grave::empty);
}

/// From acquiring to releasing.
fn one_life(
    place: Place<'_>,
    record: &ContainerRecord,
    house: &mut House,
    starter: Option<Starter>,
    restarts: u32,
) -> Exit {
    house.stopped_by_user = false;
    house.killed = false;
    house.restart_wanted = false;
    house.timed_out = false;
    house.health = None;
    house.stop_deadline = None;
    let mut held = Attachments::default();
    let mut exit = Exit { version: VERSION, restarts, ..Exit::default() };
    exit.log_path =
        log::path(&record.spec.log, &place.layout.container(&record.id)).map(|path| path.display().to_string());
    house.status.prepare(|status| status.log_path.clone_from(&exit.log_path));
    let (start, mut descriptors, client) = match starter {
        Some(Starter { start, descriptors, client }) => (start, descriptors, client),
        None => (Start { begin: true, ..Start::default() }, Vec::new(), None),
    };
    match bear(place, record, house, &start, &mut descriptors, &mut held) {
        Ok((mut born, seen)) => {
            introduce(record, house, &start, client, seen, &born, restarts);
            house.health = Health::new(&record.spec, place.layout, &record.id);
            if let Some(health) = &house.health {
                house.status.change(|status| {
                    health.status.clone_into(&mut status.health);
                    status.health_failing = 0;
                    status.health_log.clear();
                });
            }
            if born.is_running() {
                event::record(place.layout, record.event("start"));
            }
            // systemd takes a scope away as soon as it is empty: what happened in it is asked for by an open file, first.
            let scope = house.cgroup.as_ref().filter(|cgroup| cgroup.saved().scope.is_some());
            let watch = scope.and_then(|cgroup| cgroup.oom_watch().ok().flatten());
            let _ = house.keep(Some(&mut born), None);
            let kills = watch.map(|watch| watch.kills());
            exit.code = born.end();
            if house.timed_out {
                // As podman's: not to be taken for the code of a kill that came from elsewhere.
                exit.code = -1;
            }
            exit.started_ns = house.status.get().started_ns;
            exit.stopped_by_user = house.stopped_by_user;
            if let Some(notify) = house.notify.take() {
                notify.pass_on();
            }
            if let Some(mut health) = house.health.take() {
                health.cut_short();
                health.status.clone_into(&mut exit.health);
                (exit.health_failing, exit.health_log) = (health.failing, health.log);
            }
            exit.oom_killed = exit.code == 137
                && kills.map_or_else(|| house.cgroup.as_ref().is_some_and(was_out_of_memory), |kills| kills > 0);
            let shares_pids = record.spec.namespaces.pid != NamespaceMode::Private;
            if let Some(cgroup) = house.cgroup.as_mut().filter(|_| shares_pids) {
                // The kernel ends the others only where the first process was that of a pid namespace.
                let _ = cgroup.kill();
            }
            house.drain();
        }
        Err(error) => {
            exit.code = failure::kind_of(&error).exit_code().into();
            exit.error = failure::message_of(&error);
            if let Some(client) = client {
                house.clients.push(Client::new(client));
                house.refusal = Some(Trouble::of(&error));
            }
        }
    }
    exit.finished_ns = now_ns();
    if let Some(cgroup) = house.cgroup.take()
        && cgroup.delete().is_ok()
    {
        held.cgroup = serde_json::Value::Null;
    }
    if house.network.id.is_some() {
        // It may have joined and left networks meanwhile.
        held.network = serde_json::to_value(&house.network).unwrap_or_default();
    }
    house.network = Attached::default();
    // What cannot be released now is in `attachments.json` no more; `system check` finds it.
    let _ = acquire::release(place.layout, &held);
    exit
}

fn was_out_of_memory(cgroup: &Cgroup) -> bool {
    matches!(cgroup.oom_watch(), Ok(Some(watch)) if watch.kills() > 0)
}

/// The status is there for all to read, then the one who started it hears of it.
fn introduce(
    record: &ContainerRecord,
    house: &mut House,
    start: &Start,
    client: Option<Connection>,
    seen: Option<Viewer>,
    born: &Born,
    restarts: u32,
) {
    let running = born.is_running();
    let pid = born.pid();
    let cgroup = house.cgroup.as_ref().and_then(|cgroup| serde_json::to_value(cgroup.saved()).ok());
    let network = serde_json::to_value(&house.network).unwrap_or_default();
    let pid_start = userns::start_time(pid).unwrap_or(0);
    house.status.change(|status| {
        status.phase = if running { Phase::Running } else { Phase::Initialized };
        status.pid = pid;
        status.pid_start = pid_start;
        status.started_ns = if running { now_ns() } else { 0 };
        status.restarts = restarts;
        status.cgroup = cgroup.unwrap_or_default();
        status.network = network;
        status.stopping = false;
    });
    let _ = exit::write_pidfile(record.spec.lifecycle.pidfile.as_deref(), pid);
    let _ = exit::write_pidfile(record.spec.lifecycle.supervisor_pidfile.as_deref(), std::process::id() as i32);
    let mode = record.spec.lifecycle.sdnotify.as_deref();
    if running && (house.notify.is_some() || matches!(mode, Some("conmon" | "healthy"))) {
        let supervisor = std::process::id();
        // The rest is said by the container, or with `healthy` by the first check that succeeds.
        let ready = if mode == Some("conmon") { "\nREADY=1" } else { "" };
        notify::notify(&format!("MAINPID={supervisor}{ready}"));
    }
    house.notify_healthy = mode == Some("healthy");
    if let Some(connection) = client {
        let attached = seen.is_some();
        let wants_input = start.attach.is_some_and(|attach| attach.input);
        let mut client = Client::starter(connection, seen);
        let input = house.input.as_ref().filter(|_| attached && (house.terminal || wants_input && house.interactive));
        client.tell(&Reply::Started { pid, terminal: house.terminal }, input);
        house.clients.push(client);
    }
}

/// The container's first process.
struct Born {
    pid: i32,
    created: Option<Created>,
    running: Option<Running>,
    /// When `begin` failed: the exit code.
    failed: Option<i32>,
}

impl Born {
    fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Reap it, and give its exit code.
    fn end(&mut self) -> i32 {
        if let Some(code) = self.failed {
            return code;
        }
        let pidfd = self.pidfd().map(|pidfd| process::wait(pidfd.as_fd()));
        match pidfd {
            Some(Ok(ended)) => {
                // It is reaped: nothing is left to kill.
                if let Some(created) = self.created.take() {
                    drop(created.leave());
                }
                ended.code()
            }
            _ => -1,
        }
    }
}

impl Process for Born {
    fn pid(&self) -> i32 {
        self.pid
    }

    fn pidfd(&self) -> Option<&OwnedFd> {
        match (&self.running, &self.created) {
            (Some(running), _) => Some(&running.pidfd),
            (None, Some(created)) => created.pidfd(),
            (None, None) => None,
        }
    }

    fn begin(&mut self) -> Result<()> {
        let created = self.created.take().context("the container is already started")?;
        match created.start() {
            Ok(running) => self.running = Some(running),
            Err(error) => {
                self.failed = Some(failure::kind_of(&error).exit_code().into());
                return Err(error);
            }
        }
        Ok(())
    }

    fn signal(&self, number: i32) -> Result<()> {
        let pidfd = self.pidfd().context("the container's process is gone")?;
        process::pidfd_send_signal(pidfd.as_fd(), number).context("signal the container's process")
    }
}

/// Acquire, launch, start. All that was needed for it only is dropped here.
fn bear(
    place: Place<'_>,
    record: &ContainerRecord,
    house: &mut House,
    start: &Start,
    descriptors: &mut Vec<OwnedFd>,
    held: &mut Attachments,
) -> Result<(Born, Option<Viewer>)> {
    let size = start.attach.and_then(|attach| attach.size);
    let request = acquire::Request {
        layout: place.layout,
        privilege: place.privilege,
        record,
        cgroup_manager: place.cgroup_manager,
        console_size: size.map(|size| (size.rows.into(), size.columns.into())),
    };
    let attachments = place.layout.running(&record.id).join("attachments.json");
    let mut intend = |intent: &Attachments| {
        *held = intent.clone();
        file::replace_json(&attachments, intent, Durability::Volatile)
    };
    let acquired = acquire::acquire(&request, &mut intend)?;
    *held = acquired.held.clone();
    let mut descriptors = descriptors.drain(..);
    let seen = start.attach.map(|attach: Attach| viewer(&attach, &mut descriptors)).transpose()?;
    let streams = Streams::new(record, start, &mut descriptors)?;
    house.log = open_log(place, record)?;
    furnish(house, record);
    let Streams { stdio, output, errors, input } = streams;
    let Acquired { plan, rootfs, cgroup, network, notify, .. } = acquired;
    house.notify = notify;
    house.cgroup = cgroup;
    house.network = network;
    let created = launch::launch(plan, Rootfs::Mount(rootfs), stdio, house.cgroup.as_mut())?;
    let mut born = Born { pid: created.pid, created: Some(created), running: None, failed: None };
    let master = born.created.as_mut().and_then(|created| created.terminal.take());
    if let Some(master) = master {
        pipe::set_nonblocking(&master)?;
        if let Some(size) = size {
            let _ = crate::sys::terminal::set_size(&master, size);
        }
        house.relay = Relay::new(Some(master.try_clone()?), None);
        house.input = Some(master);
    } else {
        house.relay = Relay::new(output, errors);
        house.input = input;
    }
    if start.begin {
        born.begin()?;
    }
    Ok((born, seen))
}

fn open_log(place: Place<'_>, record: &ContainerRecord) -> Result<Log> {
    let directory = place.layout.container(&record.id);
    let owner = Owner {
        id: record.id.as_str(),
        name: &record.name,
        image: record.image.as_ref().map_or("", |image| &image.name),
        directory: &directory,
    };
    Log::open(&record.spec.log, owner)
}

/// What the loop must know of the record.
fn furnish(house: &mut House, record: &ContainerRecord) {
    use crate::model::container::LogDriver;
    let (spec, lifecycle) = (&record.spec, &record.spec.lifecycle);
    house.terminal = spec.stdio.tty && spec.log.driver != LogDriver::PassthroughTty;
    house.interactive = spec.stdio.interactive;
    house.passthrough = matches!(spec.log.driver, LogDriver::Passthrough | LogDriver::PassthroughTty);
    house.ephemeral = lifecycle.remove;
    let timeout = lifecycle.stop_timeout_s.unwrap_or(STOP_TIMEOUT_S);
    house.stop_default = StopWish {
        signal: lifecycle.stop_signal.unwrap_or(libc::SIGTERM),
        timeout: u64::try_from(timeout).ok().map(Duration::from_secs),
    };
    house.run_deadline = lifecycle.run_timeout_s.map(|seconds| Instant::now() + Duration::from_secs(seconds));
}
