//! Images for tests, built in memory: a static busybox, and whatever else a test describes.

use super::command::PATH;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The name of [`Image::busybox`].
pub(crate) const BUSYBOX: &str = "localhost/busybox:latest";

/// A layer under construction.
pub(crate) struct Layer {
    tar: tar::Builder<Vec<u8>>,
    owner: (u64, u64),
}

impl Layer {
    pub(crate) fn new() -> Layer {
        let mut tar = tar::Builder::new(Vec::new());
        tar.mode(tar::HeaderMode::Deterministic);
        Layer { tar, owner: (0, 0) }
    }

    fn append(mut self, path: &str, kind: tar::EntryType, mode: u32, link: Option<&str>, bytes: &[u8]) -> Layer {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(self.owner.0);
        header.set_gid(self.owner.1);
        header.set_size(bytes.len() as u64);
        header.set_mtime(1_700_000_000);
        let path = path.trim_start_matches('/');
        match link {
            Some(target) => self.tar.append_link(&mut header, path, target),
            None => self.tar.append_data(&mut header, path, bytes),
        }
        .expect("add to a layer");
        self
    }

    /// What is added from here on belongs to them.
    pub(crate) fn owned(mut self, uid: u64, gid: u64) -> Layer {
        self.owner = (uid, gid);
        self
    }

    pub(crate) fn directory(self, path: &str, mode: u32) -> Layer {
        self.append(path, tar::EntryType::Directory, mode, None, &[])
    }

    pub(crate) fn file(self, path: &str, mode: u32, bytes: impl AsRef<[u8]>) -> Layer {
        self.append(path, tar::EntryType::Regular, mode, None, bytes.as_ref())
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Layer {
        self.append(path, tar::EntryType::Symlink, 0o777, Some(target), &[])
    }

    pub(crate) fn hardlink(self, path: &str, target: &str) -> Layer {
        self.append(path, tar::EntryType::Link, 0o644, Some(target.trim_start_matches('/')), &[])
    }

    /// Remove what a lower layer has at this path.
    pub(crate) fn whiteout(self, path: &str) -> Layer {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        self.file(&format!("{directory}/.wh.{name}"), 0o644, b"")
    }

    /// Hide all that lower layers have in this directory.
    pub(crate) fn opaque(self, directory: &str) -> Layer {
        self.file(&format!("{directory}/.wh..wh..opq"), 0o644, b"")
    }

    pub(crate) fn tar(self) -> Vec<u8> {
        self.tar.into_inner().expect("finish a layer")
    }
}

/// An image: a name, layers from the bottom up, and what runs.
#[derive(Clone)]
pub(crate) struct Image {
    name: String,
    layers: Vec<Vec<u8>>,
    config: Value,
}

impl Image {
    pub(crate) fn new(name: &str) -> Image {
        Image { name: name.to_owned(), layers: Vec::new(), config: json!({}) }
    }

    /// A root file system of busybox with all its applets, and the usual `/etc`.
    pub(crate) fn busybox() -> Image {
        static LAYER: OnceLock<Vec<u8>> = OnceLock::new();
        let layer = LAYER.get_or_init(busybox_layer);
        let mut image = Image::new(BUSYBOX).config(json!({"Cmd": ["sh"], "Env": [format!("PATH={PATH}")]}));
        image.layers.push(layer.clone());
        image
    }

    /// The same under another name.
    pub(crate) fn named(mut self, name: &str) -> Image {
        self.name = name.to_owned();
        self
    }

    pub(crate) fn layer(mut self, layer: Layer) -> Image {
        self.layers.push(layer.tar());
        self
    }

    /// Keys of the image's `config` (`Cmd`, `Env`, `User`, …), over those that are there.
    pub(crate) fn config(mut self, more: Value) -> Image {
        for (key, value) in more.as_object().expect("an object") {
            self.config[key] = value.clone();
        }
        self
    }

    /// The configuration document.
    pub(crate) fn document(&self) -> Vec<u8> {
        let diff_ids: Vec<String> = self.layers.iter().map(|layer| digest(layer)).collect();
        let history: Vec<Value> = (0..self.layers.len())
            .map(|number| json!({"created": "2024-01-02T03:04:05Z", "created_by": format!("layer {number}")}))
            .collect();
        let document = json!({
            "architecture": architecture(), "os": "linux", "created": "2024-01-02T03:04:05Z", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": history,
        });
        serde_json::to_vec(&document).expect("write JSON")
    }

    /// What `docker save` writes.
    pub(crate) fn docker_archive(&self) -> Vec<u8> {
        let document = self.document();
        let name = |bytes: &[u8]| digest(bytes)["sha256:".len()..].to_owned();
        let config = format!("{}.json", name(&document));
        let layers: Vec<String> = self.layers.iter().map(|layer| format!("{}.tar", name(layer))).collect();
        let manifest = json!([{"Config": config, "RepoTags": [self.name], "Layers": layers}]);
        let mut archive = Layer::new().file("manifest.json", 0o644, manifest.to_string());
        archive = archive.file(&config, 0o644, document);
        for (name, bytes) in layers.iter().zip(&self.layers) {
            archive = archive.file(name, 0o644, bytes);
        }
        archive.tar()
    }

    /// The files of an OCI layout.
    pub(crate) fn oci_files(&self) -> Vec<(String, Vec<u8>)> {
        let mut files = vec![("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())];
        let mut blob = |bytes: Vec<u8>, kind: &str| {
            let digest = digest(&bytes);
            let descriptor = json!({"mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": bytes.len()});
            files.push((format!("blobs/{}", digest.replace(':', "/")), bytes));
            descriptor
        };
        let layers: Vec<Value> = self.layers.iter().map(|layer| blob(layer.clone(), "layer.v1.tar")).collect();
        let config = blob(self.document(), "config.v1+json");
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config,
            "layers": layers,
        });
        let mut entry = blob(manifest.to_string().into_bytes(), "manifest.v1+json");
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": self.name});
        let index = json!({"schemaVersion": 2, "manifests": [entry]});
        files.push(("index.json".to_owned(), index.to_string().into_bytes()));
        files
    }

    /// The same as one tar.
    pub(crate) fn oci_archive(&self) -> Vec<u8> {
        self.oci_files().iter().fold(Layer::new(), |archive, (name, bytes)| archive.file(name, 0o644, bytes)).tar()
    }

    /// The same as a directory.
    pub(crate) fn oci_directory(&self, directory: &Path) {
        for (name, bytes) in self.oci_files() {
            let path = directory.join(name);
            std::fs::create_dir_all(path.parent().expect("a directory")).expect("make a directory");
            std::fs::write(path, bytes).expect("write a file of an image");
        }
    }

    /// All layers in one tar, as `export` would write them (whiteouts are not applied).
    pub(crate) fn rootfs_tar(&self) -> &[u8] {
        self.layers.first().expect("a layer")
    }
}

/// `sha256:…` of bytes.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// This machine's architecture in the words of images.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Where the static busybox of the package `busybox-static` is.
pub(crate) fn busybox_path() -> &'static Path {
    Path::new("/bin/busybox")
}

fn busybox_layer() -> Vec<u8> {
    let busybox = std::fs::read(busybox_path()).expect("read /bin/busybox (package busybox-static)");
    let list = Command::new(busybox_path()).arg("--list").output().expect("run busybox");
    let mut layer = Layer::new();
    for (path, mode) in [
        ("bin", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("home", 0o755),
        ("home/user", 0o755),
        ("proc", 0o755),
        ("root", 0o700),
        ("sbin", 0o755),
        ("sys", 0o755),
        ("tmp", 0o1777),
        ("usr", 0o755),
        ("usr/bin", 0o755),
        ("usr/sbin", 0o755),
        ("var", 0o755),
        ("var/tmp", 0o1777),
    ] {
        layer = layer.directory(path, mode);
    }
    layer = layer
        .file("bin/busybox", 0o755, busybox)
        .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n")
        .file("etc/group", 0o644, "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n")
        .file("etc/os-release", 0o644, "ID=busybox\nNAME=\"A busybox for tests\"\n");
    for applet in String::from_utf8_lossy(&list.stdout).lines().filter(|applet| *applet != "busybox") {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    layer.tar()
}

/// A Debian root file system as a tar, made once by `mmdebstrap` and kept under the target directory.
pub(crate) fn debian_rootfs() -> Result<PathBuf, String> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian.tar");
    let _lock = exclusive(&path.with_extension("lock"));
    if path.exists() {
        return Ok(path);
    }
    super::need::program("mmdebstrap").map_err(|reason| format!("debian: {reason}"))?;
    super::need::root().map_err(|reason| format!("debian: {reason}"))?;
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or("bookworm");
    let failed = path.with_extension("failed");
    if failed.exists()
        && std::env::var_os("CORACLE_TEST_RUN")
            .is_some_and(|run| std::fs::read(&failed).is_ok_and(|by| by == run.as_encoded_bytes()))
    {
        return Err("debian: mmdebstrap failed earlier in this run".to_owned());
    }
    let staging = path.with_extension("new.tar");
    let output = Command::new("timeout")
        .args(["-k", "5", "240", "mmdebstrap", "--quiet", "--variant=apt", "--include=python3-minimal"])
        .args(["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*"])
        .arg(suite)
        .arg(&staging)
        .env("PATH", PATH)
        .stdin(std::process::Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            std::fs::rename(&staging, &path).map_err(|error| format!("debian: keep the tar: {error}"))?;
            Ok(path)
        }
        Ok(output) => {
            let _ = std::fs::remove_file(&staging);
            let _ = std::fs::write(&failed, std::env::var("CORACLE_TEST_RUN").unwrap_or_default());
            Err(format!("debian: mmdebstrap: {}", String::from_utf8_lossy(&output.stderr).trim()))
        }
        Err(error) => Err(format!("debian: mmdebstrap: {error}")),
    }
}

/// Hold a lock between processes: tests run one in each.
fn exclusive(path: &Path) -> nix::fcntl::Flock<std::fs::File> {
    let file = std::fs::File::create(path).expect("make a lock file");
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).map_err(|(_, errno)| errno).expect("lock")
}
