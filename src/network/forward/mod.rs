//! How an ordinary user's containers reach the world and are reached: one process for all of a user's containers.
//!
//! There is no TCP/IP of our own. Each connection is two sockets of the kernel, one in the networks' namespace with the
//! other end's address (so that both ends see who they talk to), one in the host's; bytes are copied between them. Only
//! the first packet of a TCP connection is looked at: it waits until the connection outside is there, so that a container
//! sees a refusal as a refusal. `/dev/net/tun` is not needed, nor any other program.
//!
//! The first supervisor starts the process and keeps a connection to it; with the last one it ends. If it is killed, each
//! supervisor sees its connection end, and starts or finds the next ([`Client::restart`]).

pub mod client;
mod echo;
mod inside;
pub mod message;
mod packet;
pub mod server;
pub mod uplink;

pub use client::Client;
