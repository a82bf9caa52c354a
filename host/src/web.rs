//! The operator's port, which serves pages for people, and health, metrics and status for machines:
//!
//! ```text
//! GET /          the pages: overview, runs, failures, tasks
//! GET /livez     200 as long as the daemon answers
//! GET /readyz    200 if the daemon is ready, or 503 with one problem on each line: the sources are connected,
//!                messages are stored, and all tasks can run. The warnings follow
//! GET /warnings  200 if nothing needs an operator, or 503 with one warning on each line: see `warnings`
//! GET /metrics   the metrics, in Prometheus' text format
//! GET /explain   why a message ran or did not run, in JSON
//! GET /sign-in   asks a browser for the token of operators, and leads back
//! POST /api/v1/… the actions of an operator: see `actions`
//! GET /status    the current activity, in JSON: see `Status`
//! ```

mod actions;
mod connections;
mod guard;
mod health;
mod operator;
mod page;
pub(crate) mod shared;
pub(crate) mod token;

use std::sync::Arc;

use axum::{Router, middleware};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::web::shared::Shared;

/// Serves requests until `stop` is cancelled.
pub(crate) async fn serve(shared: Shared, listener: TcpListener, stop: CancellationToken) {
    let shared = Arc::new(shared);
    let router = Router::new()
        .merge(health::routes())
        .merge(actions::routes())
        .merge(page::routes())
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard::guard))
        .with_state(Arc::clone(&shared));
    tokio::select! {
        () = connections::serve(listener, router, stop) => (),
        () = shared.keep_history() => (),
    }
}
