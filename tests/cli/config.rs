//! `containers.conf`: what it says of new containers, and who wins over it.

use crate::support::Env;
use crate::support::coracle::both;

/// An `Env` whose commands read this file only.
fn configured(env: Env, text: &str) -> Env {
    let path = env.write("containers.conf", text);
    env.variable("CONTAINERS_CONF", path)
}

both! {
    fn defaults_of_new_containers(env: Env) {
        let file = env.write("shared", "content\n");
        let text = format!(
            "unknown = 1\n[containers]\n\
             env = [\"CONF=yes\", \"OVER=conf\"]\numask = \"0027\"\nutsns = \"host\"\nnetns = \"none\"\n\
             shm_size = \"1m\"\ndefault_capabilities = [\"CHOWN\", \"cap_kill\"]\n\
             default_ulimits = [\"nofile=99:99\"]\nannotations = [\"a=b\"]\nlog_tag = \"tag\"\n\
             default_sysctls = [\"net.ipv4.ping_group_range=0 0\"]\n\
             volumes = [\"{0}:/conf:ro\"]\nmounts = [\"type=bind,src={0},dst=/mounted,ro\"]\nno_hosts = true\n\
             [engine]\nstop_timeout = 3\n[network]\nunknown = true\n",
            file.display()
        );
        let env = configured(env, &text);
        let image = env.busybox();
        let script = "echo $CONF $OVER; umask; df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2; cat /conf /mounted; \
                      grep CapBnd /proc/self/status; ulimit -n; ls /sys/class/net";
        let lines = env.coracle(["run", "--rm", "-e", "OVER=typed", image, "sh", "-c", script]).ok();
        assert_eq!(lines, "yes typed\n0027\n1024\ncontent\ncontent\nCapBnd:\t0000000000000021\n99\nlo");
        // What was typed wins.
        let typed = [
            "run", "--rm", "--umask", "0", "--cap-add", "net_raw", "--ulimit", "nofile=50:50", "-v", "/:/conf:ro", image,
            "sh", "-c", "umask; grep CapBnd /proc/self/status; ulimit -n; ls -d /conf/etc",
        ];
        assert_eq!(env.coracle(typed).ok(), "0000\nCapBnd:\t0000000000002021\n50\n/conf/etc");
        env.coracle(["create", "--name", "c", image]).ok();
        let shown = env.coracle(["inspect", "-f", "{{.Config.StopTimeout}} {{.Config.Annotations.a}} {{.HostConfig.UTSMode}}", "c"]);
        assert_eq!(shown.ok(), "3 b host");
        env.coracle(["rm", "c"]).ok();
    }

    fn files_and_modules(env: Env) {
        let image = env.busybox();
        let home = env.home();
        let write = |name: &str, text: &str| env.write(home.join(".config/containers").join(name), text);
        write("containers.conf", "[containers]\nenv = [\"A=1\", {append=true}]\nnetns = \"none\"\n");
        write("containers.conf.d/10.conf", "[containers]\nenv = [\"B=2\"]\n");
        write("containers.conf.modules/more.conf", "[containers]\nenv = [\"C=3\"]\n");
        let run = ["run", "--rm", image, "sh", "-c", "echo $A $B $C $D"];
        assert_eq!(env.coracle(run).ok(), "1 2");
        let module: Vec<&str> = ["--module", "more.conf"].into_iter().chain(run).collect();
        assert_eq!(env.coracle(module).ok(), "1 2 3");
        let override_path = env.write("override", "[containers]\nenv = [\"D=4\", {append=false}]\n");
        let overridden = env.command(run).env("CONTAINERS_CONF_OVERRIDE", &override_path).run();
        assert_eq!(overridden.ok(), "4");
        assert!(env.coracle(["--module", "nosuch", "version"]).fails(1).contains("could not resolve module"));
        let broken = env.write("broken", "[containers\n");
        let refused = env.command(run).env("CONTAINERS_CONF", &broken).run();
        assert!(refused.fails(125).contains("broken"), "{refused}");
        // A verb that has no use for it does not read it.
        let _ = env.command(["version"]).env("CONTAINERS_CONF", &broken).run().succeeded();
    }
}
