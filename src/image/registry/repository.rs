//! One repository of a registry: manifests, blobs, tags, referrers. Not uploads (`upload`).
//!
//! Invariant: what [`Repository::manifest`] returns has the digest that was asked for, or, for a tag, the digest that is
//! computed here; a server's word about digests and sizes is compared, never believed.

use crate::image::http::{self, Body, Response};
use crate::image::manifest::{self, Descriptor, Document, media};
use crate::image::registry::{Call, Registry, is_missing, is_transient};
use crate::model::digest::Digest;
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use std::sync::Arc;

/// A repository of a registry.
#[derive(Clone)]
pub struct Repository {
    /// The registry.
    pub registry: Arc<Registry>,
    /// Its name there.
    pub name: String,
}

/// A manifest or index as it came.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The bytes, whose digest is `digest`.
    pub bytes: Vec<u8>,
    /// Computed here.
    pub digest: Digest,
    /// What the bytes say.
    pub document: Document,
}

impl Fetched {
    /// A descriptor of it.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.document.media_type(), self.digest.clone(), self.bytes.len() as u64)
    }
}

impl Repository {
    /// `host[:port]/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.registry.name, self.name)
    }

    fn pull_scope(&self) -> String {
        format!("repository:{}:pull", self.name)
    }

    /// A manifest or index by tag or digest.
    pub fn manifest(&self, reference: &str) -> Result<Fetched> {
        self.fetch_manifest(reference).with_context(|| format!("reading manifest {reference} in {}", self.full_name()))
    }

    fn fetch_manifest(&self, reference: &str) -> Result<Fetched> {
        let path = format!("/v2/{}/manifests/{reference}", self.name);
        let headers = [("Accept", media::ACCEPT.to_owned())];
        let scope = self.pull_scope();
        let call = Call { method: "GET", path: &path, headers: &headers, body: Body::None, scope: &scope };
        let response = self.registry.succeed(self.registry.send(call)?, &[200])?;
        let content_type = http::header(&response, "content-type").map(str::to_owned);
        let bytes = http::read_body(response, manifest::MANIFEST_LIMIT_BYTES)?;
        let digest = Digest::of(&bytes);
        if let Ok(wanted) = Digest::parse(reference) {
            ensure!(digest == wanted, "the registry sent something else: its digest is {digest}");
        }
        let document = manifest::parse(&bytes, content_type.as_deref())?;
        Ok(Fetched { bytes, digest, document })
    }

    /// A manifest by its descriptor: the size must agree too.
    pub fn described(&self, descriptor: &Descriptor) -> Result<Fetched> {
        let fetched = self.manifest(descriptor.digest.as_str())?;
        ensure!(
            fetched.bytes.len() as u64 == descriptor.size,
            "manifest {} has {} bytes, its descriptor says {}",
            descriptor.digest,
            fetched.bytes.len(),
            descriptor.size
        );
        Ok(fetched)
    }

    /// Open a blob from byte `start` on. Returns the body and from where it really starts.
    pub fn open_blob(&self, descriptor: &Descriptor, start: u64) -> Result<(Response, u64)> {
        let path = format!("/v2/{}/blobs/{}", self.name, descriptor.digest);
        let range = [("Range", format!("bytes={start}-"))];
        let headers: &[_] = if start > 0 { &range } else { &[] };
        let scope = self.pull_scope();
        let call = Call { method: "GET", path: &path, headers, body: Body::None, scope: &scope };
        let response = self.registry.succeed(self.registry.send(call)?, &[200, 206, 416])?;
        let begin = match response.status().as_u16() {
            206 => match http::header(&response, "content-range").and_then(range_start) {
                Some((begin, end, total)) => {
                    let fits = begin <= start && end.checked_add(1) == Some(descriptor.size);
                    ensure!(
                        fits && total.is_none_or(|total| total == descriptor.size),
                        "the registry sent bytes {begin} to {end} where {start} to {} were asked for",
                        descriptor.size.saturating_sub(1)
                    );
                    begin
                }
                None => bail!("the registry sent a part without saying which"),
            },
            // It knows nothing of ranges, or not of this one: from the beginning.
            416 if start > 0 => return self.open_blob(descriptor, 0),
            416 => bail!("the server answers 416"),
            _ => 0,
        };
        if let Some(length) = http::number(&response, "content-length") {
            ensure!(
                begin + length == descriptor.size,
                "the registry announces {} bytes, the manifest says {}",
                begin + length,
                descriptor.size
            );
        }
        Ok((response, begin))
    }

    /// A small blob as bytes, checked.
    pub fn small_blob(&self, descriptor: &Descriptor, limit_bytes: u64) -> Result<Vec<u8>> {
        ensure!(
            descriptor.size <= limit_bytes,
            "blob {} has {} bytes, at most {limit_bytes} are allowed here",
            descriptor.digest,
            descriptor.size
        );
        let mut tries = 0;
        loop {
            let result = self.open_blob(descriptor, 0).and_then(|(response, _)| {
                let bytes = http::read_body(response, descriptor.size)?;
                let digest = Digest::of(&bytes);
                ensure!(digest == descriptor.digest, "blob {}: the registry sent {digest}", descriptor.digest);
                Ok(bytes)
            });
            match result {
                Err(error) if tries < self.registry.retries() && is_transient(&error) => {
                    std::thread::sleep(self.registry.pause(tries, None).unwrap_or_default());
                    tries += 1;
                }
                other => return other.with_context(|| format!("reading blob {}", descriptor.digest)),
            }
        }
    }

    /// All tags.
    pub fn tags(&self) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let path = format!("/v2/{}/tags/list?n=1000", self.name);
        let read = |page: Page| page.tags.unwrap_or_default();
        self.registry
            .pages(&path, &self.pull_scope(), usize::MAX, read)
            .with_context(|| format!("fetching tags list of {}", self.full_name()))
    }

    /// What says something about a manifest (signatures, attestations, SBOMs).
    pub fn referrers(&self, digest: &Digest) -> Result<Vec<Descriptor>> {
        let path = format!("/v2/{}/referrers/{digest}", self.name);
        let headers = [("Accept", media::OCI_INDEX.to_owned())];
        let scope = self.pull_scope();
        let call = Call { method: "GET", path: &path, headers: &headers, body: Body::None, scope: &scope };
        let response = self.registry.send(call)?;
        if response.status().as_u16() == 404 {
            // Before distribution-spec 1.1 they stand in an index under a tag made of the digest.
            let tag = format!("sha256-{}", digest.hex());
            return match self.manifest(&tag) {
                Ok(Fetched { document: Document::Index(index), .. }) => Ok(index.manifests),
                Ok(_) => Ok(Vec::new()),
                Err(error) if is_missing(&error) => Ok(Vec::new()),
                Err(error) => Err(error),
            };
        }
        let response = self.registry.succeed(response, &[200])?;
        let bytes = http::read_body(response, manifest::MANIFEST_LIMIT_BYTES)?;
        match manifest::parse(&bytes, None)? {
            Document::Index(index) => Ok(index.manifests),
            Document::Manifest(_) => Err(anyhow!("referrers of {digest}: the answer is not an index")),
        }
    }
}

/// `bytes 5-9/10`, or `bytes 5-9/*`.
fn range_start(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (begin, end) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((begin.trim().parse().ok()?, end.trim().parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_headers() {
        assert_eq!(range_start("bytes 5-9/10"), Some((5, 9, Some(10))));
        assert_eq!(range_start("bytes 5-9/*"), Some((5, 9, None)));
        for bad in ["", "bytes", "bytes */10", "bytes 5/10", "items 5-9/10", "bytes -1-9/10", "bytes 5-9/-"] {
            assert_eq!(range_start(bad), None, "{bad}");
        }
    }
}
