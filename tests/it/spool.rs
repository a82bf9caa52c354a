//! What a bus will not send again waits on disk while the work queue cannot take it, and nothing of it is
//! lost, in its order, as long as there is room.

use std::time::{Duration, Instant};

use loopabull_testbed::Rabbit;

use crate::bed::{Bed, Daemon, Publisher, message, wait_at_most, wait_for};

const TOPIC: &str = "org.example.prod.demo.hello";
const OTHER: &str = "org.example.prod.demo.other";

fn metric(daemon: &Daemon, name: &str) -> f64 {
    daemon.metric(&format!("loopabull_{name}")).unwrap_or_default()
}

/// A task whose messages are worked in their order, by a daemon that begins with nothing.
fn bed() -> (Bed, Publisher) {
    let bed = Bed::new();
    bed.write("loopabull.toml", "[queues.ordered]\nworkers = 1\nexclusive_order = true\n");
    bed.add_guest("hello", TOPIC, "queue = 'ordered'", "i32.const 0");
    (bed, Publisher::start())
}

fn start(bed: &Bed, url: &str, publisher: &Publisher) -> Daemon {
    let daemon = bed.start(&[
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

/// Ids of one length, so that all messages are of one size and sort as they were sent.
fn send(publisher: &Publisher, topic: &str, number: usize, body: &str) {
    let body = message(&format!("m-{number:06}"), topic, body);
    publisher.send(&[topic.as_bytes(), body.as_bytes()]);
}

/// Publishes numbered messages for so long, about two hundred a second. Returns how many there were.
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

/// Fails unless each message was run once, in the order in which they were sent.
fn check_runs(bed: &Bed, sent: usize) {
    let runs = bed.runs();
    let ids: Vec<String> = runs.iter().rev().map(|run| run.message_id.to_string()).collect();
    assert_eq!(ids.len(), sent);
    let expected: Vec<String> = (0..sent).map(|number| format!("m-{number:06}")).collect();
    assert!(ids == expected, "the order was not kept, or one came twice for another");
}

fn check_broker_away(seconds: u64) {
    let rabbit = Rabbit::start();
    let (bed, publisher) = bed();
    let daemon = start(&bed, &rabbit.vhost().url(), &publisher);
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
    check_runs(&bed, sent);
}

#[test]
fn nothing_is_lost_and_the_order_is_kept_while_the_broker_is_away() {
    check_broker_away(10);
}

#[test]
#[ignore = "minutes: `cargo xtask soak` runs it"]
fn soak_a_broker_that_is_away_for_a_minute() {
    check_broker_away(60);
}

/// It comes into the queue also by a daemon that has no source.
#[test]
fn what_a_killed_daemon_left_in_the_spool_is_not_lost() {
    let rabbit = Rabbit::start();
    let url = rabbit.vhost().url();
    let (bed, publisher) = bed();
    let daemon = start(&bed, &url, &publisher);
    rabbit.kill();
    for number in 0..300 {
        send(&publisher, TOPIC, number, "{}");
    }
    wait_for("the spool", || (metric(&daemon, "spool_entries") == 300.0).then_some(()));
    daemon.signal("KILL");
    daemon.wait();
    rabbit.restart();
    let role = ["--config", "loopabull.toml", "--amqp-url", &url, "--role", "work"];
    let daemon = bed.start(&role);
    wait_for("all runs", || (daemon.count("runs") >= 300).then_some(()));
    daemon.wait_until_idle();
    daemon.stop();
    check_runs(&bed, 300);
}

#[test]
fn a_queue_that_is_full_holds_up_no_other() {
    let rabbit = Rabbit::start();
    let vhost = rabbit.vhost();
    let (bed, publisher) = bed();
    bed.add_guest("other", OTHER, "queue = 'full'", "i32.const 0");
    let daemon = start(&bed, &vhost.url(), &publisher);
    bed.run(&["pause", "--queue", "full"]);
    let policy = ["set_policy", "-p", &vhost.name, "--apply-to", "queues", "full", "^full$"];
    rabbit.ctl(&[&policy[..], &["{\"max-length\":5}"]].concat());
    let waits = || metric(&daemon, "spool_entries");
    for number in 0..50 {
        send(&publisher, OTHER, number, "{}");
    }
    wait_for("the spool", || (waits() > 20.0).then_some(()));
    for number in 0..50 {
        send(&publisher, TOPIC, number, "{}");
    }
    wait_for("the runs of the other", || (daemon.count("runs") >= 50).then_some(()));
    assert!(waits() > 20.0);
    let ready = daemon.get("/readyz");
    assert!(ready.0 == 503 && ready.1.contains("messages wait in the spool"), "{ready:?}");
    // The limit stays, and all go through it.
    bed.run(&["resume", "--queue", "full"]);
    wait_for("all runs", || (daemon.count("runs") == 100).then_some(()));
    wait_for("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
    assert_eq!((waits(), metric(&daemon, "entries_lost_total")), (0.0, 0.0));
    daemon.stop();
}

/// One message is refused by the broker itself, whatever is tried: it costs nobody else anything.
#[test]
fn a_message_that_its_queue_refuses_for_good_is_quarantined() {
    let rabbit = Rabbit::start_with("max_message_size = 100000\n");
    let (bed, publisher) = bed();
    let daemon = start(&bed, &rabbit.vhost().url(), &publisher);
    let large = format!("\"{}\"", "x".repeat(150_000));
    let quarantined = || std::fs::read_dir(bed.path("state/quarantine")).unwrap().count();
    send(&publisher, TOPIC, 0, "{}");
    send(&publisher, TOPIC, 900, &large);
    send(&publisher, TOPIC, 1, "{}");
    wait_for("the runs", || (daemon.count("runs") == 2).then_some(()));
    assert_eq!(quarantined(), 1);
    // An entry is run as soon as it is queued, which may be before it is counted.
    let wait_for_counts = |expected: [f64; 4]| {
        let names = [
            "entries_published_total{task=\"hello\"}",
            "entries_spooled_total",
            "entries_quarantined_total",
            "entries_lost_total",
        ];
        wait_for("the counters", || {
            (names.map(|name| metric(&daemon, name)) == expected).then_some(())
        });
    };
    wait_for_counts([2.0, 0.0, 1.0, 0.0]);
    assert!(!bed.log().contains("the connection was lost"), "{}", bed.log());
    // The same out of the spool.
    rabbit.kill();
    send(&publisher, TOPIC, 2, "{}");
    send(&publisher, TOPIC, 901, &large);
    send(&publisher, TOPIC, 3, "{}");
    wait_for("the spool", || (metric(&daemon, "spool_entries") == 3.0).then_some(()));
    rabbit.restart();
    wait_for("the runs", || (daemon.count("runs") == 4).then_some(()));
    daemon.wait_until_idle();
    assert_eq!((quarantined(), metric(&daemon, "spool_entries")), (2, 0.0));
    wait_for_counts([4.0, 3.0, 2.0, 0.0]);
    wait_for("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
    daemon.stop();
    check_runs(&bed, 4);
}

#[test]
fn what_the_spool_has_no_room_for_is_counted() {
    let rabbit = Rabbit::start();
    let (bed, publisher) = bed();
    let settings = std::fs::read_to_string(bed.path("loopabull.toml")).unwrap();
    bed.write("loopabull.toml", format!("{settings}[fedmsg]\nspool = '1MB'\n"));
    let daemon = start(&bed, &rabbit.vhost().url(), &publisher);
    rabbit.kill();
    let body = format!("\"{}\"", "x".repeat(10_000));
    for number in 0..250 {
        send(&publisher, TOPIC, number, &body);
    }
    let lost = || metric(&daemon, "entries_lost_total") as usize;
    let kept = || metric(&daemon, "spool_entries") as usize;
    wait_for("all messages", || (kept() + lost() == 250).then_some(()));
    // All are of one size, and as many are kept as there is room for.
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
    let logged = bed.log().matches("the spool is full").count();
    assert_eq!(logged, 1, "the log has one line each minute");
    daemon.stop();
    check_runs(&bed, kept);
}
