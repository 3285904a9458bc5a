//! Answers that are no success: what the registry says, and whether another try may help.

use crate::image::http::Trouble;
use serde::Deserialize;
use std::fmt;

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

/// An error document (distribution-spec, "Error Codes"), or what the status alone says.
pub(super) fn read_error(status: u16, body: &[u8]) -> StatusError {
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

#[cfg(test)]
mod tests {
    use super::*;

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
