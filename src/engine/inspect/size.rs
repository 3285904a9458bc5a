//! How much room a container takes.

use crate::engine::Engine;
use crate::state::container::ContainerRecord;
use crate::storage::{layer, tree};

/// Bytes of file contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Its own writable layer.
    pub own: u64,
    /// That and the layers of its image.
    pub root: u64,
}

/// The sizes of a container; what cannot be measured counts as nothing.
pub fn of(engine: &Engine, record: &ContainerRecord) -> Size {
    let upper = engine.layout.container(&record.id).join("upper");
    let own = tree::usage(&upper).map_or(0, |usage| usage.apparent);
    let layers = record.layers.iter().filter_map(|hex| layer::load(&engine.layout, hex).ok().flatten());
    Size { own, root: own + layers.map(|layer| layer.size).sum::<u64>() }
}
