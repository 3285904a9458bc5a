//! What holds for every verb: help, version, wrong words.

use crate::support::coracle::{binary, both};
use crate::support::{Env, need};

both! {
    fn a_wrong_verb_is_refused_with_a_hint(env: Env) {
        assert_eq!(
            env.transcript(["verson"]),
            "--- stderr ---\n\
             coracle: unrecognized command `coracle verson`\n\
             hint: did you mean `coracle version`?\n\
             [exit status: 125]\n"
        );
    }

    fn what_is_done_is_told_to_who_asks(env: Env) {
        let image = env.busybox();
        for words in [&["--log-level", "debug"][..], &["-D"]] {
            let output = env.coracle(words.iter().chain(&["run", "--rm", "--network", "none", image, "echo", "hello"]));
            assert_eq!((output.code(), output.stdout()), (0, "hello\n".to_owned()));
            for told in ["level=debug msg=\"Using graph root ", "msg=\"Created container ", "msg=\"Shutting down engines\""] {
                assert!(output.stderr().contains(told), "{told}: {}", output.stderr());
            }
        }
        let quiet = env.coracle(["--log-level", "error", "run", "--rm", "-it", "--network", "none", image, "true"]);
        assert_eq!((quiet.code(), quiet.stderr()), (0, String::new()));
    }

    fn a_wrong_option_before_the_verb_is_told_once(env: Env) {
        let refusal = env.bare(["--storage-driver", "vfs", "version"]).run().fails(125);
        assert!(refusal.starts_with("coracle: invalid value 'vfs'"), "{refusal}");
    }

    fn no_verb_is_an_error(env: Env) {
        let _ = env.bare::<&str>([]).run().fails(125);
    }
}

/// The shape of help that podman's users know, and the words for a wrong number of arguments.
#[test]
fn help_and_numbers_of_arguments() {
    let Some(env) = Env::root().or_else(Env::user) else { return };
    let help = |words: &[&str]| env.coracle(words).ok();
    for words in [vec!["help"], vec!["--help"], vec!["-h"]] {
        let text = help(&words);
        assert!(
            text.starts_with("Manage pods, containers and images\n\nUsage:\n  coracle [options] [command]\n"),
            "{text}"
        );
        assert!(text.contains("\n\nAvailable Commands:\n  artifact "), "{text}");
    }
    assert!(help(&["image", "--help"]).contains("Usage:\n  coracle image [command]\n\nAvailable Commands:\n"));
    for (words, usage) in [
        (vec!["help", "image", "rm"], "coracle image rm [options] [IMAGE...]"),
        (vec!["run", "--help"], "coracle run [options] IMAGE [COMMAND [ARG...]]"),
        (vec!["image", "exists", "--help"], "coracle image exists [options] IMAGE"),
        (vec!["tag", "--help"], "coracle tag [options] IMAGE TARGET_NAME [TARGET_NAME...]"),
    ] {
        assert!(help(&words).contains(&format!("\nUsage:\n  {usage}\n")), "{words:?}");
    }
    let group = env.coracle(["image"]);
    assert!(group.fails(125).contains("missing command 'coracle image COMMAND'"));
    assert!(group.stdout().contains("Available Commands:"));
    for (words, message) in [
        (vec!["version", "x"], "`coracle version` takes no arguments"),
        (vec!["tag", "x"], "requires at least 2 arg(s), only received 1"),
        (vec!["image", "exists"], "accepts 1 arg(s), received 0"),
        (vec!["import", "a", "b", "c"], "accepts between 1 and 2 arg(s), received 3"),
        (vec!["volume", "create", "a", "b"], "accepts at most 1 arg(s), received 2"),
    ] {
        assert!(env.coracle(&words).fails(125).contains(message), "{words:?}");
    }
}

/// Standard output that nobody reads is no failure.
#[test]
fn a_closed_pipe_is_success() {
    need::need!(program("bash"));
    let Some(env) = Env::root().or_else(Env::user) else { return };
    let script = r#""$CORACLE" --root "$STORE" completion bash | true; echo "${PIPESTATUS[0]}""#;
    let command = env.other(["bash", "-c", script]).env("CORACLE", binary()).env("STORE", env.data());
    assert_eq!(command.run().ok(), "0");
}

/// Standard output that cannot be written is one.
#[test]
fn a_full_disk_is_a_failure() {
    need::need!(program("bash"), path("/dev/full"));
    let Some(env) = Env::root().or_else(Env::user) else { return };
    let script = r#""$CORACLE" --root "$STORE" completion bash >/dev/full"#;
    let command = env.other(["bash", "-c", script]).env("CORACLE", binary()).env("STORE", env.data());
    assert_eq!(command.run().fails(125), "coracle: write to standard output: No space left on device (os error 28)");
}
