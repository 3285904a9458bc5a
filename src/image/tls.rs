//! TLS to registries: rustls over whatever ureq has connected.
//!
//! One rule is our own. A certificate that is itself among the trusted ones is taken as it is, for its names and while it is
//! valid, also where it is marked as an authority: `openssl req -x509` makes such for a registry, every manual says so, and
//! Go's programs take them.

use crate::image::der;
use anyhow::{Context, Result, anyhow};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::sync::Arc;
use ureq::tls::{ClientCert, RootCerts};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport, TransportAdapter,
};

/// Puts TLS around connections to https origins.
#[derive(Debug)]
pub struct TlsConnector(Arc<ClientConfig>);

/// Whom to trust and who we are.
pub struct Wish {
    /// Authorities; absent: nobody is checked.
    pub roots: Option<Arc<RootCerts>>,
    /// Our own certificate.
    pub client: Option<ClientCert>,
}

impl TlsConnector {
    /// With these.
    pub fn new(wish: &Wish) -> Result<TlsConnector> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Arc::new(verifier(wish.roots.as_deref(), &provider)?);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match &wish.client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let chain = client.certs().iter().map(|one| CertificateDer::from(one.der()).into_owned()).collect();
                let key = PrivateKeyDer::try_from(client.private_key().der()).map_err(|error| anyhow!("{error}"))?;
                builder.with_client_auth_cert(chain, key.clone_key()).context("use the client certificate")?
            }
        };
        Ok(TlsConnector(Arc::new(config)))
    }
}

impl<In: Transport> Connector<In> for TlsConnector {
    type Out = Either<In, Tls>;

    fn connect(&self, details: &ConnectionDetails<'_>, below: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let Some(below) = below else { return Ok(None) };
        if !details.needs_tls() || below.is_tls() {
            return Ok(Some(Either::A(below)));
        }
        let host = details.uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|_| ureq::Error::Tls("not a server's name"))?;
        let mut connection = ClientConnection::new(self.0.clone(), name)?;
        let mut socket = TransportAdapter::new(below.boxed(), details.current_time.clone());
        socket.set_timeout(details.timeout);
        connection.complete_io(&mut socket)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Tls { buffers, stream: StreamOwned::new(connection, socket) })))
    }
}

/// A connection with TLS.
pub struct Tls {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Tls(…)")
    }
}

impl Transport for Tls {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        Ok(self.stream.write_all(&self.buffers.output()[..amount])?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.get_mut().set_timeout(timeout);
        let count = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.get_mut().get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

fn verifier(roots: Option<&RootCerts>, provider: &Arc<CryptoProvider>) -> Result<Verifier> {
    let Some(roots) = roots else {
        return Ok(Verifier { provider: provider.clone(), inner: None, own: Vec::new() });
    };
    let mut store = RootCertStore::empty();
    let mut own = Vec::new();
    match roots {
        RootCerts::Specific(certificates) => {
            own = certificates.iter().map(|one| CertificateDer::from(one.der()).into_owned()).collect();
            store.add_parsable_certificates(own.iter().cloned());
        }
        _ => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone()).build()?;
    Ok(Verifier { provider: provider.clone(), inner: Some(inner), own })
}

/// Whose certificates are taken. That the other side has its certificate's key is always checked.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    /// rustls' own rules; absent: for registries marked insecure, anybody's.
    inner: Option<Arc<WebPkiServerVerifier>>,
    /// Those that are taken as they are.
    own: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        let result = inner.verify_server_cert(end_entity, intermediates, name, ocsp, now);
        match result {
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_) | CertificateError::UnknownIssuer))
                if self.own.iter().any(|one| one == end_entity) =>
            {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
                check_validity(end_entity, now)?;
                Ok(ServerCertVerified::assertion())
            }
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether now is between a certificate's `notBefore` and `notAfter` (RFC 5280, 4.1.2.5).
fn check_validity(certificate: &[u8], now: UnixTime) -> Result<(), rustls::Error> {
    let Ok((begin, end)) = validity(certificate) else { return Err(CertificateError::BadEncoding.into()) };
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let now =
        jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).strftime("%Y%m%d%H%M%SZ").to_string();
    if now < begin {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > end {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// Both times as `YYYYMMDDHHMMSSZ`, which sort as they follow one another.
fn validity(certificate: &[u8]) -> Result<(String, String)> {
    /// `[0]`: the version, which old certificates do not have.
    const VERSION: u8 = 0xA0;
    let (certificate, _) = der::value(certificate, der::SEQUENCE)?;
    let (mut rest, _) = der::value(certificate, der::SEQUENCE)?;
    if let Ok((_, after)) = der::value(rest, VERSION) {
        rest = after;
    }
    let (_, rest) = der::value(rest, der::INTEGER)?;
    let (_, rest) = der::value(rest, der::SEQUENCE)?;
    let (_, rest) = der::value(rest, der::SEQUENCE)?;
    let (times, _) = der::value(rest, der::SEQUENCE)?;
    let (kind, begin, times) = der::any(times)?;
    let begin = time(kind, begin)?;
    let (kind, end, _) = der::any(times)?;
    Ok((begin, time(kind, end)?))
}

fn time(kind: u8, text: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(text)?;
    let whole = match kind {
        der::GENERALIZED_TIME => text.to_owned(),
        // Two digits of a year: from 50 on they mean the last century.
        der::UTC_TIME if text < "5" => format!("20{text}"),
        der::UTC_TIME => format!("19{text}"),
        _ => anyhow::bail!("no time"),
    };
    let well_formed =
        whole.len() == 15 && whole.ends_with('Z') && whole[..14].bytes().all(|byte| byte.is_ascii_digit());
    anyhow::ensure!(well_formed, "`{whole}` is no time");
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(time(der::UTC_TIME, b"491231235959Z").unwrap(), "20491231235959Z");
        assert_eq!(time(der::UTC_TIME, b"500101000000Z").unwrap(), "19500101000000Z");
        assert_eq!(time(der::GENERALIZED_TIME, b"20500101000000Z").unwrap(), "20500101000000Z");
        for bad in [&b"4912312359Z"[..], b"", b"491231235959+0100", b"\xff"] {
            assert!(time(der::UTC_TIME, bad).is_err(), "{bad:?}");
        }
    }
}
