//! Buttons that act. The script sends what they say; see `actions`.

use maud::{Markup, html};
use serde_json::{Value, json};

use crate::web::shared::Shared;

/// A button that acts, if there is a token for operators. `question` is asked before.
pub(super) fn button(web: &Shared, name: &str, path: &str, body: &Value, question: &str) -> Markup {
    html! {
        @if web.operate.is_some() {
            button type="button" data-post=(path) data-body=(body.to_string()) data-question=(question) { (name) } " "
        }
    }
}

/// A button that also sends what a person wrote into the field `field`, as `body`.
pub(super) fn button_with_text(
    web: &Shared,
    name: &str,
    path: &str,
    body: &Value,
    question: &str,
    field: &str,
) -> Markup {
    html! {
        @if web.operate.is_some() {
            button type="button" data-post=(path) data-body=(body.to_string()) data-question=(question) data-text=(field) { (name) }
        }
    }
}

/// A button that pauses a task or a queue, after asking for the reason.
pub(super) fn pause(web: &Shared, kind: &str, name: &str) -> Markup {
    let (body, question) =
        (json!({"kind": kind, "name": name}), format!("Why is {kind} {name} paused?"));
    html! {
        @if web.operate.is_some() {
            button type="button" data-post="/api/v1/pause" data-body=(body.to_string()) data-reason=(question) { "Pause" } " "
        }
    }
}

/// A button that resumes a task, a queue or a worker.
pub(super) fn resume(web: &Shared, kind: &str, name: &str) -> Markup {
    let body = json!({"kind": kind, "name": name});
    button(web, "Resume", "/api/v1/resume", &body, &format!("Resume {kind} {name}?"))
}

/// Buttons that requeue or drop the dead letters of a group of failures, after telling how many they are.
pub(super) fn judge(web: &Shared, task: &str, like: &str) -> Markup {
    html! {
        @for (name, verdict) in [("Requeue", "requeue"), ("Drop", "drop")] {
            (button(
                web,
                name,
                "/api/v1/dead-letters",
                &json!({"verdict": verdict, "task": task, "like": like}),
                &format!("{name} COUNT dead letters of task {task} like \u{201c}{like}\u{201d}, of any age?"),
            ))
        }
    }
}
