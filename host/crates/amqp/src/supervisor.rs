//! The supervisor: keeps a session with a broker, and reconnects whenever the session ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use loopabull_backoff::Backoff;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, STEP_TIMEOUT};
use crate::error::AmqpError;
use crate::error_chain::chain;
use crate::session::Session;

/// Minimum duration of a session after which the back-off starts again with its shortest wait.
const STABLE_SESSION_TIME: Duration = Duration::from_secs(30);

/// Keeps a session with a broker, and reconnects whenever the session ends.
#[derive(Debug)]
pub struct Supervisor {
    broker: Broker,
    state: watch::Receiver<State>,
    /// Task that reconnects. Dropping the supervisor aborts the task.
    _task: JoinSet<()>,
}

#[derive(Clone, Debug)]
enum State {
    Up(Arc<Session>),
    Down(String),
}

impl Supervisor {
    /// Connects to the broker. Returns an error if the first attempt fails. After that, reconnects whenever
    /// the session ends.
    pub async fn start(broker: Broker) -> Result<Self, AmqpError> {
        let first = Arc::new(Session::start(&broker, 1).await?);
        let (sender, state) = watch::channel(State::Up(Arc::clone(&first)));
        let mut task = JoinSet::new();
        task.spawn(keep_connected(broker.clone(), first, sender));
        Ok(Self { broker, state, _task: task })
    }

    /// Returns the current session. If there is none, waits for a new session for at most [`STEP_TIMEOUT`].
    pub async fn session(&self) -> Result<Arc<Session>, AmqpError> {
        let mut state = self.state.clone();
        let is_up = |state: &State| matches!(state, State::Up(session) if session.is_up());
        let up = tokio::time::timeout(STEP_TIMEOUT, state.wait_for(is_up)).await;
        if let Ok(Ok(state)) = up
            && let State::Up(session) = &*state
        {
            return Ok(Arc::clone(session));
        }
        let reason = match &*self.state.borrow() {
            State::Down(reason) => reason.clone(),
            State::Up(_) => "the connection was lost".to_owned(),
        };
        Err(AmqpError::NotConnected { broker: self.broker.name().to_owned(), reason })
    }

    /// Returns the current problem of the connections, if there is one.
    pub fn problem(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Down(reason) => Some(format!("not connected: {reason}")),
            State::Up(session) if session.is_blocked() => {
                Some("the broker accepts no messages: memory or disk alarm".to_owned())
            }
            State::Up(session) if session.is_stalled() => Some(format!(
                "the broker has not confirmed a publish for {} s",
                STEP_TIMEOUT.as_secs()
            )),
            State::Up(_) => None,
        }
    }
}

/// Waits until the session ends, and then starts a new session. Repeats this until the task is aborted.
async fn keep_connected(broker: Broker, mut session: Arc<Session>, state: watch::Sender<State>) {
    let never = CancellationToken::new();
    let mut backoff = Backoff::default();
    let mut generation = session.generation();
    loop {
        let since = Instant::now();
        session.watch().await;
        if since.elapsed() >= STABLE_SESSION_TIME {
            backoff.reset();
        }
        tracing::warn!("the connection to RabbitMQ at `{}` was lost; reconnecting", broker.name());
        state.send_replace(State::Down("the connection was lost".to_owned()));
        session.close().await;
        session = loop {
            backoff.pause(&never).await;
            generation += 1;
            match Session::start(&broker, generation).await {
                Ok(session) => break Arc::new(session),
                Err(error) => {
                    let reason = chain(&error);
                    tracing::warn!("{reason}; retrying");
                    // Removes the name of the broker from the reason, because all users of the reason add the
                    // name.
                    let prefix = format!("RabbitMQ at `{}`: ", broker.name());
                    let reason = reason.strip_prefix(&prefix).unwrap_or(&reason);
                    state.send_replace(State::Down(reason.to_owned()));
                }
            }
        };
        tracing::info!("reconnected to RabbitMQ at `{}`", broker.name());
        state.send_replace(State::Up(Arc::clone(&session)));
    }
}
