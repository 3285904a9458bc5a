//! What a process is: the first one and those that exec adds.

use super::bundle::{Bundle, all_of};
use super::console::Console;
use crate::support::coracle::{as_root, both};
use crate::support::pty::Terminal;
use crate::support::until;
use serde_json::json;

both! {
    fn the_first_process_has_what_the_spec_says(env) {
        let bundle = Bundle::new(&env)
            .script("id -u; pwd; umask; echo $HOME; echo $A; hostname; grep -E '^(CapEff|CapInh|NoNewPrivs)' /proc/self/status")
            .set("/process", "cwd", json!("/made/for/it"))
            .set("/process", "env", json!(["PATH=/bin", "A=1", "A=2"]));
        let said = bundle.run();
        assert_eq!(
            said,
            "0\n/made/for/it\n0022\n/root\n2\ncoracle\nCapInh:\t0000000000000000\nCapEff:\t0000000020000420\nNoNewPrivs:\t1\n"
        );
    }

    fn exec_has_its_own_exit_code_and_environment(env) {
        let bundle = Bundle::new(&env).args(&["sleep", "1000"]);
        let id = bundle.id("a");
        bundle.sleeping(&id);
        let output = bundle.oci(&["exec", "--env", "A=b", "--cwd", "/tmp", &id, "sh", "-c", "echo $A; pwd; exit 5"]);
        assert_eq!((output.code(), output.stdout().as_str()), (5, "b\n/tmp\n"), "{output}");
        let missing = bundle.oci(&["exec", &id, "nosuch"]);
        assert_eq!(missing.code(), 255);
        assert_eq!(missing.stderr(), "exec: \"nosuch\": executable file not found in $PATH\n");
        assert!(bundle.ok(&["exec", &id, "ps"]).contains("sleep 1000"));
    }

    fn exec_takes_a_process_from_a_file(env) {
        let bundle = Bundle::new(&env).args(&["sleep", "1000"]);
        let id = bundle.id("a");
        bundle.sleeping(&id);
        let process = json!({"args": ["sh", "-c", "echo $B; grep CapEff /proc/self/status"], "cwd": "/",
            "env": ["PATH=/bin", "B=c"], "user": {"uid": 0, "gid": 0}});
        env.write("process.json", process.to_string());
        let said = bundle.ok(&["exec", "--process", "process.json", &id]);
        assert_eq!(said, "c\nCapEff:\t0000000020000420\n");
    }

    fn exec_detached_leaves_a_pid(env) {
        let bundle = Bundle::new(&env).args(&["sleep", "1000"]);
        let id = bundle.id("a");
        bundle.sleeping(&id);
        let output = bundle.detached(&["exec", "--detach", "--pid-file", "second", &id, "sleep", "2000"]);
        assert_eq!(output.code(), 0, "{}", bundle.read("stderr"));
        let command = std::fs::read_to_string(format!("/proc/{}/cmdline", bundle.read("second"))).unwrap();
        assert_eq!(command, "sleep\x002000\0");
    }

    fn no_descriptor_but_those_asked_for(env) {
        let bundle = Bundle::new(&env).script("ls /proc/1/fd; true");
        let id = bundle.id("a");
        let run = |bundle: &Bundle, words: &[&str]| {
            bundle.write();
            // 5 is open when the runtime starts.
            let line = format!("exec 3</dev/null 4</dev/null 5</dev/null; {}", bundle.line(words));
            all_of(&env.other(["sh", "-c", &line]).run())
        };
        assert_eq!(run(&bundle, &["run", "--bundle", "b", &id]), "0\n1\n2\n");
        assert_eq!(run(&bundle, &["run", "--bundle", "b", "--preserve-fds", "2", &id]), "0\n1\n2\n3\n4\n");
        let bundle = bundle.args(&["sleep", "1000"]);
        bundle.sleeping(&id);
        assert_eq!(run(&bundle, &["exec", &id, "sh", "-c", "ls /proc/$$/fd; true"]), "0\n1\n2\n");
        let kept = run(&bundle, &["exec", "--preserve-fds", "1", &id, "sh", "-c", "ls /proc/$$/fd; true"]);
        assert_eq!(kept, "0\n1\n2\n3\n");
    }

    fn sockets_of_activation_go_on(env) {
        let bundle = Bundle::new(&env).script("echo $LISTEN_FDS $LISTEN_PID; ls /proc/1/fd; true");
        bundle.write();
        let line = format!("exec 3</dev/null; LISTEN_FDS=1 {}", bundle.line(&["run", "--bundle", "b", &bundle.id("a")]));
        assert_eq!(all_of(&env.other(["sh", "-c", &line]).run()), "1 1\n0\n1\n2\n3\n");
    }

    fn a_terminal_goes_to_the_console_socket(env) {
        let bundle = Bundle::new(&env)
            .script("tty; stty size; test -c /dev/console && echo console; exec sleep 1000")
            .set("/process", "terminal", json!(true))
            .set("/process", "consoleSize", json!({"height": 11, "width": 77}));
        let id = bundle.id("a");
        let console = Console::listen(&env, "console");
        let output = bundle.detached(&["create", "--bundle", "b", "--console-socket", "console", &id]);
        assert_eq!(output.code(), 0, "{}", bundle.read("stderr"));
        let mut master = console.accept();
        bundle.ok(&["start", &id]);
        assert_eq!(master.until("console\r\n"), "/dev/pts/0\r\n11 77\r\nconsole\r\n");
        let console = Console::listen(&env, "console2");
        let second = bundle.detached(&["exec", "--tty", "--detach", "--console-socket", "console2", &id, "tty"]);
        assert_eq!(second.code(), 0, "{}", bundle.read("stderr"));
        assert_eq!(console.accept().until("\r\n"), "/dev/pts/1\r\n");
    }

    fn in_the_foreground_the_terminal_is_relayed(env) {
        let bundle = Bundle::new(&env)
            .script("read -r line; echo \"got $line\"; tty; stty size; exit 6")
            .set("/process", "terminal", json!(true));
        bundle.write();
        let line = bundle.line(&["run", "--bundle", "b", &bundle.id("a")]);
        let mut terminal = Terminal::start(&env.other(["sh", "-c", &format!("exec {line}")]));
        terminal.write("word\r");
        let screen = until("the size", || Some(terminal.screen()).filter(|screen| screen.contains("24 80")));
        assert!(screen.contains("got word\r\n/dev/pts/0\r\n24 80\r\n"), "{screen:?}");
        assert_eq!(terminal.wait().0, 6);
    }

    fn a_terminal_needs_somebody_who_holds_it(env) {
        let bundle = Bundle::new(&env).set("/process", "terminal", json!(true));
        let output = bundle.oci(&["create", "--bundle", "b", &bundle.id("a")]);
        assert!(output.stderr().starts_with("process.terminal: cannot allocate a terminal"), "{output}");
        let bundle = bundle.set("/process", "terminal", json!(false));
        let output = bundle.oci(&["create", "--bundle", "b", "--console-socket", "none", &bundle.id("a")]);
        assert!(output.stderr().contains("process.terminal is not set"), "{output}");
    }

    fn a_filter_is_in_force_at_the_command(env) {
        for no_new_privileges in [true, false] {
            let bundle = Bundle::new(&env)
                .script("mkdir /tmp/a; grep Seccomp: /proc/self/status; grep CapEff /proc/self/status")
                .set("/process", "noNewPrivileges", json!(no_new_privileges))
                // Everything the runtime itself does before execve is not to be in the profile.
                .set("/linux", "seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{
                    "names": ["mkdir", "mkdirat", "accept4", "recvmsg", "setresuid", "setgroups", "chdir", "mount"],
                    "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}));
            let output = bundle.oci(&["run", "--bundle", "b", &bundle.id("a")]);
            assert!(output.stderr().contains("Permission denied"), "{output}");
            assert_eq!(output.stdout(), "Seccomp:\t2\nCapEff:\t0000000020000420\n", "{output}");
        }
    }
}

as_root! {
    fn users_groups_and_capabilities(env) {
        let bundle = Bundle::new(&env)
            .script("id; umask; grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status; echo > /dev/stdout")
            .set("/process", "user", json!({"uid": 1000, "gid": 1001, "umask": 7, "additionalGids": [5, 6]}))
            .set("/process", "capabilities", json!({"bounding": ["CAP_CHOWN", "CAP_KILL"], "permitted": ["CAP_CHOWN"],
                "effective": ["CAP_CHOWN"], "inheritable": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"]}));
        let said = bundle.run();
        let caps = |set: &str, value: u32| format!("Cap{set}:\t{value:016x}\n");
        let expected = [
            "uid=1000(user) gid=1001 groups=5,6\n0007\n".to_owned(),
            caps("Inh", 1), caps("Prm", 1), caps("Eff", 1), caps("Bnd", 0x21), caps("Amb", 1), "\n".to_owned(),
        ];
        assert_eq!(said, expected.concat());
    }

    fn limits_and_priorities(env) {
        let bundle = Bundle::new(&env)
            .script("ulimit -n; ulimit -c; cat /proc/self/oom_score_adj; uname -m; grep Cpus_allowed_list /proc/self/status")
            .set("/process", "rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]))
            .set("/process", "oomScoreAdj", json!(123))
            .set("/process", "execCPUAffinity", json!({"initial": "0", "final": "0"}))
            .set("/process", "ioPriority", json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0}))
            .set("/process", "scheduler", json!({"policy": "SCHED_BATCH", "nice": 3}));
        std::os::unix::fs::symlink("busybox", bundle.rootfs("bin/uname")).unwrap();
        let said = bundle.run();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(&lines[..3], &["77", "0", "123"], "{said}");
        assert_eq!(lines[4], "Cpus_allowed_list:\t0", "{said}");
    }
}
