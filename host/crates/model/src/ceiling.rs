//! The ceiling: the maximum that any manifest on this host may grant.
//!
//! The authors of tasks write manifests, and the operator of the host writes the ceiling. The ceiling has a
//! key for each kind of grant. If the operator leaves a key out, manifests may grant anything of that kind.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use crate::duration::some_duration;
use crate::{HttpGrant, Limits, Manifest, SecretSource, TaskKind, TopicPattern};

/// The maximum that a manifest may grant. A key that is not set is no limit; an empty list allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ceiling {
    /// Directories that may be granted, including their subdirectories.
    pub dirs: Option<Vec<PathBuf>>,
    /// Origins that may be granted. A granted origin and its addresses must equal one of these.
    pub http: Option<Vec<HttpGrant>>,
    /// Directories whose files may be used as secrets. If this key is set, the daemon's environment variables
    /// are forbidden as secrets. Credentials stay allowed, because the operator lists them in the unit file
    /// and systemd passes no others.
    pub secret_dirs: Option<Vec<PathBuf>>,
    /// TCP ports that may be granted.
    pub tcp: Option<Vec<u16>>,
    /// Directories whose ssh agent sockets may be granted.
    pub ssh_agents: Option<Vec<PathBuf>>,
    /// Topics to which tasks may be allowed to send messages.
    pub emit: Option<Vec<TopicPattern>>,
    /// Maximum size of the state of one task.
    pub state: Option<ByteSize>,
    /// Maximum memory of one run.
    pub memory: Option<ByteSize>,
    /// Maximum timeout of one run.
    #[serde(deserialize_with = "some_duration")]
    pub timeout: Option<Duration>,
}

impl Ceiling {
    /// Returns the grants of a manifest that exceed the ceiling, one clause for each.
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
            refuse(format!("the ssh agent at `{}`", socket.display()));
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
            refuse(format!("a state of {state}, the maximum is {most}"));
        }
        if let (Some(most), Some(memory)) = (self.memory, manifest.limits.memory)
            && memory > most
        {
            refuse(format!("{memory} of memory, the maximum is {most}"));
        }
        if let (Some(most), Some(timeout)) = (self.timeout, manifest.limits.timeout)
            && timeout > most
        {
            let [timeout, most] = [timeout, most].map(humantime::format_duration);
            refuse(format!("a timeout of {timeout}, the maximum is {most}"));
        }
        excess
    }
}

impl Manifest {
    /// Sets the timeout and the memory if the manifest leaves them out: to the default or to the ceiling,
    /// whichever is lower. The default memory of playbooks is not known here, so a playbook gets the maximum
    /// of the ceiling.
    ///
    /// A limit that the manifest sets above the ceiling is not lowered. [`Ceiling::excess`] reports it.
    pub fn apply_ceiling(&mut self, kind: TaskKind, ceiling: &Ceiling) {
        if let Some(most) = ceiling.timeout {
            self.limits.timeout.get_or_insert(most.min(Limits::default_timeout(kind)));
        }
        if let Some(most) = ceiling.memory {
            self.limits.memory.get_or_insert(match kind {
                TaskKind::Component => most.min(Limits::COMPONENT_MEMORY),
                TaskKind::Playbook => most,
            });
        }
    }
}

/// Returns true if a path is one of the directories or is inside one. The path is compared by its components,
/// and a path with `..` is never inside. Symbolic links are not resolved, so everyone who can create a
/// symbolic link inside an allowed directory is trusted.
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
    fn secrets_must_come_from_allowed_sources() {
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
        check("ssh_agents = []", agent, &["the ssh agent at `/run/a/agent`"]);
    }

    #[test]
    fn topics_must_be_covered_by_allowed_patterns() {
        check("emit = ['a.#']", "grants.emit = ['a.*.c', 'a']", &[]);
        check("emit = ['a.*']", "grants.emit = ['a.#']", &["messages to `a.#`"]);
    }

    fn check_applied(ceiling: &str, kind: TaskKind, manifest: &str, expected: &str) {
        let mut manifest = Manifest::parse(manifest).unwrap();
        manifest.apply_ceiling(kind, &toml::from_str(ceiling).unwrap());
        assert_eq!(manifest, Manifest::parse(expected).unwrap());
    }

    #[test]
    fn the_ceiling_sets_limits_that_are_left_out() {
        use TaskKind::{Component, Playbook};
        check_applied("", Component, "", "");
        check_applied("timeout = '2s'", Component, "", "limits.timeout = '2s'");
        check_applied("timeout = '1m'", Component, "", "limits.timeout = '30s'");
        check_applied("timeout = '1m'", Playbook, "", "limits.timeout = '1m'");
        check_applied("timeout = '1h'", Playbook, "", "limits.timeout = '15m'");
        check_applied("memory = '16MiB'", Component, "", "limits.memory = '16MiB'");
        check_applied("memory = '1GiB'", Component, "", "limits.memory = '64MiB'");
        // The host's configuration sets the default memory of playbooks, so only the ceiling is known here.
        check_applied("memory = '2GiB'", Playbook, "", "limits.memory = '2GiB'");
        let own = "limits.timeout = '5m'\nlimits.memory = '32MiB'";
        for kind in [Component, Playbook] {
            check_applied("timeout = '2s'\nmemory = '1MiB'", kind, own, own);
        }
    }

    #[test]
    fn sizes_and_times_are_limited() {
        check("state = '1KiB'", "grants.state = '1KiB'", &[]);
        check(
            "state = '1KiB'",
            "grants.state = '2KiB'",
            &["a state of 2.0 KiB, the maximum is 1.0 KiB"],
        );
        let memory = "128.0 MiB of memory, the maximum is 64.0 MiB";
        check("memory = '64MiB'", "limits.memory = '128MiB'", &[memory]);
        let timeout = "a timeout of 2m, the maximum is 1m";
        check("timeout = '1m'", "limits.timeout = '2m'", &[timeout]);
    }
}
