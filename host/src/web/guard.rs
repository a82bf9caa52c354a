//! Guards the operator's port: checks which host a request names and who sends it, and tells browsers what they may do with the
//! answer.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::api::{self, Refused};
use super::peer::Peer;
use crate::web::shared::Shared;

/// The headers of every answer. A page loads nothing from elsewhere, runs no script but its own file, and is shown in no frame.
const HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
];

/// Answers a request only if it may be answered, and sets [`HEADERS`].
pub(super) async fn guard(
    State(web): State<Arc<Shared>>,
    request: Request,
    next: Next,
) -> Response {
    let is_for_programs = {
        let rest = request.uri().path().strip_prefix(api::PREFIX);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mut response = match refusal(&web, &request) {
        Some((status, error)) => {
            let mut response = match is_for_programs {
                true => Refused::new(status, error).into_response(),
                false => (status, error + "\n").into_response(),
            };
            if status == StatusCode::UNAUTHORIZED {
                let ask = "Basic realm=\"loopabull-host: the token is the password\"";
                let ask = ask.parse().expect("the value is valid");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, ask);
            }
            response
        }
        None => next.run(request).await,
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, value.parse().expect("the value is valid"));
    }
    response
        .headers_mut()
        .entry(header::CACHE_CONTROL)
        .or_insert("no-store".parse().expect("the value is valid"));
    response
}

/// Returns the status and the sentence for a request that must not be answered.
fn refusal(web: &Shared, request: &Request) -> Option<(StatusCode, String)> {
    let headers = request.headers();
    if let Some(Peer::User(_)) = request.extensions().get() {
        return (!web.key.is_in(headers)).then(|| {
            let text = "the key of `daemon.json` in the state directory is missing or wrong";
            (StatusCode::UNAUTHORIZED, text.to_owned())
        });
    }
    // A web page whose host name was made to point to this machine (DNS rebinding) sends its own name.
    if let Some(host) = host_of(headers).filter(|host| !is_allowed(host, &web.allowed_hosts)) {
        let text = format!("host `{host}` is not in `allowed_hosts` of the configuration");
        return Some((StatusCode::FORBIDDEN, text));
    }
    let token = web.token.as_ref()?;
    if token.is_in(headers) || web.operate.as_ref().is_some_and(|operate| operate.is_in(headers)) {
        return None;
    }
    web.metrics.unauthorized.inc();
    Some((StatusCode::UNAUTHORIZED, "the token is missing or wrong".to_owned()))
}

/// Returns the host of the `Host` header without its port. A client without the header is no browser.
fn host_of(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::HOST)?;
    let authority = value.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
    Some(authority.map_or_else(
        || value.as_bytes().escape_ascii().to_string(),
        |authority| authority.host().to_owned(),
    ))
}

fn is_allowed(host: &str, allowed: &[String]) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || allowed.iter().any(|name| host.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, expected: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        let host = host_of(&headers).unwrap();
        assert_eq!(is_allowed(&host, &["queue.example.org".to_owned()]), expected, "{host}");
    }

    #[test]
    fn only_addresses_and_known_names_are_allowed() {
        for host in ["127.0.0.1:8480", "[::1]:8480", "10.0.0.7", "localhost", "LocalHost:1"] {
            check(host, true);
        }
        check("queue.example.org:8480", true);
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8480", "@", ""]
        {
            check(host, false);
        }
    }
}
