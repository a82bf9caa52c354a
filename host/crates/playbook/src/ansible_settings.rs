//! The settings of Ansible to which the daemon adds values of its own.
//!
//! Ansible itself reads its configuration and says which settings differ from its defaults, so that every form of
//! the file counts. It is asked once for each configuration, in the sandbox of the playbooks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use loopabull_launcher::is_shortage;
use loopabull_model::{DirGrant, Manifest};
use parking_lot::Mutex;
use serde::Deserialize;

use crate::installation::InstallationState;

/// The configuration file that Ansible reads if no other is named (Ansible documentation, "The configuration
/// file").
const SYSTEM_CONFIG: &str = "/etc/ansible/ansible.cfg";
/// The beginning of the line with the settings in the output of `ansible_settings.py`.
const MARKER: &str = "loopabull-settings ";
/// The settings of a Python without Ansible.
const NO_ANSIBLE: &str = "none";
/// The maximum number of configurations whose settings are kept.
const MAX_KNOWN: usize = 1000;

/// The settings of a configuration. `None` means Ansible's default.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize)]
pub(crate) struct AnsibleSettings {
    pub(crate) callback_plugins: Option<Vec<PathBuf>>,
    pub(crate) collections: Option<Vec<PathBuf>>,
    pub(crate) inventory: Option<Vec<String>>,
    pub(crate) remote_tmp: Option<String>,
    pub(crate) roles: Option<Vec<PathBuf>>,
    pub(crate) ssh_args: Option<String>,
    /// A file with the password of vaults that a playbook cannot read.
    pub(crate) unreadable_vault: Option<PathBuf>,
    /// The settings whose names occur in the configuration, if Ansible could not be asked for their values. They are
    /// left alone.
    #[serde(skip)]
    pub(crate) mentioned: BTreeSet<String>,
    /// True if Ansible could not be asked, because `ansible-playbook` is not Ansible's own Python script.
    #[serde(skip)]
    pub(crate) is_unknown: bool,
}

/// The key of the settings in the cache: they depend on the installation of Ansible, on the configuration file, on its
/// state, and on the variables and directories that the manifest grants.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct ConfigurationKey {
    config: Option<PathBuf>,
    /// Time of the last change, inode and size of the file.
    changed: Option<((i64, i64), u64, u64)>,
    variables: BTreeMap<String, String>,
    dirs: Vec<DirGrant>,
    installation: InstallationState,
}

/// The settings of the configurations that were read.
#[derive(Debug, Default)]
pub(crate) struct KnownSettings {
    known: Mutex<HashMap<ConfigurationKey, Arc<AnsibleSettings>>>,
    /// Held while Ansible is asked, so that workers do not all ask at once.
    pub(crate) asking: tokio::sync::Mutex<()>,
}

impl AnsibleSettings {
    /// Finds the settings in the output of `ansible_settings.py`. Returns `None` if there are none, and
    /// `Some(None)` if the Python of `ansible-playbook` has no Ansible.
    pub(crate) fn parse(output: &str) -> Option<Option<Result<Self, serde_json::Error>>> {
        let line = output.lines().find_map(|line| line.split_once(MARKER))?.1.trim();
        Some((line != NO_ANSIBLE).then(|| serde_json::from_str(line)))
    }

    /// Returns what can be known of a configuration without Ansible: which settings it names, and the directories of
    /// callback plugins, to which ours is added.
    ///
    /// # Errors
    ///
    /// If this machine is short of something. A file that cannot be read otherwise names no settings: Ansible cannot read
    /// it either, and says so.
    pub(crate) fn unknown(key: &ConfigurationKey) -> io::Result<Self> {
        let file = key.config.as_deref().unwrap_or(Path::new(SYSTEM_CONFIG));
        let text = match std::fs::read(file) {
            Err(error) if is_shortage(&error) => return Err(error),
            text => text.unwrap_or_default(),
        };
        let mut settings = Self { is_unknown: true, ..Self::default() };
        for line in String::from_utf8_lossy(&text).lines() {
            let Some((name, value)) = line.split_once(['=', ':']) else { continue };
            let name = name.trim().to_lowercase();
            if name == "callback_plugins" {
                settings.callback_plugins = Some(directories(value, file));
            }
            settings.mentioned.insert(name);
        }
        let variables = key.variables.keys().filter_map(|name| name.strip_prefix("ANSIBLE_"));
        settings.mentioned.extend(variables.map(str::to_lowercase));
        Ok(settings)
    }

    /// Returns whether a setting has an unknown value.
    pub(crate) fn is_mentioned(&self, name: &str) -> bool {
        self.mentioned.contains(name)
    }

    /// Returns whether Ansible's configuration names an inventory.
    pub(crate) fn has_inventory(&self) -> bool {
        self.inventory.is_some() || self.is_mentioned("inventory")
    }

    pub(crate) fn has_remote_tmp(&self) -> bool {
        self.remote_tmp.is_some() || self.is_mentioned("remote_tmp")
    }

    pub(crate) fn has_collections(&self) -> bool {
        let names = ["collections_path", "collections_paths"];
        self.collections.is_some() || names.iter().any(|name| self.is_mentioned(name))
    }

    pub(crate) fn has_roles(&self) -> bool {
        self.roles.is_some() || self.is_mentioned("roles_path")
    }
}

/// Returns the directories in a value of a configuration file. Relative ones begin in the directory of the file (Ansible
/// documentation, "Relative paths for configuration").
fn directories(value: &str, file: &Path) -> Vec<PathBuf> {
    let value = value.split(" ;").next().unwrap_or_default();
    let names = value.split(':').map(str::trim).filter(|name| !name.is_empty());
    let base = file.parent().unwrap_or(file);
    names.map(|name| if name.starts_with('~') { name.into() } else { base.join(name) }).collect()
}

impl ConfigurationKey {
    /// Returns the key of a manifest whose playbook uses this configuration file and this installation of Ansible.
    pub(crate) fn new(
        config: Option<&Path>,
        manifest: &Manifest,
        installation: InstallationState,
    ) -> Self {
        let found = config.unwrap_or(Path::new(SYSTEM_CONFIG)).metadata();
        let changed =
            found.map(|found| ((found.ctime(), found.ctime_nsec()), found.ino(), found.len()));
        Self {
            config: config.map(Path::to_owned),
            changed: changed.ok(),
            variables: manifest.grants.env.clone(),
            dirs: manifest.grants.dirs.clone(),
            installation,
        }
    }
}

impl KnownSettings {
    /// Returns the settings of a configuration, if it was read.
    pub(crate) fn get(&self, key: &ConfigurationKey) -> Option<Arc<AnsibleSettings>> {
        self.known.lock().get(key).cloned()
    }

    /// Stores the settings of a configuration.
    pub(crate) fn insert(&self, key: ConfigurationKey, settings: Arc<AnsibleSettings>) {
        let mut known = self.known.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(key, settings);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::installation::Installation;

    fn key(config: &Path, manifest: &Manifest) -> ConfigurationKey {
        let ansible = Installation::find(Some(Path::new("/usr/bin/true"))).unwrap();
        ConfigurationKey::new(Some(config), manifest, ansible.state)
    }

    #[test]
    fn settings_are_found_among_other_lines() {
        let output = "a plugin says hello\nloopabull-settings {\"callback_plugins\": [\"/a\"], \
                      \"inventory\": null, \"remote_tmp\": null, \"ssh_args\": \"-v\", \"roles\": null, \
                      \"collections\": null, \"unreadable_vault\": null}\nbye\n";
        let found = AnsibleSettings::parse(output).unwrap().unwrap().unwrap();
        assert_eq!(found.callback_plugins, Some(vec!["/a".into()]));
        assert_eq!((found.inventory, found.ssh_args.as_deref()), (None, Some("-v")));
        assert!(AnsibleSettings::parse("no settings").is_none());
        assert!(AnsibleSettings::parse("loopabull-settings {").unwrap().unwrap().is_err());
        let none = AnsibleSettings::parse("a line without an endloopabull-settings none\n");
        assert!(none.unwrap().is_none());
    }

    #[test]
    fn names_in_a_configuration_are_found_without_ansible() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ansible.cfg");
        let text = b"[defaults]\n# inventory = \xe9\nRemote_Tmp: y\nroles_path=z\n\
                     callback_plugins = Own:/srv/plugins ; note\n";
        std::fs::write(&file, text).unwrap();
        let manifest = Manifest::parse("grants.env = { ANSIBLE_SSH_ARGS = 'x' }").unwrap();
        let settings = AnsibleSettings::unknown(&key(&file, &manifest)).unwrap();
        let own = [folder.path().join("Own"), "/srv/plugins".into()];
        assert_eq!(settings.callback_plugins.as_deref(), Some(&own[..]));
        assert!(!settings.has_inventory() && !settings.has_collections());
        assert!(
            settings.has_remote_tmp() && settings.has_roles() && settings.is_mentioned("ssh_args")
        );
    }

    #[test]
    fn a_changed_file_is_another_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ansible.cfg");
        let now = || key(&file, &Manifest::default());
        let none = now();
        std::fs::write(&file, "[defaults]").unwrap();
        assert!(none != now() && now() == now());
        for other in ["grants.env = { A = 'b' }", "[[grants.dirs]]\nhost = '/srv'"] {
            assert_ne!(key(&file, &Manifest::parse(other).unwrap()), now(), "{other}");
        }
    }
}
