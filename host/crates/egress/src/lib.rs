//! Outgoing HTTP requests of components, checked against the grants of a manifest.
//!
//! A request is sent only to a granted origin and to a checked address, over a connection of its own. The
//! host name is looked up once for each request. The connection uses the addresses from this look-up, so they
//! cannot change after the check. Redirects are not followed: the component gets the redirect, and its next
//! request is checked like the first.
//!
//! This crate does not know wasmtime. The crate `wasm` calls [`RunEgress::send`] when a component sends a
//! request, and stores [`RunEgress::exchanges`] with the run.

use std::sync::Arc;

use loopabull_model::HttpGrant;

mod address;
mod body;
mod connection;
mod error;
mod exchange;
mod headers;
mod limits;
mod policy;
mod request;
mod resolver;
mod run;
mod tls_roots;

use policy::Policy;
use resolver::Resolver;

pub use body::ResponseBody;
pub use connection::Connection;
pub use error::{Denied, SendError};
pub use exchange::{Exchange, ExchangeFailure};
pub use limits::{EgressLimits, Timeouts};
#[cfg(feature = "test-support")]
pub use resolver::NameTable;
pub use run::RunEgress;
pub use tls_roots::{TlsRoots, TlsRootsError};

/// The HTTP access of one task, with its grants and limits. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Egress {
    policy: Arc<Policy>,
}

impl Egress {
    /// Creates the HTTP access of a task. If there are no grants, every request is denied.
    pub fn new(grants: Vec<HttpGrant>, limits: EgressLimits, tls_roots: TlsRoots) -> Self {
        let resolver = Resolver::System;
        Self { policy: Arc::new(Policy { grants, limits, tls_roots, resolver }) }
    }

    /// Creates the HTTP access of a task, for a test. Names are looked up in `table` instead of the system.
    #[cfg(feature = "test-support")]
    pub fn with_names(
        grants: Vec<HttpGrant>,
        limits: EgressLimits,
        tls_roots: TlsRoots,
        table: Arc<NameTable>,
    ) -> Self {
        let resolver = Resolver::Table(table);
        Self { policy: Arc::new(Policy { grants, limits, tls_roots, resolver }) }
    }

    /// Begins a run. Each run counts its own requests.
    pub fn begin_run(&self) -> RunEgress {
        RunEgress::new(Arc::clone(&self.policy))
    }
}
