//! The parts that all runs on this machine share: the planner, the path of the launcher, and the directory
//! for the folders of the runs.
//!
//! The parts are created once from the settings. Each run and each check uses them.

use std::path::PathBuf;

use loopabull_launcher::Files;
use tokio_util::sync::CancellationToken;

use crate::ansible_settings::KnownSettings;
use crate::error::{PlaybookError, StartError};
use crate::folder::{self, Folder};
use crate::plan::{LaunchPlan, Planner};
use crate::play::Play;
use crate::process::Process;
use crate::programs;
use crate::settings::Settings;
use crate::watch::{End, Limits};

/// The planner, the path of the launcher, and the directory for the folders of the runs.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) planner: Planner,
    pub(crate) launcher: PathBuf,
    /// The directory in which each run gets its own folder.
    runs: PathBuf,
    pub(crate) settings: KnownSettings,
}

impl Host {
    /// Finds Ansible, the user of playbooks and the launcher, and creates the directory for the folders of
    /// the runs.
    pub(crate) fn open(settings: &Settings) -> Result<Self, PlaybookError> {
        let planner = Planner::open(settings)?;
        let runs = folder::make_parent(&settings.runs, planner.user())
            .map_err(|source| PlaybookError::Runs { path: settings.runs.clone(), source })?;
        let launcher = match &settings.launcher {
            Some(path) => path.clone(),
            None => programs::next_to_executable("loopabull-launch"),
        };
        if !launcher.is_file() {
            return Err(PlaybookError::NoLauncher { path: launcher });
        }
        Ok(Self { planner, launcher, runs, settings: KnownSettings::default() })
    }

    /// Creates the folder of a run, which must not exist yet.
    pub(crate) fn make_folder(&self, name: &str) -> Result<Folder, StartError> {
        Folder::make(&self.runs.join(name), self.planner.user())
    }

    /// Returns the files that runs of a playbook may use, and the directory with the folders of all runs.
    pub(crate) fn files(&self, play: &Play<'_>) -> Result<Files, StartError> {
        let mut files = self.planner.files(play)?;
        files.read.push(self.runs.clone());
        Ok(files)
    }

    /// Runs a program through the launcher until all of its processes have ended, and removes the folder of the run.
    pub(crate) async fn run(
        &self,
        folder: Folder,
        plan: Result<LaunchPlan, StartError>,
        limits: Limits<'_>,
        cancel: &CancellationToken,
    ) -> Result<End, StartError> {
        let end = match plan.and_then(|plan| Process::start(&self.launcher, &plan)) {
            Ok(process) => Ok(process.watch(limits, cancel).await),
            Err(error) => Err(error),
        };
        folder.remove().await;
        end
    }
}
