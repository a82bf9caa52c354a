//! Reads the parts of a request. What cannot be read is refused with a sentence, as JSON.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::refused::Refused;

/// Time limit for the body of a request.
const BODY_TIMEOUT: Duration = Duration::from_secs(20);

/// The parameters after `?`.
pub(super) struct Parameters<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(error) => Err(Refused::bad(sentence(&error.body_text()))),
        }
    }
}

/// A part of the path.
pub(super) struct InPath(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for InPath {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(part)) => Ok(Self(part)),
            Err(error) => Err(Refused::bad(sentence(&error.body_text()))),
        }
    }
}

/// The body, as JSON.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refused> {
        match tokio::time::timeout(BODY_TIMEOUT, Json::from_request(request, state)).await {
            Ok(Ok(Json(body))) => Ok(Self(body)),
            Ok(Err(error)) => Err(refused(&error)),
            Err(_) => {
                let error = format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs());
                Err(Refused::new(StatusCode::REQUEST_TIMEOUT, error))
            }
        }
    }
}

fn refused(error: &JsonRejection) -> Refused {
    match error.status() {
        status @ StatusCode::PAYLOAD_TOO_LARGE => Refused::new(status, "the request is too large"),
        status => Refused::new(status, sentence(&error.body_text())),
    }
}

/// Returns the text of a rejection without axum's words about types.
fn sentence(text: &str) -> String {
    let prefixes = [
        "Failed to deserialize the JSON body into the target type: ",
        "Failed to deserialize query string: ",
    ];
    let sentence = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix));
    sentence.unwrap_or(text).to_owned()
}
