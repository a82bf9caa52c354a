//! The spool. While a queue cannot accept entries, messages from fedmsg wait on disk, because fedmsg does not
//! send them again. As long as the messages fit in the spool, none is lost and their order is kept.

use std::time::{Duration, Instant};

use loopabull_testbed::Rabbit;

use crate::test_host::{Daemon, Publisher, TestHost, message, wait_at_most, wait_for};

const TOPIC: &str = "org.example.prod.demo.hello";
const OTHER: &str = "org.example.prod.demo.other";

fn metric(daemon: &Daemon, name: &str) -> f64 {
    daemon.metric(&format!("loopabull_{name}")).unwrap_or_default()
}

/// Returns a new host with a task that runs messages in order, and a publisher.
fn host() -> (TestHost, Publisher) {
    let host = TestHost::new();
    host.write("loopabull.toml", "[queues.ordered]\nworkers = 1\nexclusive_order = true\n");
    host.add_guest("hello", TOPIC, "queue = 'ordered'", "i32.const 0");
    (host, Publisher::start())
}

fn start(host: &TestHost, url: &str, publisher: &Publisher) -> Daemon {
    let daemon = host.start(&[
        "--config",
        "loopabull.toml",
        "--amqp-url",
        url,
        "--unsigned",
        "--fedmsg",
        &publisher.endpoint,
    ]);
    publisher.wait_for_subscriber();
    daemon
}

/// Sends a numbered message. All ids have the same length, so messages with the same body have the same size.
fn send(publisher: &Publisher, topic: &str, number: usize, body: &str) {
    let body = message(&format!("m-{number:06}"), topic, body);
    publisher.send(&[topic.as_bytes(), body.as_bytes()]);
}

/// Publishes numbered messages for `seconds`, about 200 per second. Returns the number of messages.
fn flood(publisher: &Publisher, first: usize, seconds: u64) -> usize {
    let (start, mut sent) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(seconds) {
        let due = start.elapsed().as_millis() as usize / 5;
        for number in sent..due {
            send(publisher, TOPIC, first + number, "{}");
        }
        sent = due;
        std::thread::sleep(Duration::from_millis(5));
    }
    sent
}

/// Fails if a message was lost or run twice, or if the messages did not run in the order of sending.
fn check_runs(host: &TestHost, sent: usize) {
    let runs = host.runs();
    let ids: Vec<String> = runs.iter().rev().map(|run| run.message_id.to_string()).collect();
    assert_eq!(ids.len(), sent);
    let expected: Vec<String> = (0..sent).map(|number| format!("m-{number:06}")).collect();
    assert!(ids == expected, "the order was not kept, or one message ran twice and another never");
}

fn check_broker_away(seconds: u64) {
    let rabbit = Rabbit::start();
    let (host, publisher) = host();
    let daemon = start(&host, &rabbit.vhost().url(), &publisher);
    let mut sent = flood(&publisher, 0, 2);
    rabbit.kill();
    sent += flood(&publisher, sent, seconds);
    assert!(metric(&daemon, "spool_entries") > 100.0);
    assert_eq!(daemon.get("/readyz").0, 503);
    rabbit.restart();
    sent += flood(&publisher, sent, 2);
    wait_at_most(Duration::from_mins(10), "all runs", || {
        (daemon.count("runs") as usize >= sent).then_some(())
    });
    daemon.wait_until_idle();
    assert_eq!(metric(&daemon, "spool_entries"), 0.0);
    assert_eq!(metric(&daemon, "entries_lost_total"), 0.0);
    assert_eq!(daemon.get("/readyz").0, 200);
    daemon.stop();
    check_runs(&host, sent);
}

#[test]
fn nothing_is_lost_and_the_order_is_kept_while_the_broker_is_away() {
    check_broker_away(4);
}

#[test]
#[ignore = "minutes: `cargo xtask soak` runs it"]
fn soak_a_broker_that_is_away_for_a_minute() {
    check_broker_away(60);
}

/// The next daemon moves the messages of a killed one from the spool to the queue, even if it has no source.
#[test]
fn messages_in_the_spool_of_a_killed_daemon_are_not_lost() {
    let rabbit = Rabbit::start();
    let url = rabbit.vhost().url();
    let (host, publisher) = host();
    let daemon = start(&host, &url, &publisher);
    rabbit.kill();
    for number in 0..300 {
        send(&publisher, TOPIC, number, "{}");
    }
    wait_for("the spool to fill", || (metric(&daemon, "spool_entries") == 300.0).then_some(()));
    daemon.signal("KILL");
    daemon.wait();
    rabbit.restart();
    let role = ["--config", "loopabull.toml", "--amqp-url", &url, "--role", "work"];
    let daemon = host.start(&role);
    wait_for("all runs", || (daemon.count("runs") >= 300).then_some(()));
    daemon.wait_until_idle();
    daemon.stop();
    check_runs(&host, 300);
}

#[test]
fn a_full_queue_does_not_delay_other_queues() {
    let rabbit = Rabbit::start();
    let vhost = rabbit.vhost();
    let (host, publisher) = host();
    host.add_guest("other", OTHER, "queue = 'full'", "i32.const 0");
    let daemon = start(&host, &vhost.url(), &publisher);
    host.run(&["pause", "--queue", "full"]);
    let policy = ["set_policy", "-p", &vhost.name, "--apply-to", "queues", "full", "^full$"];
    rabbit.ctl(&[&policy[..], &["{\"max-length\":5}"]].concat());
    let waits = || metric(&daemon, "spool_entries");
    // A broker accepts a window of messages beyond the limit before it refuses the first one.
    for number in 0..500 {
        send(&publisher, OTHER, number, "{}");
    }
    wait_for("the spool to fill", || (waits() > 20.0).then_some(()));
    for number in 0..50 {
        send(&publisher, TOPIC, number, "{}");
    }
    wait_for("the runs of the other queue", || (daemon.count("runs") >= 50).then_some(()));
    assert!(waits() > 20.0);
    let ready = daemon.get("/readyz");
    assert!(ready.0 == 503 && ready.1.contains("messages wait in the spool"), "{ready:?}");
    // The length limit stays in place. Nevertheless all messages get through the queue.
    host.run(&["resume", "--queue", "full"]);
    wait_for("all runs", || (daemon.count("runs") == 550).then_some(()));
    wait_for("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
    assert_eq!((waits(), metric(&daemon, "entries_lost_total")), (0.0, 0.0));
    daemon.stop();
}

/// The broker always refuses one of the messages, because it is too large. The other messages are not
/// affected.
#[test]
fn a_message_that_the_broker_always_refuses_is_quarantined() {
    let rabbit = Rabbit::start_with(&["{max_message_size, 100000}"]);
    let (host, publisher) = host();
    let daemon = start(&host, &rabbit.vhost().url(), &publisher);
    let large = format!("\"{}\"", "x".repeat(150_000));
    let quarantined = || std::fs::read_dir(host.path("state/quarantine")).unwrap().count();
    send(&publisher, TOPIC, 0, "{}");
    send(&publisher, TOPIC, 900, &large);
    send(&publisher, TOPIC, 1, "{}");
    wait_for("the runs", || (daemon.count("runs") == 2).then_some(()));
    assert_eq!(quarantined(), 1);
    // An entry may run before it is counted, so the test waits for the counters.
    let wait_for_counts = |expected: [f64; 4]| {
        let names = [
            "entries_published_total{task=\"hello\"}",
            "entries_spooled_total",
            "entries_quarantined_total",
            "entries_lost_total",
        ];
        wait_for("the counters to reach the expected values", || {
            (names.map(|name| metric(&daemon, name)) == expected).then_some(())
        });
    };
    wait_for_counts([2.0, 0.0, 1.0, 0.0]);
    assert!(!host.log().contains("was lost; reconnecting"), "{}", host.log());
    // A message that comes from the spool is quarantined in the same way.
    rabbit.kill();
    send(&publisher, TOPIC, 2, "{}");
    send(&publisher, TOPIC, 901, &large);
    send(&publisher, TOPIC, 3, "{}");
    wait_for("the spool to fill", || (metric(&daemon, "spool_entries") == 3.0).then_some(()));
    rabbit.restart();
    wait_for("the runs", || (daemon.count("runs") == 4).then_some(()));
    daemon.wait_until_idle();
    assert_eq!((quarantined(), metric(&daemon, "spool_entries")), (2, 0.0));
    wait_for_counts([4.0, 3.0, 2.0, 0.0]);
    wait_for("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
    daemon.stop();
    check_runs(&host, 4);
}

#[test]
fn messages_that_do_not_fit_in_the_spool_are_counted() {
    let rabbit = Rabbit::start();
    let (host, publisher) = host();
    let settings = std::fs::read_to_string(host.path("loopabull.toml")).unwrap();
    host.write("loopabull.toml", format!("{settings}[fedmsg]\nspool = '1MB'\n"));
    let daemon = start(&host, &rabbit.vhost().url(), &publisher);
    rabbit.kill();
    let body = format!("\"{}\"", "x".repeat(10_000));
    for number in 0..250 {
        send(&publisher, TOPIC, number, &body);
    }
    let lost = || metric(&daemon, "entries_lost_total") as usize;
    let kept = || metric(&daemon, "spool_entries") as usize;
    wait_for("all messages to be kept or lost", || (kept() + lost() == 250).then_some(()));
    // All messages have the same size, and the spool keeps as many as fit.
    let kept = kept();
    let size = metric(&daemon, "spool_size_bytes") as usize / kept;
    assert!((10_000..11_000).contains(&size), "{size}");
    assert_eq!(kept, 1_000_000 / size);
    let ready = daemon.get("/readyz");
    assert!(ready.0 == 503 && ready.1.contains("ingest: "), "{ready:?}");
    rabbit.restart();
    wait_at_most(Duration::from_mins(5), "all runs", || {
        (daemon.count("runs") as usize >= kept).then_some(())
    });
    wait_for("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
    daemon.wait_until_idle();
    assert_eq!(lost(), 250 - kept);
    let logged = host.log().matches("the spool is full").count();
    assert_eq!(logged, 1, "the log must have one line each minute");
    // Readiness is back, and the loss is still told.
    let warned = daemon.get("/warnings");
    let expected = format!("{} messages lost since the start of the daemon", 250 - kept);
    assert!(warned.0 == 503 && warned.1.contains(&expected), "{warned:?}");
    daemon.stop();
    check_runs(&host, kept);
}
