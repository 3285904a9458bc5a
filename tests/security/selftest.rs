//! `coracle selftest --security`: that it runs here, and that it would notice.

use crate::support::coracle::both;

both! {
    /// Seen to fail with the sealing of the binary, the masks and the check of link targets each taken out: the row of
    /// the attack then reads SUCCEEDED and the exit code is 1.
    fn no_known_escape_succeeds(env) {
        let output = env.command(["selftest", "--security", "--format", "json"]).limit(std::time::Duration::from_secs(150)).run();
        assert_eq!(output.code(), 0, "{output}");
        let rows = output.json();
        let rows = rows.as_array().unwrap();
        let with = |result: &str| -> Vec<_> { rows.iter().filter(|row| row["result"] == result).collect() };
        assert!(with("SUCCEEDED").is_empty(), "{:?}", with("SUCCEEDED"));
        assert!(with("not tried").is_empty(), "{:?}", with("not tried"));
        assert!(rows.len() > 25, "{}", rows.len());
    }

    /// What is allowed on purpose is an escape that succeeds: the table must say so.
    fn an_attempt_that_succeeds_is_told(env) {
        let agent = env.path("agent");
        std::fs::copy(crate::support::coracle::binary(), &agent).unwrap();
        let volume = format!("{}:/selftest:ro", agent.display());
        let inside = |options: &[&str], words: &[&str]| {
            env.coracle([&["run", "--rm", "--network=none", "-v", &volume], options, &["hello", "/selftest", "selftest-inside"], words].concat())
        };
        assert_eq!(inside(&[], &["mount"]).code(), 10);
        assert_eq!(inside(&["--privileged"], &["mount"]).code(), 11);
        assert_eq!(inside(&["--security-opt=unmask=ALL"], &["read", "/proc/cpuinfo"]).code(), 11);
        assert_eq!(inside(&["-e=A=selftest-secret"], &["environment", "selftest-secret"]).code(), 11);
        assert_eq!(inside(&["-u=1:1"], &["user", "1"]).code(), 10);
        assert_eq!(inside(&["-u=0"], &["user", "1"]).code(), 11);
        let output = env.coracle(["selftest", "--security", "--filter", "nothing of that name"]);
        assert_eq!(output.code(), 125, "{output}");
    }
}
