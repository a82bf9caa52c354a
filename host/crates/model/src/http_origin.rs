//! The origin of an HTTP request: scheme, host and port.
//!
//! This module has the only parser of an authority (`HOST:PORT`). The origins in manifests and in the
//! requests of components pass through this parser, so that they can be compared. Host names are not resolved
//! here; the crate `egress` does that.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The scheme of an origin.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum HttpScheme {
    Http,
    Https,
}

/// The host of an origin.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum HttpHost {
    /// A host name in lower case: dot-separated labels of ASCII letters, digits, `-` and `_`. A name has at
    /// most 253 characters and no trailing dot.
    Name(String),
    /// An IP address. An IPv4-mapped IPv6 address is stored as IPv4.
    Address(IpAddr),
}

/// A scheme, a host and a port.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct HttpOrigin {
    pub scheme: HttpScheme,
    pub host: HttpHost,
    pub port: u16,
}

/// The reason why a text is not the authority of an origin.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AuthorityError {
    #[error("it has no host")]
    Empty,
    #[error("it is longer than 260 characters")]
    TooLong,
    #[error("it has a user before the host")]
    User,
    #[error("its host has a wildcard; grant each host by its name")]
    Wildcard,
    #[error("its host has characters other than ASCII letters, digits, `-`, `_` and `.`")]
    Character,
    #[error("its host has an extra dot")]
    Dot,
    #[error("its host has a part that is longer than 63 characters or that starts or ends in `-`")]
    Label,
    #[error("its host ends in a number and is not an IPv4 address")]
    Number,
    #[error("its host in brackets is not an IPv6 address")]
    Bracket,
    #[error("its port is not a number from 1 to 65535")]
    Port,
}

/// The maximum length of a host name, in bytes.
const MAX_NAME: usize = 253;

impl HttpScheme {
    /// Returns the port of a URL that names no port.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// Returns `http` or `https`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl fmt::Display for HttpScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for HttpHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl HttpOrigin {
    /// Parses an authority: `HOST` or `HOST:PORT`, with IPv6 addresses in brackets.
    ///
    /// The parser corrects nothing. It refuses a user, a trailing dot, an empty port, a port with leading
    /// zeros, and unusual forms of an IPv4 address (`127.1`, `0x7f.1`).
    pub fn parse(scheme: HttpScheme, authority: &str) -> Result<Self, AuthorityError> {
        if authority.is_empty() {
            return Err(AuthorityError::Empty);
        }
        if authority.len() > MAX_NAME + ":65535".len() + 1 {
            return Err(AuthorityError::TooLong);
        }
        if authority.contains('@') {
            return Err(AuthorityError::User);
        }
        let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
            let (address, port) = rest.split_once(']').ok_or(AuthorityError::Bracket)?;
            let port = match port {
                "" => None,
                port => Some(port.strip_prefix(':').ok_or(AuthorityError::Bracket)?),
            };
            let address: Ipv6Addr = address.parse().map_err(|_| AuthorityError::Bracket)?;
            (HttpHost::Address(IpAddr::V6(address).to_canonical()), port)
        } else {
            let (host, port) = match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            };
            (host_of(host)?, port)
        };
        let port = port.map_or(Ok(scheme.default_port()), port_of)?;
        Ok(Self { scheme, host, port })
    }

    /// Returns host and port as in the header `Host`: the default port of the scheme is left out.
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for HttpOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority())
    }
}

fn host_of(host: &str) -> Result<HttpHost, AuthorityError> {
    if host.is_empty() {
        return Err(AuthorityError::Empty);
    }
    if host.contains('*') {
        return Err(AuthorityError::Wildcard);
    }
    if !host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err(AuthorityError::Character);
    }
    if host.len() > MAX_NAME {
        return Err(AuthorityError::TooLong);
    }
    for label in host.split('.') {
        if label.is_empty() {
            return Err(AuthorityError::Dot);
        }
        if label.len() > 63 || label.starts_with('-') || label.ends_with('-') {
            return Err(AuthorityError::Label);
        }
    }
    let name = host.to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    // Resolvers read names such as `127.1`, `2130706433` and `0x7f000001` as IPv4 addresses. Only the usual
    // form of an address is accepted.
    if last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x") {
        let address: Ipv4Addr = name.parse().map_err(|_| AuthorityError::Number)?;
        return Ok(HttpHost::Address(IpAddr::V4(address)));
    }
    Ok(HttpHost::Name(name))
}

fn port_of(port: &str) -> Result<u16, AuthorityError> {
    let plain = port.bytes().all(|b| b.is_ascii_digit()) && !port.starts_with('0');
    if !plain {
        return Err(AuthorityError::Port);
    }
    port.parse().map_err(|_| AuthorityError::Port)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(authority: &str, expected: &str) {
        let origin = HttpOrigin::parse(HttpScheme::Https, authority).unwrap();
        assert_eq!(origin.to_string(), expected);
    }

    fn check_error(authority: &str, expected: AuthorityError) {
        let origin = HttpOrigin::parse(HttpScheme::Https, authority);
        assert_eq!(origin, Err(expected), "{authority:?}");
    }

    #[test]
    fn letters_become_lower_case_and_the_default_port_is_removed() {
        check("Src.FedoraProject.org", "https://src.fedoraproject.org");
        check("src.fedoraproject.org:443", "https://src.fedoraproject.org");
        check("src.fedoraproject.org:80", "https://src.fedoraproject.org:80");
        check("a_b:1", "https://a_b:1");
    }

    #[test]
    fn an_address_has_one_form() {
        check("127.0.0.1:8080", "https://127.0.0.1:8080");
        check("[0:0::1]:8080", "https://[::1]:8080");
        check("[::ffff:127.0.0.1]", "https://127.0.0.1");
        check("[::FFFF:7f00:1]:443", "https://127.0.0.1");
    }

    #[test]
    fn a_user_is_refused() {
        for authority in ["good@evil", "evil#@good", "good:80@evil", "@good", "a:b@good"] {
            check_error(authority, AuthorityError::User);
        }
    }

    #[test]
    fn odd_hosts_are_refused() {
        check_error("", AuthorityError::Empty);
        check_error(":80", AuthorityError::Empty);
        check_error("good.", AuthorityError::Dot);
        check_error(".good", AuthorityError::Dot);
        check_error("a..b", AuthorityError::Dot);
        check_error("*.good", AuthorityError::Wildcard);
        check_error("gööd", AuthorityError::Character);
        check_error("good%2eevil", AuthorityError::Character);
        check_error("good\\evil", AuthorityError::Character);
        check_error("good/evil", AuthorityError::Character);
        check_error("good evil", AuthorityError::Character);
        check_error("-good", AuthorityError::Label);
        check_error(&"a".repeat(64), AuthorityError::Label);
        check_error(&"a.".repeat(127).replace("a.a", "aa.a"), AuthorityError::TooLong);
        check_error(&"a".repeat(300), AuthorityError::TooLong);
    }

    #[test]
    fn other_ways_to_write_an_address_are_refused() {
        for host in ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "1.2.3.4.5", "a.0x1"] {
            check_error(host, AuthorityError::Number);
        }
        for host in ["[::1", "[::1]x", "[fe80::1%25eth0]", "[v1.a]", "[127.0.0.1]", "[]"] {
            check_error(host, AuthorityError::Bracket);
        }
    }

    #[test]
    fn odd_ports_are_refused() {
        for port in ["", "0", "080", "65536", "+80", "-1", "8 0", "80:80", "http"] {
            check_error(&format!("good:{port}"), AuthorityError::Port);
        }
    }

    proptest! {
        #[test]
        fn a_parsed_authority_parses_to_the_same_origin(authority in ".{0,80}") {
            if let Ok(origin) = HttpOrigin::parse(HttpScheme::Http, &authority) {
                let again = HttpOrigin::parse(HttpScheme::Http, &origin.authority());
                prop_assert_eq!(again, Ok(origin));
            }
        }

        #[test]
        fn a_parsed_name_is_the_one_that_was_written(authority in "[a-zA-Z0-9.:@\\[\\]_-]{1,24}") {
            if let Ok(origin) = HttpOrigin::parse(HttpScheme::Http, &authority)
                && let HttpHost::Name(name) = &origin.host
            {
                let written = authority.to_ascii_lowercase();
                let written = written.strip_suffix(":80").unwrap_or(&written);
                prop_assert_eq!(&origin.authority(), written);
                prop_assert!(written.starts_with(name.as_str()));
            }
        }
    }
}
