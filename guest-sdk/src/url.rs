//! The URL of an HTTP request: an absolute `http` or `https` URL without a user name or password.

use std::fmt;

/// The scheme of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// An absolute URL, without its fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) scheme: Scheme,
    /// The host in lower case, and the port if the URL names one.
    pub(crate) authority: String,
    /// The path, which begins with a slash, and the query.
    pub(crate) path_and_query: String,
}

impl Url {
    /// Parses a URL.
    ///
    /// # Errors
    ///
    /// A text that describes the problem. The text does not contain the URL, because a URL may contain a
    /// secret.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.bytes().any(|byte| !byte.is_ascii_graphic()) {
            return Err("the URL has a character that must be escaped");
        }
        let (scheme, rest) = text.split_once("://").ok_or("the URL is not absolute")?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err("the URL is neither `http` nor `https`"),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.is_empty() {
            return Err("the URL names no host");
        }
        if authority.contains('@') {
            return Err("the URL has a user; send credentials in a header");
        }
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(Url {
            scheme,
            authority: authority.to_ascii_lowercase(),
            path_and_query: format!("{slash}{path}"),
        })
    }

    /// Returns the scheme, the host and the port, which are the parts that a manifest grants.
    pub(crate) fn origin(&self) -> String {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        format!("{scheme}://{}", self.authority)
    }

    /// Returns the URL without its query, for error messages. A query may contain a secret.
    pub(crate) fn without_query(&self) -> String {
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        format!("{}{path}", self.origin())
    }
}

impl fmt::Display for Url {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", self.origin(), self.path_and_query)
    }
}

#[cfg(test)]
mod tests {
    use super::Url;

    fn check(text: &str, expected: &str) {
        let found = match Url::parse(text) {
            Ok(url) => format!("{url} {}", url.without_query()),
            Err(wrong) => wrong.to_owned(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn messages_do_not_contain_the_query() {
        check("https://a.example/b/c?d=e", "https://a.example/b/c?d=e https://a.example/b/c");
    }

    #[test]
    fn an_empty_path_becomes_a_slash() {
        check("https://a.example", "https://a.example/ https://a.example/");
        check("https://a.example?b", "https://a.example/?b https://a.example/");
    }

    #[test]
    fn the_host_becomes_lower_case_and_keeps_its_port() {
        check("HTTP://A.Example:8080/B", "http://a.example:8080/B http://a.example:8080/B");
    }

    #[test]
    fn the_fragment_is_removed() {
        check("http://a/b?c#d", "http://a/b?c http://a/b");
    }

    #[test]
    fn an_invalid_url_is_refused() {
        check("/api/0", "the URL is not absolute");
        check("ftp://a/", "the URL is neither `http` nor `https`");
        check("https:///b", "the URL names no host");
        check("https://ada:pass@a/", "the URL has a user; send credentials in a header");
        check("https://a/b c", "the URL has a character that must be escaped");
        check("https://a/\r\nb", "the URL has a character that must be escaped");
    }
}
