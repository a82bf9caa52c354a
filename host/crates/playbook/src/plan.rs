//! What a playbook is given: program, arguments, environment, files, ports, limits.
//!
//! Owns how the manifest of a playbook becomes a [`Confinement`]. Before it: the manifest, checked
//! against the ceiling; after it: the launcher.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, bail};
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use loopabull_launcher::{Confinement, Environment, Files, Held, Layer, Limits, User};
use loopabull_model::{Access, AnsibleOptions, Become, LayerState, Manifest, Task};

use crate::error::PlaybookError;
use crate::folder::{CREDENTIALS, GIVEN, HOME, TMP};
use crate::installed::{self, Python};
use crate::settings::Settings;
use crate::warm::Job;

/// The TCP port that every playbook may connect to.
pub(crate) const SSH: u16 = 22;
/// How many processes a playbook may have, if its manifest does not say.
pub(crate) const PROCESSES: u64 = 512;
/// Descriptors for a playbook on many hosts, and still the soft limit that programs that use `select`
/// rely on.
const OPEN_FILES: u64 = 1024;
/// The address space of each process of a playbook in bytes, if its manifest does not say.
pub const MEMORY: u64 = 1 << 30;
const FILE_SIZE: u64 = 1 << 30;
/// The descriptor on which the callback plugin tells what is done.
const RESULTS: u32 = 3;
/// What a socket of ssh's connection sharing may be called, beside its folder, so that its path still
/// is one for a socket (sun_path of unix(7) has 108 bytes; ssh adds 17 while it makes one).
const LONGEST_SOCKET_FOLDER: usize = 108 - 17 - 12;
/// Variables that are the daemon's to set, whatever a manifest says.
const OURS: [&str; 9] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "ANSIBLE_HOME",
    "ANSIBLE_LOCAL_TEMP",
    "ANSIBLE_CALLBACK_PLUGINS",
    "CREDENTIALS_DIRECTORY",
    "LOOPABULL_RESULTS_FD",
    "SSH_AUTH_SOCK",
];
/// What stands for the folder of a run where it does not matter which.
const ANY_FOLDER: &str = "/folder";

/// Knows this host's Ansible and what all playbooks have in common.
#[derive(Debug)]
pub(crate) struct Plan {
    dir: Dir,
    folder: PathBuf,
    ansible: PathBuf,
    /// Where Ansible and its Python are, beside the system.
    installed: Vec<PathBuf>,
    /// Where our programs are.
    programs: PathBuf,
    /// What `ansible-playbook` is run by, if that is a Python.
    python: Option<Python>,
    pub(crate) user: Option<User>,
    pub(crate) required: BTreeSet<Layer>,
    pub(crate) without: BTreeSet<Layer>,
}

impl Plan {
    pub(crate) fn open(settings: &Settings) -> Result<Self, PlaybookError> {
        let cannot = |source| PlaybookError::Folder { path: settings.playbooks.clone(), source };
        let folder = settings.playbooks.canonicalize().map_err(cannot)?;
        let dir = Dir::open_ambient_dir(&folder, ambient_authority()).map_err(cannot)?;
        let state = std::path::absolute(&settings.state).unwrap_or_else(|_| settings.state.clone());
        // Lists of paths and of users have no way to write it.
        if state.as_os_str().as_encoded_bytes().iter().any(|byte| b":\n".contains(byte)) {
            return Err(PlaybookError::StatePath { path: state });
        }
        let ansible = match &settings.ansible_playbook {
            Some(path) => path.clone(),
            None => installed::on_path("ansible-playbook").ok_or(PlaybookError::NoAnsible)?,
        };
        let ansible = installed::without_links(&ansible);
        let layers = |names: &[String]| {
            names.iter().map(|name| layer(name)).collect::<Result<BTreeSet<_>, _>>()
        };
        let user = settings.user.as_deref().map(installed::find_user).transpose()?;
        Ok(Self {
            installed: installed::trees(&ansible),
            programs: installed::write_programs(&settings.state.join("ansible"))?,
            python: installed::interpreter(&ansible),
            required: layers(&settings.require)?,
            without: layers(&settings.without)?,
            dir,
            folder,
            ansible,
            user,
        })
    }

    /// Plans `ansible-playbook` for a task, in the folder of its run. Returns its environment too.
    pub(crate) fn playbook(
        &self,
        task: &Task,
        folder: &Path,
        arguments: &[OsString],
    ) -> anyhow::Result<(Confinement, Environment)> {
        let name = format!("{}.yml", task.name);
        let metadata = self.dir.open(&name).and_then(|file| file.metadata());
        if !metadata.with_context(|| format!("cannot open playbook `{name}`"))?.is_file() {
            bail!("playbook `{name}` is not a file");
        }
        let mut all = self.options(&task.manifest.ansible, folder)?;
        all.extend(arguments.iter().cloned());
        all.push(self.folder.join(&name).into());
        let environment = self.environment(&task.manifest, folder)?;
        let confinement = self.confinement(&task.manifest, folder, &environment, all)?;
        Ok((confinement, environment))
    }

    /// Tells whether `ansible-playbook` is a program of a Python that we found.
    pub(crate) fn has_python(&self) -> bool {
        self.python.is_some()
    }

    /// Plans a controller that can run a task in this folder; none if there is no Python for it.
    pub(crate) fn controller(&self, task: &Task, folder: &Path) -> anyhow::Result<Option<Job>> {
        let Some(python) = self.python.clone() else { return Ok(None) };
        let (confinement, environment) = self.playbook(task, folder, &[])?;
        let program = self.programs.join(installed::CONTROLLER);
        Ok(Some(Job { key: self.key(task)?, confinement, environment, python, program }))
    }

    /// Returns what all runs have in common that one controller can serve.
    pub(crate) fn key(&self, task: &Task) -> anyhow::Result<String> {
        let folder = Path::new(ANY_FOLDER);
        let environment = self.environment(&task.manifest, folder)?;
        let confinement = self.confinement(&task.manifest, folder, &environment, Vec::new())?;
        Ok(format!("{confinement:?} {environment:?}"))
    }

    /// Looks for words in the text of a playbook: a hint for a person, nothing is decided by it.
    pub(crate) fn becomes_here(&self, task: &Task) -> bool {
        let text = self.dir.read_to_string(format!("{}.yml", task.name)).unwrap_or_default();
        let has = |key: &str, values: &[&str]| {
            let lines = text.lines().map(|line| line.trim_start_matches(['-', ' ']));
            let found = lines.filter_map(|line| line.split_once(':'));
            let value = |text: &str| text.split(" #").next().unwrap_or_default().trim().to_owned();
            let mut found = found.filter(|(name, _)| *name == key).map(|(_, text)| value(text));
            found.any(|found| values.contains(&found.as_str()))
        };
        has("become", &["true", "yes", "True"])
            && (has("connection", &["local"]) || has("hosts", &["localhost", "127.0.0.1"]))
    }

    fn confinement(
        &self,
        manifest: &Manifest,
        folder: &Path,
        environment: &Environment,
        arguments: Vec<OsString>,
    ) -> anyhow::Result<Confinement> {
        let (grants, limits) = (&manifest.grants, &manifest.limits);
        let mut read = vec![self.folder.clone(), self.programs.clone()];
        read.extend(self.installed.iter().cloned());
        read.push(folder.join(GIVEN));
        let mut write = vec![folder.join(HOME), folder.join(TMP)];
        if let Some(agent) = &grants.ssh_agent {
            let is_socket = agent.metadata().is_ok_and(|found| found.file_type().is_socket());
            if !is_socket {
                bail!("there is no socket `{}` of an agent", agent.display());
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
            required.insert(layer(name)?);
        }
        // A layer that the manifest is about holds, or it would say less than is given.
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

    /// The options of `ansible-playbook` that a manifest asks for.
    fn options(&self, options: &AnsibleOptions, folder: &Path) -> anyhow::Result<Vec<OsString>> {
        let mut all: Vec<OsString> =
            vec!["--inventory".into(), self.inventory(options.inventory.as_deref())?];
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

    /// The whole environment of a playbook. Its home is the folder of the run, so that whatever
    /// Ansible keeps under `~` goes there and away with it.
    fn environment(&self, manifest: &Manifest, folder: &Path) -> anyhow::Result<Environment> {
        let mut path =
            self.ansible.parent().unwrap_or(Path::new("/usr/bin")).as_os_str().to_owned();
        path.push(":/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin");
        let mut environment = Environment::new();
        let mut set = |name: &str, value: OsString| environment.insert(name.to_owned(), value);
        for (name, value) in &manifest.grants.env {
            set(name, value.into());
        }
        set("PATH", path);
        let home = folder.join(HOME);
        set("HOME", home.clone().into());
        set("TMPDIR", folder.join(TMP).into());
        set("LANG", "C.UTF-8".into());
        set("ANSIBLE_HOME", home.join("ansible").into());
        set("ANSIBLE_LOCAL_TEMP", home.join("ansible/tmp").into());
        // Expanded by the shell of the machine that a task is for: on this one, `HOME` is the folder.
        set("ANSIBLE_REMOTE_TMP", "$HOME/.ansible/tmp".into());
        set("ANSIBLE_NOCOLOR", "1".into());
        set("ANSIBLE_RETRY_FILES_ENABLED", "0".into());
        set("CREDENTIALS_DIRECTORY", folder.join(CREDENTIALS).into());
        set("LOOPABULL_RESULTS_FD", RESULTS.to_string().into());
        let config = self.ansible_config(manifest.ansible.config.as_deref())?;
        let mut plugins = self.programs.join(installed::PLUGINS).into_os_string();
        if let Some(config) = config {
            for own in installed::callback_plugins(&config) {
                plugins.push(":");
                plugins.push(own);
            }
            set("ANSIBLE_CONFIG", config.into());
        }
        set("ANSIBLE_CALLBACK_PLUGINS", plugins);
        if let Some(agent) = &manifest.grants.ssh_agent {
            set("SSH_AUTH_SOCK", agent.into());
        }
        for (name, value) in self.ssh(&home) {
            set(name, value);
        }
        Ok(environment)
    }

    /// OpenSSH takes `~` from the list of users and not from `HOME`, so it is told where everything
    /// is. Hosts are known from the file `known_hosts` beside the playbooks, and from the system's.
    fn ssh(&self, home: &Path) -> [(&'static str, OsString); 2] {
        let sockets = home.join("cp");
        let shares = match sockets.as_os_str().len() <= LONGEST_SOCKET_FOLDER {
            true => "-o ControlMaster=auto -o ControlPersist=60s",
            false => "-o ControlMaster=no",
        };
        let known = self.folder.join("known_hosts");
        let arguments = format!("-C {shares} -o UserKnownHostsFile=\"{}\"", known.display());
        [("ANSIBLE_SSH_ARGS", arguments.into()), ("ANSIBLE_SSH_CONTROL_PATH_DIR", sockets.into())]
    }

    /// The file or directory `inventory` beside the playbooks, else this machine alone, without ssh.
    fn inventory(&self, named: Option<&str>) -> anyhow::Result<OsString> {
        match named {
            Some(hosts) if hosts.contains(',') => Ok(hosts.into()),
            Some(file) => Ok(self.beneath(file)?.into()),
            None if self.dir.exists("inventory") => Ok(self.folder.join("inventory").into()),
            None => Ok(self.programs.join(installed::INVENTORY).into()),
        }
    }

    fn ansible_config(&self, named: Option<&str>) -> anyhow::Result<Option<PathBuf>> {
        match named {
            Some(file) => self.beneath(file).map(Some),
            None => Ok(self.dir.is_file("ansible.cfg").then(|| self.folder.join("ansible.cfg"))),
        }
    }

    /// Returns where a file beside the playbooks is, which must be there.
    fn beneath(&self, name: &str) -> anyhow::Result<PathBuf> {
        let is_plain =
            Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        if !is_plain {
            bail!("`{name}` is not beneath the playbooks directory");
        }
        self.dir.metadata(name).with_context(|| format!("cannot find `{name}` there"))?;
        Ok(self.folder.join(name))
    }
}

/// Returns what a manifest asks of a playbook that cannot be given, a clause each.
pub fn objections(manifest: &Manifest) -> Vec<String> {
    let is_granted = |name: &str| manifest.grants.secrets.contains_key(name);
    let missing = manifest.ansible.missing_secrets(is_granted).into_iter().map(|name| {
        format!("`ansible` names the secret `{name}`, which is not under `[grants.secrets]`")
    });
    let named = |name: &&String| layer(name).is_err();
    let unknown = manifest.ansible.require.iter().filter(named);
    let unknown = unknown.map(|name| format!("`{name}` is no layer of a confinement"));
    let variables = manifest.grants.env.iter().filter_map(|(name, value)| {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(is_name) || value.contains('\0') {
            let name = name.escape_debug();
            return Some(format!("`{name}` is no name of a variable, or its value is none"));
        }
        OURS.contains(&name.as_str()).then(|| format!("the variable `{name}` is set by the daemon"))
    });
    let files = manifest.grants.secrets.keys();
    let files = files.filter(|name| name.contains('/') || name.starts_with('.') || name.is_empty());
    let files = files.map(|name| format!("the secret `{name}` cannot be a file of that name"));
    missing.chain(unknown).chain(variables).chain(files).collect()
}

/// Returns `@FILE`.
pub(crate) fn at(file: &Path) -> OsString {
    let mut argument = OsString::from("@");
    argument.push(file);
    argument
}

/// What the model calls it.
pub(crate) fn state(held: &Held) -> LayerState {
    match held {
        Held::Yes => LayerState::Held,
        Held::No => LayerState::Degraded,
        Held::Off => LayerState::Off,
    }
}

fn layer(name: &str) -> Result<Layer, PlaybookError> {
    name.parse().map_err(|()| PlaybookError::NoLayer { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_given_is_said() {
        let text = "
            [ansible]
            vault_password = 'v'
            require = ['walls']
            [grants]
            env = { 'A=B' = 'c', HOME = '/evil' }
            secrets = { '../x' = { env = 'X' } }";
        let objections = objections(&Manifest::parse(text).unwrap());
        let expected = [
            "`ansible` names the secret `v`, which is not under `[grants.secrets]`",
            "`walls` is no layer of a confinement",
            "`A=B` is no name of a variable, or its value is none",
            "the variable `HOME` is set by the daemon",
            "the secret `../x` cannot be a file of that name",
        ];
        assert_eq!(objections, expected);
    }
    #[test]
    fn a_state_directory_that_ansible_cannot_use_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::new(folder.path().to_owned(), folder.path().join("a:b"), "runs");
        let error = Plan::open(&settings).err().unwrap().to_string();
        assert!(error.contains("a:b`: its path has a colon"), "{error}");
    }
}
