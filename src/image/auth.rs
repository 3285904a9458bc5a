//! Authentication towards a registry: challenges, Basic, and tokens of a token server.
//!
//! Not where credentials are kept (`auth_file`).
//!
//! Invariants: a challenge is taken from the registry itself only, never from a host it redirects to; the token server
//! must be https where the registry is (CVE-2020-15157 and its kin); we ask for the scope we need, not for the one the
//! challenge names; one request is answered to at most one challenge, so a registry cannot keep us in a loop.

use crate::image::http::{self, Body, Http, Origin, Request, Response};
use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use serde::Deserialize;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const TOKEN_LIMIT_BYTES: u64 = 1 << 20;

/// Who we are to a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password or access token.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A refresh token (docker's `identitytoken`).
    Identity(String),
}

impl Credentials {
    /// `--creds USER[:PASSWORD]`.
    pub fn parse(text: &str) -> Result<Credentials> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        ensure!(!user.is_empty(), "credentials can not be empty: USER[:PASSWORD]");
        Ok(Credentials::Password { user: user.to_owned(), password: password.to_owned() })
    }

    fn basic(user: &str, password: &str) -> String {
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A secret must not reach a log by way of {:?}.
        formatter.write_str("Credentials(…)")
    }
}

/// One challenge of a `WWW-Authenticate` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// `basic`, `bearer`, in lower case.
    pub scheme: String,
    /// `realm`, `service`, `scope`, …
    pub parameters: HashMap<String, String>,
}

/// What a registry turned out to want.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Basic,
    Token { realm: String, service: Option<String> },
}

/// The authentication of one registry, shared by all requests to it.
pub struct Authenticator {
    credentials: Option<Credentials>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    wanted: Option<Wanted>,
    tokens: HashMap<String, (String, Instant)>,
}

impl Authenticator {
    /// With these credentials, or anonymous.
    pub fn new(credentials: Option<Credentials>) -> Authenticator {
        Authenticator { credentials, state: Mutex::default() }
    }

    /// Whether we have credentials at all.
    pub fn is_anonymous(&self) -> bool {
        self.credentials.is_none()
    }

    /// What to send with a request of this scope, as far as is known; asks the token server if it has to.
    pub fn authorization(&self, http: &Http, registry: &Origin, scope: &str) -> Result<Option<String>> {
        // The lock is held while a token is fetched: of several layers' requests one asks, the others wait for it.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.wanted.clone() {
            None => Ok(None),
            Some(Wanted::Basic) => match &self.credentials {
                Some(Credentials::Password { user, password }) => Ok(Some(Credentials::basic(user, password))),
                _ => Ok(None),
            },
            Some(Wanted::Token { realm, service }) => {
                if let Some((token, until)) = state.tokens.get(scope)
                    && *until > Instant::now()
                {
                    return Ok(Some(format!("Bearer {token}")));
                }
                let (token, valid) = self.fetch_token(http, registry, &realm, service.as_deref(), scope)?;
                let header = format!("Bearer {token}");
                state.tokens.insert(scope.to_owned(), (token, Instant::now() + valid));
                Ok(Some(header))
            }
        }
    }

    /// Take in a 401. Returns whether another try makes sense.
    pub fn challenged(&self, response: &Response, used: Option<&str>, scope: &str) -> bool {
        let mut found = Vec::new();
        for value in response.headers().get_all("www-authenticate") {
            if let Ok(value) = value.to_str() {
                found.extend(parse_challenges(value));
            }
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Refused with a token: another thread may have a newer one; otherwise the next must be fresh.
        if let Some(used) = used.and_then(|used| used.strip_prefix("Bearer "))
            && state.tokens.get(scope).is_some_and(|(token, _)| token == used)
        {
            state.tokens.remove(scope);
        }
        let bearer = found.iter().find_map(|challenge| match challenge.scheme.as_str() {
            "bearer" => Some(Wanted::Token {
                realm: challenge.parameters.get("realm")?.clone(),
                service: challenge.parameters.get("service").cloned(),
            }),
            _ => None,
        });
        let has_password = matches!(self.credentials, Some(Credentials::Password { .. }));
        let basic = found.iter().any(|challenge| challenge.scheme == "basic") && has_password;
        let wanted = bearer.or(basic.then_some(Wanted::Basic));
        if wanted.is_none() {
            return false;
        }
        // Basic with the same password again would only be refused again.
        let again = !(wanted == Some(Wanted::Basic) && used.is_some());
        state.wanted = wanted;
        again
    }

    fn fetch_token(
        &self,
        http: &Http,
        registry: &Origin,
        realm: &str,
        service: Option<&str>,
        scope: &str,
    ) -> Result<(String, Duration)> {
        let server = Origin::of(realm).context("read the registry's challenge: its realm")?;
        if registry.secure && !server.secure && !http.insecure() {
            bail!("{registry} wants us to log in at {server}: refused, for https would become plain http");
        }
        let what = || format!("get a token from {server}");
        let account = match &self.credentials {
            Some(Credentials::Password { user, .. }) => Some(user.as_str()),
            _ => None,
        };
        let response = if let Some(Credentials::Identity(token)) = &self.credentials {
            let form = query(&[
                ("grant_type", Some("refresh_token")),
                ("service", service),
                ("scope", Some(scope).filter(|scope| !scope.is_empty())),
                ("client_id", Some("coracle")),
                ("refresh_token", Some(token)),
            ]);
            let headers = [("Content-Type", "application/x-www-form-urlencoded".to_owned())];
            http.send(Request {
                method: "POST",
                url: realm,
                headers: &headers,
                authorization: None,
                body: Body::Bytes(form.as_bytes()),
                follow: false,
            })
        } else {
            // Several scopes are several parameters.
            let mut parameters = vec![("account", account), ("service", service)];
            parameters.extend(scope.split(' ').filter(|scope| !scope.is_empty()).map(|scope| ("scope", Some(scope))));
            let parameters = query(&parameters);
            let separator = if realm.contains('?') { '&' } else { '?' };
            let basic = match &self.credentials {
                Some(Credentials::Password { user, password }) => Some(Credentials::basic(user, password)),
                _ => None,
            };
            http.send(Request {
                method: "GET",
                url: &format!("{realm}{separator}{parameters}"),
                headers: &[],
                authorization: basic.as_deref(),
                body: Body::None,
                follow: true,
            })
        }
        .with_context(what)?;
        let status = response.status().as_u16();
        match status {
            200 => {}
            401 | 403 => return Err(Refused { status }.into()),
            _ => bail!("{}: the server answers {status}", what()),
        }
        let bytes = http::read_body(response, TOKEN_LIMIT_BYTES).with_context(what)?;
        let answer: TokenAnswer = serde_json::from_slice(&bytes).with_context(what)?;
        let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
        let token = token.with_context(|| format!("{}: there is none in the answer", what()))?;
        ensure!(token.bytes().all(|byte| byte.is_ascii_graphic()), "{}: it holds odd bytes", what());
        // The specification's default is a minute; a little is kept in hand for the way.
        let valid = answer.expires_in.unwrap_or(60).clamp(10, 24 * 3600) * 9 / 10;
        Ok((token, Duration::from_secs(valid)))
    }
}

/// The token server knows neither name nor password.
#[derive(Debug)]
pub struct Refused {
    status: u16,
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            401 => formatter.write_str("unauthorized: authentication required"),
            _ => formatter.write_str("denied: requested access to the resource is denied"),
        }
    }
}

impl std::error::Error for Refused {}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// A query string of those that are there.
pub fn query(parameters: &[(&str, Option<&str>)]) -> String {
    let mut text = String::new();
    for (name, value) in parameters {
        if let Some(value) = value {
            if !text.is_empty() {
                text.push('&');
            }
            text.push_str(name);
            text.push('=');
            text.push_str(&percent(value));
        }
    }
    text
}

/// Percent-encoding of all but unreserved bytes (RFC 3986).
pub fn percent(text: &str) -> String {
    use fmt::Write;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte as char);
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// The challenges of one header (RFC 9110, 11.6.1). What cannot be read ends the list.
pub fn parse_challenges(text: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let end = rest.find([' ', '=', ',']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            break;
        }
        if let Some(value) = after.trim_start().strip_prefix('=') {
            let Some(challenge) = found.last_mut() else { break };
            let Some((value, after)) = parameter_value(value.trim_start()) else { break };
            // The first wins: a second `realm` must not redirect what a reader saw.
            challenge.parameters.entry(word.to_ascii_lowercase()).or_insert(value);
            rest = after;
        } else {
            found.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: HashMap::new() });
            rest = after;
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    found
}

fn parameter_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut escaped = false;
    for (index, letter) in quoted.char_indices() {
        match letter {
            _ if escaped => {
                value.push(letter);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((value, &quoted[index + 1..])),
            _ => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let text = r#"Bearer realm="https://auth.test/token?x=\"y\"",service="r, s",scope=a:b:pull , Basic realm="z""#;
        let found = parse_challenges(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].scheme, "bearer");
        assert_eq!(found[0].parameters["realm"], "https://auth.test/token?x=\"y\"");
        assert_eq!(found[0].parameters["service"], "r, s");
        assert_eq!(found[0].parameters["scope"], "a:b:pull");
        assert_eq!(found[1].scheme, "basic");
        for odd in ["", ",", "=", "Bearer realm=\"open", "Bearer =", "Negotiate", "a=b", "Bearer realm=\"\\"] {
            let _ = parse_challenges(odd);
        }
        let twice = parse_challenges(r#"Bearer realm="https://one",realm="https://two""#);
        assert_eq!(twice[0].parameters["realm"], "https://one");
    }

    #[test]
    fn realms_that_would_give_the_password_away_are_refused() {
        let http = Http::new(crate::image::trust::Trust::default(), false);
        let registry = Origin::of("https://r.test").unwrap();
        let password = Credentials::Password { user: "u".into(), password: "p".into() };
        for (realm, expected) in [
            ("http://r.test/token", "https would become plain http"),
            ("http://r.test:443/token", "https would become plain http"),
            ("ftp://r.test/token", "neither http nor https"),
            ("file:///etc/passwd", "is not a URL"),
            ("//r.test/token", "neither http nor https"),
            ("https://u:p@other.test/token", "holds credentials"),
            ("", "is not a URL"),
        ] {
            let auth = Authenticator::new(Some(password.clone()));
            let response = ureq::http::Response::builder()
                .status(401)
                .header("www-authenticate", format!("Bearer realm=\"{realm}\",service=\"s\""))
                .body(ureq::Body::builder().data(""))
                .unwrap();
            assert!(auth.challenged(&response, None, "repository:x:pull"), "{realm}");
            let refused = auth.authorization(&http, &registry, "repository:x:pull").unwrap_err();
            assert!(format!("{refused:#}").contains(expected), "{realm}: {refused:#}");
        }
    }

    #[test]
    fn queries() {
        let text = query(&[("account", None), ("scope", Some("repository:a/b:pull,push")), ("service", Some("r s"))]);
        assert_eq!(text, "scope=repository%3Aa%2Fb%3Apull%2Cpush&service=r%20s");
    }

    #[test]
    fn creds() {
        let both = Credentials::Password { user: "u".into(), password: "p:q".into() };
        assert!(Credentials::parse("u:p:q").unwrap() == both);
        assert!(Credentials::parse(":p").is_err());
        assert!(!format!("{both:?}").contains("p:q"));
    }
}
