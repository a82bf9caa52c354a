//! Opens the journal of a state directory for commands.

use std::path::Path;

use anyhow::anyhow;

use crate::commands::failure::Failure;
use crate::journal::Journal;
use crate::tables;

/// Opens the journal of a state directory to read it.
pub(super) fn journal(state: &Path) -> Result<Journal, Failure> {
    if tables::path(state).exists() {
        return Ok(Journal::open_to_read(state)?);
    }
    let error = anyhow!("`{}` contains no journal", state.display());
    Err(Failure::with_hint(error, "name the daemon's state directory with `--state`"))
}
