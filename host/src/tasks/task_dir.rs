//! A directory of tasks, in which all files of tasks are found.
//!
//! The directory is opened once, with cap-std. A link in it may lead to a file in it, or to one in a directory that
//! `linked_dirs` of the configuration names.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, Metadata};
use loopabull_playbook::PlaybookDir;

/// An opened directory of tasks.
#[derive(Debug)]
pub(super) struct TaskDir {
    dir: Dir,
    /// The path of the directory without links, as it was when the directory was opened.
    path: PathBuf,
    /// The directories to which links may lead, without links.
    linked: Vec<PathBuf>,
}

impl TaskDir {
    /// Opens a directory. `linked` are the directories to which links may lead; those that do not exist are left out.
    pub(super) fn open(path: &Path, linked: &[PathBuf]) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let dir = Dir::open_ambient_dir(&path, ambient_authority())?;
        let linked = linked.iter().filter_map(|path| path.canonicalize().ok()).collect();
        Ok(Self { dir, path, linked })
    }

    /// Returns the directory itself.
    pub(super) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Returns the directory for runs of playbooks.
    pub(super) fn to_playbook_dir(&self) -> io::Result<PlaybookDir> {
        Ok(PlaybookDir::new(self.dir.try_clone()?, self.path.clone(), self.linked.clone()))
    }

    /// Returns the metadata of a file. Follows links.
    pub(super) fn metadata(&self, name: impl AsRef<OsStr>) -> io::Result<Metadata> {
        let name = Path::new(name.as_ref());
        self.dir.metadata(name).or_else(|error| match self.linked(name) {
            Some((dir, path)) => dir.metadata(path),
            None => Err(error),
        })
    }

    /// Opens a file. Follows links.
    pub(super) fn open_file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        let name = Path::new(name.as_ref());
        self.dir.open(name).or_else(|error| match self.linked(name) {
            Some((dir, path)) => dir.open(path),
            None => Err(error),
        })
    }

    /// Returns whether there is a file, or a link that can be followed.
    pub(super) fn exists(&self, name: impl AsRef<OsStr>) -> bool {
        self.metadata(name).is_ok()
    }

    /// Returns the linked directory in which a link ends, and the path of the file in it.
    fn linked(&self, name: &Path) -> Option<(Dir, PathBuf)> {
        if !self.dir.symlink_metadata(name).ok()?.is_symlink() {
            return None;
        }
        let target = self.path.join(name).canonicalize().ok()?;
        let linked = self.linked.iter().find(|linked| target.starts_with(linked))?;
        let dir = Dir::open_ambient_dir(linked, ambient_authority()).ok()?;
        Some((dir, target.strip_prefix(linked).ok()?.to_owned()))
    }
}
