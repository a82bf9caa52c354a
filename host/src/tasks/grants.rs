//! What of this machine a manifest may name: whether it is what it is named as, and nobody's own.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use loopabull_model::{Access, Manifest};

use crate::config::Config;

/// Returns which directories and sockets cannot be granted, a clause each: by its real path only, so that
/// nobody who may write on the way makes it another, and none of the daemon's own.
pub(super) fn unfit(config: &Config, manifest: &Manifest) -> Vec<String> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let own = [&config.state, &config.tasks, &config.playbooks].map(|path| real(path));
    let objection = |what: &str, host: &Path, is_changed: bool| {
        let shown = host.display();
        if !host.is_absolute() {
            return Some(format!("the {what} `{shown}` is granted by a relative path"));
        }
        let there = real(host);
        if there != host {
            return Some(format!("`{shown}` leads to `{}`, grant that", there.display()));
        }
        let overlaps = |own: &PathBuf| own.starts_with(&there) || there.starts_with(own);
        let is_own = overlaps(&own[0]) || is_changed && own[1..].iter().any(overlaps);
        is_own.then(|| format!("the {what} `{shown}` is the daemon's own, or holds what is"))
    };
    let dirs = manifest.grants.dirs.iter();
    let dirs =
        dirs.filter_map(|dir| objection("directory", &dir.host, dir.access == Access::ReadWrite));
    let agent = manifest.grants.ssh_agent.iter().filter_map(|agent| {
        let is_other = agent.metadata().is_ok_and(|found| !found.file_type().is_socket());
        let other = || format!("the agent `{}` is no socket", agent.display());
        objection("agent", agent, true).or_else(|| is_other.then(other))
    });
    dirs.chain(agent).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_the_daemon_or_behind_a_link_is_not_granted() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().canonicalize().unwrap();
        let at = |name: &str| folder.join(name);
        for name in ["state", "tasks", "playbooks", "mirror"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        std::os::unix::fs::symlink("/", at("link")).unwrap();
        let config = Config {
            tasks: at("tasks"),
            playbooks: at("playbooks"),
            state: at("state"),
            ..Config::default()
        };
        let check_grant = |grant: &str, expected: Option<&str>| {
            let found = unfit(&config, &Manifest::parse(grant).unwrap());
            assert_eq!(found.len(), usize::from(expected.is_some()), "{found:?}");
            assert!(expected.is_none_or(|expected| found[0].contains(expected)), "{found:?}");
        };
        let check = |host: &Path, access: &str, expected: Option<&str>| {
            let host = host.display();
            let grant = format!("grants.dirs = [{{ host = '{host}', access = '{access}' }}]");
            check_grant(&grant, expected);
        };
        check(&at("mirror"), "read-write", None);
        check(Path::new("mirror"), "read-only", Some("a relative path"));
        check(&at("link"), "read-only", Some("leads to `/`"));
        check(&at("link/etc"), "read-only", Some("leads to `/etc`"));
        check(Path::new("/"), "read-only", Some("the daemon's own"));
        check(&at("state"), "read-only", Some("the daemon's own"));
        check(&folder, "read-only", Some("the daemon's own"));
        check(&at("playbooks"), "read-only", None);
        check(&at("playbooks"), "read-write", Some("the daemon's own"));

        let check_agent = |socket: &Path, expected: Option<&str>| {
            check_grant(&format!("grants.ssh_agent = '{}'", socket.display()), expected);
        };
        let _listener = std::os::unix::net::UnixListener::bind(at("agent")).unwrap();
        std::os::unix::fs::symlink(at("agent"), at("other-agent")).unwrap();
        check_agent(&at("agent"), None);
        check_agent(&at("not-yet-there"), None);
        check_agent(Path::new("/"), Some("the daemon's own"));
        check_agent(&at("state"), Some("the daemon's own"));
        check_agent(&at("mirror"), Some("is no socket"));
        check_agent(Path::new("/etc/passwd"), Some("is no socket"));
        check_agent(&at("other-agent"), Some("leads to"));
        check_agent(Path::new("agent"), Some("a relative path"));
    }
}
