//! The operator's port, which serves pages for people, and health, metrics and status for machines:
//!
//! ```text
//! GET /          the pages: overview, runs, failures, tasks
//! GET /livez     200 as long as the daemon answers
//! GET /readyz    200 if the daemon is ready, or 503 with one problem on each line: the sources are connected,
//!                messages are stored, and all tasks can run. The warnings follow
//! GET /warnings  200 if nothing needs an operator, or 503 with one warning on each line: see `warnings`
//! GET /metrics   the metrics, in Prometheus' text format
//! GET /sign-in   asks a browser for the token of operators, and leads back
//! /api/v1/…      what the pages show and do, in JSON: see `api`
//! ```

mod api;
mod connections;
mod guard;
mod health;
pub(crate) mod operator;
mod page;
mod peer;
pub(crate) mod shared;
pub(crate) mod token;

use std::sync::Arc;

use axum::{Router, middleware};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use crate::web::shared::Shared;

/// Serves requests at the operator's port, and those of commands at the socket, until `stop` is cancelled.
pub(crate) async fn serve(
    shared: Shared,
    listener: TcpListener,
    socket: UnixListener,
    stop: CancellationToken,
) {
    let shared = Arc::new(shared);
    let router = Router::new()
        .merge(health::routes())
        .merge(api::routes())
        .merge(operator::routes())
        .merge(page::routes())
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard::guard))
        .with_state(Arc::clone(&shared));
    let served = async {
        tokio::join!(
            connections::serve(listener, router.clone(), stop.clone()),
            connections::serve(socket, router, stop),
        )
    };
    tokio::select! {
        _ = served => (),
        () = shared.keep_history() => (),
    }
}
