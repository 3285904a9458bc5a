//! Attach and detach against the kernel, in network namespaces of the test's own thread. Needs root; says so where it
//! is not.

use crate::model::id::Id;
use crate::model::network::{Endpoint, Network, NetworkMode};
use crate::model::port::{PortMapping, Protocol};
use crate::network::attach::{self, Attached, Request};
use crate::state::layout::Layout;
use crate::sys::netlink;
use nix::sched::{CloneFlags, unshare};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// A namespace that plays the host, for the calling thread, and a store.
struct Scene {
    directory: std::path::PathBuf,
    layout: Layout,
}

impl Scene {
    /// `None`, loudly, where the test may not make one.
    fn new(name: &str) -> Option<Scene> {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("skipped: {name}: unshare the network namespace: {error}");
            assert!(std::env::var_os("CORACLE_MUST_RUN").is_none(), "{name} must run");
            return None;
        }
        let directory = std::env::temp_dir().join(format!("coracle-net-{name}-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("run")).unwrap();
        let layout = Layout::new(directory.join("data"), directory.join("run"));
        Some(Scene { directory, layout })
    }

    fn container(&self, number: u8, name: &str, network: Network) -> Container {
        let namespace = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        })
        .join()
        .unwrap();
        Container { id: Id::from_random([number; 32]), name: name.to_owned(), namespace, network }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

struct Container {
    id: Id,
    name: String,
    namespace: File,
    network: Network,
}

impl Container {
    fn up(&self, scene: &Scene) -> anyhow::Result<Attached> {
        let mut documents = Vec::new();
        let attached = attach::up(
            &Request {
                id: &self.id,
                name: &self.name,
                hostname: self.id.short(),
                aliases: &[],
                namespace: Some(self.namespace.as_fd()),
                network: &self.network,
                layout: &scene.layout,
                rootless: false,
            },
            &mut |attached| {
                documents.push(serde_json::to_value(attached)?);
                Ok(())
            },
        )?;
        assert_eq!(documents.last(), Some(&serde_json::to_value(&attached)?), "the last document says all");
        Ok(attached)
    }

    fn inside<T>(&self, work: impl FnOnce() -> T) -> T {
        netlink::within(self.namespace.as_fd(), work).unwrap()
    }
}

fn address(attached: &Attached) -> IpAddr {
    attached.interfaces[0].addresses[0].address
}

/// Connect and hear one word, with a deadline.
fn hear(target: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&target, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Say to each of `count` clients whence it came.
fn serve(listener: TcpListener, count: usize) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for _ in 0..count {
            let (mut stream, from) = listener.accept().unwrap();
            write!(stream, "{}", from.ip()).unwrap();
        }
    })
}

fn ask(attached: &mut Attached, container: &Container, name: &str, kind: u16) -> Vec<u8> {
    use crate::network::names::wire;
    let socket = container.inside(|| UdpSocket::bind("127.0.0.1:0")).unwrap();
    let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend(wire::encode_name(name));
    query.extend(kind.to_be_bytes());
    query.extend([0, 1]);
    socket.send_to(&query, (crate::network::names::ADDRESS, 53)).unwrap();
    socket.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut buffer = [0; 1500];
    while Instant::now() < deadline {
        let mut fds: Vec<_> =
            attached.fds().into_iter().map(|fd| nix::poll::PollFd::new(fd, nix::poll::PollFlags::POLLIN)).collect();
        fds.push(nix::poll::PollFd::new(socket.as_fd(), nix::poll::PollFlags::POLLIN));
        nix::poll::poll(&mut fds, 1000u16).unwrap();
        drop(fds);
        attached.ready();
        if let Ok(length) = socket.recv(&mut buffer) {
            return buffer[..length].to_vec();
        }
    }
    panic!("no answer for {name}");
}

fn on(networks: &[&str]) -> Network {
    let endpoints = networks.iter().map(|name| Endpoint { network: (*name).to_owned(), ..Endpoint::default() });
    Network { mode: Some(NetworkMode::Networks(endpoints.collect())), ..Network::default() }
}

#[test]
fn default_bridge_with_a_port_and_names() {
    let Some(scene) = Scene::new("bridge") else { return };
    let published =
        PortMapping { host_ip: None, host_port: 18080, container_port: 80, length: 1, protocol: Protocol::Tcp };
    let web = scene.container(1, "web", Network { publish: vec![published], ..on(&["bridge"]) });
    let start = Instant::now();
    let mut up = web.up(&scene).unwrap();
    eprintln!("first attach: {:?}", start.elapsed());
    let client = scene.container(2, "client", on(&["coracle"]));
    let start = Instant::now();
    let client_up = client.up(&scene).unwrap();
    eprintln!("second attach: {:?}", start.elapsed());

    let listener = web.inside(|| TcpListener::bind("0.0.0.0:80")).unwrap();
    let server = serve(listener, 5);
    let gateway = up.interfaces[0].gateways[0];
    // container to container, keeping the address
    let direct = client.inside(|| hear(SocketAddr::new(address(&up), 80))).unwrap();
    assert_eq!(direct, address(&client_up).to_string());
    // the host through its loopback (its own device must be up, as on any host)
    let lo = crate::sys::netlink::Socket::open(netlink::Family::Route).unwrap();
    let mut batch = crate::network::message::Batch::new();
    crate::network::link::set_up(&mut batch, 1, crate::network::link::Ipv6::On);
    batch.send(&lo).unwrap();
    assert_eq!(hear(SocketAddr::from(([127, 0, 0, 1], 18080))).unwrap(), gateway.to_string());
    // the host through one of its addresses
    assert_eq!(hear(SocketAddr::new(gateway, 18080)).unwrap(), gateway.to_string());
    // another container through the host, and the container itself
    assert_eq!(client.inside(|| hear(SocketAddr::new(gateway, 18080))).unwrap(), gateway.to_string());
    assert_eq!(web.inside(|| hear(SocketAddr::new(gateway, 18080))).unwrap(), gateway.to_string());
    server.join().unwrap();

    let answer = ask(&mut up, &web, "client", 1);
    let IpAddr::V4(expected) = address(&client_up) else { panic!() };
    assert!(answer.ends_with(&expected.octets()), "{answer:?}");
    assert_eq!(up.ports[0].host_port, 18080);

    let document: Attached = serde_json::from_value(serde_json::to_value(&up).unwrap()).unwrap();
    drop(up);
    attach::down(&document, &scene.layout).unwrap();
    attach::down(&document, &scene.layout).unwrap();
    attach::down(&client_up, &scene.layout).unwrap();
    assert_eq!(std::fs::read_dir(scene.layout.leases("coracle")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(scene.layout.members("coracle")).unwrap().count(), 0);
    assert!(hear(SocketAddr::from(([127, 0, 0, 1], 18080))).is_err());
}
