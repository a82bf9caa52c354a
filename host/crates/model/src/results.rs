//! The results of a playbook, as its callback plugin reports them.
//!
//! Owns the limits of what is kept. No result is ever parsed from text for people.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Reason;

/// The results of a playbook, by host.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
pub struct Results {
    /// The results by host, of the first [`Results::MAX_HOSTS`] hosts.
    pub hosts: BTreeMap<String, HostResults>,
    /// The first [`Results::MAX_FAILURES`] failures, in order.
    pub failures: Vec<TaskFailure>,
    /// The first [`Results::MAX_WARNINGS`] warnings of Ansible, once each.
    pub warnings: Vec<Reason>,
    /// True if the plugin reported the end of the play.
    pub is_complete: bool,
    /// The number of reports that were not kept.
    pub dropped: u64,
}

/// The numbers of tasks on a host, by their results.
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
    /// True if the host could not be reached.
    pub is_unreachable: bool,
}

impl Results {
    pub const MAX_HOSTS: usize = 500;
    pub const MAX_FAILURES: usize = 20;
    pub const MAX_WARNINGS: usize = 20;

    /// Returns true if hosts could not be reached and no task failed.
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

    /// Returns the last failure in words: the one that stopped the play.
    pub fn last_failure(&self) -> Option<String> {
        let TaskFailure { host, task, message, .. } = self.failures.last()?;
        Some(format!("task `{task}` on {host}: {message}"))
    }
}

/// The report of a playbook's run, beside its outcome.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
pub struct PlaybookReport {
    /// Its results; none if the callback plugin reported nothing.
    pub results: Option<Results>,
    /// The layers of its confinement.
    pub layers: Vec<LayerReport>,
    /// The number of processes that it left behind and that were killed.
    pub killed: u64,
    /// The reason why it was started cold; none if it was started from a process that had Ansible
    /// imported.
    pub cold: Option<String>,
}

/// The state of a layer of the confinement during a run.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct LayerReport {
    pub layer: String,
    pub state: LayerState,
    /// The reason in a few words.
    pub detail: Reason,
}

/// Whether a layer of the confinement is in force.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerState {
    Active,
    Degraded,
    Off,
}

impl LayerState {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Degraded => "degraded",
            Self::Off => "off",
        }
    }
}

impl PlaybookReport {
    /// Returns the layers that were wanted and are not in force.
    pub fn degraded(&self) -> impl Iterator<Item = &LayerReport> {
        self.layers.iter().filter(|layer| layer.state == LayerState::Degraded)
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
    fn a_failed_task_counts_more_than_an_unreachable_host() {
        assert!(results(&[(0, 1), (0, 0)]).is_only_unreachable());
        assert!(!results(&[(0, 1), (1, 0)]).is_only_unreachable());
        assert!(!results(&[(0, 0)]).is_only_unreachable());
    }
}
