//! An upgrade: a state directory that an earlier version wrote opens, and every entry goes on as it was.

use std::fs;
use std::process::Command;
use std::time::Duration;

use loopabull_testbed::python;

use crate::test_host::{TestHost, repository, text, wait_for};

/// Makes the files of a state directory from the texts in `tests/fixtures/upgrade`, as Python's `iterdump` wrote them.
const MAKE: &str = "
import sqlite3, sys
for name in sys.argv[2:]:
    store = sqlite3.connect(sys.argv[1] + '/' + name.split('/')[-1].split('-')[0] + '.db')
    store.executescript(open(name, encoding='utf-8').read())
";

/// Returns a host with the state directory of a daemon that was killed. It had one waiting, one claimed, one delayed,
/// one held and one dead entry, and three recorded runs.
fn host() -> TestHost {
    let host = TestHost::new();
    fs::create_dir(host.path("state")).unwrap();
    let files = fs::read_dir(repository().join("tests/fixtures/upgrade")).unwrap();
    let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 5);
    let made =
        Command::new(python()).args(["-c", MAKE]).arg(host.path("state")).args(files).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    for task in ["good", "bad", "later", "slow", "held"] {
        host.add_guest(task, task, "", "i32.const 0");
    }
    host
}

#[test]
fn every_entry_of_an_earlier_version_goes_on_as_it_was() {
    let host = host();
    // A command that only reads leaves the file to the daemon that may still run.
    assert_eq!(host.runs().len(), 3);
    let version = "import sqlite3, sys\nprint(sqlite3.connect(sys.argv[1]).execute('PRAGMA user_version').fetchone()[0])";
    let journal = host.path("state/journal.db");
    let found = Command::new(python()).args(["-c", version]).arg(journal).output().unwrap();
    assert_eq!(text(&found.stdout), "5\n");
    check(&host);
}

/// Each daemon is killed a little later than the one before, until one has upgraded all files.
#[test]
fn daemons_that_are_killed_during_an_upgrade_lose_nothing() {
    let host = host();
    for milliseconds in (0..5_000).step_by(20) {
        if !host.path("state/queue.db").exists() {
            break;
        }
        let mut daemon = host.command(&["--listen", "127.0.0.1:0"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        daemon.kill().unwrap();
        assert_eq!(daemon.wait().unwrap().code(), None, "the daemon ended by itself");
    }
    check(&host);
}

/// Works all entries of the earlier version.
fn check(host: &TestHost) {
    let daemon = host.start(&["--workers", "2"]);
    let depths = ["waiting", "claimed", "delayed", "held", "dead"].map(|what| daemon.depth(what));
    // The queue is paused. What the killed daemon had claimed waits again.
    assert_eq!(depths, [Some(2), Some(0), Some(1), Some(1), Some(1)]);
    assert!(!host.path("state/queue.db").exists());
    for arguments in
        [&["resume", "--queue", "workers"][..], &["resume", "--task", "held"], &["retry"]]
    {
        let output = host.run(arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    assert!(host.run(&["dead-letters", "requeue", "--all"]).status.success());
    wait_for("the release of what was held", || (daemon.depth("held") == Some(0)).then_some(()));
    daemon.wait_until_idle();
    daemon.stop();
    let tally = host.tally();
    let expected = [
        ("bad exit", 1),
        ("bad success", 1),
        ("good success", 2),
        ("held success", 1),
        ("later exit", 1),
        ("later success", 1),
        ("slow success", 1),
    ];
    assert_eq!(tally, expected.map(|(name, count)| (name.to_owned(), count)).into());
    let retried = host.runs().into_iter().find(|run| run.task.as_str() == "later").unwrap();
    assert_eq!(retried.attempt, 2);
}

#[test]
fn a_state_directory_of_a_newer_version_is_refused() {
    let host = host();
    let newer =
        "import sqlite3, sys\nsqlite3.connect(sys.argv[1]).execute('PRAGMA user_version = 99')";
    let journal = host.path("state/journal.db");
    assert!(Command::new(python()).args(["-c", newer]).arg(journal).status().unwrap().success());
    let output = host.run(&["--listen", "127.0.0.1:0"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("a newer version of this program wrote the file `state/journal.db`"),
        "{said}"
    );
    assert!(said.contains("hint: start that version again"), "{said}");
}
