//! Registries for tests: one in this process that can misbehave on purpose, and the real `docker-registry`.

use super::image::digest;
use super::wait::until;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as the registry saw it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    pub(crate) fn is_blob(&self) -> bool {
        self.method == "GET" && self.path.contains("/blobs/sha256:")
    }
}

/// What it answers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Close the connection after so many bytes of the body.
    pub(crate) cut: Option<usize>,
    /// Send so many bytes of the body and then nothing more, until the client goes.
    pub(crate) stall: Option<usize>,
    /// What `Content-Length` says, if not the truth.
    pub(crate) length: Option<usize>,
    /// Close the connection when all is sent.
    pub(crate) close: bool,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Reply {
        Reply { status, ..Reply::default() }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Reply {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The connection ends with it, which the client is not told.
    pub(crate) fn then_close(mut self) -> Reply {
        self.close = true;
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Reply {
        self.body = body.into();
        self
    }

    /// An error as registries write it.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Reply {
        let body = json!({"errors": [{"code": code, "message": message}]}).to_string();
        Reply::new(status).header("Content-Type", "application/json").body(body)
    }
}

/// Answers a request; the second argument is what a well-behaved registry would say.
pub(crate) type Behaviour = dyn Fn(&Seen, Reply) -> Reply + Send + Sync;

#[derive(Default)]
struct Content {
    blobs: HashMap<String, Vec<u8>>,
    /// By `NAME:REFERENCE`.
    manifests: HashMap<String, (String, Vec<u8>)>,
    uploads: HashMap<u32, Vec<u8>>,
}

/// A registry in this process, speaking plain http on a port of its own.
pub(crate) struct Fake {
    port: u16,
    content: Arc<Mutex<Content>>,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
}

impl Fake {
    /// One that behaves.
    pub(crate) fn start() -> Fake {
        Fake::misbehaving(|_, reply| reply)
    }

    /// One that does as the closure says.
    pub(crate) fn misbehaving(behaviour: impl Fn(&Seen, Reply) -> Reply + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let port = listener.local_addr().expect("the address").port();
        let fake = Fake { port, content: Arc::default(), seen: Arc::default(), stop: Arc::default() };
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        let (content, seen, stop) = (fake.content.clone(), fake.seen.clone(), fake.stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let (content, seen, behaviour) = (content.clone(), seen.clone(), behaviour.clone());
                std::thread::spawn(move || serve(stream, &content, &seen, &*behaviour));
            }
        });
        fake
    }

    /// `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `127.0.0.1:PORT/NAME`.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    /// Keep a blob. Returns its descriptor.
    pub(crate) fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        self.content.lock().expect("the content").blobs.insert(digest.clone(), bytes.to_vec());
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// Keep a manifest or index under a tag and its digest. Returns its descriptor.
    pub(crate) fn manifest(&self, name: &str, tag: &str, document: &Value) -> Value {
        self.raw_manifest(
            name,
            tag,
            document["mediaType"].as_str().unwrap_or_default(),
            document.to_string().as_bytes(),
        )
    }

    /// The same with these very bytes.
    pub(crate) fn raw_manifest(&self, name: &str, tag: &str, media_type: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes);
        let mut content = self.content.lock().expect("the content");
        for reference in [tag, &digest] {
            content.manifests.insert(format!("{name}:{reference}"), (media_type.to_owned(), bytes.to_vec()));
        }
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// Put an image of gzip layers. Returns the digests of its manifest and of its config.
    pub(crate) fn image(&self, name: &str, tag: &str, layers: &[Vec<u8>]) -> (String, String) {
        let blobs: Vec<Vec<u8>> = layers.iter().map(|layer| gzip(layer)).collect();
        let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
        let config = config(&diff_ids);
        let config = self.blob("application/vnd.oci.image.config.v1+json", &config);
        let layers: Vec<Value> =
            blobs.iter().map(|blob| self.blob("application/vnd.oci.image.layer.v1.tar+gzip", blob)).collect();
        let manifest = self.manifest(name, tag, &manifest(&config, &layers));
        let text = |value: &Value| value["digest"].as_str().expect("a digest").to_owned();
        (text(&manifest), text(&config))
    }

    /// The manifest that is there under `NAME:REFERENCE`.
    pub(crate) fn stored_manifest(&self, name: &str, reference: &str) -> Option<Vec<u8>> {
        let content = self.content.lock().expect("the content");
        content.manifests.get(&format!("{name}:{reference}")).map(|(_, bytes)| bytes.clone())
    }

    /// Digests of all blobs.
    pub(crate) fn stored_blobs(&self) -> Vec<String> {
        self.content.lock().expect("the content").blobs.keys().cloned().collect()
    }

    /// Forget a blob.
    pub(crate) fn forget(&self, digest: &str) {
        self.content.lock().expect("the content").blobs.remove(digest);
    }

    /// Forget all blobs.
    pub(crate) fn forget_all(&self) {
        self.content.lock().expect("the content").blobs.clear();
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("the requests").clone()
    }

    /// How many requests there were of this method whose path contains a text.
    pub(crate) fn count(&self, method: &str, part: &str) -> usize {
        self.seen().iter().filter(|seen| seen.method == method && seen.path.contains(part)).count()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wake the listener.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// An image config with these diff ids.
pub(crate) fn config(diff_ids: &[String]) -> Vec<u8> {
    let document = json!({"architecture": super::image::architecture(), "os": "linux", "config": {"Cmd": ["/x"]},
        "created": "2024-01-02T03:04:05Z", "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    document.to_string().into_bytes()
}

/// A manifest of these descriptors.
pub(crate) fn manifest(config: &Value, layers: &[Value]) -> Value {
    json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config,
        "layers": layers})
}

/// Bytes that do not compress, other ones for each name.
pub(crate) fn noise(name: &str, size: usize) -> Vec<u8> {
    let seed = |state: u64, byte| state.wrapping_mul(31).wrapping_add(u64::from(byte));
    let mut state = name.bytes().fold(7, seed);
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..size).map(next).collect()
}

/// Compress as gzip.
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("compress");
    encoder.finish().expect("compress")
}

fn serve(stream: TcpStream, content: &Mutex<Content>, log: &Mutex<Vec<Seen>>, behaviour: &Behaviour) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
    let _ = stream.set_nodelay(true);
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    while let Some(seen) = read_request(&mut reader) {
        log.lock().expect("the requests").push(seen.clone());
        let plain = answer(&seen, &mut content.lock().expect("the content"));
        let reply = behaviour(&seen, plain);
        let head_only = seen.method == "HEAD";
        let length = reply.length.unwrap_or(reply.body.len());
        let mut head = format!("HTTP/1.1 {} X\r\n", reply.status);
        if !(100..200).contains(&reply.status) && reply.status != 204 {
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let end = reply.cut.or(reply.stall).unwrap_or(usize::MAX).min(reply.body.len());
        let body = if head_only { &[][..] } else { &reply.body[..end] };
        if writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(body)).is_err() {
            return;
        }
        if reply.stall.is_some() {
            let _ = reader.read(&mut [0]);
            return;
        }
        if reply.cut.is_some() || reply.length.is_some() || reply.close {
            let _ = writer.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Seen> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let mut words = line.split_whitespace();
    let mut seen = Seen { method: words.next()?.to_owned(), path: words.next()?.to_owned(), ..Seen::default() };
    // A TLS greeting is no request.
    if !seen.method.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        seen.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    assert!(seen.header("transfer-encoding").is_none(), "{} {}: a body without a length", seen.method, seen.path);
    let length = seen.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    seen.body = vec![0; length];
    reader.read_exact(&mut seen.body).ok()?;
    Some(seen)
}

/// What a well-behaved registry says.
fn answer(seen: &Seen, content: &mut Content) -> Reply {
    let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
    let Some(rest) = path.strip_prefix("/v2/") else { return Reply::new(404) };
    if rest.is_empty() {
        return Reply::new(200).header("Content-Type", "application/json").body("{}");
    }
    if rest == "_catalog" {
        let mut names: Vec<String> =
            content.manifests.keys().filter_map(|key| key.split(':').next()).map(str::to_owned).collect();
        names.sort();
        names.dedup();
        return Reply::new(200)
            .header("Content-Type", "application/json")
            .body(json!({"repositories": names}).to_string());
    }
    if let Some((name, reference)) = rest.split_once("/manifests/") {
        return answer_manifest(seen, content, name, reference);
    }
    if let Some((_, rest)) = rest.split_once("/blobs/uploads/") {
        return answer_upload(seen, content, path, rest, query);
    }
    if let Some((_, digest)) = rest.split_once("/blobs/") {
        return answer_blob(seen, content, digest);
    }
    if let Some(name) = rest.strip_suffix("/tags/list") {
        let mut tags: Vec<&str> = content
            .manifests
            .keys()
            .filter_map(|key| key.strip_prefix(&format!("{name}:")))
            .filter(|tag| !tag.starts_with("sha256:"))
            .collect();
        tags.sort_unstable();
        return Reply::new(200)
            .header("Content-Type", "application/json")
            .body(json!({"name": name, "tags": tags}).to_string());
    }
    Reply::error(404, "NAME_UNKNOWN", "repository name not known to registry")
}

fn answer_manifest(seen: &Seen, content: &mut Content, name: &str, reference: &str) -> Reply {
    let key = format!("{name}:{reference}");
    if seen.method == "PUT" {
        let media_type = seen.header("content-type").unwrap_or_default().to_owned();
        let digest = digest(&seen.body);
        content.manifests.insert(key, (media_type.clone(), seen.body.clone()));
        content.manifests.insert(format!("{name}:{digest}"), (media_type, seen.body.clone()));
        return Reply::new(201).header("Docker-Content-Digest", digest);
    }
    match content.manifests.get(&key) {
        Some((media_type, bytes)) => Reply::new(200)
            .header("Content-Type", media_type)
            .header("Docker-Content-Digest", digest(bytes))
            .body(bytes.clone()),
        None => Reply::error(404, "MANIFEST_UNKNOWN", "manifest unknown"),
    }
}

fn answer_blob(seen: &Seen, content: &Content, digest: &str) -> Reply {
    let Some(bytes) = content.blobs.get(digest) else {
        return Reply::error(404, "BLOB_UNKNOWN", "blob unknown to registry");
    };
    let start = seen
        .header("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok())
        .filter(|start| *start < bytes.len());
    match start {
        Some(start) => Reply::new(206)
            .header("Content-Range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()))
            .body(&bytes[start..]),
        None => Reply::new(200).header("Content-Type", "application/octet-stream").body(bytes.clone()),
    }
}

fn answer_upload(seen: &Seen, content: &mut Content, path: &str, rest: &str, query: &str) -> Reply {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let parameter = |name: &str| {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
            .map(|text| text.replace("%3A", ":"))
    };
    let accepted = |number: u32, length: usize, status| {
        let folder = &path[..path.find("/uploads/").map_or(0, |at| at + "/uploads/".len())];
        Reply::new(status)
            .header("Location", format!("{folder}{number}?state=x"))
            .header("Range", format!("0-{}", length.saturating_sub(1)))
    };
    if seen.method == "POST" {
        if let Some(digest) = parameter("mount").filter(|digest| content.blobs.contains_key(digest)) {
            return Reply::new(201).header("Location", format!("/v2/x/blobs/{digest}"));
        }
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        content.uploads.insert(number, Vec::new());
        return accepted(number, 0, 202);
    }
    let Some((number, upload)) =
        rest.parse().ok().and_then(|number: u32| Some((number, content.uploads.get_mut(&number)?)))
    else {
        return Reply::error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry");
    };
    match seen.method.as_str() {
        "GET" => accepted(number, upload.len(), 204),
        "PATCH" => {
            upload.extend_from_slice(&seen.body);
            accepted(number, upload.len(), 202)
        }
        _ => {
            upload.extend_from_slice(&seen.body);
            let bytes = content.uploads.remove(&number).unwrap_or_default();
            let found = digest(&bytes);
            if parameter("digest").as_deref() != Some(&found) {
                return Reply::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content");
            }
            content.blobs.insert(found.clone(), bytes);
            Reply::new(201).header("Docker-Content-Digest", found)
        }
    }
}

/// The `docker-registry` of Debian, on a port of the kernel's choice.
pub(crate) struct DockerRegistry {
    child: Child,
    directory: PathBuf,
    port: u16,
}

/// Who may enter [`DockerRegistry::secure`].
pub(crate) const CREDENTIALS: &str = "user:secret";

impl DockerRegistry {
    /// Plain http, open to all.
    pub(crate) fn plain() -> DockerRegistry {
        DockerRegistry::start(None)
    }

    /// TLS and a password.
    pub(crate) fn secure() -> DockerRegistry {
        DockerRegistry::start(Some(make_certificates))
    }

    /// The same with a certificate that is its own authority, as `openssl req -x509` makes it.
    pub(crate) fn self_signed() -> DockerRegistry {
        DockerRegistry::start(Some(make_self_signed))
    }

    fn start(secure: Option<fn(&Path)>) -> DockerRegistry {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let directory = std::env::temp_dir().join(format!("ctr{}.{number}", std::process::id()));
        std::fs::create_dir(&directory).expect("make a directory for the registry");
        let show = |name: &str| directory.join(name).display().to_string();
        let mut config = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n",
            show("data")
        );
        if let Some(make) = secure {
            make(&directory);
            // `user:secret` as htpasswd -B writes it.
            let passwords = "user:$2y$04$wiZTt.OYUZ8m2mglDst7geEvNGG8HMxm.E5opXLEbGDgIow62C4ne\n";
            std::fs::write(directory.join("htpasswd"), passwords).expect("write the registry's passwords");
            config.push_str(&format!(
                "http: {{addr: '127.0.0.1:0', tls: {{certificate: {}, key: {}}}}}\n\
                 auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
                show("server.crt"),
                show("server.key"),
                show("htpasswd")
            ));
        } else {
            config.push_str("http: {addr: '127.0.0.1:0'}\n");
        }
        std::fs::write(directory.join("config.yml"), config).expect("write the registry's config");
        let log = directory.join("log");
        let file = std::fs::File::create(&log).expect("make the registry's log");
        let child = std::process::Command::new("docker-registry")
            .arg("serve")
            .arg(directory.join("config.yml"))
            .env("PATH", super::command::PATH)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("the log"))
            .stderr(file)
            .spawn()
            .expect("start docker-registry");
        let port = until("docker-registry listens", || {
            let text = std::fs::read_to_string(&log).ok()?;
            let at = text.find("listening on 127.0.0.1:")? + "listening on 127.0.0.1:".len();
            let digits: String = text[at..].chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok().filter(|_| text.len() > at + digits.len())
        });
        DockerRegistry { child, directory, port }
    }

    /// `localhost:PORT`.
    pub(crate) fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// `localhost:PORT/NAME`.
    pub(crate) fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    /// Write its certificate authority into a directory for `--cert-dir`.
    pub(crate) fn certificates(&self, directory: &Path) -> PathBuf {
        let path = directory.join("certificates");
        std::fs::create_dir_all(&path).expect("make a directory");
        std::fs::copy(self.directory.join("ca.crt"), path.join("ca.crt")).expect("copy a certificate");
        path
    }
}

/// An authority `ca.crt`, and `server.crt` with `server.key` for localhost.
fn make_certificates(directory: &Path) {
    std::fs::write(directory.join("extensions"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").expect("write a file");
    openssl(
        directory,
        &format!(
            "req -x509 {KEY} -keyout ca.key -out ca.crt -days 2 -subj /CN=tests -addext basicConstraints=critical,CA:TRUE"
        ),
    );
    openssl(directory, &format!("req {KEY} -keyout server.key -out server.csr -subj /CN=localhost"));
    openssl(
        directory,
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out server.crt -days 2 -extfile extensions",
    );
}

/// `server.crt` that is an authority too, which is `ca.crt`.
fn make_self_signed(directory: &Path) {
    let line = "-keyout server.key -out server.crt -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost";
    openssl(directory, &format!("req -x509 {KEY} {line}"));
    std::fs::copy(directory.join("server.crt"), directory.join("ca.crt")).expect("copy a certificate");
}

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

fn openssl(directory: &Path, line: &str) {
    let mut command = std::process::Command::new("openssl");
    command.args(line.split_whitespace()).current_dir(directory).env("PATH", super::command::PATH);
    let output = command.output().expect("run openssl");
    assert!(output.status.success(), "openssl {line}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
