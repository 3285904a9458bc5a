//! Terminals: sizes, keys, the mode that is given back.

use crate::support::coracle::both;
use crate::support::pty::Terminal;
use crate::support::{Env, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const RUN: [&str; 5] = ["run", "--rm", "--network", "none", "-it"];

/// A shell on a terminal, and after it one word on the same terminal: is its mode the old one?
fn start(env: &Env, words: &[&str]) -> Terminal {
    let image = env.busybox();
    Terminal::start(&env.command(RUN.iter().copied().chain([image]).chain(words.iter().copied())))
}

both! {
    fn size_and_changes_of_it(env: Env) {
        let mut terminal = start(&env, &["sh", "-c", "trap 'stty size' WINCH; stty size; while :; do read line; done"]);
        terminal.until("24 80");
        terminal.resize(30, 100);
        // The shell's trap runs between two commands: a line wakes it.
        until("the new size", || {
            terminal.write("\n");
            terminal.screen().contains("30 100").then_some(())
        });
        kill(Pid::from_raw(terminal.pid()), Signal::SIGKILL).expect("end the command");
        terminal.wait();
        env.coracle(["rm", "-fa", "-t", "0"]).ok();
    }

    fn keys_go_through_raw(env: Env) {
        let mut terminal = start(&env, &["sh", "-c", "stty raw -echo; echo ready; head -c 3 | od -An -tx1"]);
        terminal.until("ready");
        // Ctrl-C, a lone Ctrl-P and an ordinary key: none of them means anything out here.
        terminal.write(b"\x03");
        terminal.write(b"\x10");
        terminal.write("x");
        let (code, screen) = terminal.wait();
        assert_eq!(code, 0, "{screen}");
        assert!(screen.contains("03 10 78"), "{screen}");
    }

    fn interrupt_reaches_the_process(env: Env) {
        let mut terminal = start(&env, &["sh", "-c", "trap 'echo interrupted; exit 5' INT; echo ready; while :; do sleep 0.1; done"]);
        terminal.until("ready");
        terminal.write(b"\x03");
        let (code, screen) = terminal.wait();
        assert_eq!(code, 5, "{screen}");
        assert!(screen.contains("interrupted"), "{screen}");
    }

    fn detached_and_attached_again(env: Env) {
        let image = env.busybox();
        let words = ["run", "--name", "web", "--network", "none", "-it", image, "sh", "-c", "echo ready; read line; echo got $line; exit 3"];
        let mut terminal = Terminal::start(&env.command(words));
        terminal.until("ready");
        terminal.write(b"\x10\x11");
        assert_eq!(terminal.wait().0, 0);
        assert_eq!(env.coracle(["inspect", "-f", "{{.State.Status}}", "web"]).ok(), "running");
        let mut terminal = Terminal::start(&env.command(["attach", "--detach-keys", "a,b", "web"]));
        terminal.write("hello\n");
        let (code, screen) = terminal.wait();
        assert_eq!(code, 3, "{screen}");
        assert!(screen.contains("got hello"), "{screen}");
    }

    fn the_mode_comes_back(env: Env) {
        let image = env.busybox();
        let inner = format!(
            "stty -a | tr ';' '\\n' > before; \"$0\" \"$@\" run --rm --network none -it {image} sh -c 'echo inside; exit 4'; \
             echo code $?; stty -a | tr ';' '\\n' > after; cmp before after && echo same"
        );
        let directory = env.directory("terminal");
        let command = env.command(Vec::<&str>::new()).std();
        let mut words = vec!["-c".to_owned(), inner];
        words.push(command.get_program().to_string_lossy().into_owned());
        words.extend(command.get_args().map(|word| word.to_string_lossy().into_owned()));
        let shell = env.other(["sh"]).directory(directory);
        let shell = words.iter().fold(shell, |shell, word| shell.arg(word));
        let (code, screen) = Terminal::start(&shell).wait();
        assert_eq!(code, 0, "{screen}");
        assert!(screen.contains("inside") && screen.contains("code 4") && screen.contains("same"), "{screen}");
    }

    fn exec_on_a_terminal(env: Env) {
        let image = env.busybox();
        env.coracle(["run", "-d", "--name", "web", "--network", "none", image, "sleep", "1000"]).ok();
        let mut terminal = Terminal::start(&env.command(["exec", "-it", "web", "sh", "-c", "tty; stty size; read line; echo got $line; exit 6"]));
        terminal.until("24 80");
        terminal.write("hello\n");
        let (code, screen) = terminal.wait();
        assert_eq!(code, 6, "{screen}");
        assert!(screen.contains("/dev/pts/") && screen.contains("got hello"), "{screen}");
        env.coracle(["rm", "-f", "-t", "0", "web"]).ok();
    }
}
