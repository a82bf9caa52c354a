//! Outgoing HTTP requests of components, checked against the grants of a manifest.
//!
//! A component's request arrives as the component wrote it. It leaves this host only if its origin
//! is granted, only to an address that was checked, and over a connection that is used once. Each
//! request looks its host name up once and connects to the addresses that were checked, so a DNS
//! answer that changes between two look-ups has no effect. Redirects are not followed: they are
//! returned to the component, whose next request is checked like the first.
//!
//! This crate knows nothing of wasmtime. The crate `wasm` calls [`RunEgress::send`] when a component
//! sends a request, and stores [`RunEgress::exchanges`] with the run.

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

/// The HTTP access of one task: its grants and limits. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Egress {
    policy: Arc<Policy>,
}

impl Egress {
    /// Creates the egress of a task. Without grants every request is denied.
    pub fn new(grants: Vec<HttpGrant>, limits: EgressLimits, tls_roots: TlsRoots) -> Self {
        let resolver = Resolver::System;
        Self { policy: Arc::new(Policy { grants, limits, tls_roots, resolver }) }
    }

    /// Creates an egress that looks names up in `table` instead of asking the system.
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

    /// Begins a run, which has its own count of requests.
    pub fn begin_run(&self) -> RunEgress {
        RunEgress::new(Arc::clone(&self.policy))
    }
}
