//! What a broker and a network can do to a host, under the oracle: each fault while messages are
//! published and worked.

use std::time::Duration;

use loopabull_testbed::{Proxy, Rabbit};

use crate::bed::{Daemon, wait_at_most, wait_for};
use crate::witness::{MIXED, Witness};

const MESSAGES: usize = 300;
/// Heartbeats that tell of a dead connection within seconds.
const HEARTBEAT: &str = "?heartbeat=2";

/// Publishes and works messages while the broker is harmed, three times, and heals each time.
fn check(rabbit: &Rabbit, url: &str, harm: impl Fn(&Daemon) + Sync) {
    let witness = Witness::new(&["--amqp-url", url], 5);
    let host = witness.host();
    let daemon = witness.start(&host, &[]);
    witness.publish_during(&host, MESSAGES, MIXED, || {
        for round in 1..=3 {
            witness.wait_for_starts(round * MESSAGES / 5);
            harm(&daemon);
        }
    });
    // Whatever it was, it is over.
    wait_for("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
    daemon.wait_until_idle();
    let verdict = witness.verdict(&host);
    println!("{verdict}");
    verdict.assert_nothing_lost();
    assert!(verdict.unexpected.is_empty() && verdict.over_limit.is_empty(), "{verdict}");
    // One host, one journal: what had succeeded is known, however often it is delivered.
    assert!(verdict.duplicated.is_empty() && verdict.overlapping.is_empty(), "{verdict}");
    assert!(verdict.dead == 0, "{verdict}");
    assert!(verdict.confirmed >= MESSAGES, "{verdict}");
    assert!(rabbit.is_running());
    daemon.stop();
}

fn wait_until_not_ready(daemon: &Daemon) {
    wait_for("readiness to go", || (daemon.get("/readyz").0 == 503).then_some(()));
}

#[test]
fn the_broker_is_killed() {
    let rabbit = Rabbit::start();
    check(&rabbit, &rabbit.vhost().url(), |daemon| {
        rabbit.kill();
        wait_until_not_ready(daemon);
        rabbit.restart();
    });
}

#[test]
fn the_broker_is_stopped_and_started() {
    let rabbit = Rabbit::start();
    check(&rabbit, &rabbit.vhost().url(), |daemon| {
        rabbit.stop_app();
        wait_until_not_ready(daemon);
        rabbit.start_app();
    });
}

#[test]
fn all_connections_are_closed() {
    let rabbit = Rabbit::start();
    check(&rabbit, &rabbit.vhost().url(), |_| rabbit.close_all_connections("a test"));
}

#[test]
fn the_broker_is_short_of_memory_and_of_disk() {
    let rabbit = Rabbit::start();
    // The workers only acknowledge, which goes on; who publishes waits.
    check(&rabbit, &rabbit.vhost().url(), |_| {
        for alarm in [Rabbit::set_memory_alarm, Rabbit::set_disk_alarm] {
            alarm(&rabbit, true);
            std::thread::sleep(Duration::from_secs(2));
            alarm(&rabbit, false);
        }
    });
}

/// The connection stays open and leads nowhere: only the heartbeat tells.
#[test]
fn the_network_falls_silent() {
    let rabbit = Rabbit::shared();
    let proxy = Proxy::start(rabbit.address());
    let url = rabbit.vhost().url_at(proxy.address()) + HEARTBEAT;
    check(rabbit, &url, |daemon| {
        proxy.swallow(true);
        wait_until_not_ready(daemon);
        proxy.swallow(false);
    });
}

#[test]
fn the_network_is_slow_and_cut() {
    let rabbit = Rabbit::shared();
    let proxy = Proxy::start(rabbit.address());
    let url = rabbit.vhost().url_at(proxy.address());
    check(rabbit, &url, |_| {
        proxy.hold(true);
        std::thread::sleep(Duration::from_millis(500));
        proxy.hold(false);
        proxy.cut();
    });
}

/// A queue that is deleted takes with it what waits in it; so it is deleted when nothing does, and what
/// runs then is worked to its end.
#[test]
fn queues_are_deleted_under_a_host() {
    let rabbit = Rabbit::shared();
    let vhost = rabbit.vhost();
    let witness = Witness::new(&["--amqp-url", &vhost.url()], 5);
    let host = witness.host();
    let daemon = witness.start(&host, &["--workers", "2"]);
    for round in 0..3 {
        witness.publish(&host, round * 2..round * 2 + 2, r#"{"sleep_ms":3000}"#);
        witness.wait_for_starts(round * 2 + 2);
        for queue in ["workers", "workers.dead", "workers.wait.1s", "workers.wait.10s"] {
            rabbit.ctl(&["delete_queue", "-p", &vhost.name, queue]);
        }
        witness.wait_until_done(&host, round * 2 + 2);
        daemon.wait_until_idle();
    }
    let verdict = witness.verdict(&host);
    verdict.assert_nothing_lost();
    assert_eq!((verdict.done, verdict.duplicated.len()), (6, 0), "{verdict}");
    daemon.stop();
}

/// SIGTERM while the broker is away: runs end and are recorded, the daemon ends in time, and the next
/// one knows what was done.
#[test]
fn a_drain_without_the_broker_loses_nothing() {
    let rabbit = Rabbit::start();
    let witness = Witness::new(&["--amqp-url", &rabbit.vhost().url()], 5);
    let host = witness.host();
    let daemon = witness.start(&host, &["--workers", "2"]);
    witness.publish(&host, 0..6, r#"{"sleep_ms":2000}"#);
    witness.wait_for_starts(2);
    rabbit.kill();
    daemon.signal("TERM");
    // Given back or not: it ends, and says so.
    assert!(daemon.wait().is_some());
    assert_eq!(host.runs().len(), 2, "{}", host.log());
    rabbit.restart();
    let daemon = witness.start(&host, &["--workers", "2"]);
    witness.wait_until_done(&host, 6);
    daemon.wait_until_idle();
    let verdict = witness.verdict(&host);
    verdict.assert_nothing_lost();
    assert_eq!((verdict.done, verdict.duplicated.len()), (6, 0), "{verdict}");
    assert_eq!(witness.starts(), 6);
    daemon.stop();
}

/// The broker takes a delivery for lost while its task runs. What it then delivers again waits until
/// the run is over, and is known.
fn check_ack_timeout(seconds: u64, tick_ms: u64, task_ms: u64) {
    let rabbit = Rabbit::start_with(&format!("consumer_timeout = {}", seconds * 1000));
    // How often the broker looks, for each new channel; 3.10 takes it by no configuration file.
    let tick = format!("application:set_env(rabbit, channel_tick_interval, {tick_ms}).");
    rabbit.ctl(&["eval", &tick]);
    let url = rabbit.vhost().url();
    let witness = Witness::new(&["--amqp-url", &url], 5);
    let host = witness.host_with(&format!("consumer_timeout = '{seconds}s'"));
    let output = host.run(&witness.with(&["--listen", "127.0.0.1:0"]));
    let said = crate::bed::text(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("task `record` may run for 15m, but RabbitMQ redelivers"), "{said}");
    assert!(said.contains("put `consumer_timeout = 1200000` into rabbitmq.conf"), "{said}");

    let config = std::fs::read_to_string(host.path("loopabull.toml")).unwrap();
    host.write("loopabull.toml", format!("ignore_consumer_timeout = true\n{config}"));
    let daemon = witness.start(&host, &["--workers", "3"]);
    witness.publish(&host, 0..1, &format!(r#"{{"sleep_ms":{task_ms}}}"#));
    let patience = Duration::from_millis(task_ms) + crate::bed::PATIENCE;
    wait_at_most(patience, "the second delivery", || {
        host.log().contains("is already in progress").then_some(())
    });
    daemon.wait_until_idle_for(patience);
    assert_eq!(witness.starts(), 1, "it was not run beside itself or again");
    let verdict = witness.verdict(&host);
    verdict.assert_nothing_lost();
    assert_eq!(verdict.done, 1);
    daemon.stop();
}

#[test]
fn a_task_longer_than_the_acknowledgement_timeout() {
    check_ack_timeout(10, 2_000, 30_000);
}

/// With the broker's own minute between two looks.
#[test]
#[ignore = "minutes: `cargo xtask soak` runs it"]
fn soak_ack_timeout() {
    check_ack_timeout(60, 60_000, 180_000);
}
