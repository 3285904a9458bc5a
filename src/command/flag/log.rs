//! The log's driver and its options.

use crate::failure::Explain;
use crate::model::container::{ContainerSpec, LogDriver};
use anyhow::{Context, Result, anyhow, bail};

// The log. No doc comment: clap would take it for the verb's help.
#[derive(clap::Args, Debug, Default)]
#[allow(missing_docs)]
pub struct Log {
    /// Log driver: k8s-file, json-file, journald, none, passthrough or passthrough-tty
    #[arg(long, value_name = "DRIVER")]
    pub log_driver: Option<String>,
    /// Log options: max-size=, max-file=, path=, tag=, label=
    #[arg(long, value_name = "OPTION")]
    pub log_opt: Vec<String>,
}

impl Log {
    /// Into the spec.
    pub fn apply(self, spec: &mut ContainerSpec) -> Result<()> {
        if let Some(name) = self.log_driver.as_deref() {
            spec.log.driver = driver(name)?;
        }
        for word in &self.log_opt {
            let (key, value) = word.split_once('=').ok_or_else(|| anyhow!("invalid log option {word:?}"))?;
            let log = &mut spec.log;
            match key.to_ascii_lowercase().as_str() {
                "driver" => log.driver = driver(value)?,
                "path" => log.path = Some(value.to_owned()),
                "max-size" => log.max_size = max_size(value)?,
                "max-file" => {
                    let files: u32 = value.parse().with_context(|| format!("log option {word:?}"))?;
                    log.max_files = Some(files.max(1));
                }
                "tag" => log.tag = Some(value.to_owned()),
                "mode" | "max-buffer-size" | "compress" | "labels" | "labels-regex" | "env" | "env-regex" | "label" => {
                    log.other.insert(key.to_ascii_lowercase(), value.to_owned());
                }
                _ => bail!("invalid log option {word:?}"),
            }
        }
        Ok(())
    }
}

fn driver(name: &str) -> Result<LogDriver> {
    Ok(match name {
        "" | "k8s-file" => LogDriver::K8sFile,
        "json-file" => LogDriver::JsonFile,
        "journald" => LogDriver::Journald,
        "none" => LogDriver::None,
        "passthrough" => LogDriver::Passthrough,
        "passthrough-tty" => LogDriver::PassthroughTty,
        _ => {
            return Err(anyhow!("running container create option: invalid log driver: invalid argument")).hint(
                format!("{name:?} is none of k8s-file, json-file, journald, none, passthrough and passthrough-tty"),
            );
        }
    })
}

/// Decimal units (`10m` is ten million), as docker and podman read this one option. `-1`: no bound.
fn max_size(text: &str) -> Result<Option<u64>> {
    if text == "-1" {
        return Ok(Some(0));
    }
    let wrong = || anyhow!("invalid size: '{text}'");
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().map_err(|_| wrong())?;
    let unit = text[end..].trim().to_ascii_lowercase();
    let scale = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 1e0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "t" => 1e12,
        _ => return Err(wrong()),
    };
    let bytes = number * scale;
    if bytes >= 1e18 {
        return Err(wrong());
    }
    // 0 is podman's "as by default".
    Ok(Some(bytes as u64).filter(|bytes| *bytes > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal() {
        for (text, bytes) in
            [("10m", Some(10_000_000)), ("1.5kb", Some(1500)), ("0", None), ("-1", Some(0)), ("7", Some(7))]
        {
            assert_eq!(max_size(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "x", "5x", "-5"] {
            assert!(max_size(text).is_err(), "{text}");
        }
    }
}
