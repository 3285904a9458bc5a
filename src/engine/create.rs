//! Create a container: find its image, merge the image's config into the wish once, give it id, name and directory.

use crate::engine::{Engine, idmap, merge, registry, remove};
use crate::failure::{Failure, Kind, Level, note};
use crate::image::{builtin, progress::Progress, store};
use crate::model::container::{ContainerSpec, NamespaceMode, Namespaces, RootSource};
use crate::model::id::{self, Id};
use crate::model::image::ImageConfig;
use crate::model::mount::{Mount, MountSource};
use crate::model::network::NetworkMode;
use crate::model::pull::{Pull, PullPolicy};
use crate::model::user::{UserNamespace, outside};
use crate::network::attach;
use crate::state::container::{self, ContainerRecord, ImageUse, VERSION};
use crate::state::event::{self, Event};
use crate::state::file::{self, Durability};
use crate::state::lock::{self, Mode, Rank};
use crate::state::name::Names;
use crate::storage::volume;
use crate::storage::{layer, mapped, overlay::Upper};
use anyhow::{Context, Result};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What create is asked for.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// The container.
    pub spec: ContainerSpec,
    /// `--name`; absent: one is made up.
    pub name: Option<String>,
    /// `--replace`: remove whoever has the name.
    pub replace: bool,
    /// About a missing image.
    pub pull: Pull,
}

/// Create it.
///
/// # Errors
/// Exit code 125: unknown image, taken name, a reference to a container that is not there. Nothing is left behind.
pub fn create(engine: &Engine, wish: Wish, progress: &dyn Progress) -> Result<ContainerRecord> {
    let Wish { mut spec, name, replace, pull } = wish;
    // Docker's names begin with a slash, and scripts that came from there keep it.
    let name = name.map(|name| name.strip_prefix('/').map(str::to_owned).unwrap_or(name));
    if let Some(name) = &name {
        id::check_name(name)?;
    }
    let Found { used: image, layers, config } = match spec.root.clone() {
        RootSource::Image(reference) => find_image(engine, &mut spec, &reference, &pull, progress)?,
        RootSource::Directory { .. } | RootSource::Host | RootSource::Unset => Found::default(),
    };
    merge::merge(&mut spec, &config)?;
    resolve_references(engine, &mut spec)?;
    let id = new_id()?;
    spec.network.mode.get_or_insert_with(|| attach::default_mode(engine.privilege.rootless));
    spec.cgroup_manager = engine.wanted_cgroup_manager()?.map(str::to_owned);
    let (id_maps, reservation) = idmap::choose(engine, &mut spec, &layers)?;
    name_volumes(&mut spec)?;
    let mut record = ContainerRecord {
        version: VERSION,
        id,
        name: String::new(),
        created_ns: event::now_ns(),
        image,
        layers,
        id_maps,
        spec,
    };
    publish(engine, &mut record, name, replace)?;
    drop(reservation);
    make_volumes(engine, &record)?;
    note(Level::Debug, || {
        format!("Created container {} named {}, of {} layers", record.id, record.name, record.layers.len())
    });
    event::record(&engine.layout, event_of(&record, "create"));
    Ok(record)
}

/// Volumes are there once the container is, for `volume ls` and to be filled before the first start.
fn make_volumes(engine: &Engine, record: &ContainerRecord) -> Result<()> {
    for mount in &record.spec.mounts {
        if let MountSource::Volume { name: Some(name), anonymous, .. } = &mount.source
            && !engine.layout.volumes().join(name).exists()
        {
            let wish = volume::Wish { anonymous: *anonymous, ..volume::Wish::default() };
            volume::Volume::create(&engine.layout, name, wish)?;
        }
    }
    Ok(())
}

/// An id that nobody has.
pub fn new_id() -> Result<Id> {
    Ok(Id::from_random(random()?))
}

/// An event about a container.
pub fn event_of(record: &ContainerRecord, status: &str) -> Event {
    Event {
        kind: "container".to_owned(),
        status: status.to_owned(),
        id: record.id.to_string(),
        name: record.name.clone(),
        image: record.image.as_ref().map(|image| image.name.clone()).unwrap_or_default(),
        attributes: record.spec.labels.clone(),
        ..Event::default()
    }
}

/// An image as create needs it.
#[derive(Default)]
struct Found {
    used: Option<ImageUse>,
    layers: Vec<String>,
    config: ImageConfig,
}

/// The image of that name: the store's, else one that is built in, else a registry's, as the policy says.
fn find_image(
    engine: &Engine,
    spec: &mut ContainerSpec,
    reference: &str,
    pull: &Pull,
    progress: &dyn Progress,
) -> Result<Found> {
    let here = matches!(pull.policy, PullPolicy::Missing | PullPolicy::Never);
    let local = if here { store::resolve(&engine.layout, reference)? } else { None };
    let image = match local {
        Some(image) => image,
        None if here && builtin::is_host(reference) => {
            spec.root = RootSource::Host;
            return Ok(Found { config: builtin::host_config(), ..Found::default() });
        }
        None => {
            match here.then(|| builtin::provide(&engine.layout, &engine.privilege, reference)).transpose()?.flatten() {
                Some(image) => image,
                None => registry::ensure_image(engine, reference, pull, progress)?,
            }
        }
    };
    let used = ImageUse {
        id: image.id().to_owned(),
        name: image.name.as_ref().map_or_else(|| image.id().to_owned(), ToString::to_string),
        digest: image.digest().map(|digest| digest.as_str().to_owned()).unwrap_or_default(),
    };
    Ok(Found { used: Some(used), layers: image.layers(), config: image.config.config })
}

/// Names of other containers become ids, so that a rename does not break them.
fn resolve_references(engine: &Engine, spec: &mut ContainerSpec) -> Result<()> {
    let namespaces = &mut spec.namespaces;
    let modes =
        [Some(&mut namespaces.pid), Some(&mut namespaces.ipc), Some(&mut namespaces.uts), namespaces.cgroup.as_mut()];
    for mode in modes.into_iter().flatten() {
        if let NamespaceMode::Container(name) = mode {
            *name = find(engine, name)?.to_string();
        }
    }
    if let NamespaceMode::Container(id) = &namespaces.ipc
        && record_of(engine, id)?.spec.namespaces.ipc_unshared
    {
        return Err(Failure::new(
            Kind::Engine,
            format!("joining IPC of container {id} is not allowed: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"),
        )
        .into());
    }
    let mode = &mut spec.network.mode;
    if let Some(NetworkMode::Container(name)) = mode {
        *name = find(engine, name)?.to_string();
        if record_of(engine, name)?.spec.network.mode == Some(NetworkMode::Host) {
            *mode = Some(NetworkMode::Host);
        }
    }
    // A container that has the host's namespace has none to be joined.
    let host_of = |name: &str, pick: fn(&Namespaces) -> Option<&NamespaceMode>| -> Result<bool> {
        Ok(pick(&record_of(engine, name)?.spec.namespaces) == Some(&NamespaceMode::Host))
    };
    let namespaces = &mut spec.namespaces;
    let picks: [(Option<&mut NamespaceMode>, fn(&Namespaces) -> Option<&NamespaceMode>); 4] = [
        (Some(&mut namespaces.pid), |other| Some(&other.pid)),
        (Some(&mut namespaces.ipc), |other| Some(&other.ipc)),
        (Some(&mut namespaces.uts), |other| Some(&other.uts)),
        (namespaces.cgroup.as_mut(), |other| other.cgroup.as_ref()),
    ];
    for (mode, pick) in picks {
        if let Some(mode) = mode
            && let NamespaceMode::Container(name) = mode
            && host_of(name, pick)?
        {
            *mode = NamespaceMode::Host;
        }
    }
    if let UserNamespace::Container(name) = &mut spec.userns {
        *name = find(engine, name)?.to_string();
    }
    for name in &mut spec.lifecycle.requires {
        *name = find(engine, name)?.to_string();
    }
    for from in spec.volumes_from.clone() {
        volumes_from(engine, spec, &from)?;
    }
    Ok(())
}

fn record_of(engine: &Engine, id: &str) -> Result<ContainerRecord> {
    ContainerRecord::load(&engine.layout, &Id::parse(id)?)
}

/// `--volumes-from NAME[:OPTIONS]`: the other container's mounts that this one does not name itself.
fn volumes_from(engine: &Engine, spec: &mut ContainerSpec, from: &str) -> Result<()> {
    let (name, options) = from.split_once(':').unwrap_or((from, ""));
    let other = ContainerRecord::load(&engine.layout, &find(engine, name)?)?;
    for mut mount in other.spec.mounts {
        let shared = matches!(mount.source, MountSource::Bind { .. } | MountSource::Volume { .. });
        if !shared || spec.mounts.iter().any(|own| own.target == mount.target) {
            continue;
        }
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => mount.options.read_only = true,
                "rw" => mount.options.read_only = false,
                "z" => mount.options.relabel = Some(crate::model::mount::Relabel::Shared),
                _ => {
                    return Err(Failure::new(
                        Kind::Engine,
                        format!("invalid options {option:?}, can only specify 'ro', 'rw', and 'z'"),
                    )
                    .into());
                }
            }
        }
        // It is the other's to remove.
        if let MountSource::Volume { anonymous, .. } = &mut mount.source {
            *anonymous = false;
        }
        spec.mounts.push(mount);
    }
    Ok(())
}

/// A container by name or id, which must be there.
pub fn find(engine: &Engine, name: &str) -> Result<Id> {
    container::find(&engine.layout, name)?.ok_or_else(|| no_such(name))
}

/// podman's words for a container that is not there.
pub fn no_such(name: &str) -> anyhow::Error {
    Failure::new(Kind::Engine, format!("no container with name or ID {name:?} found: no such container")).into()
}

/// Anonymous volumes get their names here, so that restarts find the same ones.
fn name_volumes(spec: &mut ContainerSpec) -> Result<()> {
    for Mount { source, .. } in &mut spec.mounts {
        if let MountSource::Volume { name: name @ None, .. } = source {
            *name = Some(new_id()?.to_string());
        }
    }
    Ok(())
}

/// Make the directory in staging, then name and directory appear together.
fn publish(engine: &Engine, record: &mut ContainerRecord, name: Option<String>, replace: bool) -> Result<()> {
    let layout = &engine.layout;
    let staging = file::staging_name(&layout.tmp(), "container");
    let durability = record.durability();
    directory(&staging)?;
    let result = (|| {
        if let Some((top, owner)) = top(engine, record)? {
            Upper::under(&staging).create(&top, owner)?;
        }
        loop {
            let wanted = name.clone().unwrap_or_else(|| made_up_name(&random().unwrap_or_default()));
            wanted.clone_into(&mut record.name);
            let content = record.document()?;
            let path = staging.join("config.json");
            file::write_staged(&path, &content, durability).with_context(|| format!("write {}", path.display()))?;
            // Shared with all but those who collect garbage: the layers that are there now stay, for the record names them.
            let store = lock::lock(&layout.lock(), Rank::Store, Mode::Shared)?;
            if let Some(gone) = record.layers.iter().find(|hex| !layer::exists(layout, hex)) {
                anyhow::bail!("layer {gone} was removed a moment ago");
            }
            let names = Names::lock(layout)?;
            match names.take(&wanted, &record.id)? {
                None => {
                    let target = layout.container(&record.id);
                    let noted = container::note_needs(layout, record);
                    let made = noted.and_then(|()| {
                        file::rename_new(&staging, &target).with_context(|| format!("make {}", target.display()))
                    });
                    if let Err(error) = made {
                        let _ = crate::state::name::release(layout, &wanted, &record.id);
                        return Err(error);
                    }
                    if durability == Durability::Durable {
                        file::sync_directory(&layout.containers())?;
                    }
                    return Ok(());
                }
                Some(_) if name.is_none() => {}
                Some(owner) if replace => {
                    drop(names);
                    drop(store);
                    let wish = remove::Wish { force: true, ..remove::Wish::default() };
                    remove::remove(engine, &owner, wish).with_context(|| format!("replace container {wanted}"))?;
                }
                Some(owner) => return Err(taken(&wanted, &owner)),
            }
        }
    })();
    if result.is_err() {
        let _ = std::fs::remove_dir_all(&staging);
    }
    result
}

/// The topmost directory of the overlay that the container's root will be, and to whom the upper one belongs if not to
/// the same; `None`: its root is no overlay. Copies of layers for the container's maps are made here, where somebody waits.
fn top(engine: &Engine, record: &ContainerRecord) -> Result<Option<(PathBuf, Option<(u32, u32)>)>> {
    let (path, maps) = match &record.spec.root {
        RootSource::Directory { path, overlay: true, idmap } => (PathBuf::from(path), *idmap),
        RootSource::Directory { .. } | RootSource::Host => return Ok(None),
        _ => {
            let lower = mapped::lower(&engine.layout, &engine.privilege, &record.layers, &record.id_maps)?;
            let Some(top) = lower.layers.into_iter().next() else { return Ok(None) };
            (top, true)
        }
    };
    let maps = (maps && !engine.privilege.rootless).then_some(&record.id_maps);
    let owner = maps.map(|maps| -> Result<_> {
        let metadata = std::fs::metadata(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(outside(&maps.uid, metadata.uid()).zip(outside(&maps.gid, metadata.gid())))
    });
    Ok(Some((path, owner.transpose()?.flatten())))
}

fn taken(name: &str, owner: &Id) -> anyhow::Error {
    Failure::new(
        Kind::Engine,
        format!("creating container storage: the container name {name:?} is already in use by {owner}. You have to remove that container to be able to reuse that name: that name is already in use"),
    )
    .hint("use --replace to remove it first, or another --name")
    .into()
}

fn directory(path: &Path) -> Result<()> {
    let what = || format!("make {}", path.display());
    file::fault::point("mkdir", path).with_context(what)?;
    std::fs::DirBuilder::new().mode(0o700).create(path).with_context(what)
}

/// 32 bytes of the kernel's.
pub fn random() -> Result<[u8; 32]> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("read /dev/urandom")?;
    Ok(bytes)
}

/// `adjective_word`, as docker's and podman's users know it.
fn made_up_name(random: &[u8; 32]) -> String {
    const LEFT: [&str; 32] = [
        "agile", "amber", "brave", "brisk", "calm", "clever", "crisp", "daring", "eager", "fair", "gentle", "glad",
        "handy", "happy", "jolly", "keen", "kind", "lively", "lucid", "merry", "mild", "neat", "nimble", "proud",
        "quick", "quiet", "ready", "sharp", "steady", "sunny", "swift", "wise",
    ];
    const RIGHT: [&str; 32] = [
        "anchor", "beacon", "buoy", "canoe", "cove", "current", "delta", "dinghy", "dory", "eddy", "estuary", "ferry",
        "fjord", "harbor", "heron", "island", "jetty", "kayak", "keel", "lagoon", "lake", "mast", "oar", "osprey",
        "otter", "paddle", "pier", "reed", "reef", "river", "rudder", "tide",
    ];
    let number = u16::from_le_bytes([random[2], random[3]]) % 1000;
    format!("{}_{}{number}", LEFT[usize::from(random[0] % 32)], RIGHT[usize::from(random[1] % 32)])
}
