//! The auditor: a publisher and a task outside the daemon, which log each published message and each run.
//! From the logs, the oracle of `tests/testbed` finds lost and repeated messages.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use loopabull_testbed::oracle::{Ledger, Oracle, Recorder, Verdict};
use serde_json::Value;

use crate::test_host::{Daemon, TestHost, message, text, wait_for};

/// The topic to which the recorder's playbook subscribes.
pub(crate) const TOPIC: &str = "org.example.work";

/// The body for a batch in which every fourth message fails in its first run. So the batch also has retries.
pub(crate) const MIXED: &str = r#"{"sleep_ms":10}"#;
/// The number of waiting messages above which no more are published during faults.
const MAX_WAITING: usize = 400;
const FAILS_ONCE: &str = r#"{"sleep_ms":10,"exit":1,"until":1}"#;

/// A publisher and a task that both record what they do.
pub(crate) struct Auditor {
    folder: tempfile::TempDir,
    script: PathBuf,
    ledger: Ledger,
    /// The flags for every command and daemon of the test.
    pub(crate) flags: Vec<String>,
    max_attempts: u32,
}

/// Sets a flag when it is dropped.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Auditor {
    pub(crate) fn new(flags: &[&str], max_attempts: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = Recorder::write(folder.path());
        let ledger = Ledger::open(&folder.path().join("ledger")).unwrap();
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        Self { folder, script, ledger, flags, max_attempts }
    }

    /// Returns a host whose only task is the recorder. The sandbox is configured so that the recorder can
    /// kill the daemon.
    pub(crate) fn host(&self) -> TestHost {
        self.host_with("")
    }

    /// Does the same as [`Auditor::host`], with more lines in the configuration.
    pub(crate) fn host_with(&self, config: &str) -> TestHost {
        let host = TestHost::new();
        let script = self.script.display();
        host.write(
            "loopabull.toml",
            format!(
                "grace = '5s'\n{config}\n[playbook]\nansible_playbook = '{script}'\n\
                 without = ['cgroup', 'namespaces', 'scopes']\n"
            ),
        );
        host.write("playbooks/record.yml", "the recorder does not read it\n");
        let manifest = format!(
            "topics = ['{TOPIC}']\n[retry]\nmax_attempts = {}\npauses = ['200ms']\n\
             [breaker]\nfailures = 0\n[[grants.dirs]]\nhost = '{}'\naccess = 'read-write'\n",
            self.max_attempts,
            self.folder.path().display()
        );
        host.write("playbooks/record.toml", manifest);
        host
    }

    /// Returns the path of the script that the daemon takes for `ansible-playbook`.
    pub(crate) fn script(&self) -> &Path {
        &self.script
    }

    /// Returns the flags of every command, followed by `more`.
    pub(crate) fn with<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let own = ["--config", "loopabull.toml"].into_iter();
        own.chain(self.flags.iter().map(String::as_str)).chain(more.iter().copied()).collect()
    }

    pub(crate) fn start(&self, host: &TestHost, more: &[&str]) -> Daemon {
        host.start(&self.with(more))
    }

    /// Publishes messages with this body in one command, and returns whether the command succeeded. If it
    /// succeeded, the messages count as confirmed.
    pub(crate) fn publish(&self, host: &TestHost, numbers: Range<usize>, body: &str) -> bool {
        let ids: Vec<String> = numbers.map(|number| format!("m-{number}")).collect();
        let fails = |index: usize| body == MIXED && index.is_multiple_of(4);
        let body = |index| if fails(index) { FAILS_ONCE } else { body };
        let messages = ids.iter().enumerate();
        let messages: Vec<String> =
            messages.map(|(index, id)| message(id, TOPIC, body(index))).collect();
        host.write("batch.json", messages.join("\n"));
        ids.iter().for_each(|id| self.ledger.attempted(id));
        let inject = self.with(&["inject", "batch.json"]);
        let output = host.command(&inject).stderr(Stdio::piped()).output().unwrap();
        if output.status.success() {
            ids.iter().for_each(|id| self.ledger.confirmed(id));
        } else {
            println!("not confirmed: {}", text(&output.stderr));
        }
        output.status.success()
    }

    /// Calls `harm`, and publishes batches until `harm` has returned and `count` messages are confirmed. Then
    /// waits until all confirmed messages are done or dead-lettered. Returns the value that `harm` returned.
    pub(crate) fn publish_during<T: Send>(
        &self,
        host: &TestHost,
        count: usize,
        body: &str,
        harm: impl FnOnce() -> T + Send,
    ) -> T {
        const BATCH: usize = 25;
        let is_harmed = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let publisher = scope.spawn(|| {
                let (mut first, mut confirmed) = (0, 0);
                while confirmed < count || !is_harmed.load(Ordering::SeqCst) {
                    if confirmed > self.ends() + MAX_WAITING && !is_harmed.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_millis(200));
                        continue;
                    }
                    if self.publish(host, first..first + BATCH, body) {
                        confirmed += BATCH;
                    } else {
                        std::thread::sleep(Duration::from_millis(500));
                    }
                    if confirmed >= count {
                        // Enough messages are confirmed. Publishing continues at a lower rate, so that later
                        // faults can strike during a publish.
                        std::thread::sleep(Duration::from_millis(400));
                    }
                    first += BATCH;
                }
                confirmed
            });
            let harmed = {
                // Also after a panic, so that the publisher ends.
                let _end = SetOnDrop(&is_harmed);
                harm()
            };
            let confirmed = publisher.join().unwrap();
            self.wait_until_done(host, confirmed);
            harmed
        })
    }

    /// Returns the number of runs that have started so far.
    pub(crate) fn starts(&self) -> usize {
        self.log().lines().filter(|line| line.starts_with("start ")).count()
    }

    fn ends(&self) -> usize {
        self.log().lines().filter(|line| line.starts_with("end ")).count()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(Recorder::log(self.folder.path())).unwrap_or_default()
    }

    /// Waits until `count` runs have started.
    pub(crate) fn wait_for_starts(&self, count: usize) {
        wait_for("runs to start", || (self.starts() >= count).then_some(()));
    }

    /// Waits until `count` messages are done or dead-lettered. Waiting for an empty queue is not enough,
    /// because a queue may look empty just after a reconnect.
    pub(crate) fn wait_until_done(&self, host: &TestHost, count: usize) {
        let (mut progress, mut before) = (std::time::Instant::now(), 0);
        loop {
            let ends = self.ends();
            if ends > before {
                (progress, before) = (std::time::Instant::now(), ends);
            }
            if ends >= count {
                let verdict = self.verdict(host);
                if verdict.done + verdict.dead >= count {
                    return;
                }
            }
            assert!(
                progress.elapsed() < Duration::from_secs(300),
                "only {ends} of {count} runs ended"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Returns the verdict of the oracle on the logs and the dead letters.
    pub(crate) fn verdict(&self, host: &TestHost) -> Verdict {
        self.oracle(host).check(self.max_attempts)
    }

    pub(crate) fn oracle(&self, host: &TestHost) -> Oracle {
        let output = host.run(&self.with(&["dead-letters", "list", "--json"]));
        assert!(output.status.success(), "{}", text(&output.stderr));
        let dead = text(&output.stdout);
        let id = |line: &str| {
            let letter: Value = serde_json::from_str(line).unwrap();
            letter["message"]["id"].as_str().map(str::to_owned)
        };
        let dead: Vec<String> = dead.lines().filter_map(id).collect();
        let ledger = self.folder.path().join("ledger");
        let mut oracle = Oracle::read(&ledger, &Recorder::log(self.folder.path()), dead).unwrap();
        // After a run during which the daemon died, the same attempt starts again. So a message may have more
        // starts than attempts.
        oracle.allowance = loopabull_model::RetryPolicy::MAX_CRASHES as usize;
        oracle
    }
}
