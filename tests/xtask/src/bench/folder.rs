//! The folder of a round.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::repository;

/// Creates an empty folder for a round of the case with this name, with the folders `tasks` and `playbooks`.
pub(super) fn empty_folder(case: &str) -> Result<PathBuf> {
    let folder = repository::target().join("bench").join(case);
    let cannot = || format!("cannot create the empty folder `{}`", folder.display());
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(cannot)?;
    }
    for name in ["tasks", "playbooks"] {
        fs::create_dir_all(folder.join(name)).with_context(cannot)?;
    }
    Ok(folder)
}
