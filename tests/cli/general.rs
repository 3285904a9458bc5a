//! What holds for every verb: help, version, wrong words.

use crate::support::coracle::both;

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
