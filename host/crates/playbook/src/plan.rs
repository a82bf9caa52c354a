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

use loopabull_launcher::{Confinement, Environment, Files, Layer, Limits, User, Watch};
use loopabull_model::{Access, Become, Task};
use parking_lot::RwLock;

use crate::ansible_settings::ConfigurationKey;
use crate::environment::{self, Paths, RESULTS};
use crate::error::{CheckError, PlaybookError, StartError};
use crate::folder::{CREDENTIALS, EXTRA_VARS, GIVEN, HOME, TMP};
use crate::installation::Installation;
use crate::play::Play;
use crate::playbook_dir::PlaybookDir;
use crate::programs;
use crate::settings::Settings;
use crate::shared_content::SharedContent;
use crate::user::{self, PlaybookUser};

/// The TCP port that every playbook may connect to.
pub(crate) const SSH: u16 = 22;
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
/// The placeholder for the folder of a run in what does not depend on it.
const ANY_FOLDER: &str = "/folder";

/// The planner of runs, which knows the installed Ansible, and the settings that all playbooks share.
#[derive(Debug)]
pub(crate) struct Planner {
    ansible: RwLock<Arc<Installation>>,
    /// The directory of our programs for Ansible.
    programs: PathBuf,
    user: Option<PlaybookUser>,
    /// The collections and roles in the home of that user.
    shared: SharedContent,
    required: BTreeSet<Layer>,
    without: BTreeSet<Layer>,
}

/// The reason to start `ansible-playbook`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    Run,
    /// A check of the syntax, which touches no host.
    Check,
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
        let ansible = Installation::find(settings.ansible_playbook.as_deref())?;
        let layers = |names: &[String]| {
            let layer = |name: &String| {
                name.parse().map_err(|()| PlaybookError::NoLayer { name: name.clone() })
            };
            names.iter().map(layer).collect::<Result<BTreeSet<_>, _>>()
        };
        let user = settings.user.as_deref().map(user::find).transpose()?;
        Ok(Self {
            programs: programs::write_programs(&settings.state.join("ansible"))?,
            shared: SharedContent::of(user.as_ref()),
            required: layers(&settings.require)?,
            without: layers(&settings.without)?,
            ansible: RwLock::new(Arc::new(ansible)),
            user,
        })
    }

    /// Returns the installation of Ansible, which is found again after it was replaced.
    fn ansible(&self) -> Arc<Installation> {
        let known = Arc::clone(&self.ansible.read());
        match known.find_changed() {
            Some(changed) => {
                let changed = Arc::new(changed);
                *self.ansible.write() = Arc::clone(&changed);
                changed
            }
            None => known,
        }
    }

    /// Returns the user that playbooks run as. `None` means the user of the daemon.
    pub(crate) fn user(&self) -> Option<User> {
        self.user.as_ref().map(|user| user.ids)
    }

    /// Returns the supplementary groups of that user.
    fn groups(&self) -> Vec<u32> {
        self.user.as_ref().map(|user| user.groups.clone()).unwrap_or_default()
    }

    /// Returns the arguments of `ansible-playbook` for a playbook. `folder` is the folder of the run, and `more`
    /// are arguments that come before the path of the playbook.
    pub(crate) fn arguments(
        &self,
        play: &Play<'_>,
        folder: &Path,
        purpose: Purpose,
        more: impl IntoIterator<Item = OsString>,
    ) -> Result<Vec<OsString>, StartError> {
        let playbook = play.dir.playbook(play.task)?;
        // Of several `--extra-vars`, the last has precedence: the operator's, not the message's.
        let mut arguments: Vec<OsString> = more.into_iter().collect();
        arguments.extend(self.options(play, folder, purpose)?);
        arguments.push(playbook.into());
        Ok(arguments)
    }

    /// Plans a run of `ansible-playbook` for a task. `folder` is the folder of the run.
    pub(crate) fn playbook(
        &self,
        play: &Play<'_>,
        folder: &Path,
        arguments: Vec<OsString>,
    ) -> Result<LaunchPlan, StartError> {
        self.playbook_with(&self.ansible(), play, folder, arguments)
    }

    /// Plans a run with an installation of Ansible, so that an upgrade changes no part of the plan.
    fn playbook_with(
        &self,
        ansible: &Installation,
        play: &Play<'_>,
        folder: &Path,
        arguments: Vec<OsString>,
    ) -> Result<LaunchPlan, StartError> {
        let environment = self.environment(ansible, play, folder)?;
        let confinement = self.confinement(ansible, play, folder, &environment, arguments)?;
        Ok(LaunchPlan { confinement, environment })
    }

    /// Returns the error for a file with the password of vaults that playbooks cannot read.
    pub(crate) fn unreadable_vault(&self, path: &Path) -> CheckError {
        CheckError::VaultPassword { path: self.shared.expand(path) }
    }

    /// Returns a path in the real home of the user of playbooks.
    pub(crate) fn real_home(&self, name: &str) -> PathBuf {
        self.shared.expand(&Path::new("~").join(name))
    }

    /// Adds to the error of a check that `ansible-playbook` may be a script that starts another one.
    pub(crate) fn explain(&self, play: &Play<'_>, error: CheckError) -> CheckError {
        if !play.settings.is_unknown || error.is_shortage() {
            return error;
        }
        let program = self.ansible().program.clone();
        CheckError::Wrapper { program, source: Box::new(error) }
    }

    /// Returns whether `ansible-playbook` is a Python program. Otherwise no controller can be started.
    pub(crate) fn has_python(&self) -> bool {
        self.ansible().python.is_some()
    }

    /// Plans a controller that can run a task. `folder` is the folder of the controller.
    pub(crate) fn controller(
        &self,
        play: &Play<'_>,
        folder: &Path,
    ) -> Result<LaunchPlan, StartError> {
        play.dir.playbook(play.task)?;
        let LaunchPlan { mut confinement, mut environment } =
            self.python_program(programs::CONTROLLER, play, folder, None)?;
        environment.remove("LOOPABULL_RESULTS_FD");
        environment.insert("LOOPABULL_CONTROL_FD".to_owned(), CONTROL.to_string().into());
        environment.insert("LOOPABULL_PRIVATE_PIDS".to_owned(), "1".into());
        confinement.environment = environment.keys().cloned().collect();
        confinement.descriptors = vec![CONTROL];
        // In its own PID namespace, the controller can find and kill all processes of a run.
        confinement.required.insert(Layer::Namespaces);
        Ok(LaunchPlan { confinement, environment })
    }

    /// Changes the plan of a run so that the playbook may use all files and ports, and the report names those that the
    /// given plan does not grant.
    pub(crate) fn learning(&self, plan: LaunchPlan) -> LaunchPlan {
        let LaunchPlan { mut confinement, mut environment } = plan;
        // Python would write its caches beside all modules that it may write now.
        environment.insert("PYTHONDONTWRITEBYTECODE".to_owned(), "1".into());
        confinement.environment = environment.keys().cloned().collect();
        confinement.files.write.push("/".into());
        confinement.watch = Watch::Everything;
        for layer in [Layer::Tcp, Layer::Scopes, Layer::Sockets] {
            confinement.required.remove(&layer);
            confinement.without.insert(layer);
        }
        LaunchPlan { confinement, environment }
    }

    /// Plans the program that prints the variables which a playbook uses and does not define. `folder` is the
    /// folder of the check.
    pub(crate) fn undefined_names(
        &self,
        play: &Play<'_>,
        folder: &Path,
    ) -> Result<LaunchPlan, StartError> {
        let playbook = play.dir.playbook(play.task)?;
        self.python_program(programs::UNDEFINED_NAMES, play, folder, Some(playbook.into()))
    }

    /// Plans one of our Python programs with the Python of Ansible and the confinement of a playbook.
    fn python_program(
        &self,
        program: &str,
        play: &Play<'_>,
        folder: &Path,
        argument: Option<OsString>,
    ) -> Result<LaunchPlan, StartError> {
        let ansible = self.ansible();
        let python = ansible.python.clone();
        let not_python = || StartError::NotPython { path: ansible.program.clone() };
        let python = python.ok_or_else(not_python)?;
        let mut arguments: Vec<OsString> = python.option.into_iter().map(OsString::from).collect();
        arguments.push(self.programs.join(program).into());
        arguments.extend(argument);
        let mut plan = self.playbook_with(&ansible, play, folder, arguments)?;
        plan.confinement.program = python.path;
        Ok(plan)
    }

    /// Returns the key of a task's controller. One controller can serve all runs that have the same key.
    pub(crate) fn key(&self, play: &Play<'_>) -> Result<String, StartError> {
        let plan = self.playbook(play, Path::new(ANY_FOLDER), Vec::new())?;
        Ok(format!("{:?} {:?}", plan.confinement, plan.environment))
    }

    /// Returns the files that the runs of a playbook may use, without those in the folder of a run.
    pub(crate) fn files(&self, play: &Play<'_>) -> Result<Files, StartError> {
        Ok(self.playbook(play, Path::new(ANY_FOLDER), Vec::new())?.confinement.files)
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
            watch: Watch::Nothing,
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
        ansible: &Installation,
        play: &Play<'_>,
        folder: &Path,
        environment: &Environment,
        arguments: Vec<OsString>,
    ) -> Result<Confinement, StartError> {
        let (manifest, dir) = (&play.task.manifest, play.dir);
        let (grants, limits) = (&manifest.grants, &manifest.limits);
        let mut read = vec![dir.path().to_owned(), self.programs.clone()];
        read.extend(ansible.trees.iter().cloned());
        read.extend(self.shared.dirs());
        read.extend(dir.linked().iter().cloned());
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
            watch: Watch::DeniedPorts,
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
            program: ansible.program.clone(),
            arguments,
        })
    }

    /// Returns the options of `ansible-playbook` for a manifest.
    fn options(
        &self,
        play: &Play<'_>,
        folder: &Path,
        purpose: Purpose,
    ) -> Result<Vec<OsString>, StartError> {
        let (options, settings) = (&play.task.manifest.ansible, &play.settings);
        let mut all: Vec<OsString> = Vec::new();
        // An inventory in Ansible's configuration comes before the file `inventory`.
        if options.inventory.is_some() || !settings.has_inventory() {
            let inventory = play.dir.inventory(options.inventory.as_deref())?;
            // Without an inventory file the playbook may use only this machine, without ssh.
            let inventory = inventory.unwrap_or_else(|| self.programs.join(programs::INVENTORY));
            all.extend(["--inventory".into(), inventory.into()]);
        }
        // Without a matching host, Ansible would also refuse the check of the syntax.
        if let (Some(limit), Purpose::Run) = (&options.limit, purpose) {
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
        ansible: &Installation,
        play: &Play<'_>,
        folder: &Path,
    ) -> Result<Environment, StartError> {
        let mut environment = self.own_environment(ansible, play.task, play.dir, folder)?;
        environment::add(&mut environment, &play.settings, self.paths(ansible, play.dir, folder));
        Ok(environment)
    }

    /// Returns the environment of a playbook without the variables that depend on Ansible's settings.
    fn own_environment(
        &self,
        ansible: &Installation,
        task: &Task,
        dir: &PlaybookDir,
        folder: &Path,
    ) -> Result<Environment, StartError> {
        let config = dir.ansible_config(task.manifest.ansible.config.as_deref())?;
        let paths = self.paths(ansible, dir, folder);
        Ok(environment::environment(&task.manifest, paths, config))
    }

    fn paths<'a>(
        &'a self,
        ansible: &'a Installation,
        dir: &'a PlaybookDir,
        folder: &'a Path,
    ) -> Paths<'a> {
        Paths {
            ansible,
            programs: &self.programs,
            shared: &self.shared,
            playbooks: dir.path(),
            folder,
        }
    }

    /// Returns the key of a playbook's configuration.
    pub(crate) fn configuration(
        &self,
        task: &Task,
        dir: &PlaybookDir,
    ) -> Result<ConfigurationKey, StartError> {
        let config = dir.ansible_config(task.manifest.ansible.config.as_deref())?;
        Ok(ConfigurationKey::new(config.as_deref(), &task.manifest, self.ansible().state.clone()))
    }

    /// Plans the program that prints the settings of a playbook's configuration. `folder` is the folder of the
    /// check.
    pub(crate) fn settings_query(
        &self,
        task: &Task,
        dir: &PlaybookDir,
        folder: &Path,
    ) -> Result<LaunchPlan, StartError> {
        let play = Play { task, dir, settings: Arc::default() };
        let LaunchPlan { mut confinement, .. } =
            self.python_program(programs::SETTINGS, &play, folder, None)?;
        let environment = self.own_environment(&self.ansible(), task, dir, folder)?;
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
