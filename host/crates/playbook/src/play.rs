//! A playbook with everything that decides how it runs, except the message.

use std::sync::Arc;

use loopabull_model::Task;

use crate::ansible_settings::AnsibleSettings;
use crate::playbook_dir::PlaybookDir;

/// A playbook, its directory, and the settings of Ansible that apply to it. The settings are read once for a run or a
/// check, so that all its steps agree.
#[derive(Clone, Debug)]
pub(crate) struct Play<'a> {
    pub(crate) task: &'a Task,
    pub(crate) dir: &'a PlaybookDir,
    pub(crate) settings: Arc<AnsibleSettings>,
}
