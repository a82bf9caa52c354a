//! What operators did.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::Parameters;
use super::refused::Refused;
use crate::api::{ActionList, Number};
use crate::web::shared::Shared;

/// The number of lines in a part, if the request names none.
const LIMIT: u32 = 100;

/// How many lines.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Selection {
    /// The value of `next` in the part before.
    before: Option<i64>,
    /// The maximum number of lines.
    #[param(inline, default = 100)]
    limit: Option<Number<1, 1000>>,
}

/// What operators did on this host, newest first
#[utoipa::path(
    get,
    path = "/audit",
    params(Selection),
    security((), ("look" = []), ("operate" = [])),
    responses((status = 200, body = ActionList), Refused)
)]
pub(super) async fn list(
    State(web): State<Arc<Shared>>,
    Parameters(Selection { before, limit }): Parameters<Selection>,
) -> Result<Json<ActionList>, Refused> {
    let limit = limit.map_or(LIMIT, |Number(limit)| limit as u32);
    let actions = web.audit.list(before, limit).await.map_err(Refused::ours)?;
    let is_full = actions.len() == limit as usize;
    let next = actions.last().map(|action| action.id).filter(|_| is_full);
    Ok(Json(ActionList { actions, next }))
}
