//! The quarantine stores unusable messages. Each message is in a file of its own, with the reason.
//!
//! The files are in `quarantine/` in the state directory. An operator can inspect them; the daemon
//! does not read them again. Two kinds of messages are quarantined: deliveries that a source cannot
//! parse, and entries that their queue rejects permanently. The total size of the files is limited.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use loopabull_queue::Backoff;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::observe::health::{Health, Part};

/// Maximum total size of the files, in bytes.
const MAX_BYTES: u64 = 256 << 20;
/// Extension of a file that is not completely written.
const PARTIAL: &str = "new";

/// The directory of unusable messages.
#[derive(Clone, Debug)]
pub(super) struct Quarantine(Arc<Folder>);

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    max_bytes: u64,
    bytes: Mutex<u64>,
}

/// An unusable message, and the reason.
#[derive(Debug)]
pub(super) struct Unusable<'a> {
    pub reason: &'a str,
    pub topic: &'a str,
    pub id: Option<&'a str>,
    pub headers: &'a [(String, String)],
    pub content_encoding: Option<&'a str>,
    pub body: &'a [u8],
}

/// The result of quarantining a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub(super) enum Quarantined {
    /// The message is on disk.
    Stored,
    /// The quarantine is full, so the message is not stored.
    Full,
}

/// The daemon stops before a message is stored. The source of the message must not acknowledge it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the daemon stops before the message is stored")]
pub(super) struct Stopping;

impl Quarantine {
    /// Opens the quarantine in a state directory. Creates its directory if it is missing.
    ///
    /// # Errors
    ///
    /// If the directory cannot be created or read.
    pub(super) fn open(state: &Path) -> io::Result<Self> {
        Self::with_limit(state, MAX_BYTES)
    }

    /// Opens the quarantine with another limit for the total size, in bytes.
    pub(super) fn with_limit(state: &Path, max_bytes: u64) -> io::Result<Self> {
        let path = state.join("quarantine");
        fs::create_dir_all(&path)?;
        let mut bytes = 0;
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            // A daemon died while it wrote this file. The message does not count as stored, so the
            // file is removed.
            if entry.path().extension().is_some_and(|ending| ending == PARTIAL) {
                fs::remove_file(entry.path())?;
                continue;
            }
            bytes += entry.metadata()?.len();
        }
        Ok(Self(Arc::new(Folder { path, max_bytes, bytes: Mutex::new(bytes) })))
    }

    /// Writes a message to a file. Returns once the file is on disk, or if the quarantine is full.
    /// Retries failed writes with back-off.
    ///
    /// # Errors
    ///
    /// If `stop` is cancelled before a write succeeds. At least one attempt is made.
    pub(super) async fn store(
        &self,
        message: &Unusable<'_>,
        health: &Health,
        stop: &CancellationToken,
    ) -> Result<Quarantined, Stopping> {
        let mut backoff = Backoff::default();
        let text: Arc<str> = message.to_json().to_string().into();
        loop {
            let (folder, text) = (Arc::clone(&self.0), Arc::clone(&text));
            let written = tokio::task::spawn_blocking(move || folder.write(&text)).await;
            match written.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(Some(path)) => {
                    let (path, reason) = (path.display(), message.reason);
                    tracing::warn!("quarantined a message in `{path}`: {reason}");
                    health.resolve(&Part::Quarantine);
                    return Ok(Quarantined::Stored);
                }
                Ok(None) => {
                    let folder = self.0.path.display();
                    health.report(Part::Quarantine, format_args!("`{folder}` is full"));
                    return Ok(Quarantined::Full);
                }
                Err(error) => {
                    let folder = self.0.path.display();
                    health.report(
                        Part::Quarantine,
                        format_args!("cannot write to `{folder}`: {error}"),
                    );
                }
            }
            if stop.is_cancelled() {
                return Err(Stopping);
            }
            backoff.pause(stop).await;
        }
    }
}

impl Folder {
    /// Writes a file. Returns the path of the file, or none if the quarantine is full.
    fn write(&self, text: &str) -> io::Result<Option<PathBuf>> {
        let mut bytes = self.bytes.lock();
        let length = text.len() as u64;
        if *bytes + length > self.max_bytes {
            return Ok(None);
        }
        let name = uuid::Uuid::new_v4().simple().to_string();
        let path = self.path.join(format!("{name}.json"));
        self.write_file(&path, text).inspect_err(|_| {
            // The file may already have its final name. It is removed, because the next attempt
            // uses another name.
            drop(fs::remove_file(&path));
        })?;
        *bytes += length;
        Ok(Some(path))
    }

    fn write_file(&self, path: &Path, text: &str) -> io::Result<()> {
        let ending = format!(".{PARTIAL}");
        let mut file = tempfile::Builder::new().suffix(&ending).tempfile_in(&self.path)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(&self.path)?.sync_all()
    }
}

impl Unusable<'_> {
    /// Returns the content of the file. A body that is not UTF-8 is written in hexadecimal.
    fn to_json(&self) -> Value {
        let headers: serde_json::Map<String, Value> =
            self.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        let (key, body) = match str::from_utf8(self.body) {
            Ok(text) => ("body", text.to_owned()),
            Err(_) => ("body_hex", hex::encode(self.body)),
        };
        let mut object = json!({
            "reason": self.reason,
            "quarantined_at": jiff::Timestamp::now().to_string(),
            "topic": self.topic,
            "id": self.id,
            "headers": headers,
            "content_encoding": self.content_encoding,
        });
        object[key] = body.into();
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNUSABLE: Unusable<'static> = Unusable {
        reason: "no JSON",
        topic: "a.b",
        id: None,
        headers: &[],
        content_encoding: Some("hex"),
        body: b"text",
    };

    #[tokio::test]
    async fn a_quarantined_message_is_a_file_with_all_its_properties() {
        let folder = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::open(folder.path()).unwrap();
        let headers = [("sent-at".to_owned(), "x".to_owned())];
        let (health, stop) = (Health::default(), CancellationToken::new());
        for body in [&b"text"[..], b"\xff\x00"] {
            let message = Unusable { headers: &headers, body, ..UNUSABLE };
            let stored = quarantine.store(&message, &health, &stop).await;
            assert_eq!(stored, Ok(Quarantined::Stored));
        }
        let files = fs::read_dir(folder.path().join("quarantine")).unwrap();
        let mut bodies: Vec<String> = files
            .map(|file| {
                let text = fs::read_to_string(file.unwrap().path()).unwrap();
                let value: Value = serde_json::from_str(&text).unwrap();
                assert_eq!((&value["topic"], &value["reason"]), (&"a.b".into(), &"no JSON".into()));
                assert_eq!(value["headers"]["sent-at"], "x");
                format!("{} {}", value["body"], value["body_hex"])
            })
            .collect();
        bodies.sort();
        assert_eq!(bodies, ["\"text\" null", "null \"ff00\""]);
    }

    #[tokio::test]
    async fn files_of_an_earlier_daemon_count_and_incomplete_ones_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let files = folder.path().join("quarantine");
        let (health, stop) = (Health::default(), CancellationToken::new());
        let quarantine = Quarantine::with_limit(folder.path(), 1000).unwrap();
        assert_eq!(quarantine.store(&UNUSABLE, &health, &stop).await, Ok(Quarantined::Stored));
        fs::write(files.join("x.new"), vec![b'x'; 2000]).unwrap();
        let large = Unusable { body: &[b'x'; 900], ..UNUSABLE };
        let quarantine = Quarantine::with_limit(folder.path(), 1100).unwrap();
        assert_eq!(fs::read_dir(&files).unwrap().count(), 1);
        assert_eq!(quarantine.store(&large, &health, &stop).await, Ok(Quarantined::Full));
        assert_eq!(fs::read_dir(&files).unwrap().count(), 1);
        assert!(health.problems()[0].contains("is full"), "{:?}", health.problems());
    }

    #[tokio::test]
    async fn a_disk_that_fails_until_the_daemon_stops_leaves_the_message_to_its_source() {
        let folder = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::open(folder.path()).unwrap();
        fs::remove_dir(folder.path().join("quarantine")).unwrap();
        let (health, stop) = (Health::default(), CancellationToken::new());
        stop.cancel();
        assert_eq!(quarantine.store(&UNUSABLE, &health, &stop).await, Err(Stopping));
        assert!(health.problems()[0].contains("cannot write to"), "{:?}", health.problems());
    }
}
