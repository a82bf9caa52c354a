//! From a host to the addresses that a connection may go to.
//!
//! Owns the one look-up of a name and the check of each address it came to. What it returns is
//! what is connected to: nothing behind it looks a name up again, so a name cannot change between
//! check and connection.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use loopabull_model::{HttpGrant, HttpHost, HttpOrigin};

use crate::address;
use crate::error::{Denied, SendError};

/// How many addresses of a name are tried at the most.
const MAX_ADDRESSES: usize = 8;

/// Who looks names up.
#[derive(Clone, Default)]
pub enum Resolver {
    /// The system's: `/etc/hosts`, DNS and whatever `nsswitch.conf` names.
    #[default]
    System,
    /// A table of the caller's, asked once for each request.
    Table(Arc<Table>),
}

/// Returns the addresses of a name in lower case.
pub type Table = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

impl Resolver {
    /// Returns the addresses behind the origin that are public or named by a grant, in the order
    /// of the look-up and none twice.
    ///
    /// Fails if the name is unknown or if none of its addresses is allowed.
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
            Self::Table(table) => table(name),
        }
    }
}

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
    fn only_public_addresses_are_kept() {
        check("http://a", &[], &["10.0.0.1", "8.8.8.8", "::1"], &["8.8.8.8:80"]);
        check("http://a", &[], &["::ffff:127.0.0.1", "169.254.169.254"], &[]);
    }

    #[test]
    fn named_addresses_are_kept_too() {
        check("http://a:81", &["10.0.0.0/8"], &["10.9.9.9", "127.0.0.1"], &["10.9.9.9:81"]);
        check(
            "https://a",
            &["fd00::/8"],
            &["fd00::1", "8.8.8.8"],
            &["[fd00::1]:443", "8.8.8.8:443"],
        );
    }

    #[test]
    fn an_address_in_the_grant_names_itself_only() {
        check("http://127.0.0.1", &[], &["127.0.0.1"], &["127.0.0.1:80"]);
        check("http://127.0.0.1", &[], &["127.0.0.2"], &[]);
    }

    #[test]
    fn no_address_comes_twice_and_few_come_at_all() {
        check("http://a", &[], &["8.8.8.8", "::ffff:8.8.8.8"], &["8.8.8.8:80"]);
        let many: Vec<_> = (1..=40).map(|last| format!("8.8.8.{last}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        let kept: Vec<_> = (1..=8).map(|last| format!("8.8.8.{last}:80")).collect();
        check("http://a", &[], &many, &kept.iter().map(String::as_str).collect::<Vec<_>>());
    }
}
