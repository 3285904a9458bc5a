//! The supervisor's end: find the forwarder or start it, get the namespace, hand over ports.

use super::message::{Port, Reply, Request};
use crate::failure::{Failure, Kind};
use crate::state::file::fault;
use crate::state::layout::Layout;
use crate::state::lock::{self, Mode, Rank};
use crate::sys::socket;
use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A connection to the forwarder.
#[derive(Debug)]
pub struct Client {
    layout: Layout,
    connection: OwnedFd,
    namespace: OwnedFd,
    /// What was published, to say it again to the next forwarder.
    ports: Vec<(Port, Arc<OwnedFd>)>,
}

/// Where it listens.
pub fn socket_path(layout: &Layout) -> PathBuf {
    layout.run().join("forward.sock")
}

/// Held by whoever connects or starts it, and by the forwarder while it decides that nobody comes any more.
pub fn lock(layout: &Layout, wait: bool) -> Result<Option<lock::Guard>> {
    let path = layout.run().join("forward.lock");
    if !path.exists() {
        std::fs::create_dir_all(layout.run()).context("make the run directory")?;
        // Made empty by whoever comes first; nobody ever writes to it.
        let made = crate::state::file::create_new(&path, b"", crate::state::file::Durability::Volatile);
        if let Err(error) = made
            && error.kind() != std::io::ErrorKind::AlreadyExists
        {
            return Err(error).with_context(|| format!("make {}", path.display()));
        }
    }
    if wait {
        lock::lock(&path, Rank::Network, Mode::Exclusive).map(Some)
    } else {
        lock::try_lock(&path, Rank::Network, Mode::Exclusive)
    }
}

impl Client {
    /// Connect to the user's forwarder, started if there is none.
    pub fn connect(layout: &Layout) -> Result<Client> {
        let (connection, namespace) = connect(layout, None)?;
        Ok(Client { layout: layout.clone(), connection, namespace, ports: Vec::new() })
    }

    /// Connect to the user's forwarder if there is one: without it the user has no bridges.
    pub fn find(layout: &Layout) -> Result<Option<Client>> {
        let Ok(connection) = socket::connect_to(&socket_path(layout)) else { return Ok(None) };
        let namespace = enter(&connection, &[])?;
        Ok(Some(Client { layout: layout.clone(), connection, namespace, ports: Vec::new() }))
    }

    /// The namespace of the user's networks.
    pub fn namespace(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }

    /// Poll this for reading: the forwarder says nothing unasked, so it is the forwarder's end.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }

    /// Pass these ports on.
    pub fn publish(&mut self, ports: Vec<(Port, Arc<OwnedFd>)>) -> Result<()> {
        publish(&self.connection, &ports)?;
        self.ports.extend(ports);
        Ok(())
    }

    /// Take these ports back.
    pub fn withdraw(&mut self, ports: &[Port]) -> Result<()> {
        self.ports.retain(|(port, _)| !ports.contains(port));
        // A packet holds so many words and no more.
        for part in ports.chunks(64) {
            match ask(&self.connection, &Request::Withdraw(part.to_vec()), &[])? {
                (Reply::Done, _) => {}
                _ => bail!("the forwarder does not know what it is asked"),
            }
        }
        Ok(())
    }

    /// Whether the forwarder is gone (it may have been killed).
    pub fn has_ended(&self) -> bool {
        let mut files = [PollFd::new(self.connection.as_fd(), PollFlags::POLLIN)];
        poll(&mut files, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Go on with the next.
    pub fn restart(&mut self) -> Result<()> {
        let (connection, namespace) = connect(&self.layout, Some(self.namespace.as_fd()))?;
        publish(&connection, &self.ports)?;
        (self.connection, self.namespace) = (connection, namespace);
        Ok(())
    }
}

/// How long a forwarder that was killed may take to be gone: it still takes connections while the kernel closes its files.
const DYING: Duration = Duration::from_secs(5);

fn connect(layout: &Layout, kept: Option<BorrowedFd<'_>>) -> Result<(OwnedFd, OwnedFd)> {
    let kept: Vec<BorrowedFd<'_>> = kept.into_iter().collect();
    let deadline = Instant::now() + DYING;
    loop {
        let connection = connect_or_start(layout)?;
        match enter(&connection, &kept) {
            Ok(namespace) => return Ok((connection, namespace)),
            Err(error) if is_told(&error) || Instant::now() >= deadline => return Err(error),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Whether the forwarder itself gave the error, rather than ended.
fn is_told(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Failure>().is_some()
}

fn connect_or_start(layout: &Layout) -> Result<OwnedFd> {
    let _guard = lock(layout, true)?;
    let path = socket_path(layout);
    match socket::connect_to(&path) {
        Ok(connection) => Ok(connection),
        Err(_) => {
            start(layout)?;
            socket::connect_to(&path).context("connect to the forwarder")
        }
    }
}

fn enter(connection: &OwnedFd, kept: &[BorrowedFd<'_>]) -> Result<OwnedFd> {
    match ask(connection, &Request::Enter, kept)? {
        (Reply::Entered, mut descriptors) => descriptors.pop().context("the forwarder sent no namespace"),
        _ => bail!("the forwarder does not know what it is asked"),
    }
}

/// Start it with its listening socket, so that who connects next need not wait for it.
fn start(layout: &Layout) -> Result<()> {
    let path = socket_path(layout);
    fault::point("start the forwarder", &path)?;
    let _ = std::fs::remove_file(&path);
    let listener = socket::listen_at(&path).with_context(|| format!("listen at {}", path.display()))?;
    let binary = File::open("/proc/self/exe").context("open our own program")?;
    let mut command = Command::new(format!("/proc/self/fd/{}", binary.as_raw_fd()));
    std::os::unix::process::CommandExt::arg0(&mut command, "coracle: [forward]");
    command.arg("--root").arg(layout.data()).arg("--runroot").arg(layout.run()).arg("forward");
    // A supervisor that is to die at some point of its way is not to take its forwarder along.
    #[cfg(debug_assertions)]
    command.env_remove("CORACLE_FAULT");
    command.stdin(Stdio::from(listener)).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    // It is nobody's child for long: whoever starts it reaps what ends, and it outlives its starter.
    command.spawn().context("start the forwarder")?;
    Ok(())
}

fn publish(connection: &OwnedFd, ports: &[(Port, Arc<OwnedFd>)]) -> Result<()> {
    for part in ports.chunks(socket::DESCRIPTORS_MAX) {
        fault::point("hand over ports", Path::new(""))?;
        let descriptors: Vec<BorrowedFd<'_>> = part.iter().map(|(_, socket)| socket.as_fd()).collect();
        let request = Request::Publish(part.iter().map(|(port, _)| *port).collect());
        match ask(connection, &request, &descriptors)? {
            (Reply::Done, _) => {}
            _ => bail!("the forwarder does not know what it is asked"),
        }
    }
    Ok(())
}

fn ask(connection: &OwnedFd, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>)> {
    socket::send(connection, &serde_json::to_vec(request)?, descriptors).context("speak to the forwarder")?;
    let mut bytes = vec![0; 16 << 10];
    let (length, descriptors) = socket::receive(connection, &mut bytes).context("hear the forwarder")?;
    if length == 0 {
        bail!("the forwarder ended");
    }
    match serde_json::from_slice(&bytes[..length]).context("understand the forwarder")? {
        Reply::Failed { message, hint } => Err(Failure { kind: Kind::Engine, message, hint }.into()),
        reply => Ok((reply, descriptors)),
    }
}
