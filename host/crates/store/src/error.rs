//! The reasons why an operation on a store fails.

use std::path::PathBuf;

/// The reason why an operation on a store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot open the file `{path}`")]
    Open { path: PathBuf, source: rusqlite::Error },
    #[error(
        "a newer version of this program wrote the file `{path}` (the file has version {found}, this program knows \
         versions up to {known})"
    )]
    Newer { path: PathBuf, found: i32, known: i32 },
    #[error(
        "the file `{path}` is too old to be upgraded (it has version {found}, this program upgrades from version {oldest})"
    )]
    TooOld { path: PathBuf, found: i32, oldest: i32 },
    #[error(
        "the file `{path}` has version {found}; a daemon of this version upgrades it to version {known} when it starts"
    )]
    NotUpgraded { path: PathBuf, found: i32, known: i32 },
    #[error("cannot upgrade the file `{path}` to version {to}")]
    Upgrade { path: PathBuf, to: i32, source: rusqlite::Error },
    #[error("cannot start the writer thread of the file `{path}`")]
    Thread { path: PathBuf, source: std::io::Error },
    #[error("cannot change the file `{path}`")]
    Change { path: PathBuf, source: rusqlite::Error },
    #[error("cannot read the file `{path}`")]
    Read { path: PathBuf, source: rusqlite::Error },
    #[error("cannot commit to the file `{path}`: {reason}")]
    Commit { path: PathBuf, reason: String },
    #[error("the writer thread of the file `{path}` has ended")]
    Gone { path: PathBuf },
}
