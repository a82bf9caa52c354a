//! The installation of ansible-rulebook.

use std::path::PathBuf;

use anyhow::Result;

use crate::install;
use crate::java::Java;

/// ansible-rulebook, with its Python and its Java. It starts the `ansible-playbook` of the setup,
/// as the other systems do. Its own Python environment has no Ansible.
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
