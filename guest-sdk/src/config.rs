//! Values from the `[config]` table of the task's manifest.

use crate::{Failure, Result, host};

/// Returns the value of `key`, or none if the manifest does not name it.
pub fn get(key: &str) -> Option<String> {
    host::config::get(key)
}

/// Returns the value of `key`.
///
/// # Errors
///
/// [`Failure::Reject`] with the line to add if the manifest does not name the key.
pub fn require(key: &str) -> Result<String> {
    get(key).ok_or_else(|| {
        Failure::Reject(format!(
            "the task's manifest has no `{key}`; add `{key} = \"...\"` under `[config]`"
        ))
    })
}

#[cfg(test)]
mod tests {
    use crate::{Failure, Message, Result, config, test};

    fn require_colour(_: Message) -> Result {
        assert_eq!(config::get("colour"), Some(config::require("colour")?));
        Ok(())
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
        assert_eq!(run.result, Err(Failure::Reject(reason.to_owned())));
    }
}
