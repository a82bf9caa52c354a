//! The settings that all playbooks share. The daemon fills them in from its configuration.

use std::path::PathBuf;
use std::time::Duration;

use loopabull_model::Start;

/// The directories, programs and limits that all playbooks share.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The state directory, which must exist. Our programs for Ansible are written to its subdirectory
    /// `ansible`.
    pub state: PathBuf,
    /// The directory in which each run gets its own folder.
    pub runs: PathBuf,
    /// The path of `loopabull-launch`. Default: the program beside the running executable.
    pub launcher: Option<PathBuf>,
    /// The path of `ansible-playbook`. Default: the program found in the directories of `PATH`.
    pub ansible_playbook: Option<PathBuf>,
    /// The user that playbooks run as, by name or as `UID:GID`. Default: the user of this process.
    pub user: Option<String>,
    /// The names of the confinement layers that are required. No playbook is run without these layers.
    pub require: Vec<String>,
    /// The names of the confinement layers that are left out.
    pub without: Vec<String>,
    /// The kind of start, warm or cold, for manifests that do not name one.
    pub start: Start,
    /// The maximum number of runs that one controller serves. Default: 200.
    pub controller_runs: Option<u32>,
    /// The time after which an idle controller is ended. Default: 10 minutes.
    pub controller_idle: Option<Duration>,
    /// The maximum number of concurrent runs, which is also the maximum number of idle controllers.
    pub slots: usize,
}

impl Settings {
    /// Returns settings with these directories and the default of every other setting. `runs` is the name of
    /// a directory in the state directory.
    pub fn new(state: PathBuf, runs: &str) -> Self {
        Self {
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
