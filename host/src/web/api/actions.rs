//! The actions of an operator: pause, resume, retry, cancel a run, and repeat a run. The commands of the same names do the same.
//!
//! Every action needs the operator's token, see `operator`, and is a line of the audit log.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use loopabull_model::{PausedBy, RunId, Target, chain};

use super::extract::Body;
use super::line::Line;
use super::refused::Refused;
use crate::api::{
    AgainRequest, CancelRequest, Done, PausableKind, PauseRequest, ResumableKind, ResumeRequest,
    RetryRequest, due,
};
use crate::web::operator::Operator;
use crate::web::shared::Shared;
use crate::work::again::{self, AgainError};
use crate::work::cancellations::Cancel;

/// Time limit for publishing the message of a repeated run.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(20);

/// Pause a task or a queue until it is resumed
#[utoipa::path(
    post,
    path = "/pause",
    request_body = PauseRequest,
    security(("operate" = [])),
    responses((status = 200, body = Done), Refused)
)]
pub(super) async fn pause(
    State(web): State<Arc<Shared>>,
    operator: Operator,
    Body(PauseRequest { kind, name, reason }): Body<PauseRequest>,
) -> Result<Json<Done>, Refused> {
    let kind = match kind {
        PausableKind::Task => "task",
        PausableKind::Queue => "queue",
    };
    let target = target(kind, name)?;
    let is_known = match &target {
        Target::Task(task) => web.catalog.get().routes.task(task).is_some(),
        Target::Queue(queue) => web.names.contains(queue),
        Target::Worker(_) => false,
    };
    if !is_known {
        return Err(Refused::missing(format!("there is no {target}")));
    }
    carry_out(async move {
        let reason = if reason.0.trim().is_empty() { "by hand" } else { reason.0.trim() };
        if let Some(pause) =
            web.pauses.current().get(&target).filter(|pause| !pause.can_be_replaced())
        {
            let reason = &pause.reason;
            return Err(Refused::conflict(format!("{target} is already paused: {reason}")));
        }
        let line = Line::begin(&web, &operator, "pause", &format!("{target}: {reason}")).await;
        let paused = web.pauses.pause(target.clone(), PausedBy::Operator, &reason.into()).await;
        // Even if it is not on disk yet, the pause has taken effect.
        let is_new = paused.as_ref().map_or(true, |is_new| *is_new);
        let recorded = line.finish(&web, u64::from(is_new)).await;
        paused.map_err(Refused::ours)?;
        if !is_new {
            return Err(Refused::conflict(format!("{target} is already paused")));
        }
        Ok(Done { count: 1, said: format!("{target} is paused{recorded}") })
    })
    .await
}

/// Resume a paused task or queue, or a stopped worker
#[utoipa::path(
    post,
    path = "/resume",
    request_body = ResumeRequest,
    security(("operate" = [])),
    responses((status = 200, body = Done), Refused)
)]
pub(super) async fn resume(
    State(web): State<Arc<Shared>>,
    operator: Operator,
    Body(ResumeRequest { kind, name }): Body<ResumeRequest>,
) -> Result<Json<Done>, Refused> {
    let kind = match kind {
        ResumableKind::Task => "task",
        ResumableKind::Queue => "queue",
        ResumableKind::Worker => "worker",
    };
    let target = target(kind, name)?;
    carry_out(async move {
        if !web.pauses.is_paused(&target) {
            return Err(Refused::conflict(format!("{target} is not paused")));
        }
        let line = Line::begin(&web, &operator, "resume", &target.to_string()).await;
        let was_paused = web.pauses.resume(target.clone()).await.map_err(Refused::ours)?;
        let recorded = line.finish(&web, u64::from(was_paused)).await;
        if !was_paused {
            return Err(Refused::conflict(format!("{target} is not paused")));
        }
        Ok(Done { count: 1, said: format!("{target} is resumed{recorded}") })
    })
    .await
}

/// Make the delayed messages of a queue due now
///
/// Messages whose task failed wait for their next attempt. Their attempts are still counted.
#[utoipa::path(
    post,
    path = "/retry",
    request_body = RetryRequest,
    security(("operate" = [])),
    responses((status = 200, body = Done), Refused)
)]
pub(super) async fn retry(
    State(web): State<Arc<Shared>>,
    operator: Operator,
    Body(RetryRequest { queue }): Body<RetryRequest>,
) -> Result<Json<Done>, Refused> {
    if !web.names.contains(&queue) {
        return Err(Refused::missing(format!("there is no queue `{queue}`")));
    }
    carry_out(async move {
        let line = Line::begin(&web, &operator, "retry", &format!("queue `{queue}`")).await;
        let count = web.queues.end_delays(&queue).await.map_err(Refused::ours)?;
        let recorded = line.finish(&web, count).await;
        let said = due(&queue, count) + recorded;
        Ok(Done { count, said })
    })
    .await
}

/// Cancel a run in progress
///
/// A playbook gets SIGTERM, and is killed after 5 s if it still runs; a component ends at once. The message becomes a dead letter and is
/// not tried again until it is requeued.
#[utoipa::path(
    post,
    path = "/runs/cancel",
    request_body = CancelRequest,
    security(("operate" = [])),
    responses((status = 200, body = Done), Refused)
)]
pub(super) async fn cancel(
    State(web): State<Arc<Shared>>,
    operator: Operator,
    Body(CancelRequest { run }): Body<CancelRequest>,
) -> Result<Json<Done>, Refused> {
    carry_out(async move {
        // Only an action that changes something is a line of the audit log.
        match web.cancellations.would_cancel(&run) {
            Cancel::Begun => (),
            other => return Err(not_cancelled(&web, &run, other).await),
        }
        let line = Line::begin(&web, &operator, "cancel", &format!("run `{run}`")).await;
        let cancelled = web.cancellations.cancel(&run, &operator.0);
        let recorded = line.finish(&web, u64::from(cancelled == Cancel::Begun)).await;
        if cancelled != Cancel::Begun {
            return Err(not_cancelled(&web, &run, cancelled).await);
        }
        let said = format!(
            "run `{run}` is being cancelled; its message becomes a dead letter, unless the run has just succeeded{recorded}"
        );
        Ok(Done { count: 1, said })
    })
    .await
}

/// Says why a run is not cancelled.
async fn not_cancelled(web: &Shared, run: &RunId, why: Cancel) -> Refused {
    if let Cancel::Before { by } = why {
        return Refused::conflict(format!("run `{run}` is already being cancelled by {by}"));
    }
    match web.journal.find(run.clone()).await {
        Ok(Some(_)) => Refused::conflict(format!("run `{run}` has ended")),
        Ok(None) => Refused::missing(format!("no run in progress has the id `{run}`")),
        Err(error) => Refused::ours(error),
    }
}

/// Repeat a run, with the same message or with another body
///
/// The repetition is a new run. The original run is kept. The id of the new entry names the original.
#[utoipa::path(
    post,
    path = "/runs/again",
    request_body = AgainRequest,
    security(("operate" = [])),
    responses((status = 200, body = Done), Refused)
)]
pub(super) async fn run_again(
    State(web): State<Arc<Shared>>,
    operator: Operator,
    Body(AgainRequest { run, body }): Body<AgainRequest>,
) -> Result<Json<Done>, Refused> {
    carry_out(async move {
        let catalog = web.catalog.get();
        let entry = again::entry(&web.journal, &catalog.routes, &run, body.as_deref()).await;
        let entry = entry.map_err(|error| match error {
            AgainError::NoRun(_) => Refused::missing(chain(&error)),
            AgainError::NoMessage(_) | AgainError::NoTask(_) => Refused::conflict(chain(&error)),
            AgainError::Body(_) => Refused::bad(chain(&error)),
            AgainError::Journal(error) => Refused::ours(error),
        })?;
        let id = &entry.message.id;
        let target = format!("run `{run}`: message `{id}`");
        // Nothing runs that is not recorded.
        web.audit.record(&operator.0, "run again", &target, 1).await.map_err(Refused::ours)?;
        match tokio::time::timeout(PUBLISH_TIMEOUT, web.queues.publish(&entry)).await {
            Ok(Ok(())) => {
                let said = format!("message {id} is queued for `{}`", entry.task);
                Ok(Done { count: 1, said })
            }
            Ok(Err(error)) if error.is_permanent() => {
                Err(Refused::new(StatusCode::PAYLOAD_TOO_LARGE, chain(&error)))
            }
            Ok(Err(error)) => Err(Refused::ours(error)),
            Err(_) => {
                let text = format!(
                    "the queue has not confirmed message {id}; it may still run, so look for it before you repeat it"
                );
                Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, text))
            }
        }
    })
    .await
}

/// Carries out an action. What was begun is finished and recorded, also if the client goes away meanwhile.
pub(super) async fn carry_out<T: Send + 'static>(
    action: impl Future<Output = Result<T, Refused>> + Send + 'static,
) -> Result<Json<T>, Refused> {
    match tokio::spawn(action).await {
        Ok(done) => done.map(Json),
        Err(error) => {
            let error = format!("the action failed: {error}");
            Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, error))
        }
    }
}

fn target(kind: &str, name: String) -> Result<Target, Refused> {
    let text = format!("there can be no {kind} `{name}`");
    Target::from_parts(kind, name).ok_or_else(|| Refused::missing(text))
}
