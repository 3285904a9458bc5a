//! `run`: output, input, exit codes, and what the options change as seen from inside.

use crate::support::coracle::{as_user, both};
use crate::support::pty::Terminal;
use crate::support::{Env, until};

/// `run --rm --network none IMAGE WORD…`
fn run(env: &Env, words: &[&str]) -> crate::support::Output {
    let image = env.busybox();
    env.coracle(["run", "--rm", "--network", "none", image].iter().chain(words))
}

/// The same with options before the image.
fn run_with(env: &Env, options: &[&str], words: &[&str]) -> crate::support::Output {
    let image = env.busybox();
    env.coracle(["run", "--rm", "--network", "none"].iter().chain(options).chain(&[image]).chain(words))
}

both! {
    fn output_and_exit_code(env: Env) {
        let output = run(&env, &["sh", "-c", "echo to stdout; echo to stderr >&2; exit 7"]);
        assert_eq!((output.code(), output.stdout(), output.stderr()), (7, "to stdout\n".to_owned(), "to stderr\n".to_owned()));
        run(&env, &["true"]).ok();
        // Process one of a pid namespace cannot kill itself; with an init the command is another one.
        assert_eq!(run_with(&env, &["--init"], &["sh", "-c", "kill -9 $$"]).code(), 137);
        assert_eq!(run_with(&env, &["--init"], &["sh", "-c", "kill -TERM $$; sleep 10"]).code(), 143);
        run(&env, &["sh", "-c", "grep -q 'SigBlk:.0000000000000000' /proc/self/status"]).ok();
    }

    fn a_command_that_is_not_there(env: Env) {
        assert!(run(&env, &["/no/such/command"]).fails(127).contains("/no/such/command"));
        assert!(run(&env, &["no-such-command"]).fails(127).contains("no-such-command"));
        assert!(run(&env, &["/etc/passwd"]).fails(126).contains("/etc/passwd"));
        assert!(run(&env, &["/etc"]).fails(126).contains("/etc"));
        assert_eq!(env.coracle(["ps", "-aq"]).ok(), "");
    }

    fn every_byte_goes_through(env: Env) {
        let image = env.busybox();
        let bytes: Vec<u8> = (0..1_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let output = env.command(["run", "--rm", "-i", "--network", "none", image, "cat"]).stdin(bytes.clone()).run();
        let _ = output.succeeded();
        assert!(output.stdout == bytes, "{} bytes came back of {}", output.stdout.len(), bytes.len());
    }

    fn nothing_is_read_without_interactive(env: Env) {
        let image = env.busybox();
        let output = env.command(["run", "--rm", "--network", "none", image, "cat"]).stdin("unread").run();
        assert_eq!(output.ok(), "");
    }

    fn environment_directory_and_host_name(env: Env) {
        let words = ["sh", "-c", "echo $A $B; pwd; hostname; echo $PATH"];
        let options = ["-e", "A=1", "--env", "B=two words", "-w", "/tmp", "--hostname", "boat"];
        assert_eq!(
            run_with(&env, &options, &words).ok(),
            "1 two words\n/tmp\nboat\n/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        );
        let file = env.write("env", "# a comment\nA=from file\nHOST\n");
        let image = env.busybox();
        let command = env.command(["run", "--rm", "--network", "none", "--env-file"]).arg(&file).env("HOST", "host's");
        assert_eq!(command.arg(image).arg("sh").arg("-c").arg("echo $A, $HOST").run().ok(), "from file, host's");
    }

    fn entrypoint(env: Env) {
        assert_eq!(run_with(&env, &["--entrypoint", "echo"], &["a", "b"]).ok(), "a b");
        assert_eq!(run_with(&env, &["--entrypoint", "[\"echo\",\"x\"]"], &["y"]).ok(), "x y");
    }

    fn who_attaches_to_the_input_only_is_told_the_id(env: Env) {
        let image = env.busybox();
        let words = ["run", "--name", "web", "--attach", "stdin", "--network", "none", image, "echo", "unseen"];
        let id = env.coracle(words).ok();
        assert_eq!(env.coracle(["inspect", "--format", "{{.Id}}", "web"]).ok(), id);
    }

    fn a_directory_that_leads_to_a_mount_is_made(env: Env) {
        let shared = env.directory("shared");
        std::fs::write(shared.join("foo"), "content").expect("a file");
        let mount = format!("{}:/not/there/yet", shared.display());
        assert_eq!(run_with(&env, &["-v", &mount, "-w", "/not/there"], &["cat", "yet/foo"]).ok(), "content");
        let refusal = run_with(&env, &["-w", "/not/there"], &["true"]).fails(126);
        assert!(refusal.contains("workdir \"/not/there\" does not exist on container"), "{refusal}");
    }

    fn the_mark_of_a_container_is_there_in_a_tmpfs_too(env: Env) {
        let words = ["stat", "-c", "%s", "/run/.containerenv"];
        assert_eq!(run_with(&env, &["--tmpfs", "/run"], &words).ok(), "0");
        let mount = format!("{}:/run", env.directory("run-of-mine").display());
        let refusal = run_with(&env, &["-v", &mount], &words);
        assert_eq!(refusal.code(), 1);
        assert!(!env.path("run-of-mine/.containerenv").exists());
    }

    fn a_terminal_for_what_is_none_is_told(env: Env) {
        let image = env.busybox();
        let output = env.command(["run", "--rm", "-it", "--network", "none", image, "echo", "hello"]).stdin("").run();
        assert_eq!((output.code(), output.stdout()), (0, "hello\r\n".to_owned()));
        assert!(output.stderr().contains("level=warning msg=\"The input device is not a TTY."), "{}", output.stderr());
        let output = env.command(["run", "--rm", "-t", "--network", "none", image, "echo", "hello"]).stdin("").run();
        assert_eq!(output.ok(), "hello\r");
    }

    fn the_ipc_namespace_of_the_caller(env: Env) {
        let own = env.other(["readlink", "/proc/self/ns/ipc"]).run().ok();
        assert_eq!(run_with(&env, &["--ipc", "host"], &["readlink", "/proc/self/ns/ipc"]).ok(), own);
    }

    fn a_private_ipc_namespace_is_joined_by_nobody(env: Env) {
        let image = env.busybox();
        let donor = |name: &str, mode: &str| {
            env.coracle(["create", "--name", name, "--ipc", mode, "--network", "none", image, "sleep", "1000"]).ok();
            env.coracle(["start", name]).ok();
            env.coracle(["inspect", "--format", "{{.HostConfig.IpcMode}}", name]).ok()
        };
        assert_eq!(donor("own", "private"), "private");
        assert_eq!(donor("shared", "shareable"), "shareable");
        let refusal = run_with(&env, &["--ipc", "container:own"], &["true"]).fails(125);
        assert!(refusal.contains("is not allowed: non-shareable IPC"), "{refusal}");
        run_with(&env, &["--ipc", "container:shared"], &["true"]).ok();
        env.coracle(["rm", "-f", "-t", "0", "own", "shared"]).ok();
    }

    fn the_image_goes_with_its_last_container(env: Env) {
        let image = env.busybox();
        let id = env.coracle(["image", "inspect", "--format", "{{.Id}}", image]).ok();
        env.coracle(["create", "--name", "other", "--network", "none", image]).ok();
        let output = env.coracle(["run", "--rmi", "--network", "none", image, "true"]);
        assert_eq!((output.code(), output.stdout()), (0, String::new()));
        assert!(output.stderr().contains("level=warning") && output.stderr().contains("image is in use by a container"));
        env.coracle(["rm", "other"]).ok();
        env.coracle(["run", "-d", "--rmi", "--network", "none", image, "true"]).ok();
        until("the image to go", || (env.coracle(["image", "exists", &id]).code() == 1).then_some(()));
    }

    fn without_a_limit_is_as_far_as_the_caller_may_go(env: Env) {
        run_with(&env, &["--ulimit", "nproc=-1:-1", "--ulimit", "core=0:-1"], &["sh", "-c", "ulimit -Hu; ulimit -Hc"]).ok();
    }

    fn users(env: Env) {
        let id = ["sh", "-c", "id -u; id -g; id -G; echo $HOME"];
        assert_eq!(run(&env, &id).ok(), "0\n0\n0\n/root");
        assert_eq!(run_with(&env, &["-u", "user"], &id).ok(), "1000\n1000\n1000 2000\n/home/user");
        assert_eq!(run_with(&env, &["-u", "7:8"], &id).ok(), "7\n8\n8\n/");
        assert_eq!(run_with(&env, &["-u", "user:extra", "--group-add", "9"], &["id", "-G"]).ok(), "2000 9");
        let refusal = run_with(&env, &["-u", "nobody-here"], &id).fails(126);
        assert!(refusal.contains("nobody-here"), "{refusal}");
    }

    fn bind_mounts(env: Env) {
        let directory = env.directory("shared");
        env.write("shared/file", "from the host");
        let volume = format!("{}:/shared", directory.display());
        assert_eq!(run_with(&env, &["-v", &volume], &["cat", "/shared/file"]).ok(), "from the host");
        run_with(&env, &["-v", &volume], &["sh", "-c", "echo inside > /shared/new"]).ok();
        assert_eq!(std::fs::read_to_string(directory.join("new")).expect("the container's file"), "inside\n");
        let read_only = format!("{volume}:ro");
        let refusal = run_with(&env, &["-v", &read_only], &["touch", "/shared/x"]).fails(1);
        assert!(refusal.contains("Read-only"), "{refusal}");
        let missing = run_with(&env, &["-v", "/no/such/dir:/x"], &["true"]).fails(125);
        assert!(missing.contains("/no/such/dir"), "{missing}");
    }

    fn read_only_root(env: Env) {
        let words = ["sh", "-c", "touch /x 2>/dev/null || echo refused; touch /tmp/x && echo tmp"];
        assert_eq!(run_with(&env, &["--read-only"], &words).ok(), "refused\ntmp");
    }

    fn tmpfs(env: Env) {
        let words = ["sh", "-c", "grep ' /scratch ' /proc/mounts | cut -d' ' -f3"];
        assert_eq!(run_with(&env, &["--tmpfs", "/scratch:size=1m"], &words).ok(), "tmpfs");
    }

    fn process_one_sees_itself_alone(env: Env) {
        assert_eq!(run(&env, &["sh", "-c", "echo $$; echo /proc/[0-9]*"]).ok(), "1\n/proc/1");
        assert_eq!(run(&env, &["sh", "-c", "ls /sys/class/net"]).ok(), "lo");
    }

    fn with_an_init(env: Env) {
        assert_eq!(run_with(&env, &["--init"], &["sh", "-c", "test $$ != 1 && echo not one"]).ok(), "not one");
        assert_eq!(run_with(&env, &["--init"], &["sh", "-c", "exit 3"]).code(), 3);
    }

    fn a_terminal(env: Env) {
        let image = env.busybox();
        let command = env.command(["run", "--rm", "-it", "--network", "none", image, "sh"]);
        let mut terminal = Terminal::start(&command);
        terminal.write("tty; stty size\n");
        terminal.until("/dev/pts/0");
        terminal.until("24 80");
        terminal.resize(30, 100);
        // The size arrives by a signal: ask until it is there.
        until("the new size", || {
            terminal.write("stty size\n");
            terminal.screen().contains("30 100").then_some(())
        });
        terminal.write("exit 5\n");
        assert_eq!(terminal.wait().0, 5);
    }

    fn signals_are_passed_on(env: Env) {
        let image = env.busybox();
        let script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 1; done";
        let running = env.command(["run", "--rm", "--network", "none", image, "sh", "-c", script]).spawn();
        running.until_stdout("ready");
        running.signal(nix::sys::signal::Signal::SIGTERM);
        let output = running.wait();
        assert_eq!((output.code(), output.stdout()), (9, "ready\ncaught\n".to_owned()));
    }

    fn detached(env: Env) {
        let image = env.busybox();
        let id = env.coracle(["run", "-d", "--name", "web", "--network", "none", image, "sh", "-c", "echo hi; exit 4"]).ok();
        assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert_eq!(env.coracle(["wait", "web"]).ok(), "4");
        assert_eq!(env.coracle(["logs", "web"]).ok(), "hi");
        assert_eq!(env.coracle(["rm", "web"]).ok(), "web");
    }

    fn a_name_that_is_taken(env: Env) {
        let image = env.busybox();
        let id = env.coracle(["create", "--name", "web", "--network", "none", image]).ok();
        let refusal = env.coracle(["run", "--name", "web", "--network", "none", image, "true"]).fails(125);
        assert!(refusal.contains("web") && refusal.contains("in use") && refusal.contains(&id[..12]), "{refusal}");
        env.coracle(["run", "--replace", "--name", "web", "--network", "none", image, "true"]).ok();
    }

    fn the_id_goes_to_a_file(env: Env) {
        let image = env.busybox();
        let file = env.path("cid");
        let mut command = env.command(["create", "--network", "none", "--cidfile"]).arg(&file).arg(image);
        command = command.arg("true");
        let id = command.run().ok();
        assert_eq!(std::fs::read_to_string(&file).expect("the file").trim(), id);
    }

    fn an_image_that_is_not_there(env: Env) {
        let refusal = env.coracle(["run", "--rm", "--pull", "never", "localhost/no-such-image", "true"]).fails(125);
        assert!(refusal.contains("localhost/no-such-image"), "{refusal}");
    }

    fn a_rootfs_instead_of_an_image(env: Env) {
        let root = env.directory("root");
        for directory in ["bin", "proc", "dev", "sys", "etc", "tmp"] {
            env.directory(root.join(directory));
        }
        let busybox = env.write("root/bin/busybox", std::fs::read(crate::support::image::busybox_path()).expect("busybox"));
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(busybox, mode).expect("make it executable");
        let words = ["run", "--rm", "--network", "none", "--rootfs"];
        let command = env.command(words).arg(&root).arg("/bin/busybox").arg("echo").arg("hello");
        assert_eq!(command.run().ok(), "hello");
    }

    fn layers_are_seen_as_one(env: Env) {
        env.load(&crate::cli::image::layered());
        let inside = "cat /etc/kept /etc/changed; ls /etc /var/hidden; pwd; echo $A";
        let output = env.coracle(["run", "--rm", "--network", "none", "layers:v1", inside]);
        let listed = "kept\nnew\n/etc:\nchanged\nhosts\nkept\nmtab\nresolv.conf\n\n/var/hidden:\nother\n/var\nimage";
        let listed_without_ours = |text: &str| {
            text.lines().filter(|line| !["hosts", "mtab", "resolv.conf", "passwd", "group", "hostname"].contains(line))
                .collect::<Vec<_>>().join("\n")
        };
        assert_eq!(listed_without_ours(&output.ok()), listed_without_ours(listed));
        let output = env.coracle(["run", "--rm", "--network", "none", "layers:v1"]);
        assert_eq!(output.ok(), "kept\nnew");
    }
}

as_user! {
    fn who_keeps_their_ids_keeps_their_name(env: Env) {
        let (uid, _) = env.ids();
        let users = std::fs::read_to_string("/etc/passwd").expect("users");
        let own = users.lines().find(|line| line.split(':').nth(2) == Some(&uid.to_string())).expect("the user");
        let name = run_with(&env, &["--userns", "keep-id"], &["id", "-un"]).ok();
        // The image has users of its own.
        let images = run(&env, &["grep", &format!("^[^:]*:[^:]*:{uid}:"), "/etc/passwd"]).code() == 0;
        assert!(images || own.starts_with(&format!("{name}:")), "{name}");
    }
}
