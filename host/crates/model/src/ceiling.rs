//! The ceiling: the most that any manifest of this host may grant.
//!
//! Manifests are written by whoever writes tasks, the ceiling by whoever runs the host. Without a
//! ceiling for a kind of grant, manifests may grant whatever they say.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use crate::manifest::some_duration;
use crate::{HttpGrant, Manifest, SecretSource, TopicPattern};

/// The most that a manifest may grant. What is not set is not limited; an empty list allows none.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ceiling {
    /// Directories beneath which granted directories must be.
    pub dirs: Option<Vec<PathBuf>>,
    /// Origins that may be granted, with the addresses they may be at.
    pub http: Option<Vec<HttpGrant>>,
    /// Directories beneath which files of secrets must be. It also forbids the daemon's environment
    /// as a source; credentials are those that systemd was told to hand over.
    pub secret_dirs: Option<Vec<PathBuf>>,
    /// TCP ports that may be granted.
    pub tcp: Option<Vec<u16>>,
    /// Directories beneath which sockets of ssh agents must be.
    pub ssh_agents: Option<Vec<PathBuf>>,
    /// Topics that may be sent to.
    pub emit: Option<Vec<TopicPattern>>,
    /// The most that one task may remember.
    pub state: Option<ByteSize>,
    /// The most memory that a run may have.
    pub memory: Option<ByteSize>,
    /// The longest time that a run may take.
    #[serde(deserialize_with = "some_duration")]
    pub timeout: Option<Duration>,
}

impl Ceiling {
    /// Returns what the manifest grants beyond the ceiling, a clause each.
    pub fn excess(&self, manifest: &Manifest) -> Vec<String> {
        let grants = &manifest.grants;
        let mut excess = Vec::new();
        let mut refuse = |what: String| excess.push(format!("the ceiling does not allow {what}"));
        if let Some(allowed) = &self.dirs {
            for dir in grants.dirs.iter().filter(|dir| !is_beneath(&dir.host, allowed)) {
                refuse(format!("the directory `{}`", dir.host.display()));
            }
        }
        if let Some(allowed) = &self.http {
            for grant in grants.http.iter().filter(|grant| !allowed.contains(grant)) {
                refuse(format!("calls to `{grant}`"));
            }
        }
        if let Some(allowed) = &self.secret_dirs {
            let is_allowed = |source: &SecretSource| match source {
                SecretSource::File(path) => is_beneath(path, allowed),
                SecretSource::Credential(_) => true,
                SecretSource::Env(_) => false,
            };
            for (name, source) in grants.secrets.iter().filter(|(_, source)| !is_allowed(source)) {
                refuse(format!("the secret `{name}` {source}"));
            }
        }
        if let Some(allowed) = &self.tcp {
            for port in grants.tcp.iter().filter(|port| !allowed.contains(port)) {
                refuse(format!("connections to TCP port {port}"));
            }
        }
        if let (Some(allowed), Some(socket)) = (&self.ssh_agents, &grants.ssh_agent)
            && !is_beneath(socket, allowed)
        {
            refuse(format!("the agent at `{}`", socket.display()));
        }
        if let Some(allowed) = &self.emit {
            let is_allowed = |pattern: &TopicPattern| allowed.iter().any(|a| a.covers(pattern));
            for pattern in grants.emit.iter().filter(|pattern| !is_allowed(pattern)) {
                refuse(format!("messages to `{pattern}`"));
            }
        }
        if let (Some(most), Some(state)) = (self.state, grants.state)
            && state > most
        {
            refuse(format!("a state of {state}, the most is {most}"));
        }
        if let (Some(most), Some(memory)) = (self.memory, manifest.limits.memory)
            && memory > most
        {
            refuse(format!("{memory} of memory, the most is {most}"));
        }
        if let (Some(most), Some(timeout)) = (self.timeout, manifest.limits.timeout)
            && timeout > most
        {
            let [timeout, most] = [timeout, most].map(humantime::format_duration);
            refuse(format!("a timeout of {timeout}, the longest is {most}"));
        }
        excess
    }
}

/// Tells whether a path is one of the directories or beneath one, by its words: `..` is beneath
/// nothing. Links are the business of whoever may make them in an allowed directory.
fn is_beneath(path: &Path, directories: &[PathBuf]) -> bool {
    path.is_absolute()
        && !path.components().any(|part| part == Component::ParentDir)
        && directories.iter().any(|directory| path.starts_with(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ceiling: &str, manifest: &str, expected: &[&str]) {
        let ceiling: Ceiling = toml::from_str(ceiling).unwrap();
        let found = ceiling.excess(&Manifest::parse(manifest).unwrap());
        let expected: Vec<_> =
            expected.iter().map(|what| format!("the ceiling does not allow {what}")).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn without_a_ceiling_everything_may_be_granted() {
        check("", "grants.emit = ['#']\nlimits.memory = '1GiB'", &[]);
    }

    #[test]
    fn a_directory_must_be_beneath_an_allowed_one() {
        let grant = |host: &str| format!("grants.dirs = [{{ host = '{host}', guest = '/x' }}]");
        check("dirs = ['/srv']", &grant("/srv/x"), &[]);
        check("dirs = ['/srv']", &grant("/srvx"), &["the directory `/srvx`"]);
        check("dirs = ['/srv']", &grant("/srv/../etc"), &["the directory `/srv/../etc`"]);
        check("dirs = ['/srv']", &grant("srv"), &["the directory `srv`"]);
        check("dirs = []", &grant("/srv"), &["the directory `/srv`"]);
    }

    #[test]
    fn an_origin_must_be_allowed() {
        let ceiling = "http = ['https://a.example']";
        check(ceiling, "grants.http = ['https://a.example']", &[]);
        check(ceiling, "grants.http = ['http://a.example']", &["calls to `http://a.example`"]);
    }

    #[test]
    fn secrets_come_from_allowed_places() {
        let ceiling = "secret_dirs = ['/etc/loopabull']";
        check(ceiling, "grants.secrets.a = { file = '/etc/loopabull/a' }", &[]);
        check(ceiling, "grants.secrets.a = { credential = 'a' }", &[]);
        check(
            ceiling,
            "grants.secrets.a = { file = '/etc/shadow' }\ngrants.secrets.b = { env = 'B' }",
            &["the secret `a` from the file /etc/shadow", "the secret `b` from the variable B"],
        );
    }

    #[test]
    fn ports_and_agents_must_be_allowed() {
        check("tcp = [443]", "grants.tcp = [443]", &[]);
        check("tcp = [443]", "grants.tcp = [80]", &["connections to TCP port 80"]);
        let agent = "grants.ssh_agent = '/run/a/agent'";
        check("ssh_agents = ['/run/a']", agent, &[]);
        check("ssh_agents = []", agent, &["the agent at `/run/a/agent`"]);
    }

    #[test]
    fn topics_must_be_covered_by_allowed_patterns() {
        check("emit = ['a.#']", "grants.emit = ['a.*.c', 'a']", &[]);
        check("emit = ['a.*']", "grants.emit = ['a.#']", &["messages to `a.#`"]);
    }

    #[test]
    fn sizes_and_times_have_a_most() {
        check("state = '1KiB'", "grants.state = '1KiB'", &[]);
        check(
            "state = '1KiB'",
            "grants.state = '2KiB'",
            &["a state of 2.0 KiB, the most is 1.0 KiB"],
        );
        let memory = "128.0 MiB of memory, the most is 64.0 MiB";
        check("memory = '64MiB'", "limits.memory = '128MiB'", &[memory]);
        let timeout = "a timeout of 2m, the longest is 1m";
        check("timeout = '1m'", "limits.timeout = '2m'", &[timeout]);
    }
}
