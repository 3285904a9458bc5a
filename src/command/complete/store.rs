//! The names there are in a store and on this host, read from directories alone; none where something cannot be read.

use super::{Kind, Names, field};
use crate::command::inspect;
use crate::engine::Engine;
use crate::image::conf::Registries;
use crate::image::reference::Reference;
use crate::image::store;
use serde_json::Value;
use std::path::Path;

impl Names for Engine {
    fn of(&self, kind: Kind, current: &str) -> Vec<String> {
        let layout = &self.layout;
        match kind {
            Kind::Container => linked(&layout.names(), "containers"),
            Kind::Pod => linked(&layout.names(), "pods"),
            Kind::Network => entries(&layout.networks()),
            Kind::Volume => entries(&layout.volumes()),
            Kind::Secret => entries(&layout.data().join("secrets")),
            Kind::Registry => Registries::load().map(|conf| conf.search_list()).unwrap_or_default(),
            Kind::Interface => entries(Path::new("/sys/class/net")),
            Kind::Parameter => parameters(current),
            Kind::Image => {
                let mut names: Vec<String> =
                    entries(&layout.tags()).iter().flat_map(|name| image_names(name)).collect();
                // Ids are many and say little: only for who began to type one.
                if current.len() >= 2 && current.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    names.extend(store::ids(layout).unwrap_or_default().iter().map(|id| id.short().to_owned()));
                }
                names
            }
        }
    }

    fn document(&self, verb: &str, words: &[String]) -> Option<Value> {
        match verb {
            "inspect" | "container inspect" | "image inspect" | "volume inspect" | "network inspect" => {
                inspect::any(self, words.first()?)
            }
            verb => field::document(self, verb),
        }
    }
}

/// An image's whole name, and the short one that people type.
fn image_names(file_name: &str) -> Vec<String> {
    let Ok(reference) = Reference::unescape(file_name) else { return Vec::new() };
    let whole = reference.to_string();
    let short = ["docker.io/library/", "docker.io/", "localhost/"].iter().find_map(|prefix| whole.strip_prefix(prefix));
    short.map(str::to_owned).into_iter().chain([whole.clone()]).collect()
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Names that are links to an object of this kind (`names/web -> ../containers/ID`).
fn linked(directory: &Path, kind: &str) -> Vec<String> {
    let is_one = |name: &String| {
        std::fs::read_link(directory.join(name))
            .is_ok_and(|target| target.components().any(|part| part.as_os_str() == kind))
    };
    entries(directory).into_iter().filter(is_one).collect()
}

/// Kernel parameters that belong to a namespace, as `--sysctl` names them.
fn parameters(current: &str) -> Vec<String> {
    let mut names = Vec::new();
    for top in ["net", "kernel", "fs/mqueue"] {
        // What cannot be meant is not walked: there are thousands.
        let dotted = top.replace('/', ".");
        if dotted.starts_with(current) || current.starts_with(&dotted) {
            walk(&Path::new("/proc/sys").join(top), &dotted, &mut names);
        }
    }
    let of_ipc = |name: &str| ["msg", "sem", "shm"].iter().any(|part| name["kernel.".len()..].starts_with(part));
    names.retain(|name| !name.starts_with("kernel.") || of_ipc(name));
    names
}

fn walk(directory: &Path, name: &str, names: &mut Vec<String>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let below = format!("{name}.{}", entry.file_name().to_string_lossy());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), &below, names);
        } else {
            names.push(below);
        }
    }
}
