//! What arrived lately, and why something ran or nothing did.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::{Tab, layout};
use super::problem::unreadable;
use super::words::{ago, hostile};
use crate::explain::{Explanation, Sentence};
use crate::observe::arrivals::{Arrival, Noted, Verdict, Which};
use crate::percent::encoded;
use crate::web::shared::Shared;

/// The number of arrivals on the page.
const LIMIT: u32 = 100;

/// The parameters of the address.
#[derive(Deserialize)]
pub(super) struct Parameters {
    /// The id of a message, or a topic.
    #[serde(default)]
    about: String,
}

pub(super) async fn show(
    State(web): State<Arc<Shared>>,
    Query(parameters): Query<Parameters>,
) -> Response {
    let about = parameters.about.trim();
    let explanation = match about {
        "" => None,
        about => match web.explain(about).await {
            Ok(explanation) => Some(explanation),
            Err(error) => return unreadable(&error),
        },
    };
    let arrivals = match web.arrivals.list(Which::All, None, LIMIT).await {
        Ok(arrivals) => arrivals,
        Err(error) => return unreadable(&error),
    };
    let content = html! {
        h1 { "Messages" }
        form .search role="search" action="/messages" {
            input type="search" name="about" value=(about) aria-label="Id of a message, or a topic" placeholder="id of a message, or a topic" spellcheck="false" autocomplete="off";
            button { "Explain" }
        }
        @if let Some(explanation) = &explanation {
            section #explanation data-live aria-label="Explanation" { (sentences(explanation)) }
        }
        h2 { "Arrived lately" }
        section #arrivals data-live aria-label="Arrivals" { (table(&arrivals)) }
    };
    layout("Messages", Tab::Messages, &content).into_response()
}

fn sentences(explanation: &Explanation) -> Markup {
    html! {
        ol {
            @for Sentence { text, run } in &explanation.sentences {
                li {
                    (hostile(text))
                    @if let Some(run) = run { " " a href=(format!("/runs/{}", encoded(run))) { "Show the run" } }
                }
            }
        }
    }
}

fn table(arrivals: &[Noted]) -> Markup {
    html! {
        @if arrivals.is_empty() {
            p .soft { "No arrival is noted: nothing came from a source yet, or " code { "keep" } " under " code { "[arrivals]" } " is 0. Messages from " code { "inject" } ", " code { "send" } " and tasks, and external messages, are not listed here." }
        } @else {
            div .scroll tabindex="0" {
                table {
                    thead {
                        tr {
                            th scope="col" { "Arrived" }
                            th scope="col" { "From" }
                            th scope="col" { "Message" }
                            th scope="col" { "Topic" }
                            th scope="col" { "What became of it" }
                        }
                    }
                    tbody { @for arrival in arrivals { (row(arrival)) } }
                }
            }
        }
    }
}

fn row(Noted { id, arrival }: &Noted) -> Markup {
    let Arrival { at_ms, source, message, topic, verdict } = arrival;
    let link = |text: &str| html! { a href=(format!("/messages?about={}", encoded(text))) { (hostile(text)) } };
    let class = match verdict {
        Verdict::Rejected { .. } | Verdict::Lost { .. } => "bad",
        Verdict::Unrouted => "soft",
        Verdict::Accepted { .. } => "",
    };
    html! {
        tr data-key=(id) {
            td .nowrap { (ago(*at_ms)) }
            td .cut { (hostile(source)) }
            td .cut { @match message { Some(message) => (link(message)), None => "–" } }
            td .cut { @match topic { Some(topic) => (link(topic)), None => "–" } }
            td .cut { span class=(class) { (hostile(&verdict.to_string())) } }
        }
    }
}
