//! The pages for people, at `/`: HTML that is complete without the script, which only keeps it fresh and serves the keyboard.
//!
//! All text of messages and tasks is hostile. maud escapes it, and the policy in `guard` lets nothing run that does not
//! come from this program.

mod audit;
mod button;
mod chart;
mod compare;
mod failures;
mod layout;
mod link;
mod messages;
mod overview;
mod problem;
mod run;
mod runs;
mod tasks;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::web::shared::Shared;
use problem::not_found;

/// Returns the routes of the pages.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/", get(overview::show))
        .route("/runs", get(runs::show))
        .route("/runs/{id}", get(run::show))
        .route("/runs/{id}/compare", get(compare::show))
        .route("/messages", get(messages::show))
        .route("/failures", get(failures::show))
        .route("/tasks", get(tasks::show))
        .route("/audit", get(audit::show))
        .route("/style.css", get(|| asset("text/css", include_str!("page/style.css"))))
        .route("/script.js", get(|| asset("text/javascript", include_str!("page/script.js"))))
        .route("/icon.svg", get(|| asset("image/svg+xml", include_str!("page/icon.svg"))))
        .fallback(|| async { not_found("There is no such page.") })
}

async fn asset(kind: &str, text: &'static str) -> Response {
    let kind = format!("{kind}; charset=utf-8");
    ([(header::CONTENT_TYPE, kind.as_str()), (header::CACHE_CONTROL, "no-cache")], text)
        .into_response()
}
