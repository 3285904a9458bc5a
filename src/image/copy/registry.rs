//! A repository of a registry as the source or the sink of a copy.

use crate::image::access::Network;
use crate::image::copy::{Blob, Sink, Source};
use crate::image::manifest::{Descriptor, Document};
use crate::image::policy::Policy;
use crate::image::progress::Meter;
use crate::image::pull;
use crate::image::reference::{DEFAULT_TAG, Reference};
use crate::image::registry::{Fetched, Repository};
use crate::image::signature::Signer;
use anyhow::{Context, Result};
use std::io::Read;
use std::sync::Arc;

/// An image in a registry.
pub struct RegistrySource {
    source: pull::Source,
}

impl RegistrySource {
    /// Ask for its top document, mirrors first. What the policy does not take is not opened.
    pub fn open(network: &Network, name: &Reference, policy: &Policy) -> Result<RegistrySource> {
        let source = pull::open(network, name, policy)?;
        if let Document::Manifest(_) = &source.top.document {
            source.admit(&source.top.digest)?;
        }
        Ok(RegistrySource { source })
    }
}

impl Source for RegistrySource {
    fn top(&self) -> &Fetched {
        &self.source.top
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Fetched> {
        self.source.admit(&descriptor.digest)?;
        self.source.repository.described(descriptor)
    }

    fn open(&self, descriptor: &Descriptor, start: u64) -> Result<Box<dyn Read + Send + '_>> {
        let (response, begin) = self.source.repository.open_blob(descriptor, start)?;
        let mut body = response.into_body().into_reader();
        // A server without ranges begins at the beginning.
        std::io::copy(&mut (&mut body).take(start - begin), &mut std::io::sink())?;
        Ok(Box::new(body))
    }

    fn repository(&self) -> Option<&Repository> {
        Some(&self.source.repository)
    }
}

/// A repository that gets an image.
pub struct RegistrySink {
    repository: Repository,
    name: Reference,
    signer: Option<Arc<Signer>>,
}

impl RegistrySink {
    /// For an image of this name.
    pub fn open(network: &Network, name: &Reference) -> Result<RegistrySink> {
        Ok(RegistrySink { repository: network.target(name)?, name: name.clone(), signer: None })
    }

    /// Each manifest and index that is put is signed under the image's name.
    pub fn signed_by(mut self, signer: Option<Arc<Signer>>) -> RegistrySink {
        self.signer = signer;
        self
    }
}

impl Sink for RegistrySink {
    fn has(&self, descriptor: &Descriptor) -> Result<bool> {
        self.repository.has_blob(descriptor)
    }

    fn put(&self, blob: &Blob<'_>, from: Option<&Repository>, meter: &dyn Meter) -> Result<()> {
        let sibling = from.filter(|from| from.registry.name() == self.repository.registry.name());
        let sibling = sibling.map(|from| from.name.as_str());
        // The registry proves the digest when the upload ends; a source that lies is found there.
        self.repository.upload(blob.descriptor, sibling, &|start| (blob.open)(start), meter)
    }

    fn put_document(&self, fetched: &Fetched, top: bool) -> Result<()> {
        let digest = fetched.digest.as_str();
        let reference = match (&self.name.tag, &self.name.digest) {
            (Some(tag), _) if top => tag,
            (None, None) if top => DEFAULT_TAG,
            (None, Some(wanted)) if top && *wanted != fetched.digest => {
                anyhow::bail!("{}: the image's digest is {digest}", self.name)
            }
            _ => digest,
        };
        self.repository.put_manifest(fetched, reference)?;
        match &self.signer {
            Some(signer) => signer.attach(&self.repository, &self.name, &fetched.digest).context("signing the image"),
            None => Ok(()),
        }
    }

    fn wants_compression(&self) -> bool {
        true
    }
}
