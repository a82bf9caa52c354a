//! The installed tasks, and why some of them do not run.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use loopabull_model::{Target, Task};
use maud::{Markup, html};

use super::button::{pause, resume};
use super::layout::{Tab, layout};
use super::link::search as link;
use super::words::{hostile, rough};
use crate::tasks::discovery::{Finding, Severity};
use crate::web::shared::Shared;

pub(super) async fn show(State(web): State<Arc<Shared>>) -> Response {
    let (catalog, pauses) = (web.catalog.get(), web.pauses.current());
    let state = |task: &Task| {
        if let Some(reason) = catalog.refused(&task.name) {
            return html! { b .bad { "refused" } " " (hostile(&reason)) };
        }
        let queue = Target::Queue(task.manifest.queue.clone());
        for (what, target) in [("paused", Target::Task(task.name.clone())), ("queue paused", queue)]
        {
            if let Some(pause) = pauses.get(&target) {
                return html! { b .warn { (what) } " by the " (pause.by.as_str()) ": " (hostile(&pause.reason)) };
            }
        }
        html! { span .good { "ready" } }
    };
    let tasks = catalog.routes.tasks();
    let content = html! {
        h1 { "Tasks" }
        section #tasks data-live aria-label="Tasks" {
            @if tasks.is_empty() { p { "No task is installed. Put " code { "TOPIC.yml" } " into the directory of playbooks, or a component into that of tasks." } }
            @else {
                div .scroll tabindex="0" {
                    table {
                        thead {
                            tr {
                                th scope="col" { "Task" }
                                th scope="col" { "Kind" }
                                th scope="col" { "Topics" }
                                th scope="col" { "Queue" }
                                th scope="col" .number { "Time limit" }
                                th scope="col" { "Grants" }
                                th scope="col" { "State" }
                                @if web.operate.is_some() { th scope="col" { "Act" } }
                            }
                        }
                        tbody { @for task in tasks { (row(&web, task, &state(task))) } }
                    }
                }
            }
            @for Finding { severity, file, text } in catalog.all_findings() {
                p .trouble .warning[*severity == Severity::Note] { code { (file.display()) } ": " (hostile(text)) }
            }
        }
    };
    layout("Tasks", Tab::Tasks, &content).into_response()
}

fn row(web: &Shared, task: &Task, state: &Markup) -> Markup {
    let grants = task.manifest.grants.kinds().join(", ");
    html! {
        tr data-key=(task.name) {
            th scope="row" { a href=(link(&format!("task:{}", task.name), None)) { (task.name) } }
            td { (task.kind) }
            td .cut { @for pattern in task.patterns() { div { code { (pattern) } } } }
            td { (task.manifest.queue) }
            td .number { (rough(task.timeout())) }
            td { @if grants.is_empty() { "–" } @else { (grants) } }
            td .cut { (state) }
            @if web.operate.is_some() { td .nowrap { (pause_or_resume(web, task)) } }
        }
    }
}

fn pause_or_resume(web: &Shared, task: &Task) -> Markup {
    match web.pauses.is_paused(&Target::Task(task.name.clone())) {
        true => resume(web, "task", task.name.as_str()),
        false => pause(web, "task", task.name.as_str()),
    }
}
