//! The kind of a task: component or playbook.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The kind of a task.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TaskKind {
    /// A WebAssembly component, `NAME.wasm`.
    Component,
    /// An Ansible playbook, `NAME.yml`.
    Playbook,
}

impl TaskKind {
    /// Returns the word for this kind in output and labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::Playbook => "playbook",
        }
    }
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
