//! Images and registries: pull, and an image that is wanted whether it is here or not.

use crate::engine::Engine;
use crate::failure::{Explain, Failure, Kind};
use crate::image::access::{Access, Network};
use crate::image::config::ConfigDocument;
use crate::image::manifest::{CONFIG_LIMIT_BYTES, Document, Platform};
use crate::image::policy::Policy;
use crate::image::progress::Progress;
use crate::image::pull::{self, Pulled, Target, Wish};
use crate::image::reference::Reference;
use crate::image::store::{self, Image};
use crate::model::pull::{Pull, PullPolicy};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::path::Path;

/// The way to registries, as these options and the configuration say.
pub fn network(engine: &Engine, access: Access) -> Result<Network> {
    Network::load(access, engine.privilege.caller.uid)
}

/// The image a name stands for, fetched if the policy says so.
///
/// # Errors
/// It is not here and must not or cannot be fetched.
pub fn ensure_image(engine: &Engine, name: &str, options: &Pull, progress: &dyn Progress) -> Result<Image> {
    let local = match store::resolve(&engine.layout, name)? {
        Some(image) if matches!(options.policy, PullPolicy::Missing | PullPolicy::Never) => return Ok(image),
        local => local,
    };
    if local.is_none() && options.policy == PullPolicy::Never {
        return Err(store::not_known(name)).hint("`--pull=missing` fetches it");
    }
    // What was named by its id can be nowhere but here.
    if let Some(image) = &local
        && image.name.is_none()
    {
        return Ok(local.context("there is an image")?);
    }
    match pull(engine, name, options, false, progress) {
        Ok(pulled) => {
            let config = pulled.record.config(&engine.layout)?;
            Ok(Image { record: pulled.record, config, name: Some(pulled.name) })
        }
        Err(error) => match local {
            Some(image) if options.policy == PullPolicy::Newer => {
                progress.say(&format!("{name}: {}; using the local image", crate::failure::message_of(&error)));
                Ok(image)
            }
            _ => Err(error),
        },
    }
}

/// Fetch an image, whatever is here.
pub fn pull(
    engine: &Engine,
    name: &str,
    options: &Pull,
    all_platforms: bool,
    progress: &dyn Progress,
) -> Result<Pulled> {
    let text = strip_transport(name)?;
    let network = network(engine, Access::try_from(options)?)?;
    let wish = wish(options, all_platforms)?;
    pull::pull(target(engine, progress), &network, text, &wish)
}

/// Fetch all tags of a repository. Those that fail are told of at the end.
pub fn pull_all_tags(engine: &Engine, name: &str, options: &Pull, progress: &dyn Progress) -> Result<Vec<Pulled>> {
    let text = strip_transport(name)?;
    let network = network(engine, Access::try_from(options)?)?;
    let wish = wish(options, false)?;
    let candidates = network.registries.candidates(text)?;
    let name = candidates.into_iter().next().context("there is a candidate")?;
    let typed = Reference::parse(text)?;
    ensure!(typed.tag.is_none() && typed.digest.is_none(), "tag can't be used with --all-tags/-a");
    let tags = network.target(&name)?.tags()?;
    let mut pulled = Vec::new();
    for tag in tags {
        if !crate::image::reference::is_tag(&tag) {
            bail!("{name}: the registry lists a tag `{tag}`, which is none");
        }
        let reference = Reference { tag: Some(tag), digest: None, ..name.clone() };
        progress.say(&format!("Trying to pull {reference}..."));
        pulled.push(pull::pull_reference(target(engine, progress), &network, &reference, &wish)?);
    }
    Ok(pulled)
}

/// The document of `image inspect` for an image that stays in its registry. Its size is that of the blobs.
pub fn inspect(engine: &Engine, name: &str, access: Access, platform: Option<Platform>) -> Result<Value> {
    let text = name.strip_prefix("docker://").unwrap_or(name);
    let network = network(engine, access)?;
    let name = Reference::parse(text)?.or_latest();
    let source = pull::open(&network, &name, &Policy::load(None::<&Path>)?)?;
    let fetched = match &source.top.document {
        Document::Manifest(_) => source.top.clone(),
        Document::Index(index) => {
            let wanted = platform.unwrap_or_else(Platform::host);
            let chosen = wanted.select(index).with_context(|| pull::no_platform(index, &wanted))?;
            source.repository.described(chosen)?
        }
    };
    source.admit(&fetched.digest)?;
    let Document::Manifest(manifest) = &fetched.document else { bail!("{name}: an index inside an index") };
    ensure!(manifest.is_image(), "{name}: it is an artifact, not an image");
    let config = source.repository.small_blob(&manifest.config, CONFIG_LIMIT_BYTES)?;
    let config = ConfigDocument::parse(&config)?;
    let size = manifest.layers.iter().map(|layer| layer.size).sum::<u64>();
    Ok(json!({
        "Id": manifest.config.digest.hex(),
        "Digest": fetched.digest,
        "RepoTags": name.tag.as_ref().map(|_| vec![name.to_string()]).unwrap_or_default(),
        "RepoDigests": [name.at(&source.top.digest).to_string()],
        "Created": config.created,
        "Config": serde_json::to_value(&config.config)?,
        "Author": config.author.as_deref().unwrap_or_default(),
        "Architecture": config.architecture,
        "Variant": config.variant.as_deref().unwrap_or_default(),
        "Os": config.os,
        "Size": size,
        "VirtualSize": size,
        "RootFS": {"Type": "layers", "Layers": config.rootfs.diff_ids},
        "Labels": config.config.labels,
        "Annotations": manifest.annotations.clone().unwrap_or_default(),
        "ManifestType": fetched.document.media_type(),
        "User": config.config.user.as_deref().unwrap_or_default(),
        "History": config.history,
    }))
}

fn target<'a>(engine: &'a Engine, progress: &'a dyn Progress) -> Target<'a> {
    Target { layout: &engine.layout, privilege: &engine.privilege, progress }
}

fn wish(options: &Pull, all_platforms: bool) -> Result<Wish> {
    let platform = options.platform.as_deref().map(Platform::parse).transpose()?;
    Ok(Wish { platform, all_platforms, policy: Policy::load(None::<&Path>)? })
}

/// `docker://` is taken off; other transports have other commands.
fn strip_transport(name: &str) -> Result<&str> {
    if let Some(rest) = name.strip_prefix("docker://") {
        return Ok(rest);
    }
    for transport in ["docker-archive:", "oci-archive:", "oci:", "dir:", "docker-daemon:", "containers-storage:"] {
        if name.starts_with(transport) {
            return Err(Failure::new(Kind::Engine, format!("pull {name}: this is not a registry's image"))
                .hint(format!("`coracle copy {name} containers-storage:NAME` brings it into the store"))
                .into());
        }
    }
    Ok(name)
}
