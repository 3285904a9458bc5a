//! Public keys that signatures are checked with: PEM, SubjectPublicKeyInfo (RFC 5280), as `cosign` and `openssl` write them.

use crate::image::der::{BIT_STRING, OBJECT_IDENTIFIER, SEQUENCE, value};
use anyhow::{Context, Result, anyhow, bail, ensure};
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;

/// A key and what is done with it.
pub struct PublicKey {
    algorithm: &'static dyn VerificationAlgorithm,
    bytes: Vec<u8>,
}

const EC: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x02, 0x01];
const P256: &[u8] = &[0x2A, 0x86, 0x48, 0xCE, 0x3D, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2B, 0x81, 0x04, 0x00, 0x22];
const RSA: &[u8] = &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x01];
const ED25519: &[u8] = &[0x2B, 0x65, 0x70];

impl PublicKey {
    /// Of one PEM block `PUBLIC KEY`.
    pub fn parse(pem: &[u8]) -> Result<PublicKey> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| anyhow!("it is no public key in PEM"))?;
        let (key, rest) = value(&der, SEQUENCE)?;
        ensure!(rest.is_empty(), "there is more behind the public key");
        let (algorithm, key) = value(key, SEQUENCE)?;
        let (kind, parameters) = value(algorithm, OBJECT_IDENTIFIER)?;
        let (bits, _) = value(key, BIT_STRING)?;
        // The first byte counts the bits that are missing in the last one.
        let bytes = bits.strip_prefix(&[0]).context("it is no public key")?.to_vec();
        // Digests are SHA-256 whatever the key, as cosign has it.
        let algorithm: &'static dyn VerificationAlgorithm = match kind {
            EC => match value(parameters, OBJECT_IDENTIFIER)?.0 {
                P256 => &signature::ECDSA_P256_SHA256_ASN1,
                P384 => &signature::ECDSA_P384_SHA256_ASN1,
                _ => bail!("keys of this curve are not supported: P-256 and P-384 are"),
            },
            RSA => &signature::RSA_PKCS1_2048_8192_SHA256,
            ED25519 => &signature::ED25519,
            _ => bail!("keys of this kind are not supported: ECDSA, RSA and Ed25519 are"),
        };
        Ok(PublicKey { algorithm, bytes })
    }

    /// Whether the signature is that of the message by this key.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm, &self.bytes).verify(message, signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_keys() {
        for text in ["", "x", "-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n"] {
            assert!(PublicKey::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
