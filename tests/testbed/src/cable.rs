//! A cable from the test process to a host that is simulated by a network namespace. When the cable is cut,
//! neither side gets an error.

use std::net::Ipv4Addr;

use crate::network::Network;

/// A host at the end of a cable. The host is removed on drop, and when the test process ends.
#[derive(Debug)]
pub struct Cable(Network);

impl Cable {
    /// Creates a host and connects it to the test process.
    ///
    /// # Panics
    ///
    /// If the test is not root, or `ip` is missing. The message says what to do.
    pub fn start() -> Self {
        Self(Network::start(1))
    }

    /// Returns the address of the host.
    pub fn address(&self) -> Ipv4Addr {
        self.0.host(0).address
    }

    /// Drops every packet in both directions.
    pub fn cut(&self) {
        self.0.cut_us(0);
    }

    /// Undoes [`Cable::cut`].
    pub fn mend(&self) {
        self.0.mend_us(0);
    }

    /// Returns the option of `nsenter` that enters the host's network namespace.
    pub(crate) fn namespace(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.0.host(0).pid())
    }
}
