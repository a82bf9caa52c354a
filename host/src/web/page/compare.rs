//! A run beside another run of its task: what differs between the failure and the last success.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use loopabull_model::{Run, RunId};
use loopabull_store::StoreError;
use maud::{Markup, html};

use super::layout::{Tab, layout};
use super::link::path;
use super::problem::{not_found, unreadable};
use super::words::{ago, hostile};
use crate::compare::{Comparison, Line, Side, compare, good_run};
use crate::journal::Journal;
use crate::web::shared::Shared;

/// The time for which a good run is looked for.
const TIME: Duration = Duration::from_millis(300);

pub(super) async fn show(State(web): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    match page(&web.journal, RunId::new(id)).await {
        Ok(page) => page,
        Err(error) => unreadable(&error),
    }
}

async fn page(journal: &Journal, id: RunId) -> Result<Response, StoreError> {
    let Some(run) = journal.find(id).await? else {
        return Ok(not_found("There is no such run."));
    };
    let Some(other) = good_run(journal, &run, TIME).await? else {
        let text = format!(
            "No successful run of task `{}` was found, so there is nothing to compare with.",
            run.task
        );
        return Ok(not_found(&text));
    };
    let message = journal.message(run.id.clone()).await?;
    let other_message = journal.message(other.id.clone()).await?;
    let (run, other) = (Arc::new(run), Arc::new(other));
    let compared = (Arc::clone(&run), Arc::clone(&other));
    // The comparison of long texts takes a moment, in which a worker thread would do nothing else.
    let comparison = tokio::task::spawn_blocking(move || {
        let (run, other) = compared;
        compare((&run, message.as_ref()), (&other, other_message.as_ref()))
    });
    let Ok(comparison) = comparison.await else {
        return Ok(not_found("The comparison failed."));
    };
    let content = html! {
        h1 { "Comparison of two runs of " (run.task) }
        (facts(&comparison, &run, &other))
        h2 { "Message" }
        @match &comparison.message {
            Some(lines) => (difference(lines)),
            None => p .soft { "The message of one of the two runs is not stored." },
        }
        h2 { "Output" }
        (difference(&comparison.output))
    };
    Ok(layout("Comparison", Tab::Runs, &content).into_response())
}

fn facts(comparison: &Comparison, run: &Run, other: &Run) -> Markup {
    html! {
        div .scroll tabindex="0" {
            table {
                thead {
                    tr {
                        td {}
                        th scope="col" { "This run, " a href=(path(run)) { (ago(run.started_at_ms)) } }
                        th scope="col" { "A good run, " a href=(path(other)) { (ago(other.started_at_ms)) } }
                    }
                }
                tbody {
                    @for fact in &comparison.facts {
                        tr .selected[fact.differs()] {
                            th scope="row" { (fact.name) @if fact.differs() { " ≠" } }
                            td .cut .lines { (hostile(&fact.run)) }
                            td .cut .lines { (hostile(&fact.other)) }
                        }
                    }
                }
            }
        }
    }
}

/// Returns the lines that differ. A sign before each line says the same as its colour.
fn difference(lines: &[Line]) -> Markup {
    html! {
        @if lines.is_empty() { p .soft { "The same in both." } }
        @else {
            p .soft { "+ only in this run, − only in the good run" }
            pre tabindex="0" {
                @for Line { side, text } in lines {
                    @match side {
                        Side::Both => span { "  " (text) "\n" },
                        Side::Run => ins { "+ " (text) "\n" },
                        Side::Other => del { "− " (text) "\n" },
                        Side::Gap => span .soft { "  …\n" },
                    }
                }
            }
        }
    }
}
