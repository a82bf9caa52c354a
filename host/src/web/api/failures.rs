//! Failed runs, grouped by what is the same in their reasons.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::Parameters;
use super::refused::Refused;
use crate::api::Text;
use crate::journal::Failures;
use crate::web::shared::Shared;

/// The time for which failed runs are looked through.
const TIME: Duration = Duration::from_millis(80);

/// How far to look back.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Span {
    /// For example `2h` or `7d`.
    #[serde(default = "one_day")]
    #[param(required = false, inline, default = "1d")]
    since: Text<100>,
}

fn one_day() -> Text<100> {
    Text("1d".to_owned())
}

/// Failed runs, grouped by what is the same in their reasons
#[utoipa::path(
    get,
    path = "/failures",
    params(Span),
    security((), ("look" = []), ("operate" = [])),
    responses((status = 200, body = Failures), Refused)
)]
pub(super) async fn list(
    State(web): State<Arc<Shared>>,
    Parameters(Span { since: Text(since) }): Parameters<Span>,
) -> Result<Json<Failures>, Refused> {
    let span = humantime::parse_duration(&since).map_err(|_| {
        Refused::bad(format!("since: `{since}` is no duration, such as `2h` or `7d`"))
    })?;
    let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    let since_ms = Timestamp::now().as_millisecond().saturating_sub(span);
    web.journal.failures(since_ms, TIME).await.map(Json).map_err(Refused::ours)
}
