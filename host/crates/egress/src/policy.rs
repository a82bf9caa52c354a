//! The rules that the requests of one task are checked against.

use loopabull_model::HttpGrant;

use crate::limits::EgressLimits;
use crate::resolver::Resolver;
use crate::tls_roots::TlsRoots;

/// The rules that the requests of one task are checked against.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) grants: Vec<HttpGrant>,
    pub(crate) limits: EgressLimits,
    pub(crate) tls_roots: TlsRoots,
    pub(crate) resolver: Resolver,
}
