//! The folder of one run: home, temporary directory and everything else that a playbook may write.
//!
//! Owns who may see it: nobody but the user that the playbook runs as.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::Context;
use loopabull_launcher::User;

use crate::playbook::{Secrets, plan};

/// A folder that is removed with all that is in it.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
    user: Option<User>,
}

fn empty_dir(path: &Path, but: Option<&str>) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if but.is_some_and(|but| entry.file_name() == but) {
            continue;
        }
        match entry.file_type()?.is_dir() {
            true => std::fs::remove_dir_all(entry.path())?,
            false => std::fs::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// Makes the place in which folders are made. Another user must be able to pass through it.
pub(super) fn make_place(path: &Path, is_passed: bool) -> Result<PathBuf, (PathBuf, io::Error)> {
    let cannot = |error| (path.to_owned(), error);
    let mode = if is_passed { 0o711 } else { 0o700 };
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(cannot)?;
    path.canonicalize().map_err(cannot)
}

impl Folder {
    /// Makes a folder, which must not be there.
    pub(super) fn make(path: &Path, user: Option<User>) -> anyhow::Result<Self> {
        let folder = Self { path: path.to_owned(), user };
        folder.make_dir(path)?;
        folder.make_dir(&path.join(plan::TMP))?;
        Ok(folder)
    }

    /// Returns where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file that nobody else can read. Returns where it is.
    pub(super) fn write(&self, name: impl AsRef<Path>, text: &str) -> anyhow::Result<PathBuf> {
        let file = self.path.join(name);
        if let Some(parent) = file.parent().filter(|parent| !parent.exists()) {
            self.make_dir(parent)?;
        }
        let cannot = || format!("cannot write `{}`", file.display());
        let mut options = OpenOptions::new();
        let open = options.write(true).create_new(true).mode(0o600).open(&file);
        open.and_then(|mut file| file.write_all(text.as_bytes())).with_context(cannot)?;
        self.give(&file).with_context(cannot)?;
        Ok(file)
    }

    /// Writes the values of secrets, a file each.
    pub(super) fn write_secrets(&self, secrets: &Secrets) -> anyhow::Result<()> {
        for (name, value) in &secrets.values {
            // The newline at the end of its file is no part of a secret, but OpenSSH takes no private
            // key without it.
            let end = if value.contains('\n') { "\n" } else { "" };
            self.write(Path::new(plan::CREDENTIALS).join(name), &format!("{value}{end}"))?;
        }
        Ok(())
    }

    /// Removes it. Whatever the playbook left there is its own temporary work; the journal has the
    /// output. It may be a large tree, so not on this thread.
    pub(super) async fn remove(self) {
        let gone = self.path.clone();
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(gone)).await;
        if let Ok(Err(error)) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("cannot remove `{}`: {error}", self.path.display());
        }
    }

    /// Removes all that a run has left in it, so that it is as it was made. Tells whether that was
    /// possible.
    pub(super) async fn empty(&self) -> bool {
        let path = self.path.clone();
        let emptied = tokio::task::spawn_blocking(move || {
            // What is mounted in a room must stay.
            empty_dir(&path, Some(plan::TMP))?;
            empty_dir(&path.join(plan::TMP), None)
        });
        matches!(emptied.await, Ok(Ok(())))
    }

    fn make_dir(&self, path: &Path) -> anyhow::Result<()> {
        let cannot = || format!("cannot make `{}`", path.display());
        DirBuilder::new().mode(0o700).create(path).with_context(cannot)?;
        self.give(path).with_context(cannot)
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        match self.user {
            Some(User { uid, gid }) => chown(path, Some(uid), Some(gid)),
            None => Ok(()),
        }
    }
}
