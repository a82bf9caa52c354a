//! The plan of a run: program, arguments, environment, files, ports and limits.
//!
//! This module turns the manifest of a playbook into a [`Confinement`]. The host has checked before that the
//! manifest stays within the ceiling, which is the maximum that the operator allows. The launcher receives
//! the plan.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use loopabull_launcher::{Confinement, Environment, Files, Layer, Limits, User};
use loopabull_model::{Access, Become, Manifest, Task};

use crate::ansible_settings::{AnsibleSettings, ConfigurationKey, KnownSettings};
use crate::environment::{self, Paths, RESULTS};
use crate::error::{PlaybookError, StartError};
use crate::folder::{CREDENTIALS, EXTRA_VARS, GIVEN, HOME, TMP};
use crate::installed::{self, Python};
use crate::playbook_dir::PlaybookDir;
use crate::settings::Settings;
use crate::user::{self, PlaybookUser};

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
    user: Option<PlaybookUser>,
    required: BTreeSet<Layer>,
    without: BTreeSet<Layer>,
    settings: KnownSettings,
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
            settings: KnownSettings::default(),
        })
    }

    /// Returns the user that playbooks run as. `None` means the user of the daemon.
    pub(crate) fn user(&self) -> Option<User> {
        self.user.as_ref().map(|user| user.ids)
    }

    /// Returns the supplementary groups of that user.
    fn groups(&self) -> Vec<u32> {
        self.user.as_ref().map(|user| user.groups.clone()).unwrap_or_default()
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
        // Of several `--extra-vars`, the last has precedence: the operator's, not the message's.
        let mut arguments: Vec<OsString> = more.into_iter().collect();
        arguments.extend(self.options(&task.manifest, dir, folder)?);
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
        dir.playbook(task)?;
        let LaunchPlan { mut confinement, mut environment } =
            self.python_program(installed::CONTROLLER, task, dir, folder, None)?;
        environment.remove("LOOPABULL_RESULTS_FD");
        environment.insert("LOOPABULL_CONTROL_FD".to_owned(), CONTROL.to_string().into());
        environment.insert("LOOPABULL_PRIVATE_PIDS".to_owned(), "1".into());
        confinement.environment = environment.keys().cloned().collect();
        confinement.descriptors = vec![CONTROL];
        // In its own PID namespace, the controller can find and kill all processes of a run.
        confinement.required.insert(Layer::Namespaces);
        Ok(LaunchPlan { confinement, environment })
    }

    /// Plans the program that prints the variables which a playbook uses and does not define. `folder` is the
    /// folder of the check.
    pub(crate) fn undefined_names(
        &self,
        task: &Task,
        dir: &PlaybookDir,
        folder: &Path,
    ) -> Result<LaunchPlan, StartError> {
        let playbook = dir.playbook(task)?;
        self.python_program(installed::UNDEFINED_NAMES, task, dir, folder, Some(playbook.into()))
    }

    /// Plans one of our Python programs with the Python of Ansible and the confinement of a playbook.
    fn python_program(
        &self,
        program: &str,
        task: &Task,
        dir: &PlaybookDir,
        folder: &Path,
        argument: Option<OsString>,
    ) -> Result<LaunchPlan, StartError> {
        let python = self.python.clone();
        let python = python.ok_or_else(|| StartError::NotPython { path: self.ansible.clone() })?;
        let mut arguments: Vec<OsString> = python.option.into_iter().map(OsString::from).collect();
        arguments.push(self.programs.join(program).into());
        arguments.extend(argument);
        let mut plan = self.playbook(task, dir, folder, arguments)?;
        plan.confinement.program = python.path;
        Ok(plan)
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
            user: self.user(),
            groups: self.groups(),
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
            user: self.user(),
            groups: self.groups(),
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
        manifest: &Manifest,
        dir: &PlaybookDir,
        folder: &Path,
    ) -> Result<Vec<OsString>, StartError> {
        let (options, settings) = (&manifest.ansible, self.settings(manifest, dir)?);
        let mut all: Vec<OsString> = Vec::new();
        // An inventory in Ansible's configuration comes before the file `inventory`.
        if options.inventory.is_some() || settings.inventory.is_none() {
            let inventory = dir.inventory(options.inventory.as_deref())?;
            // Without an inventory file the playbook may use only this machine, without ssh.
            let inventory = inventory.unwrap_or_else(|| self.programs.join(installed::INVENTORY));
            all.extend(["--inventory".into(), inventory.into()]);
        }
        if let Some(limit) = &options.limit {
            all.extend(["--limit".into(), limit.into()]);
        }
        if !options.extra_vars.is_empty() {
            let mut file = OsString::from("@");
            file.push(folder.join(EXTRA_VARS));
            all.extend(["--extra-vars".into(), file]);
        }
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
        let paths = self.paths(dir, folder);
        let config = dir.ansible_config(manifest.ansible.config.as_deref())?;
        let settings = self.settings(manifest, dir)?;
        let mut environment = environment::environment(manifest, paths, config);
        environment::add(&mut environment, &settings, paths);
        Ok(environment)
    }

    fn paths<'a>(&'a self, dir: &'a PlaybookDir, folder: &'a Path) -> Paths<'a> {
        Paths { ansible: &self.ansible, programs: &self.programs, playbooks: dir.path(), folder }
    }

    /// Returns the settings of a playbook's configuration. If the configuration was not read, returns Ansible's
    /// defaults.
    fn settings(
        &self,
        manifest: &Manifest,
        dir: &PlaybookDir,
    ) -> Result<Arc<AnsibleSettings>, StartError> {
        Ok(self.settings.get(&self.configuration(manifest, dir)?).unwrap_or_default())
    }

    fn configuration(
        &self,
        manifest: &Manifest,
        dir: &PlaybookDir,
    ) -> Result<ConfigurationKey, StartError> {
        let config = dir.ansible_config(manifest.ansible.config.as_deref())?;
        Ok(ConfigurationKey::new(config.as_deref(), manifest))
    }

    /// Returns the key of a playbook's configuration, unless its settings are known or cannot be asked for.
    pub(crate) fn unknown_configuration(
        &self,
        task: &Task,
        dir: &PlaybookDir,
    ) -> Result<Option<ConfigurationKey>, StartError> {
        let key = self.configuration(&task.manifest, dir)?;
        Ok((self.has_python() && self.settings.get(&key).is_none()).then_some(key))
    }

    /// Stores the settings of a configuration.
    pub(crate) fn store_settings(&self, key: ConfigurationKey, settings: AnsibleSettings) {
        self.settings.insert(key, settings);
    }

    /// Plans the program that prints the settings of a playbook's configuration. `folder` is the folder of the
    /// check.
    pub(crate) fn settings_query(
        &self,
        task: &Task,
        dir: &PlaybookDir,
        folder: &Path,
    ) -> Result<LaunchPlan, StartError> {
        let LaunchPlan { mut confinement, .. } =
            self.python_program(installed::SETTINGS, task, dir, folder, None)?;
        let config = dir.ansible_config(task.manifest.ansible.config.as_deref())?;
        let environment = environment::environment(&task.manifest, self.paths(dir, folder), config);
        confinement.environment = environment.keys().cloned().collect();
        Ok(LaunchPlan { confinement, environment })
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
