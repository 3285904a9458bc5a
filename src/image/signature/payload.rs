//! What a signature says: the "simple signing" document (containers-signature(5)) with cosign's type.
//!
//! Strict: a field that is not known in `critical`, or that stands twice, makes it worthless.

use crate::image::reference::Reference;
use crate::model::digest::Digest;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::IgnoredAny;

const COSIGN: &str = "cosign container image signature";

/// What is signed.
#[derive(Debug)]
pub struct Said {
    /// The image's name when it was signed; without a tag if the signer gave none.
    pub name: Reference,
    /// Of the manifest or index.
    pub digest: Digest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    critical: Critical,
    #[serde(rename = "optional")]
    _optional: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    r#type: String,
    image: Image,
    identity: Identity,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: Digest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    #[serde(rename = "docker-reference")]
    reference: String,
}

/// Make one.
pub fn write(name: &Reference, digest: &Digest) -> Result<Vec<u8>> {
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let document = serde_json::json!({
        "critical": {
            "identity": {"docker-reference": name.to_string()},
            "image": {"docker-manifest-digest": digest},
            "type": COSIGN,
        },
        "optional": {"creator": concat!("coracle ", env!("CARGO_PKG_VERSION")), "timestamp": seconds},
    });
    Ok(serde_json::to_vec(&document)?)
}

/// Read it.
pub fn parse(payload: &[u8]) -> Result<Said> {
    let document: Document = serde_json::from_slice(payload).context("read the signature's payload")?;
    let Document { critical: Critical { r#type, image, identity }, _optional } = document;
    ensure!(
        matches!(r#type.as_str(), COSIGN | "https://sigstore.dev/cosign/sign/v1"),
        "Unrecognized signature type \"{type}\""
    );
    let name = Reference::parse(&identity.reference).context("read the signed name")?;
    Ok(Said { name, digest: image.digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict() {
        let digest = Digest::of(b"x");
        let good = format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"r.test/a:1"}},"image":{{"docker-manifest-digest":"{digest}"}},
            "type":"cosign container image signature"}},"optional":{{"creator":"x","timestamp":1}}}}"#
        );
        let said = parse(good.as_bytes()).unwrap();
        assert_eq!((said.name.to_string().as_str(), &said.digest), ("r.test/a:1", &digest));
        let name = Reference::parse("r.test/b:2").unwrap();
        assert_eq!(parse(&write(&name, &digest).unwrap()).unwrap().name, name);
        for bad in [
            good.replace("cosign container", "other container"),
            good.replace("\"critical\"", "\"critica1\""),
            good.replace("\"type\":", "\"more\":1,\"type\":"),
            good.replace("\"image\":", "\"image\":{\"docker-manifest-digest\":\"x\"},\"image\":"),
            good.replace("sha256:", "sha256:../"),
            good.replace("r.test/a:1", "../a"),
            good[..good.len() - 1].to_owned(),
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
