//! The folder of one run: its input, its home and its temporary files.
//!
//! This module decides the owner and the mode of each directory in the folder. `home` and `tmp` belong to the
//! user of the playbook. `given` contains the message and the secrets, which the playbook may only read. The
//! folder itself belongs to the daemon's user, so that a playbook cannot replace any of the three
//! directories.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};

use loopabull_launcher::User;
use loopabull_model::Task;
use rustix::fs::IFlags;

use crate::error::StartError;
use crate::secrets::Secrets;

/// The home and working directory of a playbook, in the folder of its run.
pub(crate) const HOME: &str = "home";
/// The directory that a playbook sees as `/tmp`.
pub(crate) const TMP: &str = "tmp";
/// The directory with the input of a playbook, which the playbook may only read.
pub(crate) const GIVEN: &str = "given";
/// The file with the extra variables of the manifest.
pub(crate) const EXTRA_VARS: &str = "given/extra_vars.json";
/// The directory with one file for each secret of a playbook.
pub(crate) const CREDENTIALS: &str = "given/credentials";

/// The maximum total size of the names of a file's extended attributes, in bytes (xattr(7)).
const XATTR_LIST_MAX: usize = 64 << 10;

/// The folder of one run. Removing the folder removes everything in it.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    user: Option<User>,
}

/// The names of the extended attributes of a directory, and its flags.
#[derive(Debug, Eq, PartialEq)]
struct Marks {
    attributes: BTreeSet<Vec<u8>>,
    /// The flags. `None` if the filesystem does not support flags.
    flags: Option<IFlags>,
}

impl Marks {
    fn of(path: &Path) -> io::Result<Self> {
        let mut names = Vec::with_capacity(XATTR_LIST_MAX);
        rustix::fs::listxattr(path, rustix::buffer::spare_capacity(&mut names))?;
        let names = names.split(|&byte| byte == 0).filter(|name| !name.is_empty());
        let attributes = names.map(<[u8]>::to_vec).collect();
        let flags = rustix::fs::ioctl_getflags(fs::File::open(path)?).ok();
        Ok(Self { attributes, flags })
    }
}

/// Creates the directory for the folders of all runs, and returns its canonical path. If playbooks run as
/// another user, that user may enter the directory but not list it.
pub(crate) fn make_parent(path: &Path, user: Option<User>) -> io::Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    if user.is_some() {
        fs::set_permissions(path, Permissions::from_mode(0o711))?;
    }
    path.canonicalize()
}

/// Removes the folder of a run, even if its playbook made directories unreadable. All processes of the run
/// must have ended.
///
/// # Errors
///
/// Fails if a file or directory in the folder cannot be removed. A missing folder is not an error.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    // The secrets are removed first, so that an error in another directory does not leave them behind.
    drop(fs::remove_dir_all(path.join(GIVEN)));
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => {
            make_removable(path)?;
            fs::remove_dir_all(path)
        }
        removed => removed,
    }
}

/// Gives the owner all permissions for every directory in a tree. Does not follow symbolic links.
fn make_removable(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_removable(&entry.path())?;
        }
    }
    Ok(())
}

impl Folder {
    /// Creates the folder of a run, which must not exist yet.
    pub(crate) fn make(path: &Path, user: Option<User>) -> Result<Self, StartError> {
        let folder = Self { path: path.to_owned(), user };
        for own in [path.to_owned(), path.join(GIVEN)] {
            folder.make_dir(&own)?;
        }
        for theirs in [HOME, TMP] {
            let theirs = path.join(theirs);
            folder.make_dir(&theirs)?;
            folder.give(&theirs).map_err(|source| StartError::MakeDir { path: theirs, source })?;
        }
        Ok(folder)
    }

    /// Returns the path of the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a new file that only the user of the playbook can read. Returns the path of the file.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, StartError> {
        let path = self.path.join(name);
        let written = (|| {
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(text.as_bytes())?;
            match self.user {
                Some(User { uid, gid }) => fchown(&file, Some(uid), Some(gid)),
                None => Ok(()),
            }
        })();
        match written {
            Ok(()) => Ok(path),
            Err(source) => Err(StartError::Write { path, source }),
        }
    }

    /// Writes the files that the arguments of a playbook name: the secrets, and the extra variables of the manifest.
    pub(crate) fn write_input(&self, task: &Task, secrets: &Secrets) -> Result<(), StartError> {
        let variables = &task.manifest.ansible.extra_vars;
        if !variables.is_empty() {
            let text = serde_json::to_string(variables).expect("JSON values can be written");
            self.write(EXTRA_VARS, &text)?;
        }
        self.write_secrets(secrets)
    }

    /// Writes each secret to a file of its own.
    fn write_secrets(&self, secrets: &Secrets) -> Result<(), StartError> {
        if !secrets.values().is_empty() {
            self.make_dir(&self.path.join(CREDENTIALS))?;
        }
        for (name, value) in secrets.values() {
            // The daemon stores a secret without its final line feed. OpenSSH rejects a private key
            // without one, so a secret of several lines gets its line feed back.
            let end = if value.contains('\n') { "\n" } else { "" };
            self.write(&format!("{CREDENTIALS}/{name}"), &format!("{value}{end}"))?;
        }
        Ok(())
    }

    /// Removes the folder, which contains only temporary files: the journal stores the output of the
    /// playbook. The tree may be large, so a thread for blocking calls removes it.
    pub(crate) async fn remove(self) {
        let path = self.path.clone();
        let removed = tokio::task::spawn_blocking(move || remove_tree(&path)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!("cannot remove the folder `{}` of a run: {error}", self.path.display());
        }
    }

    /// Removes everything that a run left in the folder, so that the folder is empty for the next run.
    ///
    /// # Errors
    ///
    /// Fails if something cannot be removed or reset. After an error the folder must not be used for another
    /// run.
    pub(crate) async fn empty(&self) -> io::Result<()> {
        let folder = self.clone();
        let emptied = tokio::task::spawn_blocking(move || {
            for name in [GIVEN, HOME, TMP] {
                folder.empty_dir(&folder.path.join(name))?;
            }
            for theirs in [HOME, TMP] {
                let theirs = folder.path.join(theirs);
                fs::set_permissions(&theirs, Permissions::from_mode(0o700))?;
                folder.give(&theirs)?;
                // An access control list or a flag on the directory would apply to files of the next run.
                if Marks::of(&theirs)? != Marks::of(&folder.path.join(GIVEN))? {
                    return Err(io::Error::other(
                        "a playbook set extended attributes or flags on its directory",
                    ));
                }
            }
            Ok(())
        });
        emptied.await.map_err(io::Error::other)?
    }

    /// Removes everything in a directory. The directory itself must stay, because it is mounted in the root
    /// filesystem of a controller.
    fn empty_dir(&self, path: &Path) -> io::Result<()> {
        fs::set_permissions(path, self.mode())?;
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => remove_tree(&entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        }
        Ok(())
    }

    fn make_dir(&self, path: &Path) -> Result<(), StartError> {
        let made = DirBuilder::new().mode(0o700).create(path);
        made.and_then(|()| fs::set_permissions(path, self.mode()))
            .map_err(|source| StartError::MakeDir { path: path.to_owned(), source })
    }

    /// Returns the mode of directories that belong to the daemon. If playbooks run as another user, that
    /// user may enter the directories but not list them.
    fn mode(&self) -> Permissions {
        Permissions::from_mode(if self.user.is_some() { 0o711 } else { 0o700 })
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        match self.user {
            Some(User { uid, gid }) => {
                fs::set_permissions(path, Permissions::from_mode(0o700))?;
                chown(path, Some(uid), Some(gid))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_with_unreadable_directories_is_removed() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("r");
        fs::create_dir_all(path.join("home/shut/inner")).unwrap();
        std::os::unix::fs::symlink("/", path.join("home/shut/inner/link")).unwrap();
        for shut in ["home/shut/inner", "home/shut"] {
            fs::set_permissions(path.join(shut), Permissions::from_mode(0o0)).unwrap();
        }
        remove_tree(&path).unwrap();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn symbolic_links_of_a_run_are_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let outside = parent.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        let folder = Folder::make(&parent.path().join("r"), None).unwrap();
        folder.write("given/message.yml", "---").unwrap();
        let home = folder.path().join(HOME);
        std::os::unix::fs::symlink(&outside, home.join("link")).unwrap();
        fs::set_permissions(&home, Permissions::from_mode(0o500)).unwrap();
        folder.empty().await.unwrap();
        assert!(outside.join("kept").exists());
        assert_eq!(fs::read_dir(&home).unwrap().count(), 0);
        assert_eq!(fs::metadata(&home).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(folder.path().join(GIVEN)).unwrap().count(), 0);
        folder.remove().await;
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn an_error_names_the_file() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::make(&parent.path().join("r"), None).unwrap();
        let error = folder.write("missing/x", "").unwrap_err().to_string();
        assert_eq!(error, format!("cannot write `{}`", folder.path().join("missing/x").display()));
        let error = Folder::make(folder.path(), None).unwrap_err().to_string();
        assert_eq!(error, format!("cannot create directory `{}`", folder.path().display()));
    }
}
