//! The verbs of `coracle manifest`.

pub mod add;
pub mod annotate;
pub mod create;
pub mod exists;
pub mod inspect;
pub mod push;
pub mod remove;
pub mod rm;

use crate::engine::manifest::Notes;
use anyhow::{Context, Result};
use std::collections::BTreeMap;

// What can be said of an entry.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct About {
    /// Set an annotation: KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Override the architecture of the specified image
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// Override the features of the specified image
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    features: Vec<String>,
    /// Override the OS of the specified image
    #[arg(long, value_name = "OS")]
    os: Option<String>,
    /// Override the OS features of the specified image
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    os_features: Vec<String>,
    /// Override the OS version of the specified image
    #[arg(long, value_name = "VERSION")]
    os_version: Option<String>,
    /// Override the variant of the specified image
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
}

impl About {
    /// As the engine wants it.
    fn notes(self) -> Result<Notes> {
        let About { annotation, arch, features, os, os_features, os_version, variant } = self;
        Ok(Notes {
            annotations: annotations(&annotation)?,
            architecture: arch,
            os,
            os_version,
            os_features,
            features,
            variant,
        })
    }
}

/// `KEY=VALUE` texts as a map.
pub fn annotations(texts: &[String]) -> Result<BTreeMap<String, String>> {
    let pair = |text: &String| {
        let (key, value) = text.split_once('=').with_context(|| format!("no value given for annotation \"{text}\""))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    texts.iter().map(pair).collect()
}
