//! What a task has beside its message: facts about the run, and what its manifest grants.
//!
//! Owns the words in which a missing line of the manifest is asked for. What is behind it is the
//! host, or natively the stand-in of [`crate::test`].

use std::fmt::Display;
use std::time::Duration;

use serde::Serialize;

use crate::http::Http;
use crate::{Failure, Result, State, host};

/// What a task has beside its message.
///
/// A task that needs it takes it as its second argument. It holds nothing: its methods ask the
/// host, or in a native test the stand-in that [`crate::test`] prepares.
///
/// ```
/// use std::time::Duration;
///
/// use loopabull_task::{Context, Message, Result, retry, task, test};
///
/// #[task]
/// fn mirror(message: Message, cx: &Context) -> Result {
///     cx.note("mirror", cx.require("mirror")?);
///     if cx.attempt() == 1 {
///         cx.retry_after(Duration::from_secs(90));
///         return retry("the mirror is not synced");
///     }
///     cx.emit("org.example.mirror.synced", &message.body)
/// }
///
/// # fn main() {
/// let message = test::message("org.example.mirror", "{}").config("mirror", "eu");
/// let run = message.clone().run(mirror);
/// assert_eq!(run.retry_after, Some(Duration::from_secs(90)));
/// let run = message.attempt(2).run(mirror);
/// assert_eq!(run.emitted[0].topic, "org.example.mirror.synced");
/// assert_eq!(run.note("mirror"), Some("eu"));
/// # }
/// ```
#[derive(Debug)]
pub struct Context(());

impl Context {
    /// Returns the context of the run that is under way in this thread.
    pub(crate) const fn of_this_run() -> Self {
        Context(())
    }

    /// Returns the id of this run, as in `loopabull-host runs`.
    pub fn run_id(&self) -> String {
        host::context::run_id()
    }

    /// Returns which attempt at this message this is, counted from 1.
    pub fn attempt(&self) -> u32 {
        host::context::attempt()
    }

    /// Returns the time that is left until this run is stopped.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(host::context::deadline_ms())
    }

    /// Asks for a pause before the next attempt, if this run ends in a retry.
    ///
    /// Without it the pause is that of the task's manifest. Reads as
    /// `cx.retry_after(Duration::from_secs(90)); return retry("the mirror is not synced");`. The
    /// host caps it at seven days, and takes the last one if there are several.
    pub fn retry_after(&self, pause: Duration) {
        host::context::retry_after_ms(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
    }

    /// Keeps a short remark with the run.
    ///
    /// It is shown wherever the run is listed. The host caps number and length.
    pub fn note(&self, key: &str, value: impl Display) {
        host::context::note(key, &value.to_string());
    }

    /// Returns a value of the manifest's `[config]` table, or none if it does not name the key.
    pub fn config(&self, key: &str) -> Option<String> {
        host::config::get(key)
    }

    /// Returns a value of the manifest's `[config]` table that the task cannot do without.
    ///
    /// # Errors
    ///
    /// [`Failure::Reject`] with the line to add if the manifest does not name the key.
    pub fn require(&self, key: &str) -> Result<String> {
        self.config(key).ok_or_else(|| {
            Failure::Reject(format!(
                "the task's manifest has no `{key}`; add `{key} = \"...\"` under `[config]`"
            ))
        })
    }

    /// Returns a secret that the manifest refers to.
    ///
    /// Needs `[grants.secrets]`. Wherever its value turns up in what is kept of the run, the host
    /// masks it; a message or a state that holds it is refused.
    ///
    /// # Errors
    ///
    /// [`Failure::Reject`] with the lines to add if the manifest does not name the secret.
    pub fn secret(&self, name: &str) -> Result<String> {
        host::secrets::get(name).ok_or_else(|| {
            Failure::Reject(format!(
                "the task's manifest has no secret `{name}`; add `{name} = {{ file = \"...\" }}` \
                 under `[grants.secrets]`"
            ))
        })
    }

    /// Sends a message if this run succeeds; of a run that fails nothing is sent.
    ///
    /// Needs a pattern in `emit` under `[grants]` that the topic matches. The host caps number and
    /// size, and ends a run that goes beyond.
    ///
    /// # Errors
    ///
    /// [`Failure::Reject`] if the topic is not granted or malformed, or the body holds a secret or
    /// cannot be written as JSON.
    pub fn emit(&self, topic: &str, body: &(impl Serialize + ?Sized)) -> Result {
        self.emit_with_headers(topic, &[], body)
    }

    /// Sends a message with headers, as [`Context::emit`] does.
    ///
    /// # Errors
    ///
    /// As [`Context::emit`].
    pub fn emit_with_headers(
        &self,
        topic: &str,
        headers: &[(&str, &str)],
        body: &(impl Serialize + ?Sized),
    ) -> Result {
        let cannot =
            |reason| Failure::Reject(format!("cannot send a message to `{topic}`: {reason}"));
        let body = serde_json::to_vec(body).map_err(|error| cannot(error.to_string()))?;
        let headers: Vec<(String, String)> =
            headers.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        host::emit::publish(topic, &headers, &body).map_err(cannot)
    }

    /// Returns what the task remembers from message to message. Needs `state` under `[grants]`.
    pub fn state(&self) -> State {
        State::of_this_run()
    }

    /// Returns a client for HTTP. Needs `http` under `[grants]`.
    pub fn http(&self) -> Http {
        Http::of_this_run()
    }
}

#[cfg(test)]
mod tests {
    use crate::test::{self, Run};
    use crate::{Context, Failure, Message, Result, reject};

    fn require_colour(_: Message, cx: &Context) -> Result {
        assert_eq!(cx.config("colour"), Some(cx.require("colour")?));
        Ok(())
    }

    fn use_token(_: Message, cx: &Context) -> Result {
        cx.note("token", cx.secret("token")?);
        Ok(())
    }

    fn emit(task: fn(Message, &Context) -> Result) -> Run {
        test::message("org.example", "{}").secret("token", "s3cret").run(task)
    }

    #[test]
    fn value_of_the_manifest_is_found() {
        let run = test::message("org.example", "{}").config("colour", "red").run(require_colour);
        assert_eq!(run.result, Ok(()));
    }

    #[test]
    fn missing_value_is_rejected_with_the_line_to_add() {
        let run = test::message("org.example", "{}").run(require_colour);
        let reason = "the task's manifest has no `colour`; add `colour = \"...\"` under `[config]`";
        assert_eq!(run.result, reject(reason));
    }

    #[test]
    fn secret_of_the_manifest_is_found() {
        let run = test::message("org.example", "{}").secret("token", "s3cret").run(use_token);
        assert_eq!(run.note("token"), Some("s3cret"));
    }

    #[test]
    fn missing_secret_is_rejected_with_the_lines_to_add() {
        let run = test::message("org.example", "{}").run(use_token);
        let reason = "the task's manifest has no secret `token`; add \
                      `token = { file = \"...\" }` under `[grants.secrets]`";
        assert_eq!(run.result, reject(reason));
    }

    #[test]
    fn emissions_keep_their_order_and_headers() {
        let run = emit(|_, cx| {
            cx.emit("org.example.a", &1)?;
            cx.emit_with_headers("org.example.b", &[("k", "v"), ("k", "w")], &[2])
        });
        assert_eq!(run.emitted[0].topic, "org.example.a");
        assert_eq!(run.emitted[0].body, 1);
        let headers = [("k", "v"), ("k", "w")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(run.emitted[1].headers, headers);
        assert_eq!(run.emitted[1].body[0], 2);
    }

    #[test]
    fn of_a_failed_run_nothing_is_sent() {
        let run = emit(|_, cx| {
            cx.emit("org.example.a", &1)?;
            reject("no")
        });
        assert!(run.emitted.is_empty());
    }

    #[test]
    fn emission_that_holds_a_secret_is_refused() {
        let run = emit(|_, cx| cx.emit("org.example.a", &["a s3cret"]));
        let reason = "cannot send a message to `org.example.a`: its body holds the secret `token`";
        assert_eq!(run.result, reject(reason));
    }

    #[test]
    fn emission_to_a_malformed_topic_is_refused() {
        for topic in ["", "org..example", "org.*"] {
            let run = test::message("org.example", "{}")
                .run(|_: Message, cx: &Context| cx.emit(topic, &1));
            let Err(Failure::Reject(reason)) = run.result else { panic!("{:?}", run.result) };
            assert_eq!(reason, format!("cannot send a message to `{topic}`: it is not a topic"));
        }
    }
}
