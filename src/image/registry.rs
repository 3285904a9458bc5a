//! The distribution protocol (OCI distribution-spec 1.1) towards one repository: manifests, blobs, tags, referrers.
//!
//! Not uploads (`upload`), not which registry to ask (`conf`), not what to do with what comes (`pull`).
//!
//! Invariant: what [`Repository::manifest`] returns has the digest that was asked for, or, for a tag, the digest that is
//! computed here; a server's word about digests and sizes is compared, never believed.

use crate::failure::Explain;
use crate::image::auth::{self, Authenticator, Credentials};
use crate::image::http::{self, Body, Http, Origin, Request, Response, Trouble};
use crate::image::manifest::{self, Descriptor, Document, media};
use crate::image::trust::Trust;
use crate::model::digest::Digest;
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const ERROR_LIMIT_BYTES: u64 = 64 << 10;
const LIST_LIMIT_BYTES: u64 = 16 << 20;
const PAGES_LIMIT: usize = 10_000;
/// Longer than this we do not wait because a server says so.
const WAIT_LIMIT: Duration = Duration::from_secs(60);

/// How to reach a registry, as the command line and the configuration say.
#[derive(Clone, Debug)]
pub struct Options {
    /// Plain http and unknown certificates are allowed.
    pub insecure: bool,
    /// `--cert-dir`.
    pub cert_dir: Option<PathBuf>,
    /// Who we are.
    pub credentials: Option<Credentials>,
    /// How often a request is tried again.
    pub retries: u32,
    /// The pause before another try; absent: 1 s, doubled each time.
    pub retry_delay: Option<Duration>,
}

/// A registry: connections, scheme and tokens are shared by all its repositories.
pub struct Registry {
    /// `host[:port]` as people write it.
    name: String,
    http: Http,
    auth: Authenticator,
    options: Options,
    origin: Mutex<Option<Origin>>,
}

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

/// An answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusError {
    /// The HTTP status.
    pub status: u16,
    /// `MANIFEST_UNKNOWN`, …; empty if the server sent none.
    pub code: String,
    /// The server's text.
    pub message: String,
}

impl fmt::Display for StatusError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code.to_ascii_lowercase().replace('_', " ");
        match (code.as_str(), self.message.as_str(), self.status) {
            ("", "", 401) => formatter.write_str("unauthorized: authentication required"),
            ("", "", 403) => formatter.write_str("denied: requested access to the resource is denied"),
            ("", "", 404) => formatter.write_str("not found (404)"),
            ("", "", status) => write!(formatter, "the server answers {status}"),
            ("", message, status) => write!(formatter, "the server answers {status}: {message}"),
            (code, message, _) if message.is_empty() || message == code => formatter.write_str(code),
            (code, message, _) => write!(formatter, "{code}: {message}"),
        }
    }
}

impl std::error::Error for StatusError {}

/// Whether the error says that what was asked for is not there.
pub fn is_missing(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<StatusError>().is_some_and(|status| status.status == 404))
}

/// Whether the error may go away by itself.
pub fn is_transient(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<Trouble>().is_some_and(|trouble| trouble.transient)
            || cause.downcast_ref::<StatusError>().is_some_and(|status| matches!(status.status, 429 | 500 | 502..=504))
    })
}

/// A request in the registry's terms.
pub struct Call<'a> {
    /// `GET`, …
    pub method: &'a str,
    /// Below the origin, `/v2/…`; or absolute, for uploads.
    pub path: &'a str,
    /// Further headers.
    pub headers: &'a [(&'static str, String)],
    /// The body.
    pub body: Body<'a>,
    /// What a token must allow.
    pub scope: &'a str,
}

impl Registry {
    /// A registry `host[:port]`.
    pub fn new(name: &str, options: Options) -> Registry {
        let trust = Trust::new(name, options.cert_dir.as_deref());
        Registry {
            name: name.to_owned(),
            http: Http::new(trust, options.insecure),
            auth: Authenticator::new(options.credentials.clone()),
            options,
            origin: Mutex::new(None),
        }
    }

    /// `host[:port]` as people write it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A repository of it.
    pub fn repository(self: &Arc<Registry>, name: &str) -> Repository {
        Repository { registry: self.clone(), name: name.to_owned() }
    }

    /// Ask whether it is a registry that lets us in (`login`).
    pub fn check(&self) -> Result<()> {
        let response = self.send(Call { method: "GET", path: "/v2/", headers: &[], body: Body::None, scope: "" })?;
        self.succeed(response, &[200]).map(drop)
    }

    /// The repositories it lists.
    pub fn catalog(&self, limit: usize) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            repositories: Option<Vec<String>>,
        }
        let read = |page: Page| page.repositories.unwrap_or_default();
        self.pages("/v2/_catalog?n=1000", "registry:catalog:*", limit, read)
    }

    /// Docker Hub's search, which some registries have too.
    pub fn search(&self, term: &str, limit: usize) -> Result<Vec<SearchResult>> {
        #[derive(Deserialize)]
        struct Page {
            results: Vec<SearchResult>,
        }
        let query = auth::query(&[("q", Some(term)), ("n", Some(&limit.to_string()))]);
        let path = format!("/v1/search?{query}");
        let call = Call { method: "GET", path: &path, headers: &[], body: Body::None, scope: "" };
        let response = if self.name == "docker.io" {
            // The search lives on another host than the registry does.
            let url = format!("https://index.docker.io{path}");
            self.http.send(Request {
                method: "GET",
                url: &url,
                headers: &[],
                authorization: None,
                body: Body::None,
                follow: true,
            })?
        } else {
            self.send(call)?
        };
        let response = self.succeed(response, &[200])?;
        let page: Page = serde_json::from_slice(&http::read_body(response, LIST_LIMIT_BYTES)?)?;
        Ok(page.results)
    }

    fn pages<T: for<'a> Deserialize<'a>>(
        &self,
        path: &str,
        scope: &str,
        limit: usize,
        read: impl Fn(T) -> Vec<String>,
    ) -> Result<Vec<String>> {
        let mut found = Vec::new();
        let mut path = path.to_owned();
        for _ in 0..PAGES_LIMIT {
            let response = self.send(Call { method: "GET", path: &path, headers: &[], body: Body::None, scope })?;
            let response = self.succeed(response, &[200])?;
            let next = http::header(&response, "link").and_then(next_link).map(str::to_owned);
            let page = serde_json::from_slice(&http::read_body(response, LIST_LIMIT_BYTES)?)?;
            let more = read(page);
            let empty = more.is_empty();
            found.extend(more);
            match next {
                Some(next) if !empty && found.len() < limit => {
                    // Only the path is taken: a link must not lead our token to another host.
                    let url = self.http.join(&format!("{}{path}", self.origin()?), &next)?;
                    ensure!(Origin::of(&url)? == self.origin()?, "the list goes on at another host, {url}: refused");
                    path = url[self.origin()?.to_string().len()..].to_owned();
                }
                _ => break,
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    /// Where requests go.
    pub fn origin(&self) -> Result<Origin> {
        match &*self.origin.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(origin) => Ok(origin.clone()),
            None => Origin::new(true, self.host()),
        }
    }

    fn host(&self) -> &str {
        if self.name == "docker.io" { "registry-1.docker.io" } else { &self.name }
    }

    /// The URL a `Location` means.
    pub fn join(&self, base: &str, location: &str) -> Result<String> {
        self.http.join(base, location)
    }

    /// One request: the scheme found out, the challenge answered, redirects followed, transient failures tried again.
    /// The answer may be of any status.
    pub fn send(&self, call: Call<'_>) -> Result<Response> {
        let Call { method, path, headers, mut body, scope } = call;
        let mut tries = 0;
        loop {
            let body = match &mut body {
                Body::None => Body::None,
                Body::Bytes(bytes) => Body::Bytes(bytes),
                Body::Stream(reader, length) => Body::Stream(&mut **reader, *length),
            };
            let once = matches!(body, Body::Stream(..));
            let result = self.send_authenticated(Call { method, path, headers, body, scope });
            let wait = match &result {
                Ok(response) => match response.status().as_u16() {
                    429 | 500 | 502..=504 => self.pause(tries, http::number(response, "retry-after")),
                    _ => None,
                },
                Err(error) if is_transient(error) => self.pause(tries, None),
                Err(_) => None,
            };
            match wait {
                Some(wait) if !once && tries < self.options.retries => std::thread::sleep(wait),
                _ => return result,
            }
            tries += 1;
        }
    }

    /// How long to wait before another try; `None`: it is not worth it.
    pub fn pause(&self, tries: u32, asked_s: Option<u64>) -> Option<Duration> {
        let own = match self.options.retry_delay {
            Some(delay) => delay,
            None => Duration::from_secs(1) * 2_u32.pow(tries.min(5)),
        };
        let asked = asked_s.map(Duration::from_secs);
        match asked {
            Some(asked) if asked > WAIT_LIMIT => None,
            Some(asked) => Some(asked.max(own)),
            None => Some(own),
        }
    }

    /// How often to try again.
    pub fn retries(&self) -> u32 {
        self.options.retries
    }

    fn send_authenticated(&self, call: Call<'_>) -> Result<Response> {
        let Call { method, path, headers, mut body, scope } = call;
        for attempt in 0..2 {
            let origin = self.find_scheme()?;
            let url = if path.starts_with('/') { format!("{origin}{path}") } else { path.to_owned() };
            // An upload may be sent on to another host: our credentials stay here.
            let own = Origin::of(&url)? == origin;
            let authorization = if own { self.auth.authorization(&self.http, &origin, scope)? } else { None };
            let body = match &mut body {
                Body::None => Body::None,
                Body::Bytes(bytes) => Body::Bytes(bytes),
                Body::Stream(reader, length) => Body::Stream(&mut **reader, *length),
            };
            let once = matches!(body, Body::Stream(..));
            let response = self.http.send(Request {
                method,
                url: &url,
                headers,
                authorization: authorization.as_deref(),
                body,
                follow: matches!(method, "GET" | "HEAD"),
            })?;
            let refused = response.status().as_u16() == 401 && own && attempt == 0 && !once;
            if refused && self.auth.challenged(&response, authorization.as_deref(), scope) {
                continue;
            }
            return Ok(response);
        }
        bail!("unauthorized: authentication required")
    }

    /// https; or http where the registry is marked insecure and does not speak TLS.
    fn find_scheme(&self) -> Result<Origin> {
        let mut known = self.origin.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(origin) = &*known {
            return Ok(origin.clone());
        }
        let secure = Origin::new(true, self.host())?;
        let origin =
            if self.options.insecure && !self.speaks_tls(&secure)? { Origin::new(false, self.host())? } else { secure };
        Ok(known.insert(origin).clone())
    }

    fn speaks_tls(&self, secure: &Origin) -> Result<bool> {
        let url = format!("{secure}/v2/");
        let request =
            Request { method: "GET", url: &url, headers: &[], authorization: None, body: Body::None, follow: false };
        match self.http.send(request) {
            // Some servers answer plain text to TLS, some TLS servers answer anything: an answer over TLS is TLS.
            Ok(_) => Ok(true),
            Err(error) if error.downcast_ref::<Trouble>().is_some_and(|trouble| trouble.maybe_plain) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The response, if its status is one of these; else the error that it is.
    pub fn succeed(&self, response: Response, statuses: &[u16]) -> Result<Response> {
        let status = response.status().as_u16();
        if statuses.contains(&status) {
            return Ok(response);
        }
        let wait = http::number(&response, "retry-after");
        let json = http::header(&response, "content-type").is_some_and(|found| found.contains("json"));
        let body = http::read_body(response, ERROR_LIMIT_BYTES).unwrap_or_default();
        let error = read_error(status, json.then_some(&body[..]).unwrap_or_default());
        let anonymous = self.auth.is_anonymous();
        let result: Result<Response> = Err(error.into());
        match status {
            429 => {
                let wait = wait.map(|wait| format!(", or wait {wait} s as the server asks")).unwrap_or_default();
                let log_in =
                    if anonymous { format!("log in with `coracle login {}`", self.name) } else { String::new() };
                let hint = match (log_in.is_empty(), wait.is_empty()) {
                    (false, _) => format!("the registry limits how much is pulled: {log_in}{wait}"),
                    (true, false) => format!("the registry limits how much is pulled{wait}"),
                    (true, true) => "the registry limits how much is pulled: wait, or use a mirror".to_owned(),
                };
                result.hint(hint)
            }
            401 | 403 if anonymous => result.hint(format!("log in with `coracle login {}`", self.name)),
            _ => result,
        }
    }
}

/// One line of a search.
#[derive(Clone, Debug, Deserialize)]
pub struct SearchResult {
    /// The repository.
    pub name: String,
    /// What it is.
    #[serde(default)]
    pub description: String,
    /// How many like it.
    #[serde(default)]
    pub star_count: u64,
    /// Official.
    #[serde(default)]
    pub is_official: bool,
    /// Built by the registry.
    #[serde(default)]
    pub is_automated: bool,
}

/// `</v2/…?n=…>; rel="next"`.
fn next_link(text: &str) -> Option<&str> {
    text.split(',').find_map(|part| {
        let (target, parameters) = part.split_once(';')?;
        let is_next = parameters.contains("rel=\"next\"") || parameters.contains("rel=next");
        is_next.then(|| target.trim().strip_prefix('<')?.strip_suffix('>')).flatten()
    })
}

fn read_error(status: u16, body: &[u8]) -> StatusError {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let first = serde_json::from_slice::<Errors>(body).ok().and_then(|errors| errors.errors.into_iter().next());
    let (code, message) = first.map_or_else(Default::default, |first| (first.code, first.message));
    // A server's text goes to a terminal: no control characters.
    let clean = |text: String| text.chars().filter(|letter| !letter.is_control()).take(500).collect::<String>();
    StatusError { status, code: clean(code), message: clean(message) }
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
        assert_eq!(next_link("</v2/x?n=1>; rel=\"next\""), Some("/v2/x?n=1"));
        assert_eq!(next_link("</a>; rel=prev, </b>; rel=next"), Some("/b"));
        assert_eq!(next_link("/v2/x"), None);
    }

    #[test]
    fn errors_read_as_people_know_them() {
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#;
        assert_eq!(read_error(404, body).to_string(), "manifest unknown");
        let body = br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit"}]}"#;
        assert_eq!(read_error(429, body).to_string(), "toomanyrequests: You have reached your pull rate limit");
        assert_eq!(read_error(401, b"").to_string(), "unauthorized: authentication required");
        assert_eq!(read_error(418, b"<html>").to_string(), "the server answers 418");
        let body = b"{\"errors\":[{\"code\":\"X\",\"message\":\"a\\u001b[31mb\"}]}";
        assert_eq!(read_error(400, body).to_string(), "x: a[31mb");
    }
}
