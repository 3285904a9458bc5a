//! Images that need no file and no network: `hello`, carried in the binary, and `host`, this machine's own root.
//!
//! They give way to any image of the user's that has their name.

use crate::host::userns::Privilege;
use crate::image::config::{ConfigDocument, History, RootFs};
use crate::image::manifest::{Descriptor, Manifest, Platform, media};
use crate::image::reference::Reference;
use crate::image::store::{self, Image, NewImage};
use crate::model::digest::Digest;
use crate::model::image::ImageConfig;
use crate::state::layout::Layout;
use crate::storage::layer;
use crate::storage::tar::{Entry, Kind, write::Writer};
use anyhow::{Context, Result};
use std::io::Cursor;

/// Name of the image carried in the binary.
pub const HELLO: &str = "hello";

const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hello"));
/// The day of the first release: the image is the same whenever it is made.
const CREATED: &str = "2026-01-01T00:00:00Z";
const CREATED_S: i64 = 1_767_225_600;
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Put `hello` into the store, if `name` means it.
pub fn provide(layout: &Layout, privilege: &Privilege, name: &str) -> Result<Option<Image>> {
    let wanted = Reference::parse_local(HELLO)?;
    if !Reference::local_candidates(name).is_ok_and(|candidates| candidates.first() == Some(&wanted)) {
        return Ok(None);
    }
    let archive = hello_layer()?;
    let diff_id = store::digest_of(&archive);
    let claim = layer::Claim::take(layout, diff_id.hex())?;
    let size = archive.len() as u64;
    let mut staged = Vec::new();
    if !claim.present {
        let input = layer::Input {
            reader: Box::new(Cursor::new(archive)),
            blob: None,
            blob_size: None,
            diff_id: Some(diff_id.clone()),
        };
        staged.push(layer::stage(layout, privilege, input).context("unpack the image `hello`")?);
    }
    let config = serde_json::to_vec(&hello_config(&diff_id))?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media::OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config: Descriptor::new(media::OCI_CONFIG, store::digest_of(&config), config.len() as u64),
        layers: vec![Descriptor::new(media::OCI_LAYER, diff_id, size)],
        subject: None,
        annotations: None,
    };
    let manifest = serde_json::to_vec(&manifest)?;
    let new = NewImage {
        config,
        manifest,
        index: None,
        staged,
        blobs: Vec::new(),
        synced: false,
        names: vec![wanted],
        event: "load",
    };
    store::commit(layout, new)?;
    drop(claim);
    store::resolve(layout, name)
}

/// Whether `name` means the machine's own root, unless the user has an image of that name.
pub fn is_host(name: &str) -> bool {
    matches!(name, "host" | "localhost/host" | "host:latest" | "localhost/host:latest")
}

/// What runs in a container of `host` unless told otherwise: root's shell, as `login` would choose it.
pub fn host_config() -> ImageConfig {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let shell = passwd.lines().find(|line| line.starts_with("root:")).and_then(|line| line.rsplit(':').next());
    let shell = shell.filter(|shell| shell.starts_with('/')).unwrap_or("/bin/sh");
    ImageConfig { cmd: Some(vec![shell.to_owned()]), env: Some(vec![PATH.to_owned()]), ..ImageConfig::default() }
}

fn hello_layer() -> Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new());
    for directory in ["dev", "etc", "proc", "run", "sys", "tmp"] {
        let mode = if directory == "tmp" { 0o1777 } else { 0o755 };
        let path = format!("{directory}/").into_bytes();
        writer.entry(&Entry { path, kind: Kind::Directory, mode, mtime_s: CREATED_S, ..Entry::default() })?;
    }
    let program = Entry { path: b"hello".to_vec(), mode: 0o755, mtime_s: CREATED_S, ..Entry::default() };
    writer.file(&program, PROGRAM)?;
    Ok(writer.finish()?)
}

fn hello_config(diff_id: &Digest) -> ConfigDocument {
    let platform = Platform::host();
    ConfigDocument {
        created: Some(CREATED.to_owned()),
        author: None,
        architecture: platform.architecture,
        variant: platform.variant,
        os: platform.os,
        config: ImageConfig {
            cmd: Some(vec!["/hello".to_owned()]),
            env: Some(vec![PATH.to_owned()]),
            ..ImageConfig::default()
        },
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![diff_id.clone()] },
        history: vec![History {
            created: Some(CREATED.to_owned()),
            created_by: "coracle".to_owned(),
            comment: "built into the binary".to_owned(),
            ..History::default()
        }],
        other: serde_json::Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::userns;
    use crate::state::version;
    use crate::storage::remove;

    #[test]
    fn hello_is_stored_once_and_found_by_every_name() {
        let directory = std::env::temp_dir().join(format!("coracle-builtin-{}", std::process::id()));
        let layout = Layout::new(directory.join("data"), directory.join("run"));
        version::open(&layout).unwrap();
        let privilege = Privilege { single: true, ..userns::outside(&userns::Caller::current()) };
        assert!(provide(&layout, &privilege, "other").unwrap().is_none());
        let image = provide(&layout, &privilege, "hello").unwrap().unwrap();
        let id = image.id().to_owned();
        assert_eq!(provide(&layout, &privilege, "localhost/hello:latest").unwrap().unwrap().id(), id);
        for name in ["hello", "hello:latest", "localhost/hello", &id, &id[..12], &format!("sha256:{id}")] {
            let found = store::resolve(&layout, name).unwrap().unwrap_or_else(|| panic!("{name}"));
            assert_eq!(found.id(), id, "{name}");
        }
        let digest = image.digest().unwrap().to_string();
        assert_eq!(store::resolve(&layout, &digest).unwrap().unwrap().id(), id);
        assert_eq!(store::resolve(&layout, &format!("hello@{digest}")).unwrap().unwrap().id(), id);
        assert_eq!(image.record.size, PROGRAM.len() as u64);
        // The layer gives its archive back, byte for byte.
        let mut again = Vec::new();
        layer::assemble(&layout, &image.layers()[0], &mut again).unwrap();
        assert!(again == hello_layer().unwrap());
        // And is gone when the image is.
        store::remove(&layout, &image.record, store::exclusive(&layout).unwrap()).unwrap();
        assert!(store::resolve(&layout, "hello").unwrap().is_none());
        assert_eq!(layer::list(&layout).unwrap(), Vec::<String>::new());
        assert_eq!(std::fs::read_dir(layout.tmp()).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(layout.blobs()).unwrap().count(), 0);
        remove::tree(&directory).unwrap();
    }
}
