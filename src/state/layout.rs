//! Every path of the store and of the run directory, once.

use crate::model::id::Id;
use std::path::{Path, PathBuf};

/// Where DATA and RUN are. Made once in `command`, handed down.
#[derive(Clone, Debug)]
pub struct Layout {
    data: PathBuf,
    run: PathBuf,
}

impl Layout {
    /// A layout of these two directories.
    pub fn new(data: PathBuf, run: PathBuf) -> Layout {
        Layout { data, run }
    }

    /// DATA itself.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// RUN itself.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// The format's number.
    pub fn format(&self) -> PathBuf {
        self.data.join("format")
    }

    /// Shared by all who use the store, exclusive by those who collect garbage.
    pub fn lock(&self) -> PathBuf {
        self.data.join("lock")
    }

    /// Staging on DATA's file system.
    pub fn tmp(&self) -> PathBuf {
        self.data.join("tmp")
    }

    /// All blobs, named by the hexadecimal digits of their sha256.
    pub fn blobs(&self) -> PathBuf {
        self.data.join("blobs/sha256")
    }

    /// All layers, named by the hexadecimal digits of their diff id.
    pub fn layers(&self) -> PathBuf {
        self.data.join("layers-v1")
    }

    /// Empty files and directories that containers mount over.
    pub fn skeleton(&self) -> PathBuf {
        self.data.join("skeleton-v1")
    }

    /// All images, one record each.
    pub fn images(&self) -> PathBuf {
        self.data.join("images")
    }

    /// All tags.
    pub fn tags(&self) -> PathBuf {
        self.data.join("tags")
    }

    /// All containers.
    pub fn containers(&self) -> PathBuf {
        self.data.join("containers")
    }

    /// One container.
    pub fn container(&self, id: &Id) -> PathBuf {
        self.containers().join(id.as_str())
    }

    /// Who depends on a container: an empty file for each, named by its id.
    pub fn dependents(&self, id: &Id) -> PathBuf {
        self.container(id).join("dependents")
    }

    /// All names, links to containers.
    pub fn names(&self) -> PathBuf {
        self.data.join("names")
    }

    /// All networks.
    pub fn networks(&self) -> PathBuf {
        self.data.join("networks")
    }

    /// All volumes.
    pub fn volumes(&self) -> PathBuf {
        self.data.join("volumes")
    }

    /// Event files, one a day.
    pub fn events(&self) -> PathBuf {
        self.data.join("events")
    }

    /// What runs of one container.
    pub fn running(&self, id: &Id) -> PathBuf {
        self.run.join("containers").join(id.as_str())
    }

    /// The lock that its supervisor holds all its life.
    pub fn alive(&self, id: &Id) -> PathBuf {
        self.running(id).join("alive")
    }

    /// What runs of networks.
    pub fn running_networks(&self) -> PathBuf {
        self.run.join("networks")
    }

    /// One network.
    pub fn network(&self, name: &str) -> PathBuf {
        self.networks().join(name)
    }

    /// The addresses of a network that are taken.
    pub fn leases(&self, network: &str) -> PathBuf {
        self.network(network).join("leases")
    }

    /// What runs of one network.
    pub fn running_network(&self, name: &str) -> PathBuf {
        self.running_networks().join(name)
    }

    /// Who is on a network now.
    pub fn members(&self, network: &str) -> PathBuf {
        self.running_network(network).join("members")
    }

    /// The lock on the firewall rules.
    pub fn firewall_lock(&self) -> PathBuf {
        self.run.join("firewall")
    }
}
