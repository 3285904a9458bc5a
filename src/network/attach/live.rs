//! Joining and leaving networks while the container lives.

use super::join::{self, Configure, Joining};
use super::resolver;
use super::{Attached, Interface, Record, Request, Scene};
use crate::failure::{Failure, Kind};
use crate::model::id::Id;
use crate::model::network::Endpoint;
use crate::model::subnet::Subnet;
use crate::network::attach::canonical_name;
use crate::network::message::Batch;
use crate::network::{ipam, link, resolv};
use crate::state::{file, network};
use crate::sys::netlink::{self, Family, Socket};
use anyhow::{Context, Result};
use std::net::IpAddr;
use std::os::fd::AsFd;

impl Scene {
    pub(super) fn request<'a>(&'a self, id: &'a Id) -> Request<'a> {
        Request {
            id,
            name: &self.name,
            hostname: &self.hostname,
            aliases: &self.aliases,
            namespace: Some(self.namespace.as_fd()),
            network: &self.network,
            layout: &self.layout,
            rootless: self.rootless,
        }
    }
}

impl Attached {
    /// `network connect`: join another network. `record` writes the document down before anything is taken.
    pub fn connect(&mut self, endpoint: &Endpoint, record: &mut Record<'_>) -> Result<()> {
        let scene = self.held.scene.take().ok_or_else(not_on_networks)?;
        let result = self.connect_in(&scene, endpoint, record);
        self.held.scene = Some(scene);
        result
    }

    /// `network disconnect`: leave a network.
    pub fn disconnect(&mut self, network: &str, record: &mut Record<'_>) -> Result<()> {
        let scene = self.held.scene.take().ok_or_else(not_on_networks)?;
        let result = self.disconnect_in(&scene, canonical_name(network), record);
        self.held.scene = Some(scene);
        result
    }

    /// `network update`: who is asked for foreign names may be others now.
    pub fn look_up_again(&mut self) -> Result<()> {
        let Some(scene) = self.held.scene.take() else { return Ok(()) };
        let result = self.refresh_names(&scene);
        self.held.scene = Some(scene);
        result
    }

    fn connect_in(&mut self, scene: &Scene, endpoint: &Endpoint, record: &mut Record<'_>) -> Result<()> {
        let id = self.id.clone().context("the container has no id")?;
        let request = scene.request(&id);
        let name = canonical_name(&endpoint.network);
        if self.interfaces.iter().any(|interface| interface.network == name) {
            let message = format!(
                "container {} is already connected to network {name}: network is already connected",
                scene.name
            );
            return Err(Failure::new(Kind::Engine, message).into());
        }
        let mut joining = join::prepare(&request, std::slice::from_ref(endpoint))?;
        let one = joining.first_mut().context("no network to join")?;
        let mut interface = one.intent(self.free_index(), &id);
        if self.interfaces.iter().any(|other| other.name == interface.name) {
            let message = format!("container {} has a link {} already", scene.name, interface.name);
            return Err(Failure::new(Kind::Engine, message).into());
        }
        self.interfaces.push(interface.clone());
        let result = record(self).and_then(|()| self.take_link(&request, one, &mut interface, record));
        if let Err(error) = result {
            // Undo what was taken, and say the first error.
            let _ = self.give_back(scene, &interface);
            self.interfaces.pop();
            let _ = record(self);
            return Err(error);
        }
        self.lead_ports(scene)?;
        record(self)?;
        self.refresh(scene)
    }

    /// Lease, link and configure one more interface, the last of the document.
    fn take_link(
        &mut self,
        request: &Request<'_>,
        one: &mut Joining<'_>,
        interface: &mut Interface,
        record: &mut Record<'_>,
    ) -> Result<()> {
        one.lease(request, interface)?;
        if let Some(last) = self.interfaces.last_mut() {
            last.clone_from(interface);
        }
        record(self)?;
        let host = self.held.host.as_ref().context("the host's side is closed")?;
        network::enter(request.layout, &one.record.name, &join::member(request, interface, Vec::new()))?;
        let namespace = request.namespace.context("the container has no network namespace")?;
        join::make_link(host, request.layout, one, interface, namespace)?;
        let has_route = self.interfaces.iter().rev().skip(1).any(|other| other.leads_out && !other.gateways.is_empty());
        let how = Configure { serve: false, default_route: !has_route };
        join::configure(std::slice::from_ref(one), std::slice::from_ref(interface), namespace, how)?;
        Ok(())
    }

    fn disconnect_in(&mut self, scene: &Scene, network: &str, record: &mut Record<'_>) -> Result<()> {
        let Some(index) = self.interfaces.iter().position(|interface| interface.network == network) else {
            let message =
                format!("container {} is not connected to network {network}: network is not connected", scene.name);
            return Err(Failure::new(Kind::Engine, message).into());
        };
        let interface = self.interfaces[index].clone();
        self.give_back(scene, &interface)?;
        self.interfaces.remove(index);
        self.lead_ports(scene)?;
        record(self)?;
        self.refresh(scene)
    }

    /// Remove the link, the member's file and the leases of one network.
    fn give_back(&self, scene: &Scene, interface: &Interface) -> Result<()> {
        let id = self.id.as_ref().context("the container has no id")?;
        network::leave(&scene.layout, &interface.network, id.as_str())?;
        let open = || Socket::open(Family::Route).context("open a route socket");
        let socket =
            netlink::within(scene.namespace.as_fd(), open).context("join the container's network namespace")??;
        link::remove_now(&socket, &interface.name)?;
        for subnet in &interface.addresses {
            ipam::release(&scene.layout, &interface.network, id, subnet.address)?;
        }
        self.default_routes(&socket, interface)
    }

    /// When the network that led out is left, another one leads out.
    fn default_routes(&self, socket: &Socket, left: &Interface) -> Result<()> {
        let mut batch = Batch::new();
        for any in [IpAddr::from([0; 4]), IpAddr::from([0; 16])] {
            let of = |interface: &Interface| {
                interface.gateways.iter().copied().find(|gateway| gateway.is_ipv4() == any.is_ipv4())
            };
            let others = self.interfaces.iter().filter(|other| other.leads_out && other.network != left.network);
            let next = others.into_iter().find_map(of);
            if let (Some(_), Some(gateway)) = (of(left), next) {
                link::add_route(&mut batch, &Subnet { address: any, prefix: 0 }, Some(gateway), None, 0);
            }
        }
        if !batch.is_empty() {
            batch.send(socket)?;
        }
        Ok(())
    }

    /// The lowest number that no link `eth…` has.
    fn free_index(&self) -> usize {
        let taken = |index: &usize| {
            let name = format!("eth{index}");
            let suffix = format!("{index:x}");
            self.interfaces.iter().any(|interface| {
                interface.name == name || interface.host_link.as_ref().is_some_and(|link| link[13..] == suffix)
            })
        };
        (0..).find(|index| !taken(index)).unwrap_or(0)
    }

    /// What depends on which networks there are: names, and the entries of /etc/hosts.
    fn refresh(&mut self, scene: &Scene) -> Result<()> {
        let old = std::mem::take(&mut self.hosts);
        self.hosts = join::entries(&scene.name, &scene.hostname, &self.interfaces);
        if let Some(id) = &self.id {
            // The file is bound into the container by its inode, so it is written where it is.
            let path = scene.layout.running(id).join("hosts");
            if let Ok(text) = std::fs::read_to_string(&path) {
                file::rewrite(&path, resolv::exchange(&text, &old, &self.hosts).as_bytes())
                    .with_context(|| format!("write {}", path.display()))?;
            }
        }
        self.refresh_names(scene)
    }

    fn refresh_names(&mut self, scene: &Scene) -> Result<()> {
        let mut records = Vec::new();
        for interface in &self.interfaces {
            records.extend(network::load(&scene.layout, &interface.network)?);
        }
        if let Some(names) = &mut self.held.names {
            let named: Vec<String> = records.iter().filter(|one| one.dns).map(|one| one.name.clone()).collect();
            names.set_networks(&named, resolver::upstream(&scene.network, &records));
        }
        Ok(())
    }
}

fn not_on_networks() -> anyhow::Error {
    Failure::new(Kind::Engine, "the container's network mode does not allow it: invalid network mode")
        .hint("only containers that were created with `--network bridge` or with networks can join and leave others")
        .into()
}
