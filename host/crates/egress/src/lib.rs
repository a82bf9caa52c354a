//! Outgoing HTTP of components, checked against what a manifest grants.
//!
//! A component's request comes in as it was written, and leaves this host only if its origin is
//! granted, to an address that was checked, over a connection that is used once. A name is looked
//! up once for each request and what is connected to is what was checked, so an answer that
//! changes between two look-ups leads nowhere. Nothing follows a redirect: it goes back to the
//! component, whose next request is checked like the first.
//!
//! Knows nothing of wasmtime: the crate `wasm` calls [`RunEgress::send`] where a component sends a
//! request, and keeps [`RunEgress::exchanges`] with the run.

use std::sync::Arc;

use loopabull_model::HttpGrant;

mod address;
mod body;
mod connection;
mod error;
mod exchange;
mod headers;
mod limits;
mod request;
mod resolver;
mod run;
mod trust;

pub use body::ResponseBody;
pub use connection::Connection;
pub use error::{Denied, SendError};
pub use exchange::{Exchange, Trouble};
pub use limits::{EgressLimits, Timeouts};
pub use resolver::{Resolver, Table};
pub use run::RunEgress;
pub use trust::{Trust, TrustError};

/// What one task may send: its grants and limits. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Egress {
    policy: Arc<Policy>,
}

/// What the requests of a task are checked against.
#[derive(Debug)]
struct Policy {
    grants: Vec<HttpGrant>,
    limits: EgressLimits,
    trust: Trust,
    resolver: Resolver,
}

impl Egress {
    /// Makes the egress of a task. Without grants every request is denied.
    pub fn new(
        grants: Vec<HttpGrant>,
        limits: EgressLimits,
        trust: Trust,
        resolver: Resolver,
    ) -> Self {
        Self { policy: Arc::new(Policy { grants, limits, trust, resolver }) }
    }

    /// Begins a run, with all of its requests to make.
    pub fn begin_run(&self) -> RunEgress {
        RunEgress::new(Arc::clone(&self.policy))
    }
}
