//! One run: what it was for, what it did, what it said.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use loopabull_model::{Message, PlaybookReport, Run, RunId, TaskKind};
use maud::{Markup, html};
use serde_json::json;

use super::button::{button, button_with_text};
use super::layout::{Tab, layout};
use super::link::{path, search as link};
use super::problem::{not_found, unreadable};
use super::runs::table;
use super::words::{ago, exact, hostile, number, outcome, took};
use crate::compare::{escape_in_json, pretty};
use crate::journal::{Search, term};
use crate::web::shared::Shared;

/// The number of runs of the same message that are listed.
const RELATED: u32 = 50;
/// The time for which they are looked for.
const TIME: Duration = Duration::from_millis(60);

pub(super) async fn show(State(web): State<Arc<Shared>>, Path(id): Path<String>) -> Response {
    let id = RunId::new(id);
    let run = match web.journal.find(id.clone()).await {
        Ok(Some(run)) => run,
        Ok(None) => {
            return not_found(
                "No run has this id. It may have been deleted: see `keep`, `keep_failed` and `max_size` under `[journal]` of the configuration.",
            );
        }
        Err(error) => return unreadable(&error),
    };
    let of_message = Search::of_message(run.message_id.as_str());
    let read = async {
        let message = web.journal.message(id).await?;
        let found = web.journal.search(of_message, None, RELATED as usize, TIME).await?;
        Ok((message, found.runs, web.journal.repetitions(&run.id, RELATED).await?))
    };
    let (message, related, repetitions) = match read.await {
        Ok(all) => all,
        Err(error) => return unreadable(&error),
    };
    let content = html! {
        h1 { "Run of " (run.task) }
        p { (outcome(&run.outcome)) }
        p { a href=(format!("{}/compare", path(&run))) { "Compare with a good run" } }
        (facts(&run))
        @if let Some(playbook) = &run.playbook { (results(playbook)) }
        h2 { "Output" }
        @if run.output.text.is_empty() { p .soft { "none" } } @else { pre #output tabindex="0" { (run.output.text) } }
        @if run.output.dropped > 0 {
            p .warn { (number(run.output.dropped)) " more bytes were not stored" }
        }
        h2 { "Message" }
        (body(message.as_ref()))
        @if let Some(message) = &message { (again(&web, &run, message)) }
        @if !repetitions.is_empty() {
            h2 { "Repetitions of this run" }
            div .scroll tabindex="0" { (table(&repetitions)) }
        }
        h2 { "All runs of this message" }
        div .scroll tabindex="0" { (table(&related)) }
        (grants(&run))
    };
    layout(&format!("Run of {}", run.task), Tab::Runs, &content).into_response()
}

fn facts(run: &Run) -> Markup {
    html! {
        dl {
            dt { "Started" } dd { (exact(run.started_at_ms)) ", " (ago(run.started_at_ms)) }
            dt { "Took" } dd { (took(run.duration)) }
            dt { "Attempt" } dd { (run.attempt) }
            dt { "Worker" } dd { (run.worker) }
            dt { "Task" } dd { a href=(link(&format!("task:{}", run.task), None)) { (run.task) } " (" (run.kind) ")" }
            dt { "Topic" } dd { (hostile(run.topic.as_str())) }
            dt { "Message" } dd { (hostile(run.message_id.as_str())) }
            dt { "Run" } dd { code { (run.id) } }
            @if let Some(of) = run.entry.again_of() { dt { "Repeats" } dd { a href=(format!("/runs/{of}")) { "run " (of) } } }
            @for (key, value) in &run.notes { dt { "Note" } dd { (hostile(key)) " = " (hostile(value)) } }
            @if run.kind == TaskKind::Component {
                dt { "Memory" } dd { (bytesize::ByteSize(run.usage.memory).to_string()) }
                dt { "Calls to the host" } dd { (number(run.usage.host_calls)) }
            }
            @for request in &run.usage.requests { dt { "Requested" } dd { (hostile(request)) } }
            @for emitted in &run.emitted {
                dt { "Sent" }
                dd { a href=(link(&term("message", emitted.id.as_str()), None)) { (hostile(emitted.id.as_str())) } " to " (hostile(emitted.topic.as_str())) }
            }
        }
    }
}

fn results(playbook: &PlaybookReport) -> Markup {
    html! {
        h2 { "Playbook" }
        @match &playbook.results {
            None => p .warn { "Ansible reported no results." },
            Some(results) => {
                @for failure in &results.failures {
                    p .trouble {
                        b .bad { @if failure.is_unreachable { "unreachable" } @else { "failed" } }
                        " " (hostile(failure.host.as_str())) ", task “" (hostile(failure.task.as_str())) "” ("
                        (hostile(failure.action.as_str())) "): " (hostile(failure.message.as_str()))
                    }
                }
                @for warning in &results.warnings { p .trouble .warning { (hostile(warning.as_str())) } }
                div .scroll tabindex="0" {
                    table {
                        thead {
                            tr {
                                th scope="col" { "Host" }
                                @for heading in ["ok", "changed", "failed", "unreachable", "skipped", "rescued", "ignored"] {
                                    th scope="col" .number { (heading) }
                                }
                            }
                        }
                        tbody {
                            @for (host, counts) in &results.hosts {
                                tr {
                                    th scope="row" { (hostile(host)) }
                                    @for count in [counts.ok, counts.changed, counts.failed, counts.unreachable, counts.skipped, counts.rescued, counts.ignored] {
                                        td .number { (number(count)) }
                                    }
                                }
                            }
                        }
                    }
                }
                @if results.dropped > 0 { p .warn { (number(results.dropped)) " more results were not stored" } }
            }
        }
        dl {
            dt { "Start" } dd { @match &playbook.cold { Some(reason) => { "cold: " (hostile(reason)) }, None => "warm" } }
            @if playbook.killed > 0 { dt { "Left behind" } dd { (number(playbook.killed)) " processes were killed" } }
            @for denial in playbook.denials() { dt { "Denied" } dd { (hostile(&denial)) } }
        }
        details {
            summary { "Layers of the sandbox" }
            dl {
                @for layer in &playbook.layers {
                    dt { (layer.layer) } dd { (layer.state.as_str()) ": " (hostile(layer.detail.as_str())) }
                }
            }
        }
    }
}

fn body(message: Option<&Message>) -> Markup {
    html! {
        @match message {
            None => p .soft { "The message is not stored with this run: it is larger than 256 KiB, or the run did not count as an attempt and the host tries again. See the other runs of this message below." },
            Some(message) => {
                dl {
                    @if let Some(signer) = &message.signer { dt { "Signed by" } dd { (hostile(signer)) } }
                    @if let Some(sent) = message.sent_at { dt { "Sent" } dd { (exact(sent.saturating_mul(1000))) } }
                    @for (name, value) in &message.headers { dt { (hostile(name)) } dd { (hostile(value)) } }
                }
                pre tabindex="0" { (pretty(&message.body)) }
            }
        }
    }
}

/// The buttons that repeat the run, with its message or with an edited copy.
fn again(web: &Shared, run: &Run, message: &Message) -> Markup {
    let (path, body) = ("/api/v1/runs/again", json!({"run": run.id}));
    let warning = match run.outcome.is_success() {
        true => "",
        false => {
            " The original stays. If it waits for a retry, it will run too. If it is a dead letter, drop it afterwards."
        }
    };
    html! {
        @if web.operate.is_some() {
            p { (button(web, "Run again", path, &body, &format!("Run task {} again with this message?{warning}", run.task))) }
            details {
                summary { "Run again with an edited copy" }
                label for="edited" { "Body of the copy, a JSON object. The original run stays as it is. The copy is not signed, and has the headers and the topic of the original." }
                textarea #edited rows="16" spellcheck="false" autocomplete="off" { (escape_in_json(&pretty(&message.body))) }
                p { (button_with_text(web, "Run the copy", path, &body, &format!("Run task {} with the edited copy?{warning}", run.task), "edited")) }
            }
        }
    }
}

fn grants(run: &Run) -> Markup {
    html! {
        h2 { "Grants" }
        @if run.grants.is_empty() { p .soft { "none" } }
        @else { ul { @for grant in &run.grants { li { (hostile(grant)) } } } }
    }
}
