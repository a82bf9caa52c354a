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

/// The directories with collections and roles in a home. `None` if there is no such directory.
#[derive(Debug, Default)]
pub(crate) struct SharedContent {
    home: Option<PathBuf>,
    collections: Option<PathBuf>,
    roles: Option<PathBuf>,
}

impl SharedContent {
    /// Finds the directories of a user, or of the user of this process.
    pub(crate) fn of(user: Option<&PlaybookUser>) -> Self {
        let own =
            || nix::unistd::User::from_uid(Uid::effective()).ok().flatten().map(|user| user.dir);
        let home = match user {
            Some(user) => user.home.clone(),
            None => std::env::var_os("HOME").map(PathBuf::from).or_else(own),
        };
        let find = |name: &str| {
            let path = home.as_deref()?.join(".ansible").join(name).canonicalize().ok()?;
            (path.is_dir()
                && path.is_absolute()
                && !path.as_os_str().as_encoded_bytes().contains(&b':'))
            .then_some(path)
        };
        Self { collections: find("collections"), roles: find("roles"), home }
    }

    /// Replaces `~` at the beginning of a path by the home.
    pub(crate) fn expand(&self, path: &Path) -> PathBuf {
        match (path.strip_prefix("~"), &self.home) {
            (Ok(rest), Some(home)) => home.join(rest),
            _ => path.to_owned(),
        }
    }

    /// Returns the directories.
    pub(crate) fn dirs(&self) -> impl Iterator<Item = PathBuf> {
        self.collections.iter().chain(&self.roles).cloned()
    }

    /// Returns Ansible's default path of collections, with the directory in the home.
    pub(crate) fn collections_path(&self) -> Option<OsString> {
        self.collections.as_deref().map(|own| path(own, SYSTEM_COLLECTIONS))
    }

    /// Returns Ansible's default path of roles, with the directory in the home.
    pub(crate) fn roles_path(&self) -> Option<OsString> {
        self.roles.as_deref().map(|own| path(own, SYSTEM_ROLES))
    }
}

fn path(own: &Path, system: &str) -> OsString {
    let mut path = own.as_os_str().to_owned();
    path.push(":");
    path.push(system);
    path
}
