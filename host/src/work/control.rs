//! The file `control.db` in the state directory: what operators decided. It has the pauses and the audit log.

use std::path::Path;

use loopabull_store::{Schema, Store, StoreError};

/// Commands open the file too, so each step must leave valid what a daemon of the previous version writes.
const SCHEMA: Schema = Schema { oldest: 2, steps: &[PAUSES, AUDIT] };

const FILE: &str = "control.db";

const PAUSES: &str = "
    CREATE TABLE pauses (
        kind TEXT NOT NULL CHECK (kind IN ('task', 'queue', 'worker')),
        name TEXT NOT NULL,
        reason TEXT NOT NULL,
        since_ms INTEGER NOT NULL,
        paused_by TEXT NOT NULL,
        PRIMARY KEY (kind, name)
    ) STRICT, WITHOUT ROWID;";

const AUDIT: &str = "
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY,
        at_ms INTEGER NOT NULL,
        who TEXT NOT NULL,
        action TEXT NOT NULL,
        target TEXT NOT NULL,
        count INTEGER NOT NULL
    ) STRICT;";

/// Opens the file to read it, without an upgrade. `None` if there is none.
pub(super) fn open_to_read(state: &Path) -> Result<Option<Store>, StoreError> {
    let file = state.join(FILE);
    if !file.exists() {
        return Ok(None);
    }
    Store::open_to_read(&file, SCHEMA).map(Some)
}

/// Opens the file. Creates it if it is missing.
pub(super) fn open(state: &Path) -> Result<Store, StoreError> {
    Store::open(&state.join(FILE), SCHEMA)
}
