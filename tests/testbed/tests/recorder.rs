//! The recorder as the daemon starts it, and what the oracle reads of its log.
#![expect(clippy::disallowed_methods, reason = "tests start programs")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Instant, SystemTime};

use loopabull_testbed::oracle::{Ledger, Oracle, Recorder};

/// A folder with the recorder, and a shell that looks like the daemon.
struct Bed {
    folder: tempfile::TempDir,
    recorder: PathBuf,
}

impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let daemon = folder.path().join("loopabull-host");
        std::os::unix::fs::symlink("/bin/sh", daemon).expect("a link in a new folder");
        Self { recorder: Recorder::write(folder.path()), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the recorder as the daemon does, by a shell in the daemon's place that says `alive`
    /// with the code of the recorder, if it is.
    fn run(&self, shell: &str, id: &str, attempt: u32, body: &str) -> Output {
        let variables = format!(
            "---\n\"msg\": {body}\n\"loopabull\": {{? !unsafe \"attempt\" : {attempt}, ? !unsafe \"headers\" : \
             [[!unsafe \"? \\\"id\\\" : \", !unsafe \"x\"]], ? !unsafe \"id\" : !unsafe \"{id}\", ? \
             !unsafe \"run_id\" : !unsafe \"r-1\", ? !unsafe \"topic\" : !unsafe \"a.b\"}}\n"
        );
        let file = self.path(&format!("message-{id}-{attempt}.yml"));
        fs::write(&file, variables).expect("a file in a new folder");
        let call = format!(
            "{shell} {} --inventory localhost, --extra-vars @{} task.yml; echo alive $?",
            self.recorder.display(),
            file.display()
        );
        let mut daemon = Command::new(self.path("loopabull-host"));
        daemon.args(["-c", &call]).current_dir("/").env_clear().env("LANG", "C.UTF-8");
        daemon.output().expect("the shell runs")
    }

    fn oracle(&self) -> Oracle {
        Oracle::read(&self.path("ledger"), &Recorder::log(self.folder.path()), [])
            .expect("the log is whole")
    }
}

/// Runs the recorder once by each shell, and compares what its parent says, and the log without
/// the process and the time: `start ID ATTEMPT`, `end ID ATTEMPT CODE`.
fn check(attempt: u32, body: &str, says: &str, log: &str) {
    // By its first line, and by the shell that knows no time.
    for shell in ["", "/bin/dash"] {
        if !shell.is_empty() && !Path::new(shell).exists() {
            continue;
        }
        let bed = Bed::new();
        let output = bed.run(shell, "m-1", attempt, body);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), says, "{stderr}");
        let oracle = bed.oracle();
        let starts = oracle.starts.iter().map(|s| format!("start {} {}", s.run.id, s.run.attempt));
        let ends =
            oracle.ends.iter().map(|e| format!("end {} {} {}", e.run.id, e.run.attempt, e.code));
        assert_eq!(starts.chain(ends).collect::<Vec<_>>().join(", "), log);
    }
}

#[test]
fn start_and_end_are_recorded() {
    check(1, "{}", "alive 0", "start m-1 1, end m-1 1 0");
    check(2, r#"{? !unsafe "x" : !unsafe "y\"z"}"#, "alive 0", "start m-1 2, end m-1 2 0");
    check(1, "null", "alive 0", "start m-1 1, end m-1 1 0");
    check(
        1,
        &format!("!unsafe \"{}\"", "x".repeat(100_000)),
        "alive 0",
        "start m-1 1, end m-1 1 0",
    );
}

#[test]
fn message_says_the_code() {
    check(1, r#"{? !unsafe "exit" : 7}"#, "alive 7", "start m-1 1, end m-1 1 7");
}

/// Starts count and not attempts: what is cut off is started again within the same attempt.
#[test]
fn after_so_many_starts_it_does_no_harm() {
    let harms = [
        (r#"{? !unsafe "exit" : 7, ? !unsafe "until" : 2}"#, ["alive 7", "alive 7", "alive 0"]),
        (
            r#"{? !unsafe "kill" : !unsafe "before-end", ? !unsafe "until" : 1}"#,
            ["", "alive 0", "alive 0"],
        ),
    ];
    for (body, says) in harms {
        let bed = Bed::new();
        for says in says {
            let output = bed.run("", "m-1", 1, body);
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), says);
        }
        // Another message has starts of its own.
        let output = bed.run("", "m-2", 1, body);
        assert_ne!(String::from_utf8_lossy(&output.stdout).trim(), "alive 0");
    }
}

#[test]
fn daemon_is_killed_before_or_after_the_end_is_recorded() {
    check(1, r#"{? !unsafe "kill" : !unsafe "before-end"}"#, "", "start m-1 1");
    check(1, r#"{? !unsafe "kill" : !unsafe "after-end"}"#, "", "start m-1 1, end m-1 1 0");
}

#[test]
fn times_are_those_of_the_clock() {
    let bed = Bed::new();
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("not so late");
    for shell in ["", "/bin/sh"] {
        let before = now().as_millis() as u64;
        bed.run(shell, "m-1", 1, r#"{? !unsafe "sleep_ms" : 1050}"#);
        let after = now().as_millis() as u64;
        let oracle = bed.oracle();
        let (start, end) = (oracle.starts.last(), oracle.ends.last());
        let (start, end) = (start.expect("a start").at, end.expect("an end").at);
        assert!(before <= start && start + 1050 <= end && end <= after);
    }
}

#[test]
fn records_of_many_at_once_are_whole_and_judged() {
    let bed = Bed::new();
    let ledger = Ledger::open(&bed.path("ledger")).expect("a file in a new folder");
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (bed, ledger) = (&bed, &ledger);
            scope.spawn(move || {
                for number in 0..50 {
                    let id = format!("m-{thread}-{number}");
                    ledger.attempted(&id);
                    bed.run("", &id, 1, "{}");
                    ledger.confirmed(&id);
                }
            });
        }
    });
    println!("200 runs took {:?}", start.elapsed());
    let verdict = bed.oracle().check(1);
    assert_eq!((verdict.attempted, verdict.confirmed, verdict.done), (200, 200, 200));
    assert_eq!(verdict.to_string().lines().count(), 1, "{verdict}");
}

#[test]
fn syntax_check_is_no_run() {
    let bed = Bed::new();
    let check = Command::new(&bed.recorder).args(["--syntax-check", "task.yml"]).status();
    assert!(check.expect("it runs").success());
    assert!(bed.oracle().starts.is_empty());
}
