//! The list of runs, with a search.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use loopabull_model::Run;
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::{Tab, layout};
use super::link::{path, search as link};
use super::problem::unreadable;
use super::words::{ago, hostile, outcome, took};
use crate::journal::{Found, Place, QUALIFIERS, Search};
use crate::web::shared::Shared;

/// The number of runs on a page.
const LIMIT: usize = 50;
/// The time for which runs are looked for.
const TIME: Duration = Duration::from_millis(60);
/// Searches that many people need.
const EXAMPLES: [(&str, &str); 4] = [
    ("outcome:failure", "failures"),
    ("outcome:failure after:1h", "failures of the last hour"),
    ("took:>1min", "slow runs"),
    ("attempt:>1", "repeated attempts"),
];

/// The parameters of the address.
#[derive(Deserialize)]
pub(super) struct Parameters {
    /// The search.
    #[serde(default)]
    q: String,
    /// Where the page begins: see [`Place`].
    #[serde(default)]
    before: Option<String>,
}

pub(super) async fn show(
    State(web): State<Arc<Shared>>,
    Query(parameters): Query<Parameters>,
) -> Response {
    let text = parameters.q.trim();
    let search = match Search::parse(text, Timestamp::now()) {
        Ok(search) => search,
        Err(error) => return refused(text, &error.to_string()),
    };
    let before: Option<Place> = match parameters.before.as_deref().map(str::parse).transpose() {
        Ok(before) => before,
        Err(_) => {
            return refused(
                text,
                "This link is damaged. Search again without `before` in the address.",
            );
        }
    };
    match web.journal.search(search, before, LIMIT, TIME).await {
        Ok(found) => {
            let content = html! {
                h1 { "Runs" }
                (form(text))
                // An older page does not change.
                section #runs data-live[before.is_none()] aria-label="Runs" { (results(text, &found)) }
            };
            layout("Runs", Tab::Runs, &content).into_response()
        }
        Err(error) => unreadable(&error),
    }
}

/// Returns a page that says what is wrong with a search.
fn refused(text: &str, error: &str) -> Response {
    let content = html! {
        h1 { "Runs" }
        (form(text))
        p .trouble role="alert" { (hostile(error)) }
    };
    (StatusCode::BAD_REQUEST, layout("Runs", Tab::Runs, &content)).into_response()
}

fn form(text: &str) -> Markup {
    html! {
        form .search role="search" action="/runs" {
            input type="search" name="q" value=(text) aria-label="Search runs" placeholder="task:build outcome:failure after:2h" spellcheck="false" autocomplete="off" list="qualifiers";
            button { "Search" }
        }
        datalist #qualifiers {
            @for (name, _) in QUALIFIERS { option value=(name) {} }
        }
        ul .links {
            @for (query, name) in EXAMPLES { li { a href=(link(query, None)) { (name) } } }
        }
        details {
            summary { "What can be searched" }
            p { "All terms must hold. A minus before a term negates it. " code { "task:" } " and " code { "outcome:" } " take several values: " code { "task:a,b" } ". A word without a qualifier is looked for as " code { "text:" } "." }
            dl {
                @for (name, example) in QUALIFIERS {
                    dt { code { (name) } }
                    dd { (example) }
                }
            }
        }
    }
}

fn results(text: &str, found: &Found) -> Markup {
    html! {
        @if found.runs.is_empty() && found.next.is_none() {
            p { @if text.is_empty() { "No run is recorded." } @else { "No run matches this search." } }
        } @else if !found.runs.is_empty() {
            div .scroll tabindex="0" { (table(&found.runs)) }
        }
        @if let Some(next) = found.next {
            p {
                @if found.runs.len() < LIMIT {
                    "Searched back to " (ago(next.started_at_ms)) ". "
                    a href=(link(text, Some(next))) { "Search older runs" }
                } @else {
                    a href=(link(text, Some(next))) { "Older runs" }
                }
            }
        }
    }
}

/// Returns a table of runs.
pub(super) fn table(runs: &[Run]) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th scope="col" { "Started" }
                    th scope="col" { "Task" }
                    th scope="col" { "Message" }
                    th scope="col" .number { "Attempt" }
                    th scope="col" .number { "Took" }
                    th scope="col" { "Outcome" }
                }
            }
            tbody {
                @for run in runs {
                    tr data-key=(run.id) {
                        td .nowrap { a href=(path(run)) { (ago(run.started_at_ms)) } }
                        td { a href=(link(&format!("task:{}", run.task), None)) { (run.task) } }
                        td .cut { (hostile(run.message_id.as_str())) }
                        td .number { (run.attempt) }
                        td .number { (took(run.duration)) }
                        td .cut { (outcome(&run.outcome)) }
                    }
                }
            }
        }
    }
}
