//! `--change` of `import` and `commit`: instructions of a Containerfile that alter an image's config.

use crate::model::image::ImageConfig;
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

/// Apply one instruction, `CMD ["sh"]` or `CMD=sh`.
pub fn apply(config: &mut ImageConfig, change: &str) -> Result<()> {
    let (instruction, value) = change
        .split_once(' ')
        .or_else(|| change.split_once('='))
        .with_context(|| format!("invalid change {change:?} - must be formatted as KEY VALUE"))?;
    let instruction = instruction.trim().to_ascii_uppercase();
    let value = value.trim();
    ensure!(!value.is_empty(), "invalid change {change:?} - {instruction} requires an argument");
    match instruction.as_str() {
        "USER" => config.user = Some(value.to_owned()),
        "EXPOSE" => {
            for port in value.split_whitespace() {
                let ports = config.exposed_ports.get_or_insert_default();
                ports.insert(exposed(port).with_context(|| format!("invalid change {change:?}"))?, json!({}));
            }
        }
        "ENV" => {
            for (key, value) in pairs(value).with_context(|| format!("invalid change {change:?}"))? {
                let env = config.env.get_or_insert_default();
                env.retain(|entry| entry.split('=').next() != Some(&key));
                env.push(format!("{key}={value}"));
            }
        }
        "ENTRYPOINT" => config.entrypoint = Some(command(value)),
        "CMD" => config.cmd = Some(command(value)),
        "VOLUME" => {
            let paths: Vec<String> = match serde_json::from_str(value) {
                Ok(paths) => paths,
                Err(_) => value.split_whitespace().map(str::to_owned).collect(),
            };
            ensure!(!paths.is_empty(), "invalid change {change:?} - must provide at least one argument to VOLUME");
            config.volumes.get_or_insert_default().extend(paths.into_iter().map(|path| (path, json!({}))));
        }
        "WORKDIR" => {
            config.working_dir = Some(match (value.starts_with('/'), &config.working_dir) {
                (false, Some(base)) => format!("{}/{value}", base.trim_end_matches('/')),
                _ => value.to_owned(),
            });
        }
        "LABEL" => {
            let labels = pairs(value).with_context(|| format!("invalid change {change:?}"))?;
            config.labels.get_or_insert_default().extend(labels);
        }
        "STOPSIGNAL" => {
            crate::model::signal::parse(value).with_context(|| format!("invalid change {change:?}"))?;
            config.stop_signal = Some(value.to_owned());
        }
        "ONBUILD" => config.on_build.get_or_insert_default().push(value.to_owned()),
        _ => bail!("invalid change {change:?} - invalid instruction {instruction}"),
    }
    Ok(())
}

/// A JSON list, or text for a shell.
fn command(value: &str) -> Vec<String> {
    serde_json::from_str(value).unwrap_or_else(|_| vec!["/bin/sh".to_owned(), "-c".to_owned(), value.to_owned()])
}

fn exposed(port: &str) -> Result<String> {
    let (range, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    ensure!(matches!(protocol, "tcp" | "udp" | "sctp"), "{port}: the protocol is tcp, udp or sctp");
    let numbers = range.split('-').map(str::parse::<u16>);
    ensure!(
        range.split('-').count() <= 2 && numbers.clone().all(|number| number.is_ok_and(|port| port > 0)),
        "{port} is no port"
    );
    Ok(format!("{range}/{protocol}"))
}

/// `a=b "c d"="e f"`, or the old `a b`.
fn pairs(text: &str) -> Result<Vec<(String, String)>> {
    let words = words(text)?;
    if words.first().is_some_and(|word| !word.contains('=')) {
        let (key, value) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    words
        .into_iter()
        .map(|word| {
            let (key, value) = word.split_once('=').with_context(|| format!("{word:?} is not KEY=VALUE"))?;
            ensure!(!key.is_empty(), "{word:?} has no key");
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

/// Words with quotes and backslashes taken away.
fn words(text: &str) -> Result<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some('\''), letter) if letter != '\'' => word.get_or_insert_default().push(letter),
            (_, '\\') => word.get_or_insert_default().extend(letters.next()),
            (Some(open), letter) if letter == open => quote = None,
            (Some(_), letter) => word.get_or_insert_default().push(letter),
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, letter) if letter.is_whitespace() => words.extend(word.take()),
            (None, letter) => word.get_or_insert_default().push(letter),
        }
    }
    ensure!(quote.is_none(), "a quote is not closed");
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes() {
        let mut config = ImageConfig::default();
        for change in [
            r#"CMD ["/bin/echo", "a b"]"#,
            "ENTRYPOINT /entry it",
            "ENV A=1 B='x y'",
            "ENV A 2 3",
            "EXPOSE 80 53/udp",
            "LABEL k=v \"a b\"=c",
            "ONBUILD RUN x",
            "STOPSIGNAL SIGINT",
            "user=nobody",
            r#"VOLUME ["/data", "/more"]"#,
            "WORKDIR /a",
            "WORKDIR b",
        ] {
            apply(&mut config, change).unwrap();
        }
        let text = serde_json::to_string(&config).unwrap();
        for part in [
            r#""Cmd":["/bin/echo","a b"]"#,
            r#""Entrypoint":["/bin/sh","-c","/entry it"]"#,
            r#""Env":["B=x y","A=2 3"]"#,
            r#""ExposedPorts":{"53/udp":{},"80/tcp":{}}"#,
            r#""Labels":{"a b":"c","k":"v"}"#,
            r#""OnBuild":["RUN x"]"#,
            r#""StopSignal":"SIGINT""#,
            r#""User":"nobody""#,
            r#""Volumes":{"/data":{},"/more":{}}"#,
            r#""WorkingDir":"/a/b""#,
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        for change in
            ["", "CMD", "RUN x", "EXPOSE http", "EXPOSE 1/icmp", "STOPSIGNAL SIGFOO", "LABEL =x", "ENV \"a=b", "USER "]
        {
            assert!(apply(&mut config, change).is_err(), "{change}");
        }
    }
}
