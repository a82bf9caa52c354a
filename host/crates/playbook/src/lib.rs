//! Runs Ansible playbooks: starts `ansible-playbook` through the launcher, in a sandbox.
//!
//! For each run, this crate creates a folder, plans the confinement, starts the process, reads the results,
//! and makes the record. No other crate starts processes. This crate does not know queues, the journal or the
//! daemon's configuration. The worker calls this crate, and this crate starts the launcher.
//!
//! The file name of a playbook comes from the daemon's list of tasks, never from a message. The message is in
//! a file in the folder of the run. No part of the message is on the command line or in the environment. The
//! output of Ansible is stored for people and not parsed, except one sentence (see `run`) and the names of files in an error, which are only
//! compared with the grants (see `denied_files`). Our callback plugin for Ansible reports the
//! results as JSON.
//!
//! A module imports only modules from lower lines of this list:
//!
//! - `learn`: finds out which files and ports a playbook uses
//! - `run`: runs one playbook for one message
//! - `check`: checks playbooks and layers without a message
//! - `denied_files`: finds the files that a failed run lacked
//! - `configure`: asks Ansible for its settings
//! - `trial`: runs a program in the sandbox without a message
//! - `host`: everything that all runs share; `warm`: the pool of controllers, which are processes that have
//!   imported Ansible already
//! - `process`: one launcher process; `report`: makes the record of a run
//! - `watch`: reads the output of a run and waits for its end
//! - `results`: parses the results of the callback plugin; `plan`, `objections`: turn a manifest into a
//!   confinement, or say why that is impossible
//! - `play`: a playbook with its settings
//! - `environment`: the environment variables of a run
//! - `ansible_settings`: the settings of Ansible to which the environment adds; `playbook_dir`: the files beside the playbooks
//! - `folder`: the files of a run; `installation`: Ansible and its Python; `programs`: our own programs;
//!   `shared_content`: collections and roles in a home; `variables`: the extra variables of a run
//! - `user`: the user of playbooks
//! - `linked_dir`, `secrets`, `settings`, `yaml`
//! - `error`

mod ansible_settings;
mod check;
mod configure;
mod denied_files;
mod environment;
mod error;
mod folder;
mod host;
mod installation;
mod learn;
mod linked_dir;
mod objections;
mod plan;
mod play;
mod playbook_dir;
mod process;
mod programs;
mod report;
mod results;
mod run;
mod secrets;
mod settings;
mod shared_content;
mod trial;
mod user;
mod variables;
mod warm;
mod watch;
mod yaml;

use std::time::Duration;

use loopabull_model::{Attempt, LayerReport, Task, VariableName};
use tokio_util::sync::CancellationToken;

pub use error::{CheckError, PlaybookError, StartError};
pub use folder::remove_tree;
pub use learn::Learned;
pub use linked_dir::LinkedDir;
pub use objections::{Objection, objections};
pub use plan::MEMORY;
pub use playbook_dir::PlaybookDir;
pub use run::Call;
pub use secrets::Secrets;
pub use settings::Settings;

use host::Host;
use run::Runner;
use warm::Controllers;

/// The runner of playbooks.
#[derive(Debug)]
pub struct Playbooks(Runner);

impl Playbooks {
    /// Finds Ansible, the launcher and the user of playbooks, and creates the directory for the folders of
    /// the runs.
    ///
    /// # Errors
    ///
    /// Fails if a directory, a program, a user or a layer in `settings` cannot be used.
    pub fn open(settings: &Settings) -> Result<Self, PlaybookError> {
        let host = Host::open(settings)?;
        let controllers = Controllers::new(settings);
        Ok(Self(Runner { host, controllers, start: settings.start }))
    }

    /// Runs a playbook on one message. Every failure is an outcome of the returned attempt. Cancelling
    /// `cancel` ends the run early.
    pub async fn run(&self, call: Call<'_>, cancel: &CancellationToken) -> Attempt {
        self.0.run(call, cancel).await
    }

    /// Checks the syntax of a playbook with `ansible-playbook --syntax-check`, without running it.
    ///
    /// # Errors
    ///
    /// Fails if Ansible cannot be started, or if it reports an error in the playbook.
    pub async fn check(
        &self,
        task: &Task,
        dir: &PlaybookDir,
        secrets: &Secrets,
        timeout: Duration,
    ) -> Result<(), CheckError> {
        check::check(&self.0.host, task, dir, secrets, timeout).await
    }

    /// Runs a playbook once without the limits on files and ports, and returns what it used beyond its grants.
    ///
    /// # Errors
    ///
    /// Fails if the playbook cannot be started, or if the message cannot be passed to it.
    pub async fn learn(
        &self,
        call: Call<'_>,
        cancel: &CancellationToken,
    ) -> Result<Learned, CheckError> {
        learn::learn(&self.0.host, &call, cancel).await
    }

    /// Returns the variables that a playbook uses and does not define itself, and that may be keys of a message.
    /// Roles, inventories and other files may define some of them.
    ///
    /// # Errors
    ///
    /// Fails if `ansible-playbook` is not a Python program, or if Ansible cannot read the playbook.
    pub async fn undefined_names(
        &self,
        task: &Task,
        dir: &PlaybookDir,
        timeout: Duration,
    ) -> Result<Vec<VariableName>, CheckError> {
        check::undefined_names(&self.0.host, task, dir, timeout).await
    }

    /// Runs `/bin/true` in the sandbox of playbooks. Returns the state of each confinement layer on this
    /// machine.
    ///
    /// # Errors
    ///
    /// Fails if the program cannot be started, or if a required layer is missing. Some layers are always
    /// required, others only if the settings require them.
    pub async fn try_layers(&self) -> Result<Vec<LayerReport>, CheckError> {
        check::try_layers(&self.0.host).await
    }

    /// Ends each idle controller that exceeds the idle timeout or is out of date.
    pub async fn expire(&self) {
        self.0.controllers.expire().await;
    }

    /// Ends all idle controllers. Later runs start `ansible-playbook` as a new process.
    pub async fn close(&self) {
        let _was_open = self.0.controllers.close().await;
    }
}
