//! What the daemon does now.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::refused::Refused;
use crate::observe::status::Status;
use crate::web::shared::Shared;

/// Workers, sources, queues, pauses, counts, problems and warnings
#[utoipa::path(
    get,
    path = "/status",
    security((), ("look" = []), ("operate" = [])),
    responses((status = 200, body = Status), Refused)
)]
pub(super) async fn status(State(web): State<Arc<Shared>>) -> Json<Status> {
    Json(web.status().await)
}
