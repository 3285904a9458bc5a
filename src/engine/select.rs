//! Which containers a command is about: names, `--all`, `--latest`, `--filter`, `--cidfile`.

use crate::engine::list::{self, Filters, Listed, Scope};
use crate::engine::{Engine, create};
use crate::failure::{Failure, Kind};
use crate::model::id::Id;
use crate::state::container::{self, ContainerRecord, State};
use anyhow::{Context, Result};

/// What was typed.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Names, ids, beginnings of ids.
    pub names: Vec<String>,
    /// All of them.
    pub all: bool,
    /// The one that was created last.
    pub latest: bool,
    /// Those that match.
    pub filters: Vec<String>,
    /// Files with an id in the first line.
    pub cidfiles: Vec<String>,
    /// Those that are not there are passed over.
    pub ignore: bool,
}

/// One that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// What to print of it: what was typed, or its id.
    pub shown: String,
    /// The container, unless there is none of that name.
    pub id: Option<Id>,
}

impl Chosen {
    /// The container.
    ///
    /// # Errors
    /// podman's text for a name that is nobody's; exit code 125, which `rm` changes.
    pub fn id(&self) -> Result<&Id> {
        self.id.as_ref().ok_or_else(|| create::no_such(&self.shown))
    }
}

/// Choose. With `--all` and `--filter`, `candidate` says whom they mean.
pub fn select(
    engine: &Engine,
    wish: &Wish,
    verb: &str,
    candidate: impl Fn(&ContainerRecord, &State) -> bool,
) -> Result<Vec<Chosen>> {
    check(wish, verb)?;
    let mut chosen = Vec::new();
    let mut names = wish.names.clone();
    for path in &wish.cidfiles {
        match std::fs::read_to_string(path) {
            Ok(text) => names.push(text.lines().next().unwrap_or_default().trim().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if !wish.ignore {
                    return Err(anyhow::anyhow!("reading CIDFile: open {path}: no such file or directory"));
                }
            }
            Err(error) => return Err(error).with_context(|| format!("reading CIDFile: open {path}")),
        }
    }
    if wish.all || !wish.filters.is_empty() {
        return choose_matching(engine, wish, &names, candidate);
    }
    if wish.latest {
        let id = latest(engine)?;
        return Ok(vec![Chosen { shown: id.to_string(), id: Some(id) }]);
    }
    for name in names {
        // docker writes names with a slash before them.
        let name = name.strip_prefix('/').unwrap_or(&name).to_owned();
        let id = container::find(&engine.layout, &name)?;
        if id.is_some() || !wish.ignore {
            chosen.push(Chosen { shown: name, id });
        }
    }
    Ok(chosen)
}

fn check(wish: &Wish, verb: &str) -> Result<()> {
    let wrong = |text: String| Err(Failure::new(Kind::Engine, text).into());
    let named = !wish.names.is_empty();
    if wish.all && wish.latest {
        return wrong("--all and --latest cannot be used together".to_owned());
    }
    if named && wish.latest {
        return wrong("--latest and containers cannot be used together".to_owned());
    }
    if named && wish.all {
        return wrong("no arguments are needed with --all".to_owned());
    }
    if !wish.cidfiles.is_empty() && (wish.all || wish.latest) {
        return wrong("--all, --latest, and --cidfile cannot be used together".to_owned());
    }
    if !named && !wish.all && !wish.latest && wish.filters.is_empty() && wish.cidfiles.is_empty() {
        return wrong(format!("`coracle {verb}`: you must provide at least one name or id"));
    }
    Ok(())
}

fn choose_matching(
    engine: &Engine,
    wish: &Wish,
    names: &[String],
    candidate: impl Fn(&ContainerRecord, &State) -> bool,
) -> Result<Vec<Chosen>> {
    let filters = Filters::parse(engine, &wish.filters)?;
    // One that is being removed, or whose record is garbage, is not among "all".
    let (containers, _) = list::list(engine, Scope::All)?;
    let typed = |record: &ContainerRecord| {
        names.iter().find(|name| **name == record.name || record.id.as_str().starts_with(name.as_str()))
    };
    let chosen = containers.into_iter().filter(|container| {
        (names.is_empty() || typed(&container.record).is_some())
            && candidate(&container.record, &container.state)
            && filters.hold(container)
    });
    Ok(chosen
        .map(|Listed { record, .. }| Chosen {
            shown: typed(&record).map_or_else(|| record.id.to_string(), String::clone),
            id: Some(record.id),
        })
        .collect())
}

/// The container that was created last.
pub fn latest(engine: &Engine) -> Result<Id> {
    list::latest(engine).map(|container| container.record.id)
}
