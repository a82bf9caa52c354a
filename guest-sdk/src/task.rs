//! What may stand under `#[task]`: a function of a message, or of a message and the context.
//!
//! Owns the difference between the two, so that the border and `test` have one way to call
//! either.

use serde::de::DeserializeOwned;

use crate::{Context, Message, Result};

/// A function that works one message.
///
/// These are `fn(Message<T>) -> Result` and `fn(Message<T>, &Context) -> Result`, for any `T`
/// that serde reads; nothing else needs to implement it. `Arguments` tells the two apart and is
/// always inferred.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a task",
    label = "expected `fn(Message<T>) -> Result` or `fn(Message<T>, &Context) -> Result`",
    note = "`T` is a type that implements `serde::Deserialize` and borrows nothing"
)]
pub trait Task<Arguments> {
    /// The shape of the message's body.
    type Body: DeserializeOwned;

    /// Works a message.
    ///
    /// # Errors
    ///
    /// What the function returns.
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
