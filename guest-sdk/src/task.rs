//! The functions that `#[task]` accepts: with a message, or with a message and the context.
//!
//! Owns the difference between the two, so that `entry` and `test` call both in the same way.

use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::failure::Result;
use crate::message::Message;

/// A function that handles one message.
///
/// The functions `fn(Message<T>) -> Result` and `fn(Message<T>, &Context) -> Result` implement this
/// trait, for any `T` that implements [`serde::Deserialize`]; there is no need for other
/// implementations. `Arguments` distinguishes the two and is always inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a task",
    label = "expected `fn(Message<T>) -> Result` or `fn(Message<T>, &Context) -> Result`",
    note = "`T` is a type that implements `serde::Deserialize` and borrows nothing"
)]
pub trait Task<Arguments> {
    /// The type of the message's body.
    type Body: DeserializeOwned;

    /// Handles a message.
    ///
    /// # Errors
    ///
    /// The failure that the function returns.
    fn run(self, message: Message<Self::Body>, cx: &Context) -> Result;
}

impl<F, T> Task<(Message<T>,)> for F
where
    F: FnOnce(Message<T>) -> Result,
    T: DeserializeOwned,
{
    type Body = T;

    fn run(self, message: Message<T>, _cx: &Context) -> Result {
        self(message)
    }
}

impl<F, T> Task<(Message<T>, Context)> for F
where
    F: FnOnce(Message<T>, &Context) -> Result,
    T: DeserializeOwned,
{
    type Body = T;

    fn run(self, message: Message<T>, cx: &Context) -> Result {
        self(message, cx)
    }
}
