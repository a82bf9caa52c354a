//! Stamps, which show whether the files of a task have changed.

use std::path::Path;
use std::time::SystemTime;

use cap_std::fs::MetadataExt as _;
use loopabull_model::{Manifest, TaskName};
use loopabull_playbook::LinkedDir;

use crate::tasks::secrets;

/// Metadata of a task's files, and of the files and directories that its manifest names. A task
/// whose stamp has changed is loaded again.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stamp(Vec<Option<FileStamp>>);

/// The inode, then the size of a file or the device of a directory, then the modification time.
type FileStamp = (u64, u64, SystemTime);

impl Stamp {
    /// Returns the stamp of a task's file and manifest in a directory, and of the directory itself: a
    /// playbook also uses other files in it.
    pub(super) fn read(dir: &LinkedDir, name: &TaskName, extension: &str) -> Self {
        let read = |extension: &str| {
            let metadata = dir.metadata(format!("{name}.{extension}")).ok()?;
            Some((metadata.ino(), metadata.len(), metadata.modified().ok()?.into_std()))
        };
        let identity = dir.dir().dir_metadata().ok();
        let identity = identity.map(|found| (found.ino(), found.dev(), SystemTime::UNIX_EPOCH));
        Self(vec![read(extension), read("toml"), identity])
    }

    /// Adds the stamps of the secret files and directories that the manifest names. A changed
    /// secret or a replaced directory therefore changes the stamp of the task.
    pub(super) fn add_referenced_files(&mut self, manifest: &Manifest) {
        let grants = &manifest.grants;
        let secrets = grants.secrets.values().filter_map(secrets::path);
        let secrets = secrets.map(|path| secret_stamp(&path));
        let dirs = grants.dirs.iter().map(|dir| directory_stamp(&dir.host));
        self.0.extend(secrets.chain(dirs));
    }
}

fn secret_stamp(path: &Path) -> Option<FileStamp> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.modified().ok()?))
}

/// Returns the inode and the device of a directory. The modification time is left out, because it
/// changes with the content of the directory.
fn directory_stamp(path: &Path) -> Option<FileStamp> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.ino(), metadata.dev(), SystemTime::UNIX_EPOCH))
}
