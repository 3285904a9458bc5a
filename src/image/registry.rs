//! The distribution protocol (OCI distribution-spec 1.1): requests to a registry, with its scheme found out, its challenges
//! answered and its failures told.
//!
//! What is asked for is in `repository` and `list`. Not uploads (`upload`), not which registry to ask (`conf`), not what to
//! do with what comes (`pull`).

mod list;
mod repository;
mod status;

pub use list::SearchResult;
pub use repository::{Fetched, Repository};
pub use status::{StatusError, is_missing, is_transient};

use crate::failure::Explain;
use crate::image::auth::{Authenticator, Credentials};
use crate::image::http::{self, Body, Http, Origin, Request, Response, Trouble};
use crate::image::trust::Trust;
use anyhow::{Result, bail};
use status::read_error;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const ERROR_LIMIT_BYTES: u64 = 64 << 10;
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
