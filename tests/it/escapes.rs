//! What a component cannot get at: a hostile guest, `tests/fixtures/probe`, tries to. What it is
//! granted works, everything else is denied by the name of an error, and nothing outside changed.

mod files;
mod web;

use std::fs;

use serde_json::json;

use crate::bed::{Bed, repository, text};

/// What the probe and the host said of a run.
struct Said(String);

/// Puts the probe there, with these grants.
fn add_probe(bed: &Bed, grants: &str) {
    let component = fs::read(repository().join("tests/fixtures/probe.wasm"));
    bed.write("tasks/probe.wasm", component.expect("the probe is not built; run `cargo tasks`"));
    bed.write("tasks/probe.toml", format!("topics = ['probe']\n[grants]\n{grants}\n"));
}

/// The message that has the probe try these operations.
fn operations<'a>(id: &str, operations: impl IntoIterator<Item = &'a str>) -> String {
    let operations: Vec<_> = operations.into_iter().collect();
    json!({"topic": "probe", "msg_id": id, "timestamp": 1, "i": 1, "msg": operations}).to_string()
}

/// Has the probe try these operations, and compares what each came to.
fn check(bed: &Bed, expected: &[(&str, &str)]) -> Said {
    bed.write("message.json", operations("m-1", expected.iter().map(|(operation, _)| *operation)));
    let output = bed.run(&["test", "probe", "message.json"]);
    let said = Said(text(&output.stdout) + &text(&output.stderr));
    assert!(said.0.ends_with("probe on message m-1: success\n"), "{}", said.0);
    let tried: Vec<_> = said.lines("info: ").collect();
    let expected: Vec<_> = expected.iter().map(|(o, result)| format!("{o}: {result}")).collect();
    assert_eq!(tried, expected);
    said
}

impl Said {
    /// Returns the lines that begin so, without their beginning.
    fn lines<'a>(&'a self, start: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.lines().filter_map(move |line| line.strip_prefix(start)).map(str::trim_end)
    }

    /// Returns what was called, a line each.
    fn called(&self) -> Vec<&str> {
        self.lines("called: ").collect()
    }
}

/// The probe can call HTTP, so that it is not loaded without a grant for it. This one leads nowhere.
const NOWHERE: &str = "http = ['http://127.0.0.1:1']";

#[test]
fn only_granted_variables_are_there_and_no_argument() {
    let bed = Bed::new();
    add_probe(&bed, &format!("{NOWHERE}\nenv = {{ TZ = 'UTC', EMPTY = '' }}"));
    check(&bed, &[("variables", "ok EMPTY= TZ=UTC"), ("arguments", "ok")]);
    add_probe(&bed, NOWHERE);
    check(&bed, &[("variables", "ok"), ("arguments", "ok")]);
}

#[test]
fn what_calls_http_is_not_loaded_without_the_grant() {
    let bed = Bed::new();
    add_probe(&bed, "");
    bed.write("message.json", operations("m-1", ["variables"]));
    let output = bed.run(&["test", "probe", "message.json"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("which needs the grant `http`"), "{said}");
    assert!(said.contains(r#"add to its manifest: `http = ["https://host"]` under `[grants]`"#));
}
