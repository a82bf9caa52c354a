//! A cable to a host in a network namespace, which goes dead without a word.

use std::net::Ipv4Addr;

use crate::network::Network;

/// A host at the end of a cable. It lives as long as the process of the test.
#[derive(Debug)]
pub struct Cable(Network);

impl Cable {
    /// Lays a cable to a new host.
    ///
    /// # Panics
    ///
    /// If the test is not root, or `ip` is missing; the text says what to do.
    pub fn start() -> Self {
        Self(Network::start(1))
    }

    /// Returns the address of the host.
    pub fn address(&self) -> Ipv4Addr {
        self.0.host(0).address
    }

    /// Loses every packet in both directions.
    pub fn cut(&self) {
        self.0.cut_us(0);
    }

    /// Takes back what [`Cable::cut`] did.
    pub fn mend(&self) {
        self.0.mend_us(0);
    }

    /// Returns the option of `nsenter` that goes to the host.
    pub(crate) fn namespace(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.0.host(0).pid())
    }
}
