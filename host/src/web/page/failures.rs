//! The failures of the last days, grouped by what is the same in their reasons.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use maud::{Markup, html};
use serde::Deserialize;

use super::button::judge;
use super::layout::{Tab, layout};
use super::link::search as link;
use super::problem::{problem, unreadable};
use super::words::{ago, counted, hostile, number};
use crate::journal::{FailureGroup, Failures, term};
use crate::web::shared::Shared;

/// The time for which failed runs are looked through.
const TIME: Duration = Duration::from_millis(80);
const SPANS: [(&str, &str); 4] =
    [("1h", "last hour"), ("1d", "last day"), ("7d", "last week"), ("90d", "last 90 days")];
const DEFAULT_SPAN: &str = "1d";

/// The parameters of the address.
#[derive(Deserialize)]
pub(super) struct Parameters {
    /// How far to look back, for example `2h`.
    since: Option<String>,
}

pub(super) async fn show(
    State(web): State<Arc<Shared>>,
    Query(parameters): Query<Parameters>,
) -> Response {
    let since = parameters.since.as_deref().unwrap_or(DEFAULT_SPAN);
    let Ok(span) = humantime::parse_duration(since) else {
        let text = format!("`{since}` is no duration, such as `2h` or `7d`.");
        return problem(StatusCode::BAD_REQUEST, "Failures", &text);
    };
    let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    let since_ms = Timestamp::now().as_millisecond().saturating_sub(span);
    match web.journal.failures(since_ms, TIME).await {
        Ok(failures) => {
            let content = html! {
                h1 { "Failures" }
                ul .links {
                    @for (value, name) in SPANS {
                        li { a href=(format!("/failures?since={value}")) aria-current=[(value == since).then_some("true")] { (name) } }
                    }
                }
                section #groups data-live aria-label="Groups of failures" { (groups(&web, &failures, since)) }
            };
            layout("Failures", Tab::Failures, &content).into_response()
        }
        Err(error) => unreadable(&error),
    }
}

fn groups(web: &Shared, failures: &Failures, since: &str) -> Markup {
    html! {
        @if failures.groups.is_empty() { p .trouble .fine { b .good { "No failures" } " in this time." } }
        @else {
            p {
                (counted(failures.groups.len() as u64, "kind of failure", "kinds of failures"))
                @if failures.is_partial { ". " span .warn { "There are more failures than are shown: older runs are not counted." } }
            }
            div .scroll tabindex="0" {
                table {
                    thead {
                        tr {
                            th scope="col" .number title="The link finds all runs with this task and outcome" { "Runs" }
                            th scope="col" { "Task" }
                            th scope="col" { "Reason" }
                            th scope="col" { "First" }
                            th scope="col" { "Last" }
                            @if web.operate.is_some() { th scope="col" { "Its dead letters" } }
                        }
                    }
                    tbody { @for group in &failures.groups { (row(web, group, since)) } }
                }
            }
        }
    }
}

fn row(web: &Shared, group: &FailureGroup, since: &str) -> Markup {
    let search = format!("task:{} outcome:{} {}", group.task, group.outcome, term("after", since));
    html! {
        tr data-key=(format!("{} {} {}", group.task, group.outcome, group.reason)) {
            td .number { a href=(link(&search, None)) { (number(group.count)) } }
            td { (group.task) }
            td .cut {
                (hostile(&group.reason))
                @if group.reason != group.sample { br; span .soft .hostile { "for example " (group.sample) } }
            }
            td .nowrap { (ago(group.first_ms)) }
            td .nowrap { a href=(format!("/runs/{}", group.last)) { (ago(group.last_ms)) } }
            @if web.operate.is_some() {
                td .nowrap { (judge(web, group.task.as_str(), &group.reason)) }
            }
        }
    }
}
