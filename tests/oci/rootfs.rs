//! What a container sees of the file system.

use super::bundle::Bundle;
use crate::support::coracle::{as_root, both};
use crate::support::need::need;
use serde_json::{Value, json};

/// The line of /proc/self/mountinfo for this place, from `root` on: `/ /data ro,relatime - ext4 …`.
fn mount_of<'a>(mountinfo: &'a str, place: &str) -> &'a str {
    let line = mountinfo.lines().find(|line| line.split(' ').nth(4) == Some(place));
    line.unwrap_or_else(|| panic!("nothing is mounted on {place}:\n{mountinfo}"))
}

fn options<'a>(mountinfo: &'a str, place: &str) -> Vec<&'a str> {
    mount_of(mountinfo, place).split(' ').nth(5).unwrap().split(',').collect()
}

fn bind(source: &std::path::Path, target: &str, options: &[&str]) -> Value {
    json!({"type": "bind", "source": source, "destination": target, "options": options})
}

both! {
    fn binds_have_their_flags(env) {
        let data = env.directory("data/below");
        env.write("data/file", "content");
        let data = data.parent().unwrap().to_owned();
        let bundle = Bundle::new(&env)
            .mount(bind(&data, "/ro", &["rbind", "ro", "nosuid"]))
            .mount(bind(&data, "/rw", &["bind", "noexec", "nodev"]))
            .mount(bind(&data.join("file"), "/made/for/file", &["bind", "rro"]))
            .script("cat /made/for/file; touch /ro/x || echo no; touch /rw/below/y && cat /proc/self/mountinfo");
        let output = bundle.oci(&["run", "--bundle", "b", &bundle.id("a")]);
        let said = output.stdout();
        assert!(said.starts_with("contentno\n"), "{output}");
        assert!(options(&said, "/ro").contains(&"ro") && options(&said, "/ro").contains(&"nosuid"), "{said}");
        assert!(options(&said, "/rw").contains(&"noexec") && options(&said, "/rw").contains(&"rw"), "{said}");
        assert!(options(&said, "/made/for/file").contains(&"ro"), "{said}");
        assert!(env.path("data/below/y").exists());
    }

    fn paths_are_masked_and_read_only(env) {
        let bundle = Bundle::new(&env).script(
            "ls /proc/acpi /sys/firmware | wc -l; wc -c < /proc/keys; touch /proc/sys/kernel/hostname || echo no; \
             stat -c %t:%T /proc/keys",
        );
        // `ls` names the two directories and separates them by an empty line.
        let output = bundle.oci(&["run", "--bundle", "b", &bundle.id("a")]);
        let said = output.stdout();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(&lines[1..], &["0", "no", "1:3"], "{output}");
    }

    fn devices_links_and_a_read_only_root(env) {
        let bundle = Bundle::new(&env)
            .set("/root", "readonly", json!(true))
            .script("for d in null zero full random urandom tty; do test -c /dev/$d || echo $d; done; echo x > /dev/null; \
                     for l in fd stdin ptmx; do readlink /dev/$l; done; head -c 2 /dev/zero | wc -c; touch /x || echo no");
        let output = bundle.oci(&["run", "--bundle", "b", &bundle.id("a")]);
        assert_eq!(output.stdout(), "/proc/self/fd\n/proc/self/fd/0\npts/ptmx\n2\nno\n", "{output}");
    }

    fn a_tmpfs_begins_with_a_copy(env) {
        env.write("b/rootfs/etc/deep/er/file", "content");
        let bundle = Bundle::new(&env)
            .mount(json!({"type": "tmpfs", "source": "tmpfs", "destination": "/etc", "options": ["tmpcopyup", "mode=750"]}))
            .script("cat /etc/deep/er/file; touch /etc/new; stat -c %a /etc; grep ' /etc ' /proc/self/mountinfo");
        let said = bundle.run();
        // The mode that was asked for, not that of the directory whose content is copied.
        assert!(said.starts_with("content750\n"), "{said}");
        assert!(said.contains("- tmpfs tmpfs"), "{said}");
        assert!(!bundle.rootfs("etc/new").exists());
    }

    fn what_cannot_be_mounted_is_named(env) {
        let bundle = Bundle::new(&env).mount(bind(std::path::Path::new("/no/such"), "/x", &["bind"]));
        assert_eq!(bundle.run_fails(), "bind /no/such on /x: no such file or directory\n");
        let bundle = Bundle::new(&env).mount(json!({"type": "nosuchfs", "destination": "/x"}));
        assert_eq!(bundle.run_fails(), "mount nosuchfs on /x: no such device\n");
        let bundle = Bundle::new(&env).set("/root", "path", json!("nowhere"));
        assert!(bundle.run_fails().starts_with("root.path: "));
    }
}

as_root! {
    fn a_user_namespace_has_its_ids_its_devices_and_its_mounts(env) {
        let data = env.directory("private/data");
        env.write("private/data/file", "content");
        std::os::unix::fs::chown(data.join("file"), Some(100_000), Some(100_000)).unwrap();
        // Nobody in the container may enter the directory above.
        std::fs::set_permissions(data.parent().unwrap(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        // Root of the namespace owns nothing here, so it could not make the place itself.
        env.directory("b/rootfs/data");
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        let bundle = Bundle::new(&env)
            .mount(bind(&data, "/data", &["bind"]))
            .set("/linux", "uidMappings", map.clone())
            .set("/linux", "gidMappings", map)
            .script("cat /proc/self/uid_map; stat -c %u:%g /data/file; echo x > /dev/null && ip link show lo | grep -c UP");
        let mut bundle = bundle;
        bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let said = bundle.run();
        assert_eq!(said, "         0     100000      65536\n0:0\n1\n");
    }

    fn an_idmapped_mount_shows_other_owners(env) {
        env.write("data/file", "content");
        let bundle = Bundle::new(&env)
            .mount(json!({"type": "bind", "source": env.path("data"), "destination": "/data", "options": ["bind", "idmap"],
                "uidMappings": [{"containerID": 0, "hostID": 4242, "size": 1}],
                "gidMappings": [{"containerID": 0, "hostID": 4343, "size": 1}]}))
            .script("stat -c %u:%g /data/file");
        assert_eq!(bundle.run(), "4242:4343\n");
    }

    fn nodes_have_owner_and_mode(env) {
        let bundle = Bundle::new(&env)
            .set("/linux", "devices", json!([{"path": "/dev/sub/x", "type": "c", "major": 1, "minor": 5, "fileMode": 416,
                "uid": 7, "gid": 8}, {"path": "/dev/pipe", "type": "p", "fileMode": 384}]))
            .script("stat -c '%a %u:%g %t:%T' /dev/sub/x; stat -c '%F %a' /dev/pipe");
        assert_eq!(bundle.run(), "640 7:8 1:5\nfifo 600\n");
    }

    fn sysctls_names_and_times_are_the_containers_own(env) {
        let mut bundle = Bundle::new(&env)
            .set("", "domainname", json!("example"))
            .set("/linux", "sysctl", json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "4711"}))
            .set("/linux", "timeOffsets", json!({"boottime": {"secs": 1_000_000_000}}))
            .script("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax /proc/sys/kernel/domainname; cat /proc/uptime");
        bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        let said = bundle.run();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(&lines[..3], &["1", "4711", "example"], "{said}");
        assert!(lines[3].starts_with("1000"), "{said}");
    }

    fn a_network_device_moves_in_with_its_address(env) {
        need!(program("ip"));
        let _ = env.other(["ip", "link", "add", "out0", "type", "veth", "peer", "name", "out1"]).run().succeeded();
        let _ = env.other(["ip", "address", "add", "10.9.8.7/24", "dev", "out0"]).run().succeeded();
        let bundle = Bundle::new(&env)
            .set("/linux", "netDevices", json!({"out0": {"name": "in0"}}))
            .script("ip -o address show dev in0; ip -o link show dev in0");
        let said = bundle.run();
        assert!(said.contains("inet 10.9.8.7/24") && said.contains(",UP"), "{said}");
        let bundle = bundle.set("/linux", "netDevices", json!({"nosuch": {}}));
        assert_eq!(bundle.run_fails(), "linux.netDevices[nosuch]: No such device (os error 19)\n");
    }

    fn propagation_is_as_asked_for(env) {
        let bundle = Bundle::new(&env)
            .mount(bind(&env.directory("data"), "/data", &["rbind", "rprivate"]))
            .set("/linux", "rootfsPropagation", json!("shared"))
            .script("grep ' / / ' /proc/self/mountinfo; grep ' /data ' /proc/self/mountinfo");
        let bundle = bundle.script("cat /proc/self/mountinfo");
        let said = bundle.run();
        assert!(mount_of(&said, "/").contains(" shared:"), "{said}");
        assert!(!mount_of(&said, "/data").contains("shared:"), "{said}");
    }
}
