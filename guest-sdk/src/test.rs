//! Runs a task natively, with a stand-in for the host.
//!
//! [`message`] returns a [`Delivery`]: a message, and the values that the task can read, such as its
//! configuration and state. The methods of `Delivery` set these values. [`Delivery::run`] runs the task, and
//! returns its result and its recorded actions.
//!
//! ```
//! use loopabull_task::{Context, Message, Result, info, task, test};
//!
//! #[task]
//! fn greet(message: Message, cx: &Context) -> Result {
//!     info!(topic = message.topic, "{}", cx.require("greeting")?);
//!     cx.emit("org.example.greeted", &message.body)?;
//!     cx.state().set("last", &message.id)
//! }
//!
//! # fn main() {
//! let run = test::message("org.example.hello", r#"{"from": "ada"}"#)
//!     .config("greeting", "Good morning")
//!     .run(greet);
//! assert_eq!(run.result, Ok(()));
//! assert_eq!(run.log[0].to_string(), "info: Good morning topic=org.example.hello");
//! assert_eq!(run.emitted[0].body["from"], "ada");
//! assert_eq!(run.state["last"], "test-message");
//! # }
//! ```
//!
//! As in a component, the body is JSON text, which is parsed into the type in the task's signature. As on the
//! host, a failed run emits no messages and does not change the state. The stand-in has no limits, never
//! stops a task, and grants everything. The stand-in sends no HTTP requests, and answers a request with the
//! response that [`Delivery::respond`] has prepared.
//!
//! [`cases`] runs a task on recorded messages.

mod cases;
mod delivery;
mod run;

pub use self::cases::cases;
pub use self::delivery::{Delivery, message};
pub use self::run::Run;
pub use crate::host::recorded::{Emitted, LogLine, Request};

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Context, Message, Result, info, reject, retry, warn};

    fn describe_run(_: Message, cx: &Context) -> Result {
        warn!(run = cx.run_id(), left = 1.5, "running");
        cx.note("attempt", cx.attempt());
        cx.note("left", cx.deadline().as_millis());
        cx.note("left", "less");
        reject("done")
    }

    #[test]
    fn a_run_shows_the_log_and_the_notes() {
        let run = message("org.example", "{}")
            .run_id("r-1")
            .attempt(3)
            .deadline(Duration::from_millis(250))
            .run(describe_run);
        assert_eq!(run.result, reject("done"));
        assert_eq!(run.log.len(), 1);
        assert_eq!(run.log[0].to_string(), "warn: running run=r-1 left=1.5");
        assert_eq!(run.notes[0], ("attempt".to_owned(), "3".to_owned()));
        assert_eq!(run.notes[1], ("left".to_owned(), "250".to_owned()));
        assert_eq!(run.note("left"), Some("less"));
        assert_eq!(run.note("right"), None);
    }

    #[test]
    fn a_run_shows_the_requested_pause() {
        let run = message("org.example", "{}").run(|_: Message, cx: &Context| {
            cx.retry_after(Duration::from_secs(90));
            retry("not yet")
        });
        assert_eq!(run.result, retry("not yet"));
        assert_eq!(run.retry_after, Some(Duration::from_secs(90)));
    }

    #[test]
    fn runs_are_independent() {
        let first = message("org.example", "{}").attempt(2).run(describe_run);
        let second = message("org.example", "{}").run(describe_run);
        assert_eq!(first.note("attempt"), Some("2"));
        assert_eq!(second.note("attempt"), Some("1"));
        assert_eq!(second.log.len(), 1);
    }

    #[test]
    fn a_task_that_is_called_directly_gets_default_values() {
        let cx = Context::of_this_run();
        assert_eq!(cx.run_id(), "test-run");
        info!("this line is dropped");
        assert_eq!(cx.deadline(), Duration::from_secs(5));
    }
}
