//! The stand-in for the host in native tests. Its functions have the signatures of the imports.
//!
//! The stand-in has the values that a test prepared for the task, and records the actions of the task. It
//! enforces no limits and grants everything, because only the real host reads the manifest.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::recorded::{Emitted, LogLine, Request};

thread_local! {
    static HOST: RefCell<Option<Host>> = const { RefCell::new(None) };
}

/// The values that the stand-in returns to a task, and the recorded actions of the task.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) run_id: String,
    pub(crate) attempt: u32,
    pub(crate) deadline: Duration,
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) secrets: Secrets,
    pub(crate) state: BTreeMap<String, Vec<u8>>,
    pub(crate) responses: VecDeque<Prepared>,
    pub(crate) log: Vec<LogLine>,
    pub(crate) notes: Vec<(String, String)>,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) emitted: Vec<Emitted>,
    pub(crate) requests: Vec<Request>,
}

/// The secrets of a task.
#[derive(Clone, Debug)]
pub(crate) enum Secrets {
    /// Only these secrets exist.
    Named(BTreeMap<String, String>),
    /// Every secret exists. The value of the secret `token` is `secret-token`. The map contains the secrets
    /// that the task has read.
    Any(BTreeMap<String, String>),
}

/// A prepared response, which answers one request.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl Default for Host {
    fn default() -> Self {
        Host {
            run_id: "test-run".to_owned(),
            attempt: 1,
            deadline: Duration::from_secs(5),
            config: BTreeMap::new(),
            secrets: Secrets::Named(BTreeMap::new()),
            state: BTreeMap::new(),
            responses: VecDeque::new(),
            log: Vec::new(),
            notes: Vec::new(),
            retry_after: None,
            emitted: Vec::new(),
            requests: Vec::new(),
        }
    }
}

impl Host {
    /// Returns the name of a secret whose value is in `bytes`.
    fn secret_in(&self, bytes: &[u8]) -> Option<&str> {
        let (Secrets::Named(secrets) | Secrets::Any(secrets)) = &self.secrets;
        let text = String::from_utf8_lossy(bytes);
        let found =
            secrets.iter().find(|(_, value)| !value.is_empty() && text.contains(value.as_str()));
        found.map(|(name, _)| name.as_str())
    }

    fn set(&mut self, key: &str, value: &[u8]) -> Result<(), String> {
        if let Some(name) = self.secret_in(value) {
            return Err(format!("the value contains the secret `{name}`"));
        }
        self.state.insert(key.to_owned(), value.to_vec());
        Ok(())
    }
}

/// Runs `task` with the stand-in `host`. Returns the result of the task, and the stand-in with the recorded
/// actions.
pub(crate) fn run<R>(host: Host, task: impl FnOnce() -> R) -> (R, Host) {
    HOST.set(Some(host));
    let result = task();
    let host = HOST.take().expect("a task does not run another task through `test`");
    (result, host)
}

/// Calls `f` with the stand-in of this thread. If a test calls a task directly, `f` gets a stand-in with
/// default values, whose record is dropped.
fn with<R>(f: impl FnOnce(&mut Host) -> R) -> R {
    HOST.with_borrow_mut(|host| match host {
        Some(host) => f(host),
        None => f(&mut Host::default()),
    })
}

pub(crate) mod context {
    use super::with;

    pub(crate) fn run_id() -> String {
        with(|host| host.run_id.clone())
    }

    pub(crate) fn attempt() -> u32 {
        with(|host| host.attempt)
    }

    pub(crate) fn deadline_ms() -> u64 {
        with(|host| u64::try_from(host.deadline.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn retry_after_ms(ms: u64) {
        with(|host| host.retry_after = Some(std::time::Duration::from_millis(ms)));
    }

    pub(crate) fn note(key: &str, value: &str) {
        with(|host| host.notes.push((key.to_owned(), value.to_owned())));
    }
}

pub(crate) mod log {
    use super::{LogLine, with};
    use crate::bindings::loopabull::task::log::Level;

    pub(crate) fn write(level: Level, text: &str, fields: &[(String, String)]) {
        with(|host| {
            host.log.push(LogLine { level, text: text.to_owned(), fields: fields.to_vec() });
        });
    }
}

pub(crate) mod config {
    use super::with;

    pub(crate) fn get(key: &str) -> Option<String> {
        with(|host| host.config.get(key).cloned())
    }
}

pub(crate) mod secrets {
    use super::{Secrets, with};

    pub(crate) fn get(name: &str) -> Option<String> {
        with(|host| match &mut host.secrets {
            Secrets::Named(secrets) => secrets.get(name).cloned(),
            Secrets::Any(asked_for) => {
                let value = asked_for.entry(name.to_owned());
                Some(value.or_insert_with(|| format!("secret-{name}")).clone())
            }
        })
    }
}

pub(crate) mod emit {
    use super::{Emitted, with};

    pub(crate) fn publish(
        topic: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) -> Result<(), String> {
        let is_word = |word: &str| !word.is_empty() && !word.contains(['*', '#', ' ']);
        if !topic.split('.').all(is_word) {
            return Err("the topic is invalid".to_owned());
        }
        with(|host| {
            if let Some(name) = host.secret_in(body) {
                return Err(format!("the body contains the secret `{name}`"));
            }
            let body = serde_json::from_slice(body).map_err(|error| error.to_string())?;
            let headers = headers.to_vec();
            host.emitted.push(Emitted { topic: topic.to_owned(), headers, body });
            Ok(())
        })
    }
}

pub(crate) mod state {
    use super::with;

    pub(crate) fn get(key: &str) -> Option<Vec<u8>> {
        with(|host| host.state.get(key).cloned())
    }

    pub(crate) fn set(key: &str, value: &[u8]) -> Result<(), String> {
        with(|host| host.set(key, value))
    }

    pub(crate) fn delete(key: &str) {
        with(|host| host.state.remove(key));
    }

    pub(crate) fn compare_and_swap(
        key: &str,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<bool, String> {
        with(|host| {
            if host.state.get(key).map(Vec::as_slice) != expected {
                return Ok(false);
            }
            match new {
                Some(new) => host.set(key, new)?,
                None => drop(host.state.remove(key)),
            }
            Ok(true)
        })
    }
}

pub(crate) mod http {
    use super::{Request, with};
    use crate::host::exchange::{Incoming, Outgoing, SendError};

    pub(crate) fn send(request: &Outgoing<'_>) -> Result<Incoming, SendError> {
        let url = request.url.to_string();
        with(|host| {
            host.requests.push(Request {
                method: request.method.to_owned(),
                url: url.clone(),
                headers: request.headers.to_vec(),
                body: request.body.to_vec(),
            });
            let matches = |prepared: &super::Prepared| {
                prepared.method.eq_ignore_ascii_case(request.method) && prepared.url == url
            };
            let index = host.responses.iter().position(matches);
            let Some(prepared) = index.and_then(|index| host.responses.remove(index)) else {
                return Err(SendError::Failed(format!("no response is prepared for `{url}`")));
            };
            if prepared.body.len() > request.max_response_bytes {
                return Err(SendError::TooLarge);
            }
            Ok(Incoming { status: prepared.status, headers: Vec::new(), body: prepared.body })
        })
    }
}
