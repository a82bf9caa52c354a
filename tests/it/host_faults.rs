//! kill -9 of the host, at random moments and at named points, under the oracle.

use std::collections::BTreeSet;
use std::time::Duration;

use loopabull_testbed::{Proxy, Rabbit, Vhost};

use crate::bed::{Bed, wait_for};
use crate::witness::{MIXED, Witness};

/// Kills the host so often while it works so many messages, and starts it again. The moments are
/// spread over the runs and, by the clock, over the steps of a run.
fn check_kills(witness: &Witness, kills: usize, messages: usize) {
    let host = witness.host();
    let mut daemon = witness.start(&host, &[]);
    let daemon = witness.publish_during(&host, messages, MIXED, || {
        for kill in 1..=kills {
            witness.wait_for_starts(kill * messages / (kills + 1));
            let nanos = std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
            std::thread::sleep(Duration::from_micros(u64::from(nanos % 20_000)));
            daemon.signal("KILL");
            assert_eq!(daemon.wait(), None);
            daemon = witness.start(&host, &[]);
        }
        daemon
    });
    daemon.wait_until_idle_for(Duration::from_secs(600));
    let verdict = witness.verdict(&host);
    println!("{kills} kills, {verdict}");
    verdict.assert_nothing_lost();
    assert_eq!(verdict.confirmed, messages);
    assert!(verdict.unexpected.is_empty() && verdict.over_limit.is_empty(), "{verdict}");
    assert!(verdict.overlapping.is_empty() && verdict.dead == 0, "{verdict}");
    // A second run only where a kill came between the end of the task and its record: no more than
    // five workers for each kill.
    assert!(verdict.duplicated.len() <= kills * 5, "{verdict}");
    check_journal(&host, messages);
    daemon.stop();
}

/// No message has two successful runs in the journal: what was recorded is not run again.
fn check_journal(host: &Bed, messages: usize) {
    let runs = host.runs();
    let successes: Vec<_> = runs.iter().filter(|run| run.outcome.is_success()).collect();
    let ids: BTreeSet<_> = successes.iter().map(|run| run.message_id.to_string()).collect();
    assert_eq!(successes.len(), ids.len(), "a recorded success was run again");
    assert!(ids.len() <= messages);
}

fn rabbit() -> (Vhost, String) {
    let vhost = Rabbit::shared().vhost();
    let url = vhost.url();
    (vhost, url)
}

#[test]
fn nothing_is_lost_by_kills_with_the_embedded_queue() {
    check_kills(&Witness::new(&[], 20), 8, 400);
}

#[test]
fn nothing_is_lost_by_kills_with_rabbitmq() {
    let (_vhost, url) = rabbit();
    check_kills(&Witness::new(&["--amqp-url", &url], 20), 8, 400);
}

#[test]
#[ignore = "minutes: `cargo xtask soak` runs it"]
fn soak_kills_with_the_embedded_queue() {
    check_kills(&Witness::new(&[], 20), 50, 20_000);
}

#[test]
#[ignore = "minutes: `cargo xtask soak` runs it"]
fn soak_kills_with_rabbitmq() {
    let (_vhost, url) = rabbit();
    check_kills(&Witness::new(&["--amqp-url", &url], 20), 50, 20_000);
}

/// One message whose run kills its daemon at a point, and what becomes of it after the restart.
fn check_point(flags: &[&str], body: &str, expected_starts: usize, expected_ends: usize) {
    let witness = Witness::new(flags, 3);
    let host = witness.host();
    let daemon = witness.start(&host, &["--workers", "1"]);
    witness.publish(&host, 0..1, body);
    assert_eq!(daemon.wait(), None, "its task killed it");
    let daemon = witness.start(&host, &["--workers", "1"]);
    daemon.wait_until_idle();
    let verdict = witness.verdict(&host);
    verdict.assert_nothing_lost();
    assert!(verdict.over_limit.is_empty(), "{verdict}");
    let log = witness.log();
    let count = |word: &str| log.lines().filter(|line| line.starts_with(word)).count();
    assert_eq!((count("start "), count("end ")), (expected_starts, expected_ends), "{log}");
    daemon.stop();
    let runs = host.runs();
    assert_eq!(runs.len(), 1, "one run was recorded");
    assert_eq!((runs[0].outcome.name(), runs[0].attempt), ("success", 1));
}

#[test]
fn killed_during_the_run() {
    let body = r#"{"kill":"before-end","until":1}"#;
    check_point(&[], body, 2, 1);
    let (_vhost, url) = rabbit();
    check_point(&["--amqp-url", &url], body, 2, 1);
}

/// The one window in which a task that was done is run again.
#[test]
fn killed_after_the_end_of_the_run_and_before_its_record() {
    let body = r#"{"kill":"after-end","until":1}"#;
    check_point(&[], body, 2, 2);
    let (_vhost, url) = rabbit();
    check_point(&["--amqp-url", &url], body, 2, 2);
}

/// The launcher kills the daemon instead of starting anything.
fn check_before_start(flags: &[&str]) {
    let witness = Witness::new(flags, 3);
    let host = witness.host();
    let (script, once) = (host.path("launcher"), host.path("once"));
    host.write(
        "launcher",
        format!(
            "#!/bin/sh\nif test -e {0}; then exec {1} \"$@\"; fi\ntouch {0}\nkill -9 $PPID\n",
            once.display(),
            Bed::launcher().display(),
        ),
    );
    std::process::Command::new("chmod").arg("+x").arg(&script).status().unwrap();
    let config = std::fs::read_to_string(host.path("loopabull.toml")).unwrap();
    host.write("loopabull.toml", format!("{config}launcher = '{}'\n", script.display()));
    let daemon = witness.start(&host, &["--workers", "1"]);
    witness.publish(&host, 0..1, "{}");
    assert_eq!(daemon.wait(), None, "its launcher killed it");
    let daemon = witness.start(&host, &["--workers", "1"]);
    daemon.wait_until_idle();
    witness.verdict(&host).assert_nothing_lost();
    assert_eq!(witness.starts(), 1);
    daemon.stop();
}

#[test]
fn killed_before_the_start_of_the_run() {
    check_before_start(&[]);
    let (_vhost, url) = rabbit();
    check_before_start(&["--amqp-url", &url]);
}

/// Kills the daemon when the run is in the journal and the queue cannot hear of it yet.
fn check_after_record(flags: &[&str], stop_queue: impl Fn(&Bed), start_queue: impl Fn()) {
    let witness = Witness::new(flags, 3);
    let host = witness.host();
    let daemon = witness.start(&host, &["--workers", "1"]);
    witness.publish(&host, 0..1, r#"{"sleep_ms":1500}"#);
    witness.wait_for_starts(1);
    stop_queue(&host);
    wait_for("the record of the run", || (host.runs().len() == 1).then_some(()));
    daemon.signal("KILL");
    assert_eq!(daemon.wait(), None);
    start_queue();
    let daemon = witness.start(&host, &["--workers", "1"]);
    daemon.wait_until_idle();
    witness.verdict(&host).assert_nothing_lost();
    assert_eq!(witness.starts(), 1, "it was not run again");
    assert!(host.log().contains("already had its run"), "{}", host.log());
    daemon.stop();
}

#[test]
fn killed_after_the_record_and_before_the_settlement_with_the_embedded_queue() {
    // Whoever holds the write lock keeps the daemon from settling.
    let lock = std::cell::RefCell::new(None);
    check_after_record(
        &[],
        |host| {
            let connection = rusqlite::Connection::open(host.path("state/queue.db")).unwrap();
            connection.execute_batch("BEGIN IMMEDIATE").unwrap();
            *lock.borrow_mut() = Some(connection);
        },
        || drop(lock.borrow_mut().take()),
    );
}

#[test]
fn killed_after_the_record_and_before_the_settlement_with_rabbitmq() {
    let (vhost, _) = rabbit();
    let proxy = Proxy::start(Rabbit::shared().address());
    let url = vhost.url_at(proxy.address());
    // The acknowledgement goes into a cable that leads nowhere.
    let cut = || {
        proxy.cut();
        proxy.swallow(false);
    };
    check_after_record(&["--amqp-url", &url], |_| proxy.swallow(true), cut);
}

/// Good messages among poison: the good ones have their one attempt, and nothing loops.
#[test]
fn poison_does_not_spoil_what_stands_beside_it() {
    for flags in [vec![], vec!["--amqp-url".to_owned(), rabbit().1]] {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let witness = Witness::new(&flags, 2);
        let host = witness.host();
        let daemon = witness.start(&host, &[]);
        for (first, body) in [
            (0, "{}"),
            (20, r#"{"exit":1}"#),
            (40, "{}"),
            (60, r#"{"exit":125}"#),
            (80, r#"{"kill":"before-end"}"#),
            (81, "{}"),
        ] {
            let count = if first == 80 { 1 } else { 20 };
            witness.publish(&host, first..first + count, body);
        }
        // The one that kills its daemon takes three of them, and the fourth sets it aside.
        assert_eq!(daemon.wait(), None);
        for _ in 0..2 {
            let next = witness.with(&["--listen", "127.0.0.1:0"]);
            assert_eq!(host.command(&next).status().unwrap().code(), None);
        }
        let daemon = witness.start(&host, &[]);
        daemon.wait_until_idle();
        let oracle = witness.oracle(&host);
        let verdict = oracle.check(2);
        verdict.assert_nothing_lost();
        assert!(verdict.over_limit.is_empty(), "{verdict}");
        let good = |id: &str| {
            let number: usize = id[2..].parse().unwrap();
            !(20..40).contains(&number) && !(60..=80).contains(&number)
        };
        let again = oracle.starts.iter().find(|start| good(&start.run.id) && start.run.attempt > 1);
        assert_eq!(again, None, "a good message had another attempt");
        let dead: Vec<_> = oracle.dead.iter().filter(|id| good(id)).collect();
        assert!(dead.is_empty(), "{dead:?}");
        assert_eq!(oracle.dead.len(), 41);
        daemon.stop();
    }
}
