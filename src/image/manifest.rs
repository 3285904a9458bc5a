//! Manifests and indexes: what a registry's documents say, read strictly.
//!
//! Not a store and not a client: bytes come in, types go out. Digests are always over the bytes as received; documents of
//! others are never written again from these types.
//!
//! Invariant: one text has one meaning. A document that could be read as a manifest and as an index is refused
//! (CVE-2021-41190), as is one whose media type contradicts its content.

use crate::model::digest::Digest;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Media types, once.
pub mod media {
    /// OCI manifest of one image.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI image config.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI layers.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// The same with gzip.
    pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    /// The same with zstd.
    pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    /// Docker's manifest of one image, schema 2.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's manifest list.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's image config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// Docker's layers, gzip.
    pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// Docker's layers, plain.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    /// The config of an artifact that has none.
    pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
    /// What `Accept` says when a manifest is asked for.
    pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
         application/vnd.docker.distribution.manifest.list.v2+json, \
         application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.v1+prettyjws, \
         application/json";
}

/// The largest manifest or index that is read; registries refuse larger ones too.
pub const MANIFEST_LIMIT_BYTES: u64 = 4 << 20;
/// The largest config.
pub const CONFIG_LIMIT_BYTES: u64 = 16 << 20;

/// A reference to a blob or document by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// For which machine (in an index).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The type of the artifact behind it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Where else to get it ("foreign layers"); never followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub urls: Option<Vec<String>>,
    /// Free notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Descriptor {
    /// A bare one.
    pub fn new(media_type: impl Into<String>, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.into(),
            digest,
            size,
            platform: None,
            artifact_type: None,
            urls: None,
            annotations: None,
        }
    }

    /// An annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref().and_then(|annotations| annotations.get(key)).map(String::as_str)
    }

    /// Whether this entry of an index is an attestation (provenance, SBOM) of BuildKit's, not an image to run.
    pub fn is_attestation(&self) -> bool {
        self.annotation("vnd.docker.reference.type") == Some("attestation-manifest")
            || self.platform.as_ref().is_some_and(|platform| platform.os == "unknown")
    }
}

/// The machine an image is for, in Go's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, …
    #[serde(default)]
    pub architecture: String,
    /// `linux`, …
    #[serde(default)]
    pub os: String,
    /// Version of the system (Windows).
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Features of the system (Windows).
    #[serde(default, rename = "os.features", skip_serializing_if = "Option::is_none")]
    pub os_features: Option<Vec<String>>,
    /// `v7`, `v8`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Features of the processor; reserved, kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<Vec<String>>,
}

/// A manifest: one image or artifact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// 2.
    pub schema_version: u32,
    /// Which kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What the artifact is, if it is none of the images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The config.
    pub config: Descriptor,
    /// The layers, lowest first.
    pub layers: Vec<Descriptor>,
    /// What it says something about (referrers).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// An index (Docker: manifest list).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// 2.
    pub schema_version: u32,
    /// Which kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What the artifact is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests.
    pub manifests: Vec<Descriptor>,
    /// What it says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Index {
    /// An OCI index of these and nothing more.
    pub fn of(manifests: Vec<Descriptor>) -> Index {
        Index {
            schema_version: 2,
            media_type: Some(media::OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: None,
        }
    }
}

/// Either.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// One image.
    Manifest(Manifest),
    /// Several.
    Index(Index),
}

impl Document {
    /// The media type, also where the document itself has none (OCI allows that).
    pub fn media_type(&self) -> &str {
        match self {
            Document::Manifest(manifest) => manifest.media_type.as_deref().unwrap_or(media::OCI_MANIFEST),
            Document::Index(index) => index.media_type.as_deref().unwrap_or(media::OCI_INDEX),
        }
    }
}

/// Read a document. `content_type` is what the server or the descriptor said of it.
///
/// # Errors
/// Not JSON, schema 1, neither or both of manifest and index, or a media type that contradicts the content.
pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Document> {
    let value: serde_json::Value = serde_json::from_slice(bytes).context("parse manifest")?;
    let object = value.as_object().context("parse manifest: it is not a JSON object")?;
    for key in object.keys() {
        let known = ["schemaVersion", "mediaType", "config", "layers", "manifests", "fsLayers", "subject"];
        if let Some(meant) = known.iter().find(|known| key.eq_ignore_ascii_case(known) && key != *known) {
            // Go's JSON takes them for the same: two readers would see two documents.
            bail!("the manifest has a field `{key}`, which some tools take for `{meant}`: refused as ambiguous");
        }
    }
    let has = |key: &str| object.get(key).is_some_and(|value| !value.is_null());
    if object.get("schemaVersion").and_then(serde_json::Value::as_u64) == Some(1) || has("fsLayers") {
        bail!("the image is of Docker's schema 1, which is no longer supported: push it again with a current tool");
    }
    let looks = match (has("manifests"), has("config") || has("layers")) {
        (true, true) => bail!("the document can be read as a manifest and as an index: refused (CVE-2021-41190)"),
        (false, false) => bail!("the document is neither a manifest nor an index"),
        (index, _) => index,
    };
    let document = if looks {
        // Again from the bytes: a key that stands twice is an error for a struct, not for a map.
        Document::Index(serde_json::from_slice(bytes).context("parse index")?)
    } else {
        Document::Manifest(serde_json::from_slice(bytes).context("parse manifest")?)
    };
    let inner = object.get("mediaType").and_then(serde_json::Value::as_str);
    for said in [inner, content_type.map(without_parameters)].into_iter().flatten() {
        let index = match said {
            media::OCI_INDEX | media::DOCKER_LIST => true,
            media::OCI_MANIFEST | media::DOCKER_MANIFEST => false,
            _ if Some(said) == inner => bail!("the document says it is `{said}`, which is no manifest or index"),
            // A server that does not know says text/plain, application/json or octet-stream: the document decides.
            _ => continue,
        };
        ensure!(
            index == looks,
            "the document is said to be `{said}` but is {}: refused (CVE-2021-41190)",
            if looks { "an index" } else { "a manifest" }
        );
    }
    Ok(document)
}

fn without_parameters(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

impl Manifest {
    /// Whether it is an image that can be unpacked, not another artifact.
    pub fn is_image(&self) -> bool {
        matches!(self.config.media_type.as_str(), media::OCI_CONFIG | media::DOCKER_CONFIG)
    }

    /// Whether what it holds are layers. BuildKit's attestations look like images, and hold documents.
    pub fn has_layers(&self) -> bool {
        self.is_image() && self.layers.iter().all(|layer| layer.media_type.contains(".tar"))
    }

    /// Whether it is Docker's schema 2.
    pub fn is_docker(&self) -> bool {
        self.media_type.as_deref() == Some(media::DOCKER_MANIFEST)
    }
}

/// Refuse a layer that has to be fetched elsewhere or that is no layer.
pub fn check_layer(layer: &Descriptor) -> Result<()> {
    let media_type = layer.media_type.as_str();
    if media_type.contains("nondistributable") || media_type.contains(".foreign.") {
        bail!(
            "layer {} is a foreign layer (`{media_type}`) that its registry does not hold; such images are not supported",
            layer.digest
        );
    }
    let encrypted = media_type.ends_with("+encrypted");
    ensure!(!encrypted, "layer {} is encrypted (`{media_type}`): decryption is not supported", layer.digest);
    let known = matches!(
        media_type,
        media::OCI_LAYER
            | media::OCI_LAYER_GZIP
            | media::OCI_LAYER_ZSTD
            | media::DOCKER_LAYER
            | media::DOCKER_LAYER_GZIP
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
    );
    ensure!(known, "layer {}: media type `{media_type}` is not one of an image's layers", layer.digest);
    Ok(())
}

impl Platform {
    /// The machine we run on.
    pub fn host() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "x86" => ("386", None),
            "powerpc64" => (if cfg!(target_endian = "little") { "ppc64le" } else { "ppc64" }, None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Platform {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: variant.map(str::to_owned),
            ..Platform::default()
        }
    }

    /// Parse `OS[/ARCH[/VARIANT]]`; what is missing is the host's. Common other names are taken (`x86_64`, `aarch64`).
    pub fn parse(text: &str) -> Result<Platform> {
        let mut parts = text.split('/');
        let os = parts.next().unwrap_or_default();
        let architecture = parts.next();
        let variant = parts.next();
        ensure!(
            !os.is_empty() && parts.next().is_none() && architecture != Some("") && variant != Some(""),
            "`{text}` is not a platform: OS/ARCH[/VARIANT]"
        );
        let host = Platform::host();
        let (architecture, implied) = match architecture {
            None => (host.architecture, host.variant),
            Some(text) => normal_architecture(text),
        };
        let variant = variant.map(str::to_owned).or(implied);
        Ok(Platform { architecture, os: os.to_ascii_lowercase(), variant, ..Platform::default() })
    }

    /// How well `offered` serves `self`: smaller is better; `None`: not at all.
    fn distance(&self, offered: &Platform) -> Option<usize> {
        if offered.os != self.os || offered.architecture != self.architecture {
            return None;
        }
        let wanted = variants(self);
        let variant = offered.variant.as_deref().unwrap_or_default();
        let variant = if self.architecture == "arm64" && variant.is_empty() { "v8" } else { variant };
        wanted.iter().position(|other| *other == variant)
    }

    /// Choose from an index. Attestations are never chosen.
    pub fn select<'a>(&self, index: &'a Index) -> Option<&'a Descriptor> {
        let images = || index.manifests.iter().filter(|entry| !entry.is_attestation());
        let best = images()
            .filter_map(|entry| {
                let platform = entry.platform.as_ref()?;
                Some((self.distance(platform)?, entry))
            })
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, entry)| entry);
        // An index of one entry without a platform (oras, `manifest add` of old tools) means that entry.
        best.or_else(|| images().next().filter(|entry| entry.platform.is_none() && images().count() == 1))
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(formatter, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// Go's name of an architecture, and the variant that the given name implies.
pub fn normal_architecture(text: &str) -> (String, Option<String>) {
    let lower = text.to_ascii_lowercase();
    let (name, variant) = match lower.as_str() {
        "x86_64" | "x86-64" | "amd64" => ("amd64", None),
        "aarch64" | "arm64" => ("arm64", Some("v8")),
        "i386" | "i686" | "x86" | "386" => ("386", None),
        "armhf" | "armv7l" | "arm" => ("arm", Some("v7")),
        "armel" | "armv6l" => ("arm", Some("v6")),
        other => (other, None),
    };
    (name.to_owned(), variant.map(str::to_owned))
}

/// The variants that run on a machine, best first.
fn variants(platform: &Platform) -> Vec<&str> {
    let wanted = platform.variant.as_deref().unwrap_or_default();
    let ladder: &[&str] = match platform.architecture.as_str() {
        "arm" => &["v8", "v7", "v6", "v5", ""],
        "arm64" => &["v9", "v8"],
        "amd64" => &["v4", "v3", "v2", "v1", ""],
        _ => &[""],
    };
    let start = ladder.iter().position(|variant| *variant == wanted);
    let mut found = vec![wanted];
    // With no variant named, anything plain serves; with one, all lower ones do.
    match start {
        Some(start) => found.extend(ladder[start + 1..].iter().copied()),
        None => found.push(""),
    }
    if platform.architecture == "amd64" && wanted.is_empty() {
        found.push("v1");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn digest(byte: u8) -> String {
        format!("sha256:{}", format!("{byte:02x}").repeat(32))
    }

    fn check(document: serde_json::Value, content_type: Option<&str>, expected: Result<&str, &str>) {
        let bytes = serde_json::to_vec(&document).unwrap();
        match (parse(&bytes, content_type), expected) {
            (Ok(found), Ok(media_type)) => assert_eq!(found.media_type(), media_type),
            (Err(error), Err(text)) => assert!(format!("{error:#}").contains(text), "{error:#}"),
            (found, _) => panic!("{document}: {found:?}"),
        }
    }

    #[test]
    fn one_meaning() {
        let descriptor = json!({"mediaType": media::OCI_CONFIG, "digest": digest(1), "size": 2});
        let manifest = json!({"schemaVersion": 2, "config": descriptor, "layers": [], "annotations": null});
        check(manifest.clone(), None, Ok(media::OCI_MANIFEST));
        check(manifest.clone(), Some("application/json; charset=utf-8"), Ok(media::OCI_MANIFEST));
        check(manifest.clone(), Some(media::OCI_INDEX), Err("CVE-2021-41190"));
        let index = json!({"schemaVersion": 2, "mediaType": media::DOCKER_LIST, "manifests": []});
        check(index.clone(), Some(media::DOCKER_LIST), Ok(media::DOCKER_LIST));
        check(index.clone(), Some(media::OCI_MANIFEST), Err("CVE-2021-41190"));
        let mut both = manifest.clone();
        both["manifests"] = json!([descriptor]);
        check(both, None, Err("CVE-2021-41190"));
        let mut shadow = manifest.clone();
        shadow["Layers"] = json!([descriptor]);
        check(shadow, None, Err("ambiguous"));
        let mut lies = manifest;
        lies["mediaType"] = json!(media::OCI_INDEX);
        check(lies, None, Err("CVE-2021-41190"));
        check(json!({"schemaVersion": 1, "fsLayers": []}), None, Err("schema 1"));
        check(json!({"hello": 1}), None, Err("neither"));
        let path = json!({"digest": "sha256:../../x", "size": 1});
        check(json!({"schemaVersion": 2, "config": path, "layers": []}), None, Err("not a digest"));
        let text = format!(r#"{{"schemaVersion":2,"layers":[],"layers":[],"config":{descriptor}}}"#);
        assert!(parse(text.as_bytes(), None).is_err());
    }

    #[test]
    fn selects_by_platform() {
        let entry = |byte, os: &str, architecture: &str, variant: Option<&str>| Descriptor {
            platform: Some(Platform {
                os: os.to_owned(),
                architecture: architecture.to_owned(),
                variant: variant.map(str::to_owned),
                ..Platform::default()
            }),
            ..Descriptor::new(media::OCI_MANIFEST, Digest::parse(&digest(byte)).unwrap(), 1)
        };
        let index = Index {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            manifests: vec![
                entry(9, "unknown", "unknown", None),
                entry(1, "linux", "amd64", None),
                entry(2, "linux", "arm", Some("v5")),
                entry(3, "linux", "arm", Some("v6")),
                entry(4, "linux", "arm64", None),
                entry(5, "linux", "amd64", Some("v3")),
            ],
            subject: None,
            annotations: None,
        };
        for (text, expected) in [
            ("linux/amd64", Some(1)),
            ("linux/x86_64", Some(1)),
            ("linux/amd64/v2", Some(1)),
            ("linux/amd64/v3", Some(5)),
            ("linux/amd64/v4", Some(5)),
            ("linux/arm/v7", Some(3)),
            ("linux/arm", Some(3)),
            ("linux/arm/v5", Some(2)),
            ("linux/aarch64", Some(4)),
            ("linux/arm64/v8", Some(4)),
            ("linux/s390x", None),
            ("windows/amd64", None),
        ] {
            let found = Platform::parse(text).unwrap().select(&index).map(|entry| entry.digest.as_str().to_owned());
            assert_eq!(found, expected.map(digest), "{text}");
        }
        assert!(Platform::parse("linux/").is_err());
        assert!(Platform::parse("/amd64").is_err());
        assert!(Platform::parse("a/b/c/d").is_err());
    }

    #[test]
    fn foreign_layers_are_refused() {
        let layer = |media_type: &str| Descriptor::new(media_type, Digest::parse(&digest(1)).unwrap(), 1);
        assert!(check_layer(&layer(media::OCI_LAYER_ZSTD)).is_ok());
        for bad in [
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
            "text/html",
        ] {
            assert!(check_layer(&layer(bad)).is_err(), "{bad}");
        }
    }
}
