//! What is fuzzed: each target is a function of bytes that panics when the code under it breaks its word.
//!
//! The program is a binary, so its modules are taken in by path, at the places where their `crate::` paths expect them. A
//! target belongs to [`TARGETS`]; seeds are files in `corpus/NAME/`.

#![allow(dead_code, unused_imports)]

#[path = "../../src/model"]
mod model {
    pub mod digest;
    pub mod user;
}

#[path = "../../src/failure.rs"]
mod failure;

#[path = "../../src/sys/mod.rs"]
mod sys;

#[path = "../../src/runtime/mod.rs"]
mod runtime;

#[path = "../../src/bundle"]
mod bundle {
    pub mod seccomp;
    pub mod user;
}

#[path = "../../src/host"]
mod host {
    mod bus;
    pub mod systemd;
}

#[path = "../../src/state"]
mod state {
    pub mod file;
}

mod container;

#[path = "../../src/image"]
mod image {
    pub mod manifest;
    #[path = "signature/payload.rs"]
    pub mod payload;
    pub mod reference;
}

#[path = "../../src/storage"]
mod storage {
    pub mod tar;
}

use image::manifest::{self, Document};
use image::reference::Reference;
use std::io::BufReader;
use storage::tar::read::{NoRaw, Reader};

pub use container::{mount, plan, seccomp, user};

/// A target's function.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("manifest", manifest),
    ("mount", mount),
    ("payload", payload),
    ("plan", plan),
    ("reference", reference),
    ("seccomp", seccomp),
    ("tar", tar),
    ("user", user),
];

/// Image names: what is parsed is written as it is read, and its file name is one name in one directory.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Reference::local_candidates(text);
    let _ = Reference::parse_local(text);
    let Ok(parsed) = Reference::parse(text) else { return };
    let written = parsed.to_string();
    assert_eq!(Reference::parse(&written).expect("what was written can be read"), parsed, "{text}");
    assert!(!written.split('/').any(|part| matches!(part, "" | "." | "..")), "{text}");
    if let Ok(name) = parsed.escaped() {
        assert!(!name.contains('/') && !name.starts_with('.') && name.len() <= 255, "{text}: {name}");
        let back = Reference::unescape(&name).expect("an escaped name can be read");
        assert_eq!(back.name(), parsed.name());
        assert_eq!(back.digest, parsed.digest);
    }
}

/// Manifests and indexes: one meaning, and digests that are nothing but digests.
pub fn manifest(data: &[u8]) {
    for content_type in [None, Some(manifest::media::OCI_INDEX), Some(manifest::media::OCI_MANIFEST)] {
        let Ok(document) = manifest::parse(data, content_type) else { continue };
        let (descriptors, bytes) = match &document {
            Document::Manifest(manifest) => {
                let _ = (manifest.is_image(), manifest.has_layers());
                let all: Vec<_> = manifest.layers.iter().chain([&manifest.config]).collect();
                (all, serde_json::to_vec(manifest))
            }
            Document::Index(index) => {
                let _ = manifest::Platform::host().select(index);
                (index.manifests.iter().collect(), serde_json::to_vec(index))
            }
        };
        for descriptor in descriptors {
            let hex = descriptor.digest.hex();
            assert!(image::reference::is_hex64(hex), "{hex}");
            let _ = manifest::check_layer(descriptor);
        }
        let again = manifest::parse(&bytes.expect("it can be written"), None).expect("what was written can be read");
        assert_eq!(again, document);
    }
}

/// Archives: they end, and nothing comes out that did not go in.
pub fn tar(data: &[u8]) {
    let mut reader = Reader::new(BufReader::with_capacity(512, data), NoRaw);
    let mut total = 0;
    for entries in 0.. {
        assert!(entries <= data.len() / 512 + 1, "more entries than blocks");
        let Ok(Some(_entry)) = reader.next() else { return };
        while let Ok(part) = reader.content() {
            let count = part.len();
            if count == 0 {
                break;
            }
            total += count;
            assert!(total <= data.len(), "more content than archive");
            if reader.consume(count).is_err() {
                return;
            }
        }
    }
}

/// What a signature says.
pub fn payload(data: &[u8]) {
    if let Ok(said) = image::payload::parse(data) {
        assert!(image::reference::is_hex64(said.digest.hex()));
    }
}
