//! Networks as people use them: in network namespaces that the test makes, never on the machine's own interfaces.

mod bridge;
mod crash;
mod driver;
mod firewall;
mod live;
mod names;
mod ports;
mod security;
mod user;
mod verb;

use crate::support::Env;
use std::os::fd::OwnedFd;

/// Fetch a page, trying again for as long as the server is still starting.
#[track_caller]
fn fetch(env: &Env, url: &str) -> String {
    let retry = ["--retry", "60", "--retry-connrefused", "--retry-delay", "1", "--retry-max-time", "40"];
    let words = ["curl", "--silent", "--show-error", "--max-time", "10"].into_iter().chain(retry).chain([url]);
    env.other(words).run().succeeded()
}

/// A shell line that fetches that page inside a container. (The static busybox's `wget` crashes in the C library.)
fn get(host: &str, port: u16) -> String {
    format!("printf 'GET /hosts HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {host} {port}")
}

/// A container that serves its own /etc/hosts on port 80.
#[track_caller]
fn serve(env: &Env, name: &str, options: &[&str]) {
    let image = env.busybox();
    let words = ["run", "-d", "--name", name].into_iter().chain(options.iter().copied());
    let _ = env.coracle(words.chain([image, "httpd", "-f", "-p", "80", "-h", "/etc"])).succeeded();
}

/// Run something in the host's namespace.
fn on_host<T: Send + 'static>(namespace: &OwnedFd, work: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = namespace.try_clone().expect("copy a descriptor");
    let thread = std::thread::spawn(move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("join the namespace");
        work()
    });
    thread.join().expect("a thread")
}

/// The name of this store's firewall table.
fn table(env: &Env) -> String {
    let tables = env.other(["nft", "list", "tables"]).run().ok();
    let name = tables.lines().find_map(|line| line.strip_prefix("table inet coracle")).expect("our table");
    format!("coracle{name}")
}
