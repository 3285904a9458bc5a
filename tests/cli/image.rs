//! Images without a registry: `load`, `import`, `images`, `tag`, `rmi`, `history`, `save` and what `image` has of them.

use crate::support::coracle::{as_root, as_user, both};
use crate::support::image::{BUSYBOX, Layer};
use crate::support::{Env, Image, need};
use serde_json::json;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

/// Three layers: the second changes and removes what the first has, the third hides a directory.
pub(crate) fn layered() -> Image {
    let bottom = Layer::new()
        .directory("etc", 0o755)
        .file("etc/kept", 0o644, "kept\n")
        .file("etc/changed", 0o644, "old\n")
        .file("etc/removed", 0o644, "removed\n")
        .directory("var", 0o755)
        .directory("var/hidden", 0o755)
        .file("var/hidden/file", 0o644, "hidden\n")
        .directory("bin", 0o755)
        .file("bin/busybox", 0o755, std::fs::read(crate::support::image::busybox_path()).expect("busybox"))
        .hardlink("bin/sh", "bin/busybox")
        .symlink("bin/ls", "busybox")
        .symlink("bin/cat", "busybox");
    let middle = Layer::new().file("etc/changed", 0o644, "new\n").whiteout("etc/removed");
    let top =
        Layer::new().directory("var/hidden", 0o755).opaque("var/hidden").file("var/hidden/other", 0o600, "other\n");
    Image::new("localhost/layers:v1").layer(bottom).layer(middle).layer(top).config(json!({
        "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["cat /etc/kept /etc/changed"], "Env": ["PATH=/bin", "A=image"],
        "WorkingDir": "/var", "Labels": {"a": "b"}, "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGINT", "User": "7:8",
    }))
}

/// An URL whose server answers one request with these bytes.
fn serve_once(bytes: Vec<u8>) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("read the request") == 1 {
            request.push(byte[0]);
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len());
        // A client that went away tells why itself.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&bytes));
    });
    format!("http://{address}/image.tar")
}

both! {
    fn loaded_from_either_archive(env: Env) {
        let image = Image::busybox();
        let docker = env.write("docker.tar", image.docker_archive());
        let output = env.command(["load", "-i"]).arg(&docker).run();
        assert_eq!(output.succeeded(), format!("Loaded image: {BUSYBOX}"));
        let id = env.coracle(["images", "-q", "--no-trunc"]).ok();
        let oci = env.write("oci.tar", image.named("localhost/again:2").oci_archive());
        assert_eq!(env.command(["load", "-q", "-i"]).arg(&oci).run().succeeded(), "Loaded image: localhost/again:2");
        // One image by its content, two names.
        assert_eq!(env.coracle(["images", "--no-trunc", "--format", "{{.ID}}"]).ok(), format!("{id}\n{id}"));
        assert_eq!(env.coracle(["images", "--format", "{{.Repository}}:{{.Tag}}", "--sort", "repository"]).ok(),
            format!("localhost/again:2\n{BUSYBOX}"));
    }

    fn listed(env: Env) {
        env.load(&layered());
        assert_eq!(
            env.transcript(["images"]),
            "REPOSITORY        TAG         IMAGE ID      CREATED      SIZE\n\
             localhost/layers  v1          [ID]  2 years ago  2.01 MB\n"
                .replace("2.01 MB", &size(&env)).replace("2 years ago", &created(&env))
        );
        assert_eq!(env.coracle(["images", "--noheading", "--format", "table {{.Tag}}"]).ok(), "v1");
        assert_eq!(env.coracle(["images", "no/such"]).ok(), "REPOSITORY  TAG         IMAGE ID    CREATED     SIZE");
        assert_eq!(env.coracle(["images", "-q", "--filter", "label=a=b"]).ok().len(), 12);
        assert_eq!(env.coracle(["images", "-q", "--filter", "label=a=c"]).ok(), "");
        assert!(env.coracle(["images", "--format", "{{.Foo}}"]).fails(125).contains("can't evaluate field Foo"));
        let json = env.coracle(["images", "--format", "json"]).json();
        assert_eq!(json[0]["Names"], json!(["localhost/layers:v1"]));
    }

    fn tagged_and_removed(env: Env) {
        env.load(&layered());
        env.coracle(["tag", "layers:v1", "localhost/other:x", "third"]).ok();
        let names = || env.coracle(["images", "--format", "{{.Repository}}:{{.Tag}}", "--sort", "repository"]).ok();
        assert_eq!(names(), "localhost/layers:v1\nlocalhost/other:x\nlocalhost/third:latest");
        env.coracle(["untag", "layers:v1", "third"]).ok();
        assert_eq!(names(), "localhost/layers:v1\nlocalhost/other:x");
        assert_eq!(env.coracle(["rmi", "other:x"]).ok(), "Untagged: localhost/other:x");
        let id = env.coracle(["images", "-q", "--no-trunc"]).ok();
        let removed = env.coracle(["rmi", "layers:v1"]).ok();
        assert_eq!(removed, format!("Untagged: localhost/layers:v1\nDeleted: {}", id.trim_start_matches("sha256:")));
        assert_eq!(env.coracle(["images", "-q"]).ok(), "");
        assert!(env.coracle(["rmi", "layers:v1"]).fails(1).contains("layers:v1"));
        assert_eq!(env.coracle(["image", "exists", "layers:v1"]).code(), 1);
    }

    fn an_image_in_use_stays(env: Env) {
        env.load(&layered());
        let id = env.coracle(["create", "--network", "none", "layers:v1"]).ok();
        let refusal = env.coracle(["rmi", "layers:v1"]).fails(2);
        assert!(refusal.contains(&id[..12]), "{refusal}");
        env.coracle(["rm", &id]).ok();
        let _ = env.coracle(["rmi", "layers:v1"]).ok();
    }

    fn its_config_is_told(env: Env) {
        env.load(&layered());
        let document = env.coracle(["image", "inspect", "layers:v1"]).json();
        let config = &document[0]["Config"];
        assert_eq!(config["Entrypoint"], json!(["/bin/sh", "-c"]));
        assert_eq!(config["Labels"], json!({"a": "b"}));
        assert_eq!(config["User"], "7:8");
        assert_eq!(config["StopSignal"], "SIGINT");
        assert_eq!(document[0]["RepoTags"], json!(["localhost/layers:v1"]));
        assert_eq!(document[0]["RootFS"]["Layers"].as_array().map(Vec::len), Some(3));
        assert_eq!(env.coracle(["image", "inspect", "--format", "{{.Config.WorkingDir}}", "layers:v1"]).ok(), "/var");
        assert_eq!(
            env.coracle(["history", "--format", "{{.CreatedBy}}", "layers:v1"]).ok(),
            "layer 2\nlayer 1\nlayer 0"
        );
    }

    fn saved_and_loaded_it_is_the_same(env: Env) {
        env.load(&layered());
        let id = env.coracle(["images", "-q", "--no-trunc"]).ok();
        for format in ["docker-archive", "oci-archive"] {
            let file = env.path(format);
            let _ = env.command(["save", "-q", "--format", format, "-o"]).arg(&file).arg("layers:v1").run().succeeded();
            let _ = env.coracle(["rmi", "layers:v1"]).ok();
            let _ = env.command(["load", "-q", "-i"]).arg(&file).run().succeeded();
            assert_eq!(env.coracle(["images", "-q", "--no-trunc"]).ok(), id, "{format}");
        }
    }

    fn imported_in_every_compression(env: Env) {
        let layer = Layer::new().file("hello", 0o644, "hello\n").tar();
        for (program, name) in [("cat", "plain"), ("gzip", "gzip"), ("xz", "xz"), ("bzip2", "bzip2"), ("zstd", "zstd")] {
            need::need!(program(program));
            let file = env.write(name, through(program, &layer));
            let mut command = env.command(["import", "-q", "--change", "CMD /hello", "--message", "from a tar"]);
            command = command.arg(&file).arg(format!("localhost/{name}"));
            let _ = command.run().succeeded();
            let document = env.coracle(["image", "inspect", name]).json();
            assert_eq!(document[0]["RootFS"]["Layers"], json!([crate::support::image::digest(&layer)]), "{name}");
            assert!(document[0]["Config"]["Cmd"].to_string().contains("/hello"));
        }
        let output = env.command(["import", "-q", "-", "localhost/stdin"]).stdin(layer).run();
        let _ = output.succeeded();
        assert_eq!(env.coracle(["image", "exists", "stdin"]).code(), 0);
    }

    fn loaded_from_an_url(env: Env) {
        let env = env.host_network();
        let image = Image::new("localhost/url:1").layer(Layer::new().file("a", 0o644, "a"));
        let url = serve_once(image.docker_archive());
        assert_eq!(env.coracle(["load", "-i", &url]).succeeded(), "Loaded image: localhost/url:1");
    }

    fn mounted_it_can_be_read_and_let_go(env: Env) {
        env.load(&Image::new("localhost/mount:1").layer(Layer::new().file("etc/x", 0o644, "inside")));
        let own = format!(
            "{} --root {} --runroot {}",
            crate::support::coracle::binary().display(),
            env.data().display(),
            env.runroot().display()
        );
        let script = format!(
            "place=$({own} image mount mount:1) && cat $place/etc/x && {own} image mount && {own} image unmount mount:1 && \
             test ! -e $place/etc/x && {own} image mount"
        );
        let command = if env.is_root() { env.other(["sh", "-c"]) } else { env.command(["unshare", "sh", "-c"]) };
        let shown = command.arg(&script).run().ok();
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[0].starts_with("insidelocalhost/mount:1") && lines.len() == 2, "{shown}");
    }

    fn two_of_them_are_compared(env: Env) {
        let layer = |text: &str| Layer::new().directory("d", 0o755).file("d/same", 0o644, "same").file("d/x", 0o644, text);
        env.load(&Image::new("localhost/one:1").layer(layer("one").file("gone", 0o644, "")));
        env.load(&Image::new("localhost/two:1").layer(layer("other").directory("new", 0o755).file("new/y", 0o644, "")));
        let expected = "C /d\nC /d/x\nD /gone\nA /new\nA /new/y";
        for words in [&["diff", "two:1", "one:1"][..], &["image", "diff", "two:1", "one:1"]] {
            assert_eq!(env.coracle(words).ok(), expected);
        }
        assert_eq!(env.coracle(["diff", "one:1", "one:1"]).ok(), "");
        let document = env.coracle(["diff", "--format", "json", "one:1", "two:1"]).json();
        assert_eq!(document["deleted"], serde_json::json!(["/new"]));
        let text = env.coracle(["image", "scp", "one:1", "other.host::"]).fails(125);
        assert!(text.contains("hint: `coracle save IMAGE | ssh other.host coracle load`"), "{text}");
    }

    fn what_is_no_archive_is_refused(env: Env) {
        let text = env.write("text", "no archive at all");
        let refusal = env.command(["load", "-i"]).arg(&text).run().fails(125);
        assert!(refusal.contains("text"), "{refusal}");
        assert!(refusal.contains("payload does not match any of the supported image formats"), "{refusal}");
        let whole = Image::busybox().docker_archive();
        let cut = env.write("cut.tar", &whole[..whole.len() / 2]);
        let _ = env.command(["load", "-i"]).arg(&cut).run().fails(125);
        let refusal = env.coracle(["load", "-i", "/no/such/file"]).fails(125);
        assert!(refusal.contains("/no/such/file"), "{refusal}");
        assert_eq!(env.coracle(["images", "-q"]).ok(), "");
        // A name that could never be found again.
        assert!(env.coracle(["tag", "busybox", "Bad:Name:x"]).code() == 125);
    }
}

as_root! {
    // skopeo unpacks archives with their owners, which an ordinary user cannot.
    fn skopeo_reads_what_is_saved(env: Env) {
        need::need!(program("skopeo"));
        env.load(&layered());
        for format in ["docker-archive", "oci-archive"] {
            let file = env.path(format);
            let _ = env.command(["save", "-q", "--format", format, "-o"]).arg(&file).arg("layers:v1").run().succeeded();
            let source = format!("{format}:{}", file.display());
            assert_eq!(env.other(["skopeo", "inspect", "--config", &source]).run().json()["config"]["User"], "7:8");
            let target = format!("dir:{}", env.path("copy").display());
            let _ = env.other(["skopeo", "copy", "--insecure-policy", "-q", &source, &target]).run().succeeded();
        }
    }
}

fn size(env: &Env) -> String {
    env.coracle(["images", "--format", "{{.Size}}"]).ok()
}

fn created(env: &Env) -> String {
    env.coracle(["images", "--format", "{{.Created}}"]).ok()
}

/// Bytes as a compressing program gives them.
fn through(program: &str, bytes: &[u8]) -> Vec<u8> {
    let mut child =
        Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start a compressor");
    child.stdin.take().expect("its input").write_all(bytes).expect("write to it");
    child.wait_with_output().expect("its output").stdout
}

as_user! {
    fn inside_unshare_the_store_is_that_of_outside(env: Env) {
        let image = Image::new("localhost/mine:1").layer(Layer::new().directory("etc", 0o755).file("etc/x", 0o644, "inside"));
        let archive = env.write("image.tar", image.docker_archive());
        env.bare(["load", "-q", "-i"]).arg(&archive).run().succeeded();
        let own = crate::support::coracle::binary().display();
        let script = format!(
            "place=$({own} image mount mine:1) && cat $place/etc/x && {own} images -q | wc -l && {own} image unmount mine:1"
        );
        let shown = env.bare(["unshare", "sh", "-c", &script]).run().succeeded();
        assert!(shown.starts_with("inside1\n"), "{shown}");
    }
}
