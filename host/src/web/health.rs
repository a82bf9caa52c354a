//! The paths for machines: health, warnings, metrics and status.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use loopabull_model::chain;
use serde::Deserialize;
use serde_json::json;

use crate::explain::Explanation;
use crate::observe::warnings;
use crate::web::shared::{Shared, UNREAD};

/// Returns the routes of these paths.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz))
        .route("/warnings", get(show_warnings))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/explain", get(explain))
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

/// The parameters of `/explain`.
#[derive(Deserialize)]
struct About {
    about: String,
}

async fn explain(State(web): State<Arc<Shared>>, Query(About { about }): Query<About>) -> Response {
    match web.explain(&about).await {
        Ok(Explanation { sentences }) => {
            Json(json!({"pid": std::process::id(), "sentences": sentences})).into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, chain(&error) + "\n").into_response(),
    }
}

async fn status(State(web): State<Arc<Shared>>) -> Response {
    let text =
        serde_json::to_string(&web.status().await).expect("a status contains only JSON types");
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
