//! The tables of a file, and the upgrade of a file that an earlier version of the program wrote.

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::error::StoreError;

/// The tables of a file, and how they came to be. A file of an earlier version is upgraded step by step when it is
/// opened.
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// The version of a file after the first step. Earlier versions are refused.
    pub oldest: i32,
    /// SQL statements. The first step creates the tables, and each further step raises the version by one. Once
    /// published, a step never changes. If commands open the file with [`Store::open`](crate::Store::open), a further step must leave valid what the
    /// previous version of the program writes: a daemon of that version may still run.
    pub steps: &'static [&'static str],
}

impl Schema {
    /// Returns the version of a file after all steps.
    pub const fn version(&self) -> i32 {
        self.oldest + self.steps.len() as i32 - 1
    }
}

/// Fails if this program cannot read a file. A file without tables can be read.
pub(crate) fn check(
    connection: &Connection,
    path: &Path,
    schema: Schema,
) -> Result<(), StoreError> {
    let found = version(connection)
        .map_err(|source| StoreError::Open { path: path.to_owned(), source })?
        .unwrap_or_else(|| schema.version());
    let (path, oldest, known) = (path.to_owned(), schema.oldest, schema.version());
    match found {
        found if found > known => Err(StoreError::Newer { path, found, known }),
        found if found < oldest => Err(StoreError::TooOld { path, found, oldest }),
        _ => Ok(()),
    }
}

/// Fails if a file needs an upgrade, or if this program cannot read it.
pub(crate) fn check_current(
    connection: &Connection,
    path: &Path,
    schema: Schema,
) -> Result<(), StoreError> {
    check(connection, path, schema)?;
    let found =
        version(connection).map_err(|source| StoreError::Open { path: path.to_owned(), source })?;
    // Another process may be creating the tables.
    let (found, known) = (found.unwrap_or_default(), schema.version());
    match found < known {
        true => Err(StoreError::NotUpgraded { path: path.to_owned(), found, known }),
        false => Ok(()),
    }
}

/// Carries out the steps that a file lacks, each in a transaction.
pub(crate) fn upgrade(
    connection: &Connection,
    path: &Path,
    schema: Schema,
) -> Result<(), StoreError> {
    loop {
        check(connection, path, schema)?;
        let found = version(connection)
            .map_err(|source| StoreError::Open { path: path.to_owned(), source })?;
        let to = match found {
            None => schema.oldest,
            Some(found) if found == schema.version() => return Ok(()),
            Some(found) => {
                tracing::info!("upgrading the file `{}` to version {}", path.display(), found + 1);
                found + 1
            }
        };
        let step = usize::try_from(to - schema.oldest).ok();
        let step = step.and_then(|step| schema.steps.get(step)).copied().unwrap_or_default();
        take_step(connection, step, to).map_err(|source| StoreError::Upgrade {
            path: path.to_owned(),
            to,
            source,
        })?;
    }
}

/// Carries out a step, unless another process has done so meanwhile.
fn take_step(connection: &Connection, step: &str, to: i32) -> rusqlite::Result<()> {
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    if version(&transaction)?.is_none_or(|found| found < to) {
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", to)?;
    }
    transaction.commit()
}

/// Returns the version of a file. `None` if it has no tables yet.
fn version(connection: &Connection) -> rusqlite::Result<Option<i32>> {
    let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i32>(0));
    let has_tables = count("SELECT count(*) FROM sqlite_schema")? > 0;
    has_tables.then(|| count("PRAGMA user_version")).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    const FIRST: &str = "CREATE TABLE t (n INTEGER PRIMARY KEY) STRICT";
    const SCHEMA: Schema = Schema { oldest: 1, steps: &[FIRST] };

    #[tokio::test]
    async fn a_file_is_upgraded_step_by_step_and_keeps_its_content() {
        const STEPS: [&str; 3] = [
            FIRST,
            "ALTER TABLE t ADD COLUMN m INTEGER NOT NULL DEFAULT 7",
            "CREATE INDEX t_m ON t (m); UPDATE t SET m = m + n",
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let store = Store::open(&path, SCHEMA).unwrap();
        store
            .change(|connection| connection.execute("INSERT INTO t VALUES (1)", []))
            .await
            .unwrap();
        drop(store);
        let all = Schema { oldest: 1, steps: &STEPS };
        for schema in [SCHEMA, all, all] {
            drop(Store::open(&path, schema).unwrap());
        }
        let sum = |path: &Path| {
            let connection = Connection::open(path).unwrap();
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            let sum = connection.query_row("SELECT count(*), sum(m) FROM t", [], row).unwrap();
            (sum, version(&connection).unwrap())
        };
        assert_eq!(sum(&path), ((1, Some(8)), Some(3)));
        let new = folder.path().join("new.db");
        drop(Store::open(&new, all).unwrap());
        assert_eq!(sum(&new), ((0, None), Some(3)));
        let error = Store::open(&path, SCHEMA).unwrap_err().to_string();
        assert!(error.contains("a newer version of this program wrote the file"), "{error}");
        drop(Store::open_current(&path, all).unwrap());
        let longer = Schema { oldest: 1, steps: &[FIRST, FIRST, FIRST, FIRST] };
        let error = Store::open_current(&path, longer).unwrap_err().to_string();
        assert!(
            error.contains("has version 3; a daemon of this version upgrades it to version 4"),
            "{error}"
        );
        let error =
            Store::open_current(&folder.path().join("none.db"), all).unwrap_err().to_string();
        assert!(error.contains("has version 0;"), "{error}");
        let error = Store::open(&path, Schema { oldest: 4, ..SCHEMA }).unwrap_err().to_string();
        assert!(error.contains("is too old to be upgraded (it has version 3,"), "{error}");
    }

    /// A step that fails, for example on a full disk, leaves the file as it was.
    #[test]
    fn a_failed_upgrade_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        drop(Store::open(&path, SCHEMA).unwrap());
        const BROKEN: [&str; 2] = [FIRST, "DROP TABLE t; nonsense"];
        let broken = Schema { oldest: 1, steps: &BROKEN };
        let error = Store::open(&path, broken).unwrap_err().to_string();
        assert!(error.starts_with("cannot upgrade the file") && error.ends_with("to version 2"));
        let connection = Connection::open(&path).unwrap();
        assert_eq!(version(&connection).unwrap(), Some(1));
        connection.execute("INSERT INTO t VALUES (1)", []).unwrap();
        drop(Store::open(&path, SCHEMA).unwrap());
    }
}
