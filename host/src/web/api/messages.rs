//! What arrived lately, and why something ran or nothing did.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::Parameters;
use super::refused::Refused;
use crate::api::{ArrivalList, Number, Text};
use crate::explain::Explanation;
use crate::observe::arrivals::Which;
use crate::web::shared::Shared;

/// The number of arrivals in a part, if the request names none.
const LIMIT: u32 = 100;

/// Which arrivals, and how many.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Selection {
    /// Only those of the message with this id.
    #[param(inline)]
    id: Option<Text<256>>,
    /// Only those on this topic.
    #[param(inline)]
    topic: Option<Text<256>>,
    /// The value of `next` in the part before.
    before: Option<i64>,
    /// The maximum number of arrivals.
    #[param(inline, default = 100)]
    limit: Option<Number<1, 1000>>,
}

/// What arrived lately, whether or not it ran, newest first
#[utoipa::path(
    get,
    path = "/messages",
    params(Selection),
    security((), ("look" = []), ("operate" = [])),
    responses((status = 200, body = ArrivalList), Refused)
)]
pub(super) async fn list(
    State(web): State<Arc<Shared>>,
    Parameters(selection): Parameters<Selection>,
) -> Result<Json<ArrivalList>, Refused> {
    let which = match (selection.id, selection.topic) {
        (Some(Text(id)), None) => Which::OfMessage(id),
        (None, Some(Text(topic))) => Which::OfTopic(topic),
        (None, None) => Which::All,
        (Some(_), Some(_)) => return Err(Refused::bad("name `id` or `topic`, not both")),
    };
    let limit = selection.limit.map_or(LIMIT, |Number(limit)| limit as u32);
    let list = web.arrivals.list(which, selection.before, limit).await;
    let arrivals = list.map_err(Refused::ours)?;
    let is_full = arrivals.len() == limit as usize;
    let next = arrivals.last().map(|noted| noted.id).filter(|_| is_full);
    Ok(Json(ArrivalList { arrivals, next }))
}

/// What is to be explained.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct About {
    /// The id of a message, or a topic.
    #[param(inline)]
    about: Text<256>,
}

/// Why a message ran or did not run, in sentences
#[utoipa::path(
    get,
    path = "/explain",
    params(About),
    security((), ("look" = []), ("operate" = [])),
    responses((status = 200, body = Explanation), Refused)
)]
pub(super) async fn explain(
    State(web): State<Arc<Shared>>,
    Parameters(About { about }): Parameters<About>,
) -> Result<Json<Explanation>, Refused> {
    web.explain(&about.0).await.map(Json).map_err(Refused::ours)
}
