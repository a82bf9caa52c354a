//! The check of a request head before anything is sent.
//!
//! This module checks the origin, the target and the method, which needs no network. It calls the module
//! `headers` for the headers. It then builds a new head from the checked parts. The component's own head is
//! never sent, so no unchecked part leaves this host.

use http::request::Parts;
use http::{Method, Request, Uri, Version};
use loopabull_model::{HttpGrant, HttpOrigin, HttpScheme};

use crate::error::{self, Denied};
use crate::headers;
use crate::limits::EgressLimits;

/// Maximum length of a method name, in bytes.
const MAX_METHOD: usize = 32;

/// The head of a request that may be sent.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) head: Request<()>,
    pub(crate) origin: HttpOrigin,
    /// The value of `content-length`, in bytes.
    pub(crate) length: Option<u64>,
}

/// Checks the head of a request against grants and limits.
pub(crate) fn check(
    asked: &Parts,
    grants: &[HttpGrant],
    limits: &EgressLimits,
) -> Result<Checked, Denied> {
    let origin = origin(&asked.uri)?;
    if !grants.iter().any(|grant| grant.origin == origin) {
        return Err(Denied::NotGranted { origin });
    }
    let target = asked.uri.path_and_query().map_or("/", |target| target.as_str());
    let target = origin_form(target, limits.uri_bytes)?;
    let method = asked.method.as_str();
    if asked.method == Method::CONNECT || method.len() > MAX_METHOD {
        return Err(Denied::Method { method: error::printable(method) });
    }
    let (headers, length) = headers::check(&asked.headers, &origin, limits)?;
    let mut head = Request::new(());
    *head.method_mut() = asked.method.clone();
    *head.uri_mut() = target;
    *head.version_mut() = Version::HTTP_11;
    *head.headers_mut() = headers;
    Ok(Checked { head, origin, length })
}

fn origin(uri: &Uri) -> Result<HttpOrigin, Denied> {
    let scheme = match uri.scheme_str() {
        Some("http") => HttpScheme::Http,
        Some("https") => HttpScheme::Https,
        scheme => {
            return Err(Denied::Scheme { scheme: error::printable(scheme.unwrap_or_default()) });
        }
    };
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    HttpOrigin::parse(scheme, authority)
        .map_err(|reason| Denied::Authority { authority: error::printable(authority), reason })
}

/// Returns the target in origin form: `/path?query`.
///
/// If the request line contained an absolute URL, `*` or an authority, a server or a proxy could use an
/// origin other than the checked one. Newer versions of the crate `http` refuse most of these targets
/// (GHSA-5qpp), but this check does not rely on the version.
fn origin_form(written: &str, limit: usize) -> Result<Uri, Denied> {
    if written.len() > limit {
        return Err(Denied::UriTooLong { limit });
    }
    let refuse = || Denied::Target { target: error::printable(written) };
    let target = match written.as_bytes().first() {
        Some(b'/') => written.to_owned(),
        Some(b'?') => format!("/{written}"),
        _ => return Err(refuse()),
    };
    if !target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(refuse());
    }
    Uri::builder().path_and_query(target).build().map_err(|_| refuse())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GRANTS: [&str; 3] = ["https://good.example", "http://good.example:8080", "http://[::1]"];

    fn try_check(request: http::request::Builder) -> Result<Checked, Denied> {
        let grants: Vec<HttpGrant> = GRANTS.iter().map(|grant| grant.parse().unwrap()).collect();
        let parts = request.body(()).unwrap().into_parts().0;
        check(&parts, &grants, &EgressLimits::default())
    }

    fn check_target(written: &str, expected: &str) {
        assert_eq!(origin_form(written, 100).unwrap().to_string(), expected);
    }

    fn check_denied(uri: &str, expected: &str) {
        let denied = try_check(Request::builder().uri(uri)).unwrap_err();
        assert_eq!(denied.to_string(), expected);
    }

    #[test]
    fn a_denial_names_the_origin_and_the_grant_to_add() {
        check_denied(
            "https://evil.example/a?b",
            "`https://evil.example` is not granted: \
             add \"https://evil.example\" to http under [grants]",
        );
        check_denied(
            "http://good.example/",
            "`http://good.example` is not granted: \
             add \"http://good.example\" to http under [grants]",
        );
        check_denied(
            "https://good.example:8080/",
            "`https://good.example:8080` is not granted: \
             add \"https://good.example:8080\" to http under [grants]",
        );
    }

    #[test]
    fn an_invalid_origin_is_denied_with_the_reason() {
        check_denied("ftp://good.example/", "scheme `ftp` is neither http nor https");
        check_denied("/path", "scheme `` is neither http nor https");
        check_denied(
            "https://good.example@evil.example/",
            "`good.example@evil.example` is not a valid host with an optional port: \
             it has a user before the host",
        );
        check_denied(
            "https://good.example:443@evil.example/",
            "`good.example:443@evil.example` is not a valid host with an optional port: \
             it has a user before the host",
        );
        check_denied(
            "https://evil.example#@good.example/",
            "`https://evil.example` is not granted: \
             add \"https://evil.example\" to http under [grants]",
        );
        check_denied(
            "https://good.example./",
            "`good.example.` is not a valid host with an optional port: \
             its host has an extra dot",
        );
    }

    #[test]
    fn a_path_with_query_is_an_allowed_target() {
        check_target("/", "/");
        check_target("/a?b=c", "/a?b=c");
        check_target("?b=c", "/?b=c");
        check_target("//evil.example/", "//evil.example/");
    }

    #[test]
    fn a_target_other_than_a_path_is_denied() {
        let odd = ["", "*", "x", "evil.example:443", "http://evil.example/", "\\evil.example"];
        for written in odd.into_iter().chain(["/a b", "/a\r\nhost: evil", "/ä", "/a#b"]) {
            let denied = origin_form(written, 100).unwrap_err();
            assert_eq!(denied, Denied::Target { target: error::printable(written) });
        }
    }

    #[test]
    fn connect_and_overlong_methods_are_denied() {
        for method in ["CONNECT", &"M".repeat(33)] {
            let request = Request::builder().uri("https://good.example/").method(method);
            assert!(matches!(try_check(request), Err(Denied::Method { .. })));
        }
    }

    #[test]
    fn an_overlong_target_is_denied() {
        check_target(&"/".repeat(100), &"/".repeat(100));
        let denied = origin_form(&"/".repeat(101), 100).unwrap_err();
        assert_eq!(denied, Denied::UriTooLong { limit: 100 });
    }

    /// Generates authorities that are similar to the granted ones, and arbitrary texts.
    fn authorities() -> impl Strategy<Value = String> {
        let near = prop::collection::vec(
            prop::sample::select(vec![
                "good",
                ".example",
                "evil",
                "@",
                ":",
                "443",
                "80",
                "8080",
                "#",
                ".",
                "[",
                "]",
                "::1",
                "::ffff:127.0.0.1",
                "%2e",
                "GOOD",
                "-",
                "\\",
            ]),
            0..7,
        );
        prop_oneof![near.prop_map(|words| words.concat()), ".{0,40}"]
    }

    proptest! {
        #[test]
        fn only_granted_origins_pass(authority in authorities(), tls in any::<bool>()) {
            let scheme = if tls { "https" } else { "http" };
            let uri = Uri::builder().scheme(scheme).authority(authority.as_str());
            if let Ok(uri) = uri.path_and_query("/").build()
                && let Ok(checked) = try_check(Request::builder().uri(uri))
            {
                let written = format!("{scheme}://{}", authority.to_ascii_lowercase());
                let default = if tls { ":443" } else { ":80" };
                let written = written.strip_suffix(default).unwrap_or(&written);
                prop_assert!(GRANTS.contains(&written), "{}", written);
                prop_assert_eq!(&checked.origin.to_string(), written);
                let host = checked.head.headers()["host"].to_str().unwrap();
                prop_assert!(written.ends_with(host));
            }
        }

        #[test]
        fn an_absolute_url_never_leaves_its_granted_origin(uri in "https?://[a-z.@:#?/\\\\\\[\\]]{0,40}") {
            if let Ok(uri) = uri.parse::<Uri>()
                && let Ok(checked) = try_check(Request::builder().uri(uri))
            {
                prop_assert!(GRANTS.contains(&checked.origin.to_string().as_str()));
                prop_assert!(checked.head.uri().authority().is_none());
            }
        }
    }
}
