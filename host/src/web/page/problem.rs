//! Pages that say why there is nothing to see.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use loopabull_store::StoreError;
use maud::html;

use super::layout::{Tab, layout};

/// Returns a page that says what is missing.
pub(super) fn not_found(text: &str) -> Response {
    problem(StatusCode::NOT_FOUND, "Not found", text)
}

/// Returns a page that says why there is nothing to see.
pub(super) fn problem(status: StatusCode, title: &str, text: &str) -> Response {
    let content = html! {
        h1 { (title) }
        p .trouble role="alert" { (text) }
    };
    (status, layout(title, Tab::None, &content)).into_response()
}

/// Returns a page that says that the journal cannot be read.
pub(super) fn unreadable(error: &StoreError) -> Response {
    let text = format!(
        "The daemon cannot read its files: {}. Look at `/readyz` and at the log.",
        loopabull_model::chain(error)
    );
    problem(StatusCode::SERVICE_UNAVAILABLE, "Cannot read", &text)
}
