//! The results of a playbook run, as the host's callback plugin for Ansible reports them.
//!
//! Only a limited number of results is kept. Results come only from the plugin: the text that Ansible prints
//! is never parsed. The crate `playbook` runs Ansible and reads the reports.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{DeniedFile, Reason};

/// The results of a playbook.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct Results {
    /// Results by host, for the first [`Results::MAX_HOSTS`] hosts.
    pub hosts: BTreeMap<String, HostResults>,
    /// The first [`Results::MAX_FAILURES`] failures, in order.
    pub failures: Vec<TaskFailure>,
    /// The first [`Results::MAX_WARNINGS`] different warnings of Ansible.
    pub warnings: Vec<Reason>,
    /// True if the plugin reported the end of the play.
    pub is_complete: bool,
    /// True if a play matched no host.
    #[serde(default)]
    pub has_empty_play: bool,
    /// Number of reports that were dropped, because of a limit or because they cannot be parsed.
    pub dropped: u64,
}

/// The number of tasks on a host, by result.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
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

/// A task that failed on a host, or a host that was unreachable.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct TaskFailure {
    pub host: Reason,
    pub task: Reason,
    /// Module of the task, for example `ansible.builtin.command`.
    pub action: Reason,
    pub message: Reason,
    /// True if the host was unreachable.
    pub is_unreachable: bool,
}

impl Results {
    pub const MAX_HOSTS: usize = 500;
    pub const MAX_FAILURES: usize = 20;
    pub const MAX_WARNINGS: usize = 20;

    /// Returns true if at least one host was unreachable and no task failed.
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

    /// Returns true if no play matched a host, so that nothing was done.
    pub fn is_without_hosts(&self) -> bool {
        self.is_complete && self.has_empty_play && self.hosts.is_empty()
    }

    /// Returns a description of the last failure, which is the failure that stopped the play.
    pub fn last_failure(&self) -> Option<String> {
        let TaskFailure { host, task, message, .. } = self.failures.last()?;
        Some(format!("task `{task}` on {host}: {message}"))
    }
}

/// The report of a playbook run, in addition to the outcome.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct PlaybookReport {
    /// Results of the playbook; `None` if the callback plugin reported nothing.
    pub results: Option<Results>,
    /// State of each confinement layer during the run.
    pub layers: Vec<LayerReport>,
    /// Number of processes that the playbook left behind and that the host killed.
    pub killed: u64,
    /// TCP ports to which the playbook tried to connect and which are not granted.
    #[serde(default)]
    pub denied_ports: Vec<u16>,
    /// Files that the error of a failed playbook names and that are not granted.
    #[serde(default)]
    pub denied_files: Vec<DeniedFile>,
    /// Reason for a cold start; `None` if the run was started from a process that had already imported
    /// Ansible.
    pub cold: Option<String>,
}

impl PlaybookReport {
    /// Returns descriptions of the denied ports and of each denied file, with the grant that allows them.
    pub fn denials(&self) -> impl Iterator<Item = String> {
        let ports = self.denied_ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        let ports = (!ports.is_empty())
            .then(|| format!("TCP port {ports}, which `tcp = [{ports}]` under `[grants]` allows"));
        ports.into_iter().chain(self.denied_files.iter().map(DeniedFile::to_string))
    }
}

/// The state of a confinement layer during a run.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct LayerReport {
    pub layer: String,
    pub state: LayerState,
    /// Short explanation of the state.
    pub detail: Reason,
}

/// Whether a confinement layer was active.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LayerState {
    Active,
    Degraded,
    Off,
}

impl LayerState {
    /// Returns the word for the state.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Degraded => "degraded",
            Self::Off => "off",
        }
    }
}

impl PlaybookReport {
    /// Returns the layers that were requested and were not active.
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
