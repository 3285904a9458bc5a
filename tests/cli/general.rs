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

    fn no_verb_is_an_error(env: Env) {
        let _ = env.bare::<&str>([]).run().fails(125);
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
