//! `coracle image scp`: between the stores of users of this machine.

use crate::engine::Engine;
use crate::engine::between::{self, End};
use crate::failure::{Failure, Kind};
use anyhow::{Result, bail};
use std::process::ExitCode;

/// Copy an image to the store of another user of this machine
///
/// An end is [USER@]localhost::[IMAGE], or an image of one's own store. Only root reaches the stores of others. Copies over
/// ssh are not made; `coracle save IMAGE | ssh HOST coracle load` is one.
#[derive(clap::Parser, Debug)]
pub struct Args {
    /// Suppress the output
    #[arg(short, long)]
    quiet: bool,
    /// From
    #[arg(value_name = "SOURCE")]
    source: String,
    /// To; the caller's own store if not said
    #[arg(value_name = "DESTINATION")]
    target: Option<String>,
}

/// Copy it.
pub fn run(args: Args, engine: &Engine) -> Result<ExitCode> {
    let source = parse(&args.source)?;
    let target = args.target.as_deref().map(parse).transpose()?.unwrap_or_default();
    let Some(image) = source.image else { bail!("no image named to copy: [USER@]localhost::IMAGE") };
    if target.image.is_some() {
        bail!("the image keeps its name: the destination is [USER@]localhost::");
    }
    between::copy(engine, &image, &source.end, &target.end, args.quiet)?;
    Ok(ExitCode::SUCCESS)
}

/// What an argument means.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parsed {
    end: End,
    image: Option<String>,
}

fn parse(text: &str) -> Result<Parsed> {
    let Some((place, image)) = text.split_once("::") else {
        return Ok(Parsed { end: End::Own, image: Some(text.to_owned()) });
    };
    let image = Some(image.to_owned()).filter(|image| !image.is_empty());
    let (user, host) = place.rsplit_once('@').map_or((None, place), |(user, host)| (Some(user), host));
    if host != "localhost" {
        return Err(Failure::new(Kind::Engine, format!("copying to or from {host}: copies over ssh are not made"))
            .hint(format!("`coracle save IMAGE | ssh {place} coracle load` copies one"))
            .into());
    }
    Ok(Parsed { end: user.map_or(End::Own, |user| End::User(user.to_owned())), image })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends() {
        let user = |name: &str| End::User(name.to_owned());
        for (text, end, image) in [
            ("alpine:1", End::Own, Some("alpine:1")),
            ("localhost::alpine", End::Own, Some("alpine")),
            ("bob@localhost::", user("bob"), None),
            ("bob@localhost::r.test:5000/x@sha256:0", user("bob"), Some("r.test:5000/x@sha256:0")),
        ] {
            assert_eq!(parse(text).unwrap(), Parsed { end, image: image.map(str::to_owned) }, "{text}");
        }
        assert!(parse("host::x").is_err());
        assert!(parse("bob@host::").is_err());
    }
}
