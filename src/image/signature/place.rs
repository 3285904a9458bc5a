//! registries.d: where the signatures of a registry's images are (containers-registries.d(5)).
//!
//! Of these files only `use-sigstore-attachments` matters here; `lookaside` is for GPG signatures, which are not checked.

use crate::image::policy::registry_scopes;
use crate::image::reference::Reference;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The system's directory.
pub const SYSTEM: &str = "/etc/containers/registries.d";

/// What all files say together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Places {
    default: Option<bool>,
    scopes: BTreeMap<String, Option<bool>>,
}

/// Read the user's directory if there is one, else the system's.
pub fn load() -> Result<Places> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    let user = user.map(|user| user.join("containers/registries.d")).filter(|user| user.is_dir());
    let folder = user.unwrap_or_else(|| PathBuf::from(SYSTEM));
    let mut places = Places::default();
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(places),
        Err(error) => return Err(error).with_context(|| format!("read {}", folder.display())),
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    for path in paths {
        places.merge_file(&path).with_context(|| format!("read {}", path.display()))?;
    }
    Ok(places)
}

impl Places {
    /// Whether signatures stand beside the image, under a tag of its repository. The most exact scope that says so wins.
    pub fn uses_attachments(&self, name: &Reference) -> bool {
        let said = registry_scopes(name).iter().find_map(|scope| self.scopes.get(scope).copied().flatten());
        said.or(self.default).unwrap_or(false)
    }

    fn merge_file(&mut self, path: &Path) -> Result<()> {
        self.merge(&std::fs::read_to_string(path)?)
    }

    /// One file's text. It is YAML, of which these files use mappings and scalars.
    fn merge(&mut self, text: &str) -> Result<()> {
        // The keys that lead to a line, with the columns where they stand.
        let mut above: Vec<(usize, String)> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let bare = without_comment(line);
            let content = bare.trim();
            if content.is_empty() || content == "---" {
                continue;
            }
            let wrong = || format!("line {}: `{content}` is not `KEY: VALUE`", number + 1);
            ensure!(!content.starts_with(['-', '{', '[', '&', '*', '?', '|', '>']), "{}", wrong());
            let column = bare.len() - bare.trim_start_matches(' ').len();
            above.retain(|(other, _)| *other < column);
            let (key, value) = split(content).with_context(wrong)?;
            let names: Vec<&str> = above.iter().map(|(_, name)| name.as_str()).collect();
            self.take(&names, &key, value).with_context(|| format!("line {}", number + 1))?;
            if value.is_empty() {
                above.push((column, key));
            }
        }
        Ok(())
    }

    fn take(&mut self, above: &[&str], key: &str, value: &str) -> Result<()> {
        match (above, key) {
            (["docker"], scope) => {
                let new = self.scopes.insert(scope.to_owned(), None).is_none();
                ensure!(new, "`{scope}` stands twice");
            }
            (["default-docker"], "use-sigstore-attachments") => self.default = Some(boolean(value)?),
            (["docker", scope], "use-sigstore-attachments") => {
                self.scopes.insert((*scope).to_owned(), Some(boolean(value)?));
            }
            _ => {}
        }
        Ok(())
    }
}

fn boolean(text: &str) -> Result<bool> {
    match text {
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" => Ok(false),
        _ => bail!("use-sigstore-attachments: `{text}` is neither true nor false"),
    }
}

/// A `#` begins a comment at the line's beginning and after a space.
fn without_comment(line: &str) -> &str {
    let start = line.char_indices().position(|(at, letter)| letter == '#' && line[..at].ends_with([' ', '\t']));
    let start = if line.starts_with('#') { Some(0) } else { start };
    start.and_then(|start| line.char_indices().nth(start)).map_or(line, |(at, _)| &line[..at])
}

/// `key: value`, the key perhaps in quotes, for it may hold a port.
fn split(content: &str) -> Option<(String, &str)> {
    let (key, rest) = match content.chars().next()? {
        quote @ ('"' | '\'') => {
            let (key, rest) = content[1..].split_once(quote)?;
            (key, rest.trim_start().strip_prefix(':')?)
        }
        _ => match content.split_once(": ") {
            Some((key, rest)) => (key, rest),
            None => (content.strip_suffix(':')?, ""),
        },
    };
    Some((key.trim().to_owned(), rest.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_exact_scope_wins() {
        let mut places = Places::default();
        let text = "# comment\ndefault-docker:\n  use-sigstore-attachments: true # all\n  lookaside: file:///var/x#y\n\
            docker:\n  r.test:5000:\n    use-sigstore-attachments: false\n  \"r.test:5000/a\":\n\
            \x20   use-sigstore-attachments: true\n  r.test/b:\n    lookaside: https://x\n";
        places.merge(text).unwrap();
        for (name, expected) in [
            ("x.test/a:1", true),
            ("r.test:5000/b:1", false),
            ("r.test:5000/a:1", true),
            ("r.test:5000/a/c:1", true),
            ("r.test/b:1", true),
        ] {
            assert_eq!(places.uses_attachments(&Reference::parse(name).unwrap()), expected, "{name}");
        }
        assert!(!Places::default().uses_attachments(&Reference::parse("r.test/a").unwrap()));
        for bad in
            ["docker:\n  r.test:\n  r.test:\n", "- a\n", "docker\n", "default-docker:\n  use-sigstore-attachments: 7\n"]
        {
            assert!(Places::default().merge(bad).is_err(), "{bad}");
        }
    }
}
