//! The state of a task: values that are kept from one message to the next.
//!
//! This module encodes the values as JSON. The host stores all changes of a run or none. If another run
//! changed the state in the meantime, the host repeats the run.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{Failure, Result};
use crate::host;

/// The state of a task: values that are kept from one message to the next, on one host.
///
/// [`Context::state`](crate::Context::state) returns the state. The manifest must grant the state, for
/// example with `state = "1MiB"` under `[grants]`.
///
/// A run sees its own changes at once. If the run succeeds, the host stores all its changes together. If the
/// run fails, the host discards its changes. The host limits the number and the size of keys and values, and
/// ends a run that exceeds a limit.
///
/// ```
/// use loopabull_task::{Context, Message, Result, task, test};
///
/// #[task]
/// fn count(_message: Message, cx: &Context) -> Result {
///     let seen: u32 = cx.state().get("seen")?.unwrap_or(0);
///     cx.state().set("seen", &(seen + 1))
/// }
///
/// # fn main() {
/// let run = test::message("org.example", "{}").state("seen", &1).run(count);
/// assert_eq!(run.state["seen"], 2);
/// # }
/// ```
#[derive(Debug)]
pub struct State(());

impl State {
    pub(crate) const fn of_this_run() -> Self {
        State(())
    }

    /// Returns the value of `key`, or `None` if the key does not exist.
    ///
    /// # Errors
    ///
    /// [`Failure::Reject`] if the value exists but is not the JSON of a `T`.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        self.get_bytes(key)
            .map(|value| serde_json::from_slice(&value))
            .transpose()
            .map_err(|error| Failure::Reject(format!("cannot parse state `{key}`: {error}")))
    }

    /// Sets `key` to a value. The value is stored as JSON.
    ///
    /// # Errors
    ///
    /// [`Failure::Reject`] if the key is invalid, or if the value contains a secret or cannot be
    /// written as JSON.
    pub fn set<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result {
        self.set_bytes(key, &to_json(key, value)?)
    }

    /// Deletes a key. Deleting a key that does not exist has no effect.
    pub fn delete(&self, key: &str) {
        host::state::delete(key);
    }

    /// Sets `key` to `new` if its current value is `expected`. Returns whether the current value was
    /// `expected`.
    ///
    /// If `expected` is `None`, the key must not exist. If `new` is `None`, the key is deleted. Two values
    /// are equal if their JSON texts are byte-identical, which is the case for equal values of the same type.
    ///
    /// # Errors
    ///
    /// The errors of [`State::set`].
    pub fn compare_and_swap<T: Serialize + ?Sized>(
        &self,
        key: &str,
        expected: Option<&T>,
        new: Option<&T>,
    ) -> Result<bool> {
        let expected = expected.map(|value| to_json(key, value)).transpose()?;
        let new = new.map(|value| to_json(key, value)).transpose()?;
        host::state::compare_and_swap(key, expected.as_deref(), new.as_deref())
            .map_err(|reason| cannot_set(key, &reason))
    }

    /// Returns the value of `key` as bytes, or `None` if the key does not exist.
    pub fn get_bytes(&self, key: &str) -> Option<Vec<u8>> {
        host::state::get(key)
    }

    /// Sets `key` to these bytes, which need not be JSON.
    ///
    /// # Errors
    ///
    /// [`Failure::Reject`] if the key is invalid or the value contains a secret.
    pub fn set_bytes(&self, key: &str, value: &[u8]) -> Result {
        host::state::set(key, value).map_err(|reason| cannot_set(key, &reason))
    }
}

fn to_json<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| cannot_set(key, &error.to_string()))
}

fn cannot_set(key: &str, reason: &str) -> Failure {
    Failure::Reject(format!("cannot set state `{key}`: {reason}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::test::{self, Run};
    use crate::{Context, Message, Result, reject};

    fn run(task: fn(Message, &Context) -> Result) -> Run {
        let message = test::message("org.example", "{}").secret("token", "s3cret");
        message.state("list", &[1, 2]).state("word", "old").run(task)
    }

    #[test]
    fn a_run_sees_its_own_changes() {
        let run = run(|_, cx| {
            let list: Vec<u32> = cx.state().get("list")?.unwrap_or_default();
            assert_eq!(list, [1, 2]);
            cx.state().set("list", &[3])?;
            cx.state().delete("word");
            assert_eq!(cx.state().get("list")?, Some([3]));
            assert_eq!(cx.state().get::<String>("word")?, None);
            cx.state().set_bytes("raw", b"\xff")?;
            assert_eq!(cx.state().get_bytes("raw").as_deref(), Some(&b"\xff"[..]));
            Ok(())
        });
        assert_eq!(run.result, Ok(()));
        assert_eq!(json!(run.state), json!({"list": [3], "raw": "\u{fffd}"}));
    }

    #[test]
    fn changes_of_a_failed_run_are_discarded() {
        let run = run(|_, cx| {
            cx.state().set("word", "new")?;
            reject("no")
        });
        assert_eq!(run.state["word"], "old");
    }

    #[test]
    fn compare_and_swap_changes_only_the_expected_value() {
        let run = run(|_, cx| {
            let state = cx.state();
            assert!(!state.compare_and_swap("word", Some("other"), Some("new"))?);
            assert!(!state.compare_and_swap("word", None, Some("new"))?);
            assert!(state.compare_and_swap("word", Some("old"), Some("new"))?);
            assert!(state.compare_and_swap("first", None, Some(&1))?);
            assert!(state.compare_and_swap("list", Some(&[1, 2]), None)?);
            Ok(())
        });
        assert_eq!(run.result, Ok(()));
        assert_eq!(json!(run.state), json!({"first": 1, "word": "new"}));
    }

    #[test]
    fn a_value_of_another_type_is_rejected() {
        let run = run(|_, cx| cx.state().get::<u32>("word").map(drop));
        let reason = "cannot parse state `word`: invalid type: string \"old\", expected u32 \
                      at line 1 column 5";
        assert_eq!(run.result, reject(reason));
    }

    #[test]
    fn a_value_that_contains_a_secret_is_refused() {
        let run = run(|_, cx| cx.state().set("word", "s3cret"));
        let reason = "cannot set state `word`: the value contains the secret `token`";
        assert_eq!(run.result, reject(reason));
    }
}
