//! The versions of Ansible with which tests run.
//!
//! `cargo xtask test` installs the versions and names them in [`ENVIRONMENT`]. A test binary that is started
//! by hand uses the versions that the last `cargo xtask test` installed.

use std::path::PathBuf;

use crate::repository;

/// The environment variable with the paths of the programs, separated by colons.
const ENVIRONMENT: &str = "LOOPABULL_TEST_ANSIBLES";
/// The number of versions that a test must run with.
const FEWEST: usize = 3;

/// Returns the `ansible-playbook` of each version.
///
/// # Panics
///
/// If fewer than three versions are installed. The message says what to do.
pub fn ansible_playbooks() -> Vec<PathBuf> {
    let left_by_xtask = || {
        let target = repository().join("target");
        let own = ["ansible-2.16-venv", "ansible-newest-venv"];
        let own = own.map(|name| target.join(name).join("bin/ansible-playbook"));
        [PathBuf::from("/usr/bin/ansible-playbook")].into_iter().chain(own).collect()
    };
    let named = std::env::var_os(ENVIRONMENT);
    let all: Vec<PathBuf> =
        named.map_or_else(left_by_xtask, |named| std::env::split_paths(&named).collect());
    let found: Vec<PathBuf> = all.into_iter().filter(|program| program.is_file()).collect();
    assert!(
        found.len() >= FEWEST,
        "fewer than {FEWEST} versions of Ansible are installed; run `cargo xtask test`"
    );
    found
}
