//! Images to and from files: load, save, import.

use crate::engine::{Engine, image};
use crate::image::archive::import as archive_import;
use crate::image::archive::load::{self as archive_load, Loaded};
use crate::image::archive::save::{self as archive_save, Format, Options, Saved, Target};
use crate::image::archive::source::Source;
use crate::image::change;
use crate::image::manifest::Platform;
use crate::image::reference::Reference;
use crate::image::store::{self, ImageRecord};
use crate::model::image::ImageConfig;
use crate::state::file;
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Load all images of an archive or directory, of what an URL names, or of standard input.
pub fn load(engine: &Engine, input: Option<&Path>) -> Result<Vec<Loaded>> {
    let layout = &engine.layout;
    let source = match input {
        Some(path) => match path.to_str().filter(|text| is_url(text)) {
            Some(url) => Source::from_stream(layout, download(url)?).with_context(|| format!("read {url}")),
            None => {
                std::fs::metadata(path).with_context(|| format!("read {}", path.display()))?;
                Source::open(layout, path)
            }
        },
        None => Source::from_file(layout, stdin()?).context("read standard input"),
    };
    let source = source.context("payload does not match any of the supported image formats")?;
    archive_load::load(layout, &engine.privilege, &source).context("load")
}

fn stdin() -> Result<File> {
    Ok(File::from(std::io::stdin().as_fd().try_clone_to_owned()?))
}

/// What `save` is asked for.
#[derive(Debug)]
pub struct SaveWish {
    /// The image and more names for it, or several images.
    pub images: Vec<String>,
    /// All words are images.
    pub several: bool,
    /// What to write.
    pub format: Format,
    /// How.
    pub options: Options,
    /// Where; absent: standard output.
    pub output: Option<PathBuf>,
}

/// Write images to an archive or directory. An archive that is a file appears whole or not at all.
pub fn save(engine: &Engine, wish: SaveWish) -> Result<()> {
    let images = chosen(engine, &wish)?;
    let layout = &engine.layout;
    let directory = matches!(wish.format, Format::OciDirectory | Format::DockerDirectory);
    match &wish.output {
        Some(path) if directory => {
            if path.exists() && std::fs::read_dir(path).map_or(true, |mut entries| entries.next().is_some()) {
                bail!("{} exists and is not an empty directory", path.display());
            }
            archive_save::save(layout, wish.format, &images, Target::Directory(path), wish.options)
        }
        Some(path) if path.metadata().is_ok_and(|metadata| !metadata.is_file()) => {
            let mut file =
                File::options().write(true).open(path).with_context(|| format!("open {}", path.display()))?;
            archive_save::save(layout, wish.format, &images, Target::Stream(&mut file), wish.options)
        }
        Some(path) => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let name = path.file_name().context("the output has no name")?.to_string_lossy();
            let temporary = file::staging_name(parent, &format!(".{name}"));
            let result = File::create_new(&temporary)
                .with_context(|| format!("write {}", path.display()))
                .and_then(|mut file| {
                    archive_save::save(layout, wish.format, &images, Target::Stream(&mut file), wish.options)
                })
                .and_then(|()| std::fs::rename(&temporary, path).with_context(|| format!("write {}", path.display())));
            if result.is_err() {
                let _ = std::fs::remove_file(&temporary);
            }
            result
        }
        None => {
            let mut stdout = std::io::stdout().lock();
            archive_save::save(layout, wish.format, &images, Target::Stream(&mut stdout), wish.options)?;
            Ok(stdout.flush()?)
        }
    }?;
    for saved in &images {
        let name = saved.names.first().map_or_else(|| saved.image.id().to_owned(), Reference::to_string);
        store::record_event(layout, "save", &saved.image.record.id, &name);
    }
    Ok(())
}

/// Images with the names they are to have: those they were asked for by.
fn chosen(engine: &Engine, wish: &SaveWish) -> Result<Vec<Saved>> {
    let mut images: Vec<Saved> = Vec::new();
    let (first, rest) = wish.images.split_first().context("no image is named")?;
    let wanted: Vec<&String> = if wish.several { wish.images.iter().collect() } else { vec![first] };
    for name in wanted {
        let image = image::get(engine, name)?;
        let names: Vec<Reference> = image.name.clone().into_iter().collect();
        match images.iter_mut().find(|saved| saved.image.record.id == image.record.id) {
            Some(saved) => saved.names.extend(names),
            None => images.push(Saved { image, names }),
        }
    }
    if !wish.several {
        for name in rest {
            images[0].names.push(Reference::parse_local(name)?);
        }
    }
    for saved in &mut images {
        saved.names.sort();
        saved.names.dedup();
    }
    Ok(images)
}

/// What `import` is asked for.
#[derive(Debug)]
pub struct ImportWish {
    /// File, or `-`.
    pub path: String,
    /// Name of the image.
    pub name: Option<String>,
    /// Instructions.
    pub changes: Vec<String>,
    /// Remark.
    pub message: String,
    /// For which platform.
    pub platform: Platform,
}

/// Make an image of the archive of a root file system.
pub fn import(engine: &Engine, wish: ImportWish) -> Result<ImageRecord> {
    let mut config = ImageConfig::default();
    wish.changes.iter().try_for_each(|text| change::apply(&mut config, text))?;
    let name = wish.name.as_deref().map(image::local_name).transpose()?;
    let archive: Box<dyn Read + Send> = match wish.path.as_str() {
        "-" => Box::new(stdin()?),
        url if is_url(url) => download(url)?,
        path => {
            let file = File::open(path).with_context(|| format!("open {path}"))?;
            ensure!(!file.metadata()?.is_dir(), "open {path}: it is a directory");
            Box::new(file)
        }
    };
    let origin = if wish.path == "-" { "standard input".to_owned() } else { wish.path.clone() };
    let import = archive_import::Wish { name, config, message: wish.message, origin, platform: wish.platform };
    archive_import::import(&engine.layout, &engine.privilege, import, archive)
        .with_context(|| format!("import {}", wish.path))
}

fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// The body of an URL.
fn download(url: &str) -> Result<Box<dyn Read + Send>> {
    use crate::image::http::{Body, Http, Origin, Request};
    let origin = Origin::of(url)?;
    let authority = format!("{}:{}", origin.host, origin.port);
    // The user wrote http: nothing is weaker than what was asked for.
    let http = Http::new(crate::image::trust::Trust::new(&authority, None), !origin.secure);
    let request = Request { method: "GET", url, headers: &[], authorization: None, body: Body::None, follow: true };
    let response = http.send(request).with_context(|| format!("download {url}"))?;
    ensure!(response.status().is_success(), "download {url}: the server answers {}", response.status());
    Ok(Box::new(response.into_body().into_reader()))
}
