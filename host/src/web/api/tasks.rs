//! The installed tasks, and why some of them do not run.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::refused::Refused;
use crate::tasks::list::TaskList;
use crate::web::shared::Shared;

/// The installed tasks, and why some of them do not run
#[utoipa::path(
    get,
    path = "/tasks",
    security((), ("look" = []), ("operate" = [])),
    responses((status = 200, body = TaskList), Refused)
)]
pub(super) async fn list(State(web): State<Arc<Shared>>) -> Json<TaskList> {
    let (catalog, pauses) = (web.catalog.get(), web.pauses.current());
    Json(TaskList::of(&catalog, &pauses))
}
