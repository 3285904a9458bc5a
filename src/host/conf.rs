//! Where containers.conf(5) is: the files in the order in which a later one goes over an earlier.

use anyhow::{Context, Result};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The text of each file that is there: the system's, the user's, and those of the environment.
pub fn read() -> Result<Vec<(PathBuf, String)>> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut paths = match variable("CONTAINERS_CONF") {
        Some(path) => vec![path],
        None => {
            let user = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
            let mut paths = vec!["/usr/share/containers/containers.conf".into()];
            for folder in std::iter::once(PathBuf::from("/etc")).chain(user) {
                paths.push(folder.join("containers/containers.conf"));
                paths.extend(drop_ins(&folder.join("containers/containers.conf.d"))?);
            }
            paths
        }
    };
    paths.extend(variable("CONTAINERS_CONF_OVERRIDE"));
    let mut texts = Vec::new();
    for path in paths {
        match std::fs::read_to_string(&path) {
            Ok(text) => texts.push((path, text)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
    Ok(texts)
}

/// The files `*.conf` of a folder, by name.
pub fn drop_ins(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", folder.display())),
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "conf")).collect();
    found.sort();
    Ok(found)
}
