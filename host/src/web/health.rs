//! The paths for programs that watch the daemon: health, warnings and metrics.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::observe::warnings;
use crate::web::shared::{Shared, UNREAD};

/// Returns the routes of these paths.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/warnings", get(show_warnings))
        .route("/metrics", get(metrics))
}

async fn readyz(State(web): State<Arc<Shared>>) -> Response {
    let seen = web.observe().await;
    let warnings = warnings::lines(&seen).into_iter().map(|line| format!("warning: {line}"));
    if seen.problems.is_empty() {
        let lines: Vec<_> = std::iter::once("ready".to_owned()).chain(warnings).collect();
        return (lines.join("\n") + "\n").into_response();
    }
    list(&seen.problems.iter().cloned().chain(warnings).collect::<Vec<_>>(), "")
}

async fn show_warnings(State(web): State<Arc<Shared>>) -> Response {
    let seen = web.observe().await;
    let mut lines = warnings::lines(&seen);
    lines.extend(seen.problems.into_iter().filter(|problem| problem == UNREAD));
    list(&lines, "no warnings\n")
}

/// Returns a response with one line for each item, or with `none` if there are no items.
fn list(lines: &[String], none: &'static str) -> Response {
    match lines {
        [] => none.into_response(),
        lines => (StatusCode::SERVICE_UNAVAILABLE, lines.join("\n") + "\n").into_response(),
    }
}

async fn metrics(State(web): State<Arc<Shared>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let seen = web.observe().await;
    let text = {
        let _alone = web.encoding.lock();
        web.metrics.encode(&seen)
    };
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
