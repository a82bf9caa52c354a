//! The daemon deletes old runs by itself, and nothing else, also if it is killed meanwhile.
#![expect(clippy::disallowed_methods, reason = "the test sets the clock of the daemon")]

use std::process::Command;

use loopabull_testbed::{fake_time, python};

use crate::test_host::{Daemon, TestHost, message, text, wait_for};

/// Copies the only run of a journal: 12,000 successful runs and 300 failed ones, all forty days old.
const FILL: &str = "
import sqlite3, sys
journal = sqlite3.connect(sys.argv[1])
columns = [row[1] for row in journal.execute('PRAGMA table_info(runs)')]
run = dict(zip(columns, journal.execute('SELECT * FROM runs').fetchone()))
for number in range(12300):
    outcome = 'success' if number < 12000 else 'exit'
    run.update(id=f'{number:032x}', entry=f'old-{number}', message_id=f'old-{number}', outcome_name=outcome)
    run.update(started_at_ms=run['started_at_ms'] - (40 * 86_400_000 if number == 0 else 0))
    journal.execute(f'INSERT INTO runs VALUES ({\",\".join(\"?\" * len(columns))})', list(run.values()))
journal.commit()
";

/// Prints the number of old successful runs, that of old failed ones and that of new ones, and whether the file is sound.
const COUNT: &str = "
import sqlite3, sys
journal = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True)
count = lambda condition: journal.execute('SELECT count(*) FROM runs WHERE ' + condition).fetchone()[0]
old = \"entry LIKE 'old-%' AND outcome_name \"
print(count(old + \"= 'success'\"), count(old + \"<> 'success'\"), count(\"entry NOT LIKE 'old-%'\"))
print(journal.execute('PRAGMA integrity_check').fetchone()[0])
";

/// Starts a daemon whose clock the file `clock` sets.
fn start(host: &TestHost) -> Daemon {
    host.write("clock", "+0");
    let mut command = host.command(&["--listen", "127.0.0.1:0", "--workers", "2"]);
    command
        .env("LD_PRELOAD", fake_time().expect("`cargo xtask test` installs libfaketime"))
        .env("FAKETIME_TIMESTAMP_FILE", host.path("clock"))
        .env("FAKETIME_NO_CACHE", "1");
    host.adopt(command.spawn().unwrap())
}

/// Returns the numbers of [`COUNT`].
fn count(host: &TestHost) -> [usize; 3] {
    let journal = host.path("state/journal.db");
    let output = Command::new(python()).args(["-c", COUNT]).arg(journal).output().unwrap();
    let said = text(&output.stdout);
    let (numbers, soundness) = said.split_once('\n').unwrap_or_else(|| panic!("{output:?}"));
    assert_eq!(soundness, "ok\n");
    let mut numbers = numbers.split(' ').map(|number| number.parse().unwrap());
    [(); 3].map(|()| numbers.next().unwrap())
}

#[test]
fn old_runs_are_deleted_also_by_daemons_that_are_killed_meanwhile() {
    let host = TestHost::new();
    host.add_guest("a", "a", "", "i32.const 0");
    host.inject(&[message("m-0", "a", "{}")]);
    let daemon = host.start(&["--workers", "1"]);
    daemon.wait_until_idle();
    daemon.stop();
    let filled =
        Command::new(python()).args(["-c", FILL]).arg(host.path("state/journal.db")).output();
    let filled = filled.unwrap();
    assert!(filled.status.success(), "{}", text(&filled.stderr));
    assert_eq!(count(&host), [12_000, 300, 1]);

    let mut new = 1;
    let mut lefts = vec![12_000];
    for kill in 1..=4 {
        let daemon = start(&host);
        host.inject(&[message(&format!("m-{kill}"), "a", "{}")]);
        new += 1;
        daemon.wait_until_idle();
        assert_eq!(count(&host)[0], *lefts.last().unwrap(), "runs were deleted in the first hour");
        host.write("clock", "+2h");
        let before = *lefts.last().unwrap();
        wait_for("some runs to be deleted", || (count(&host)[0] < before).then_some(()));
        daemon.signal("KILL");
        assert_eq!(daemon.wait(), None);
        lefts.push(count(&host)[0]);
        if lefts.last() == Some(&0) {
            break;
        }
    }
    assert!(
        lefts.iter().any(|left| (1..12_000).contains(left)),
        "no kill came in between: {lefts:?}"
    );
    let daemon = start(&host);
    host.write("clock", "+2h");
    wait_for("all old runs to be deleted", || (count(&host)[0] == 0).then_some(()));
    daemon.stop();
    assert_eq!(count(&host), [0, 300, new]);
    // The entries of the deleted runs do not come back, and those of the kept ones do not run again.
    let daemon = host.start(&["--workers", "1"]);
    daemon.wait_until_idle();
    daemon.stop();
    assert_eq!(count(&host), [0, 300, new]);
}
