//! The functions that `#[task]` accepts: with a message, or with a message and the context.
//!
//! Both kinds of functions implement the trait [`Task`], through which the modules `entry` and `test` call a
//! task.

use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::failure::Result;
use crate::message::Message;

/// A function that handles one message.
///
/// The functions `fn(Message<T>) -> Result` and `fn(Message<T>, &Context) -> Result` implement this trait for
/// any `T` that implements [`serde::Deserialize`]. No other type needs to implement the trait. `Arguments`
/// distinguishes the two kinds of functions, and the compiler infers it.
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
