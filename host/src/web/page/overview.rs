//! The overview: what waits, what fails, what is wrong.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use loopabull_model::{RunId, Target};
use maud::{Markup, html};
use serde_json::json;

use super::button::{button, pause, resume};
use super::chart::chart;
use super::layout::{Tab, layout};
use super::words::{ago, counted, hostile, number, rough};
use crate::observe::history::{Span, Trend};
use crate::observe::status::{PauseStatus, QueueStatus, SourceStatus, Status, Work, WorkerStatus};
use crate::web::shared::Shared;

pub(super) async fn show(State(web): State<Arc<Shared>>) -> Response {
    let status = web.status().await;
    let content = html! {
        h1 { "Overview" }
        section #troubles data-live aria-label="Troubles" { (troubles(&status)) }
        section #counts data-live aria-label="Since the start" { (counts(&web, &status)) }
        h2 { "Queues" }
        section #queues data-live aria-label="Queues" .scroll tabindex="0" { (queues(&web, &status.queues)) }
        @if status.queues.iter().any(|queue| queue.dead > 0) {
            p .soft { "See the dead letters with " code { "loopabull-host dead-letters" } "; then requeue or drop them there, or by group under " a href="/failures" { "Failures" } "." }
        }
        h2 { "Workers" }
        section #workers data-live aria-label="Workers" .scroll tabindex="0" { (workers(&web, &status.workers)) }
        h2 { "Sources" }
        section #sources data-live aria-label="Sources" .scroll tabindex="0" { (sources(&status.sources)) }
        h2 { "Paused" }
        section #pauses data-live aria-label="Pauses" .scroll tabindex="0" { (pauses(&web, &status.pauses)) }
    };
    layout("Overview", Tab::Overview, &content).into_response()
}

fn troubles(status: &Status) -> Markup {
    html! {
        @for problem in &status.problems { p .trouble { b .bad { "Problem" } " " (hostile(problem)) } }
        @for warning in &status.warnings {
            p .trouble .warning { b .warn { "Warning" } " " (hostile(warning)) }
        }
        @if status.problems.is_empty() && status.warnings.is_empty() {
            p .trouble .fine { b .good { "All is well." } " Nothing needs an operator." }
        }
    }
}

fn counts(web: &Shared, status: &Status) -> Markup {
    let counts = &status.counts;
    let [runs, failed] = web.history.runs(Span::Hour);
    let [day, failed_day] = web.history.runs(Span::Day);
    html! {
        div .cards {
            div .card { b { (number(counts.runs)) } "runs since the start" }
            div .card {
                b { (number(counts.runs.saturating_sub(counts.succeeded))) }
                a href="/runs?q=outcome:failure" { "did not succeed" }
            }
            div .card { b { (number(counts.accepted)) } "messages accepted" }
            div .card { b { (number(counts.rejected)) } "envelopes rejected" }
            div .card { b { (number(counts.unrouted)) } "messages without a task" }
            div .card { "Runs a minute, last hour (red: no success)" (chart(&[&runs, &failed], "Runs a minute in the last hour, and those without success")) }
            div .card { "Runs a minute, last day (red: no success)" (chart(&[&day, &failed_day], "Runs a minute in the last day, and those without success")) }
        }
    }
}

fn queues(web: &Shared, queues: &[QueueStatus]) -> Markup {
    html! {
        table {
            thead {
                tr {
                    th scope="col" { "Queue" }
                    th scope="col" .number { "Waiting" }
                    th scope="col" { "Last hour" }
                    th scope="col" { "Last day" }
                    th scope="col" .number { "Oldest" }
                    th scope="col" { "Empty in" }
                    th scope="col" .number { "Claimed" }
                    th scope="col" .number { "Delayed" }
                    th scope="col" .number { "Held" }
                    th scope="col" .number { "Dead letters" }
                    @if web.operate.is_some() { th scope="col" { "Act" } }
                }
            }
            tbody {
                @for queue in queues {
                    tr {
                        th scope="row" { (queue.name) }
                        td .number { (number(queue.waiting)) }
                        td { (chart(&[&web.history.waiting(&queue.name, Span::Hour)], "Waiting in the last hour")) }
                        td { (chart(&[&web.history.waiting(&queue.name, Span::Day)], "Waiting in the last day")) }
                        td .number { @if queue.oldest_seconds.is_some() { (queue.oldest_bound.sign()) } (seconds(queue.oldest_seconds)) }
                        td .nowrap { (drain(queue)) }
                        td .number { (queue.claimed.map_or("–".to_owned(), number)) }
                        td .number { (number(queue.delayed)) }
                        td .number { (number(queue.held)) }
                        td .number { @if queue.dead > 0 { b .bad { (number(queue.dead)) } } @else { "0" } }
                        @if web.operate.is_some() { td .nowrap { (queue_buttons(web, queue)) } }
                    }
                    @for held in &queue.held_tasks {
                        tr { td colspan="11" .soft {
                            (counted(held.count, "message", "messages")) " of task " b { (held.task) } " held: " (hostile(&held.reason))
                        } }
                    }
                }
            }
        }
    }
}

/// Returns the buttons of a queue: pause or resume, and retry if entries wait for their next attempt.
fn queue_buttons(web: &Shared, queue: &QueueStatus) -> Markup {
    let is_paused = web.pauses.is_paused(&Target::Queue(queue.name.clone()));
    html! {
        @if is_paused { (resume(web, "queue", queue.name.as_str())) } @else { (pause(web, "queue", queue.name.as_str())) }
        @if queue.delayed > 0 {
            (button(
                web,
                "Retry now",
                "/api/v1/retry",
                &json!({"queue": queue.name}),
                &format!("Retry the delayed messages of queue {} now?", queue.name),
            ))
        }
    }
}

fn drain(queue: &QueueStatus) -> Markup {
    html! {
        @if queue.waiting == 0 { "–" }
        @else {
            @match queue.trend {
                Some(Trend::Drains { drained_in_seconds }) => {
                    "about " (rough(Duration::from_secs(drained_in_seconds)))
                },
                Some(Trend::Grows) => b .bad { "grows" },
                Some(Trend::Steady) => span .warn { "steady" },
                None => span .soft { "unknown" },
            }
        }
    }
}

fn seconds(seconds: Option<u64>) -> String {
    seconds.map_or("–".to_owned(), |seconds| rough(Duration::from_secs(seconds)))
}

fn workers(web: &Shared, workers: &[WorkerStatus]) -> Markup {
    let catalog = web.catalog.get();
    let limit = |task: &str| {
        let task = catalog.routes.tasks().into_iter().find(|known| known.name.as_str() == task)?;
        Some(task.timeout())
    };
    html! {
        table {
            thead {
                tr {
                    th scope="col" .number { "Worker" }
                    th scope="col" { "Queue" }
                    th scope="col" { "Task" }
                    th scope="col" { "Message" }
                    th scope="col" .number { "Attempt" }
                    th scope="col" .number { "Running for" }
                    th scope="col" .number { "Time limit" }
                    @if web.operate.is_some() { th scope="col" { "Act" } }
                }
            }
            tbody {
                @for worker in workers {
                    tr {
                        td .number { (worker.number) }
                        td { (worker.queue) }
                        @match &worker.work {
                            Some(work) => {
                                td { (work.task) }
                                td .cut { (hostile(&work.message_id)) }
                                td .number { (work.attempt) }
                                td .number { (seconds(worker.seconds)) }
                                td .number { (limit(&work.task).map_or("–".to_owned(), rough)) }
                                @if web.operate.is_some() {
                                    td { @if let Some(run) = &work.run { (cancel(web, run, work)) } }
                                }
                            }
                            None => td colspan=(if web.operate.is_some() { 6 } else { 5 }) .soft { "idle" },
                        }
                    }
                }
            }
        }
    }
}

fn cancel(web: &Shared, run: &RunId, work: &Work) -> Markup {
    let question = format!(
        "Cancel the run of task {} on message {}? Its message becomes a dead letter.",
        work.task, work.message_id
    );
    button(web, "Cancel", "/api/v1/runs/cancel", &json!({"run": run}), &question)
}

fn sources(sources: &[SourceStatus]) -> Markup {
    html! {
        @if sources.is_empty() { p .soft { "No source is configured: messages come only from " code { "inject" } ", " code { "send" } ", tasks, and other programs or hosts that use the same queue." } }
        @else {
            table {
                thead {
                    tr {
                        th scope="col" { "Source" }
                        th scope="col" { "State" }
                        th scope="col" .number { "Messages" }
                        th scope="col" .number { "A minute, on average" }
                        th scope="col" .number { "Last" }
                    }
                }
                tbody {
                    @for source in sources {
                        tr {
                            th scope="row" .cut { (hostile(&source.name)) }
                            td .cut {
                                @if source.connected { span .good { "connected" } }
                                @else { span .bad { "not connected" } }
                                @if let Some(problem) = &source.problem { " " (hostile(problem)) }
                            }
                            td .number { (number(source.received)) }
                            td .number { (format!("{:.1}", source.per_minute)) }
                            td .number { @match source.seconds_since_last {
                                Some(_) => { (seconds(source.seconds_since_last)) " ago" },
                                None => "never",
                            } }
                        }
                    }
                }
            }
        }
    }
}

fn pauses(web: &Shared, pauses: &[PauseStatus]) -> Markup {
    html! {
        @if pauses.is_empty() { p .soft { "Nothing is paused." } }
        @else {
            table {
                thead {
                    tr {
                        th scope="col" { "What" }
                        th scope="col" { "Since" }
                        th scope="col" { "By" }
                        th scope="col" { "Why" }
                        th scope="col" { "End it" }
                    }
                }
                tbody {
                    @for PauseStatus { target, pause } in pauses {
                        tr {
                            th scope="row" { (target.kind()) " " (target.name()) }
                            td .nowrap { (ago(pause.since_ms)) }
                            td { (pause.by.as_str()) }
                            td .cut { (hostile(&pause.reason)) }
                            td {
                                @if web.operate.is_some() { (resume(web, target.kind(), &target.name())) }
                                @else { code { "loopabull-host resume --" (target.kind()) " " (target.name()) } }
                            }
                        }
                    }
                }
            }
                    }
    }
}
