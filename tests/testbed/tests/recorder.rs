//! Tests of the recorder, which the tests start in the same way as the daemon does, and of the oracle, which
//! reads the recorder's log.
#![expect(clippy::disallowed_methods, reason = "tests start programs")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Instant, SystemTime};

use loopabull_testbed::oracle::{Ledger, Oracle, Recorder};

/// A folder with the recorder, and a shell with the name of the daemon.
struct Fixture {
    folder: tempfile::TempDir,
    recorder: PathBuf,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be created");
        let daemon = folder.path().join("loopabull-host");
        std::os::unix::fs::symlink("/bin/sh", daemon)
            .expect("a link can be created in a new folder");
        Self { recorder: Recorder::write(folder.path()), folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the recorder from a shell that is named like the daemon. If the recorder does not kill this
    /// shell, the shell prints `alive` and the exit code of the recorder.
    fn run(&self, shell: &str, id: &str, attempt: u32, body: &str) -> Output {
        let variables = format!(
            "---\n\"msg\": {body}\n\"loopabull\": {{? !unsafe \"attempt\" : {attempt}, ? !unsafe \"headers\" : \
             [[!unsafe \"? \\\"id\\\" : \", !unsafe \"x\"]], ? !unsafe \"id\" : !unsafe \"{id}\", ? \
             !unsafe \"run_id\" : !unsafe \"r-1\", ? !unsafe \"topic\" : !unsafe \"a.b\"}}\n"
        );
        let file = self.path(&format!("message-{id}-{attempt}.yml"));
        fs::write(&file, variables).expect("a file can be created in a new folder");
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
            .expect("the logs have only valid records")
    }
}

/// Runs the recorder once with each shell. Compares the output of the recorder's parent, and the log without
/// process ids and times: `start ID ATTEMPT`, `end ID ATTEMPT CODE`.
fn check(attempt: u32, body: &str, says: &str, log: &str) {
    // The first is the shell that the recorder's first line names. The second cannot read the clock without
    // the program `date`.
    for shell in ["", "/bin/dash"] {
        if !shell.is_empty() && !Path::new(shell).exists() {
            continue;
        }
        let fixture = Fixture::new();
        let output = fixture.run(shell, "m-1", attempt, body);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), says, "{stderr}");
        let oracle = fixture.oracle();
        let starts = oracle.starts.iter().map(|s| format!("start {} {}", s.run.id, s.run.attempt));
        let ends =
            oracle.ends.iter().map(|e| format!("end {} {} {}", e.run.id, e.run.attempt, e.code));
        assert_eq!(starts.chain(ends).collect::<Vec<_>>().join(", "), log);
    }
}

#[test]
fn the_start_and_the_end_of_a_run_are_recorded() {
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
fn the_message_determines_the_exit_code() {
    check(1, r#"{? !unsafe "exit" : 7}"#, "alive 7", "start m-1 1, end m-1 1 7");
}

/// The recorder counts starts, not attempts. If the daemon dies during a run, the same attempt starts again.
#[test]
fn the_recorder_neither_kills_nor_fails_after_the_given_number_of_starts() {
    let harms = [
        (r#"{? !unsafe "exit" : 7, ? !unsafe "until" : 2}"#, ["alive 7", "alive 7", "alive 0"]),
        (
            r#"{? !unsafe "kill" : !unsafe "before-end", ? !unsafe "until" : 1}"#,
            ["", "alive 0", "alive 0"],
        ),
    ];
    for (body, says) in harms {
        let fixture = Fixture::new();
        for says in says {
            let output = fixture.run("", "m-1", 1, body);
            assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), says);
        }
        // The starts of another message are counted separately.
        let output = fixture.run("", "m-2", 1, body);
        assert_ne!(String::from_utf8_lossy(&output.stdout).trim(), "alive 0");
    }
}

#[test]
fn the_daemon_is_killed_before_or_after_the_end_is_recorded() {
    check(1, r#"{? !unsafe "kill" : !unsafe "before-end"}"#, "", "start m-1 1");
    check(1, r#"{? !unsafe "kill" : !unsafe "after-end"}"#, "", "start m-1 1, end m-1 1 0");
}

#[test]
fn recorded_times_are_those_of_the_system_clock() {
    let fixture = Fixture::new();
    let now = || {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("the clock is after 1970")
    };
    for shell in ["", "/bin/sh"] {
        let before = now().as_millis() as u64;
        fixture.run(shell, "m-1", 1, r#"{? !unsafe "sleep_ms" : 1050}"#);
        let after = now().as_millis() as u64;
        let oracle = fixture.oracle();
        let (start, end) = (oracle.starts.last(), oracle.ends.last());
        let (start, end) =
            (start.expect("a start was recorded").at, end.expect("an end was recorded").at);
        assert!(before <= start && start + 1050 <= end && end <= after);
    }
}

#[test]
fn concurrent_runs_write_complete_records() {
    let fixture = Fixture::new();
    let ledger =
        Ledger::open(&fixture.path("ledger")).expect("a file can be created in a new folder");
    let start = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (fixture, ledger) = (&fixture, &ledger);
            scope.spawn(move || {
                for number in 0..50 {
                    let id = format!("m-{thread}-{number}");
                    ledger.attempted(&id);
                    fixture.run("", &id, 1, "{}");
                    ledger.confirmed(&id);
                }
            });
        }
    });
    println!("200 runs took {:?}", start.elapsed());
    let verdict = fixture.oracle().check(1);
    assert_eq!((verdict.attempted, verdict.confirmed, verdict.done), (200, 200, 200));
    assert_eq!(verdict.to_string().lines().count(), 1, "{verdict}");
}

#[test]
fn a_syntax_check_is_not_recorded_as_a_run() {
    let fixture = Fixture::new();
    let check = Command::new(&fixture.recorder).args(["--syntax-check", "task.yml"]).status();
    assert!(check.expect("the recorder can be started").success());
    assert!(fixture.oracle().starts.is_empty());
}
