//! `commit`: an image of what a container has changed.

use crate::engine::{Engine, create, image as images, pause, rootfs};
use crate::failure::{Failure, Kind};
use crate::image::config::{ConfigDocument, History, RootFs, rfc3339};
use crate::image::manifest::{Descriptor, Manifest, Platform, media};
use crate::image::reference::Reference;
use crate::image::store::{self, ImageRecord, NewImage};
use crate::image::{archive, change};
use crate::model::digest::Digest;
use crate::model::mount::MountSource;
use crate::state::container::{self, ContainerRecord};
use crate::state::event::now_ns;
use crate::storage::layer::{self, Claim, Staged};
use crate::storage::{flat, overlay, pack, tree};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

/// What `commit` is asked for.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Name of the image.
    pub name: Option<String>,
    /// Author.
    pub author: Option<String>,
    /// Instructions.
    pub changes: Vec<String>,
    /// Remark.
    pub message: Option<String>,
    /// Docker's documents rather than OCI's.
    pub docker: bool,
    /// Freeze the container meanwhile.
    pub pause: bool,
    /// One layer with all of it.
    pub squash: bool,
    /// The container's volumes become the image's.
    pub volumes: bool,
}

/// Make the image.
pub fn commit(engine: &Engine, container_name: &str, wish: &Wish) -> Result<ImageRecord> {
    let name = wish.name.as_deref().map(images::local_name).transpose()?;
    let id = create::find(engine, container_name)?;
    let record = ContainerRecord::load(&engine.layout, &id)?;
    let frozen = wish.pause && container::state(&engine.layout, &id)?.word() == "running";
    if frozen {
        pause::pause(engine, &id)?;
    }
    // A copy of the image knows no changes apart: all of it is one layer.
    let wish = &Wish { squash: wish.squash || flat::path(&engine.layout.container(&id)).exists(), ..wish.clone() };
    let staged = stage(engine, &record, wish.squash);
    if frozen {
        pause::unpause(engine, &id)?;
    }
    write(engine, &record, staged?, wish, name)
}

/// The changes (or all of it) as a staged layer.
fn stage(engine: &Engine, record: &ContainerRecord, squash: bool) -> Result<Staged> {
    let maps = Some(&record.id_maps).filter(|maps| !maps.uid.is_empty());
    if squash {
        let root = rootfs::open_alone(engine, record)?;
        // A running container's mounts are not the image's.
        let exclude: Vec<Vec<u8>> =
            ["dev", "proc", "sys", "run/.containerenv"].iter().map(|name| name.as_bytes().to_vec()).collect();
        let options = pack::Options { whiteouts: false, maps, exclude: &exclude };
        return pack_and_stage(engine, root.as_fd(), options);
    }
    let path = overlay::Upper::under(&engine.layout.container(&record.id)).upper;
    let upper = tree::open_directory(&path).map_err(|error| {
        error
            .context(Failure::new(Kind::Engine, "").hint("a container of --rootfs keeps its changes in that directory"))
    })?;
    // Made by the engine for its own mounts.
    let exclude: Vec<Vec<u8>> =
        ["run/.containerenv", "run/podman-init"].iter().map(|name| name.as_bytes().to_vec()).collect();
    pack_and_stage(engine, upper.as_fd(), pack::Options { whiteouts: true, maps, exclude: &exclude })
}

/// Pack in one thread, unpack in others: no archive is written anywhere.
fn pack_and_stage(engine: &Engine, root: BorrowedFd<'_>, options: pack::Options<'_>) -> Result<Staged> {
    let (reader, writer) = std::io::pipe()?;
    std::thread::scope(|scope| {
        let packing = scope.spawn(move || {
            let mut writer = writer;
            pack::tree(root, &mut writer, options)?;
            Ok::<_, anyhow::Error>(writer.flush()?)
        });
        let input = layer::Input { reader: Box::new(reader), blob: None, blob_size: None, diff_id: None };
        let staged = layer::stage(&engine.layout, &engine.privilege, input);
        let packed = packing.join().map_err(|_| anyhow::anyhow!("the packing thread panicked"))?;
        match (packed, staged) {
            (Err(packed), Err(staged)) if archive::is_broken_pipe(&packed) => Err(staged),
            (packed, staged) => packed.and(staged),
        }
    })
}

fn write(
    engine: &Engine,
    record: &ContainerRecord,
    staged: Staged,
    wish: &Wish,
    name: Option<Reference>,
) -> Result<ImageRecord> {
    let layout = &engine.layout;
    let base = match &record.image {
        Some(used) => ImageRecord::load(layout, &Digest::parse(&format!("sha256:{}", used.id))?)?,
        None => None,
    };
    if record.image.is_some() && base.is_none() && !wish.squash {
        bail!("the image the container was made of is gone");
    }
    let mut document = config(engine, record, base.as_ref(), wish)?;
    let mut layers: Vec<Descriptor> = Vec::new();
    match (&base, wish.squash) {
        (Some(base), false) => layers = store::manifest(layout, base)?.0.layers,
        _ => document.rootfs = RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() },
    }
    document.rootfs.diff_ids.push(staged.record.diff_id.clone());
    let (manifest_type, config_type, layer_type) = match wish.docker {
        true => (media::DOCKER_MANIFEST, media::DOCKER_CONFIG, media::DOCKER_LAYER),
        false => (media::OCI_MANIFEST, media::OCI_CONFIG, media::OCI_LAYER),
    };
    for descriptor in &mut layers {
        let plain = media_of(wish.docker, &descriptor.media_type);
        plain.clone_into(&mut descriptor.media_type);
    }
    layers.push(Descriptor::new(layer_type, staged.blob.clone(), staged.blob_size));
    let config = serde_json::to_vec(&document)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(manifest_type.to_owned()),
        artifact_type: None,
        config: Descriptor::new(config_type, store::digest_of(&config), config.len() as u64),
        layers,
        subject: None,
        annotations: None,
    };
    let manifest = serde_json::to_vec(&manifest)?;
    let claims = Claim::take_all(layout, document.rootfs.diff_ids.iter().map(Digest::hex))?;
    let present = claims.get(staged.record.diff_id.hex()).is_some_and(|claim| claim.present);
    let staged = if present { Vec::new() } else { vec![staged] };
    let names = name.into_iter().collect();
    store::commit(
        layout,
        NewImage { config, manifest, index: None, staged, blobs: Vec::new(), synced: false, names, event: "commit" },
    )
    .context("write the image")
}

/// The same layer in the other family's words.
fn media_of(docker: bool, media_type: &str) -> &'static str {
    match (docker, media_type) {
        (true, text) if text.contains("zstd") => "application/vnd.docker.image.rootfs.diff.tar.zstd",
        (true, text) if text.contains("gzip") => media::DOCKER_LAYER_GZIP,
        (true, _) => media::DOCKER_LAYER,
        (false, text) if text.contains("zstd") => media::OCI_LAYER_ZSTD,
        (false, text) if text.contains("gzip") => media::OCI_LAYER_GZIP,
        (false, _) => media::OCI_LAYER,
    }
}

/// The base's config with what the container was given, and then the changes.
fn config(
    engine: &Engine,
    record: &ContainerRecord,
    base: Option<&ImageRecord>,
    wish: &Wish,
) -> Result<ConfigDocument> {
    let created = rfc3339(now_ns());
    let mut document = match base {
        Some(base) => base.config(&engine.layout)?,
        None => {
            let platform = Platform::host();
            ConfigDocument {
                architecture: platform.architecture,
                variant: platform.variant,
                os: platform.os,
                rootfs: RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() },
                ..ConfigDocument::default()
            }
        }
    };
    let (spec, config) = (&record.spec, &mut document.config);
    if !spec.process.command.is_empty() {
        config.cmd = Some(spec.process.command.clone());
    }
    if spec.process.entrypoint.is_some() {
        config.entrypoint.clone_from(&spec.process.entrypoint);
    }
    if !spec.process.env.is_empty() {
        config.env = Some(spec.process.env.iter().map(|(name, value)| format!("{name}={value}")).collect());
    }
    if let Some(directory) = &spec.process.workdir {
        config.working_dir = Some(directory.clone());
    }
    if let Some(user) = &spec.process.user {
        config.user = Some(crate::engine::inspect::config::user(user));
    }
    if !spec.labels.is_empty() {
        config.labels = Some(spec.labels.clone());
    }
    if wish.volumes {
        for mount in &spec.mounts {
            if matches!(mount.source, MountSource::Volume { .. }) {
                config.volumes.get_or_insert_default().insert(mount.target.clone(), json!({}));
            }
        }
    }
    wish.changes.iter().try_for_each(|text| change::apply(config, text))?;
    document.created = Some(created.clone());
    if wish.author.is_some() {
        document.author.clone_from(&wish.author);
    }
    if wish.squash {
        document.history.clear();
    }
    document.history.push(History {
        created: Some(created),
        author: wish.author.clone().unwrap_or_default(),
        created_by: record.spec.process.command.join(" "),
        comment: wish.message.clone().unwrap_or_default(),
        empty_layer: false,
    });
    Ok(document)
}
