//! HTTP to registries: one exchange, with redirects followed by our rules. Not authentication (`auth`) and no knowledge
//! of the distribution protocol (`registry`).
//!
//! Invariants: an `Authorization` header goes to the origin it was made for and to no other, whatever a redirect says;
//! nothing that began as https goes on as http unless the registry is marked insecure; a peer that goes silent is given
//! up after [`SILENCE_LIMIT`].

use crate::failure::Explain;
use crate::host::resolve;
use crate::image::tls::{self, TlsConnector};
use crate::image::trust::{self, Trust};
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use ureq::http;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, NextTimeout, TcpConnector};

/// How long a peer may say nothing.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(60);
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
const REDIRECT_LIMIT: usize = 10;

/// An answer whose body is still to be read.
pub type Response = http::Response<ureq::Body>;

/// Scheme, host and port: what a credential is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// `https`, else `http`.
    pub secure: bool,
    /// Host, IPv6 in brackets.
    pub host: String,
    /// Port, also when it is the scheme's own.
    pub port: u16,
}

impl Origin {
    /// Of `host[:port]`.
    pub fn new(secure: bool, authority: &str) -> Result<Origin> {
        let authority: http::uri::Authority =
            authority.parse().map_err(|_| anyhow!("`{authority}` is not a registry's HOST[:PORT]"))?;
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Ok(Origin { secure, host: authority.host().to_ascii_lowercase(), port })
    }

    /// Of an absolute URL; user information in it is refused.
    pub fn of(url: &str) -> Result<Origin> {
        let uri: http::Uri = url.parse().map_err(|_| anyhow!("`{url}` is not a URL"))?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => bail!("`{url}` is neither http nor https"),
        };
        let authority = uri.authority().with_context(|| format!("`{url}` names no host"))?;
        ensure!(!authority.as_str().contains('@'), "`{url}` holds credentials");
        Origin::new(secure, authority.as_str())
    }

    fn default_port(&self) -> u16 {
        if self.secure { 443 } else { 80 }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", if self.secure { "https" } else { "http" }, self.host)?;
        if self.port == self.default_port() { Ok(()) } else { write!(formatter, ":{}", self.port) }
    }
}

/// What to send.
pub struct Request<'a> {
    /// `GET`, …
    pub method: &'a str,
    /// Absolute.
    pub url: &'a str,
    /// Headers that any host may see.
    pub headers: &'a [(&'static str, String)],
    /// `Authorization`, for the URL's own origin only.
    pub authorization: Option<&'a str>,
    /// The body.
    pub body: Body<'a>,
    /// Whether redirects are followed (GET and HEAD only).
    pub follow: bool,
}

/// A request's body.
pub enum Body<'a> {
    /// None; a PUT or POST says `Content-Length: 0`.
    None,
    /// Whole.
    Bytes(&'a [u8]),
    /// A stream of this length.
    Stream(&'a mut dyn Read, u64),
}

/// A request but for its body.
struct Parts<'a> {
    method: &'a str,
    url: &'a str,
    headers: &'a [(&'static str, String)],
    authorization: Option<&'a str>,
}

impl Parts<'_> {
    fn builder(&self) -> http::request::Builder {
        let mut builder = http::Request::builder().method(self.method).uri(self.url);
        for (name, value) in self.headers {
            builder = builder.header(*name, value);
        }
        if let Some(authorization) = self.authorization {
            builder = builder.header("Authorization", authorization);
        }
        builder
    }
}

/// What went wrong below HTTP. Kept as text: a broken connection must not be taken for our own broken pipe.
#[derive(Debug)]
pub struct Trouble {
    text: String,
    /// Whether trying again may help.
    pub transient: bool,
    /// Whether it may be that the other side speaks plain http.
    pub maybe_plain: bool,
}

const UNKNOWN_AUTHORITY: &str = "certificate signed by unknown authority";
const PLAIN: &str = "http: server gave HTTP response to HTTPS client";

impl Trouble {
    fn hint(&self, origin: &Origin) -> Option<String> {
        let host = match origin.to_string().split_once("://") {
            Some((_, host)) => host.to_owned(),
            None => String::new(),
        };
        if self.text.contains(UNKNOWN_AUTHORITY) {
            return Some(format!(
                "put the authority's certificate into /etc/containers/certs.d/{host}/ca.crt, or use --cert-dir or \
                 --tls-verify=false"
            ));
        }
        let plain = self.text.contains(PLAIN);
        plain.then(|| {
            format!("if {host} may speak plain http, use --tls-verify=false or `insecure = true` in registries.conf")
        })
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for Trouble {}

/// Connections to one registry and to where it sends us.
pub struct Http {
    trust: Trust,
    insecure: bool,
    agents: Mutex<HashMap<Origin, ureq::Agent>>,
    roots: OnceLock<Arc<ureq::tls::RootCerts>>,
}

impl Http {
    /// `insecure`: certificates are not checked, and plain http is allowed.
    pub fn new(trust: Trust, insecure: bool) -> Http {
        Http { trust, insecure, agents: Mutex::default(), roots: OnceLock::new() }
    }

    /// Whether plain http is allowed.
    pub fn insecure(&self) -> bool {
        self.insecure
    }

    /// Send one request; redirects are followed if it says so.
    pub fn send(&self, request: Request<'_>) -> Result<Response> {
        let Request { method, url, headers, authorization, mut body, follow } = request;
        let home = Origin::of(url)?;
        let mut url = url.to_owned();
        for _ in 0..=REDIRECT_LIMIT {
            let here = Origin::of(&url)?;
            let authorization = authorization.filter(|_| here == home);
            let response = self.exchange(&here, &Parts { method, url: &url, headers, authorization }, &mut body)?;
            let status = response.status().as_u16();
            if !follow || !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = header(&response, "location").with_context(|| format!("{url}: a redirect to nowhere"))?;
            url = self.join(&url, location)?;
        }
        bail!("{url}: more than {REDIRECT_LIMIT} redirects")
    }

    /// The URL a `Location` means, seen from `base`. Refuses to leave https.
    pub fn join(&self, base: &str, location: &str) -> Result<String> {
        let from = Origin::of(base)?;
        let url = if location.starts_with("http://") || location.starts_with("https://") {
            location.to_owned()
        } else if let Some(rest) = location.strip_prefix("//") {
            format!("{}://{rest}", if from.secure { "https" } else { "http" })
        } else if location.starts_with('/') {
            format!("{from}{location}")
        } else if location.contains("://") {
            bail!("{base}: it redirects to `{location}`, which is neither http nor https");
        } else {
            let path = base.split(['?', '#']).next().unwrap_or(base);
            let folder =
                path.rfind('/').filter(|slash| *slash > from.to_string().len()).map_or(path, |slash| &path[..slash]);
            format!("{folder}/{location}")
        };
        let mut url = url.split('#').next().unwrap_or_default().to_owned();
        let to = Origin::of(&url)?;
        if from.secure && !to.secure && !self.insecure {
            // A registry behind a proxy that ends TLS often forgets so in its own addresses.
            if to.host == from.host && (to.port == 80 || to.port == from.port) {
                let rest = url["http://".len()..].find('/').map_or("", |slash| &url["http://".len() + slash..]);
                url = format!("{from}{rest}");
            } else {
                bail!("{from} sends us on to {to}: refused, for https would become plain http");
            }
        }
        Ok(url)
    }

    /// One request and its answer. A connection that was kept may have been closed by the other side meanwhile, which
    /// shows only when it is used: then a request that can be sent again is, once, over a connection of its own.
    fn exchange(&self, origin: &Origin, parts: &Parts<'_>, body: &mut Body<'_>) -> Result<Response> {
        let result = match self.attempt(origin, parts, body)? {
            Err(error) if !matches!(body, Body::Stream(..)) && was_closed(&error) => {
                self.agents.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(origin);
                self.attempt(origin, parts, body)?
            }
            result => result,
        };
        result.or_else(|error| {
            let trouble = trouble(origin, error);
            match trouble.hint(origin) {
                Some(hint) => Err(trouble).hint(hint),
                None => Err(trouble.into()),
            }
        })
    }

    fn attempt(
        &self,
        origin: &Origin,
        parts: &Parts<'_>,
        body: &mut Body<'_>,
    ) -> Result<Result<Response, ureq::Error>> {
        let agent = self.agent(origin)?;
        let invalid = |error: http::Error| anyhow!("make a request to {origin}: {error}");
        let builder = parts.builder();
        Ok(match body {
            // Without a length it would go as an empty chunked body, which not every server expects.
            Body::None if matches!(parts.method, "POST" | "PUT" | "PATCH") => {
                agent.run(builder.body(&[][..]).map_err(invalid)?)
            }
            Body::None => agent.run(builder.body(ureq::SendBody::none()).map_err(invalid)?),
            Body::Bytes(bytes) => agent.run(builder.body(&**bytes).map_err(invalid)?),
            Body::Stream(reader, length) => agent.run(
                builder
                    .header("Content-Length", length.to_string())
                    .body(ureq::SendBody::from_reader(*reader))
                    .map_err(invalid)?,
            ),
        })
    }

    fn agent(&self, origin: &Origin) -> Result<ureq::Agent> {
        let mut agents = self.agents.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(agent) = agents.get(origin) {
            return Ok(agent.clone());
        }
        let configuration = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .allow_non_standard_methods(true)
            .user_agent(concat!("coracle/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_recv_response(Some(SILENCE_LIMIT))
            .timeout_per_read(Some(SILENCE_LIMIT))
            .timeout_per_write(Some(SILENCE_LIMIT))
            .max_idle_connections_per_host(8)
            .proxy(trust::proxy(origin)?);
        let tcp = ().chain(ConnectProxyConnector::default()).chain(TcpConnector::default());
        let agent = if origin.secure {
            let connector = tcp.chain(TlsConnector::new(&self.tls(origin)?)?);
            ureq::Agent::with_parts(configuration.build(), connector, HostResolver)
        } else {
            ureq::Agent::with_parts(configuration.build(), tcp, HostResolver)
        };
        agents.insert(origin.clone(), agent.clone());
        Ok(agent)
    }

    fn tls(&self, origin: &Origin) -> Result<tls::Wish> {
        // A client's key is shown to the registry it was given for, never to where it sends us.
        let client = if self.trust.is_for(origin) { self.trust.client_certificate()? } else { None };
        if self.insecure {
            return Ok(tls::Wish { roots: None, client });
        }
        let roots = match self.roots.get() {
            Some(roots) => roots.clone(),
            None => {
                let roots = Arc::new(self.trust.roots()?);
                self.roots.get_or_init(|| roots).clone()
            }
        };
        Ok(tls::Wish { roots: Some(roots), client })
    }
}

/// A header's value as text.
pub fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

/// A header's value as a number.
pub fn number(response: &Response, name: &str) -> Option<u64> {
    header(response, name).and_then(|value| value.trim().parse().ok())
}

/// A body as bytes, at most so many.
pub fn read_body(response: Response, limit_bytes: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let body = response.into_body().into_reader();
    body.take(limit_bytes + 1).read_to_end(&mut bytes).map_err(read_trouble)?;
    ensure!(bytes.len() as u64 <= limit_bytes, "the answer is longer than {limit_bytes} bytes");
    Ok(bytes)
}

/// An error while a body is read: always worth another try.
pub fn read_trouble(error: std::io::Error) -> Trouble {
    let text = match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "the connection was cut".to_owned(),
        std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock => silence(),
        _ => match error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
            Some(ureq::Error::Timeout(_)) => silence(),
            _ => error.to_string(),
        },
    };
    Trouble { text, transient: true, maybe_plain: false }
}

/// Whether the other side closed the connection before it answered.
fn was_closed(error: &ureq::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match error {
        ureq::Error::Io(inner) => {
            matches!(inner.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
        }
        _ => false,
    }
}

fn silence() -> String {
    format!("no data for {} s", SILENCE_LIMIT.as_secs())
}

fn trouble(origin: &Origin, error: ureq::Error) -> Trouble {
    let (text, transient, maybe_plain) = match &error {
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
            (format!("no connection within {} s", CONNECT_LIMIT.as_secs()), true, false)
        }
        ureq::Error::Timeout(_) => (silence(), true, false),
        ureq::Error::HostNotFound => (format!("lookup {}: no such host", origin.host), false, false),
        ureq::Error::ConnectionFailed => ("connection refused".to_owned(), true, true),
        ureq::Error::Rustls(inner) => tls_words(&inner.to_string()),
        ureq::Error::Tls(inner) => (format!("tls: {inner}"), false, true),
        ureq::Error::Io(inner) => {
            let lookup = inner.get_ref().is_some_and(|inner| inner.is::<LookupFailed>());
            let text = inner.to_string();
            match inner.kind() {
                _ if lookup => (text, false, false),
                std::io::ErrorKind::ConnectionRefused => ("connection refused".to_owned(), true, true),
                // rustls speaks through io::Error during the handshake; EOF there is how plain servers answer TLS.
                std::io::ErrorKind::InvalidData => tls_words(&text),
                _ => (text, true, true),
            }
        }
        other => (other.to_string(), true, true),
    };
    Trouble { text: format!("{origin}: {text}"), transient, maybe_plain: maybe_plain && origin.secure }
}

/// What rustls says, in the words people know from other engines where there are such.
fn tls_words(text: &str) -> (String, bool, bool) {
    // Of what is its own authority, and not among ours.
    if text.contains("UnknownIssuer") || text.contains("CaUsedAsEndEntity") {
        return (format!("tls: failed to verify certificate: x509: {UNKNOWN_AUTHORITY}"), false, false);
    }
    if text.contains("InvalidContentType") {
        return (PLAIN.to_owned(), false, true);
    }
    (format!("tls: {text}"), false, !text.contains("certificate"))
}

/// Host names through [`resolve`], never through NSS.
#[derive(Debug)]
struct HostResolver;

#[derive(Debug)]
struct LookupFailed(String);

impl fmt::Display for LookupFailed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for LookupFailed {}

impl Resolver for HostResolver {
    fn resolve(
        &self,
        uri: &http::Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let addresses = resolve::addresses(host)
            .map_err(|error| ureq::Error::Io(std::io::Error::other(LookupFailed(format!("{error:#}")))))?;
        let mut found = self.empty();
        for address in addresses.into_iter().take(16) {
            found.push(SocketAddr::new(address, port));
        }
        if found.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(found) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        assert_eq!(Origin::of("https://A.test/v2/").unwrap().to_string(), "https://a.test");
        assert_eq!(Origin::of("https://a.test:443/").unwrap(), Origin::of("https://a.test").unwrap());
        assert_ne!(Origin::of("http://a.test:443/").unwrap(), Origin::of("https://a.test").unwrap());
        assert_eq!(Origin::of("http://[::1]:5000/x").unwrap().to_string(), "http://[::1]:5000");
        for bad in ["ftp://a", "https://user:pass@a/", "file:///etc/passwd", "/x", "https://"] {
            assert!(Origin::of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn redirects_never_leave_https() {
        let strict = Http::new(Trust::default(), false);
        let loose = Http::new(Trust::default(), true);
        let base = "https://r.test/v2/x/blobs/uploads/?a=b";
        for (location, expected) in [
            ("/v2/y?z", Some("https://r.test/v2/y?z")),
            ("u1", Some("https://r.test/v2/x/blobs/uploads/u1")),
            ("//cdn.test/b", Some("https://cdn.test/b")),
            ("https://cdn.test/b#part", Some("https://cdn.test/b")),
            ("http://r.test/v2/y", Some("https://r.test/v2/y")),
            ("http://cdn.test/b", None),
            ("http://r.test:8080/b", None),
            ("file:///etc/passwd", None),
            ("https://user:secret@cdn.test/b", None),
        ] {
            assert_eq!(strict.join(base, location).ok().as_deref(), expected, "{location}");
        }
        assert_eq!(loose.join(base, "http://cdn.test/b").unwrap(), "http://cdn.test/b");
    }
}
