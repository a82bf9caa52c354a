//! The collections and roles in the home of the user that playbooks run as.
//!
//! A playbook has a home of its own, so the default paths under `~/.ansible` would be empty there. This module finds
//! the directories in the real home, which every playbook may read.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use crate::user::PlaybookUser;

/// The directories of the system in Ansible's default paths (Ansible documentation, "COLLECTIONS_PATHS" and
/// "DEFAULT_ROLES_PATH").
const SYSTEM_COLLECTIONS: &str = "/usr/share/ansible/collections";
const SYSTEM_ROLES: &str = "/usr/share/ansible/roles:/etc/ansible/roles";

/// The home in which directories with collections and roles are looked for. They may appear and go at any time.
#[derive(Debug, Default)]
pub(crate) struct SharedContent {
    home: Option<PathBuf>,
}

impl SharedContent {
    /// Finds the home of a user, or of the user of this process.
    pub(crate) fn of(user: Option<&PlaybookUser>) -> Self {
        let own =
            || nix::unistd::User::from_uid(Uid::effective()).ok().flatten().map(|user| user.dir);
        let home = match user {
            Some(user) => user.home.clone(),
            None => std::env::var_os("HOME").map(PathBuf::from).or_else(own),
        };
        Self { home: home.filter(|home| home.is_absolute()) }
    }

    /// Replaces `~` at the beginning of a path by the home.
    pub(crate) fn expand(&self, path: &Path) -> PathBuf {
        match (path.strip_prefix("~"), &self.home) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path.to_owned(),
        }
    }

    /// Returns the directories that exist now.
    pub(crate) fn dirs(&self) -> impl Iterator<Item = PathBuf> {
        ["collections", "roles"].into_iter().filter_map(|name| self.find(name))
    }

    /// Returns Ansible's default path of collections, with the directory in the home.
    pub(crate) fn collections_path(&self) -> Option<OsString> {
        self.find("collections").map(|own| path(&own, SYSTEM_COLLECTIONS))
    }

    /// Returns Ansible's default path of roles, with the directory in the home.
    pub(crate) fn roles_path(&self) -> Option<OsString> {
        self.find("roles").map(|own| path(&own, SYSTEM_ROLES))
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        let path = self.home.as_deref()?.join(".ansible").join(name).canonicalize().ok()?;
        // A colon separates the paths in Ansible's settings.
        let has_colon = path.as_os_str().as_encoded_bytes().contains(&b':');
        (path.is_dir() && !has_colon).then_some(path)
    }
}

fn path(own: &Path, system: &str) -> OsString {
    let mut path = own.as_os_str().to_owned();
    path.push(":");
    path.push(system);
    path
}
