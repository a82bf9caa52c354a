//! The look-up of a host name, and the check of its addresses.
//!
//! A name is looked up once for each request. The connection then uses the checked addresses, so they cannot
//! change between the check and the connection. The module `address` decides whether an address is public.

#[cfg(feature = "test-support")]
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
#[cfg(feature = "test-support")]
use std::sync::Arc;

use loopabull_model::{HttpGrant, HttpHost, HttpOrigin};

use crate::address;
use crate::error::{Denied, SendError};

/// Maximum number of addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;

/// The source of name look-ups.
#[cfg_attr(not(feature = "test-support"), derive(Debug))]
pub(crate) enum Resolver {
    /// The resolver of the system: `/etc/hosts`, DNS and the other sources in `nsswitch.conf`.
    System,
    /// A table that a test provides. Each request looks up its host in the table once.
    #[cfg(feature = "test-support")]
    Table(Arc<NameTable>),
}

/// A function that returns the addresses of a name. The name is in lower case.
#[cfg(feature = "test-support")]
pub type NameTable = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

impl Resolver {
    /// Returns the addresses of the origin that are public or listed in a grant. Keeps the order of the
    /// look-up, and removes duplicates.
    ///
    /// Fails if the name is unknown, or if none of its addresses is allowed.
    pub(crate) async fn resolve(
        &self,
        origin: &HttpOrigin,
        grants: &[HttpGrant],
    ) -> Result<Vec<SocketAddr>, SendError> {
        let found = match &origin.host {
            HttpHost::Address(address) => vec![*address],
            HttpHost::Name(name) => self
                .look_up(name, origin.port)
                .await
                .map_err(|source| SendError::Resolve { host: name.clone(), source })?,
        };
        allowed(origin, &found, grants)
    }

    async fn look_up(&self, name: &str, port: u16) -> io::Result<Vec<IpAddr>> {
        match self {
            Self::System => {
                let found = tokio::net::lookup_host((name, port)).await?;
                Ok(found.map(|address| address.ip()).collect())
            }
            #[cfg(feature = "test-support")]
            Self::Table(table) => table(name),
        }
    }
}

#[cfg(feature = "test-support")]
impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            Self::Table(_) => "Table",
        })
    }
}

fn allowed(
    origin: &HttpOrigin,
    found: &[IpAddr],
    grants: &[HttpGrant],
) -> Result<Vec<SocketAddr>, SendError> {
    let mut addresses = Vec::new();
    for address in found.iter().map(IpAddr::to_canonical) {
        let is_allowed = address::is_public(address)
            || grants.iter().any(|grant| grant.origin == *origin && grant.names(address));
        let address = SocketAddr::new(address, origin.port);
        if is_allowed && !addresses.contains(&address) && addresses.len() < MAX_ADDRESSES {
            addresses.push(address);
        }
    }
    if !addresses.is_empty() {
        return Ok(addresses);
    }
    match found.first() {
        Some(address) => {
            let address = address.to_canonical();
            Err(Denied::Address { origin: origin.clone(), address }.into())
        }
        None => Err(SendError::NoAddress { host: origin.host.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(grant: &str, addresses: &[&str], found: &[&str], expected: &[&str]) {
        let mut grant: HttpGrant = grant.parse().unwrap();
        grant.addresses = addresses.iter().map(|block| block.parse().unwrap()).collect();
        let origin = grant.origin.clone();
        let found: Vec<IpAddr> = found.iter().map(|address| address.parse().unwrap()).collect();
        let allowed = allowed(&origin, &found, &[grant]).unwrap_or_default();
        let allowed: Vec<_> = allowed.iter().map(ToString::to_string).collect();
        assert_eq!(allowed, expected);
    }

    #[test]
    fn addresses_that_are_not_public_are_removed() {
        check("http://a", &[], &["10.0.0.1", "8.8.8.8", "::1"], &["8.8.8.8:80"]);
        check("http://a", &[], &["::ffff:127.0.0.1", "169.254.169.254"], &[]);
    }

    #[test]
    fn addresses_named_by_the_grant_are_kept() {
        check("http://a:81", &["10.0.0.0/8"], &["10.9.9.9", "127.0.0.1"], &["10.9.9.9:81"]);
        check(
            "https://a",
            &["fd00::/8"],
            &["fd00::1", "8.8.8.8"],
            &["[fd00::1]:443", "8.8.8.8:443"],
        );
    }

    #[test]
    fn an_address_as_granted_host_allows_only_itself() {
        check("http://127.0.0.1", &[], &["127.0.0.1"], &["127.0.0.1:80"]);
        check("http://127.0.0.1", &[], &["127.0.0.2"], &[]);
    }

    #[test]
    fn duplicates_are_removed_and_the_number_is_limited() {
        check("http://a", &[], &["8.8.8.8", "::ffff:8.8.8.8"], &["8.8.8.8:80"]);
        let many: Vec<_> = (1..=40).map(|last| format!("8.8.8.{last}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let kept: Vec<_> = (1..=8).map(|last| format!("8.8.8.{last}:80")).collect();
        check("http://a", &[], &many, &kept.iter().map(String::as_str).collect::<Vec<_>>());
    }
}
