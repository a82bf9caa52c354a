//! The operator's port:
//!
//! ```text
//! GET /livez     200 as long as the daemon answers
//! GET /readyz    200 ready, or 503 with a reason on each line
//! GET /metrics   Prometheus text
//! GET /status    what runs, as JSON: see `Status`
//! ```

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use loopabull_model::QueueName;
use loopabull_queue::{Depth, Queues};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::observe::metrics::Metrics;
use crate::observe::status::{Board, PauseStatus};
use crate::work::pauses::Pauses;

/// How long a look at the queue may take before the answer goes without it.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the port shows.
pub(crate) struct Web {
    pub board: Arc<Board>,
    pub metrics: Arc<Metrics>,
    pub queues: Arc<Queues>,
    pub names: Vec<QueueName>,
    pub pauses: Arc<Pauses>,
    pub drain: CancellationToken,
}

impl Web {
    /// Serves until `stop`.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        stop: CancellationToken,
    ) -> std::io::Result<()> {
        let router = Router::new()
            .route("/livez", get(|| async { "alive\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/status", get(status))
            .with_state(Arc::new(self));
        axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await
    }

    /// Returns how full the queues are that answer in time.
    async fn depths(&self) -> Vec<(QueueName, Depth)> {
        let look = async {
            let mut depths = Vec::new();
            for name in &self.names {
                if let Ok(depth) = self.queues.depth(name).await {
                    depths.push((name.clone(), depth));
                }
            }
            depths
        };
        tokio::time::timeout(PATIENCE, look).await.unwrap_or_default()
    }

    fn troubles(&self) -> Vec<String> {
        let mut troubles = self.board.troubles();
        troubles.extend(self.queues.problem());
        troubles
    }
}

async fn readyz(State(web): State<Arc<Web>>) -> Response {
    let mut troubles = web.troubles();
    if web.drain.is_cancelled() {
        troubles.push("draining: nothing new is taken".to_owned());
    }
    if web.depths().await.len() < web.names.len() {
        troubles.push("queue: it does not answer".to_owned());
    }
    if troubles.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, troubles.join("\n") + "\n").into_response()
}

async fn metrics(State(web): State<Arc<Web>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = web.metrics.encode(&web.depths().await, web.pauses.known().keys());
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn status(State(web): State<Arc<Web>>) -> Response {
    let pauses = web.pauses.known();
    let pauses = pauses
        .iter()
        .map(|(target, pause)| PauseStatus { target: target.clone(), pause: pause.clone() })
        .collect();
    let mut status = web.board.status(web.depths().await, pauses);
    status.troubles = web.troubles();
    let text = serde_json::to_string(&status).expect("a status is made of JSON types");
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
