//! How an image came about.

use crate::image::store::Image;
use crate::model::digest::Digest;
use crate::state::layout::Layout;
use crate::storage::layer;
use anyhow::Result;

/// One line of `history`, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryLine {
    /// The image id on the newest line, absent on the others.
    pub id: Option<Digest>,
    /// What the config says.
    pub step: crate::image::config::History,
    /// Bytes of the layer's files.
    pub size: u64,
}

/// How an image came about, newest first.
pub fn history(layout: &Layout, image: &Image) -> Result<Vec<HistoryLine>> {
    let mut layers = image.record.layers.iter();
    let mut lines = Vec::new();
    for step in &image.config.history {
        let layer = if step.empty_layer { None } else { layers.next() };
        let size = match layer {
            Some(layer) => layer::load(layout, layer.hex())?.map_or(0, |layer| layer.size),
            None => 0,
        };
        lines.push(HistoryLine { id: None, step: step.clone(), size });
    }
    // Images of poor builders say nothing of some layers.
    for layer in layers {
        let size = layer::load(layout, layer.hex())?.map_or(0, |layer| layer.size);
        lines.push(HistoryLine { id: None, step: Default::default(), size });
    }
    lines.reverse();
    if let Some(first) = lines.first_mut() {
        first.id = Some(image.record.id.clone());
    }
    Ok(lines)
}
