//! The support code itself: what it builds must be what the real tools read.

use super::image::{self, Image, Layer};
use super::{Env, need};
use serde_json::json;

#[test]
fn archives_are_what_skopeo_reads() {
    need::need!(program("skopeo"));
    let Some(env) = Env::root().or_else(Env::user) else { return };
    let top = Layer::new().file("etc/motd", 0o644, "hello").whiteout("etc/group").opaque("var");
    let image = Image::busybox().layer(top).config(json!({"User": "7"}));
    let docker = env.write("docker.tar", image.docker_archive());
    let oci = env.write("oci.tar", image.oci_archive());
    for source in [format!("docker-archive:{}", docker.display()), format!("oci-archive:{}", oci.display())] {
        let config = env.other(["skopeo", "inspect", "--config", &source]).run().json();
        assert_eq!(config["config"]["User"], "7", "{source}");
        assert_eq!(config["config"]["Cmd"], json!(["sh"]));
        // Reading all layers checks their digests.
        let target = format!("dir:{}", env.path("copy").display());
        let _ = env.other(["skopeo", "copy", "--insecure-policy", "--quiet", &source, &target]).run().succeeded();
    }
}

#[test]
fn digests_are_sha256() {
    assert_eq!(image::digest(b"abc"), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}
