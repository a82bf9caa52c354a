//! Checks the directories, sockets and secret files that a manifest grants.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use loopabull_model::{Access, Manifest, SecretSource};

use crate::config::Config;

/// Directories of which each run of a playbook has its own.
const SYSTEM: [&str; 5] = ["/dev", "/dev/pts", "/dev/shm", "/proc", "/sys"];

/// Returns the reasons why directories and sockets cannot be granted, one clause for each. A
/// granted path must not contain a symbolic link, because a user with write access to a parent
/// directory could change the link. The path must not overlap the state directory. A writable path
/// must not overlap a task directory or a directory of `linked_dirs`. The file of a secret may be a link, but must be in a
/// directory that the ceiling allows.
pub(super) fn unfit(config: &Config, manifest: &Manifest) -> Vec<String> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let own = [&config.state, &config.tasks, &config.playbooks].into_iter();
    let own: Vec<_> = own.chain(&config.linked_dirs).map(|path| real(path)).collect();
    let objection = |what: &str, host: &Path, is_writable: bool| {
        let shown = host.display();
        if !host.is_absolute() {
            return Some(format!("the path of the {what} `{shown}` is relative"));
        }
        if SYSTEM.iter().any(|system| host == Path::new(system)) {
            return Some(format!("the {what} `{shown}` belongs to the system; a run has its own"));
        }
        let target = real(host);
        if target != host {
            return Some(format!(
                "`{shown}` is a link to `{0}`; grant `{0}` itself",
                target.display()
            ));
        }
        let overlaps = |own: &PathBuf| own.starts_with(&target) || target.starts_with(own);
        let is_own = overlaps(&own[0]) || is_writable && own[1..].iter().any(overlaps);
        is_own.then(|| format!("the {what} `{shown}` overlaps a directory of the daemon"))
    };
    let dirs = manifest.grants.dirs.iter();
    let dirs =
        dirs.filter_map(|dir| objection("directory", &dir.host, dir.access == Access::ReadWrite));
    let agent = manifest.grants.ssh_agent.iter().filter_map(|agent| {
        let is_other = agent.metadata().is_ok_and(|found| !found.file_type().is_socket());
        let other = || format!("the SSH agent `{}` is not a socket", agent.display());
        objection("SSH agent", agent, true).or_else(|| is_other.then(other))
    });
    let allowed = config.ceiling.secret_dirs.iter().flatten();
    let allowed: Vec<_> = allowed.map(|dir| (dir, real(dir))).collect();
    let secrets = manifest.grants.secrets.iter().filter_map(|(name, source)| {
        let SecretSource::File(path) = source else { return None };
        let target = real(path);
        // A path outside of the directories is refused by the ceiling itself.
        let is_named_inside = allowed.iter().any(|(dir, _)| path.starts_with(dir));
        let is_inside = allowed.iter().any(|(_, real)| target.starts_with(real));
        (is_named_inside && !is_inside).then(|| {
            let (path, target) = (path.display(), target.display());
            format!("the secret `{name}`: `{path}` leads to `{target}`, which the ceiling does not allow")
        })
    });
    dirs.chain(agent).chain(secrets).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_must_not_lead_out_of_the_ceiling() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().canonicalize().unwrap();
        let secrets = folder.join("secrets");
        std::fs::create_dir(&secrets).unwrap();
        std::fs::write(secrets.join("token"), "x").unwrap();
        std::fs::write(folder.join("outside"), "x").unwrap();
        std::os::unix::fs::symlink("token", secrets.join("current")).unwrap();
        std::os::unix::fs::symlink("../outside", secrets.join("out")).unwrap();
        // The directory of the ceiling may itself be a link.
        std::os::unix::fs::symlink("secrets", folder.join("link")).unwrap();
        for dir in ["secrets", "link"] {
            let mut config = Config::default();
            config.ceiling.secret_dirs = Some(vec![folder.join(dir)]);
            for (name, count) in [("token", 0), ("current", 0), ("out", 1)] {
                let path = folder.join(dir).join(name);
                let grant = format!("grants.secrets.t.file = '{}'", path.display());
                let found = unfit(&config, &Manifest::parse(&grant).unwrap());
                assert_eq!(found.len(), count, "{name}: {found:?}");
            }
        }
    }

    #[test]
    fn a_link_or_a_directory_of_the_daemon_cannot_be_granted() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().canonicalize().unwrap();
        let at = |name: &str| folder.join(name);
        for name in ["state", "tasks", "playbooks", "mirror", "release"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        std::os::unix::fs::symlink("/", at("link")).unwrap();
        let config = Config {
            tasks: at("tasks"),
            playbooks: at("playbooks"),
            state: at("state"),
            linked_dirs: vec![at("release")],
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
        check(Path::new("/dev"), "read-write", Some("belongs to the system"));
        check(Path::new("mirror"), "read-only", Some("is relative"));
        check(&at("link"), "read-only", Some("is a link to `/`"));
        check(&at("link/etc"), "read-only", Some("is a link to `/etc`"));
        check(Path::new("/"), "read-only", Some("overlaps a directory of the daemon"));
        check(&at("state"), "read-only", Some("overlaps a directory of the daemon"));
        check(&folder, "read-only", Some("overlaps a directory of the daemon"));
        check(&at("playbooks"), "read-only", None);
        check(&at("playbooks"), "read-write", Some("overlaps a directory of the daemon"));
        check(&at("release"), "read-only", None);
        check(&at("release"), "read-write", Some("overlaps a directory of the daemon"));

        let check_agent = |socket: &Path, expected: Option<&str>| {
            check_grant(&format!("grants.ssh_agent = '{}'", socket.display()), expected);
        };
        let _listener = std::os::unix::net::UnixListener::bind(at("agent")).unwrap();
        std::os::unix::fs::symlink(at("agent"), at("other-agent")).unwrap();
        check_agent(&at("agent"), None);
        check_agent(&at("not-yet-there"), None);
        check_agent(Path::new("/"), Some("overlaps a directory of the daemon"));
        check_agent(&at("state"), Some("overlaps a directory of the daemon"));
        check_agent(&at("mirror"), Some("is not a socket"));
        check_agent(Path::new("/etc/passwd"), Some("is not a socket"));
        check_agent(&at("other-agent"), Some("is a link to"));
        check_agent(Path::new("agent"), Some("is relative"));
    }
}
