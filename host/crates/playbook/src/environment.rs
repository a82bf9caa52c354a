//! The environment variables of a playbook.
//!
//! This module decides which variables the daemon sets and which a manifest may set. The launcher passes
//! these variables to the playbook, and no others.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use loopabull_launcher::Environment;
use loopabull_model::Manifest;

use crate::ansible_settings::AnsibleSettings;
use crate::folder::{CREDENTIALS, HOME, TMP};
use crate::installation::{Installation, search_path};
use crate::programs;
use crate::shared_content::SharedContent;

/// The number of the file descriptor on which the callback plugin writes results.
pub(crate) const RESULTS: u32 = 3;
/// The maximum length, in bytes, of the path of the directory for ssh's control sockets. A socket path has
/// at most 108 bytes (`sun_path` of unix(7)). ssh appends 17 bytes while it creates a socket, and 12 bytes
/// are reserved for the name of the socket.
const MAX_SOCKET_DIR: usize = 108 - 17 - 12;
/// The variables that only the daemon may set. A manifest that sets such a variable is refused.
const OURS: [&str; 12] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "ANSIBLE_HOME",
    "ANSIBLE_LOCAL_TEMP",
    "ANSIBLE_CALLBACK_PLUGINS",
    "ANSIBLE_CONFIG",
    "ANSIBLE_SSH_CONTROL_PATH_DIR",
    "CREDENTIALS_DIRECTORY",
    "LOOPABULL_RESULTS_FD",
    "PYTHONUSERBASE",
    "SSH_AUTH_SOCK",
];

/// The directory of ssh's control sockets, in the home of a run.
const SOCKETS: &str = "cp";

/// The paths from which the environment of a run is built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paths<'a> {
    pub(crate) ansible: &'a Installation,
    /// The directory of our programs for Ansible.
    pub(crate) programs: &'a Path,
    pub(crate) shared: &'a SharedContent,
    /// The directory of the playbooks.
    pub(crate) playbooks: &'a Path,
    /// The folder of the run.
    pub(crate) folder: &'a Path,
}

/// The variables that the daemon sets unless the manifest does.
const DEFAULTS: [(&str, &str); 3] =
    [("LANG", "C.UTF-8"), ("ANSIBLE_NOCOLOR", "1"), ("ANSIBLE_RETRY_FILES_ENABLED", "0")];

/// Returns the environment of a playbook, without the variables whose values depend on Ansible's settings.
/// [`add`] sets those. `HOME` is in the folder of the run, so that the files that Ansible creates under `~` are
/// removed together with the folder.
pub(crate) fn environment(
    manifest: &Manifest,
    paths: Paths<'_>,
    config: Option<PathBuf>,
) -> Environment {
    let mut environment = Environment::new();
    let mut set = |name: &str, value: OsString| environment.insert(name.to_owned(), value);
    for (name, value) in DEFAULTS {
        set(name, value.into());
    }
    for (name, value) in &manifest.grants.env {
        set(name, value.into());
    }
    set("PATH", search_path(&paths.ansible.program));
    let home = paths.folder.join(HOME);
    set("HOME", home.clone().into());
    set("TMPDIR", paths.folder.join(TMP).into());
    set("ANSIBLE_HOME", home.join("ansible").into());
    set("ANSIBLE_LOCAL_TEMP", home.join("ansible/tmp").into());
    set("ANSIBLE_SSH_CONTROL_PATH_DIR", home.join(SOCKETS).into());
    if let Some(base) = &paths.ansible.user_base {
        set("PYTHONUSERBASE", base.into());
    }
    set("CREDENTIALS_DIRECTORY", paths.folder.join(CREDENTIALS).into());
    set("LOOPABULL_RESULTS_FD", RESULTS.to_string().into());
    if let Some(config) = config {
        set("ANSIBLE_CONFIG", config.into());
    }
    if let Some(agent) = &manifest.grants.ssh_agent {
        set("SSH_AUTH_SOCK", agent.into());
    }
    environment
}

/// Adds the variables with which the daemon adds to Ansible's own settings. Settings of the operator stay.
pub(crate) fn add(environment: &mut Environment, settings: &AnsibleSettings, paths: Paths<'_>) {
    let mut set = |name: &str, value: OsString| environment.insert(name.to_owned(), value);
    let mut plugins = paths.programs.join(programs::PLUGINS).into_os_string();
    let system = [PathBuf::from(programs::SYSTEM_PLUGINS)];
    for own in settings.callback_plugins.as_deref().unwrap_or(&system) {
        plugins.push(":");
        plugins.push(own);
    }
    set("ANSIBLE_CALLBACK_PLUGINS", plugins);
    for (name, own, ours) in [
        ("ANSIBLE_COLLECTIONS_PATH", settings.has_collections(), paths.shared.collections_path()),
        ("ANSIBLE_ROLES_PATH", settings.has_roles(), paths.shared.roles_path()),
    ] {
        if let (false, Some(ours)) = (own, ours) {
            set(name, ours);
        }
    }
    if !settings.has_remote_tmp() {
        // The shell of each managed host expands `$HOME`. On this host `$HOME` is in the folder of the run.
        set("ANSIBLE_REMOTE_TMP", "$HOME/.ansible/tmp".into());
    }
    if !settings.is_mentioned("ssh_args") {
        let arguments = ssh_arguments(settings.ssh_args.as_deref(), paths);
        set("ANSIBLE_SSH_ARGS", arguments.into());
    }
}

/// Returns the arguments of ssh. OpenSSH takes `~` from the user database and ignores `HOME`, so the options name
/// each file by its full path. ssh reads known hosts from the file `known_hosts` in the playbooks directory and
/// from the file of the system. ssh uses the first value of an option, so `own` arguments of the operator have
/// precedence, except that no socket is used whose path would be too long.
fn ssh_arguments(own: Option<&str>, paths: Paths<'_>) -> String {
    let sockets = paths.folder.join(HOME).join(SOCKETS);
    let is_short = sockets.as_os_str().len() <= MAX_SOCKET_DIR;
    let known_hosts = paths.playbooks.join("known_hosts");
    let known_hosts = format!("-o UserKnownHostsFile=\"{}\"", known_hosts.display());
    let first = if is_short { "" } else { "-o ControlMaster=no " };
    let own = own.unwrap_or("-C -o ControlMaster=auto -o ControlPersist=60s");
    format!("{first}{own} {known_hosts}")
}

/// Returns whether only the daemon may set this variable.
pub(crate) fn is_ours(name: &str) -> bool {
    OURS.contains(&name)
}
