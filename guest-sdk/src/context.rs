//! The context of a run: facts about the run, and access to the grants of the manifest.
//!
//! If the manifest lacks a line that the task needs, the error contains this line. The values come from the
//! host, or in native tests from the stand-in that [`crate::test`] prepares.

use std::fmt::Display;
use std::time::Duration;

use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::host;
use crate::http::Http;
use crate::state::State;

/// The context of a run: facts about the run, and access to the grants of the manifest.
///
/// A task that needs the context takes `&Context` as its second argument. The methods call the host. In a
/// native test they call the stand-in that [`crate::test`] prepares.
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
    /// Returns the context of the run in the current thread.
    pub(crate) const fn of_this_run() -> Self {
        Context(())
    }

    /// Returns the id of this run. `loopabull-host runs` shows the same id.
    pub fn run_id(&self) -> String {
        host::context::run_id()
    }

    /// Returns the number of the current attempt to handle the message, counted from 1.
    pub fn attempt(&self) -> u32 {
        host::context::attempt()
    }

    /// Returns the time that is left until the host stops the run.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(host::context::deadline_ms())
    }

    /// Sets the back-off before the next attempt. It has an effect only if this run ends with
    /// [`Failure::Retry`].
    ///
    /// Without this call, the manifest decides the back-off. The host reduces a longer back-off to seven
    /// days. If a run calls this function several times, the last value is used.
    pub fn retry_after(&self, pause: Duration) {
        host::context::retry_after_ms(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
    }

    /// Stores a short note with the run. `loopabull-host runs` shows the notes of a run.
    ///
    /// The host keeps at most 32 notes of a run, and truncates keys and values to 1000 characters.
    pub fn note(&self, key: &str, value: impl Display) {
        host::context::note(key, &value.to_string());
    }

    /// Returns a value from the manifest's `[config]` table, or `None` if the table does not have the
    /// key.
    pub fn config(&self, key: &str) -> Option<String> {
        host::config::get(key)
    }

    /// Returns a required value from the manifest's `[config]` table.
    ///
    /// # Errors
    ///
    /// [`Failure::Reject`] if the table does not have the key. The reason contains the missing line.
    pub fn require(&self, key: &str) -> Result<String> {
        self.config(key).ok_or_else(|| {
            Failure::Reject(format!(
                "the task's manifest has no `{key}`; add `{key} = \"...\"` under `[config]`"
            ))
        })
    }

    /// Returns a secret that the manifest grants under `[grants.secrets]`.
    ///
    /// The host masks the value of the secret in the record of the run. The host refuses emitted messages and
    /// state values that contain the secret.
    ///
    /// # Errors
    ///
    /// [`Failure::Reject`] if the manifest does not grant the secret. The reason contains the missing line.
    pub fn secret(&self, name: &str) -> Result<String> {
        host::secrets::get(name).ok_or_else(|| {
            Failure::Reject(format!(
                "the task's manifest has no secret `{name}`; add `{name} = {{ file = \"...\" }}` \
                 under `[grants.secrets]`"
            ))
        })
    }

    /// Emits a message. The host sends the message after this run has succeeded. The messages of a failed run
    /// are dropped.
    ///
    /// The topic must match a pattern in `emit` under `[grants]`. The host limits the number and the size of
    /// emitted messages, and ends a run that exceeds a limit.
    ///
    /// # Errors
    ///
    /// [`Failure::Reject`] if the topic is invalid or not granted, or if the body contains a secret or
    /// cannot be written as JSON.
    pub fn emit(&self, topic: &str, body: &(impl Serialize + ?Sized)) -> Result {
        self.emit_with_headers(topic, &[], body)
    }

    /// Emits a message with headers. See [`Context::emit`].
    ///
    /// # Errors
    ///
    /// The errors of [`Context::emit`], and [`Failure::Reject`] if a header is invalid.
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

    /// Returns the state of the task, which is kept from one message to the next. The manifest must grant
    /// `state` under `[grants]`.
    pub fn state(&self) -> State {
        State::of_this_run()
    }

    /// Returns an HTTP client. The manifest must grant `http` under `[grants]`.
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
    fn a_configured_value_is_returned() {
        let run = test::message("org.example", "{}").config("colour", "red").run(require_colour);
        assert_eq!(run.result, Ok(()));
    }

    #[test]
    fn a_missing_value_is_rejected_with_the_line_to_add() {
        let run = test::message("org.example", "{}").run(require_colour);
        let reason = "the task's manifest has no `colour`; add `colour = \"...\"` under `[config]`";
        assert_eq!(run.result, reject(reason));
    }

    #[test]
    fn a_granted_secret_is_returned() {
        let run = test::message("org.example", "{}").secret("token", "s3cret").run(use_token);
        assert_eq!(run.note("token"), Some("s3cret"));
    }

    #[test]
    fn a_missing_secret_is_rejected_with_the_line_to_add() {
        let run = test::message("org.example", "{}").run(use_token);
        let reason = "the task's manifest has no secret `token`; add \
                      `token = { file = \"...\" }` under `[grants.secrets]`";
        assert_eq!(run.result, reject(reason));
    }

    #[test]
    fn emitted_messages_keep_their_order_and_headers() {
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
    fn a_failed_run_emits_nothing() {
        let run = emit(|_, cx| {
            cx.emit("org.example.a", &1)?;
            reject("no")
        });
        assert!(run.emitted.is_empty());
    }

    #[test]
    fn a_message_that_contains_a_secret_is_refused() {
        let run = emit(|_, cx| cx.emit("org.example.a", &["a s3cret"]));
        let reason =
            "cannot send a message to `org.example.a`: the body contains the secret `token`";
        assert_eq!(run.result, reject(reason));
    }

    #[test]
    fn a_message_to_an_invalid_topic_is_refused() {
        for topic in ["", "org..example", "org.*"] {
            let run = test::message("org.example", "{}")
                .run(|_: Message, cx: &Context| cx.emit(topic, &1));
            let Err(Failure::Reject(reason)) = run.result else { panic!("{:?}", run.result) };
            assert_eq!(reason, format!("cannot send a message to `{topic}`: the topic is invalid"));
        }
    }
}
