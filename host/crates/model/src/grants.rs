//! Grants: the resources that a manifest allows its task, in addition to those that every task has.
//!
//! Defines the `[grants]` table of a manifest, and describes grants for people. A resource that has no key
//! here cannot be granted. This module opens no file, reads no secret and makes no connection; the host does
//! that when it loads or runs a task.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{HttpGrant, TaskKind, TopicPattern};

/// The resources that a task may use. The default is none.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grants {
    /// Directories of this machine that the task may use.
    pub dirs: Vec<DirGrant>,
    /// Origins (scheme, host and port) to which a component may send HTTP requests.
    pub http: Vec<HttpGrant>,
    /// Environment variables and their values.
    pub env: BTreeMap<String, String>,
    /// Sources of secrets, by the name under which the task reads each secret.
    pub secrets: BTreeMap<String, SecretSource>,
    /// Topics to which a component may send messages.
    pub emit: Vec<TopicPattern>,
    /// Maximum size of the task's state on this host, in bytes. Keys and values are counted.
    pub state: Option<ByteSize>,
    /// TCP ports that a playbook may connect to at any address. Port 22 is always allowed.
    pub tcp: Vec<u16>,
    /// Socket of an ssh agent whose keys a playbook may use.
    pub ssh_agent: Option<PathBuf>,
}

/// A directory that a task may use.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirGrant {
    /// Path of the directory on this machine.
    pub host: PathBuf,
    /// Path at which a component sees the directory, for example `/mirror`. Default: the path on this
    /// machine. A playbook always sees the path on this machine.
    pub guest: Option<String>,
    #[serde(default)]
    pub access: Access,
}

impl DirGrant {
    /// Returns the path at which the task sees the directory.
    pub fn guest(&self) -> String {
        self.guest.clone().unwrap_or_else(|| self.host.display().to_string())
    }
}

/// The kind of access to a directory.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    #[default]
    ReadOnly,
    ReadWrite,
}

/// The source of a secret. The host reads the secret when it loads the task.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretSource {
    /// A file. If its content ends with a newline, that newline is not part of the secret.
    File(PathBuf),
    /// A credential that systemd passes to the daemon (`LoadCredential=`).
    Credential(String),
    /// An environment variable of the daemon.
    Env(String),
}

impl Grants {
    /// Returns true if nothing is granted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns a description of each grant, one line each. The lines contain the values of granted
    /// environment variables, which are not secret because they are in the manifest. The lines never contain
    /// the value of a secret.
    pub fn lines(&self) -> Vec<String> {
        let dirs = self.dirs.iter().map(|dir| {
            let verb = match dir.access {
                Access::ReadOnly => "read",
                Access::ReadWrite => "read and write",
            };
            match &dir.guest {
                Some(guest) => format!("{verb} files in {} as {guest}", dir.host.display()),
                None => format!("{verb} files in {}", dir.host.display()),
            }
        });
        let http = self.http.iter().map(|grant| format!("call {grant}"));
        let env = self.env.iter().map(|(name, value)| format!("see the variable {name}={value}"));
        let secrets =
            self.secrets.iter().map(|(name, source)| format!("know the secret {name}, {source}"));
        let emit = self.emit.iter().map(|pattern| format!("send messages to {pattern}"));
        let state = self.state.iter().map(|size| format!("store up to {size} of state"));
        let tcp = self.tcp.iter().map(|port| format!("connect to TCP port {port} anywhere"));
        let agent = self.ssh_agent.iter();
        let agent =
            agent.map(|path| format!("use the keys of the ssh agent at {}", path.display()));
        let kept = emit.chain(state);
        dirs.chain(http).chain(tcp).chain(env).chain(secrets).chain(agent).chain(kept).collect()
    }

    /// Returns the grants that a task of this kind cannot use, one clause for each.
    pub fn misplaced(&self, kind: TaskKind) -> Vec<String> {
        let only_for = |name: &str, other: TaskKind| format!("`grants.{name}` is for {other}s");
        match kind {
            TaskKind::Component => {
                let wrong =
                    [("tcp", !self.tcp.is_empty()), ("ssh_agent", self.ssh_agent.is_some())];
                let wrong = wrong.into_iter().filter(|(_, is_granted)| *is_granted);
                wrong.map(|(name, _)| only_for(name, TaskKind::Playbook)).collect()
            }
            TaskKind::Playbook => {
                let wrong = [
                    ("http", !self.http.is_empty()),
                    ("emit", !self.emit.is_empty()),
                    ("state", self.state.is_some()),
                ];
                let wrong = wrong.into_iter().filter(|(_, is_granted)| *is_granted);
                let wrong = wrong.map(|(name, _)| only_for(name, TaskKind::Component));
                let moved = self.dirs.iter().filter(|dir| dir.guest.is_some()).map(|dir| {
                    let host = dir.host.display();
                    format!("a playbook sees `{host}` at its own path; remove `guest`")
                });
                wrong.chain(moved).collect()
            }
        }
    }

    /// Returns the kinds of grants that are set, for a table: `http, emit`.
    pub fn kinds(&self) -> Vec<&'static str> {
        let kinds = [
            ("dirs", !self.dirs.is_empty()),
            ("http", !self.http.is_empty()),
            ("env", !self.env.is_empty()),
            ("secrets", !self.secrets.is_empty()),
            ("emit", !self.emit.is_empty()),
            ("state", self.state.is_some()),
            ("tcp", !self.tcp.is_empty()),
            ("ssh_agent", self.ssh_agent.is_some()),
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
    fn grants_are_listed_one_a_line() {
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
            "store up to 1.0 MiB of state",
        ];
        assert_eq!(grants.lines(), expected);
        assert_eq!(grants.kinds(), ["dirs", "http", "env", "secrets", "emit", "state"]);
    }

    #[test]
    fn grants_for_the_other_kind_of_task_are_named() {
        let check = |text: &str, kind, expected: &[&str]| {
            let grants: Grants = toml::from_str(text).unwrap();
            assert_eq!(grants.misplaced(kind), expected);
        };
        let both = "env = { A = 'b' }\nsecrets.t = { env = 'T' }\ndirs = [{ host = '/a' }]";
        check(both, TaskKind::Component, &[]);
        check(both, TaskKind::Playbook, &[]);
        let web = "http = ['https://a.example']\nstate = '1KiB'";
        check(web, TaskKind::Component, &[]);
        let only = ["`grants.http` is for components", "`grants.state` is for components"];
        check(web, TaskKind::Playbook, &only);
        let ssh = "tcp = [2222]\nssh_agent = '/run/agent'";
        check(ssh, TaskKind::Playbook, &[]);
        let only = ["`grants.tcp` is for playbooks", "`grants.ssh_agent` is for playbooks"];
        check(ssh, TaskKind::Component, &only);
        let moved = "dirs = [{ host = '/a', guest = '/b' }]";
        let said = "a playbook sees `/a` at its own path; remove `guest`";
        check(moved, TaskKind::Playbook, &[said]);
    }

    #[test]
    fn an_unknown_grant_is_named() {
        let error = toml::from_str::<Grants>("sockets = true").unwrap_err().to_string();
        assert!(error.contains("unknown field `sockets`"), "{error}");
    }
}
