//! The plan of a run: program, arguments, environment, files, ports and limits.
//!
//! Decides how the manifest of a playbook becomes a [`Confinement`]. Before it: the manifest, checked
//! against the ceiling; after it: the launcher.

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
/// How many processes a playbook may have, if its manifest does not say.
const PROCESSES: u64 = 512;
/// How many descriptors each process may have: enough for many hosts, and still the soft limit that
/// programs with `select` rely on.
const OPEN_FILES: u64 = 1024;
/// The address space of each process of a playbook in bytes, if its manifest does not say.
pub const MEMORY: u64 = 1 << 30;
/// The maximum size of a file that a playbook writes in bytes, if its manifest does not say.
const FILE_SIZE: u64 = 1 << 30;
/// The descriptor of a controller's commands. In a run it is that of the results.
const CONTROL: u32 = RESULTS;
/// Stands for the folder of a run where any folder will do.
const ANY_FOLDER: &str = "/folder";

/// Plans runs: knows the Ansible of this machine and everything that all playbooks have in common.
#[derive(Debug)]
pub(crate) struct Planner {
    playbooks: PlaybookDir,
    ansible: PathBuf,
    /// The trees of Ansible and its Python, outside the system's directories.
    installed: Vec<PathBuf>,
    /// The directory of our programs for Ansible.
    programs: PathBuf,
    /// The interpreter of `ansible-playbook`, if that is a Python.
    python: Option<Python>,
    user: Option<User>,
    required: BTreeSet<Layer>,
    without: BTreeSet<Layer>,
}

/// A program for the launcher.
#[derive(Debug)]
pub(crate) struct LaunchPlan {
    pub(crate) confinement: Confinement,
    pub(crate) environment: Environment,
}

impl Planner {
    /// Finds Ansible, writes our programs for it, and looks up the user and the layers.
    pub(crate) fn open(settings: &Settings) -> Result<Self, PlaybookError> {
        let playbooks = PlaybookDir::open(&settings.playbooks)?;
        let state = std::path::absolute(&settings.state).unwrap_or_else(|_| settings.state.clone());
        // Ansible cannot write these bytes in a list of paths, nor passwd(5) in a home.
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
            playbooks,
            ansible,
            user,
        })
    }

    /// Returns the user that playbooks run as, if it is not the daemon's own.
    pub(crate) fn user(&self) -> Option<User> {
        self.user
    }

    /// Tells whether a playbook seems to use `become` on this machine.
    pub(crate) fn becomes_here(&self, task: &Task) -> bool {
        self.playbooks.becomes_here(task)
    }

    /// Returns the arguments of `ansible-playbook` for a task, in the folder of its run.
    pub(crate) fn arguments(
        &self,
        task: &Task,
        folder: &Path,
        more: impl IntoIterator<Item = OsString>,
    ) -> Result<Vec<OsString>, StartError> {
        let playbook = self.playbooks.playbook(task)?;
        let mut arguments = self.options(&task.manifest.ansible, folder)?;
        arguments.extend(more);
        arguments.push(playbook.into());
        Ok(arguments)
    }

    /// Plans `ansible-playbook` for a task, in the folder of its run.
    pub(crate) fn playbook(
        &self,
        task: &Task,
        folder: &Path,
        arguments: Vec<OsString>,
    ) -> Result<LaunchPlan, StartError> {
        let environment = self.environment(&task.manifest, folder)?;
        let confinement = self.confinement(&task.manifest, folder, &environment, arguments)?;
        Ok(LaunchPlan { confinement, environment })
    }

    /// Tells whether a controller can be started: whether `ansible-playbook` is a Python program.
    pub(crate) fn has_python(&self) -> bool {
        self.python.is_some()
    }

    /// Plans a controller that can run a task in this folder.
    pub(crate) fn controller(&self, task: &Task, folder: &Path) -> Result<LaunchPlan, StartError> {
        let python = self.python.clone();
        let python = python.ok_or_else(|| StartError::NotPython { path: self.ansible.clone() })?;
        self.playbooks.playbook(task)?;
        let mut arguments: Vec<OsString> = python.option.into_iter().map(OsString::from).collect();
        arguments.push(self.programs.join(installed::CONTROLLER).into());
        let LaunchPlan { mut confinement, mut environment } =
            self.playbook(task, folder, arguments)?;
        environment.remove("LOOPABULL_RESULTS_FD");
        environment.insert("LOOPABULL_CONTROL_FD".to_owned(), CONTROL.to_string().into());
        environment.insert("LOOPABULL_PRIVATE_PIDS".to_owned(), "1".into());
        confinement.environment = environment.keys().cloned().collect();
        confinement.program = python.path;
        confinement.descriptors = vec![CONTROL];
        // In namespaces of its own the controller can tell the processes of a run from all others.
        confinement.required.insert(Layer::Namespaces);
        Ok(LaunchPlan { confinement, environment })
    }

    /// Returns a text that is equal for all runs that one controller can serve.
    pub(crate) fn key(&self, task: &Task) -> Result<String, StartError> {
        let plan = self.playbook(task, Path::new(ANY_FOLDER), Vec::new())?;
        Ok(format!("{:?} {:?}", plan.confinement, plan.environment))
    }

    /// Plans a program that does nothing, with the confinement that all playbooks have in common.
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
        folder: &Path,
        environment: &Environment,
        arguments: Vec<OsString>,
    ) -> Result<Confinement, StartError> {
        let (grants, limits) = (&manifest.grants, &manifest.limits);
        let mut read = vec![self.playbooks.path().to_owned(), self.programs.clone()];
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
        // A grant or a limit is only true while its layer is in force.
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
        folder: &Path,
    ) -> Result<Vec<OsString>, StartError> {
        let inventory = self.playbooks.inventory(options.inventory.as_deref())?;
        // Without an inventory there is only this machine, and no ssh.
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

    fn environment(&self, manifest: &Manifest, folder: &Path) -> Result<Environment, StartError> {
        let config = self.playbooks.ansible_config(manifest.ansible.config.as_deref())?;
        let paths = Paths {
            ansible: &self.ansible,
            programs: &self.programs,
            playbooks: self.playbooks.path(),
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
        let settings = Settings::new(folder.path().to_owned(), folder.path().join("a:b"), "runs");
        let error = Planner::open(&settings).err().unwrap().to_string();
        assert!(error.contains("a:b`: its path has a colon"), "{error}");
    }
}
