//! What a registry lists: its repositories, what a search finds.

use crate::image::auth;
use crate::image::http::{self, Body, Origin, Request};
use crate::image::registry::{Call, Registry};
use anyhow::{Result, ensure};
use serde::Deserialize;

const LIST_LIMIT_BYTES: u64 = 16 << 20;
const PAGES_LIMIT: usize = 10_000;

impl Registry {
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

    pub(super) fn pages<T: for<'a> Deserialize<'a>>(
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_pages() {
        assert_eq!(next_link("</v2/x?n=1>; rel=\"next\""), Some("/v2/x?n=1"));
        assert_eq!(next_link("</a>; rel=prev, </b>; rel=next"), Some("/b"));
        assert_eq!(next_link("/v2/x"), None);
    }
}
