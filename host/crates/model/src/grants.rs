//! Grants: what a task is given beyond what every task has.
//!
//! Owns the `[grants]` table of a manifest and how a person reads it. Opens no file, reads no
//! secret and connects to nothing: the runner does. Nothing is granted that is not named here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::{HttpGrant, TopicPattern};

/// What a task is given. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grants {
    /// Directories of this machine.
    pub dirs: Vec<DirGrant>,
    /// Origins that may be called: scheme, host and port.
    pub http: Vec<HttpGrant>,
    /// Environment variables, with their values.
    pub env: BTreeMap<String, String>,
    /// Where the values of secrets are, by the names that the task knows.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Topics that messages may be sent to.
    pub emit: Vec<TopicPattern>,
    /// How many bytes, keys and values together, the task may remember on this host.
    pub state: Option<ByteSize>,
}

/// A directory that a task may use.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirGrant {
    /// Where it is on this machine.
    pub host: PathBuf,
    /// How the task knows it, for example `/mirror`.
    pub guest: String,
    #[serde(default)]
    pub access: Access,
}

/// What may be done in a directory.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    #[default]
    ReadOnly,
    ReadWrite,
}

/// Where the value of a secret is. It is read when the task is loaded.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretSource {
    /// A file; a newline at its end is not part of the secret.
    File(PathBuf),
    /// A credential that systemd hands to the daemon (`LoadCredential=`).
    Credential(String),
    /// A variable of the daemon's own environment.
    Env(String),
}

impl Grants {
    /// Tells whether nothing is granted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns what is granted, a line each, for a person. Values of secrets are not known here, and
    /// those of environment variables are in the manifest for all to read.
    pub fn lines(&self) -> Vec<String> {
        let dirs = self.dirs.iter().map(|dir| {
            let verb = match dir.access {
                Access::ReadOnly => "read",
                Access::ReadWrite => "read and write",
            };
            format!("{verb} files in {} as {}", dir.host.display(), dir.guest)
        });
        let http = self.http.iter().map(|grant| format!("call {grant}"));
        let env = self.env.iter().map(|(name, value)| format!("see the variable {name}={value}"));
        let secrets =
            self.secrets.iter().map(|(name, source)| format!("know the secret {name}, {source}"));
        let emit = self.emit.iter().map(|pattern| format!("send messages to {pattern}"));
        let state = self.state.iter().map(|size| format!("remember {size}"));
        dirs.chain(http).chain(env).chain(secrets).chain(emit).chain(state).collect()
    }

    /// Returns the kinds of what is granted, for a table: `http, emit`.
    pub fn kinds(&self) -> Vec<&'static str> {
        let kinds = [
            ("dirs", !self.dirs.is_empty()),
            ("http", !self.http.is_empty()),
            ("env", !self.env.is_empty()),
            ("secrets", !self.secrets.is_empty()),
            ("emit", !self.emit.is_empty()),
            ("state", self.state.is_some()),
        ];
        kinds.into_iter().filter(|(_, is_granted)| *is_granted).map(|(kind, _)| kind).collect()
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "from the file {}", path.display()),
            Self::Credential(name) => write!(f, "from the credential {name}"),
            Self::Env(name) => write!(f, "from the variable {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_granted_by_default() {
        let grants: Grants = toml::from_str("").unwrap();
        assert!(grants.is_empty());
        assert_eq!(grants.lines(), [""; 0]);
    }

    #[test]
    fn grants_read_like_a_page_of_permissions() {
        let grants: Grants = toml::from_str(
            r##"
            http = ["https://src.fedoraproject.org"]
            emit = ["org.example.#"]
            state = "1MiB"
            dirs = [
                { host = "/srv/mirror", guest = "/mirror" },
                { host = "/srv/out", guest = "/out", access = "read-write" },
            ]
            env = { TZ = "UTC" }
            [secrets]
            a = { file = "/etc/token" }
            b = { credential = "token" }
            c = { env = "TOKEN" }
            "##,
        )
        .unwrap();
        let expected = [
            "read files in /srv/mirror as /mirror",
            "read and write files in /srv/out as /out",
            "call https://src.fedoraproject.org",
            "see the variable TZ=UTC",
            "know the secret a, from the file /etc/token",
            "know the secret b, from the credential token",
            "know the secret c, from the variable TOKEN",
            "send messages to org.example.#",
            "remember 1.0 MiB",
        ];
        assert_eq!(grants.lines(), expected);
        assert_eq!(grants.kinds(), ["dirs", "http", "env", "secrets", "emit", "state"]);
    }

    #[test]
    fn an_unknown_grant_is_named() {
        let error = toml::from_str::<Grants>("sockets = true").unwrap_err().to_string();
        assert!(error.contains("unknown field `sockets`"), "{error}");
    }
}
