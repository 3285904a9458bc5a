//! The programs that drive a runtime, with ours in its place.

use super::bundle::Bundle;
use crate::support::coracle::as_root;
use crate::support::need::need;

as_root! {
    fn podman(env) {
        need!(program("podman"));
        let bundle = Bundle::new(&env);
        let storage = env.base().join("pod");
        let link = env.path("coracle-oci");
        std::os::unix::fs::symlink(crate::support::coracle::binary(), &link).unwrap();
        env.write("containers.conf", "[engine]\nevents_logger=\"none\"\n[containers]\ndefault_ulimits=[\"nofile=1024:1024\",\"nproc=1024:1024\"]\n");
        let podman = |words: &[&str]| {
            let mut all = vec!["podman".to_owned(), "--storage-driver=vfs".into(), "--cgroup-manager=cgroupfs".into()];
            all.push(format!("--root={}", storage.join("root").display()));
            all.push(format!("--runroot={}", storage.join("run").display()));
            all.push(format!("--runtime={}", link.display()));
            all.extend(words.iter().map(|word| (*word).to_owned()));
            env.other(all).env("CONTAINERS_CONF", env.path("containers.conf")).run()
        };
        let rootfs = bundle.rootfs("");
        let rootfs = rootfs.to_str().unwrap();
        let run = podman(&["run", "--rm", "--network=none", "--rootfs", rootfs, "sh", "-c", "hostname; exit 3"]);
        assert_eq!(run.code(), 3, "{run}");
        let missing = podman(&["run", "--rm", "--network=none", "--rootfs", rootfs, "nosuch"]);
        assert_eq!(missing.code(), 127, "{missing}");
        let forbidden = podman(&["run", "--rm", "--network=none", "--rootfs", rootfs, "/etc"]);
        assert_eq!(forbidden.code(), 126, "{forbidden}");
        podman(&["run", "-d", "--name=a", "--network=none", "--rootfs", rootfs, "sleep", "1000"]).succeeded();
        assert_eq!(podman(&["exec", "a", "sh", "-c", "echo $$; exit 4"]).code(), 4);
        assert_eq!(podman(&["exec", "-t", "a", "tty"]).succeeded().trim(), "/dev/pts/0");
        podman(&["pause", "a"]).succeeded();
        podman(&["unpause", "a"]).succeeded();
        assert!(podman(&["top", "a"]).succeeded().contains("sleep 1000"));
        podman(&["stop", "-t", "0", "a"]).succeeded();
        podman(&["rm", "a"]).succeeded();
    }
}
