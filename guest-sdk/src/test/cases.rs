//! Runs a task on recorded cases. A case contains a message, the values that the task can read, and the
//! expected result.
//!
//! This module runs all cases of a directory. The submodule `case` reads the file of a case and compares the
//! results. `loopabull-host test --record` writes such files.

mod case;

use std::fmt::Write as _;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use self::case::Case;
use crate::task::Task;

/// Runs the task on every case in a directory. Each file `*.json` is a case.
///
/// ```no_run
/// # use loopabull_task::{Message, Result, task, test};
/// # #[task]
/// # fn greet(message: Message) -> Result { Ok(()) }
/// # fn main() {
/// test::cases(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases"), greet);
/// # }
/// ```
///
/// `loopabull-host test --record` writes a case in this form:
///
/// ```json
/// {
///   "message": {"id": "2026-1", "topic": "org.example.a", "headers": [["k", "v"]], "body": {}},
///   "attempt": 1,
///   "config": {"site": "https://a.example"},
///   "state": {"seen": 1},
///   "http": [{"method": "GET", "url": "https://a.example/b", "status": 200, "body": "text"}],
///   "expected": {
///     "outcome": "success",
///     "notes": [["k", "v"]],
///     "emitted": [{"topic": "org.example.b", "headers": [], "body": {}}],
///     "state": {"seen": 2}
///   }
/// }
/// ```
///
/// The keys `message` and `expected` are required, and the key `outcome` in `expected`. All other keys are
/// optional. A key that is missing in `expected` is not compared. An unknown key is an error.
///
/// `outcome` is `success`, `retry` or `reject`. With `retry` and `reject`, `expected` may also contain a
/// `reason`. Each response under `http` answers one request. A response that no request used is reported as a
/// difference. Every secret that the task reads exists. Its value is `secret-` and its name, for example
/// `secret-token`.
///
/// # Panics
///
/// If a result differs from the expected result; the panic message then names the file and the differences.
/// Also if the directory does not exist or contains no case. A directory without cases is accepted if it
/// contains a file `.gitkeep`.
#[track_caller]
pub fn cases<Arguments>(folder: impl AsRef<Path>, task: impl Task<Arguments> + Copy) {
    let folder = folder.as_ref();
    let files = match files(folder) {
        Ok(files) => files,
        Err(problem) => panic!("{problem}"),
    };
    let mut report = String::new();
    for file in files {
        if let Err(problem) = run(&file, task) {
            write!(report, "\n{}: {problem}", file.display())
                .expect("writing to a string cannot fail");
        }
    }
    assert!(report.is_empty(), "{report}\n");
}

/// Returns the files of the cases, sorted by name.
fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let cannot = |error| format!("cannot read the cases in `{}`: {error}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if path.extension().is_some_and(|ending| ending == "json") {
            files.push(path);
        }
    }
    if files.is_empty() && !folder.join(".gitkeep").exists() {
        return Err(format!(
            "the directory `{}` has no case; if that is intended, create an empty file `.gitkeep` \
             there",
            folder.display()
        ));
    }
    files.sort();
    Ok(files)
}

/// Runs one case. The error is a text with the differences.
fn run<Arguments>(file: &Path, task: impl Task<Arguments>) -> Result<(), String> {
    let text = fs::read(file).map_err(|error| error.to_string())?;
    let case: Case = serde_json::from_slice(&text)
        .map_err(|error| format!("the file is not a case: {error}"))?;
    let expected = case.expected.clone();
    let delivery = case.into_delivery();
    let run = panic::catch_unwind(AssertUnwindSafe(|| delivery.run(task)))
        .map_err(|_| "the task panicked".to_owned())?;
    let differences = expected.differences(&run);
    if differences.is_empty() { Ok(()) } else { Err(format!("unexpected result{differences}")) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tempfile::TempDir;

    use super::*;
    use crate::{Context, Message, Result, reject};

    fn count(message: Message, cx: &Context) -> Result {
        if message.body == 0 {
            return reject("nothing");
        }
        assert_ne!(message.body, 13, "an unlucky number");
        let site = cx.require("site")?;
        let token = cx.secret("token")?;
        cx.http().get(site).bearer(&token).send()?.error_for_status()?;
        let seen: u32 = cx.state().get("seen")?.unwrap_or(0);
        cx.state().set("seen", &(seen + 1))?;
        cx.note("attempt", cx.attempt());
        cx.emit("org.example.counted", &message.id)
    }

    fn case() -> Value {
        json!({
            "message": {"id": "m-1", "topic": "org.example", "headers": [["k", "v"]], "body": 1},
            "attempt": 2,
            "config": {"site": "https://a.example/"},
            "state": {"seen": 1},
            "http": [{"method": "GET", "url": "https://a.example/", "status": 200, "body": "x"}],
            "expected": {
                "outcome": "success",
                "notes": [["attempt", "2"]],
                "emitted": [{"topic": "org.example.counted", "headers": [], "body": "m-1"}],
                "state": {"seen": 2},
            },
        })
    }

    /// Replaces the value at `place` in the case, runs the case, and compares the panic message.
    fn check(place: &str, value: Value, expected: &str) {
        let mut case = case();
        match place.rsplit_once('/') {
            Some((parent, key)) => case.pointer_mut(parent).unwrap()[key] = value,
            None => case = value,
        }
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("a.json"), case.to_string()).unwrap();
        assert_eq!(outcome(folder.path()), expected);
    }

    fn outcome(folder: &Path) -> String {
        let run = panic::catch_unwind(AssertUnwindSafe(|| cases(folder, count)));
        let text = run.err().map(|panic| *panic.downcast::<String>().unwrap()).unwrap_or_default();
        text.replace(folder.to_str().unwrap(), "FOLDER")
    }

    #[test]
    fn a_case_with_the_expected_result_passes() {
        check("/attempt", json!(2), "");
    }

    #[test]
    fn keys_missing_in_expected_are_not_compared() {
        check("/expected", json!({"outcome": "success"}), "");
    }

    #[test]
    fn a_difference_is_shown_with_the_file() {
        check(
            "/expected/state",
            json!({"seen": 3}),
            "\nFOLDER/a.json: unexpected result\n  state\n    expected: {\"seen\":3}\n    found:    {\"seen\":2}\n",
        );
    }

    #[test]
    fn an_unused_response_is_a_difference() {
        let response = json!({"method": "PUT", "url": "https://a.example", "status": 200});
        let mut responses = case()["http"].as_array().unwrap().clone();
        responses.push(response);
        check(
            "/http",
            responses.into(),
            "\nFOLDER/a.json: unexpected result\n  unused responses under `http`\n    \
             expected: []\n    found:    [\"PUT https://a.example/\"]\n",
        );
    }

    #[test]
    fn an_unexpected_outcome_is_shown_with_its_reason() {
        check(
            "/message/body",
            json!(0),
            "\nFOLDER/a.json: unexpected result\n  outcome\n    expected: \"success\"\n    \
             found:    [\"reject\",\"nothing\"]\n  \
             unused responses under `http`\n    expected: []\n    \
             found:    [\"GET https://a.example/\"]\n  notes\n    expected: [[\"attempt\",\"2\"]]\n    \
             found:    []\n  emitted\n    \
             expected: [{\"body\":\"m-1\",\"headers\":[],\"topic\":\"org.example.counted\"}]\n    \
             found:    []\n  state\n    expected: {\"seen\":2}\n    found:    {\"seen\":1}\n",
        );
    }

    #[test]
    fn a_panic_of_the_task_is_reported_with_the_file() {
        check("/message/body", json!(13), "\nFOLDER/a.json: the task panicked\n");
    }

    #[test]
    fn an_unknown_key_is_refused() {
        check(
            "/message/colour",
            json!("red"),
            "\nFOLDER/a.json: the file is not a case: unknown field `colour`, expected one of `id`, \
             `topic`, `headers`, `body` at line 1 column 305\n",
        );
    }

    #[test]
    fn an_empty_directory_passes_only_with_a_gitkeep_file() {
        let folder = TempDir::new().unwrap();
        let problem = "the directory `FOLDER` has no case; if that is intended, create an empty \
                       file `.gitkeep` there";
        assert_eq!(outcome(folder.path()), problem);
        fs::write(folder.path().join(".gitkeep"), "").unwrap();
        assert_eq!(outcome(folder.path()), "");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let folder = TempDir::new().unwrap();
        let missing = outcome(&folder.path().join("cases"));
        assert!(missing.starts_with("cannot read the cases in `FOLDER`: "), "{missing}");
    }
}
