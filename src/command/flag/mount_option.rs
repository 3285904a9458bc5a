//! The options of one mount, as `-v`, `--mount` and `--tmpfs` share them.

use crate::model::mount::{MountOptions, OverlayDirs, Relabel};
use crate::model::user::{IdMaps, IdRange};
use anyhow::{Context, Result, anyhow, bail, ensure};

/// Options as they come in, with what is said of them so far.
#[derive(Debug, Default)]
pub struct Reader {
    /// What was read.
    pub options: MountOptions,
    /// `bind` was said: without the mounts below.
    pub not_recursive: bool,
    /// `ro` or `rw` was said.
    pub access: Option<bool>,
    seen: Vec<&'static str>,
}

impl Reader {
    /// Read one option; `Ok(false)`: it is none that all mounts have.
    pub fn read(&mut self, option: &str) -> Result<bool> {
        let (key, value) = match option.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (option, None),
        };
        match (key, value) {
            ("ro" | "rw", None) => {
                self.once("'rw' or 'ro'")?;
                self.access = Some(key == "ro");
                self.options.read_only = key == "ro";
            }
            ("rro", None) => {
                self.once("'rw' or 'ro'")?;
                self.access = Some(true);
                self.options.read_only = true;
                self.options.recursive_read_only = true;
            }
            ("suid" | "nosuid", None) => {
                self.once("'nosuid' or 'suid'")?;
                self.options.nosuid = Some(key == "nosuid");
            }
            ("dev" | "nodev", None) => {
                self.once("'nodev' or 'dev'")?;
                self.options.nodev = Some(key == "nodev");
            }
            ("exec" | "noexec", None) => {
                self.once("'noexec' or 'exec'")?;
                self.options.noexec = Some(key == "noexec");
            }
            ("z" | "Z", None) => {
                self.once("'z', 'Z', or 'O'")?;
                self.options.relabel = Some(if key == "z" { Relabel::Shared } else { Relabel::Private });
            }
            ("O", None) => {
                self.once("'z', 'Z', or 'O'")?;
                self.options.overlay.get_or_insert_default();
            }
            ("upperdir" | "workdir", Some(path)) => {
                self.once(if key == "upperdir" { "upperdir" } else { "workdir" })?;
                ensure!(path.starts_with('/'), "{key} {path:?}: must be an absolute path");
                let directories: &mut OverlayDirs = self.options.overlay.get_or_insert_default();
                let field = if key == "upperdir" { &mut directories.upper } else { &mut directories.work };
                *field = Some(path.to_owned());
            }
            ("U", None) => {
                self.once("'U'")?;
                self.options.chown = true;
            }
            ("copy" | "nocopy", None) => {
                self.once("'copy' or 'nocopy'")?;
                self.options.copy = Some(key == "copy");
            }
            ("bind" | "rbind", None) => {
                self.once("'[r]bind'")?;
                self.not_recursive = key == "bind";
            }
            ("idmap", value) => {
                self.once("'idmap'")?;
                let (maps, relative) = idmap(value.unwrap_or_default())?;
                self.options.idmap = Some(maps);
                self.options.idmap_relative = relative;
            }
            (
                "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" | "unbindable" | "runbindable",
                None,
            ) => {
                self.once("'[r]shared', '[r]private', '[r]slave' or '[r]unbindable'")?;
                self.options.propagation = Some(key.to_owned());
            }
            // Words of Docker for other systems, without a meaning on Linux.
            ("cached" | "delegated" | "consistent", None) => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What was read, checked as a whole.
    pub fn finish(self) -> Result<MountOptions> {
        if let Some(overlay) = &self.options.overlay {
            ensure!(overlay.upper.is_some() == overlay.work.is_some(), "must set both `upperdir` and `workdir`");
            ensure!(
                self.seen.contains(&"'z', 'Z', or 'O'"),
                "`upperdir` and `workdir` are options of an overlay: add `O`"
            );
        }
        Ok(self.options)
    }

    fn once(&mut self, group: &'static str) -> Result<()> {
        ensure!(!self.seen.contains(&group), "invalid options, can only specify 1 {group} option");
        self.seen.push(group);
        Ok(())
    }
}

/// `uids=FROM-TO-SIZE#…;gids=…`; empty: the container's own maps. With `@` before them they lead to the container's ids.
fn idmap(text: &str) -> Result<(IdMaps, bool)> {
    let mut maps = IdMaps::default();
    let mut relative = None;
    for part in text.split(';').filter(|part| !part.is_empty()) {
        let (key, ranges) = part.split_once('=').ok_or_else(|| anyhow!("invalid idmap option {part:?}"))?;
        let field = match key {
            "uids" => &mut maps.uid,
            "gids" => &mut maps.gid,
            _ => bail!("unrecognized field {key:?} for idmap"),
        };
        for range in ranges.split('#') {
            let (is_relative, range) = match range.strip_prefix('@') {
                Some(range) => (true, range),
                None => (false, range),
            };
            ensure!(
                *relative.get_or_insert(is_relative) == is_relative,
                "invalid idmap option {text:?}: `@` stands before all ranges or before none"
            );
            let numbers: Vec<u32> = range
                .split('-')
                .map(|number| number.parse::<u32>())
                .collect::<Result<_, _>>()
                .with_context(|| format!("invalid idmap option {range:?}"))?;
            let [inside, outside, size] = numbers[..] else {
                bail!("invalid idmap option {range:?}: write it as FROM-TO-SIZE");
            };
            let fits = |first: u32| first.checked_add(size).is_some();
            ensure!(size > 0 && fits(inside) && fits(outside), "invalid idmap option {range:?}: no such ids");
            field.push(IdRange { inside, outside, size });
        }
    }
    Ok((maps, relative.unwrap_or(false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str) -> Result<MountOptions> {
        let mut reader = Reader::default();
        for word in words.split(',') {
            ensure!(reader.read(word)?, "invalid option type {word:?}");
        }
        reader.finish()
    }

    #[test]
    fn options() {
        let options = read("ro,Z,U,noexec,rslave,nocopy,cached").unwrap();
        assert!(options.read_only && options.chown);
        assert_eq!(options.relabel, Some(Relabel::Private));
        assert_eq!((options.noexec, options.copy), (Some(true), Some(false)));
        assert_eq!(options.propagation.as_deref(), Some("rslave"));
        assert_eq!(read("O,upperdir=/u,workdir=/w").unwrap().overlay.unwrap().upper.as_deref(), Some("/u"));
        assert!(read("idmap=uids=@0-1-10;gids=@0-1-10").unwrap().idmap_relative);
        assert_eq!(read("idmap=uids=0-1-10#10-11-10;gids=0-1-10").unwrap().idmap.unwrap().uid.len(), 2);
        for words in [
            "ro,rw",
            "z,Z",
            "z,O",
            "x",
            "upperdir=/u,workdir=/w",
            "O,upperdir=/u",
            "slave,shared",
            "idmap=a=1",
            "idmap=uids=0-0-0",
            "idmap=uids=0-1-1#@1-2-1",
        ] {
            assert!(read(words).is_err(), "{words}");
        }
    }
}
