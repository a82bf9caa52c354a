//! The answer to a request that was refused, or that could not be carried out: a status, and a sentence as JSON.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use loopabull_model::chain;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{IntoResponses, openapi};

use crate::api::Refusal;

/// A request that was refused, or that could not be carried out.
#[derive(Debug)]
pub(in crate::web) struct Refused {
    status: StatusCode,
    error: String,
}

/// The statuses that any request can get, and their meaning.
const STATUSES: [(StatusCode, &str); 12] = [
    (StatusCode::BAD_REQUEST, "The request cannot be read."),
    (
        StatusCode::UNAUTHORIZED,
        "The token is missing or wrong; at the socket, the key of `daemon.json`.",
    ),
    (
        StatusCode::FORBIDDEN,
        "The host, the origin or the daemon's configuration does not allow it.",
    ),
    (StatusCode::NOT_FOUND, "What the request names does not exist."),
    (StatusCode::METHOD_NOT_ALLOWED, "The path has no such method."),
    (StatusCode::REQUEST_TIMEOUT, "The body did not arrive in time."),
    (StatusCode::CONFLICT, "The current state does not allow the request, so nothing was done."),
    (StatusCode::PAYLOAD_TOO_LARGE, "The request is too large."),
    (StatusCode::UNSUPPORTED_MEDIA_TYPE, "The body must be `application/json`."),
    (StatusCode::UNPROCESSABLE_ENTITY, "The body does not match the schema."),
    (StatusCode::INTERNAL_SERVER_ERROR, "The daemon has a fault: its log says which."),
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "The queue or a file of the daemon cannot be used now. Try again.",
    ),
];

impl Refused {
    pub(in crate::web) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, error: error.into() }
    }

    /// The request cannot be read.
    pub(super) fn bad(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    /// What the request names does not exist.
    pub(super) fn missing(error: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }

    /// What the request names is not in a state for it.
    pub(super) fn conflict(error: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, error)
    }

    /// The queue or a file cannot be used.
    pub(super) fn ours(error: impl std::error::Error) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, chain(&error))
    }

    pub(super) fn no_path() -> Self {
        Self::missing("the API has no such path: see `/api/v1/openapi.json`")
    }

    pub(super) async fn wrong_method() -> Self {
        let error = "this path has no such method: see `/api/v1/openapi.json`";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, Json(Refusal { error: self.error })).into_response()
    }
}

impl IntoResponses for Refused {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        let form = Ref::from_schema_name("Refusal");
        let describe = |(status, text): (StatusCode, &str)| {
            let content = ContentBuilder::new().schema(Some(form.clone())).build();
            let response =
                ResponseBuilder::new().description(text).content("application/json", content);
            (status.as_u16().to_string(), RefOr::T(response.build()))
        };
        let mut responses: BTreeMap<_, _> = STATUSES.into_iter().map(describe).collect();
        let too_large = ResponseBuilder::new()
            .description("The address and the headers are larger than 16 KiB.")
            .build();
        responses.insert("431".to_owned(), RefOr::T(too_large));
        responses
    }
}
