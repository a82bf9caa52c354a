//! What a bus delivered and nobody can use, kept with its reason.
//!
//! A file for each in `parked/` of the state directory, for a person to look at: nothing reads them again.
//! Owns their form and how much they may have together. Before it: a source that keeps a message until it
//! is acknowledged; after it: nothing.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use loopabull_queue::Backoff;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::observe::health::{Health, Part};

/// How many bytes all of them may have together. What comes beyond is refused and counted.
const MOST: u64 = 256 << 20;

/// Where what cannot be used is kept.
#[derive(Debug)]
pub(crate) struct Parked {
    folder: PathBuf,
    bytes: Mutex<u64>,
}

/// Something that cannot be used.
#[derive(Debug)]
pub(crate) struct Parking<'a> {
    pub reason: &'a str,
    pub topic: &'a str,
    pub id: Option<&'a str>,
    pub headers: &'a [(String, String)],
    pub content_encoding: Option<&'a str>,
    pub body: &'a [u8],
}

impl Parked {
    /// Opens the folder, and makes it if it is not there.
    ///
    /// # Errors
    ///
    /// If it cannot be made or read.
    pub(crate) fn open(state: &Path) -> io::Result<Self> {
        let folder = state.join("parked");
        fs::create_dir_all(&folder)?;
        let mut bytes = 0;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            // Of a daemon that died while it wrote; the message came again.
            if entry.path().extension().is_some_and(|ending| ending == "new") {
                fs::remove_file(entry.path())?;
                continue;
            }
            bytes += entry.metadata()?.len();
        }
        Ok(Self { folder, bytes: Mutex::new(bytes) })
    }

    /// Writes a file. Returns when it is on disk, or there is no room; false if it is told to stop
    /// before.
    pub(crate) async fn keep(
        self: &Arc<Self>,
        parking: &Parking<'_>,
        health: &Health,
        stop: &CancellationToken,
    ) -> bool {
        let mut backoff = Backoff::default();
        let text = parking.to_json().to_string();
        while !stop.is_cancelled() {
            let (parked, text) = (Arc::clone(self), text.clone());
            let written = tokio::task::spawn_blocking(move || parked.write(&text)).await;
            match written.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(Some(path)) => {
                    let (path, reason) = (path.display(), parking.reason);
                    tracing::warn!("a message that cannot be used is in `{path}`: {reason}");
                    health.resolve(&Part::Quarantine);
                    return true;
                }
                Ok(None) => {
                    health.report(Part::Quarantine, "no room for more that cannot be used");
                    tracing::error!("a message that cannot be used is lost: {}", parking.reason);
                    return true;
                }
                Err(error) => {
                    let folder = self.folder.display();
                    let problem = format!("cannot write to `{folder}`: {error}");
                    health.report(Part::Quarantine, problem);
                    backoff.pause(stop).await;
                }
            }
        }
        false
    }

    fn write(&self, text: &str) -> io::Result<Option<PathBuf>> {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let length = text.len() as u64;
        if *bytes + length > MOST {
            return Ok(None);
        }
        let name = uuid::Uuid::new_v4().simple().to_string();
        let path = self.folder.join(format!("{name}.json"));
        let beside = self.folder.join(format!("{name}.new"));
        let written = self.write_file(&beside, &path, text);
        match written {
            Ok(()) => *bytes += length,
            // It is tried again, under another name.
            Err(_) => drop((fs::remove_file(&beside), fs::remove_file(&path))),
        }
        written.map(|()| Some(path))
    }

    fn write_file(&self, beside: &Path, path: &Path, text: &str) -> io::Result<()> {
        let mut file = File::create(beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(beside, path)?;
        File::open(&self.folder)?.sync_all()
    }
}

impl Parking<'_> {
    /// A body that is no text is written in hexadecimal digits.
    fn to_json(&self) -> Value {
        let headers: serde_json::Map<String, Value> =
            self.headers.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        let (key, body) = match str::from_utf8(self.body) {
            Ok(text) => ("body", text.to_owned()),
            Err(_) => ("body_hex", to_hex(self.body)),
        };
        let mut object = json!({
            "reason": self.reason,
            "parked_at": jiff::Timestamp::now().to_string(),
            "topic": self.topic,
            "id": self.id,
            "headers": headers,
            "content_encoding": self.content_encoding,
        });
        object[key] = body.into();
        object
    }
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_parked_is_a_file_with_all_that_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let parked = Arc::new(Parked::open(folder.path()).unwrap());
        let headers = [("sent-at".to_owned(), "x".to_owned())];
        let mut parking = Parking {
            reason: "no JSON",
            topic: "a.b",
            id: None,
            headers: &headers,
            content_encoding: Some("hex"),
            body: b"text",
        };
        let (health, stop) = (Health::default(), CancellationToken::new());
        assert!(parked.keep(&parking, &health, &stop).await);
        parking.body = b"\xff\x00";
        assert!(parked.keep(&parking, &health, &stop).await);
        let files = fs::read_dir(folder.path().join("parked")).unwrap();
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
        // What it has after a restart counts.
        assert!(*Parked::open(folder.path()).unwrap().bytes.lock().unwrap() > 100);
    }
}
