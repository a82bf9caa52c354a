//! The configuration of a component runner.

use std::path::PathBuf;

use loopabull_egress::{EgressLimits, TlsRoots};

/// The configuration of a component runner.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Maximum number of components that run at the same time. Further runs wait. The pool reserves address
    /// space, not memory, for this number of components.
    pub instances: u32,
    /// Directory for compiled components. If the directory cannot be used, all components are compiled at
    /// each start.
    pub cache: PathBuf,
    pub egress: EgressSetup,
}

/// The configuration of outgoing HTTP requests.
#[derive(Clone, Debug)]
pub struct EgressSetup {
    pub limits: EgressLimits,
    /// Root certificates against which the certificates of HTTPS servers are checked.
    pub tls_roots: TlsRoots,
}
