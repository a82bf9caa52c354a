//! Recorded cases: a message, what the task finds around it, and what is to come of it.
//!
//! Owns the walk over a folder of them; `case` owns the format, which
//! `loopabull-host test --record` writes.

mod case;

use std::fmt::Write as _;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use self::case::Case;
use crate::Task;

/// Runs the task on every case of a folder, its files `*.json`.
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
/// A case is what `loopabull-host test --record` writes. All but `message` and `expected` may be
/// left out, and of `expected` all but `outcome`: what it does not name is not compared. An
/// unknown key is refused.
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
/// `outcome` is `success`, `retry` or `reject`; the latter two may have a `reason`. Each answer
/// under `http` is for one request, and one that no request came for is a difference. Every
/// secret that the task asks for is there: the value of `token` is `secret-token`.
///
/// # Panics
///
/// If a case does not come out as expected, with the file and what differs. If the folder is
/// missing or has no case: a folder that is empty on purpose has a file `.gitkeep`.
#[track_caller]
pub fn cases<Arguments>(folder: impl AsRef<Path>, task: impl Task<Arguments> + Copy) {
    let folder = folder.as_ref();
    let files = match files(folder) {
        Ok(files) => files,
        Err(wrong) => panic!("{wrong}"),
    };
    let mut report = String::new();
    for file in files {
        if let Err(wrong) = run(&file, task) {
            write!(report, "\n{}: {wrong}", file.display()).expect("a string takes all");
        }
    }
    assert!(report.is_empty(), "{report}\n");
}

/// Returns the files of the cases, by name.
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
            "`{}` has no case; if that is on purpose, put an empty file `.gitkeep` there",
            folder.display()
        ));
    }
    files.sort();
    Ok(files)
}

/// Runs one case. The error says what differs.
fn run<Arguments>(file: &Path, task: impl Task<Arguments>) -> Result<(), String> {
    let text = fs::read(file).map_err(|error| error.to_string())?;
    let case: Case =
        serde_json::from_slice(&text).map_err(|error| format!("it is not a case: {error}"))?;
    let expected = case.expected.clone();
    let delivery = case.into_delivery();
    let run = panic::catch_unwind(AssertUnwindSafe(|| delivery.run(task)))
        .map_err(|_| "the task panicked".to_owned())?;
    let differences = expected.differences(&run);
    if differences.is_empty() { Ok(()) } else { Err(format!("not as expected{differences}")) }
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

    /// Runs the case with one place changed, and returns the panic, without the folder.
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
    fn case_that_comes_out_as_expected_passes() {
        check("/attempt", json!(2), "");
    }

    #[test]
    fn what_is_not_named_is_not_compared() {
        check("/expected", json!({"outcome": "success"}), "");
    }

    #[test]
    fn difference_is_shown_with_the_file() {
        check(
            "/expected/state",
            json!({"seen": 3}),
            "\nFOLDER/a.json: not as expected\n  state\n    expected: {\"seen\":3}\n    found:    {\"seen\":2}\n",
        );
    }

    #[test]
    fn answer_that_no_request_came_for_is_a_difference() {
        let answer = json!({"method": "PUT", "url": "https://a.example", "status": 200});
        let mut answers = case()["http"].as_array().unwrap().clone();
        answers.push(answer);
        check(
            "/http",
            answers.into(),
            "\nFOLDER/a.json: not as expected\n  answers under `http` that no request came for\n    \
             expected: []\n    found:    [\"PUT https://a.example/\"]\n",
        );
    }

    #[test]
    fn unexpected_outcome_is_shown_with_its_reason() {
        check(
            "/message/body",
            json!(0),
            "\nFOLDER/a.json: not as expected\n  outcome\n    expected: \"success\"\n    \
             found:    [\"reject\",\"nothing\"]\n  \
             answers under `http` that no request came for\n    expected: []\n    \
             found:    [\"GET https://a.example/\"]\n  notes\n    expected: [[\"attempt\",\"2\"]]\n    \
             found:    []\n  emitted\n    \
             expected: [{\"body\":\"m-1\",\"headers\":[],\"topic\":\"org.example.counted\"}]\n    \
             found:    []\n  state\n    expected: {\"seen\":2}\n    found:    {\"seen\":1}\n",
        );
    }

    #[test]
    fn panic_of_the_task_names_the_file() {
        check("/message/body", json!(13), "\nFOLDER/a.json: the task panicked\n");
    }

    #[test]
    fn unknown_key_is_refused() {
        check(
            "/message/colour",
            json!("red"),
            "\nFOLDER/a.json: it is not a case: unknown field `colour`, expected one of `id`, \
             `topic`, `headers`, `body` at line 1 column 305\n",
        );
    }

    #[test]
    fn empty_folder_passes_only_on_purpose() {
        let folder = TempDir::new().unwrap();
        let wrong =
            "`FOLDER` has no case; if that is on purpose, put an empty file `.gitkeep` there";
        assert_eq!(outcome(folder.path()), wrong);
        fs::write(folder.path().join(".gitkeep"), "").unwrap();
        assert_eq!(outcome(folder.path()), "");
    }

    #[test]
    fn missing_folder_is_named() {
        let folder = TempDir::new().unwrap();
        let missing = outcome(&folder.path().join("cases"));
        assert!(missing.starts_with("cannot read the cases in `FOLDER`: "), "{missing}");
    }
}
