//! The writer thread: groups changes, commits them, and answers their callers.

use std::collections::VecDeque;
use std::sync::mpsc;

use rusqlite::{Connection, Transaction, TransactionBehavior};

/// Maximum number of changes in one commit.
const MAX_GROUP: usize = 256;

/// The event that a change must survive: the end of this process, or that of the machine.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Survives {
    Process,
    Machine,
}

/// A change that waits for the writer thread.
pub(crate) struct Change {
    pub(crate) survives: Survives,
    pub(crate) run: Run,
}

/// The thread calls this in a transaction, and keeps the answer until the commit. If the transaction cannot begin, the
/// argument is `None`: the change does not run, and its caller gets the error.
pub(crate) type Run = Box<dyn FnOnce(Option<&Connection>) -> Answer + Send>;
/// Sends the result of a change to the caller. The argument is the result of the commit.
pub(crate) type Answer = Box<dyn FnOnce(Result<(), String>) + Send>;

/// Runs changes until all senders are gone.
pub(crate) fn run(mut connection: Connection, waiting: mpsc::Receiver<Change>) {
    let mut synced = Survives::Machine;
    let mut group = VecDeque::with_capacity(MAX_GROUP);
    while let Ok(first) = waiting.recv() {
        group.push_back(first);
        group.extend(waiting.try_iter().take(MAX_GROUP - 1));
        while !group.is_empty() {
            commit(&mut connection, &mut synced, &mut group);
        }
    }
}

/// Runs changes in one transaction, commits it, and answers their callers. The commit is synced if one of them needs
/// it. `current` is how the connection syncs now.
fn commit(connection: &mut Connection, current: &mut Survives, group: &mut VecDeque<Change>) {
    let survives = group.iter().map(|change| change.survives).max().unwrap_or(*current);
    let mut answers: Vec<Answer> = Vec::with_capacity(group.len());
    let committed = match begin(connection, current, survives) {
        Ok(transaction) => {
            // If the disk is full, SQLite rolls the transaction back by itself. A later change would then run
            // without a transaction and be committed at once, although its caller gets an error. So the group ends
            // there.
            while (answers.is_empty() || !transaction.is_autocommit())
                && let Some(change) = group.pop_front()
            {
                answers.push((change.run)(Some(&transaction)));
            }
            transaction.commit().map_err(|error| error.to_string())
        }
        Err(error) => {
            answers.extend(group.pop_front().map(|change| (change.run)(None)));
            Err(error.to_string())
        }
    };
    for answer in answers {
        answer(committed.clone());
    }
}

/// Begins a transaction whose commit is synced or not.
fn begin<'a>(
    connection: &'a mut Connection,
    current: &mut Survives,
    survives: Survives,
) -> rusqlite::Result<Transaction<'a>> {
    if *current != survives {
        let level = match survives {
            Survives::Process => "NORMAL",
            Survives::Machine => "FULL",
        };
        connection.pragma_update(None, "synchronous", level)?;
        *current = survives;
    }
    // IMMEDIATE takes the write lock at the start. Otherwise a change could read data that another process changes
    // before the write.
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// Runs a change so that it can be undone without the other changes of its transaction.
pub(crate) fn in_savepoint<T>(
    connection: &Connection,
    change: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    // Without the cache, SQLite would parse these statements for each change.
    let execute = |sql: &str| connection.prepare_cached(sql)?.execute([]);
    execute("SAVEPOINT change")?;
    let result = change(connection);
    if result.is_err() {
        execute("ROLLBACK TO change")?;
    }
    execute("RELEASE change")?;
    result
}
