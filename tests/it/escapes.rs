//! The sandbox of components. A hostile guest, `tests/fixtures/probe`, tries to escape. Granted operations
//! succeed, all other operations fail with a named error, and nothing outside the sandbox changes.

mod files;
mod web;

use std::fs;

use serde_json::json;

use crate::test_host::{TestHost, repository, text};

/// The output of the probe and of the host for one run.
struct Said(String);

/// Adds the probe to the host, with these grants.
fn add_probe(host: &TestHost, grants: &str) {
    let component = fs::read(repository().join("tests/fixtures/probe.wasm"));
    host.write("tasks/probe.wasm", component.expect("the probe is not built; run `cargo tasks`"));
    host.write("tasks/probe.toml", format!("topics = ['probe']\n[grants]\n{grants}\n"));
}

/// Returns a message that makes the probe try these operations.
fn operations<'a>(id: &str, operations: impl IntoIterator<Item = &'a str>) -> String {
    let operations: Vec<_> = operations.into_iter().collect();
    json!({"topic": "probe", "msg_id": id, "timestamp": 1, "i": 1, "msg": operations}).to_string()
}

/// Makes the probe try these operations, and compares the result of each.
fn check(host: &TestHost, expected: &[(&str, &str)]) -> Said {
    host.write("message.json", operations("m-1", expected.iter().map(|(operation, _)| *operation)));
    let output = host.run(&["test", "probe", "message.json"]);
    let said = Said(text(&output.stdout) + &text(&output.stderr));
    assert!(said.0.ends_with("probe on message m-1: success\n"), "{}", said.0);
    // The standard library of Rust 1.95 says for a path outside of all granted directories that it is not found,
    // that of 1.96 has no word for it.
    let plain = |line: &str| line.replace("entity not found", "uncategorized error");
    let tried: Vec<_> = said.lines("info: ").map(plain).collect();
    let expected: Vec<_> = expected.iter().map(|(o, result)| format!("{o}: {result}")).collect();
    assert_eq!(tried, expected);
    said
}

impl Said {
    /// Returns the lines that begin with `start`, without that prefix.
    fn lines<'a>(&'a self, start: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.lines().filter_map(move |line| line.strip_prefix(start)).map(str::trim_end)
    }

    /// Returns the HTTP calls, one per line.
    fn called(&self) -> Vec<&str> {
        self.lines("called: ").collect()
    }
}

/// A grant for a site that does not exist. The probe imports HTTP, so the host loads it only with a grant for
/// HTTP.
const NOWHERE: &str = "http = ['http://127.0.0.1:1']";

#[test]
fn a_component_sees_only_granted_variables_and_no_arguments() {
    let host = TestHost::new();
    add_probe(&host, &format!("{NOWHERE}\nenv = {{ TZ = 'UTC', EMPTY = '' }}"));
    check(&host, &[("variables", "ok EMPTY= TZ=UTC"), ("arguments", "ok")]);
    add_probe(&host, NOWHERE);
    check(&host, &[("variables", "ok"), ("arguments", "ok")]);
}

#[test]
fn a_component_that_imports_http_is_not_loaded_without_the_grant() {
    let host = TestHost::new();
    add_probe(&host, "");
    host.write("message.json", operations("m-1", ["variables"]));
    let output = host.run(&["test", "probe", "message.json"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("which needs the grant `http`"), "{said}");
    assert!(
        said.contains(r#"add to the task's manifest: `http = ["https://host"]` under `[grants]`"#)
    );
}
