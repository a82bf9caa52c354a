//! The environment variables of a playbook.
//!
//! Decides which variables the daemon sets and which a manifest may set. Before it: the manifest; after it:
//! the launcher, which passes on nothing else.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use loopabull_launcher::Environment;
use loopabull_model::Manifest;

use crate::folder::{CREDENTIALS, HOME, TMP};
use crate::installed;

/// The descriptor for the results of the callback plugin.
pub(crate) const RESULTS: u32 = 3;
/// The maximum length of the directory of ssh's control sockets, so that the path of a socket fits:
/// sun_path of unix(7) has 108 bytes, and ssh adds 17 while it makes one.
const MAX_SOCKET_DIR: usize = 108 - 17 - 12;
/// Variables that the daemon sets. A manifest must not set them.
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

/// The paths that go into an environment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paths<'a> {
    /// `ansible-playbook`.
    pub(crate) ansible: &'a Path,
    /// The directory of our programs for Ansible.
    pub(crate) programs: &'a Path,
    /// The directory of the playbooks.
    pub(crate) playbooks: &'a Path,
    /// The folder of the run.
    pub(crate) folder: &'a Path,
}

/// Returns the whole environment of a playbook. Its home is in the folder of the run, so that everything
/// that Ansible keeps under `~` is removed with it.
pub(crate) fn environment(
    manifest: &Manifest,
    paths: Paths<'_>,
    config: Option<PathBuf>,
) -> Environment {
    let mut path = paths.ansible.parent().unwrap_or(Path::new("/usr/bin")).as_os_str().to_owned();
    path.push(":/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin");
    let mut environment = Environment::new();
    let mut set = |name: &str, value: OsString| environment.insert(name.to_owned(), value);
    for (name, value) in &manifest.grants.env {
        set(name, value.into());
    }
    set("PATH", path);
    let home = paths.folder.join(HOME);
    set("HOME", home.clone().into());
    set("TMPDIR", paths.folder.join(TMP).into());
    set("LANG", "C.UTF-8".into());
    set("ANSIBLE_HOME", home.join("ansible").into());
    set("ANSIBLE_LOCAL_TEMP", home.join("ansible/tmp").into());
    // The shell of each managed host expands it: on this host, `HOME` is in the folder.
    set("ANSIBLE_REMOTE_TMP", "$HOME/.ansible/tmp".into());
    set("ANSIBLE_NOCOLOR", "1".into());
    set("ANSIBLE_RETRY_FILES_ENABLED", "0".into());
    set("CREDENTIALS_DIRECTORY", paths.folder.join(CREDENTIALS).into());
    set("LOOPABULL_RESULTS_FD", RESULTS.to_string().into());
    let mut plugins = paths.programs.join(installed::PLUGINS).into_os_string();
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
    for (name, value) in ssh(paths.playbooks, &home) {
        set(name, value);
    }
    environment
}

/// Returns the options of ssh. OpenSSH takes `~` from the user database and not from `HOME`, so each path
/// is given. Known hosts come from the file `known_hosts` beside the playbooks and from the system.
fn ssh(playbooks: &Path, home: &Path) -> [(&'static str, OsString); 2] {
    let sockets = home.join("cp");
    let sharing = match sockets.as_os_str().len() <= MAX_SOCKET_DIR {
        true => "-o ControlMaster=auto -o ControlPersist=60s",
        false => "-o ControlMaster=no",
    };
    let known_hosts = playbooks.join("known_hosts");
    let arguments = format!("-C {sharing} -o UserKnownHostsFile=\"{}\"", known_hosts.display());
    [("ANSIBLE_SSH_ARGS", arguments.into()), ("ANSIBLE_SSH_CONTROL_PATH_DIR", sockets.into())]
}

/// Tells whether the daemon sets a variable.
pub(crate) fn is_ours(name: &str) -> bool {
    OURS.contains(&name)
}
