//! The runs of this host.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use loopabull_model::{Message, Run, RunId};
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{InPath, Parameters};
use super::refused::Refused;
use crate::api::{Number, RunCounts, Text};
use crate::compare::{Comparison, compare as compare_runs, good_run};
use crate::journal::{Found, Place, Search};
use crate::web::shared::Shared;

/// The time for which runs are looked for.
const TIME: Duration = Duration::from_millis(60);
/// The number of runs in a part, if the request names none.
const LIMIT: usize = 50;

/// Which runs, and how many.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Selection {
    /// A search, as `loopabull-host runs list` takes it: `task:build outcome:failure after:2h`. Empty: all runs.
    #[serde(default)]
    #[param(required = false, inline)]
    search: Text<2000>,
    /// The value of `next` in the part before.
    #[param(value_type = Option<String>, pattern = "^-?[0-9]{1,18}-[0-9]{1,18}$")]
    before: Option<String>,
    /// The maximum number of runs.
    #[param(inline, default = 50)]
    limit: Option<Number<1, 500>>,
}

/// Runs that a search finds, newest first
///
/// A request looks for runs for a short time only. If the answer has `next`, there may be more
/// runs, even if it lists few or none: send `next` as `before`.
#[utoipa::path(
    get,
    path = "/runs",
    params(Selection),
    security((), ("look" = []), ("operate" = [])),
    responses((status = 200, body = Found), Refused)
)]
pub(super) async fn list(
    State(web): State<Arc<Shared>>,
    Parameters(selection): Parameters<Selection>,
) -> Result<Json<Found>, Refused> {
    let search = Search::parse(&selection.search.0, Timestamp::now())
        .map_err(|error| Refused::bad(format!("search: {error}")))?;
    let before = selection.before.as_deref().map(str::parse::<Place>).transpose();
    let before = before.map_err(|error| Refused::bad(format!("before: {error}")))?;
    let limit = selection.limit.map_or(LIMIT, |Number(limit)| limit as usize);
    web.journal.search(search, before, limit, TIME).await.map(Json).map_err(Refused::ours)
}

/// The number of runs for each outcome
#[utoipa::path(
    get,
    path = "/run-counts",
    security((), ("look" = []), ("operate" = [])),
    responses((status = 200, body = RunCounts), Refused)
)]
pub(super) async fn counts(State(web): State<Arc<Shared>>) -> Result<Json<RunCounts>, Refused> {
    let counts = web.journal.count().await.map_err(Refused::ours)?;
    Ok(Json(RunCounts { counts }))
}

/// A run with its output
#[utoipa::path(
    get,
    path = "/runs/{id}",
    params(("id" = String, Path, description = "Id of the run")),
    security((), ("look" = []), ("operate" = [])),
    responses((status = 200, body = Run), Refused)
)]
pub(super) async fn show(
    State(web): State<Arc<Shared>>,
    InPath(id): InPath,
) -> Result<Json<Run>, Refused> {
    find(&web, &RunId::new(id)).await.map(Json)
}

/// The message of a run
///
/// A message is not stored if it is larger than 256 KiB, or if the run did not count as an attempt.
#[utoipa::path(
    get,
    path = "/runs/{id}/message",
    params(("id" = String, Path, description = "Id of the run")),
    security((), ("look" = []), ("operate" = [])),
    responses((status = 200, body = Message), Refused)
)]
pub(super) async fn message(
    State(web): State<Arc<Shared>>,
    InPath(id): InPath,
) -> Result<Json<Message>, Refused> {
    let run = find(&web, &RunId::new(id)).await?;
    match web.journal.message(run.id.clone()).await.map_err(Refused::ours)? {
        Some(message) => Ok(Json(message)),
        None => Err(Refused::missing(format!("the message of run `{}` is not stored", run.id))),
    }
}

/// What differs between a run and a good run of its task
///
/// The good run is the last successful one before it, or else the newest successful one after it.
#[utoipa::path(
    get,
    path = "/runs/{id}/compare",
    params(("id" = String, Path, description = "Id of the run")),
    security((), ("look" = []), ("operate" = [])),
    responses((status = 200, body = Comparison), Refused)
)]
pub(super) async fn compare(
    State(web): State<Arc<Shared>>,
    InPath(id): InPath,
) -> Result<Json<Comparison>, Refused> {
    let run = find(&web, &RunId::new(id)).await?;
    let other = good_run(&web.journal, &run, TIME).await.map_err(Refused::ours)?;
    let Some(other) = other else {
        return Err(Refused::missing(format!("no other run of task `{}` succeeded", run.task)));
    };
    let message = web.journal.message(run.id.clone()).await.map_err(Refused::ours)?;
    let other_message = web.journal.message(other.id.clone()).await.map_err(Refused::ours)?;
    // A comparison of long texts takes up to a second of computing.
    let compared = tokio::task::spawn_blocking(move || {
        compare_runs((&run, message.as_ref()), (&other, other_message.as_ref()))
    });
    compared.await.map(Json).map_err(Refused::ours)
}

async fn find(web: &Shared, id: &RunId) -> Result<Run, Refused> {
    let found = web.journal.find(id.clone()).await.map_err(Refused::ours)?;
    found.ok_or_else(|| Refused::missing(format!("no run has the id `{id}`")))
}
