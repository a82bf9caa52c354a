//! The plan of a run: program, arguments, environment, files, ports and limits.
//!
//! This module turns the manifest of a playbook into a [`Confinement`]. The host has checked before that the
//! manifest stays within the ceiling, which is the maximum that the operator allows. The launcher receives
//! the plan.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use loopabull_launcher::{Confinement, Environment, Files, Layer, Limits, User};
use loopabull_model::{Access, AnsibleOptions, Become, Manifest, Task};

use crate::environment::{Paths, RESULTS, environment};
use crate::error::{PlaybookError, StartError};
use crate::folder::{CREDENTIALS, GIVEN, HOME, TMP};
use crate::installed::{self, Python};
use crate::playbook_dir::PlaybookDir;
use crate::settings::Settings;
use crate::user;

/// The TCP port that every playbook may connect to.
const SSH: u16 = 22;
/// The default maximum number of processes of a playbook.
const PROCESSES: u64 = 512;
/// The default maximum number of open file descriptors of each process. 1024 is enough for many hosts, and
/// programs that call `select` cannot handle higher descriptor numbers.
const OPEN_FILES: u64 = 1024;
/// The default maximum size of the address space of each process of a playbook, in bytes.
pub const MEMORY: u64 = 1 << 30;
/// The default maximum size of a file that a playbook writes, in bytes.
const FILE_SIZE: u64 = 1 << 30;
/// The number of the file descriptor on which a controller receives commands. In the process of a run, the
/// descriptor for the results has the same number.
const CONTROL: u32 = RESULTS;
/// The placeholder for the folder of a run in [`Planner::key`]. With it, the key does not depend on the real
/// folder.
const ANY_FOLDER: &str = "/folder";

/// The planner of runs, which knows the installed Ansible and the settings that all playbooks share.
#[derive(Debug)]
pub(crate) struct Planner {
    ansible: PathBuf,
    /// The directory trees of Ansible and its Python that are outside the system's directories.
    installed: Vec<PathBuf>,
    /// The directory of our programs for Ansible.
    programs: PathBuf,
    /// The Python interpreter of `ansible-playbook`. `None` if the program is not a Python script.
    python: Option<Python>,
    user: Option<User>,
    required: BTreeSet<Layer>,
    without: BTreeSet<Layer>,
}

/// A program that the launcher starts, with its confinement and its environment variables.
#[derive(Debug)]
pub(crate) struct LaunchPlan {
    pub(crate) confinement: Confinement,
    pub(crate) environment: Environment,
}

impl Planner {
    /// Finds Ansible, writes our callback plugin and our controller to the state directory, and looks up the user
    /// and the layers.
    pub(crate) fn open(settings: &Settings) -> Result<Self, PlaybookError> {
        let state = std::path::absolute(&settings.state).unwrap_or_else(|_| settings.state.clone());
        // A colon separates the paths in Ansible's settings. In `/etc/passwd`, a home directory may contain
        // neither a colon nor a line feed (passwd(5)).
        if state.as_os_str().as_encoded_bytes().iter().any(|byte| b":\n".contains(byte)) {
            return Err(PlaybookError::StatePath { path: state });
        }
        let ansible = match &settings.ansible_playbook {
            Some(path) => path.clone(),
            None => installed::on_path("ansible-playbook").ok_or(PlaybookError::NoAnsible)?,
        };
        let ansible = installed::without_links(&ansible);
        let layers = |names: &[String]| {
            let layer = |name: &String| {
                name.parse().map_err(|()| PlaybookError::NoLayer { name: name.clone() })
            };
            names.iter().map(layer).collect::<Result<BTreeSet<_>, _>>()
        };
        let user = settings.user.as_deref().map(user::find).transpose()?;
        Ok(Self {
            installed: installed::trees(&ansible),
            programs: installed::write_programs(&settings.state.join("ansible"))?,
            python: installed::interpreter(&ansible),
            required: layers(&settings.require)?,
            without: layers(&settings.without)?,
            ansible,
            user,
        })
    }

    /// Returns the user that playbooks run as. `None` means the user of the daemon.
    pub(crate) fn user(&self) -> Option<User> {
        self.user
    }

    /// Returns the arguments of `ansible-playbook` for a task. `folder` is the folder of the run, and `more`
    /// are arguments that come before the path of the playbook.
    pub(crate) fn arguments(
        &self,
        task: &Task,
        dir: &PlaybookDir,
        folder: &Path,
        more: impl IntoIterator<Item = OsString>,
    ) -> Result<Vec<OsString>, StartError> {
        let playbook = dir.playbook(task)?;
        let mut arguments = self.options(&task.manifest.ansible, dir, folder)?;
        arguments.extend(more);
        arguments.push(playbook.into());
        Ok(arguments)
    }

    /// Plans a run of `ansible-playbook` for a task. `folder` is the folder of the run.
    pub(crate) fn playbook(
        &self,
        task: &Task,
        dir: &PlaybookDir,
        folder: &Path,
        arguments: Vec<OsString>,
    ) -> Result<LaunchPlan, StartError> {
        let environment = self.environment(&task.manifest, dir, folder)?;
        let confinement = self.confinement(&task.manifest, dir, folder, &environment, arguments)?;
        Ok(LaunchPlan { confinement, environment })
    }

    /// Returns whether `ansible-playbook` is a Python program. Otherwise no controller can be started.
    pub(crate) fn has_python(&self) -> bool {
        self.python.is_some()
    }

    /// Plans a controller that can run a task. `folder` is the folder of the controller.
    pub(crate) fn controller(
        &self,
        task: &Task,
        dir: &PlaybookDir,
        folder: &Path,
    ) -> Result<LaunchPlan, StartError> {
        let python = self.python.clone();
        let python = python.ok_or_else(|| StartError::NotPython { path: self.ansible.clone() })?;
        dir.playbook(task)?;
        let mut arguments: Vec<OsString> = python.option.into_iter().map(OsString::from).collect();
        arguments.push(self.programs.join(installed::CONTROLLER).into());
        let LaunchPlan { mut confinement, mut environment } =
            self.playbook(task, dir, folder, arguments)?;
        environment.remove("LOOPABULL_RESULTS_FD");
        environment.insert("LOOPABULL_CONTROL_FD".to_owned(), CONTROL.to_string().into());
        environment.insert("LOOPABULL_PRIVATE_PIDS".to_owned(), "1".into());
        confinement.environment = environment.keys().cloned().collect();
        confinement.program = python.path;
        confinement.descriptors = vec![CONTROL];
        // In its own PID namespace, the controller can find and kill all processes of a run.
        confinement.required.insert(Layer::Namespaces);
        Ok(LaunchPlan { confinement, environment })
    }

    /// Returns the key of a task's controller. One controller can serve all runs that have the same key.
    pub(crate) fn key(&self, task: &Task, dir: &PlaybookDir) -> Result<String, StartError> {
        let plan = self.playbook(task, dir, Path::new(ANY_FOLDER), Vec::new())?;
        Ok(format!("{:?} {:?}", plan.confinement, plan.environment))
    }

    /// Plans `/bin/true` with the confinement layers of playbooks, to try the layers on this machine.
    pub(crate) fn trial(&self, folder: &Path) -> LaunchPlan {
        let home = folder.join(HOME);
        let confinement = Confinement {
            directory: home.clone(),
            home: None,
            tmp: None,
            files: Files { system: true, write: vec![home], read: Vec::new() },
            environment: Vec::new(),
            tcp: vec![SSH],
            limits: Limits { processes: Some(PROCESSES), ..Limits::none() },
            descriptors: Vec::new(),
            program: "/bin/true".into(),
            arguments: Vec::new(),
            landlock_abi: None,
            user: self.user,
            required: self.required.clone(),
            without: self.without.clone(),
        };
        LaunchPlan { confinement, environment: Environment::new() }
    }

    fn confinement(
        &self,
        manifest: &Manifest,
        dir: &PlaybookDir,
        folder: &Path,
        environment: &Environment,
        arguments: Vec<OsString>,
    ) -> Result<Confinement, StartError> {
        let (grants, limits) = (&manifest.grants, &manifest.limits);
        let mut read = vec![dir.path().to_owned(), self.programs.clone()];
        read.extend(self.installed.iter().cloned());
        read.push(folder.join(GIVEN));
        let mut write = vec![folder.join(HOME), folder.join(TMP)];
        if let Some(agent) = &grants.ssh_agent {
            let is_socket = agent.metadata().is_ok_and(|found| found.file_type().is_socket());
            if !is_socket {
                return Err(StartError::NoAgent { path: agent.clone() });
            }
            write.push(agent.clone());
        }
        for dir in &grants.dirs {
            match dir.access {
                Access::ReadOnly => read.push(dir.host.clone()),
                Access::ReadWrite => write.push(dir.host.clone()),
            }
        }
        let mut required = self.required.clone();
        for name in &manifest.ansible.require {
            let layer = name.parse().map_err(|()| StartError::NoLayer { name: name.clone() })?;
            required.insert(layer);
        }
        // A grant of ports or a limit on processes has no effect without its layer. A manifest with such a
        // grant or limit therefore requires the layer.
        if !grants.tcp.is_empty() {
            required.insert(Layer::Tcp);
        }
        if limits.processes.is_some() {
            required.insert(Layer::Processes);
        }
        let without = self.without.difference(&required).copied().collect();
        Ok(Confinement {
            directory: folder.join(HOME),
            home: Some(folder.join(HOME)),
            tmp: Some(folder.join(TMP)),
            environment: environment.keys().cloned().collect(),
            files: Files { system: true, read, write },
            tcp: std::iter::once(SSH).chain(grants.tcp.iter().copied()).collect(),
            landlock_abi: None,
            user: self.user,
            required,
            without,
            descriptors: vec![RESULTS],
            limits: Limits {
                open_files: Some(limits.open_files.unwrap_or(OPEN_FILES)),
                file_size: Some(limits.file_size.map_or(FILE_SIZE, |size| size.as_u64())),
                memory: Some(limits.memory.map_or(MEMORY, |memory| memory.as_u64())),
                processes: Some(limits.processes.unwrap_or(PROCESSES)),
                cpu_seconds: None,
            },
            program: self.ansible.clone(),
            arguments,
        })
    }

    /// Returns the options of `ansible-playbook` for a manifest.
    fn options(
        &self,
        options: &AnsibleOptions,
        dir: &PlaybookDir,
        folder: &Path,
    ) -> Result<Vec<OsString>, StartError> {
        let inventory = dir.inventory(options.inventory.as_deref())?;
        // Without an inventory file the playbook may use only this machine, without ssh.
        let inventory = inventory.unwrap_or_else(|| self.programs.join(installed::INVENTORY));
        let mut all: Vec<OsString> = vec!["--inventory".into(), inventory.into()];
        for (option, tags) in [("--tags", &options.tags), ("--skip-tags", &options.skip_tags)] {
            if !tags.is_empty() {
                all.extend([option.into(), tags.join(",").into()]);
            }
        }
        if options.check_mode {
            all.push("--check".into());
        }
        if options.r#become == Some(Become::Remote) {
            all.push("--become".into());
        }
        let secrets = [
            ("--vault-password-file", &options.vault_password),
            ("--private-key", &options.private_key),
        ];
        for (option, name) in secrets {
            if let Some(name) = name {
                all.extend([option.into(), folder.join(CREDENTIALS).join(name).into()]);
            }
        }
        Ok(all)
    }

    fn environment(
        &self,
        manifest: &Manifest,
        dir: &PlaybookDir,
        folder: &Path,
    ) -> Result<Environment, StartError> {
        let config = dir.ansible_config(manifest.ansible.config.as_deref())?;
        let paths = Paths {
            ansible: &self.ansible,
            programs: &self.programs,
            playbooks: dir.path(),
            folder,
        };
        Ok(environment(manifest, paths, config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_that_ansible_cannot_use_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::new(folder.path().join("a:b"), "runs");
        let error = Planner::open(&settings).err().unwrap().to_string();
        assert!(error.contains("a:b`: its path has a colon"), "{error}");
    }
}
