//! What registries have: search and tags.

use crate::engine::{Engine, registry};
use crate::failure::message_of;
use crate::image::access::Access;
use crate::image::reference::Reference;
use anyhow::{Result, anyhow, bail};

/// What to look for.
#[derive(Clone, Copy)]
pub struct Wish<'a> {
    /// `[REGISTRY/]TERM`.
    pub term: &'a str,
    /// Most results of each registry.
    pub limit: usize,
    /// Which of them.
    pub filters: &'a [Filter],
}

/// A condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// At least so many stars.
    Stars(u64),
    /// Official or not.
    Official(bool),
    /// Built by the registry or not.
    Automated(bool),
}

impl Filter {
    /// `stars=N`, `is-official[=BOOL]`, `is-automated[=BOOL]`.
    pub fn parse(text: &str) -> Result<Filter> {
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let truth = || match value {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(anyhow!("incorrect value type for {name} filter: `{other}`")),
        };
        Ok(match name {
            "stars" => {
                let stars = value.and_then(|value| value.parse().ok());
                Filter::Stars(stars.ok_or_else(|| anyhow!("incorrect value type for stars filter: `{text}`"))?)
            }
            "is-official" => Filter::Official(truth()?),
            "is-automated" => Filter::Automated(truth()?),
            _ => bail!("invalid filter type \"{text}\": stars, is-official or is-automated"),
        })
    }
}

/// One repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it is.
    pub registry: String,
    /// Its full name.
    pub name: String,
    /// What it is.
    pub description: String,
    /// How many like it.
    pub stars: u64,
    /// Official.
    pub official: bool,
    /// Built by the registry.
    pub automated: bool,
}

/// Search the registry of the term, or all of the search list. One that fails is told of; if all do, that is the error.
pub fn search(engine: &Engine, access: Access, wish: Wish<'_>) -> Result<Vec<Line>> {
    let network = registry::network(engine, access)?;
    let (registries, term) = match wish.term.split_once('/') {
        Some((host, term)) if Reference::is_qualified(wish.term) => (vec![host.to_owned()], term),
        _ => (network.registries.search_list(), wish.term),
    };
    let mut found = Vec::new();
    let mut trouble = None;
    let mut asked = 0;
    for name in &registries {
        let one = || -> Result<Vec<Line>> {
            let client = network.registry(name, None, network.registries.is_insecure(name))?;
            match client.search(term, wish.limit) {
                Ok(lines) => Ok(lines.into_iter().map(|line| Line::of(name, line)).collect()),
                // No such search there: the names it lists.
                Err(error) if name != "docker.io" => match client.catalog(usize::MAX) {
                    Ok(names) => Ok(names
                        .into_iter()
                        .filter(|name| name.contains(term))
                        .map(|found| Line::named(name, &found))
                        .collect()),
                    Err(_) => Err(error),
                },
                Err(error) => Err(error),
            }
        };
        match one() {
            Ok(mut lines) => {
                asked += 1;
                lines.retain(|line| wish.filters.iter().all(|filter| line.passes(*filter)));
                lines.truncate(wish.limit);
                found.extend(lines);
            }
            Err(error) => trouble = Some(error.context(format!("searching in registry {name}"))),
        }
    }
    match trouble {
        Some(error) if asked == 0 => Err(error),
        Some(error) => {
            eprintln!("coracle: {}", message_of(&error));
            Ok(found)
        }
        None => Ok(found),
    }
}

/// All tags of a repository, with its full name.
pub fn tags(engine: &Engine, access: Access, term: &str) -> Result<(String, Vec<String>)> {
    let network = registry::network(engine, access)?;
    let term = term.strip_prefix("docker://").unwrap_or(term);
    let name = network.registries.candidates(term)?.remove(0);
    Ok((name.name(), network.target(&name)?.tags()?))
}

impl Line {
    fn of(registry: &str, line: crate::image::registry::SearchResult) -> Line {
        // Docker Hub leaves `library/` off its own images.
        let name = if registry == "docker.io" && !line.name.contains('/') {
            format!("{registry}/library/{}", line.name)
        } else {
            format!("{registry}/{}", line.name)
        };
        Line {
            registry: registry.to_owned(),
            name,
            description: line.description,
            stars: line.star_count,
            official: line.is_official,
            automated: line.is_automated,
        }
    }

    fn named(registry: &str, name: &str) -> Line {
        Line {
            registry: registry.to_owned(),
            name: format!("{registry}/{name}"),
            description: String::new(),
            stars: 0,
            official: false,
            automated: false,
        }
    }

    fn passes(&self, filter: Filter) -> bool {
        match filter {
            Filter::Stars(least) => self.stars >= least,
            Filter::Official(wanted) => self.official == wanted,
            Filter::Automated(wanted) => self.automated == wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        assert_eq!(Filter::parse("stars=3").unwrap(), Filter::Stars(3));
        assert_eq!(Filter::parse("is-official").unwrap(), Filter::Official(true));
        assert_eq!(Filter::parse("is-automated=false").unwrap(), Filter::Automated(false));
        for bad in ["stars", "stars=x", "is-official=perhaps", "other=1"] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
    }
}
