//! The keys of a message body that become variables of a playbook.
//!
//! The manifest names these keys. The sender of a message cannot choose the names of variables: a variable
//! can change how Ansible connects, which programs its plugins start, and what a play does.

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The maximum length of a name, in bytes.
const MAX_BYTES: usize = 100;

/// The names of Ansible's special variables (Ansible documentation, "Special Variables") and the variables
/// that it sets for a play, without those that have a reserved prefix.
const ANSIBLE: &[&str] = &[
    "become",
    "become_exe",
    "become_flags",
    "become_method",
    "become_pass",
    "become_user",
    "connection",
    "delegated_vars",
    "dependent_role_names",
    "environment",
    "group_names",
    "groups",
    "hostvars",
    "inventory_dir",
    "inventory_file",
    "inventory_hostname",
    "inventory_hostname_short",
    "item",
    "module_defaults",
    "play_hosts",
    "playbook_dir",
    "port",
    "remote_user",
    "role_name",
    "role_names",
    "role_path",
    "role_uuid",
    "vars",
];
/// The variables that every playbook gets.
const OURS: &[&str] = &["loopabull", "msg"];
/// The prefixes of Ansible's names.
const PREFIXES: &[&str] = &["ansible_", "_ansible", "discovered_interpreter_", "omit_"];
/// The functions that templates call (Jinja's documentation, "List of Global Functions", and Ansible's, "Using
/// filters to manipulate data"), and the names with a meaning in a template.
const TEMPLATES: &[&str] = &[
    "and",
    "caller",
    "cycler",
    "dict",
    "else",
    "finalize",
    "if",
    "in",
    "is",
    "joiner",
    "kwargs",
    "lipsum",
    "lookup",
    "loop",
    "namespace",
    "none",
    "not",
    "now",
    "omit",
    "or",
    "q",
    "query",
    "range",
    "self",
    "super",
    "true",
    "false",
    "undef",
    "varargs",
];
/// Python's keywords, which Ansible allows as no variable name (Python documentation, "Keywords"), as far as
/// they are not in the lists above.
const PYTHON: &[&str] = &[
    "False", "None", "True", "as", "assert", "async", "await", "break", "class", "continue", "def",
    "del", "elif", "except", "finally", "for", "from", "global", "import", "lambda", "nonlocal",
    "pass", "raise", "return", "try", "while", "with", "yield",
];

/// A key of a message body that becomes a variable of the same name.
///
/// A name has up to 100 ASCII letters, digits and `_`, and does not begin with a digit. Names that have a
/// meaning for Ansible, Jinja or Python are not allowed.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct VariableName(String);

/// The reason why a key cannot become a variable.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum VariableNameError {
    #[error(
        "`{name}` is not a variable name: it needs letters, digits and `_`, and no digit first"
    )]
    Invalid { name: String },
    #[error("`{name}` already has a meaning for {owner}")]
    Reserved { name: String, owner: &'static str },
}

/// The keys of the message body that become variables of a playbook. Empty by default: then the body is only
/// in the variable `msg`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Variables(Vec<VariableName>);

impl VariableName {
    /// Checks a name.
    ///
    /// # Errors
    ///
    /// Fails if the text is not a name of a variable, or a name that has another meaning.
    pub fn new(name: &str) -> Result<Self, VariableNameError> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_name = (1..=MAX_BYTES).contains(&name.len())
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(is_word);
        if !is_name {
            return Err(VariableNameError::Invalid { name: name.escape_debug().to_string() });
        }
        let is_ansible =
            ANSIBLE.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        let owner = match name {
            _ if OURS.contains(&name) => "this host",
            _ if is_ansible => "Ansible",
            _ if TEMPLATES.contains(&name) => "templates",
            _ if PYTHON.contains(&name) => "Python",
            _ => return Ok(Self(name.to_owned())),
        };
        Err(VariableNameError::Reserved { name: name.to_owned(), owner })
    }

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VariableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Variables {
    /// Returns the names, in the order of the manifest.
    pub fn names(&self) -> &[VariableName] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Variables {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListOfNames)
    }
}

/// Reads the names from a list. Explains the list to those who write a text instead.
struct ListOfNames;

impl<'de> Visitor<'de> for ListOfNames {
    type Value = Variables;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of keys of the message body, such as [\"branch\", \"commit\"]")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Variables, E> {
        Err(E::custom(format!(
            "`variables` cannot be {text:?}, because the sender of a message would choose the names of \
             variables; name the keys that become variables, as in `variables = [\"branch\", \"commit\"]`; \
             `check` proposes them for a playbook without this line"
        )))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Variables, A::Error> {
        let (mut names, mut errors) = (Vec::new(), Vec::new());
        while let Some(name) = list.next_element::<String>()? {
            match VariableName::new(&name) {
                Ok(name) if names.contains(&name) => (),
                Ok(name) => names.push(name),
                Err(error) => errors.push(error.to_string()),
            }
        }
        if errors.is_empty() {
            return Ok(Variables(names));
        }
        Err(serde::de::Error::custom(format!(
            "not every key can become a variable: {}",
            errors.join("; ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Table {
        variables: Variables,
    }

    fn parse(text: &str) -> Result<Vec<String>, String> {
        let table: Result<Table, _> = toml::from_str(&format!("variables = {text}"));
        match table {
            Ok(table) => Ok(table.variables.names().iter().map(ToString::to_string).collect()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn keys_become_variables_once_each() {
        assert_eq!(
            parse("['branch', '_x1', 'branch', 'name']").unwrap(),
            ["branch", "_x1", "name"]
        );
        assert!(parse("[]").unwrap().is_empty());
    }

    #[test]
    fn all_keys_that_cannot_become_variables_are_named() {
        let error = parse("['a-b', 'branch', 'ansible_host', 'lookup', 'msg', 'class', '1a', '']")
            .unwrap_err();
        for expected in [
            "`a-b` is not a variable name",
            "`ansible_host` already has a meaning for Ansible",
            "`lookup` already has a meaning for templates",
            "`msg` already has a meaning for this host",
            "`class` already has a meaning for Python",
            "`1a` is not",
            "`` is not",
        ] {
            assert!(error.contains(expected), "{expected} is not in:\n{error}");
        }
        assert!(!error.contains("`branch`"), "{error}");
        assert!(parse(&format!("['{}']", "a".repeat(100))).is_ok());
        assert!(parse(&format!("['{}']", "a".repeat(101))).is_err());
    }

    #[test]
    fn a_word_instead_of_a_list_is_explained() {
        for word in ["'top-level'", "'message'"] {
            let error = parse(word).unwrap_err();
            assert!(error.contains("variables = [\"branch\", \"commit\"]"), "{error}");
        }
        assert!(parse("7").unwrap_err().contains("a list of keys of the message body"));
    }
}
