//! Runs Ansible playbooks: `ansible-playbook` behind the launcher, confined to its own folder.
//!
//! Owns a run of a playbook as the daemon sees it: its folder, its plan, its process, its results and its
//! record. This is the only crate that starts processes. A playbook is opened beneath the playbooks
//! directory by the name that the daemon itself listed. The message is in a file of the run's own folder,
//! and no part of it is on the command line or in the environment. The output of Ansible is kept for
//! people and never parsed: its callback plugin sends the results. Must not know queues, the journal or
//! the daemon's configuration. Before it on the path of a message: the worker; after it: the launcher.
//!
//! A module imports only modules of the lines below its own:
//!
//! - `run`: one message for one playbook; `check`: checks before any message
//! - `host`: everything that all runs share; `warm`: the pool of controllers
//! - `process`: one launcher; `report`: the record of a run
//! - `watch`: a run until its end
//! - `results`: the lines of the callback plugin; `plan`, `objections`: a manifest becomes a confinement
//! - `environment`, `playbook_dir`: variables of a process; files beside the playbooks
//! - `folder`, `installed`, `user`, `variables`: files of a run, programs, the variables of a play
//! - `secrets`, `settings`, `yaml`
//! - `error`

mod check;
mod environment;
mod error;
mod folder;
mod host;
mod installed;
mod objections;
mod plan;
mod playbook_dir;
mod process;
mod report;
mod results;
mod run;
mod secrets;
mod settings;
mod user;
mod variables;
mod warm;
mod watch;
mod yaml;

use std::time::Duration;

use loopabull_model::{Attempt, LayerReport, Task};
use tokio_util::sync::CancellationToken;

pub use error::{CheckError, PlaybookError, StartError};
pub use folder::remove_tree;
pub use objections::{Objection, objections};
pub use plan::MEMORY;
pub use run::Call;
pub use secrets::Secrets;
pub use settings::Settings;

use host::Host;
use run::Runner;
use warm::Controllers;

/// Runs playbooks.
#[derive(Debug)]
pub struct Playbooks(Runner);

impl Playbooks {
    /// Finds everything that is needed to start playbooks, and makes the directory of the runs.
    ///
    /// # Errors
    ///
    /// If a directory, a program, a user or a layer of the settings cannot be used.
    pub fn open(settings: &Settings) -> Result<Self, PlaybookError> {
        let host = Host::open(settings)?;
        let controllers = Controllers::new(settings);
        Ok(Self(Runner { host, controllers, start: settings.start }))
    }

    /// Runs a playbook on one message. Every failure is an outcome. `cancel` ends the run early.
    pub async fn run(&self, call: Call<'_>, cancel: &CancellationToken) -> Attempt {
        self.0.run(call, cancel).await
    }

    /// Lets Ansible read a playbook without running it.
    ///
    /// # Errors
    ///
    /// If Ansible cannot be started, or cannot read the playbook.
    pub async fn check(
        &self,
        task: &Task,
        secrets: &Secrets,
        timeout: Duration,
    ) -> Result<(), CheckError> {
        check::check(&self.0.host, task, secrets, timeout).await
    }

    /// Tries the confinement of playbooks on a program that does nothing. Returns the state of each layer
    /// on this machine.
    ///
    /// # Errors
    ///
    /// If the program cannot be started, or a layer is missing that is always needed or that the settings
    /// require.
    pub async fn try_layers(&self) -> Result<Vec<LayerReport>, CheckError> {
        check::try_layers(&self.0.host).await
    }

    /// Ends the controllers that waited too long for a run or are out of date.
    pub async fn expire(&self) {
        self.0.controllers.expire().await;
    }

    /// Ends all controllers. From now on every run is a cold one.
    pub async fn close(&self) {
        self.0.controllers.close().await;
    }

    /// Tells whether a playbook seems to use `become` on this machine, where nobody gets new privileges.
    /// It is a hint for a person.
    pub fn becomes_here(&self, task: &Task) -> bool {
        self.0.host.planner.becomes_here(task)
    }
}
