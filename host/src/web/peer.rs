//! The other end of a connection.

use std::fmt;
use std::net::SocketAddr;

/// The other end of a connection, which each of its requests carries as an extension.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Peer {
    /// A client of the operator's port.
    Address(SocketAddr),
    /// A command of this user, at the socket in the state directory.
    User(u32),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{}", address.ip()),
            Self::User(user) => write!(f, "user {user}"),
        }
    }
}
