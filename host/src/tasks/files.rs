//! Reads the files of tasks, up to a size limit.

use std::io::{self, Read};

use loopabull_launcher::is_shortage;
use loopabull_model::{Manifest, ManifestError, TaskName};
use loopabull_playbook::LinkedDir;

/// Maximum size of a manifest in bytes.
const MAX_MANIFEST: u64 = 64 << 10;

/// The reason why a file of a task cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("cannot open `{file}`")]
    Open { file: String, source: io::Error },
    #[error("cannot read `{file}`")]
    Read { file: String, source: io::Error },
    #[error("`{file}` is not a regular file")]
    NotAFile { file: String },
    #[error("`{file}` has more than {limit} bytes")]
    TooLarge { file: String, limit: u64 },
    #[error("`{file}` is not UTF-8")]
    NotText { file: String },
    #[error("cannot read the directory of the task")]
    NoDirectory,
    #[error("cannot use the manifest `{file}`")]
    Manifest { file: String, source: ManifestError },
}

impl FileError {
    /// Returns whether the file could not be read because the machine is short of something.
    pub(super) fn is_shortage(&self) -> bool {
        match self {
            Self::Open { source, .. } | Self::Read { source, .. } => is_shortage(source),
            _ => false,
        }
    }
}

/// Reads the manifest of a task. If the manifest is invalid, returns the error, and a manifest with
/// only the topics and the queue, as far as they can be read.
pub(super) fn read_manifest(dir: &LinkedDir, name: &TaskName) -> (Manifest, Option<FileError>) {
    let file = format!("{name}.toml");
    let text = match dir.find(&file) {
        Ok(Some(_)) => read(dir, &file, MAX_MANIFEST).and_then(|bytes| {
            String::from_utf8(bytes).map_err(|_| FileError::NotText { file: file.clone() })
        }),
        Ok(None) => return (Manifest::default(), None),
        Err(source) => Err(FileError::Open { file: file.clone(), source }),
    };
    match text {
        Ok(text) => match Manifest::parse(&text) {
            Ok(manifest) => (manifest, None),
            Err(source) => (Manifest::salvage(&text), Some(FileError::Manifest { file, source })),
        },
        Err(error) => (Manifest::default(), Some(error)),
    }
}

/// Reads a regular file of at most `limit` bytes.
pub(super) fn read(dir: &LinkedDir, file: &str, limit: u64) -> Result<Vec<u8>, FileError> {
    let cannot = |source| FileError::Read { file: file.to_owned(), source };
    // Opening a named pipe would block, so only regular files are opened.
    if !dir.metadata(file).map_err(cannot)?.is_file() {
        return Err(FileError::NotAFile { file: file.to_owned() });
    }
    let mut bytes = Vec::new();
    dir.open_file(file)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .map_err(cannot)?;
    if bytes.len() as u64 > limit {
        return Err(FileError::TooLarge { file: file.to_owned(), limit });
    }
    Ok(bytes)
}
