//! The fixture of these tests: a Python process with the original fedmsg, a folder of keys, and functions
//! that pass a message to both verifiers.
#![expect(clippy::disallowed_methods, reason = "tests start the original")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use loopabull_fedmsg::{Envelope, Rejection, RoutingPolicy, Trust, TrustError, Verifier, X509};
use loopabull_model::Message;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

const TOPIC: &str = "org.example.prod.thing.done";
/// The timeout for starting Python and for one answer. One minute is enough on two busy cores.
const LIMIT: Duration = Duration::from_secs(60);

/// The Python fedmsg in a process of its own.
pub(crate) struct Original {
    pipe: Mutex<Pipe>,
    folder: PathBuf,
    log: NamedTempFile,
}

struct Pipe {
    process: Child,
    answers: Receiver<String>,
}

/// Returns the Python fedmsg process. Tests that run at the same time in one program share the process.
pub(crate) fn original() -> Arc<Original> {
    static SHARED: Mutex<Weak<Original>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(original) = shared.upgrade() {
        return original;
    }
    let original = Arc::new(Original::start());
    *shared = Arc::downgrade(&original);
    original
}

/// Returns the folder of keys, certificates and CRLs. The folder is made once for all tests of a run.
/// Otherwise each test would make its own, because nextest starts a process for each test, and making keys
/// takes longer than most tests.
fn authority(python: &Path, scripts: &Path) -> PathBuf {
    let run = std::env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        format!("{}-{}", std::process::id(), now.as_nanos())
    });
    let folders = Path::new(env!("CARGO_TARGET_TMPDIR")).join("authorities");
    fs::create_dir_all(&folders).unwrap();
    let lock = File::create(folders.join("lock")).unwrap();
    lock.lock().unwrap();
    let folder = folders.join(&run);
    if !folder.exists() {
        for old in fs::read_dir(&folders).unwrap().map(Result::unwrap) {
            let age = old.metadata().unwrap().modified().unwrap().elapsed().unwrap_or_default();
            if age > Duration::from_hours(1) && old.path().is_dir() {
                fs::remove_dir_all(old.path()).unwrap();
            }
        }
        let new = tempfile::tempdir_in(&folders).unwrap();
        let made = Command::new(python).arg(scripts.join("authority.py")).arg(new.path()).output();
        let made = made.unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        fs::rename(new.keep(), &folder).unwrap();
    }
    folder
}

impl Original {
    pub(crate) fn start() -> Self {
        let scripts = loopabull_testbed::repository().join("host/crates/fedmsg/tests/original");
        let python = loopabull_testbed::python();
        let folder = authority(&python, &scripts);
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut process = Command::new(&python)
            .arg(scripts.join("original.py"))
            .arg(&folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        let stdout = process.stdout.take().unwrap();
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let original = Self { pipe: Mutex::new(Pipe { process, answers }), folder, log };
        let pipe = original.pipe.lock().unwrap();
        assert_eq!(original.answer(&pipe), "ready");
        drop(pipe);
        original
    }

    /// Sends a question to the Python fedmsg and returns its answer.
    pub(crate) fn ask(&self, question: Value) -> Value {
        let mut pipe = self.pipe.lock().unwrap_or_else(PoisonError::into_inner);
        let stdin = pipe.process.stdin.as_mut().unwrap();
        if writeln!(stdin, "{question}").is_err() {
            panic!("the Python fedmsg has ended; its log:\n{}", self.log());
        }
        self.answer(&pipe)
    }

    fn answer(&self, pipe: &Pipe) -> Value {
        match pipe.answers.recv_timeout(LIMIT) {
            Ok(line) => serde_json::from_str(&line).unwrap(),
            Err(error) => {
                panic!("the Python fedmsg gave no answer ({error}); its log:\n{}", self.log())
            }
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    pub(crate) fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.folder.join(file)).unwrap()
    }

    /// Signs a body with the Python fedmsg, and returns the signed body as JSON.
    pub(crate) fn sign(&self, text: &str, name: &str) -> String {
        text_of(self.ask(json!({"do": "sign", "text": text, "name": name})))
    }

    /// Returns a certificate as it is written in a body.
    pub(crate) fn field(&self, name: &str) -> String {
        text_of(self.ask(json!({"do": "field", "name": format!("{name}.crt")})))
    }

    /// Returns the verdict of the Python fedmsg on a body: `accepted`, `refused`, or the name of an
    /// exception.
    pub(crate) fn verdict(&self, text: &str, ca: &str, crl: Option<&str>) -> String {
        text_of(self.ask(json!({"do": "validate", "text": text, "ca": ca, "crl": crl})))
    }

    pub(crate) fn trust(&self, ca: &str, crl: Option<&str>) -> Result<Trust, TrustError> {
        let crl = crl.map(|crl| self.read(crl));
        Trust::new(&self.read(ca), crl.as_deref())
    }

    pub(crate) fn verifier(&self, ca: &str, crl: Option<&str>) -> Verifier {
        self.verifier_with(ca, crl, RoutingPolicy::default())
    }

    pub(crate) fn verifier_with(
        &self,
        ca: &str,
        crl: Option<&str>,
        policy: RoutingPolicy,
    ) -> Verifier {
        Verifier::X509(Box::new(X509::new(self.trust(ca, crl).unwrap(), policy)))
    }

    /// Returns a complete body, signed with the key of this certificate.
    pub(crate) fn signed(&self, name: &str) -> String {
        self.sign(&body().to_string(), name)
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        let pipe = self.pipe.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Both calls fail only if the process has already ended.
        drop(pipe.process.kill());
        drop(pipe.process.wait());
    }
}

/// Returns a body as fedmsg makes it, before it is signed.
pub(crate) fn body() -> Value {
    json!({
        "topic": TOPIC,
        "msg": {"name": "größe", "n": 1.5, "list": [1, null, true]},
        "msg_id": "2026-0b3f5b3e",
        "i": 1,
        "timestamp": 1_504_642_719,
        "username": null,
    })
}

pub(crate) fn topic() -> &'static str {
    TOPIC
}

/// Returns the time of this machine, which the Python fedmsg uses too.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// Parses a body that was received under this topic, and verifies it.
pub(crate) fn verify_at(
    verifier: &Verifier,
    topic: &str,
    text: &str,
    now: i64,
) -> Result<Message, Rejection> {
    let envelope = Envelope::parse(&[topic.as_bytes(), text.as_bytes()], 2)?;
    verifier.verify(envelope, now)
}

/// Returns our verdict on a body that was received under the usual topic: `accepted`, or the reason.
pub(crate) fn word(verifier: &Verifier, text: &str) -> &'static str {
    word_at(verifier, text, now())
}

pub(crate) fn word_at(verifier: &Verifier, text: &str, now: i64) -> &'static str {
    verify_at(verifier, TOPIC, text, now)
        .map_or_else(|rejection| rejection.reason(), |_| "accepted")
}

/// Returns a body after one key was changed, added or, with `None`, removed. The signature is not renewed.
pub(crate) fn with(text: &str, key: &str, value: Option<Value>) -> String {
    let mut body: serde_json::Map<String, Value> = serde_json::from_str(text).unwrap();
    match value {
        Some(value) => body.insert(key.to_owned(), value),
        None => body.remove(key),
    };
    serde_json::to_string(&body).unwrap()
}

pub(crate) fn text_of(value: Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("`{value}` is not a string")).to_owned()
}
