//! The entry point of a component: the functions that the generated code of `#[task]` calls.
//!
//! These functions check the type of a task, convert the message and the failure between the generated
//! bindings and the types of this crate, and call the task. The module is public only for the code that
//! `#[task]` generates, and may change.

#![allow(missing_docs, reason = "only the macro uses this module")]

use serde::de::DeserializeOwned;

pub use crate::bindings::exports::loopabull::task::handler::{
    Failure as WireFailure, Guest, Message as WireMessage,
};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::message::Message;
use crate::task::Task;

/// Makes the compiler check the type of a task with one argument. The check also applies to native builds.
///
/// ```compile_fail,E0308
/// # use loopabull_task::{Result, task};
/// #[task]
/// fn not_a_message(body: String) -> Result {
///     Ok(())
/// }
/// # fn main() {}
/// ```
///
/// ```compile_fail,E0308
/// # use loopabull_task::{Message, task};
/// #[task]
/// fn another_result_type(message: Message) -> std::result::Result<(), String> {
///     Ok(())
/// }
/// # fn main() {}
/// ```
pub const fn check<T: DeserializeOwned>(_task: fn(Message<T>) -> Result) {}

/// Makes the compiler check the type of a task with two arguments.
///
/// ```compile_fail,E0308
/// # use loopabull_task::{Context, Message, Result, task};
/// #[task]
/// fn not_borrowed(message: Message, cx: Context) -> Result {
///     Ok(())
/// }
/// # fn main() {}
/// ```
///
/// ```compile_fail,E0308
/// # use loopabull_task::{Context, Message, Result, task};
/// #[task]
/// fn wrong_order(cx: &Context, message: Message) -> Result {
///     Ok(())
/// }
/// # fn main() {}
/// ```
pub const fn check_with_context<T: DeserializeOwned>(_task: fn(Message<T>, &Context) -> Result) {}

/// Runs a task on a message from the host, and returns its result to the host.
pub fn handle<Arguments>(
    message: WireMessage,
    task: impl Task<Arguments>,
) -> std::result::Result<(), WireFailure> {
    let WireMessage { id, topic, headers, body } = message;
    let result = Message::from_parts(id, topic, headers, &body)
        .and_then(|message| task.run(message, &Context::of_this_run()));
    result.map_err(|failure| match failure {
        Failure::Retry(reason) => WireFailure::Retry(reason),
        Failure::Reject(reason) => WireFailure::Reject(reason),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(task: fn(Message) -> Result, expected: &str) {
        let message = WireMessage {
            id: "2026-1".to_owned(),
            topic: "org.example".to_owned(),
            headers: Vec::new(),
            body: b"7".to_vec(),
        };
        assert_eq!(format!("{:?}", handle(message, task)), expected);
    }

    #[test]
    fn ok_is_returned_to_the_host() {
        check(
            |message| {
                assert_eq!(message.body, 7);
                Ok(())
            },
            "Ok(())",
        );
    }

    #[test]
    fn retry_is_returned_to_the_host() {
        check(|_| crate::retry("later"), r#"Err(Failure::Retry("later"))"#);
    }

    #[test]
    fn reject_is_returned_to_the_host() {
        check(|_| crate::reject("no"), r#"Err(Failure::Reject("no"))"#);
    }
}
