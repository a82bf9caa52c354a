//! The configuration of a runner.

use std::path::PathBuf;

use loopabull_egress::{EgressLimits, TlsRoots};

/// The configuration of a runner.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The maximum number of components that run at once; further runs wait. Address space, not
    /// memory, is reserved for all of them.
    pub instances: u32,
    /// The directory for compiled components. If it cannot be used, components are compiled at each
    /// start.
    pub cache: PathBuf,
    pub egress: EgressSetup,
}

/// The configuration of outgoing HTTP requests.
#[derive(Clone, Debug)]
pub struct EgressSetup {
    pub limits: EgressLimits,
    /// The root certificates that server certificates are checked against.
    pub tls_roots: TlsRoots,
}
