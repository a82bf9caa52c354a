//! An operator: a client that may act, and not only look.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use serde::Deserialize;

use super::api::Refused;
use super::peer::Peer;
use super::shared::Shared;

/// The header that a browser sends only for our own script: a page of another site cannot set it without asking us first.
const ACTION_HEADER: &str = "x-loopabull-action";
/// The header in which a command that runs as root by sudo sends the number of the user who called sudo.
pub(crate) const SUDO_HEADER: &str = "x-loopabull-sudo-user";

/// Returns the route of the sign-in.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/sign-in", get(sign_in))
}

/// A client that has the operator's token, or a command. The text names it in the audit log.
#[derive(Clone, Debug)]
pub(super) struct Operator(pub(super) String);

impl FromRequestParts<Arc<Shared>> for Operator {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, web: &Arc<Shared>) -> Result<Self, Response> {
        let peer = parts.extensions.get::<Peer>();
        if let Some(Peer::User(user)) = peer {
            // The guard has checked the key. sudo names the user who called it.
            let sudo = parts.headers.get(SUDO_HEADER).and_then(|user| user.to_str().ok());
            let sudo: Option<u32> = sudo.filter(|_| *user == 0).and_then(|user| user.parse().ok());
            let sudo = sudo.map(|user| format!(", by sudo of user {user}"));
            return Ok(Self(format!("command of user {user}{}", sudo.unwrap_or_default())));
        }
        let from = peer.map_or_else(|| "an unknown address".to_owned(), Peer::to_string);
        if let Some(refusal) = refusal(web, &parts.headers) {
            return Err(refusal);
        }
        if is_basic(&parts.headers) && !is_own_script(&parts.headers) {
            let error = format!(
                "a request with a password also needs the header `{ACTION_HEADER}: 1`, and must not come from another site"
            );
            return Err(Refused::new(StatusCode::FORBIDDEN, error).into_response());
        }
        Ok(Self(format!("operator's token from {from}")))
    }
}

/// Returns the refusal of a request that does not have the operator's token. A browser then asks for it.
fn refusal(web: &Shared, headers: &HeaderMap) -> Option<Response> {
    let Some(token) = &web.operate else {
        let error = "the daemon has no token for actions: set `operate_token_file` in its configuration, or use the command line";
        return Some(Refused::new(StatusCode::FORBIDDEN, error).into_response());
    };
    if token.is_in(headers) {
        return None;
    }
    web.metrics.unauthorized.inc();
    let error = "an action needs the operator's token";
    let mut response = Refused::new(StatusCode::UNAUTHORIZED, error).into_response();
    if is_own_script(headers) {
        // The script leads to the sign-in. If the browser asked now, the request would wait for the answer.
        return Some(response);
    }
    let ask = "Basic realm=\"loopabull-host: the operator's token is the password\"";
    let ask = ask.parse().expect("the value is valid");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, ask);
    Some(response)
}

/// The parameters of `/sign-in`.
#[derive(Deserialize)]
struct Return {
    /// Path of the page to which the browser returns.
    #[serde(default)]
    to: String,
}

/// Has a browser ask for the operator's token, and returns to a page of ours. From then on, the browser sends the token with
/// each request. Without this page it would not ask, if everybody may look.
async fn sign_in(
    State(web): State<Arc<Shared>>,
    Query(Return { to }): Query<Return>,
    headers: HeaderMap,
) -> Response {
    // `//host` and `/\host` would lead to another site.
    let is_path = to.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let is_ours = is_path && to.starts_with('/') && !to.starts_with("//");
    refusal(&web, &headers)
        .unwrap_or_else(|| Redirect::to(if is_ours { &to } else { "/" }).into_response())
}

/// Returns whether a browser may have added the token by itself.
fn is_basic(headers: &HeaderMap) -> bool {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    value
        .and_then(|value| value.get(..5))
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("basic"))
}

fn is_own_script(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    headers.contains_key(ACTION_HEADER) && site.is_none_or(|site| site == b"same-origin")
}
