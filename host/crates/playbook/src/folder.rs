//! The folder of one run: what a playbook is given, its home and its temporary files.
//!
//! Owns who may see and change what. `home` and `tmp` are the playbook's; `given` holds the message and
//! the secrets, which it may only read; and the folder itself belongs to nobody but the daemon, so that
//! none of the three can be taken away and another put in its place.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, fchown};
use std::path::{Path, PathBuf};

use anyhow::Context;
use loopabull_launcher::User;
use rustix::fs::IFlags;

use crate::Secrets;

/// Home and working directory of a playbook, in the folder of its run.
pub(crate) const HOME: &str = "home";
/// What `/tmp` is for it.
pub(crate) const TMP: &str = "tmp";
/// What it may only read.
pub(crate) const GIVEN: &str = "given";
/// Where its secrets are, a file each.
pub(crate) const CREDENTIALS: &str = "given/credentials";

/// The most that the names of a file's extended attributes have together, in bytes (xattr(7)).
const XATTR_LIST_MAX: usize = 64 << 10;

/// A folder that is removed with all that is in it.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    user: Option<User>,
}

/// What can be written on a directory itself, beside its mode and owner.
#[derive(Debug, Eq, PartialEq)]
struct Marks {
    attributes: BTreeSet<Vec<u8>>,
    /// Where its filesystem has such.
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

/// Makes the place in which folders are made. Another user must be able to pass through it.
pub(crate) fn make_place(path: &Path, is_passed: bool) -> Result<PathBuf, (PathBuf, io::Error)> {
    let cannot = |error| (path.to_owned(), error);
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(cannot)?;
    if is_passed {
        fs::set_permissions(path, Permissions::from_mode(0o711)).map_err(cannot)?;
    }
    path.canonicalize().map_err(cannot)
}

/// Removes a tree, also one in which a playbook has shut directories. Nothing may live in it any more.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    // Before anything can fail.
    drop(fs::remove_dir_all(path.join(GIVEN)));
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => {
            open_up(path)?;
            fs::remove_dir_all(path)
        }
        removed => removed,
    }
}

/// Makes all directories of a tree ones that their owner can empty. Follows no link.
fn open_up(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

impl Folder {
    /// Makes a folder, which must not be there.
    pub(crate) fn make(path: &Path, user: Option<User>) -> anyhow::Result<Self> {
        let folder = Self { path: path.to_owned(), user };
        for own in [path.to_owned(), path.join(GIVEN)] {
            folder.make_dir(&own)?;
        }
        for theirs in [HOME, TMP] {
            let theirs = path.join(theirs);
            folder.make_dir(&theirs)?;
            folder.give(&theirs).with_context(|| format!("cannot make `{}`", theirs.display()))?;
        }
        Ok(folder)
    }

    /// Returns where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file that the playbook can read, and nobody else. Returns where it is.
    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let file = self.path.join(name);
        let cannot = || format!("cannot write `{}`", file.display());
        let mut options = OpenOptions::new();
        let mut opened =
            options.write(true).create_new(true).mode(0o600).open(&file).with_context(cannot)?;
        opened.write_all(text.as_bytes()).with_context(cannot)?;
        if let Some(User { uid, gid }) = self.user {
            fchown(&opened, Some(uid), Some(gid)).with_context(cannot)?;
        }
        Ok(file)
    }

    /// Writes the values of secrets, a file each.
    pub(crate) fn write_secrets(&self, secrets: &Secrets) -> anyhow::Result<()> {
        if !secrets.values.is_empty() {
            self.make_dir(&self.path.join(CREDENTIALS))?;
        }
        for (name, value) in &secrets.values {
            // The newline at the end of its file is no part of a secret, but OpenSSH takes no private
            // key without it.
            let end = if value.contains('\n') { "\n" } else { "" };
            self.write(&format!("{CREDENTIALS}/{name}"), &format!("{value}{end}"))?;
        }
        Ok(())
    }

    /// Removes it. Whatever the playbook left there is its own temporary work; the journal has the
    /// output. It may be a large tree, so not on this thread.
    pub(crate) async fn remove(self) {
        let gone = self.path.clone();
        let removed = tokio::task::spawn_blocking(move || remove_tree(&gone)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!("cannot remove `{}`: {error}", self.path.display());
        }
    }

    /// Removes all that a run has left in it, so that it is as it was made. Tells whether that was
    /// possible.
    pub(crate) async fn empty(&self) -> bool {
        let folder = self.clone();
        let emptied = tokio::task::spawn_blocking(move || {
            for name in [GIVEN, HOME, TMP] {
                folder.empty_dir(&folder.path.join(name))?;
            }
            for theirs in [HOME, TMP] {
                let theirs = folder.path.join(theirs);
                fs::set_permissions(&theirs, Permissions::from_mode(0o700))?;
                folder.give(&theirs)?;
                // An access control list, or a flag, that what is made in it would inherit.
                if Marks::of(&theirs)? != Marks::of(&folder.path.join(GIVEN))? {
                    return Err(io::Error::other("it is marked"));
                }
            }
            Ok(())
        });
        matches!(emptied.await, Ok(Ok(())))
    }

    /// Removes what is in a directory, which stays: it is mounted in a room.
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

    fn make_dir(&self, path: &Path) -> anyhow::Result<()> {
        let cannot = || format!("cannot make `{}`", path.display());
        DirBuilder::new().mode(0o700).create(path).with_context(cannot)?;
        fs::set_permissions(path, self.mode()).with_context(cannot)
    }

    /// Another user passes through what is the daemon's.
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
    fn a_tree_with_shut_directories_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("r");
        fs::create_dir_all(path.join("home/shut/inner")).unwrap();
        std::os::unix::fs::symlink("/", path.join("home/shut/inner/link")).unwrap();
        for shut in ["home/shut/inner", "home/shut"] {
            fs::set_permissions(path.join(shut), Permissions::from_mode(0o0)).unwrap();
        }
        remove_tree(&path).unwrap();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_a_run_put_in_the_place_of_something_is_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let outside = place.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        let folder = Folder::make(&place.path().join("r"), None).unwrap();
        folder.write("given/message.yml", "---").unwrap();
        let home = folder.path().join(HOME);
        std::os::unix::fs::symlink(&outside, home.join("link")).unwrap();
        fs::set_permissions(&home, Permissions::from_mode(0o500)).unwrap();
        assert!(folder.empty().await);
        assert!(outside.join("kept").exists());
        assert_eq!(fs::read_dir(&home).unwrap().count(), 0);
        assert_eq!(fs::metadata(&home).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(folder.path().join(GIVEN)).unwrap().count(), 0);
        folder.remove().await;
        assert!(outside.join("kept").exists());
    }
}
