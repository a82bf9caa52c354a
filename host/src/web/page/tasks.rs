//! The installed tasks, and why some of them do not run.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use loopabull_model::Target;
use maud::{Markup, html};

use super::button::{pause, resume};
use super::layout::{Tab, layout};
use super::link::search as link;
use super::words::{hostile, rough};
use crate::tasks::list::{FindingEntry, TaskEntry, TaskList, TaskState};
use crate::web::shared::Shared;

pub(super) async fn show(State(web): State<Arc<Shared>>) -> Response {
    let TaskList { tasks, findings } = TaskList::of(&web.catalog.get(), &web.pauses.current());
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
                        tbody { @for task in &tasks { (row(&web, task)) } }
                    }
                }
            }
            @for FindingEntry { file, is_problem, text } in &findings {
                p .trouble .warning[!is_problem] { code { (hostile(file)) } ": " (hostile(text)) }
            }
        }
    };
    layout("Tasks", Tab::Tasks, &content).into_response()
}

fn row(web: &Shared, task: &TaskEntry) -> Markup {
    let timeout = Duration::from_secs_f64(task.timeout_seconds);
    html! {
        tr data-key=(task.name) {
            th scope="row" { a href=(link(&format!("task:{}", task.name), None)) { (task.name) } }
            td { (task.kind) }
            td .cut { @for pattern in &task.topics { div { code { (pattern) } } } }
            td { (task.queue) }
            td .number { (rough(timeout)) }
            td { @if task.grants.is_empty() { "–" } @else { (task.grants.join(", ")) } }
            td .cut { (state(task)) }
            @if web.operate.is_some() { td .nowrap { (pause_or_resume(web, task)) } }
        }
    }
}

fn state(task: &TaskEntry) -> Markup {
    let reason = html! { @if let Some(reason) = &task.reason { " " (hostile(reason)) } };
    match task.state {
        TaskState::Ready => html! { span .good { "ready" } },
        TaskState::Refused => html! { b .bad { "refused" } (reason) },
        TaskState::Paused => html! { b .warn { "paused" } (reason) },
        TaskState::QueuePaused => html! { b .warn { "queue paused" } (reason) },
    }
}

fn pause_or_resume(web: &Shared, task: &TaskEntry) -> Markup {
    match web.pauses.is_paused(&Target::Task(task.name.clone())) {
        true => resume(web, "task", task.name.as_str()),
        false => pause(web, "task", task.name.as_str()),
    }
}
