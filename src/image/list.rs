//! Manifest lists that are made here: `manifest create`, `add`, `annotate`, `remove`.
//!
//! `lists/NAME.json` is one list: an index, and for each entry where its image is to be had. The images themselves stay
//! where they are, in the store or in a registry, until the list is pushed; what is pulled is no such list.

use crate::failure::{Failure, Kind};
use crate::image::copy::{Layer, Source, fetched_of};
use crate::image::manifest::{Descriptor, Document, Index};
use crate::image::reference::Reference;
use crate::image::registry::Fetched;
use crate::model::digest::Digest;
use crate::state::file::{self, Durability};
use crate::state::layout::Layout;
use crate::state::lock::{self, Guard, Mode, Rank};
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;

/// The number in a list's document.
pub const VERSION: u32 = 1;

/// A list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct List {
    /// Format of this document.
    pub version: u32,
    /// Its id, 64 digits, made once.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What is in it.
    pub index: Index,
    /// Where each entry's image is: a transport and a name, by the entry's digest.
    pub sources: BTreeMap<Digest, String>,
}

/// Held while a list is changed.
pub struct Lists<'a> {
    layout: &'a Layout,
    _lock: Guard,
}

impl<'a> Lists<'a> {
    /// Take all lists for a change. Never held over the network.
    pub fn lock(layout: &'a Layout) -> Result<Lists<'a>> {
        let path = directory(layout);
        std::fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Lists { layout, _lock: lock::lock(&path, Rank::Image, Mode::Exclusive)? })
    }

    /// Write a list.
    pub fn save(&self, list: &List) -> Result<()> {
        let name = Reference::parse(&list.name)?;
        file::replace_json(&path(self.layout, &name)?, list, Durability::Durable)
    }

    /// Take a list away. Returns whether it was there.
    pub fn remove(&self, name: &Reference) -> Result<bool> {
        let path = path(self.layout, name)?;
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("remove {}", path.display())),
        }
    }
}

fn directory(layout: &Layout) -> PathBuf {
    layout.data().join("lists")
}

fn path(layout: &Layout, name: &Reference) -> Result<PathBuf> {
    Ok(directory(layout).join(format!("{}.json", name.escaped()?)))
}

/// A list by its name or id; `None`: there is none.
pub fn find(layout: &Layout, text: &str) -> Result<Option<List>> {
    for name in Reference::local_candidates(text).unwrap_or_default() {
        let found: Option<List> = file::read_json(&path(layout, &name)?)?;
        if let Some(list) = found {
            ensure!(list.version <= VERSION, "list {name} has version {}, this coracle knows {VERSION}", list.version);
            return Ok(Some(list));
        }
    }
    let is_id = text.len() >= 6 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    Ok(if is_id { all(layout)?.into_iter().find(|list| list.id.starts_with(text)) } else { None })
}

/// The same, or podman's words.
pub fn require(layout: &Layout, text: &str) -> Result<List> {
    find(layout, text)?.ok_or_else(|| Failure::new(Kind::Engine, format!("{text}: image not known")).into())
}

/// When a list was changed, in nanoseconds since 1970, and how long its document is.
pub fn facts(layout: &Layout, list: &List) -> Result<(i64, u64)> {
    let path = path(layout, &Reference::parse(&list.name)?)?;
    let metadata = std::fs::metadata(&path).with_context(|| format!("read {}", path.display()))?;
    let changed = metadata.modified().ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    Ok((changed.map_or(0, |time| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)), metadata.len()))
}

/// All lists, by name.
pub fn all(layout: &Layout) -> Result<Vec<List>> {
    let entries = match std::fs::read_dir(directory(layout)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", directory(layout).display())),
    };
    let mut found = Vec::new();
    for entry in entries.flatten().filter(|entry| !entry.file_name().to_string_lossy().starts_with('.')) {
        found.extend(file::read_json::<List>(&entry.path())?);
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

impl List {
    /// An empty one.
    pub fn new(name: &Reference, id: String) -> List {
        List { version: VERSION, id, name: name.to_string(), index: Index::of(Vec::new()), sources: BTreeMap::new() }
    }

    /// Put an entry in, in the place of one of the same digest.
    pub fn put(&mut self, entry: Descriptor, source: String) {
        self.sources.insert(entry.digest.clone(), source);
        match self.index.manifests.iter_mut().find(|other| other.digest == entry.digest) {
            Some(place) => *place = entry,
            None => self.index.manifests.push(entry),
        }
    }

    /// The entry that a digest, or the beginning of one, names.
    pub fn entry(&mut self, text: &str) -> Result<&mut Descriptor> {
        let name = self.name.clone();
        let wanted = text.strip_prefix("sha256:").unwrap_or(text);
        let mut matching = self.index.manifests.iter_mut().filter(|entry| entry.digest.hex().starts_with(wanted));
        match (matching.next(), matching.next()) {
            (Some(entry), None) => Ok(entry),
            (None, _) => bail!("no image with digest \"{text}\" in {name}"),
            (Some(_), Some(_)) => bail!("more than one image in {name} begins with \"{text}\""),
        }
    }
}

/// A list as the source of a copy: each entry by its own source.
pub struct ListSource<'a> {
    top: Fetched,
    members: Vec<Member<'a>>,
}

struct Member<'a> {
    digest: Digest,
    manifest: Fetched,
    source: Box<dyn Source + 'a>,
}

impl<'a> ListSource<'a> {
    /// `open` gives the source of an entry.
    pub fn open(
        list: &List,
        mut open: impl FnMut(&str, &Descriptor) -> Result<Box<dyn Source + 'a>>,
    ) -> Result<ListSource<'a>> {
        let mut members = Vec::new();
        for entry in &list.index.manifests {
            let place =
                list.sources.get(&entry.digest).with_context(|| format!("{}: its source is unknown", entry.digest))?;
            let source = open(place, entry).with_context(|| format!("open {place}"))?;
            let manifest = match source.top().digest == entry.digest {
                true => source.top().clone(),
                false => source.document(entry)?,
            };
            members.push(Member { digest: entry.digest.clone(), manifest, source });
        }
        Ok(ListSource { top: fetched_of(Document::Index(list.index.clone()))?, members })
    }

    /// The source whose image has this blob.
    fn member(&self, descriptor: &Descriptor) -> Result<&dyn Source> {
        let has = |member: &&Member<'_>| match &member.manifest.document {
            Document::Manifest(manifest) => {
                manifest.config.digest == descriptor.digest
                    || manifest.layers.iter().any(|layer| layer.digest == descriptor.digest)
            }
            Document::Index(_) => false,
        };
        let member = self.members.iter().find(has);
        Ok(&*member.with_context(|| format!("blob {} belongs to no image of the list", descriptor.digest))?.source)
    }
}

impl Source for ListSource<'_> {
    fn top(&self) -> &Fetched {
        &self.top
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Fetched> {
        let member = self.members.iter().find(|member| member.digest == descriptor.digest);
        Ok(member.with_context(|| format!("{} is not in the list", descriptor.digest))?.manifest.clone())
    }

    fn open(&self, descriptor: &Descriptor, start: u64) -> Result<Box<dyn Read + Send + '_>> {
        self.member(descriptor)?.open(descriptor, start)
    }

    fn has(&self, descriptor: &Descriptor) -> bool {
        self.member(descriptor).is_ok_and(|member| member.has(descriptor))
    }

    fn plain(&self, layer: &Layer<'_>) -> Result<Box<dyn Read + Send + '_>> {
        self.member(layer.descriptor)?.plain(layer)
    }
}
