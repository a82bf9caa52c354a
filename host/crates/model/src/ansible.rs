//! The options of a playbook: the `[ansible]` table of its manifest.
//!
//! Owns the keys and their defaults. Paths are relative to the directory of the playbooks; the host opens
//! them.

use serde::{Deserialize, Deserializer};

/// The options of a playbook. Every key is optional.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnsibleOptions {
    /// The inventory: a file or directory beside the playbooks, or hosts, each followed by a comma.
    /// Default: `inventory` beside the playbooks, or only this machine.
    pub inventory: Option<String>,
    /// The configuration of Ansible, a file beside the playbooks. Default: `ansible.cfg`, if there is
    /// one.
    pub config: Option<String>,
    /// Only plays and tasks with one of these tags are run.
    pub tags: Vec<String>,
    /// Plays and tasks with one of these tags are not run.
    pub skip_tags: Vec<String>,
    /// Ansible's check mode: changes are reported, but not made.
    pub check_mode: bool,
    /// Tasks run as another user, root by default, on the managed machines.
    pub r#become: Option<Become>,
    /// The name of the secret that decrypts vaults.
    pub vault_password: Option<String>,
    /// The name of the secret that is the private key for ssh.
    pub private_key: Option<String>,
    /// The variables in which the message is passed.
    pub variables: Variables,
    /// The way Ansible is started. Default: the configuration of the host.
    pub start: Option<Start>,
    /// Layers of the confinement without which the playbook is not run; `check` lists their names.
    pub require: Vec<String>,
}

/// The machines on which tasks may run as another user.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Become {
    /// Other machines. On this machine no process gains privileges: the launcher rules that out before it
    /// starts Ansible.
    Remote,
}

/// The variables in which a message is passed to a playbook.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variables {
    /// Two variables, `msg` and `loopabull`.
    #[default]
    Message,
    /// These two, and a variable for each key of the body. This is for playbooks that cannot be changed: the
    /// sender of a message chooses names of variables of the play.
    TopLevel,
}

/// The way Ansible is started.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// From a process that has Ansible imported, if that is possible; otherwise cold.
    #[default]
    Warm,
    /// As a new process, `ansible-playbook`, for each run.
    Cold,
}

impl AnsibleOptions {
    /// Returns the names of the secrets that the playbook needs and the manifest does not grant.
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
                "`local` cannot work: on this machine a playbook gains no new privileges, not even by \
                 sudo or su; use `remote`",
            )),
            other => Err(serde::de::Error::custom(format!("it must be `remote`, not `{other}`"))),
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
            config = "other.cfg"
            tags = ["a"]
            skip_tags = ["b"]
            check_mode = true
            become = "remote"
            vault_password = "vault"
            private_key = "key"
            variables = "top-level"
            start = "cold"
            require = ["tcp"]
        "#;
        let options = parse(text).unwrap();
        assert_eq!(options.r#become, Some(Become::Remote));
        assert_eq!(options.variables, Variables::TopLevel);
        assert_eq!(options.start, Some(Start::Cold));
        assert_eq!(options.missing_secrets(|name| name == "key"), ["vault"]);
    }

    #[test]
    fn becoming_root_on_this_machine_is_refused() {
        let error = parse("become = 'local'").unwrap_err();
        assert!(error.contains("no new privileges"), "{error}");
    }
}
