//! What a task remembers from message to message.
//!
//! Owns the JSON form of the values. That all changes of a run are kept or none, and that runs
//! do not mix, is the host's business.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Failure, Result, host};

/// What a task remembers from message to message, on one host. From
/// [`Context::state`](crate::Context::state); needs `state = "1MiB"` under `[grants]`.
///
/// A run sees its own changes at once. They are kept if it succeeds, all or none of them; what a
/// failed run changed is gone. The host caps keys, values and their sum, and ends a run that goes
/// beyond.
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

    /// Returns the value of `key`, or none if it was never set or was deleted.
    ///
    /// # Errors
    ///
    /// [`Failure::Reject`] if the value is there and is not the JSON of a `T`.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        self.get_bytes(key)
            .map(|value| serde_json::from_slice(&value))
            .transpose()
            .map_err(|error| Failure::Reject(format!("state `{key}` does not fit: {error}")))
    }

    /// Keeps a value, as JSON.
    ///
    /// # Errors
    ///
    /// [`Failure::Reject`] if the key is malformed, or the value holds a secret or cannot be
    /// written as JSON.
    pub fn set<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result {
        self.set_bytes(key, &to_json(key, value)?)
    }

    /// Forgets a key. One that was never set is forgotten already.
    pub fn delete(&self, key: &str) {
        host::state::delete(key);
    }

    /// Sets `key` to `new` if its value is `expected`, and returns whether it was. For either,
    /// none stands for a key that is not set.
    ///
    /// Values are the same if their JSON is, to the last byte: as the same type writes it, in the
    /// same order.
    ///
    /// # Errors
    ///
    /// As [`State::set`].
    pub fn compare_and_swap<T: Serialize + ?Sized>(
        &self,
        key: &str,
        expected: Option<&T>,
        new: Option<&T>,
    ) -> Result<bool> {
        let expected = expected.map(|value| to_json(key, value)).transpose()?;
        let new = new.map(|value| to_json(key, value)).transpose()?;
        host::state::compare_and_swap(key, expected.as_deref(), new.as_deref())
            .map_err(|reason| cannot_keep(key, &reason))
    }

    /// Returns the value of `key` as it was kept, or none.
    pub fn get_bytes(&self, key: &str) -> Option<Vec<u8>> {
        host::state::get(key)
    }

    /// Keeps a value that is not JSON.
    ///
    /// # Errors
    ///
    /// [`Failure::Reject`] if the key is malformed or the value holds a secret.
    pub fn set_bytes(&self, key: &str, value: &[u8]) -> Result {
        host::state::set(key, value).map_err(|reason| cannot_keep(key, &reason))
    }
}

fn to_json<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| cannot_keep(key, &error.to_string()))
}

fn cannot_keep(key: &str, reason: &str) -> Failure {
    Failure::Reject(format!("cannot keep state `{key}`: {reason}"))
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
    fn run_sees_its_own_changes() {
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
    fn changes_of_a_failed_run_are_gone() {
        let run = run(|_, cx| {
            cx.state().set("word", "new")?;
            reject("no")
        });
        assert_eq!(run.state["word"], "old");
    }

    #[test]
    fn swap_is_made_only_if_the_value_is_the_expected_one() {
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
    fn value_that_does_not_fit_is_rejected() {
        let run = run(|_, cx| cx.state().get::<u32>("word").map(drop));
        let reason = "state `word` does not fit: invalid type: string \"old\", expected u32 \
                      at line 1 column 5";
        assert_eq!(run.result, reject(reason));
    }

    #[test]
    fn value_that_holds_a_secret_is_refused() {
        let run = run(|_, cx| cx.state().set("word", "s3cret"));
        let reason = "cannot keep state `word`: the value holds the secret `token`";
        assert_eq!(run.result, reject(reason));
    }
}
