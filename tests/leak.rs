//! The leak check itself: it must find what is left, and nothing else.

use crate::support::{Env, leak, need, until};
use std::fs;

#[test]
fn a_process_that_stays_is_found_and_ended() {
    let Some(env) = Env::root().or_else(Env::user) else { return };
    assert_eq!(env.leaks(), Vec::<String>::new());
    let mut sleeper = env.other(["sleep", "1000"]).spawn();
    // Between fork and execve it is still a copy of this process.
    until("the process to be found", || {
        env.leaks().first().is_some_and(|leak| leak.contains("sleep 1000")).then_some(())
    });
    assert!(sleeper.runs());
    leak::clean(env.base());
    assert_eq!(sleeper.wait().code(), 137);
    assert_eq!(env.leaks(), Vec::<String>::new());
}

#[test]
fn a_record_that_stays_is_found() {
    let Some(env) = Env::root().or_else(Env::user) else { return };
    let record = env.runroot().join("containers/4711");
    fs::create_dir_all(&record).expect("make a record");
    assert_eq!(env.leaks(), [format!("record {}", record.display())]);
    fs::remove_dir_all(env.runroot()).expect("remove the record");
}

#[test]
fn ids_are_read_from_events() {
    need::need!(user);
    let Some(env) = Env::user() else { return };
    let id = "4711".repeat(16);
    let events = env.data().join("events");
    fs::create_dir_all(&events).expect("make a directory");
    fs::write(events.join("2024-01-02.jsonl"), format!("{{\"id\":\"{id}\",\"name\":\"web\"}}\n"))
        .expect("write events");
    assert_eq!(leak::ids(&env.data(), &env.runroot()).into_iter().collect::<Vec<_>>(), [id]);
}
