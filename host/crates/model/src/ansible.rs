//! The options of a playbook: the `[ansible]` table of its manifest.
//!
//! Defines the keys of the table and their defaults. File names are relative to the directory of the
//! playbooks. This module opens no file; the crate `playbook` does.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::variable::Variables;

/// The options of a playbook. Every key is optional.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnsibleOptions {
    /// Inventory: a file or directory beside the playbooks, or a list of host names in which each name is
    /// followed by a comma. Default: `inventory` beside the playbooks. If it does not exist, the inventory
    /// has only this machine.
    pub inventory: Option<String>,
    /// Configuration file of Ansible, beside the playbooks. Default: `ansible.cfg`, if that file exists.
    pub config: Option<String>,
    /// Hosts of the inventory to which the playbook is limited (`--limit`).
    pub limit: Option<String>,
    /// Variables that the operator sets (`--extra-vars`). They have precedence over all others.
    pub extra_vars: Map<String, Value>,
    /// Tags to run: if the list is not empty, Ansible runs only plays and tasks with one of these tags.
    pub tags: Vec<String>,
    /// Tags to skip: Ansible does not run plays and tasks with one of these tags.
    pub skip_tags: Vec<String>,
    /// Ansible's check mode: the playbook reports changes, but does not make them.
    pub check_mode: bool,
    /// Privilege escalation (`--become`): tasks run as another user on the managed machines, by default as
    /// root.
    pub r#become: Option<Become>,
    /// Name of the secret with the password of Ansible vaults.
    pub vault_password: Option<String>,
    /// Name of the secret with the private key for ssh.
    pub private_key: Option<String>,
    /// The keys of the body that become variables, besides the variables `msg` and `loopabull`.
    pub variables: Variables,
    /// Way to start Ansible. Default: the host's configuration.
    pub start: Option<Start>,
    /// Outcome of a run in which no play matches a host. Default: a failure.
    pub no_hosts: NoHosts,
    /// Confinement layers that the playbook needs. If a layer is not available, the run does not start. The
    /// command `check` lists the names of all layers.
    pub require: Vec<String>,
}

/// The machines on which tasks may run as another user.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Become {
    /// Machines other than this one. On this machine the launcher sets no-new-privileges before it starts
    /// Ansible, so no process gains privileges here.
    Remote,
}

/// The outcome of a run in which no play matches a host, so that nothing is done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoHosts {
    #[default]
    Failure,
    Success,
}

/// The way to start Ansible.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// Fork a process that has already imported Ansible. If no such process is available, start cold.
    #[default]
    Warm,
    /// Start a new `ansible-playbook` process for each run.
    Cold,
}

impl AnsibleOptions {
    /// Returns the names of the secrets that these options need and the manifest does not grant.
    pub fn missing_secrets(&self, is_granted: impl Fn(&str) -> bool) -> Vec<&str> {
        let named = self.vault_password.iter().chain(&self.private_key).map(String::as_str);
        named.filter(|name| !is_granted(name)).collect()
    }
}

impl<'de> Deserialize<'de> for Become {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "remote" => Ok(Self::Remote),
            "local" => Err(serde::de::Error::custom(
                "`become` cannot be `local`: on this machine a playbook gains no new privileges, not even by \
                 sudo or su; use `remote`",
            )),
            other => {
                Err(serde::de::Error::custom(format!("`become` must be `remote`, not `{other}`")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<AnsibleOptions, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.to_string())
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            inventory = "hosts"
            limit = "web*"
            extra_vars = { size = 3, names = ["a"] }
            config = "other.cfg"
            tags = ["a"]
            skip_tags = ["b"]
            check_mode = true
            become = "remote"
            vault_password = "vault"
            private_key = "key"
            variables = ["branch"]
            start = "cold"
            require = ["tcp"]
        "#;
        let options = parse(text).unwrap();
        assert_eq!(options.r#become, Some(Become::Remote));
        assert_eq!(options.variables.names()[0].as_str(), "branch");
        assert_eq!(options.start, Some(Start::Cold));
        assert_eq!(options.missing_secrets(|name| name == "key"), ["vault"]);
    }

    #[test]
    fn becoming_root_on_this_machine_is_refused() {
        let error = parse("become = 'local'").unwrap_err();
        assert!(error.contains("no new privileges"), "{error}");
    }
}
