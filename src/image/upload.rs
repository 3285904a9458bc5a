//! The distribution protocol's other direction: blobs and manifests into a repository.
//!
//! What is there is not sent; what another repository of the registry has is mounted; small blobs go in one request,
//! large ones as a stream that goes on where the registry says it stopped.

use crate::failure::Explain;
use crate::image::auth::percent;
use crate::image::copy::fetched_of;
use crate::image::http::{self, Body, Response};
use crate::image::manifest::{Descriptor, Document, Index};
use crate::image::progress::Meter;
use crate::image::registry::{Call, Fetched, Repository, is_transient};
use crate::model::digest::Digest;
use anyhow::{Context, Result, anyhow, ensure};
use std::io::Read;

/// Up to this size a blob is one request, which can be sent again.
const WHOLE_LIMIT_BYTES: u64 = 4 << 20;

/// Opens a blob's content from a byte on.
pub type Open<'a> = dyn Fn(u64) -> Result<Box<dyn Read + Send + 'a>> + 'a;

impl Repository {
    fn push_scope(&self) -> String {
        format!("repository:{}:pull,push", self.name)
    }

    /// Whether the repository has a blob.
    pub fn has_blob(&self, descriptor: &Descriptor) -> Result<bool> {
        let path = format!("/v2/{}/blobs/{}", self.name, descriptor.digest);
        let scope = self.push_scope();
        let call = Call { method: "HEAD", path: &path, headers: &[], body: Body::None, scope: &scope };
        let response = self.registry.send(call)?;
        match response.status().as_u16() {
            200 => Ok(true),
            404 => Ok(false),
            // The answer to a HEAD has no words of its own.
            401 => Err(anyhow!("authentication required"))
                .with_context(|| {
                    format!("checking whether a blob {} exists in {}", descriptor.digest, self.full_name())
                })
                .hint(format!("log in with `coracle login {}`", self.registry.name())),
            _ => {
                self.registry.succeed(response, &[]).with_context(|| {
                    format!("checking whether a blob {} exists in {}", descriptor.digest, self.full_name())
                })?;
                Ok(false)
            }
        }
    }

    /// Send a blob. `sibling`: a repository of the same registry that has it.
    pub fn upload(
        &self,
        descriptor: &Descriptor,
        sibling: Option<&str>,
        open: &Open<'_>,
        meter: &dyn Meter,
    ) -> Result<()> {
        let what = || format!("writing blob {} to {}", descriptor.digest, self.full_name());
        let mut tries = 0;
        loop {
            let result = self.start(descriptor, sibling).and_then(|started| match started {
                None => Ok(()),
                Some(url) if descriptor.size <= WHOLE_LIMIT_BYTES => self.send_whole(descriptor, &url, open, meter),
                Some(url) => self.send_stream(descriptor, &url, open, meter),
            });
            match result {
                Err(error) if tries < self.registry.retries() && is_transient(&error) => {
                    meter.set(0);
                    std::thread::sleep(self.registry.pause(tries, None).unwrap_or_default());
                    tries += 1;
                }
                other => return other.with_context(what),
            }
        }
    }

    /// Begin an upload. `None`: mounted, nothing is to be sent.
    fn start(&self, descriptor: &Descriptor, sibling: Option<&str>) -> Result<Option<String>> {
        let mut path = format!("/v2/{}/blobs/uploads/", self.name);
        let mut scope = self.push_scope();
        if let Some(sibling) = sibling.filter(|sibling| *sibling != self.name) {
            path = format!("{path}?mount={}&from={}", percent(descriptor.digest.as_str()), percent(sibling));
            scope = format!("{scope} repository:{sibling}:pull");
        }
        let call = Call { method: "POST", path: &path, headers: &[], body: Body::None, scope: &scope };
        let response = self.registry.succeed(self.registry.send(call)?, &[201, 202])?;
        if response.status().as_u16() == 201 {
            return Ok(None);
        }
        let base = format!("{}{path}", self.registry.origin()?);
        self.location(&base, &response).map(Some)
    }

    fn location(&self, base: &str, response: &Response) -> Result<String> {
        let location = http::header(response, "location").context("the registry does not say where to upload to")?;
        self.registry.join(base, location)
    }

    fn send_whole(&self, descriptor: &Descriptor, url: &str, open: &Open<'_>, meter: &dyn Meter) -> Result<()> {
        let mut content = Vec::with_capacity(usize::try_from(descriptor.size)?);
        open(0)?.read_to_end(&mut content).context("read the blob")?;
        self.finish(descriptor, url, &content)?;
        meter.add(descriptor.size);
        Ok(())
    }

    fn send_stream(&self, descriptor: &Descriptor, url: &str, open: &Open<'_>, meter: &dyn Meter) -> Result<()> {
        let mut url = url.to_owned();
        let mut offset = 0;
        let mut tries = 0;
        while offset < descriptor.size {
            match self.patch(descriptor, &url, offset, open, meter) {
                Ok(response) => {
                    // A registry may take less than it was sent.
                    let taken = http::header(&response, "range").and_then(range_end);
                    offset = taken.unwrap_or(descriptor.size).min(descriptor.size);
                    url = self.location(&url, &response)?;
                }
                Err(error) if tries < self.registry.retries() && is_transient(&error) => {
                    std::thread::sleep(self.registry.pause(tries, None).unwrap_or_default());
                    tries += 1;
                    // Where it cannot say how far it came, all begins again above.
                    let Ok((place, taken)) = self.status(&url) else { return Err(error) };
                    (url, offset) = (place, taken.min(descriptor.size));
                    meter.set(offset);
                }
                Err(error) => return Err(error),
            }
        }
        self.finish(descriptor, &url, &[])
    }

    fn patch(
        &self,
        descriptor: &Descriptor,
        url: &str,
        offset: u64,
        open: &Open<'_>,
        meter: &dyn Meter,
    ) -> Result<Response> {
        let mut reader = Metered { reader: open(offset)?, meter };
        let mut headers = vec![("Content-Type", "application/octet-stream".to_owned())];
        if offset > 0 {
            headers.push(("Content-Range", format!("{offset}-{}", descriptor.size - 1)));
        }
        let scope = self.push_scope();
        let body = Body::Stream(&mut reader, descriptor.size - offset);
        let call = Call { method: "PATCH", path: url, headers: &headers, body, scope: &scope };
        self.registry.succeed(self.registry.send(call)?, &[201, 202, 204])
    }

    /// Where an upload goes on, and how many bytes it has.
    fn status(&self, url: &str) -> Result<(String, u64)> {
        let scope = self.push_scope();
        let call = Call { method: "GET", path: url, headers: &[], body: Body::None, scope: &scope };
        let response = self.registry.succeed(self.registry.send(call)?, &[204])?;
        let taken = http::header(&response, "range").and_then(range_end).context("no range")?;
        let place = self.location(url, &response).unwrap_or_else(|_| url.to_owned());
        Ok((place, taken))
    }

    /// End an upload, with its last bytes.
    fn finish(&self, descriptor: &Descriptor, url: &str, content: &[u8]) -> Result<()> {
        let separator = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{separator}digest={}", percent(descriptor.digest.as_str()));
        let headers = [("Content-Type", "application/octet-stream".to_owned())];
        let scope = self.push_scope();
        let call = Call { method: "PUT", path: &url, headers: &headers, body: Body::Bytes(content), scope: &scope };
        self.registry.succeed(self.registry.send(call)?, &[200, 201, 202, 204]).map(drop)
    }

    /// Put a manifest or index under a tag or its digest.
    pub fn put_manifest(&self, fetched: &Fetched, reference: &str) -> Result<()> {
        let what = || format!("writing manifest {reference} to {}", self.full_name());
        let path = format!("/v2/{}/manifests/{reference}", self.name);
        let headers = [("Content-Type", fetched.document.media_type().to_owned())];
        let scope = self.push_scope();
        let body = Body::Bytes(&fetched.bytes);
        let call = Call { method: "PUT", path: &path, headers: &headers, body, scope: &scope };
        let response = self.registry.send(call).with_context(what)?;
        let response = self.registry.succeed(response, &[200, 201, 202]).with_context(what)?;
        if let Some(said) = http::header(&response, "docker-content-digest").and_then(|text| Digest::parse(text).ok()) {
            ensure!(said == fetched.digest, "{}: the registry made {said} of {}", what(), fetched.digest);
        }
        let subject = match &fetched.document {
            Document::Manifest(manifest) => manifest.subject.as_ref(),
            Document::Index(index) => index.subject.as_ref(),
        };
        match subject {
            // A registry that keeps referrers itself says so.
            Some(subject) if response.headers().get("oci-subject").is_none() => {
                self.register_referrer(&subject.digest, fetched).with_context(what)
            }
            _ => Ok(()),
        }
    }

    /// Where the registry keeps no referrers, they stand in an index under a tag made of the subject's digest
    /// (distribution-spec 1.1, "Referrers Tag Schema").
    fn register_referrer(&self, subject: &Digest, fetched: &Fetched) -> Result<()> {
        let mut entries = self.referrers(subject)?;
        if entries.iter().any(|entry| entry.digest == fetched.digest) {
            return Ok(());
        }
        let mut entry = fetched.descriptor();
        if let Document::Manifest(manifest) = &fetched.document {
            let config = (!manifest.is_image()).then(|| manifest.config.media_type.clone());
            entry.artifact_type = manifest.artifact_type.clone().or(config);
            entry.annotations.clone_from(&manifest.annotations);
        }
        entries.push(entry);
        let index = Index::of(entries);
        self.put_manifest(&fetched_of(Document::Index(index))?, &format!("sha256-{}", subject.hex()))
    }
}

/// `0-99` or `bytes=0-99`: the number of bytes that are there.
fn range_end(text: &str) -> Option<u64> {
    let (_, end) = text.trim().trim_start_matches("bytes=").split_once('-')?;
    let end: u64 = end.trim().parse().ok()?;
    // An empty upload is `0-0` with the reference implementation: one byte more or less does no harm, for it is sent again
    // only from there, and the registry refuses a wrong digest.
    Some(if end == 0 { 0 } else { end + 1 })
}

struct Metered<'a> {
    reader: Box<dyn Read + Send + 'a>,
    meter: &'a dyn Meter,
}

impl Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.meter.add(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(range_end("0-99"), Some(100));
        assert_eq!(range_end("bytes=0-99"), Some(100));
        assert_eq!(range_end("0-0"), Some(0));
        assert_eq!(range_end("x"), None);
    }
}
