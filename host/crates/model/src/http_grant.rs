//! A grant of HTTP requests: an origin, and the non-public addresses to which its host name may resolve.
//!
//! Reads the grant from TOML. The crate `egress` resolves host names and decides whether a request is
//! granted.

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};

use crate::http_origin::{AuthorityError, HttpHost, HttpOrigin, HttpScheme};

/// One origin to which a component may send requests.
///
/// In a manifest the grant is a string, `"https://src.fedoraproject.org"`, or a table,
/// `{ url = "http://pagure.internal:8080", addresses = ["10.1.2.3", "fd00::/8"] }`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HttpGrant {
    pub origin: HttpOrigin,
    /// Non-public addresses to which requests to the host may connect.
    pub addresses: Vec<AddressBlock>,
}

/// One address, such as `10.1.2.3`, or a block of addresses, such as `fd00::/8`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AddressBlock(IpNet);

/// The reason why a text is not a grant.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum HttpGrantError {
    #[error("`{url}` is not an origin: it must start with http:// or https://")]
    Scheme { url: String },
    #[error("`{url}` is not an origin: {reason}")]
    Authority { url: String, reason: AuthorityError },
    #[error("`{url}` is not an origin: it has a query")]
    Query { url: String },
    #[error("`{url}` is not an origin: it has a fragment")]
    Fragment { url: String },
    #[error("`{url}` is not an origin: it has a path, but a grant is for all paths of its host")]
    Path { url: String },
    #[error("`{block}` is neither an address nor a block of addresses such as 10.0.0.0/8")]
    Block { block: String },
    #[error("`{block}` has bits after its prefix: write `{plain}`")]
    Bits { block: String, plain: String },
}

impl HttpGrant {
    /// Returns true if the grant lists this address, or if the host of its origin is this address.
    pub fn names(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.origin.host == HttpHost::Address(address)
            || self.addresses.iter().any(|block| block.contains(address))
    }
}

impl FromStr for HttpGrant {
    type Err = HttpGrantError;

    fn from_str(text: &str) -> Result<Self, HttpGrantError> {
        let url = || text.chars().take(200).collect::<String>().escape_debug().to_string();
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| HttpGrantError::Scheme { url: url() })?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => HttpScheme::Http,
            "https" => HttpScheme::Https,
            _ => return Err(HttpGrantError::Scheme { url: url() }),
        };
        if rest.contains('#') {
            return Err(HttpGrantError::Fragment { url: url() });
        }
        if rest.contains('?') {
            return Err(HttpGrantError::Query { url: url() });
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !path.is_empty() {
            return Err(HttpGrantError::Path { url: url() });
        }
        let origin = HttpOrigin::parse(scheme, authority)
            .map_err(|reason| HttpGrantError::Authority { url: url(), reason })?;
        Ok(Self { origin, addresses: Vec::new() })
    }
}

impl fmt::Display for HttpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.addresses.is_empty() {
            return write!(f, "{}", self.origin);
        }
        write!(f, "{{ url = \"{}\", addresses = [", self.origin)?;
        for (index, block) in self.addresses.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}\"{block}\"")?;
        }
        f.write_str("] }")
    }
}

impl<'de> Deserialize<'de> for HttpGrant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(GrantVisitor)
    }
}

/// Reads a grant from a string or from a table. An error message is about the one that the manifest uses.
struct GrantVisitor;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    url: String,
    #[serde(default)]
    addresses: Vec<AddressBlock>,
}

impl<'de> Visitor<'de> for GrantVisitor {
    type Value = HttpGrant;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an origin such as \"https://host\", or a table with `url` and `addresses`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<HttpGrant, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HttpGrant, A::Error> {
        let table = Table::deserialize(MapAccessDeserializer::new(map))?;
        let grant: HttpGrant = table.url.parse().map_err(de::Error::custom)?;
        Ok(HttpGrant { addresses: table.addresses, ..grant })
    }
}

impl AddressBlock {
    /// Returns true if the address is in the block. An IPv4-mapped IPv6 address is compared as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for AddressBlock {
    type Err = HttpGrantError;

    fn from_str(text: &str) -> Result<Self, HttpGrantError> {
        let block = || text.chars().take(200).collect::<String>().escape_debug().to_string();
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(IpNet::from(address.to_canonical())));
        }
        let net: IpNet = text.parse().map_err(|_| HttpGrantError::Block { block: block() })?;
        // IPv4-mapped IPv6 addresses are compared as IPv4, so a block of such addresses would match no
        // address. It is refused.
        if net.addr().to_canonical() != net.addr() {
            return Err(HttpGrantError::Block { block: block() });
        }
        if net.trunc() != net {
            let plain = net.trunc().to_string();
            return Err(HttpGrantError::Bits { block: block(), plain });
        }
        Ok(Self(net))
    }
}

impl fmt::Display for AddressBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            write!(f, "{}", self.0.addr())
        } else {
            write!(f, "{}", self.0)
        }
    }
}

impl<'de> Deserialize<'de> for AddressBlock {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Grants {
        http: Vec<HttpGrant>,
    }

    fn parse(list: &str) -> Result<Vec<HttpGrant>, String> {
        let grants: Result<Grants, _> = toml::from_str(&format!("http = [{list}]"));
        grants.map(|grants| grants.http).map_err(|error| error.to_string())
    }

    fn check(grant: &str, expected: &str) {
        assert_eq!(parse(grant).unwrap()[0].to_string(), expected);
    }

    fn check_error(grant: &str, expected: &str) {
        let error = parse(grant).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_string_is_an_origin() {
        check("'https://src.fedoraproject.org'", "https://src.fedoraproject.org");
        check("'HTTPS://Src.FedoraProject.org:443/'", "https://src.fedoraproject.org");
        check("'http://127.0.0.1:8080'", "http://127.0.0.1:8080");
        check("'http://[::1]:8080'", "http://[::1]:8080");
    }

    #[test]
    fn a_table_names_addresses() {
        let table =
            r#"{ url = "http://pagure.internal:8080", addresses = ["10.1.2.3", "fd00::/8"] }"#;
        check(table, table);
        check("{ url = 'https://a' }", "https://a");
        let grant = &parse(table).unwrap()[0];
        assert!(grant.names("10.1.2.3".parse().unwrap()));
        assert!(grant.names("::ffff:10.1.2.3".parse().unwrap()));
        assert!(grant.names("fd12::1".parse().unwrap()));
        assert!(!grant.names("10.1.2.4".parse().unwrap()));
    }

    #[test]
    fn a_host_that_is_an_address_is_granted() {
        let grant: HttpGrant = "http://[::ffff:127.0.0.1]:80".parse().unwrap();
        assert!(grant.names("127.0.0.1".parse().unwrap()));
        assert!(!grant.names("127.0.0.2".parse().unwrap()));
    }

    #[test]
    fn a_text_that_is_not_an_origin_is_refused_with_a_reason() {
        check_error(
            "'ftp://a'",
            "`ftp://a` is not an origin: it must start with http:// or https://",
        );
        check_error("'a:80'", "must start with http://");
        check_error("'https://u:p@a'", "`https://u:p@a` is not an origin: it has a user before");
        check_error("'https://a/b'", "it has a path, but a grant is for all paths of its host");
        check_error("'https://a?b'", "it has a query");
        check_error("'https://a/#b'", "it has a fragment");
        check_error("'https://*.a'", "it");
        check_error("'https://*.a'", "its host has a wildcard");
        check_error("'https://ä'", "characters other than ASCII");
        check_error("'https://'", "it has no host");
        check_error("'https://a:0'", "its port is not a number from 1 to 65535");
        check_error("5", "an origin such as \"https://host\"");
        check_error("{ addresses = [] }", "missing field `url`");
        check_error("{ url = 'http://a', adresses = [] }", "unknown field `adresses`");
    }

    #[test]
    fn a_text_that_is_not_a_block_is_refused_with_a_reason() {
        let with = |block: &str| format!("{{ url = 'http://a', addresses = ['{block}'] }}");
        check_error(&with("10.1.2.3/8"), "`10.1.2.3/8` has bits after its prefix: write `10.0");
        check_error(&with("10.1"), "`10.1` is neither an address nor a block");
        check_error(&with("::ffff:10.0.0.0/104"), "is neither an address nor a block");
        check_error(&with("host"), "is neither an address");
    }
}
