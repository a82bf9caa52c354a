//! Asks a daemon through its API: the one that uses the state directory, at its socket, or the one at `--url`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::http::uri::Authority;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::process::geteuid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::api::Refusal;
use crate::commands::failure::{BAD_ARGUMENTS, Failure};
use crate::commands::{block_on, note, plain};
use crate::config::Config;
use crate::daemon::socket;
use crate::daemon::state_dir::{self, DaemonFile};
use crate::percent::encoded;
use crate::web::operator::SUDO_HEADER;
use crate::web::token;

/// Time limit for an answer that changes nothing.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit for an action, for example for 100,000 dead letters.
const ACT_TIMEOUT: Duration = Duration::from_mins(10);
/// Time for which an action waits for a daemon that starts.
const START_LIMIT: Duration = Duration::from_secs(10);
const START_INTERVAL: Duration = Duration::from_millis(100);
/// Maximum size of an answer, in bytes.
const MAX_ANSWER: usize = 256 << 20;

/// The choice of the daemon that a command asks.
#[derive(Debug, Default, Args)]
pub(crate) struct Remote {
    /// Ask the daemon at this address, not the one that uses the state directory: for example http://10.0.0.7:8480
    #[arg(long, global = true, value_name = "URL", value_parser = authority)]
    url: Option<Authority>,
    /// File with the token for `--url`
    #[arg(long, global = true, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
}

/// Parses the address of a daemon.
fn authority(text: &str) -> Result<Authority, String> {
    if text.starts_with("https:") {
        return Err(
            "the daemon speaks plain HTTP; use `http://`, for example through an ssh tunnel"
                .to_owned(),
        );
    }
    let rest = text.strip_prefix("http://").unwrap_or(text);
    let authority = rest.strip_suffix('/').unwrap_or(rest).parse::<Authority>().ok();
    let authority = authority.filter(|authority| authority.port().is_some());
    authority
        .ok_or_else(|| "expected a host and a port, for example http://10.0.0.7:8480".to_owned())
}

/// The reason why a daemon gave no good answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// The daemon refused the request.
    #[error("{error}")]
    Refused { status: StatusCode, error: String },
    #[error("the daemon {0}")]
    Silent(String),
}

impl ClientError {
    /// Returns the status of a refusal.
    pub(super) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Silent(_) => None,
        }
    }

    /// Returns the failure of a command.
    pub(super) fn into_failure(self) -> Failure {
        match self.status() {
            Some(StatusCode::UNAUTHORIZED) => Failure::with_hint(
                self,
                "give the daemon's token with `--token-file`; for an action, give the token of `operate_token_file`",
            ),
            Some(
                StatusCode::BAD_REQUEST
                | StatusCode::PAYLOAD_TOO_LARGE
                | StatusCode::UNPROCESSABLE_ENTITY,
            ) => Failure::from(self).with_code(BAD_ARGUMENTS),
            Some(_) => Failure::from(self),
            None => Failure::with_hint(
                self,
                "look at the log of the daemon; if you gave `--url`, check the address and the network",
            ),
        }
    }
}

/// Returns `None` if the daemon does not know what was asked for.
pub(super) fn found<T>(answer: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        // `again` could be an id, and is a path that has only actions.
        Err(ClientError::Refused {
            status: StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED,
            ..
        }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The daemon that uses a state directory.
pub(super) enum Daemon {
    Running(Client),
    NotRunning,
    /// A daemon holds the lock of the directory, and nobody listens at its socket.
    Silent,
}

/// Asks one daemon.
#[derive(Debug)]
pub(super) struct Client {
    way: Way,
    token: Option<String>,
}

#[derive(Debug)]
enum Way {
    /// The socket in this state directory.
    Socket(PathBuf),
    Address(Authority),
}

impl Remote {
    /// Returns whether the daemon is named by its address, so that its files cannot be read.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.url.is_some()
    }

    /// Finds the daemon.
    pub(super) fn find(&self, config: &Config) -> Result<Daemon, Failure> {
        if let Some(url) = &self.url {
            let token = self.token_file.as_deref().map(token::read).transpose()?;
            return Ok(Daemon::Running(Client { way: Way::Address(url.clone()), token }));
        }
        let state = config.state.as_path();
        let daemon = DaemonFile::read(state).map_err(|error| {
            Failure::with_hint(
                error,
                "run the command as root or as the user of the daemon, or name the state directory with `--state`",
            )
        })?;
        if !state_dir::is_locked(state) {
            return Ok(Daemon::NotRunning);
        }
        Ok(match daemon {
            Some(daemon) if block_on(socket::connect(state))?.is_ok() => Daemon::Running(Client {
                way: Way::Socket(state.to_owned()),
                token: Some(daemon.key),
            }),
            _ => Daemon::Silent,
        })
    }

    /// Returns the answer of the daemon. If none is running, reads its files, and says so.
    ///
    /// # Errors
    ///
    /// If a daemon is running and does not answer: its files are left to it.
    pub(super) fn look<T>(
        &self,
        config: &Config,
        ask: impl FnOnce(&Client) -> Result<T, ClientError>,
        read_files: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        match self.wait_for(config)? {
            Some(client) => ask(&client).map_err(ClientError::into_failure),
            None => {
                let read = read_files()?;
                note("no daemon is running; this comes from its files");
                Ok(read)
            }
        }
    }

    /// Finds the daemon. Waits for one that starts. `None` if no daemon is running.
    ///
    /// # Errors
    ///
    /// If a daemon is running and cannot be asked: its files are left to it.
    pub(super) fn wait_for(&self, config: &Config) -> Result<Option<Client>, Failure> {
        let start = Instant::now();
        loop {
            match self.find(config)? {
                Daemon::Running(client) => return Ok(Some(client)),
                Daemon::NotRunning => return Ok(None),
                Daemon::Silent if start.elapsed() < START_LIMIT => {
                    std::thread::sleep(START_INTERVAL);
                }
                Daemon::Silent => {
                    return Err(ClientError::Silent(
                        "is running, but its socket does not answer".to_owned(),
                    )
                    .into_failure());
                }
            }
        }
    }
}

impl Client {
    /// Asks for what is at a path of the API, with parameters. Those without a value are left out.
    pub(super) fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, Option<&str>)],
    ) -> Result<T, ClientError> {
        let mut query = form(parameters);
        if !query.is_empty() {
            query.insert(0, '?');
        }
        // A list of dead letters is read from the queue.
        let limit = if path == "dead-letters" { ACT_TIMEOUT } else { LOOK_TIMEOUT };
        self.exchange(Method::GET, &format!("{path}{query}"), Bytes::new(), limit)
    }

    /// Has the daemon carry out an action.
    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).expect("a request contains only JSON types");
        self.exchange(Method::POST, path, body.into(), ACT_TIMEOUT)
    }

    fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<T, ClientError> {
        let silent = |error: String| ClientError::Silent(format!("does not answer: {error}"));
        let exchanged = block_on(async {
            match tokio::time::timeout(limit, self.send(method, path, body)).await {
                Ok(exchanged) => exchanged.map_err(|error| format!("{error:#}")),
                Err(_) => Err(format!("timeout after {} s", limit.as_secs())),
            }
        });
        let (status, text) =
            exchanged.map_err(|error| silent(error.to_string()))?.map_err(silent)?;
        if !status.is_success() {
            let error = match serde_json::from_slice::<Refusal>(&text) {
                // A daemon elsewhere could send anything to this terminal.
                Ok(Refusal { error }) => plain(&error),
                Err(_) => format!("the daemon answers with the status {status}"),
            };
            return Err(ClientError::Refused { status, error });
        }
        serde_json::from_slice(&text).map_err(|error| {
            ClientError::Silent(format!(
                "may have another version, because its answer cannot be read: {error}"
            ))
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let host = match &self.way {
            Way::Socket(_) => "localhost",
            Way::Address(authority) => authority.as_str(),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/{path}"))
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if let (Way::Socket(_), Some(user)) = (&self.way, sudo_user()) {
            request = request.header(SUDO_HEADER, user);
        }
        let request = request.body(Full::new(body))?;
        match &self.way {
            Way::Socket(state) => over(socket::connect(state).await?, request).await,
            Way::Address(authority) => {
                over(TcpStream::connect(authority.as_str()).await?, request).await
            }
        }
    }
}

/// Returns the number of the user who called this command by sudo.
pub(super) fn sudo_user() -> Option<u32> {
    let user = std::env::var("SUDO_UID").ok().filter(|_| geteuid().is_root())?;
    user.parse().ok()
}

/// Sends a request over a connection of its own, and reads the answer.
async fn over(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| anyhow!(error))?;
    Ok((head.status, body.to_bytes()))
}

/// Returns parameters as the part of an address after `?`: RFC 3986, section 2.
fn form(parameters: &[(&str, Option<&str>)]) -> String {
    let pair =
        |(name, value): &(&str, Option<&str>)| Some(format!("{name}={}", encoded((*value)?)));
    parameters.iter().filter_map(pair).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_a_port_and_no_tls() {
        for (text, expected) in [
            ("http://10.0.0.7:8480", Some("10.0.0.7:8480")),
            ("bus.example.org:8480/", Some("bus.example.org:8480")),
            ("http://[::1]:8480", Some("[::1]:8480")),
            ("http://10.0.0.7", None),
            ("https://10.0.0.7:8480", None),
            ("http://a:1/path", None),
            ("", None),
        ] {
            let found = authority(text).ok();
            assert_eq!(found.as_ref().map(Authority::as_str), expected, "{text}");
        }
    }

    #[test]
    fn parameters_are_encoded_and_empty_ones_left_out() {
        assert_eq!(
            form(&[("a", Some("x &=%#ä")), ("b", None), ("c", Some("1"))]),
            "a=x%20%26%3D%25%23%C3%A4&c=1"
        );
        assert_eq!(form(&[("b", None)]), "");
    }
}
