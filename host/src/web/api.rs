//! The API for programs, at `/api/v1`: what the pages show and do, as JSON.
//!
//! `/api/v1/openapi.json` describes it. The description is derived from the functions that answer and from the types that they
//! return, so it names each path, each parameter and each status. The commands do the same as the actions here.

mod actions;
mod audit;
mod dead_letters;
mod extract;
mod failures;
mod line;
mod messages;
mod refused;
mod runs;
mod status;
mod tasks;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header;
use axum::routing::{any, get};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Info, OpenApi, Paths};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) use self::refused::Refused;
use crate::web::shared::Shared;

/// Maximum size of a request's body, in bytes.
const MAX_BODY: usize = 64 << 10;
/// Maximum size of a request with the body of a message, in bytes. A journal stores messages up to 256 KiB. The page shows a body with
/// indentation, at most four times as long, and sends it as a string with escapes.
const MAX_MESSAGE: usize = 4 << 20;
/// Where the API is.
pub(super) const PREFIX: &str = "/api/v1";

const DESCRIPTION: &str = "\
What the pages of the operator's port show and do. Times are in milliseconds since 1970.

Whoever can reach the port on its own machine may look without a token, unless the configuration has `token_file`. Actions need the \
token of `operate_token_file`. Send a token as `Authorization: Bearer TOKEN`. Every action is a line of the audit log.";

/// Returns the routes of the API.
pub(super) fn routes() -> Router<Arc<Shared>> {
    let (router, mut document) = OpenApiRouter::with_openapi(OpenApi::new(
        Info::builder()
            .title("loopabull-host")
            .version(env!("CARGO_PKG_VERSION"))
            .description(Some(DESCRIPTION))
            .build(),
        Paths::new(),
    ))
    .nest(PREFIX, described())
    .split_for_parts();
    let token = |text: &str| {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.description = Some(text.to_owned());
        SecurityScheme::Http(scheme)
    };
    let components = document.components.get_or_insert_default();
    components
        .add_security_scheme("look", token("The token of `token_file`: its holder may look."));
    components.add_security_scheme(
        "operate",
        token("The token of `operate_token_file`: its holder may look and act."),
    );
    let text = document.to_json().expect("a description contains only JSON types");
    let document: Arc<str> = text.into();
    let served = Router::new()
        .route(
            &format!("{PREFIX}/openapi.json"),
            get(move || async move {
                ([(header::CONTENT_TYPE, "application/json")], document.to_string())
            }),
        )
        .route(PREFIX, any(|| async { Refused::no_path() }))
        .route(&format!("{PREFIX}/"), any(|| async { Refused::no_path() }))
        .route(&format!("{PREFIX}/{{*path}}"), any(|| async { Refused::no_path() }));
    router.merge(served).method_not_allowed_fallback(Refused::wrong_method)
}

fn described() -> OpenApiRouter<Arc<Shared>> {
    let router = OpenApiRouter::new()
        .routes(routes!(status::status))
        .routes(routes!(runs::list))
        .routes(routes!(runs::counts))
        .routes(routes!(runs::show))
        .routes(routes!(runs::message))
        .routes(routes!(runs::compare))
        .routes(routes!(failures::list))
        .routes(routes!(messages::list))
        .routes(routes!(messages::explain))
        .routes(routes!(tasks::list))
        .routes(routes!(audit::list))
        .routes(routes!(dead_letters::list, dead_letters::judge))
        .routes(routes!(actions::pause))
        .routes(routes!(actions::resume))
        .routes(routes!(actions::retry))
        .routes(routes!(actions::cancel))
        .layer(DefaultBodyLimit::max(MAX_BODY));
    let with_message = OpenApiRouter::new()
        .routes(routes!(actions::run_again))
        .layer(DefaultBodyLimit::max(MAX_MESSAGE));
    router.merge(with_message)
}
