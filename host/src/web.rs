//! The operator's port, which serves health, metrics and status over HTTP:
//!
//! ```text
//! GET /livez     200 as long as the daemon answers
//! GET /readyz    200 if the daemon is ready, or 503 with one problem on each line: the sources are connected,
//!                messages are stored, and all tasks can run
//! GET /warnings  200 if nothing needs an operator, or 503 with one warning on each line: dead letters, held
//!                messages, pauses, and messages that have waited for an hour
//! GET /metrics   the metrics, in Prometheus' text format
//! GET /status    the current activity, in JSON: see `Status`
//! ```

mod connections;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use loopabull_model::{QueueName, TaskName};
use loopabull_queue::{Depth, Queues};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::observe::activity::Activity;
use crate::observe::health::Health;
use crate::observe::metrics::Metrics;
use crate::observe::status::Status;
use crate::observe::warnings;
use crate::tasks::catalog::CurrentCatalog;
use crate::work::pauses::Pauses;

/// Time limit for reading the depths of the queues. After this time, a response contains no depths.
const DEPTH_TIMEOUT: Duration = Duration::from_secs(3);

/// The HTTP server of the operator's port, with the parts of the daemon on which it reports.
pub(crate) struct Web {
    pub health: Arc<Health>,
    pub catalog: Arc<CurrentCatalog>,
    pub activity: Arc<Activity>,
    pub metrics: Arc<Metrics>,
    pub queues: Arc<Queues>,
    pub names: Vec<QueueName>,
    pub pauses: Arc<Pauses>,
    /// Host names under which the port may be addressed, besides IP addresses and `localhost`.
    pub allowed_hosts: Vec<String>,
    pub drain: CancellationToken,
}

impl Web {
    /// Serves requests until `stop` is cancelled.
    pub(crate) async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let web = Arc::new(self);
        let router = Router::new()
            .route("/livez", get(|| async { "alive\n" }))
            .route("/readyz", get(readyz))
            .route("/warnings", get(show_warnings))
            .route("/metrics", get(metrics))
            .route("/status", get(status))
            .layer(middleware::from_fn_with_state(Arc::clone(&web), check_host))
            .with_state(web);
        connections::serve(listener, router, stop).await;
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

    /// Returns one line for each problem. `depths` are the depths that could be read.
    fn problems(&self, depths: &[(QueueName, Depth)]) -> Vec<String> {
        let mut problems = self.health.problems();
        problems.extend(self.activity.problems());
        problems.extend(self.catalog.get().problem_lines());
        problems.extend(self.queues.problem());
        if self.drain.is_cancelled() {
            problems.push("draining: no new messages are received".to_owned());
        }
        problems.extend(self.unread(depths));
        problems
    }

    /// Returns a line if the depth of a queue could not be read.
    fn unread(&self, depths: &[(QueueName, Depth)]) -> Option<String> {
        (depths.len() < self.names.len())
            .then(|| "queue: cannot read the depth of at least one queue".to_owned())
    }
}

/// Refuses a request whose `Host` names another machine. A web page whose host name was made to point
/// to this machine (DNS rebinding) sends its own name there.
async fn check_host(State(web): State<Arc<Web>>, request: Request, next: Next) -> Response {
    match host_of(request.headers()) {
        Some(host) if !is_allowed(&host, &web.allowed_hosts) => {
            let text = format!("host `{host}` is not in `allowed_hosts` of the configuration\n");
            (StatusCode::FORBIDDEN, text).into_response()
        }
        _ => next.run(request).await,
    }
}

/// Returns the host of the `Host` header without its port. A client without the header is no browser.
fn host_of(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::HOST)?;
    let authority = value.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
    Some(authority.map_or_else(
        || value.as_bytes().escape_ascii().to_string(),
        |authority| authority.host().to_owned(),
    ))
}

fn is_allowed(host: &str, allowed: &[String]) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    address.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || allowed.iter().any(|name| host.eq_ignore_ascii_case(name))
}

async fn readyz(State(web): State<Arc<Web>>) -> Response {
    list(&web.problems(&web.depths().await), "ready\n")
}

async fn show_warnings(State(web): State<Arc<Web>>) -> Response {
    let depths = web.depths().await;
    let mut lines =
        warnings::warnings(&depths, &web.pauses.current(), web.activity.snapshot().losses);
    lines.extend(web.unread(&depths));
    list(&lines, "no warnings\n")
}

/// Returns a response with one line for each item, or with `none` if there are no items.
fn list(lines: &[String], none: &'static str) -> Response {
    match lines {
        [] => none.into_response(),
        lines => (StatusCode::SERVICE_UNAVAILABLE, lines.join("\n") + "\n").into_response(),
    }
}

async fn metrics(State(web): State<Arc<Web>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = web.metrics.encode(&web.depths().await, web.pauses.current().keys());
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn status(State(web): State<Arc<Web>>) -> Response {
    let depths = web.depths().await;
    let activity = web.activity.snapshot();
    let (problems, catalog) = (web.problems(&depths), web.catalog.get());
    let why_held = |task: &TaskName| match catalog.refused(task) {
        Some(reason) => format!("refused: {reason}"),
        None => "held by another host, or about to be released".to_owned(),
    };
    let draining = web.drain.is_cancelled();
    let status = Status::new(activity, depths, &web.pauses.current(), why_held, draining, problems);
    let text = serde_json::to_string(&status).expect("a status contains only JSON types");
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, expected: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        let host = host_of(&headers).unwrap();
        assert_eq!(is_allowed(&host, &["queue.example.org".to_owned()]), expected, "{host}");
    }

    #[test]
    fn only_addresses_and_known_names_are_allowed() {
        for host in ["127.0.0.1:8480", "[::1]:8480", "10.0.0.7", "localhost", "LocalHost:1"] {
            check(host, true);
        }
        check("queue.example.org:8480", true);
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8480", "@", ""]
        {
            check(host, false);
        }
    }
}
