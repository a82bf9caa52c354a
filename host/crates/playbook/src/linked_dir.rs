//! A directory of tasks, in which all files of tasks are found.
//!
//! The directory is opened once, with cap-std. A link in it may lead to a file in it, or to one in a directory that
//! `linked_dirs` of the configuration names. If the path of the directory then leads to another directory, for example
//! because it is a link that was switched, the opened one stays in use until the next load.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use cap_std::ambient_authority;
use cap_std::fs::{Dir, File, Metadata};
use loopabull_launcher::is_shortage;

/// An opened directory of tasks.
#[derive(Debug)]
pub struct LinkedDir {
    dir: Dir,
    /// The path of the directory without links, as it was when the directory was opened.
    path: PathBuf,
    /// The directories to which links may lead, without links.
    linked: Vec<PathBuf>,
}

impl LinkedDir {
    /// Opens a directory. `linked` are the directories to which links may lead; those that do not exist are left out.
    ///
    /// # Errors
    ///
    /// If the directory cannot be opened, or if this machine is short of something.
    pub fn open(path: &Path, linked: &[PathBuf]) -> io::Result<Self> {
        let path = path.canonicalize()?;
        let dir = Dir::open_ambient_dir(&path, ambient_authority())?;
        let mut found = Vec::new();
        for path in linked {
            match path.canonicalize() {
                Ok(path) => found.push(path),
                Err(error) if is_shortage(&error) => return Err(error),
                Err(_) => (),
            }
        }
        Ok(Self { dir, path, linked: found })
    }

    /// Opens the same directory once more.
    ///
    /// # Errors
    ///
    /// If this machine is short of file descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        let (path, linked) = (self.path.clone(), self.linked.clone());
        Ok(Self { dir: self.dir.try_clone()?, path, linked })
    }

    /// Returns the directory itself.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Returns the path of the directory without links.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the directories to which links may lead.
    pub(crate) fn linked(&self) -> &[PathBuf] {
        &self.linked
    }

    /// Returns the metadata of a file. Follows links.
    ///
    /// # Errors
    ///
    /// If there is no such file, if a link leads elsewhere, or if the file cannot be read.
    pub fn metadata(&self, name: impl AsRef<OsStr>) -> io::Result<Metadata> {
        self.follow(Path::new(name.as_ref()), |dir, path| dir.metadata(path))
    }

    /// Opens a file. Follows links.
    ///
    /// # Errors
    ///
    /// As [`LinkedDir::metadata`].
    pub fn open_file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.follow(Path::new(name.as_ref()), |dir, path| dir.open(path))
    }

    /// Returns the metadata of a file. `None` if there is no such file. A link to a file that does not exist is an
    /// error.
    ///
    /// # Errors
    ///
    /// If there is such a file or link, but it cannot be followed or read.
    pub fn find(&self, name: impl AsRef<OsStr>) -> io::Result<Option<Metadata>> {
        match self.dir.symlink_metadata(Path::new(name.as_ref())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Ok(_) | Err(_) => self.metadata(name).map(Some),
        }
    }

    /// Calls a function with this directory and the path of a file, or with the linked directory in which the file is.
    fn follow<T>(&self, name: &Path, call: impl Fn(&Dir, &Path) -> io::Result<T>) -> io::Result<T> {
        let error = match call(&self.dir, name) {
            Err(error) if !is_shortage(&error) => error,
            result => return result,
        };
        let target = match self.path.join(name).canonicalize() {
            Ok(target) => target,
            Err(shortage) if is_shortage(&shortage) => return Err(shortage),
            Err(_) => return Err(error),
        };
        let Some(linked) = self.linked.iter().find(|linked| target.starts_with(linked)) else {
            return Err(error);
        };
        // The link may lead to the linked directory itself, which is its own file `.`.
        let path = Path::new(".").join(target.strip_prefix(linked).unwrap_or(&target));
        call(&Dir::open_ambient_dir(linked, ambient_authority())?, &path)
    }
}
