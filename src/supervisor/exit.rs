//! The end of a container's life, in an order that nobody can see wrongly: the log is complete, `exit.json` is written,
//! everything is released, a container that goes with its process is gone, and only then `alive` is let go.

use crate::model::container::Restart;
use crate::model::id::Id;
use crate::state::container::{self, ContainerRecord, Exit};
use crate::state::file::{self, Durability};
use crate::state::layout::Layout;
use crate::state::{event, lock, name};
use crate::storage::remove;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `alive`, held.
#[derive(Debug)]
pub struct Alive(File);

/// Take a container's `alive`; `None`: somebody supervises it.
pub fn take_alive(layout: &Layout, id: &Id) -> Result<Option<Alive>> {
    let directory = layout.running(id);
    let make = |path: &Path| {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.with_context(|| format!("make {}", path.display()))
    };
    make(&directory)?;
    let path = layout.alive(id);
    file::fault::point("alive", &path).with_context(|| format!("lock {}", path.display()))?;
    loop {
        let file = match File::options().write(true).create(true).truncate(false).mode(0o600).open(&path) {
            Ok(file) => file,
            // Its last supervisor is just removing the directory.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make(&directory)?;
                continue;
            }
            Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
        };
        if !lock::hold(&file).with_context(|| format!("lock {}", path.display()))? {
            return Ok(None);
        }
        // Its last supervisor may have removed the file before it let go.
        if file.metadata().is_ok_and(|metadata| metadata.nlink() > 0) {
            return Ok(Some(Alive(file)));
        }
    }
}

impl Alive {
    /// Remove the container's directory in RUN and let go.
    pub fn release(self, layout: &Layout, id: &Id) {
        // `alive` last: while it is there and locked, nobody else is at work here.
        let directory = layout.running(id);
        let kept = container::kept_exit(layout, id);
        if let Ok(entries) = std::fs::read_dir(&directory) {
            for entry in entries.flatten().filter(|entry| entry.file_name() != "alive" && entry.path() != kept) {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    let _ = remove::tree(&entry.path());
                } else {
                    let _ = std::fs::remove_file(entry.path());
                }
            }
        }
        let _ = std::fs::remove_file(layout.alive(id));
        let _ = std::fs::remove_dir(&directory);
        drop(self.0);
    }
}

/// Write how it ended. Where DATA takes nothing (a full disk) it is kept in RUN, until it can be written or the host goes
/// down.
pub fn write(layout: &Layout, record: &ContainerRecord, exit: &Exit) -> Result<()> {
    let kept = container::kept_exit(layout, &record.id);
    match file::replace_json(&layout.container(&record.id).join("exit.json"), exit, record.durability()) {
        Ok(()) => {
            let _ = std::fs::remove_file(kept);
            Ok(())
        }
        Err(error) => file::replace_json(&kept, exit, Durability::Volatile).map_err(|_| error),
    }
}

/// Remove a container that is not alive: its name and its directory. Works on a full disk, and goes on where an earlier
/// removal was cut off.
pub fn remove(layout: &Layout, record: &ContainerRecord) -> Result<()> {
    bury(layout, record)?.map_or(Ok(()), Grave::empty)
}

/// Where the directory of a container that is no more waits to be emptied.
#[derive(Debug)]
#[must_use]
pub struct Grave(PathBuf);

impl Grave {
    /// Remove its files. Whoever is killed before leaves them to `prune`.
    pub fn empty(self) -> Result<()> {
        remove::tree(&self.0).with_context(|| format!("remove {}", self.0.display()))
    }
}

/// Remove it for all who look; its files are still there. `None`: it was removed before.
pub fn bury(layout: &Layout, record: &ContainerRecord) -> Result<Option<Grave>> {
    let directory = layout.container(&record.id);
    let grave = file::staging_name(&layout.tmp(), "removed");
    match file::rename_new(&directory, &grave) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("remove {}", directory.display())),
    }
    name::release(layout, &record.name, &record.id)?;
    if let Some(path) = &record.spec.lifecycle.cidfile
        && std::fs::read_to_string(path).is_ok_and(|id| id.trim() == record.id.as_str())
    {
        let _ = std::fs::remove_file(path);
    }
    let _ = std::fs::remove_file(container::kept_exit(layout, &record.id));
    event::record(layout, record.event("remove"));
    Ok(Some(Grave(grave)))
}

/// Remove what is in RUN of containers that are no more: somebody was killed between the two.
pub fn sweep(layout: &Layout) -> Result<()> {
    let directory = layout.run().join("containers");
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(id) = Id::parse(&entry.file_name().to_string_lossy()) else { continue };
        if layout.container(&id).exists() {
            continue;
        }
        if let Some(alive) = take_alive(layout, &id)? {
            let _ = std::fs::remove_file(container::kept_exit(layout, &id));
            alive.release(layout, &id);
        }
    }
    Ok(())
}

/// The same for a container whose record cannot be read.
pub fn remove_unreadable(layout: &Layout, id: &Id) -> Result<()> {
    let grave = file::staging_name(&layout.tmp(), "removed");
    let directory = layout.container(id);
    file::rename_new(&directory, &grave).with_context(|| format!("remove {}", directory.display()))?;
    let _ = std::fs::remove_file(container::kept_exit(layout, id));
    for entry in std::fs::read_dir(layout.names()).into_iter().flatten().flatten() {
        name::release(layout, &entry.file_name().to_string_lossy(), id)?;
    }
    remove::tree(&grave).with_context(|| format!("remove {}", grave.display()))
}

/// What the restart policy says after an end: the delay, or no.
pub fn restart_delay(
    record: &ContainerRecord,
    exit: &Exit,
    ran: Duration,
    before: Option<Duration>,
) -> Option<Duration> {
    if exit.stopped_by_user || exit.started_ns == 0 && exit.restarts == 0 {
        return None;
    }
    let again = match record.spec.lifecycle.restart {
        Restart::No => false,
        Restart::Always | Restart::UnlessStopped => true,
        Restart::OnFailure { retries } => exit.code != 0 && (retries == 0 || exit.restarts < retries),
    };
    // Docker's figures: 100 ms, doubled up to a minute, and anew after ten good seconds.
    const FIRST: Duration = Duration::from_millis(100);
    let delay = match before {
        Some(before) if ran < Duration::from_secs(10) => (before * 2).min(Duration::from_secs(60)),
        _ => FIRST,
    };
    again.then_some(delay)
}

/// Write a pid file the user has asked for.
pub fn write_pidfile(path: Option<&str>, pid: i32) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(Path::new(path), pid.to_string()).with_context(|| format!("write {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::container::ContainerSpec;
    use crate::state::container::VERSION;

    fn record(restart: Restart) -> ContainerRecord {
        let mut spec = ContainerSpec::default();
        spec.lifecycle.restart = restart;
        ContainerRecord {
            version: VERSION,
            id: Id::from_random([7; 32]),
            name: "web".to_owned(),
            created_ns: 0,
            image: None,
            layers: Vec::new(),
            id_maps: Default::default(),
            spec,
        }
    }

    #[test]
    fn restarts() {
        let ended = |code, restarts, stopped_by_user| Exit {
            code,
            restarts,
            stopped_by_user,
            started_ns: 1,
            ..Exit::default()
        };
        let short = Duration::from_secs(1);
        let ms = |delay: u64| Some(Duration::from_millis(delay));
        for (policy, exit, before, delay) in [
            (Restart::No, ended(1, 0, false), None, None),
            (Restart::Always, ended(0, 0, false), None, ms(100)),
            (Restart::Always, ended(0, 3, false), ms(400), ms(800)),
            (Restart::Always, ended(0, 3, false), ms(50_000), ms(60_000)),
            (Restart::Always, ended(137, 0, true), None, None),
            (Restart::OnFailure { retries: 2 }, ended(0, 0, false), None, None),
            (Restart::OnFailure { retries: 2 }, ended(1, 1, false), ms(100), ms(200)),
            (Restart::OnFailure { retries: 2 }, ended(1, 2, false), ms(200), None),
            (Restart::OnFailure { retries: 0 }, ended(1, 99, false), ms(100), ms(200)),
        ] {
            assert_eq!(restart_delay(&record(policy), &exit, short, before), delay, "{policy:?} {exit:?}");
        }
        let long = Duration::from_secs(11);
        assert_eq!(restart_delay(&record(Restart::Always), &ended(1, 9, false), long, ms(6400)), ms(100));
    }

    #[test]
    fn one_supervisor_at_a_time() {
        let base = std::env::temp_dir().join(format!("coracle-alive-{}", std::process::id()));
        let layout = Layout::new(base.join("data"), base.join("run"));
        let id = Id::from_random([8; 32]);
        let alive = take_alive(&layout, &id).unwrap().unwrap();
        assert!(crate::state::container::is_alive(&layout, &id).unwrap());
        assert!(take_alive(&layout, &id).unwrap().is_none());
        alive.release(&layout, &id);
        assert!(!crate::state::container::is_alive(&layout, &id).unwrap());
        assert!(!layout.running(&id).exists());
        take_alive(&layout, &id).unwrap().unwrap().release(&layout, &id);
        std::fs::remove_dir_all(&base).unwrap();
    }
}
