//! The settings of playbooks, as the configuration of the daemon fills them in.

use std::path::PathBuf;
use std::time::Duration;

use loopabull_model::Start;

/// The directories, programs and limits that all playbooks share.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The directory of the playbooks and the files beside them.
    pub playbooks: PathBuf,
    /// The state directory, which must exist. The programs for Ansible are written to `ansible` in it.
    pub state: PathBuf,
    /// The directory in the state directory in which each run gets a directory of its own.
    pub runs: PathBuf,
    /// `loopabull-launch`. Default: beside the running executable.
    pub launcher: Option<PathBuf>,
    /// `ansible-playbook`. Default: found on `PATH`.
    pub ansible_playbook: Option<PathBuf>,
    /// The user of playbooks, by name or as `UID:GID`. Default: the user of this process.
    pub user: Option<String>,
    /// Names of confinement layers without which no playbook is run.
    pub require: Vec<String>,
    /// Names of confinement layers that are left out.
    pub without: Vec<String>,
    /// How Ansible is started if a manifest does not say.
    pub start: Start,
    /// The maximum number of runs of one controller. Default: 200.
    pub controller_runs: Option<u32>,
    /// How long an idle controller is kept. Default: 10 minutes.
    pub controller_idle: Option<Duration>,
    /// The maximum number of concurrent runs, and so of idle controllers.
    pub slots: usize,
}

impl Settings {
    /// Returns settings for these directories, with the default for everything else.
    pub fn new(playbooks: PathBuf, state: PathBuf, runs: &str) -> Self {
        Self {
            playbooks,
            runs: state.join(runs),
            state,
            launcher: None,
            ansible_playbook: None,
            user: None,
            require: Vec::new(),
            without: Vec::new(),
            start: Start::default(),
            controller_runs: None,
            controller_idle: None,
            slots: 1,
        }
    }
}
