//! How a playbook is run: the `[ansible]` table of its manifest.
//!
//! Owns the keys and their defaults. Paths are beneath the directory of the playbooks; opening them is
//! the host's.

use serde::{Deserialize, Deserializer};

/// How a playbook is run. Every key is optional.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnsibleOptions {
    /// The inventory: a file or directory beside the playbooks, or hosts with a comma behind each.
    /// Default: `inventory` beside the playbooks, or this machine alone.
    pub inventory: Option<String>,
    /// The configuration of Ansible, a file beside the playbooks. Default: `ansible.cfg`, if there is
    /// one.
    pub config: Option<String>,
    /// Only what has one of these tags is run.
    pub tags: Vec<String>,
    /// What has one of these tags is not run.
    pub skip_tags: Vec<String>,
    /// Nothing is changed, only told what would be.
    pub check_mode: bool,
    /// Tasks are run by another user, root by default, on the machines that are managed.
    pub r#become: Option<Become>,
    /// The name of the secret that vaults are opened with.
    pub vault_password: Option<String>,
    /// The name of the secret that is the private key for ssh.
    pub private_key: Option<String>,
    /// How the message is given.
    pub variables: Variables,
    /// How Ansible is started. Default: as the configuration of the host says.
    pub start: Option<Start>,
    /// Layers of the confinement without which the playbook is not run; `check` shows their names.
    pub require: Vec<String>,
}

/// Where tasks may be run by another user.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Become {
    /// On other machines. On this one nothing gives new privileges: that is ruled out for good before
    /// Ansible is started.
    Remote,
}

/// How a message is given to a playbook.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variables {
    /// In two variables, `msg` and `loopabull`.
    #[default]
    Message,
    /// The keys of the body are variables too, beside these two. For playbooks that cannot be changed:
    /// whoever sends a message names variables of the play.
    TopLevel,
}

/// How Ansible is started.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// Out of a process that has Ansible imported, if that can be had; else cold.
    #[default]
    Warm,
    /// As `ansible-playbook`, anew for each run.
    Cold,
}

impl AnsibleOptions {
    /// Returns the names of the secrets that it needs and the manifest does not grant.
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
                "`local` cannot work: on this machine a playbook gets no new privileges, sudo and su \
                 give none; it can be `remote`",
            )),
            other => Err(serde::de::Error::custom(format!("it can be `remote`, not `{other}`"))),
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
    fn becoming_root_here_is_refused_with_the_reason() {
        let error = parse("become = 'local'").unwrap_err();
        assert!(error.contains("no new privileges"), "{error}");
    }
}
