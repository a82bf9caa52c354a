//! The programs of ansible-rulebook.

use std::path::PathBuf;

use anyhow::Result;

use crate::install;
use crate::java::Java;

/// ansible-rulebook and what it runs in. It starts the `ansible-playbook` of the bed, as the others
/// do; in its own environment there is no Ansible.
pub(super) struct AnsibleRulebook {
    pub(super) python: PathBuf,
    pub(super) java: Java,
}

impl AnsibleRulebook {
    /// Makes sure of it and of a Java.
    pub(super) fn install() -> Result<Self> {
        let java = install::java()?;
        Ok(Self { python: install::rulebook_python()?, java })
    }
}
