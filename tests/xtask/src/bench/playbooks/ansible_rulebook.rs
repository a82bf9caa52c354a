//! The installation of ansible-rulebook.

use std::path::PathBuf;

use anyhow::Result;

use crate::install;
use crate::java::Java;

/// The Python environment and the Java runtime of ansible-rulebook. The environment has no Ansible, so
/// ansible-rulebook starts the same `ansible-playbook` as the other systems.
pub(super) struct AnsibleRulebook {
    pub(super) python: PathBuf,
    pub(super) java: Java,
}

impl AnsibleRulebook {
    /// Installs ansible-rulebook and a Java runtime if they are missing.
    pub(super) fn install() -> Result<Self> {
        let java = install::java()?;
        Ok(Self { python: install::rulebook_python()?, java })
    }
}
