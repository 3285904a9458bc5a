//! An image's config document, read leniently: fields nobody here knows are kept and written again.
//!
//! Not `oci_spec`'s type: docker's fields (Healthcheck, OnBuild, Shell, ArgsEscaped) must survive a `commit`, and `null`
//! stands where a list should in many images. The digest of the bytes as they came is the image's id; an image that is
//! only stored or sent on is never written from this type.

use crate::model::digest::Digest;
use crate::model::image::ImageConfig;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// The document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConfigDocument {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// As Go names it.
    #[serde(default, deserialize_with = "or_default")]
    pub architecture: String,
    /// Of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// As Go names it.
    #[serde(default, deserialize_with = "or_default")]
    pub os: String,
    /// What to run.
    #[serde(default, deserialize_with = "or_default")]
    pub config: ImageConfig,
    /// The layers.
    #[serde(default, deserialize_with = "or_default")]
    pub rootfs: RootFs,
    /// How each layer came about.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// What else there is.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The layers of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Digests of the plain archives, lowest first.
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<Digest>,
}

/// One step of an image's making.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By whom.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// By what command.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// Remark.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// It made no layer.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// `null` is what is absent.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

impl ConfigDocument {
    /// Parse a config blob.
    pub fn parse(bytes: &[u8]) -> Result<ConfigDocument> {
        let config: ConfigDocument = serde_json::from_slice(bytes).context("parse the image's config")?;
        ensure!(config.rootfs.diff_ids.len() <= 500, "the image has {} layers", config.rootfs.diff_ids.len());
        Ok(config)
    }

    /// When it was made, in nanoseconds since 1970; 0: it does not say.
    pub fn created_ns(&self) -> i64 {
        let time = self.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        time.map_or(0, |time| i64::try_from(time.as_nanosecond()).unwrap_or(0))
    }
}

/// A time as documents have it.
pub fn rfc3339(time_ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(time_ns)).map(|time| time.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_strangers() {
        let text = r#"{"architecture":"amd64","os":"linux","created":"2024-01-02T03:04:05.5Z","x":1,
            "config":{"Env":null,"Cmd":["sh"],"Entrypoint":null,"Labels":null,"ArgsEscaped":true,
            "Healthcheck":{"Test":["CMD","true"],"Interval":30000000000},"OnBuild":null},
            "rootfs":{"type":"layers","diff_ids":null},"history":[{"created_by":"a","empty_layer":true}]}"#;
        let config = ConfigDocument::parse(text.as_bytes()).unwrap();
        assert_eq!(config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
        assert_eq!(config.config.healthcheck.as_ref().unwrap().test, ["CMD", "true"]);
        assert_eq!(config.created_ns(), 1_704_164_645_500_000_000);
        assert!(config.history[0].empty_layer);
        let again = serde_json::to_value(&config).unwrap();
        assert_eq!(again["x"], 1);
        assert_eq!(again["config"]["ArgsEscaped"], true);
    }

    #[test]
    fn paths_in_digests() {
        let text = r#"{"rootfs":{"type":"layers","diff_ids":["sha256:../../../etc/passwd"]}}"#;
        assert!(ConfigDocument::parse(text.as_bytes()).is_err());
    }
}
