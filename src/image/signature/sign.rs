//! Signing an image that was pushed, as `cosign` does: its payload under the tag `sha256-HEX.sig` beside it.

use crate::failure::Explain;
use crate::image::copy::fetched_of;
use crate::image::manifest::{Descriptor, Document, Manifest, media};
use crate::image::progress::Silent;
use crate::image::reference::Reference;
use crate::image::registry::{Repository, is_missing};
use crate::image::signature::{PAYLOAD, SIGNATURE, payload};
use crate::model::digest::Digest;
use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use std::fmt;
use std::io::Read;
use std::path::Path;

/// A private key.
pub struct Signer {
    pair: EcdsaKeyPair,
}

impl fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Signer(…)")
    }
}

impl Signer {
    /// Of a file: PKCS #8 in PEM, ECDSA on P-256, not encrypted.
    pub fn open(path: &Path) -> Result<Signer> {
        let text = std::fs::read(path).with_context(|| format!("read the key {}", path.display()))?;
        Signer::parse(&text).with_context(|| format!("read the key {}", path.display()))
    }

    fn parse(pem: &[u8]) -> Result<Signer> {
        if String::from_utf8_lossy(pem).contains("BEGIN ENCRYPTED ") {
            return Err(anyhow!("the key is encrypted, which is not supported"))
                .hint("a key of `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256` is not");
        }
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| anyhow!("it is no private key in PKCS #8"))?;
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, der.secret_pkcs8_der(), &random);
        Ok(Signer { pair: pair.map_err(|error| anyhow!("it is no ECDSA key on P-256: {error}"))? })
    }

    /// The payload about an image, and its signature.
    fn sign(&self, name: &Reference, digest: &Digest) -> Result<(Vec<u8>, String)> {
        let payload = payload::write(name, digest)?;
        let signature = self.pair.sign(&SystemRandom::new(), &payload).map_err(|_| anyhow!("sign {name}"))?;
        Ok((payload, STANDARD.encode(signature.as_ref())))
    }

    /// Put a signature of the manifest or index of this digest beside it, with those that are there.
    pub fn attach(&self, repository: &Repository, name: &Reference, digest: &Digest) -> Result<()> {
        let (payload, signature) = self.sign(name, digest)?;
        let tag = format!("sha256-{}.sig", digest.hex());
        let mut layers = match repository.manifest(&tag) {
            Ok(fetched) => match fetched.document {
                Document::Manifest(manifest) => manifest.layers,
                Document::Index(_) => bail!("{tag}: an index in the place of signatures"),
            },
            Err(error) if is_missing(&error) => Vec::new(),
            Err(error) => return Err(error),
        };
        ensure!(
            layers.iter().all(|layer| layer.media_type == PAYLOAD),
            "{tag}: there is something else under this tag"
        );
        let mut layer = put(repository, PAYLOAD, &payload)?;
        layer.annotations = Some([(SIGNATURE.to_owned(), signature)].into());
        layers.push(layer);
        let diff_ids: Vec<&Digest> = layers.iter().map(|layer| &layer.digest).collect();
        let config =
            json!({"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config: put(repository, media::OCI_CONFIG, config.to_string().as_bytes())?,
            layers,
            subject: None,
            annotations: None,
        };
        repository.put_manifest(&fetched_of(Document::Manifest(manifest))?, &tag)
    }
}

fn put(repository: &Repository, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
    let descriptor = Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64);
    if !repository.has_blob(&descriptor)? {
        let open = |start: u64| -> Result<Box<dyn Read + Send>> {
            Ok(Box::new(std::io::Cursor::new(bytes[usize::try_from(start)?.min(bytes.len())..].to_vec())))
        };
        repository.upload(&descriptor, None, &open, &Silent)?;
    }
    Ok(descriptor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_keys() {
        let encrypted =
            "-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----\ne30=\n-----END ENCRYPTED COSIGN PRIVATE KEY-----\n";
        assert!(format!("{:#}", Signer::parse(encrypted.as_bytes()).unwrap_err()).contains("encrypted"));
        for text in ["", "x", "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n"] {
            assert!(Signer::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
