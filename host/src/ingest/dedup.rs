//! Deduplication ensures that each task receives a message only once within a window of time.
//!
//! A message can arrive again from a second endpoint, over a bridge between two buses, after a
//! reconnect, or from the archive. This module remembers recent messages in a file and in memory.
//! It stores one key for each pair of a message and a task. The ingest path claims the key before
//! it publishes the entry, and records the key afterwards.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::time::Duration;

use loopabull_model::{MessageId, TaskName};
use loopabull_store::{Schema, Store, StoreError};
use parking_lot::Mutex;
use rusqlite::params;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::clock;
use crate::config;

const SCHEMA: Schema = Schema { oldest: 1, steps: &[TABLES] };

const TABLES: &str = "
    CREATE TABLE recorded (
        key BLOB PRIMARY KEY,
        at INTEGER NOT NULL  -- seconds since 1970
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX by_age ON recorded (at);";
/// Number of new keys after which expired keys are deleted from the file.
const SWEEP_INTERVAL: usize = 1000;

/// Hash of a message id and a task name.
type Key = [u8; 16];

/// The messages that each task received recently.
#[derive(Debug)]
pub(super) struct Dedup {
    store: Store,
    window: Duration,
    max_keys: usize,
    state: Mutex<State>,
    released: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Time at which each key was recorded, in seconds since 1970.
    recorded: HashMap<Key, i64>,
    /// Recorded keys with their times, oldest first.
    order: VecDeque<(i64, Key)>,
    /// Keys whose entries are being published.
    claimed: HashMap<Key, Custody>,
    since_sweep: usize,
}

/// The holder of a copy of a message until its entries are stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Custody {
    /// The source of the message: a bus until the message is acknowledged, or an archive.
    Source,
    /// Nobody. The source does not send the message again.
    Nobody,
}

/// The result of a claim.
pub(super) enum Claimed<'a> {
    /// The task has not received the message. Until this claim is dropped, other claims for the
    /// same key wait or get [`Claimed::Duplicate`].
    New(Claim<'a>),
    /// The task has already received the message, or a copy that its source keeps is being
    /// published.
    Duplicate,
}

/// The exclusive right to publish a message for a task. Dropping the claim releases its key.
pub(super) struct Claim<'a> {
    dedup: &'a Dedup,
    key: Key,
}

impl Dedup {
    /// Opens the file, and reads the keys in the window.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened or read.
    pub(super) async fn open(
        path: &Path,
        config: &config::Deduplication,
    ) -> Result<Self, StoreError> {
        let store = Store::open(path, SCHEMA)?;
        let oldest = oldest(config.window);
        let max_keys = config.messages;
        let rows: Vec<(Vec<u8>, i64)> = store
            .read(move |connection| {
                let sql = "SELECT key, at FROM recorded WHERE at >= ?1 ORDER BY at DESC LIMIT ?2";
                let mut statement = connection.prepare(sql)?;
                let rows = statement
                    .query_map(params![oldest, max_keys], |row| Ok((row.get(0)?, row.get(1)?)))?;
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
        Ok(Self { store, window, max_keys, state, released: Notify::new() })
    }

    /// Claims a message for a task. Waits while another copy of the message is claimed for the same
    /// task.
    ///
    /// A caller with claims of its own must not wait for them: see [`Dedup::try_claim`].
    ///
    /// A copy with [`Custody::Nobody`] does not wait for a copy with [`Custody::Source`], because
    /// the queue may be unavailable for a long time. The source keeps its copy until that copy is
    /// published, so the other copy is a duplicate.
    pub(super) async fn claim(
        &self,
        message: &MessageId,
        task: &TaskName,
        custody: Custody,
    ) -> Claimed<'_> {
        let key = key(message, task);
        loop {
            let released = self.released.notified();
            tokio::pin!(released);
            // The waiter is registered before the state is read, so that it misses no release.
            released.as_mut().enable();
            if let Some(claimed) = self.try_claim_key(key, custody) {
                return claimed;
            }
            released.await;
        }
    }

    /// Claims a message for a task. Returns `None` where [`Dedup::claim`] waits.
    pub(super) fn try_claim(
        &self,
        message: &MessageId,
        task: &TaskName,
        custody: Custody,
    ) -> Option<Claimed<'_>> {
        self.try_claim_key(key(message, task), custody)
    }

    fn try_claim_key(&self, key: Key, custody: Custody) -> Option<Claimed<'_>> {
        let mut state = self.state.lock();
        state.expire(oldest(self.window), self.max_keys);
        if !self.window.is_zero() && state.recorded.contains_key(&key) {
            return Some(Claimed::Duplicate);
        }
        match state.claimed.get(&key) {
            None => {
                state.claimed.insert(key, custody);
                Some(Claimed::New(Claim { dedup: self, key }))
            }
            Some(Custody::Source) if custody == Custody::Nobody => Some(Claimed::Duplicate),
            Some(_) => None,
        }
    }

    /// Records that the tasks received the messages of these claims. Returns once the record is on disk.
    ///
    /// # Errors
    ///
    /// If the file cannot be written. The keys are then remembered only in memory.
    pub(super) async fn record(&self, claims: Vec<Claim<'_>>) -> Result<(), StoreError> {
        if self.window.is_zero() || claims.is_empty() {
            return Ok(());
        }
        let at = clock::now_seconds();
        let keys: Vec<Key> = claims.iter().map(|claim| claim.key).collect();
        let sweep = {
            let mut state = self.state.lock();
            keys.iter().for_each(|key| state.insert(*key, at));
            state.since_sweep += keys.len();
            let is_due = state.since_sweep >= SWEEP_INTERVAL;
            if is_due {
                state.since_sweep = 0;
            }
            is_due.then(|| state.order.front().map_or(at, |(oldest, _)| *oldest))
        };
        let change = move |connection: &rusqlite::Connection| {
            let insert = "INSERT OR REPLACE INTO recorded (key, at) VALUES (?1, ?2)";
            let mut insert = connection.prepare_cached(insert)?;
            for key in keys {
                insert.execute(params![key.as_slice(), at])?;
            }
            if let Some(oldest) = sweep {
                connection.execute("DELETE FROM recorded WHERE at < ?1", [oldest])?;
            }
            Ok(())
        };
        self.store.change(change).await
    }
}

impl State {
    fn insert(&mut self, key: Key, at: i64) {
        if self.recorded.insert(key, at).is_none() {
            self.order.push_back((at, key));
        }
    }

    /// Removes keys that are older than `oldest`, and the oldest keys beyond `max_keys`.
    fn expire(&mut self, oldest: i64, max_keys: usize) {
        while let Some((at, key)) = self.order.front()
            && (*at < oldest || self.order.len() > max_keys)
        {
            self.recorded.remove(key);
            self.order.pop_front();
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.dedup.state.lock().claimed.remove(&self.key);
        self.dedup.released.notify_waiters();
    }
}

/// Returns the beginning of the window, in seconds since 1970.
fn oldest(window: Duration) -> i64 {
    clock::now_seconds().saturating_sub(clock::whole_seconds(window))
}

fn key(message: &MessageId, task: &TaskName) -> Key {
    let mut digest = Sha256::new();
    digest.update(without_year(message.as_str()));
    digest.update([0]);
    digest.update(task.as_str());
    *digest.finalize().first_chunk().expect("a SHA-256 digest has 32 bytes")
}

/// Removes the year at the beginning of a fedmsg message id. On the fedora-messaging bus, the same
/// message has the id without the year (fedmsg-migration-tools, `verify_missing.py`).
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

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> MessageId {
        text.try_into().unwrap()
    }

    fn task(name: &str) -> TaskName {
        name.try_into().unwrap()
    }

    async fn open(folder: &tempfile::TempDir, window: u64, messages: usize) -> Dedup {
        let config = config::Deduplication { window: Duration::from_secs(window), messages };
        Dedup::open(&folder.path().join("dedup.db"), &config).await.unwrap()
    }

    /// Claims a message and records it if it is new. Returns whether it was new.
    async fn is_new(dedup: &Dedup, message: &str, name: &str) -> bool {
        match dedup.claim(&id(message), &task(name), Custody::Nobody).await {
            Claimed::New(claim) => dedup.record(vec![claim]).await.is_ok(),
            Claimed::Duplicate => false,
        }
    }

    #[tokio::test]
    async fn a_recorded_message_is_a_duplicate_with_any_year_and_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let dedup = open(&folder, 3600, 10).await;
        assert!(is_new(&dedup, "2017-a9ca", "a").await);
        assert!(is_new(&dedup, "a9ca", "b").await);
        for known in ["2017-a9ca", "a9ca", "2018-a9ca"] {
            assert!(!is_new(&dedup, known, "a").await, "{known}");
        }
        drop(dedup);
        let dedup = open(&folder, 3600, 10).await;
        assert!(!is_new(&dedup, "a9ca", "a").await);
        assert!(is_new(&dedup, "17-a9ca", "a").await);
    }

    #[tokio::test]
    async fn keys_beyond_the_limit_and_outside_the_window_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let dedup = open(&folder, 3600, 2).await;
        for message in ["1", "2", "3", "4"] {
            assert!(is_new(&dedup, message, "a").await);
        }
        assert!(!is_new(&dedup, "4", "a").await && is_new(&dedup, "1", "a").await);
        drop(dedup);
        let file = rusqlite::Connection::open(folder.path().join("dedup.db")).unwrap();
        file.execute("UPDATE recorded SET at = at - 3601", []).unwrap();
        let dedup = open(&folder, 3600, 10).await;
        assert!(is_new(&dedup, "4", "a").await, "a message outside the window is not a duplicate");
    }

    #[tokio::test]
    async fn a_key_expires_while_the_daemon_runs() {
        let folder = tempfile::tempdir().unwrap();
        let dedup = open(&folder, 3600, 10).await;
        assert!(is_new(&dedup, "1", "a").await && !is_new(&dedup, "1", "a").await);
        {
            let mut state = dedup.state.lock();
            state.recorded.values_mut().for_each(|at| *at -= 3601);
            state.order.iter_mut().for_each(|(at, _)| *at -= 3601);
        }
        assert!(is_new(&dedup, "1", "a").await);
    }

    #[tokio::test]
    async fn a_window_of_zero_turns_deduplication_off() {
        let folder = tempfile::tempdir().unwrap();
        let dedup = open(&folder, 0, 10).await;
        assert!(is_new(&dedup, "1", "a").await && is_new(&dedup, "1", "a").await);
    }

    #[tokio::test]
    async fn a_released_claim_goes_to_the_next_claimant() {
        let folder = tempfile::tempdir().unwrap();
        let dedup = open(&folder, 3600, 10).await;
        let Claimed::New(first) = dedup.claim(&id("1"), &task("a"), Custody::Nobody).await else {
            panic!("the first claim is new")
        };
        let second = async {
            let claimed = dedup.claim(&id("1"), &task("a"), Custody::Nobody).await;
            assert!(matches!(claimed, Claimed::New(_)));
        };
        tokio::join!(second, async {
            tokio::task::yield_now().await;
            drop(first);
        });
    }

    #[tokio::test]
    async fn a_message_that_nobody_keeps_does_not_wait_for_one_that_its_source_keeps() {
        let folder = tempfile::tempdir().unwrap();
        let dedup = open(&folder, 3600, 10).await;
        let kept = dedup.claim(&id("1"), &task("a"), Custody::Source).await;
        let other = dedup.claim(&id("1"), &task("a"), Custody::Nobody).await;
        assert!(matches!((&kept, &other), (Claimed::New(_), Claimed::Duplicate)));
        drop(kept);
        let other = dedup.claim(&id("1"), &task("a"), Custody::Nobody).await;
        assert!(matches!(other, Claimed::New(_)));
    }
}
