//! The settings of Ansible to which the daemon adds values of its own.
//!
//! Ansible itself reads its configuration and says which settings differ from its defaults, so that every form of
//! the file counts. It is asked once for each configuration, in the sandbox of the playbooks.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use loopabull_model::Manifest;
use parking_lot::Mutex;
use serde::Deserialize;

/// The configuration file that Ansible reads if no other is named (Ansible documentation, "The configuration
/// file").
const SYSTEM_CONFIG: &str = "/etc/ansible/ansible.cfg";
/// The beginning of the line with the settings in the output of `ansible_settings.py`.
const MARKER: &str = "loopabull-settings ";
/// The maximum number of configurations whose settings are kept.
const MAX_KNOWN: usize = 1000;

/// The settings of a configuration. `None` means Ansible's default.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize)]
pub(crate) struct AnsibleSettings {
    pub(crate) callback_plugins: Option<Vec<PathBuf>>,
    pub(crate) inventory: Option<Vec<String>>,
    pub(crate) remote_tmp: Option<String>,
    pub(crate) ssh_args: Option<String>,
}

/// What the settings depend on: the configuration file, with its state, and the variables of the manifest.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct ConfigurationKey {
    config: Option<PathBuf>,
    changed: Option<(SystemTime, u64)>,
    variables: BTreeMap<String, String>,
}

/// The settings of the configurations that were read.
#[derive(Debug, Default)]
pub(crate) struct KnownSettings(Mutex<HashMap<ConfigurationKey, Arc<AnsibleSettings>>>);

impl AnsibleSettings {
    /// Finds the settings in the output of `ansible_settings.py`. Returns the defaults if there are none, because
    /// `ansible-playbook` is no program of Ansible.
    pub(crate) fn parse(output: &str) -> Result<Self, serde_json::Error> {
        let line = output.lines().find_map(|line| line.strip_prefix(MARKER));
        line.map_or_else(|| Ok(Self::default()), serde_json::from_str)
    }
}

impl ConfigurationKey {
    /// Returns the key of a manifest whose playbook uses this configuration file.
    pub(crate) fn new(config: Option<&Path>, manifest: &Manifest) -> Self {
        let found = config.unwrap_or(Path::new(SYSTEM_CONFIG)).metadata();
        let changed = found.and_then(|found| Ok((found.modified()?, found.len())));
        Self {
            config: config.map(Path::to_owned),
            changed: changed.ok(),
            variables: manifest.grants.env.clone(),
        }
    }
}

impl KnownSettings {
    /// Returns the settings of a configuration, if it was read.
    pub(crate) fn get(&self, key: &ConfigurationKey) -> Option<Arc<AnsibleSettings>> {
        self.0.lock().get(key).cloned()
    }

    /// Stores the settings of a configuration.
    pub(crate) fn insert(&self, key: ConfigurationKey, settings: AnsibleSettings) {
        let mut known = self.0.lock();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(key, Arc::new(settings));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_among_other_lines() {
        let output = "a plugin says hello\nloopabull-settings {\"callback_plugins\": [\"/a\"], \
                      \"inventory\": null, \"remote_tmp\": null, \"ssh_args\": \"-v\"}\nbye\n";
        let found = AnsibleSettings::parse(output).unwrap();
        assert_eq!(found.callback_plugins, Some(vec!["/a".into()]));
        assert_eq!((found.inventory, found.ssh_args.as_deref()), (None, Some("-v")));
        assert_eq!(AnsibleSettings::parse("no settings").unwrap(), AnsibleSettings::default());
        assert!(AnsibleSettings::parse("loopabull-settings {").is_err());
    }

    #[test]
    fn a_changed_file_is_another_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ansible.cfg");
        let key = || ConfigurationKey::new(Some(&file), &Manifest::default());
        let none = key();
        std::fs::write(&file, "[defaults]").unwrap();
        assert!(none != key() && key() == key());
        let with = Manifest::parse("grants.env = { A = 'b' }").unwrap();
        assert_ne!(ConfigurationKey::new(Some(&file), &with), key());
    }
}
