//! What a supervisor and the forwarder say to each other over `RUN/forward.sock`, one JSON packet a message.
//!
//! ```text
//!  supervisor                                  forwarder
//!  Enter (+ the namespace it still holds) ──▶  makes the user's network namespace, or takes that one
//!                            ◀──  Entered + the namespace               or Failed
//!  Publish{ports} + sockets               ──▶  passes on what comes to these sockets
//!                            ◀──  Done                                  or Failed
//!  Withdraw{ports}                        ──▶  does so no longer
//!                            ◀──  Done
//! ```
//! The connection stays open while the container lives: its end takes the container's ports back, and the end of the last
//! one ends the forwarder.

use crate::model::port::Protocol;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The supervisor speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Give me the namespace.
    Enter,
    /// One bound socket comes along for each of these.
    Publish(Vec<Port>),
    /// No longer pass these on.
    Withdraw(Vec<Port>),
}

/// A port to pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Protocol.
    pub protocol: Protocol,
    /// Where it is bound.
    pub host: SocketAddr,
    /// The container's address and port.
    pub target: SocketAddr,
}

/// The forwarder speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The namespace comes along.
    Entered,
    /// So it is.
    Done,
    /// It cannot be.
    Failed {
        /// The chain of causes.
        message: String,
        /// The cure.
        hint: Option<String>,
    },
}
