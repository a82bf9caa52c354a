//! What a playbook did, as its callback plugin told.
//!
//! Owns what is kept of it, and how much. Nothing here was ever read from text for people.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Reason;

/// What a playbook did, host by host.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
pub struct Results {
    /// What became of its tasks, by host, for the first [`Results::MOST_HOSTS`].
    pub hosts: BTreeMap<String, HostResults>,
    /// What failed, in order: the first [`Results::MOST_FAILURES`].
    pub failures: Vec<TaskFailure>,
    /// What Ansible warned of, once each: the first [`Results::MOST_WARNINGS`].
    pub warnings: Vec<Reason>,
    /// Whether the play came to its end and told so itself.
    pub is_complete: bool,
    /// How much more was told and not kept.
    pub dropped: u64,
}

/// How many tasks of a host came to what.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct HostResults {
    pub ok: u64,
    pub changed: u64,
    pub failed: u64,
    pub unreachable: u64,
    pub skipped: u64,
    pub rescued: u64,
    pub ignored: u64,
}

/// A task that failed on a host, or a host that could not be reached for it.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct TaskFailure {
    pub host: Reason,
    pub task: Reason,
    /// The module, for example `ansible.builtin.command`.
    pub action: Reason,
    pub message: Reason,
    /// The host could not be reached.
    pub is_unreachable: bool,
}

impl Results {
    pub const MOST_HOSTS: usize = 500;
    pub const MOST_FAILURES: usize = 20;
    pub const MOST_WARNINGS: usize = 20;

    /// Tells whether hosts could not be reached and nothing else went wrong.
    pub fn is_only_unreachable(&self) -> bool {
        let mut unreachable = false;
        for host in self.hosts.values() {
            if host.failed > 0 {
                return false;
            }
            unreachable |= host.unreachable > 0;
        }
        unreachable
    }

    /// Returns the last failure in words: what stopped the play.
    pub fn last_failure(&self) -> Option<String> {
        let TaskFailure { host, task, message, .. } = self.failures.last()?;
        Some(format!("task `{task}` on {host}: {message}"))
    }
}

/// What is known of the run of a playbook beside its outcome.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
pub struct PlaybookReport {
    /// What it did; none if the callback plugin told nothing.
    pub results: Option<Results>,
    /// The layers of its confinement.
    pub layers: Vec<LayerReport>,
    /// How many processes it left behind, which were killed.
    pub killed: u64,
    /// Why it was not started out of a process that had Ansible imported; none if it was.
    pub cold: Option<String>,
}

/// What became of a layer of the confinement.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct LayerReport {
    pub layer: String,
    pub held: LayerState,
    /// In a few words.
    pub detail: Reason,
}

/// Whether a layer of the confinement is in force.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerState {
    Held,
    Degraded,
    Off,
}

impl LayerState {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Degraded => "degraded",
            Self::Off => "off",
        }
    }
}

impl PlaybookReport {
    /// Returns the layers that were wanted and could not be had.
    pub fn degraded(&self) -> impl Iterator<Item = &LayerReport> {
        self.layers.iter().filter(|layer| layer.held == LayerState::Degraded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(hosts: &[(u64, u64)]) -> Results {
        let host =
            |&(failed, unreachable)| HostResults { failed, unreachable, ..HostResults::default() };
        let hosts = hosts.iter().enumerate().map(|(n, counts)| (n.to_string(), host(counts)));
        Results { hosts: hosts.collect(), ..Results::default() }
    }

    #[test]
    fn unreachable_is_only_so_if_nothing_failed() {
        assert!(results(&[(0, 1), (0, 0)]).is_only_unreachable());
        assert!(!results(&[(0, 1), (1, 0)]).is_only_unreachable());
        assert!(!results(&[(0, 0)]).is_only_unreachable());
    }
}
