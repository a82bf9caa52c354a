//! Which messages each task was given lately, so that one that comes twice is run once.
//!
//! A message comes twice from two endpoints, from a bridge between two buses, from a reconnect or from
//! what is asked for after one. Owns the window in which it is recognised: a file, and the same in
//! memory. Before it: ingest, which asks before it publishes and notes when it has; after it: nothing.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use loopabull_model::{MessageId, TaskName};
use loopabull_store::{Store, StoreError};
use rusqlite::params;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::config;

const VERSION: i32 = 1;
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS seen (key BLOB PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS by_age ON seen (at);";
/// After how many new ones old ones are removed from the file.
const SWEEP: usize = 1000;

/// A message and a task.
type Key = [u8; 16];

/// Knows what was seen.
#[derive(Debug)]
pub(crate) struct Seen {
    store: Store,
    window: Duration,
    most: usize,
    state: Mutex<State>,
    settled: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// When each was seen, in seconds since 1970.
    at: HashMap<Key, i64>,
    /// The same in their order, so that the oldest are found.
    order: VecDeque<(i64, Key)>,
    /// What is being published just now, and who has it until then.
    under_way: HashMap<Key, Keeper>,
    since_sweep: usize,
}

/// Who has a message until it is in the queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Keeper {
    /// Its source: a bus until it is acknowledged, or an archive.
    Source,
    /// Nobody: it is not sent again.
    Nobody,
}

/// What was found.
pub(crate) enum Found<'a> {
    /// It is new; others that come with the same wait until this is settled.
    New(Claim<'a>),
    /// The task was given it.
    Twice,
}

/// The right to publish a message for a task.
pub(crate) struct Claim<'a> {
    seen: &'a Seen,
    key: Key,
}

impl Seen {
    /// Opens the file.
    ///
    /// # Errors
    ///
    /// If it cannot be opened or read.
    pub(crate) async fn open(
        path: &Path,
        config: &config::Deduplication,
    ) -> Result<Self, StoreError> {
        let store = Store::open(path, SCHEMA, VERSION)?;
        let oldest = now() - seconds(config.window);
        let most = config.messages;
        let rows: Vec<(Vec<u8>, i64)> = store
            .read(move |connection| {
                let sql = "SELECT key, at FROM seen WHERE at >= ?1 ORDER BY at DESC LIMIT ?2";
                let mut statement = connection.prepare(sql)?;
                let rows = statement
                    .query_map(params![oldest, most], |row| Ok((row.get(0)?, row.get(1)?)))?;
                rows.collect()
            })
            .await?;
        let mut state = State::default();
        for (key, at) in rows.into_iter().rev() {
            if let Ok(key) = Key::try_from(key) {
                state.insert(key, at);
            }
        }
        let (window, state) = (config.window, Mutex::new(state));
        Ok(Self { store, window, most, state, settled: Notify::new() })
    }

    /// Asks for a message and a task. Waits while another asks for the same and has not settled it; but
    /// what nobody keeps does not wait for what is kept: that may take as long as the queue is away.
    pub(crate) async fn claim(
        &self,
        message: &MessageId,
        task: &TaskName,
        keeper: Keeper,
    ) -> Found<'_> {
        let key = key(message, task);
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            // Before we look, so that nothing is missed.
            settled.as_mut().enable();
            {
                let mut state = self.state();
                state.forget(now() - seconds(self.window), self.most);
                if !self.window.is_zero() && state.at.contains_key(&key) {
                    return Found::Twice;
                }
                match state.under_way.get(&key) {
                    None => {
                        state.under_way.insert(key, keeper);
                        return Found::New(Claim { seen: self, key });
                    }
                    Some(Keeper::Source) if keeper == Keeper::Nobody => return Found::Twice,
                    Some(_) => (),
                }
            }
            settled.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn insert(&mut self, key: Key, at: i64) {
        if self.at.insert(key, at).is_none() {
            self.order.push_back((at, key));
        }
    }

    /// Forgets what is older, and the oldest of too many.
    fn forget(&mut self, oldest: i64, most: usize) {
        while let Some((at, key)) = self.order.front()
            && (*at < oldest || self.order.len() > most)
        {
            self.at.remove(key);
            self.order.pop_front();
        }
    }
}

impl Claim<'_> {
    /// Notes that the task was given the message. Returns when that is on disk.
    ///
    /// # Errors
    ///
    /// If it cannot be written: it is known until the daemon ends.
    pub(crate) async fn note(self) -> Result<(), StoreError> {
        if self.seen.window.is_zero() {
            return Ok(());
        }
        let (at, key) = (now(), self.key);
        let sweep = {
            let mut state = self.seen.state();
            state.insert(key, at);
            state.since_sweep += 1;
            let is_due = state.since_sweep >= SWEEP;
            if is_due {
                state.since_sweep = 0;
            }
            is_due.then(|| state.order.front().map_or(at, |(oldest, _)| *oldest))
        };
        let change = move |connection: &rusqlite::Connection| {
            let insert = "INSERT OR REPLACE INTO seen (key, at) VALUES (?1, ?2)";
            connection.prepare_cached(insert)?.execute(params![key.as_slice(), at])?;
            if let Some(oldest) = sweep {
                connection.execute("DELETE FROM seen WHERE at < ?1", [oldest])?;
            }
            Ok(())
        };
        self.seen.store.change(change).await
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.seen.state().under_way.remove(&self.key);
        self.seen.settled.notify_waiters();
    }
}

/// The year with which fedmsg began its ids is not there on the other bus, for the same message
/// (fedmsg-migration-tools, `verify_missing.py`).
fn without_year(id: &str) -> &str {
    match id.split_at_checked(5) {
        Some((year, rest))
            if year.ends_with('-') && year[..4].bytes().all(|b| b.is_ascii_digit()) =>
        {
            rest
        }
        _ => id,
    }
}

fn key(message: &MessageId, task: &TaskName) -> Key {
    let mut digest = Sha256::new();
    digest.update(without_year(message.as_str()));
    digest.update([0]);
    digest.update(task.as_str());
    *digest.finalize().first_chunk().expect("a digest has 32 bytes")
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX / 2)
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> MessageId {
        text.try_into().unwrap()
    }

    fn task(name: &str) -> TaskName {
        name.try_into().unwrap()
    }

    async fn open(folder: &tempfile::TempDir, window: u64, messages: usize) -> Seen {
        let config = config::Deduplication { window: Duration::from_secs(window), messages };
        Seen::open(&folder.path().join("seen.db"), &config).await.unwrap()
    }

    /// Asks, and notes it if it is new. Tells whether it was.
    async fn is_new(seen: &Seen, message: &str, name: &str) -> bool {
        match seen.claim(&id(message), &task(name), Keeper::Nobody).await {
            Found::New(claim) => claim.note().await.is_ok(),
            Found::Twice => false,
        }
    }

    #[tokio::test]
    async fn what_was_noted_is_found_whatever_its_year_and_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let seen = open(&folder, 3600, 10).await;
        assert!(is_new(&seen, "2017-a9ca", "a").await);
        assert!(is_new(&seen, "a9ca", "b").await);
        for known in ["2017-a9ca", "a9ca", "2018-a9ca"] {
            assert!(!is_new(&seen, known, "a").await, "{known}");
        }
        drop(seen);
        let seen = open(&folder, 3600, 10).await;
        assert!(!is_new(&seen, "a9ca", "a").await);
        assert!(is_new(&seen, "17-a9ca", "a").await);
    }

    #[tokio::test]
    async fn the_oldest_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let seen = open(&folder, 3600, 2).await;
        for message in ["1", "2", "3", "4"] {
            assert!(is_new(&seen, message, "a").await);
        }
        assert!(!is_new(&seen, "4", "a").await && is_new(&seen, "1", "a").await);
        let seen = open(&folder, 0, 10).await;
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert!(is_new(&seen, "4", "a").await, "the window is over");
    }

    #[tokio::test]
    async fn what_was_claimed_and_not_noted_can_be_claimed_by_who_waits() {
        let folder = tempfile::tempdir().unwrap();
        let seen = open(&folder, 3600, 10).await;
        let Found::New(first) = seen.claim(&id("1"), &task("a"), Keeper::Nobody).await else {
            panic!("it is new")
        };
        let second = async {
            let found = seen.claim(&id("1"), &task("a"), Keeper::Nobody).await;
            assert!(matches!(found, Found::New(_)));
        };
        tokio::join!(second, async {
            tokio::task::yield_now().await;
            drop(first);
        });
    }

    #[tokio::test]
    async fn what_nobody_keeps_does_not_wait_for_what_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let seen = open(&folder, 3600, 10).await;
        let kept = seen.claim(&id("1"), &task("a"), Keeper::Source).await;
        let other = seen.claim(&id("1"), &task("a"), Keeper::Nobody).await;
        assert!(matches!((&kept, &other), (Found::New(_), Found::Twice)));
        drop(kept);
        let other = seen.claim(&id("1"), &task("a"), Keeper::Nobody).await;
        assert!(matches!(other, Found::New(_)));
    }
}
