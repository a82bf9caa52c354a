//! Carries out what an operator asks for on a page or by a program: pause, resume, retry, and judge dead letters.
//!
//! ```text
//! POST /api/v1/pause         {"kind": "task" | "queue", "name": NAME, "reason": TEXT}
//! POST /api/v1/resume        {"kind": "task" | "queue" | "worker", "name": NAME}
//! POST /api/v1/retry         {"queue": NAME}
//! POST /api/v1/runs/again    {"run": ID, "body": JSON text, if it is to be another}
//! POST /api/v1/dead-letters  {"verdict": "count" | "requeue" | "drop", "queue", "ids", "task", "topic", "reason", "like"}
//! ```
//!
//! Each answer is `{"count": N, "said": SENTENCE}`, or `{"error": SENTENCE}` with the status of an error. The commands of the
//! same names do the same. Every action needs the operator's token, see `guard`, and is a line of the audit log.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use loopabull_model::{EntryId, PausedBy, QueueName, RunId, Target, TaskName, TopicPattern, chain};
use loopabull_queue::{DeadLetterFilter, Verdict};
use serde::Deserialize;
use serde_json::json;

use super::operator::{Operator, sign_in};
use super::shared::Shared;
use crate::work::again::{self, AgainError};

/// Maximum size of a request's body, in bytes.
const MAX_BODY: usize = 64 << 10;

/// Maximum size of a request with the body of a message, in bytes. A journal stores messages up to 256 KiB. The page shows a body with
/// indentation, at most four times as long, and sends it as a string with escapes.
const MAX_MESSAGE: usize = 4 << 20;
/// Time limit for publishing the message of a repeated run.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(20);

/// Returns the routes of the actions.
pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/sign-in", get(sign_in))
        .route("/api/v1/pause", post(pause))
        .route("/api/v1/resume", post(resume))
        .route("/api/v1/retry", post(retry))
        .route("/api/v1/dead-letters", post(dead_letters))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .route("/api/v1/runs/again", post(run_again).layer(DefaultBodyLimit::max(MAX_MESSAGE)))
}

/// The result of an action: a number and a sentence, or the status and the sentence of an error.
type Done = Result<(u64, String), (StatusCode, String)>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pause {
    kind: String,
    name: String,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resume {
    kind: String,
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Retry {
    queue: QueueName,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Again {
    run: String,
    body: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeadLetters {
    verdict: Judgement,
    queue: Option<QueueName>,
    #[serde(default)]
    ids: Vec<String>,
    task: Option<TaskName>,
    topic: Option<TopicPattern>,
    reason: Option<String>,
    like: Option<String>,
}

#[derive(Clone, Copy, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Judgement {
    /// Changes nothing, and says how many match.
    Count,
    Requeue,
    Drop,
}

async fn pause(
    State(web): State<Arc<Shared>>,
    operator: Operator,
    body: Result<Json<Pause>, JsonRejection>,
) -> Response {
    answer(async move {
        let Pause { kind, name, reason } = read(body)?;
        let target = target(&kind, name)?;
        match &target {
            Target::Worker(_) => return Err(bad("a worker cannot be paused".to_owned())),
            Target::Task(task) if web.catalog.get().routes.task(task).is_none() => {
                return Err((StatusCode::NOT_FOUND, format!("there is no task `{task}`")));
            }
            Target::Queue(queue) if !web.names.contains(queue) => {
                return Err((StatusCode::NOT_FOUND, format!("there is no queue `{queue}`")));
            }
            Target::Task(_) | Target::Queue(_) => (),
        }
        let reason = if reason.trim().is_empty() { "by hand" } else { reason.trim() };
        let paused = web.pauses.pause(target.clone(), PausedBy::Operator, &reason.into()).await;
        // Even if it is not on disk yet, the pause has taken effect.
        let recorded = record(&web, &operator, "pause", &format!("{target}: {reason}"), 1).await;
        paused.map_err(ours)?;
        Ok((1, format!("{target} is paused{recorded}")))
    })
    .await
}

async fn resume(
    State(web): State<Arc<Shared>>,
    operator: Operator,
    body: Result<Json<Resume>, JsonRejection>,
) -> Response {
    answer(async move {
        let Resume { kind, name } = read(body)?;
        let target = target(&kind, name)?;
        let was_paused = web.pauses.resume(target.clone()).await.map_err(ours)?;
        if !was_paused {
            return Err((StatusCode::CONFLICT, format!("{target} is not paused")));
        }
        let recorded = record(&web, &operator, "resume", &target.to_string(), 1).await;
        Ok((1, format!("{target} is resumed{recorded}")))
    })
    .await
}

async fn retry(
    State(web): State<Arc<Shared>>,
    operator: Operator,
    body: Result<Json<Retry>, JsonRejection>,
) -> Response {
    answer(async move {
        let Retry { queue } = read(body)?;
        if !web.names.contains(&queue) {
            return Err((StatusCode::NOT_FOUND, format!("there is no queue `{queue}`")));
        }
        let count = web.queues.end_delays(&queue).await.map_err(ours)?;
        let recorded = record(&web, &operator, "retry", &format!("queue `{queue}`"), count).await;
        Ok((count, format!("{count} delayed messages of queue `{queue}` are due now{recorded}")))
    })
    .await
}

async fn run_again(
    State(web): State<Arc<Shared>>,
    operator: Operator,
    body: Result<Json<Again>, JsonRejection>,
) -> Response {
    answer(async move {
        let Again { run, body } = read(body)?;
        let (run, catalog) = (RunId::new(run), web.catalog.get());
        let entry = again::entry(&web.journal, &catalog.routes, &run, body.as_deref()).await;
        let entry = entry.map_err(|error| {
            let status = match error {
                AgainError::NoRun(_) => StatusCode::NOT_FOUND,
                AgainError::NoMessage(_) | AgainError::NoTask(_) => StatusCode::CONFLICT,
                AgainError::Body(_) => StatusCode::BAD_REQUEST,
                AgainError::Journal(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            (status, chain(&error))
        })?;
        let id = &entry.message.id;
        let target = format!("run `{run}`: message `{id}`");
        // Nothing runs that is not recorded.
        web.audit.record(&operator.0, "run again", &target, 1).await.map_err(ours)?;
        match tokio::time::timeout(PUBLISH_TIMEOUT, web.queues.publish(&entry)).await {
            Ok(Ok(())) => Ok((1, format!("message {id} is queued for `{}`", entry.task))),
            Ok(Err(error)) if error.is_permanent() => {
                Err((StatusCode::PAYLOAD_TOO_LARGE, chain(&error)))
            }
            Ok(Err(error)) => Err(ours(error)),
            Err(_) => {
                let text =
                    format!("the queue has not confirmed message {id}; it may still run, so look for it before you repeat it");
                Err((StatusCode::SERVICE_UNAVAILABLE, text))
            }
        }
    })
    .await
}

async fn dead_letters(
    State(web): State<Arc<Shared>>,
    operator: Operator,
    body: Result<Json<DeadLetters>, JsonRejection>,
) -> Response {
    answer(async move { judge(&web, &operator, body).await }).await
}

async fn judge(
    web: &Shared,
    operator: &Operator,
    body: Result<Json<DeadLetters>, JsonRejection>,
) -> Done {
    let DeadLetters { verdict, queue, ids, task, topic, reason, like } = read(body)?;
    let reason = reason.filter(|reason| !reason.is_empty());
    let has_text = reason.is_some() || like.is_some();
    if ids.is_empty() && task.is_none() && topic.is_none() && !has_text {
        return Err(bad("name `ids`, `task`, `topic`, `reason` or `like`".to_owned()));
    }
    let ids = ids.into_iter().map(EntryId::new).collect();
    let filter = DeadLetterFilter { queue, ids, task, topic, reason, like, older_than: None };
    let queues = match &filter.queue {
        Some(queue) if !web.names.contains(queue) => {
            return Err((StatusCode::NOT_FOUND, format!("there is no queue `{queue}`")));
        }
        Some(queue) => std::slice::from_ref(queue),
        None => &web.names[..],
    };
    let (word, carried_out) = match verdict {
        Judgement::Count => ("match", Verdict::Keep),
        Judgement::Requeue => ("are requeued", Verdict::Requeue),
        Judgement::Drop => ("are dropped", Verdict::Drop),
    };
    // While one look at the dead letters of RabbitMQ is in progress, another one would find none.
    let _looking = web.looking_at_dead_letters.lock().await;
    let (mut matching, mut changed, mut error) = (0, 0, None);
    for queue in queues {
        let judge = |letter: &loopabull_queue::DeadLetter| {
            if !filter.matches(letter) {
                return Verdict::Keep;
            }
            matching += 1;
            carried_out
        };
        match web.queues.judge_dead_letters(queue, judge).await {
            Ok(count) => changed += count,
            Err(failed) => {
                // Some of this queue may have been changed. The number of those that matched is the most that can be.
                (changed, error) = (matching, Some(failed));
                break;
            }
        }
    }
    let count = if verdict == Judgement::Count { matching } else { changed };
    let recorded = match verdict {
        Judgement::Count => "",
        Judgement::Requeue => record(web, operator, "requeue", &filter.to_string(), count).await,
        Judgement::Drop => record(web, operator, "drop", &filter.to_string(), count).await,
    };
    if let Some(error) = error {
        return Err(ours(error));
    }
    Ok((count, format!("{count} dead letters {word}{recorded}")))
}

/// Adds a line to the audit log. Returns what is to be said if that fails, after the action was carried out.
async fn record(
    web: &Shared,
    operator: &Operator,
    action: &'static str,
    target: &str,
    count: u64,
) -> &'static str {
    match web.audit.record(&operator.0, action, target, count).await {
        Ok(()) => "",
        Err(error) => {
            tracing::error!(
                "cannot record `{action} {target}` in the audit log: {}",
                chain(&error)
            );
            ", but the audit log cannot be written"
        }
    }
}

fn target(kind: &str, name: String) -> Result<Target, (StatusCode, String)> {
    let text = format!("{kind} `{name}`");
    let known = Target::from_parts(kind, name);
    known.ok_or_else(|| bad(format!("there is no {text}: the kinds are task, queue and worker")))
}

fn read<T>(body: Result<Json<T>, JsonRejection>) -> Result<T, (StatusCode, String)> {
    body.map(|Json(body)| body).map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            (StatusCode::PAYLOAD_TOO_LARGE, "the request is too large".to_owned())
        }
        status => (status, error.body_text()),
    })
}

fn bad(text: String) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, text)
}

fn ours(error: impl std::error::Error) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, chain(&error))
}

/// Carries out an action and answers. What was begun is finished and recorded, also if the client goes away meanwhile.
async fn answer(action: impl Future<Output = Done> + Send + 'static) -> Response {
    match tokio::spawn(action).await {
        Ok(Ok((count, said))) => Json(json!({"count": count, "said": said})).into_response(),
        Ok(Err((status, error))) => failure(status, &error),
        Err(error) => {
            failure(StatusCode::INTERNAL_SERVER_ERROR, &format!("the action failed: {error}"))
        }
    }
}

fn failure(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({"error": error}))).into_response()
}
