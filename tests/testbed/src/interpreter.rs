//! The Python interpreter that has the original fedmsg and fedora-messaging.
//!
//! `cargo xtask test` creates a Python environment and names its interpreter in [`ENVIRONMENT`]. A test
//! binary that is started by hand uses the environment that the last `cargo xtask test` created.

use std::path::PathBuf;

use crate::repository;

/// The environment variable with the path of the interpreter.
const ENVIRONMENT: &str = "LOOPABULL_TEST_PYTHON";

/// Returns the Python interpreter that has `fedmsg` and `fedora_messaging`.
///
/// # Panics
///
/// If the interpreter does not exist. The message says what to do.
pub fn python() -> PathBuf {
    let left_by_xtask = || repository().join("target/test-venv/bin/python");
    let python = std::env::var_os(ENVIRONMENT).map_or_else(left_by_xtask, PathBuf::from);
    assert!(python.exists(), "there is no Python with fedmsg; run `cargo xtask test`");
    python
}
