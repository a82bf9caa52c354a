//! The raw limits that need no server. The test also has cargo build the program, which the benchmark of messages starts.
#![expect(clippy::disallowed_methods, reason = "the test starts the program")]
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::path::Path;
use std::process::Command;

/// Runs the program, which must print a time.
fn check(arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_loopabull-bench"));
    let output = program.args(arguments).current_dir(&folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.trim().parse::<f64>().is_ok_and(|seconds| seconds > 0.0), "{said}");
    // Nothing is left behind.
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn sqlite_takes_messages_through_a_file() {
    check(&["sqlite", "250", "100"]);
}

#[test]
fn a_component_is_called_for_each_message() {
    let tasks = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tasks");
    check(&["component", tasks.to_str().unwrap(), "20"]);
}

#[test]
fn a_signature_is_verified() {
    check(&["verify", "10"]);
}
