//! Signatures of images in registries, as `cosign` and `skopeo --sign-by-sigstore-private-key` make them.
//!
//! The story of [`Demand::prove`]: the rules of policy.json -> are signatures kept where registries.d says -> the tag
//! `sha256-HEX.sig` beside the image -> for each rule one payload that a key of the rule has signed, that is about the very
//! digest in hand, and whose name the rule takes. Which rules there are is `policy`'s.
//!
//! Invariant: what cannot be checked is refused. Certificates (Fulcio, PKI) and transparency logs (Rekor) are not checked
//! here, so a rule that names them accepts nothing.

mod identity;
mod key;
mod payload;
mod place;
mod sign;

pub use identity::Identity;
pub use sign::Signer;

use crate::failure::{Explain, message_of};
use crate::image::manifest::{Descriptor, Document};
use crate::image::reference::Reference;
use crate::image::registry::{Repository, is_missing};
use crate::model::digest::Digest;
use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use key::PublicKey;
use serde::Deserialize;
use std::path::PathBuf;

/// Where a layer of a signature's manifest holds the signature of its payload.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// What such a layer is.
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Signatures of one image that are looked at.
const SIGNATURES_LIMIT: usize = 100;
/// A payload has a few hundred bytes.
const PAYLOAD_LIMIT_BYTES: u64 = 1 << 20;

/// A `sigstoreSigned` requirement.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    key_path: Option<PathBuf>,
    key_paths: Option<Vec<PathBuf>>,
    key_data: Option<String>,
    key_datas: Option<Vec<String>>,
    fulcio: Option<serde_json::Value>,
    pki: Option<serde_json::Value>,
    rekor_public_key_path: Option<PathBuf>,
    rekor_public_key_paths: Option<Vec<PathBuf>>,
    rekor_public_key_data: Option<String>,
    rekor_public_key_datas: Option<Vec<String>>,
    #[serde(default)]
    signed_identity: Identity,
}

impl Rule {
    /// Whether it makes sense at all.
    pub fn check(&self) -> Result<()> {
        let sources = [
            self.key_path.is_some(),
            self.key_paths.is_some(),
            self.key_data.is_some(),
            self.key_datas.is_some(),
            self.fulcio.is_some(),
            self.pki.is_some(),
        ];
        let count = sources.iter().filter(|named| **named).count();
        ensure!(
            count == 1,
            "sigstoreSigned: exactly one of keyPath, keyPaths, keyData, keyDatas, fulcio and pki must be named"
        );
        self.signed_identity.check()
    }

    /// What it asks for that is not checked here.
    fn unsupported(&self) -> Option<&'static str> {
        let rekor = self.rekor_public_key_path.is_some()
            || self.rekor_public_key_paths.is_some()
            || self.rekor_public_key_data.is_some()
            || self.rekor_public_key_datas.is_some();
        match (&self.fulcio, &self.pki, rekor) {
            (Some(_), _, _) => Some("certificates of Fulcio"),
            (_, Some(_), _) => Some("certificates of a PKI"),
            (_, _, true) => Some("entries in the Rekor log"),
            _ => None,
        }
    }

    fn keys(&self) -> Result<Vec<PublicKey>> {
        let mut keys = Vec::new();
        for path in self.key_path.iter().chain(self.key_paths.iter().flatten()) {
            let text = std::fs::read(path).with_context(|| format!("read the key {}", path.display()))?;
            keys.push(PublicKey::parse(&text).with_context(|| format!("read the key {}", path.display()))?);
        }
        for data in self.key_data.iter().chain(self.key_datas.iter().flatten()) {
            let text = STANDARD.decode(data.trim()).context("read keyData of policy.json")?;
            keys.push(PublicKey::parse(&text).context("read keyData of policy.json")?);
        }
        ensure!(!keys.is_empty(), "sigstoreSigned names no key");
        Ok(keys)
    }

    /// Whether one of these signatures is what the rule wants; else why none is.
    fn accepts(&self, name: &Reference, digest: &Digest, signatures: &[Signature]) -> Result<()> {
        if let Some(what) = self.unsupported() {
            bail!("the policy wants {what}, which coracle cannot check");
        }
        let keys = self.keys()?;
        let mut reasons = Vec::new();
        for signature in signatures {
            match signature.check(&keys, name, digest, &self.signed_identity) {
                Ok(()) => return Ok(()),
                Err(error) => reasons.push(message_of(&error)),
            }
        }
        reasons.dedup();
        match reasons.as_slice() {
            [] => bail!("A signature was required, but no signature exists"),
            [one] => bail!("{one}"),
            _ => bail!("None of the signatures were accepted, reasons: {}", reasons.join("; ")),
        }
    }
}

/// A payload and what is said to be its signature.
struct Signature {
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl Signature {
    fn check(&self, keys: &[PublicKey], name: &Reference, digest: &Digest, identity: &Identity) -> Result<()> {
        let signed = keys.iter().any(|key| key.verify(&self.payload, &self.signature));
        ensure!(signed, "cryptographic signature verification failed: no key of the policy made it");
        // Only what is signed is parsed.
        let said = payload::parse(&self.payload)?;
        ensure!(said.digest == *digest, "the signature is for {}, not for {digest}", said.digest);
        ensure!(
            identity.accepts(name, &said.name)?,
            "Signature for identity \"{}\" is not accepted for {name}",
            said.name
        );
        Ok(())
    }
}

/// What a policy still wants of an image that it does not reject outright.
#[derive(Clone, Debug)]
#[must_use]
pub struct Demand {
    /// The image's name, as it was asked for.
    pub name: Reference,
    /// Each must find its signature.
    pub rules: Vec<Rule>,
    /// Where the rules stand, for the message.
    pub origin: String,
}

impl Demand {
    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether the manifest or index of this digest in this repository has the signatures that are wanted.
    pub fn prove(&self, repository: &Repository, digest: &Digest) -> Result<()> {
        if self.rules.is_empty() {
            return Ok(());
        }
        let prove = || {
            let signatures = if place::load()?.uses_attachments(&self.name) {
                fetch(repository, digest).with_context(|| format!("reading signatures of {digest}"))?
            } else {
                Vec::new()
            };
            self.rules.iter().try_for_each(|rule| rule.accepts(&self.name, digest, &signatures))
        };
        prove().map_err(|error| anyhow!("Source image rejected: {}", message_of(&error))).hint(format!(
            "the rule stands in {}; signatures are looked for where `use-sigstore-attachments: true` is set in {}",
            self.origin,
            place::SYSTEM
        ))
    }
}

/// The signatures that stand beside an image under its digest's tag.
fn fetch(repository: &Repository, digest: &Digest) -> Result<Vec<Signature>> {
    let fetched = match repository.manifest(&format!("sha256-{}.sig", digest.hex())) {
        Ok(fetched) => fetched,
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let Document::Manifest(manifest) = &fetched.document else { bail!("an index in the place of signatures") };
    let mut found = Vec::new();
    for layer in manifest.layers.iter().filter(|layer| layer.media_type == PAYLOAD).take(SIGNATURES_LIMIT) {
        let Some(text) = annotation(layer) else { continue };
        let Ok(signature) = STANDARD.decode(text) else { continue };
        found.push(Signature { payload: repository.small_blob(layer, PAYLOAD_LIMIT_BYTES)?, signature });
    }
    Ok(found)
}

fn annotation(layer: &Descriptor) -> Option<&String> {
    layer.annotations.as_ref()?.get(SIGNATURE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    /// A key pair and its public half as PEM.
    fn pair() -> (EcdsaKeyPair, Vec<u8>) {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref(), &random).unwrap();
        let mut der = vec![0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01];
        der.extend([0x06, 0x08, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00]);
        der.extend(pair.public_key().as_ref());
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der));
        (pair, pem.into_bytes())
    }

    fn sign(pair: &EcdsaKeyPair, name: &str, digest: &Digest) -> Signature {
        let payload = serde_json::json!({"critical": {"identity": {"docker-reference": name},
            "image": {"docker-manifest-digest": digest}, "type": "cosign container image signature"}, "optional": null});
        let payload = payload.to_string().into_bytes();
        let signature = pair.sign(&SystemRandom::new(), &payload).unwrap().as_ref().to_vec();
        Signature { payload, signature }
    }

    #[test]
    fn a_rule_wants_key_digest_and_name() {
        let (own, pem) = pair();
        let (foreign, _) = pair();
        let rule = |more: &str| -> Rule {
            let data = STANDARD.encode(&pem);
            serde_json::from_str(&format!(r#"{{"keyData": "{data}"{more}}}"#)).unwrap()
        };
        let name = Reference::parse("r.test/app:1").unwrap();
        let (digest, other) = (Digest::of(b"x"), Digest::of(b"y"));
        let mut broken = sign(&own, "r.test/app:1", &digest);
        broken.payload.push(b' ');
        for (rule, signatures, refused) in [
            (rule(""), vec![sign(&own, "r.test/app:1", &digest)], None),
            (rule(""), vec![sign(&foreign, "r.test/app:1", &digest), sign(&own, "r.test/app:1", &digest)], None),
            (rule(""), vec![], Some("no signature exists")),
            (rule(""), vec![sign(&foreign, "r.test/app:1", &digest)], Some("verification failed")),
            (rule(""), vec![broken], Some("verification failed")),
            (rule(""), vec![sign(&own, "r.test/app:1", &other)], Some("the signature is for")),
            (rule(""), vec![sign(&own, "r.test/app:2", &digest)], Some("is not accepted")),
            (
                rule(r#", "signedIdentity": {"type": "matchRepository"}"#),
                vec![sign(&own, "r.test/app:2", &digest)],
                None,
            ),
            (
                rule(r#", "rekorPublicKeyPath": "/x""#),
                vec![sign(&own, "r.test/app:1", &digest)],
                Some("coracle cannot check"),
            ),
        ] {
            match (rule.accepts(&name, &digest, &signatures), refused) {
                (Ok(()), None) => {}
                (Err(error), Some(text)) => assert!(format!("{error:#}").contains(text), "{text}: {error:#}"),
                (found, wanted) => panic!("{wanted:?}: {found:?}"),
            }
        }
        assert!(serde_json::from_str::<Rule>("{}").unwrap().check().is_err());
        assert!(serde_json::from_str::<Rule>(r#"{"keyPath": "/x", "keyData": "eA=="}"#).unwrap().check().is_err());
        assert!(serde_json::from_str::<Rule>(r#"{"keyPath": "/x", "what": 1}"#).is_err());
    }
}
