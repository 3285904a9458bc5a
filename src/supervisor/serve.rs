//! The loop of a supervisor: one `poll` over the container's end, its streams, its clients and the time.
//!
//! It owns the state and changes it; it knows nothing of how a container is made or released (`supervise.rs`). It ends
//! with the container's first process, or, while there is none (between two lives), when the time is up or a client
//! wants it to end.

mod client;
mod end;
mod health;
mod wait;

pub use client::{Client, viewer};

use super::health::Health;
use super::log::{Log, Stream};
use super::message::{Attach, Connection, Reply, Request, Trouble};
use super::notify::Notify;
use super::relay::{Pumped, Relay, Viewer};
use super::status::StatusFile;
use crate::failure::{Failure, Kind};
use crate::network::attach::Attached;
use crate::runtime::cgroup::Cgroup;
use crate::state::container::Phase;
use crate::sys::{memory, socket};
use anyhow::{Context, Result, bail};
use nix::sys::signalfd::SignalFd;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use wait::Ready;

/// After so long without anything to do, memory is given back.
const REST_AFTER: Duration = Duration::from_millis(100);
/// More clients than this wait in the listening socket's queue.
const CLIENTS_MAX: usize = 256;

/// The container's first process.
pub trait Process {
    /// Its number.
    fn pid(&self) -> i32;
    /// Readable when it has ended; `None`: it is gone.
    fn pidfd(&self) -> Option<&OwnedFd>;
    /// Let it run.
    fn begin(&mut self) -> Result<()>;
    /// Send it a signal.
    fn signal(&self, number: i32) -> Result<()>;
}

/// How stop was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopWish {
    /// The signal.
    pub signal: i32,
    /// How long it may take to obey; `None`: for ever.
    pub timeout: Option<Duration>,
}

/// What the loop owns.
pub struct House {
    /// Where clients come in.
    pub listener: OwnedFd,
    /// Signals for the supervisor itself.
    pub signals: SignalFd,
    /// Who is connected.
    pub clients: Vec<Client>,
    /// The container's streams.
    pub relay: Relay,
    /// Its log.
    pub log: Log,
    /// Its standard input, or its terminal.
    pub input: Option<OwnedFd>,
    /// Its streams are a terminal.
    pub terminal: bool,
    /// Its standard input is open for clients.
    pub interactive: bool,
    /// The streams are the starting command's own.
    pub passthrough: bool,
    /// The status others read.
    pub status: StatusFile,
    /// Its cgroup, to freeze and kill.
    pub cgroup: Option<Cgroup>,
    /// Its networks, and its name server.
    pub network: Attached,
    /// Its health checks.
    pub health: Option<Health>,
    /// Where the container speaks to the service manager.
    pub notify: Option<Notify>,
    /// The service manager waits for the first check that succeeds.
    pub notify_healthy: bool,
    /// It is to be started again, whatever its policy says.
    pub restart_wanted: bool,
    /// How to stop it when nobody says.
    pub stop_default: StopWish,
    /// It goes with its process: a broken pipe of whoever started it is its own broken pipe.
    pub ephemeral: bool,
    /// Stopped or killed by a user.
    pub stopped_by_user: bool,
    /// When the stop time-out ends, and whether it ended.
    pub stop_deadline: Option<Instant>,
    /// SIGKILL was sent for want of obedience.
    pub killed: bool,
    /// When it has run for too long (`--timeout`).
    pub run_deadline: Option<Instant>,
    /// It was killed for that.
    pub timed_out: bool,
    /// Why it did not start; told to who started it, the last of the clients, when nothing is held any more.
    pub refusal: Option<Trouble>,
    /// When something was last done.
    pub last_event: Instant,
    /// Nothing was given back since then.
    pub restless: bool,
}

/// Why [`House::keep`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The first process has ended.
    Ended,
    /// The time is up.
    Time,
    /// Somebody wants the container to end, and there is no process.
    Stop,
}

impl House {
    /// An empty one.
    pub fn new(listener: OwnedFd, signals: SignalFd, status: StatusFile) -> House {
        House {
            listener,
            signals,
            clients: Vec::new(),
            relay: Relay::default(),
            log: Log::None,
            input: None,
            terminal: false,
            interactive: false,
            passthrough: false,
            status,
            cgroup: None,
            network: Attached::default(),
            health: None,
            notify: None,
            notify_healthy: false,
            restart_wanted: false,
            stop_default: StopWish { signal: libc::SIGTERM, timeout: None },
            ephemeral: false,
            stopped_by_user: false,
            stop_deadline: None,
            killed: false,
            run_deadline: None,
            timed_out: false,
            refusal: None,
            last_event: Instant::now(),
            restless: true,
        }
    }

    /// Serve until the process ends; without one, until `until` or until a client stops the container.
    pub fn keep(&mut self, mut process: Option<&mut dyn Process>, until: Option<Instant>) -> Result<Turn> {
        loop {
            let ready = self.wait(process.as_deref(), until)?;
            if ready.any() {
                self.last_event = Instant::now();
                self.restless = true;
            }
            if ready.signals {
                self.take_signals(&process);
            }
            for stream in [Stream::Output, Stream::Errors] {
                if ready.sources[stream as usize] {
                    self.pump(stream);
                }
            }
            self.serve(&ready, &mut process);
            if ready.check
                && let Some(health) = &mut self.health
            {
                health.read_output();
            }
            if ready.notify
                && let Some(notify) = &self.notify
            {
                notify.pass_on();
            }
            if ready.network {
                self.network.ready();
            }
            if ready.listener {
                self.accept();
            }
            self.clients.retain(|client| !client.gone);
            if ready.process || process.as_ref().is_some_and(|process| process.pidfd().is_none()) {
                return Ok(Turn::Ended);
            }
            let now = Instant::now();
            self.keep_time(now, process.as_deref());
            if process.is_none() {
                if self.stopped_by_user {
                    return Ok(Turn::Stop);
                }
                if until.is_some_and(|until| now >= until) {
                    return Ok(Turn::Time);
                }
            }
        }
    }

    /// Send the stop signal, and SIGKILL later if need be.
    pub fn stop(&mut self, wish: StopWish, process: Option<&dyn Process>) {
        self.stopped_by_user = true;
        let Some(process) = process else { return };
        let now = Instant::now();
        if self.status.get().phase == Phase::Paused {
            // A frozen process takes no signal.
            let _ = self.thaw();
        }
        if wish.timeout == Some(Duration::ZERO) {
            let _ = process.signal(libc::SIGKILL);
        } else {
            let _ = process.signal(wish.signal);
        }
        let deadline = wish.timeout.map(|timeout| now + timeout);
        self.stop_deadline = match (self.stop_deadline, deadline) {
            (Some(first), Some(second)) => Some(first.min(second)),
            (first, second) => first.or(second),
        };
        self.status.change(|status| status.stopping = true);
    }

    fn thaw(&mut self) -> Result<()> {
        if let Some(cgroup) = &mut self.cgroup {
            cgroup.thaw()?;
        }
        self.status.change(|status| status.phase = Phase::Running);
        Ok(())
    }

    fn pump(&mut self, stream: Stream) -> Pumped {
        let viewers = self.clients.iter_mut().filter_map(|client| client.viewer.as_mut());
        let pumped = self.relay.pump(stream, &mut self.log, viewers);
        self.notice_broken();
        pumped
    }

    /// `coracle run --rm … | head`: the container's own write shall fail, as in any pipeline. A container that is kept
    /// goes on, and its log with it.
    fn notice_broken(&mut self) {
        for client in &mut self.clients {
            let broken = client.viewer.as_mut().is_some_and(Viewer::take_broken);
            if broken && client.starter && self.ephemeral && !client.gone {
                for stream in [Stream::Output, Stream::Errors] {
                    if !client.viewer.as_ref().is_some_and(|viewer| viewer.watches(stream)) {
                        self.relay.close(stream);
                    }
                }
            }
        }
    }

    fn take_signals(&mut self, process: &Option<&mut dyn Process>) {
        while let Ok(Some(news)) = self.signals.read_signal() {
            match news.ssi_signo as i32 {
                libc::SIGTERM | libc::SIGINT => self.stop(self.stop_default, process.as_deref()),
                libc::SIGCHLD => {
                    let strangers = end::reap_strangers(process.as_deref().map(Process::pid));
                    // What ends with the container has not failed.
                    let over = self.status.get().stopping || process.as_deref().is_none_or(end::has_ended);
                    for (pid, code) in strangers {
                        let verdict = self.health.as_mut().and_then(|health| health.ended(pid, code, over));
                        if let Some(verdict) = verdict {
                            self.heed(verdict, process.as_deref());
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn accept(&mut self) {
        while self.clients.len() < CLIENTS_MAX {
            let Ok(connection) = socket::accept(&self.listener) else { return };
            // The socket's mode keeps others out already; root of the machine is let in.
            let peer = socket::peer_uid(&connection);
            if peer.is_ok_and(|uid| uid == 0 || uid == nix::unistd::geteuid().as_raw()) {
                self.clients.push(Client::new(Connection::new(connection)));
            }
        }
    }

    fn serve(&mut self, ready: &Ready, process: &mut Option<&mut dyn Process>) {
        for index in 0..ready.clients.len().min(self.clients.len()) {
            let seen = ready.clients[index];
            if let Some(viewer) = &mut self.clients[index].viewer {
                for stream in [Stream::Output, Stream::Errors] {
                    if seen.sinks[stream as usize] {
                        viewer.flush(stream);
                    }
                }
            }
            if seen.speaks {
                self.hear(index, process);
            }
        }
        self.notice_broken();
    }

    /// A client has something to say.
    fn hear(&mut self, index: usize, process: &mut Option<&mut dyn Process>) {
        let received = self.clients[index].connection.receive::<Request>();
        let (request, descriptors) = match received {
            Ok(Some(received)) => received,
            Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::WouldBlock) => {
                return;
            }
            Ok(None) | Err(_) => {
                self.clients[index].gone = true;
                return;
            }
        };
        match self.answer(index, request, descriptors, process) {
            Ok(None) => {}
            Ok(Some(reply)) => self.clients[index].tell(&reply, None),
            Err(error) => self.clients[index].tell(&Reply::Failed(Trouble::of(&error)), None),
        }
    }

    fn answer(
        &mut self,
        index: usize,
        request: Request,
        descriptors: Vec<OwnedFd>,
        process: &mut Option<&mut dyn Process>,
    ) -> Result<Option<Reply>> {
        let phase = self.status.get().phase;
        match request {
            Request::Start(_) => bail!("the container is already started"),
            Request::Attach(attach) => {
                self.attach(index, &attach, descriptors)?;
                return Ok(None);
            }
            Request::CloseInput => {
                if !self.terminal {
                    self.input = None;
                }
                return Ok(None);
            }
            Request::Wait => self.clients[index].waits = true,
            Request::Begin => {
                let process = process.as_mut().context("the container has no process")?;
                if phase != Phase::Initialized {
                    bail!("the container is already started");
                }
                process.begin()?;
                self.status.change(|status| {
                    status.phase = Phase::Running;
                    status.started_ns = crate::state::event::now_ns();
                });
                return Ok(Some(Reply::Done));
            }
            Request::Signal { number } => {
                let process = process.as_ref().context("the container has no process")?;
                process.signal(number)?;
                self.stopped_by_user = true;
                return Ok(Some(Reply::Done));
            }
            Request::Stop { signal, timeout_s } => {
                self.clients[index].waits = true;
                let mut wish = self.stop_default;
                wish.signal = signal.unwrap_or(wish.signal);
                if let Some(seconds) = timeout_s {
                    wish.timeout = u64::try_from(seconds).ok().map(Duration::from_secs);
                }
                self.stop(wish, process.as_deref());
            }
            Request::Pause => {
                if phase != Phase::Running {
                    return Err(wrong_state(phase, "pause"));
                }
                let cgroup = self.cgroup.as_mut().filter(|cgroup| cgroup.exists());
                let cgroup = cgroup.ok_or_else(|| {
                    Failure::new(Kind::Engine, "pause: the container has no cgroup")
                        .hint("delegate a cgroup to this user (Delegate=yes), or run without --cgroups=disabled")
                })?;
                cgroup.freeze()?;
                self.status.change(|status| status.phase = Phase::Paused);
                return Ok(Some(Reply::Done));
            }
            Request::Unpause => {
                if phase != Phase::Paused {
                    return Err(wrong_state(phase, "unpause"));
                }
                self.thaw()?;
                return Ok(Some(Reply::Done));
            }
            Request::Connect(endpoint) => {
                let House { network, status, .. } = self;
                network.connect(&endpoint, &mut |network| status.note_network(network))?;
                status.change(|status| status.network = serde_json::to_value(&*network).unwrap_or_default());
                return Ok(Some(Reply::Done));
            }
            Request::Disconnect(name) => {
                let House { network, status, .. } = self;
                network.disconnect(&name, &mut |network| status.note_network(network))?;
                status.change(|status| status.network = serde_json::to_value(&*network).unwrap_or_default());
                return Ok(Some(Reply::Done));
            }
            Request::RenewHealth => {
                self.renew_health()?;
                return Ok(Some(Reply::Done));
            }
            Request::LookUpAgain => {
                self.network.look_up_again()?;
                return Ok(Some(Reply::Done));
            }
            Request::Publish(mapping) => {
                let House { network, status, .. } = self;
                network.publish(&[mapping], &mut |network| status.note_network(network))?;
                status.change(|status| status.network = serde_json::to_value(&*network).unwrap_or_default());
                return Ok(Some(Reply::Done));
            }
            Request::Withdraw(mapping) => {
                let House { network, status, .. } = self;
                network.withdraw(&mapping, &mut |network| status.note_network(network))?;
                status.change(|status| status.network = serde_json::to_value(&*network).unwrap_or_default());
                return Ok(Some(Reply::Done));
            }
            Request::CheckHealth => {
                let health = self.health.as_mut();
                let health =
                    health.ok_or_else(|| Failure::new(Kind::Engine, "the container has no defined healthcheck"))?;
                health.check_soon();
                self.clients[index].waits_for_check = true;
            }
        }
        Ok(None)
    }

    fn attach(&mut self, index: usize, attach: &Attach, descriptors: Vec<OwnedFd>) -> Result<()> {
        if self.passthrough {
            bail!("this container is using the 'passthrough' log driver, cannot attach");
        }
        let viewer = viewer(attach, &mut descriptors.into_iter())?;
        let terminal = self.terminal;
        let client = &mut self.clients[index];
        client.viewer = Some(viewer);
        client.waits = true;
        let input = self.input.as_ref().filter(|_| terminal || attach.input && self.interactive);
        if let (true, Some(screen), Some(size)) = (terminal, input, attach.size) {
            let _ = crate::sys::terminal::set_size(screen, size);
        }
        client.tell(&Reply::Attached { terminal }, input);
        Ok(())
    }

    /// What is due by the clock.
    fn keep_time(&mut self, now: Instant, process: Option<&dyn Process>) {
        for client in &mut self.clients {
            if let Some(viewer) = &mut client.viewer {
                viewer.drop_stalled(now);
            }
        }
        if self.restless && now.duration_since(self.last_event) >= REST_AFTER {
            self.restless = false;
            self.relay.rest();
            self.log.rest();
            memory::give_back();
        }
        let Some(process) = process else { return };
        let checks = self.status.get().phase == Phase::Running && !self.status.get().stopping;
        if let Some(health) = self.health.as_mut().filter(|health| checks || health.is_checking()) {
            // A check that cannot be started now is tried again at its next time, or when somebody asks.
            let _ = health.keep_time(now);
        }
        if self.stop_deadline.is_some_and(|deadline| now >= deadline) {
            self.stop_deadline = None;
            self.killed = true;
            self.kill(process);
        }
        if self.run_deadline.is_some_and(|deadline| now >= deadline) {
            self.run_deadline = None;
            self.timed_out = true;
            self.kill(process);
        }
    }

    fn kill(&mut self, process: &dyn Process) {
        let _ = process.signal(libc::SIGKILL);
        if self.status.get().phase == Phase::Paused {
            let _ = self.thaw();
        }
    }
}

fn wrong_state(phase: Phase, verb: &str) -> anyhow::Error {
    let message = match (verb, phase) {
        ("pause", Phase::Paused) => "it is already paused: container state improper".to_owned(),
        ("unpause", _) => "it is not paused, can't unpause: container state improper".to_owned(),
        _ => format!("it is not running, can't {verb}: container state improper"),
    };
    Failure::new(Kind::Engine, message).into()
}
