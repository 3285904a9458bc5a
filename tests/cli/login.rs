//! `login`, `logout` and `search`.

use crate::support::coracle::{as_root, both};
use crate::support::need::need;
use crate::support::registry::{DockerRegistry, Fake, Reply};
use serde_json::json;

both! {
    fn a_certificate_that_is_its_own_authority_is_trusted_where_it_is_named(env: Env) {
        need!(program("docker-registry"), program("openssl"));
        let env = env.host_network();
        let registry = DockerRegistry::self_signed();
        let certificates = registry.certificates(env.base());
        let log_in = |words: &[&str]| {
            let fixed = ["login", "-u", "user", "-p", "secret"];
            env.command(fixed.iter().chain(words)).arg(registry.host()).run()
        };
        assert_eq!(log_in(&["--cert-dir", certificates.to_str().unwrap()]).ok(), "Login Succeeded!");
        let text = log_in(&[]).fails(125);
        assert!(text.contains("tls: "), "{text}");
        // For another name it is not meant.
        let elsewhere = registry.host().replace("localhost", "127.0.0.1");
        let fixed = ["login", "-u", "user", "-p", "secret", "--cert-dir", certificates.to_str().unwrap(), &elsewhere];
        let text = env.coracle(fixed).fails(125);
        assert!(text.contains("tls: "), "{text}");
    }

    fn in_and_out(env: Env) {
        need!(program("docker-registry"), program("openssl"));
        let env = env.host_network();
        let registry = DockerRegistry::secure();
        let certificates = registry.certificates(env.base());
        let host = registry.host();
        let login = |words: &[&str]| {
            let fixed = ["login", "--cert-dir", certificates.to_str().unwrap(), &host];
            env.command(fixed.iter().chain(words))
        };
        let text = login(&["-u", "user", "-p", "wrong"]).run().fails(125);
        assert_eq!(text, format!("coracle: logging into \"{host}\": invalid username/password"));
        let text = login(&["--get-login"]).run().fails(125);
        assert_eq!(text, format!("coracle: not logged into {host}"));
        assert_eq!(login(&["-u", "user", "--password-stdin"]).stdin("secret\n").run().ok(), "Login Succeeded!");
        assert_eq!(login(&["--get-login"]).run().ok(), "user");
        let kept = env.base().join("xdg/containers/auth.json");
        let document: serde_json::Value = serde_json::from_slice(&std::fs::read(&kept).unwrap()).unwrap();
        assert_eq!(document, json!({"auths": {&host: {"auth": "dXNlcjpzZWNyZXQ="}}}));
        assert_eq!(
            login(&[]).run().ok(),
            format!(
                "Authenticating with existing credentials for {host}\n\
                 Existing credentials are valid. Already logged in to {host}"
            )
        );
        assert_eq!(env.coracle(["logout", &host]).ok(), format!("Removed login credentials for {host}"));
        assert_eq!(env.coracle(["logout", &host]).fails(125), format!("coracle: not logged into {host}"));
        assert_eq!(login(&["-u", "user", "-p", "secret", "--authfile", "own.json"]).run().ok(), "Login Succeeded!");
        assert!(env.path("own.json").exists());
        assert_eq!(env.coracle(["logout", "--all", "--authfile", "own.json"]).ok(), "Removed login credentials for all registries");
        let text = login(&["-u", "user"]).run().fails(125);
        assert!(text.contains("use --username and --password-stdin"), "{text}");
    }
}

as_root! {
    fn credentials_of_docker_and_of_helpers_are_found(env: Env) {
        let env = env.host_network();
        let fake = Fake::misbehaving(|seen, reply| match seen.header("authorization") {
            Some("Basic ZnJvbTpkb2NrZXI=" | "Basic ZnJvbTpoZWxwZXI=") => reply,
            _ => Reply::new(401).header("WWW-Authenticate", "Basic realm=\"x\""),
        });
        let (_, config) = fake.image("app", "1", &[b"".to_vec()]);
        drop(config);
        let list = || env.coracle(["search", "--tls-verify=false", "--list-tags", &fake.name("app")]);
        let _ = list().fails(125);
        let docker = env.home().join(".docker");
        std::fs::create_dir_all(&docker).unwrap();
        let document = json!({"auths": {format!("http://{}/v2/", fake.host()): {"auth": "ZnJvbTpkb2NrZXI="}}});
        std::fs::write(docker.join("config.json"), document.to_string()).unwrap();
        assert!(list().ok().ends_with("app  1"), "{}", list());

        let helper = env.write("docker-credential-mine", "#!/bin/sh\necho '{\"Username\": \"from\", \"Secret\": \"helper\"}'\n");
        std::fs::set_permissions(&helper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::write(docker.join("config.json"), json!({"credHelpers": {fake.host(): "mine"}}).to_string()).unwrap();
        let path = format!("{}:/usr/bin:/bin", env.path("").display());
        let output = env.command(["search", "--tls-verify=false", "--list-tags", &fake.name("app")]).env("PATH", path).run();
        assert!(output.ok().ends_with("app  1"), "{output}");
    }

    fn search_asks_the_registry_and_else_its_catalog(env: Env) {
        let env = env.host_network();
        let fake = Fake::start();
        fake.image("team/app", "1", &[]);
        fake.image("team/app", "2", &[]);
        fake.image("other", "1", &[]);
        let found = env.coracle(["search", "--tls-verify=false", "--format", "{{.Name}}", &fake.name("app")]).ok();
        assert_eq!(found, fake.name("team/app"));
        let tags = env.coracle(["search", "--tls-verify=false", "--list-tags", "--format", "{{.Tag}}", &fake.name("team/app")]).ok();
        assert_eq!(tags, "1\n2");
        let answer = json!({"results": [
            {"name": "a/one", "description": "x".repeat(60), "star_count": 5, "is_official": true, "is_automated": false},
            {"name": "a/two", "description": "", "star_count": 1, "is_official": false, "is_automated": true}]});
        let hub = Fake::misbehaving(move |seen, reply| {
            if seen.path.starts_with("/v1/search") { Reply::new(200).body(answer.to_string()) } else { reply }
        });
        let search = |words: &[&str]| {
            env.coracle(["search", "--tls-verify=false"].iter().chain(words).copied().chain([hub.name("a").as_str()]).collect::<Vec<_>>())
        };
        assert_eq!(search(&["--format={{.Name}} {{.Stars}} {{.Official}}", "-f=stars=3"]).ok(), format!("{} 5 [OK]", hub.name("a/one")));
        assert_eq!(search(&["--format={{.Name}}", "-f=is-automated"]).ok(), hub.name("a/two"));
        assert!(search(&[]).ok().contains(&format!("{}...", "x".repeat(44))));
        assert!(search(&["-f=colour=red"]).fails(125).contains("invalid filter type"));
    }
}
