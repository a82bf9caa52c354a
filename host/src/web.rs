//! The operator's port, which serves health, metrics and status over HTTP:
//!
//! ```text
//! GET /livez     200 as long as the daemon answers
//! GET /readyz    200 if the daemon is ready, or 503 with one problem on each line
//! GET /metrics   the metrics, in Prometheus' text format
//! GET /status    the current activity, in JSON: see `Status`
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

use crate::observe::activity::Activity;
use crate::observe::health::Health;
use crate::observe::metrics::Metrics;
use crate::observe::status::Status;
use crate::work::pauses::Pauses;

/// Time limit for reading the depths of the queues. After this time, a response contains no depths.
const DEPTH_TIMEOUT: Duration = Duration::from_secs(3);

/// The HTTP server of the operator's port, with the parts of the daemon on which it reports.
pub(crate) struct Web {
    pub health: Arc<Health>,
    pub activity: Arc<Activity>,
    pub metrics: Arc<Metrics>,
    pub queues: Arc<Queues>,
    pub names: Vec<QueueName>,
    pub pauses: Arc<Pauses>,
    pub drain: CancellationToken,
}

impl Web {
    /// Serves requests until `stop` is cancelled.
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

    /// Returns the depth of each queue that can be read, or no depths after [`DEPTH_TIMEOUT`].
    async fn depths(&self) -> Vec<(QueueName, Depth)> {
        let read = async {
            let mut depths = Vec::new();
            for name in &self.names {
                if let Ok(depth) = self.queues.depth(name).await {
                    depths.push((name.clone(), depth));
                }
            }
            depths
        };
        tokio::time::timeout(DEPTH_TIMEOUT, read).await.unwrap_or_default()
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = self.health.problems();
        problems.extend(self.queues.problem());
        problems
    }
}

async fn readyz(State(web): State<Arc<Web>>) -> Response {
    let mut problems = web.problems();
    if web.drain.is_cancelled() {
        problems.push("draining: no new messages are received".to_owned());
    }
    if web.depths().await.len() < web.names.len() {
        problems.push("queue: cannot read the depth of at least one queue".to_owned());
    }
    if problems.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n").into_response()
}

async fn metrics(State(web): State<Arc<Web>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = web.metrics.encode(&web.depths().await, web.pauses.current().keys());
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn status(State(web): State<Arc<Web>>) -> Response {
    let depths = web.depths().await;
    let activity = web.activity.snapshot();
    let status = Status::new(activity, depths, &web.pauses.current(), web.problems());
    let text = serde_json::to_string(&status).expect("a status contains only JSON types");
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
