//! The options of a playbook: the `[ansible]` table of its manifest.
//!
//! Defines the keys of the table and their defaults. File names are relative to the directory of the
//! playbooks. This module opens no file; the crate `playbook` does.

use std::collections::BTreeMap;

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
    #[serde(deserialize_with = "extra_vars")]
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

/// Reads variables, whose values must be JSON. Refuses the names of the variables with the message.
fn extra_vars<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Map<String, Value>, D::Error> {
    let variables = BTreeMap::<String, toml::Value>::deserialize(deserializer)?;
    let json = |(name, value): (String, toml::Value)| {
        if matches!(name.as_str(), "msg" | "loopabull") {
            return Err(format!("`extra_vars` cannot set `{name}`, which is the message"));
        }
        let value = json_value(&value).ok_or_else(|| {
            format!("write the variable `{name}` as text: JSON has no such value")
        })?;
        Ok((name, value))
    };
    variables.into_iter().map(json).collect::<Result<_, _>>().map_err(serde::de::Error::custom)
}

/// Returns a TOML value as JSON. `None` for a date and for a number that is not finite.
fn json_value(value: &toml::Value) -> Option<Value> {
    Some(match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => serde_json::Number::from_f64(*number)?.into(),
        toml::Value::Boolean(value) => (*value).into(),
        toml::Value::Datetime(_) => return None,
        toml::Value::Array(items) => items.iter().map(json_value).collect::<Option<_>>()?,
        toml::Value::Table(table) => {
            let pair =
                |(name, value): (&String, &toml::Value)| Some((name.clone(), json_value(value)?));
            Value::Object(table.iter().map(pair).collect::<Option<_>>()?)
        }
    })
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
    fn extra_variables_are_json_and_do_not_hide_the_message() {
        let options = parse("extra_vars = { a = [1, 2.5, { b = true }] }").unwrap();
        assert_eq!(options.extra_vars["a"], serde_json::json!([1, 2.5, { "b": true }]));
        for (text, expected) in [
            ("extra_vars = { day = 2024-05-01 }", "write the variable `day` as text"),
            ("extra_vars = { a = { b = [inf] } }", "write the variable `a` as text"),
            ("extra_vars = { msg = 1 }", "cannot set `msg`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn becoming_root_on_this_machine_is_refused() {
        let error = parse("become = 'local'").unwrap_err();
        assert!(error.contains("no new privileges"), "{error}");
    }
}
