//! Faults of the broker and of the network. Each fault strikes while a host publishes and runs messages,
//! and the auditor checks that no message is lost.

use std::time::Duration;

use loopabull_testbed::{Proxy, Rabbit};

use crate::auditor::{Auditor, MIXED};
use crate::test_host::{Daemon, wait_at_most, wait_for};

const MESSAGES: usize = 100;
/// The URL parameter for a short heartbeat interval, so that a dead connection is noticed within seconds.
const HEARTBEAT: &str = "?heartbeat=2";

/// Publishes and runs messages while `harm` causes and repairs a fault twice.
fn check(rabbit: &Rabbit, url: &str, harm: impl Fn(&Daemon) + Sync) {
    let auditor = Auditor::new(&["--amqp-url", url], 5);
    let host = auditor.host();
    let daemon = auditor.start(&host, &[]);
    auditor.publish_during(&host, MESSAGES, MIXED, || {
        for round in 1..=2 {
            auditor.wait_for_starts(round * MESSAGES / 6);
            harm(&daemon);
        }
    });
    // Every fault is repaired by now.
    wait_for("the daemon to become ready", || (daemon.get("/readyz").0 == 200).then_some(()));
    daemon.wait_until_idle();
    let verdict = auditor.verdict(&host);
    println!("{verdict}");
    verdict.assert_nothing_lost();
    assert!(verdict.unexpected.is_empty() && verdict.over_limit.is_empty(), "{verdict}");
    // With one host and one journal, a redelivered entry that has succeeded is not run again.
    assert!(verdict.duplicated.is_empty() && verdict.overlapping.is_empty(), "{verdict}");
    assert!(verdict.dead == 0, "{verdict}");
    assert!(verdict.confirmed >= MESSAGES, "{verdict}");
    assert!(rabbit.is_running());
    daemon.stop();
}

fn wait_until_not_ready(daemon: &Daemon) {
    wait_for("the daemon to become unready", || (daemon.get("/readyz").0 == 503).then_some(()));
}

#[test]
fn nothing_is_lost_when_the_broker_is_killed() {
    let rabbit = Rabbit::start();
    check(&rabbit, &rabbit.vhost().url(), |daemon| {
        rabbit.kill();
        wait_until_not_ready(daemon);
        rabbit.restart();
    });
}

#[test]
fn nothing_is_lost_when_the_broker_is_stopped_and_started() {
    let rabbit = Rabbit::start();
    check(&rabbit, &rabbit.vhost().url(), |daemon| {
        rabbit.stop_app();
        wait_until_not_ready(daemon);
        rabbit.start_app();
    });
}

#[test]
fn nothing_is_lost_when_all_connections_are_closed() {
    let rabbit = Rabbit::start();
    check(&rabbit, &rabbit.vhost().url(), |_| rabbit.close_all_connections("a test"));
}

#[test]
fn nothing_is_lost_when_the_broker_runs_short_of_memory_and_disk() {
    let rabbit = Rabbit::start();
    // An alarm blocks connections that publish. Workers only acknowledge, so they continue.
    check(&rabbit, &rabbit.vhost().url(), |_| {
        for alarm in [Rabbit::set_memory_alarm, Rabbit::set_disk_alarm] {
            alarm(&rabbit, true);
            std::thread::sleep(Duration::from_secs(2));
            alarm(&rabbit, false);
        }
    });
}

/// The connection stays open but carries nothing, so only the heartbeat reveals the fault.
#[test]
fn nothing_is_lost_when_the_network_falls_silent() {
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
fn nothing_is_lost_when_the_network_stalls_and_is_cut() {
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

/// The messages that wait in a queue are lost when the queue is deleted. So the test deletes the queues while
/// no message waits. It checks that the running tasks complete.
#[test]
fn deleted_queues_are_created_again_and_the_runs_complete() {
    let rabbit = Rabbit::shared();
    let vhost = rabbit.vhost();
    let auditor = Auditor::new(&["--amqp-url", &vhost.url()], 5);
    let host = auditor.host();
    let daemon = auditor.start(&host, &["--workers", "2"]);
    for round in 0..3 {
        auditor.publish(&host, round * 2..round * 2 + 2, r#"{"sleep_ms":3000}"#);
        auditor.wait_for_starts(round * 2 + 2);
        for queue in ["workers", "workers.dead", "workers.wait.1s", "workers.wait.10s"] {
            vhost.delete_queue(queue);
        }
        auditor.wait_until_done(&host, round * 2 + 2);
        daemon.wait_until_idle();
    }
    let verdict = auditor.verdict(&host);
    verdict.assert_nothing_lost();
    assert_eq!((verdict.done, verdict.duplicated.len()), (6, 0), "{verdict}");
    daemon.stop();
}

/// After SIGTERM while the broker is down, the daemon finishes and records its runs and exits in time. The
/// next daemon does not repeat these runs.
#[test]
fn a_drain_without_the_broker_loses_nothing() {
    let rabbit = Rabbit::start();
    let auditor = Auditor::new(&["--amqp-url", &rabbit.vhost().url()], 5);
    let host = auditor.host();
    let daemon = auditor.start(&host, &["--workers", "2"]);
    auditor.publish(&host, 0..6, r#"{"sleep_ms":2000}"#);
    auditor.wait_for_starts(2);
    rabbit.kill();
    daemon.signal("TERM");
    // The daemon must have exited by itself. Its exit code may be 0 or 1, depending on whether the deliveries
    // could be requeued.
    assert!(daemon.wait().is_some());
    assert_eq!(host.runs().len(), 2, "{}", host.log());
    rabbit.restart();
    let daemon = auditor.start(&host, &["--workers", "2"]);
    auditor.wait_until_done(&host, 6);
    daemon.wait_until_idle();
    let verdict = auditor.verdict(&host);
    verdict.assert_nothing_lost();
    assert_eq!((verdict.done, verdict.duplicated.len()), (6, 0), "{verdict}");
    assert_eq!(auditor.starts(), 6);
    daemon.stop();
}

/// Checks that an entry runs only once if its task outlasts the acknowledgement timeout. The broker
/// redelivers the entry during the run, and the second delivery waits until the run has ended.
fn check_ack_timeout(seconds: u64, tick_ms: u64, task_ms: u64) {
    let rabbit = Rabbit::start_with(&[&format!("{{consumer_timeout, {}}}", seconds * 1000)]);
    // Sets the interval at which the broker checks new channels for the timeout. A configuration file
    // cannot set it in RabbitMQ 3.10.
    let tick = format!("application:set_env(rabbit, channel_tick_interval, {tick_ms})");
    rabbit.eval(&tick);
    let url = rabbit.vhost().url();
    let auditor = Auditor::new(&["--amqp-url", &url], 5);
    let host = auditor.host_with(&format!("consumer_timeout = '{seconds}s'"));
    if !rabbit.lacks_queue_timeouts() {
        // Our queues have a timeout of a day, whatever the broker's is.
        let daemon = auditor.start(&host, &["--workers", "3"]);
        auditor.publish(&host, 0..1, &format!(r#"{{"sleep_ms":{task_ms}}}"#));
        auditor.wait_until_done(&host, 1);
        daemon.wait_until_idle();
        assert!(!host.log().contains("is already in progress"), "{}", host.log());
        assert_eq!(auditor.starts(), 1);
        return daemon.stop();
    }
    let output = host.run(&auditor.with(&["--listen", "127.0.0.1:0"]));
    let said = crate::test_host::text(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("task `record` may run for 15m, but RabbitMQ redelivers"), "{said}");
    assert!(said.contains("put `consumer_timeout = 1200000` into rabbitmq.conf"), "{said}");

    let config = std::fs::read_to_string(host.path("loopabull.toml")).unwrap();
    host.write("loopabull.toml", format!("ignore_consumer_timeout = true\n{config}"));
    let daemon = auditor.start(&host, &["--workers", "3"]);
    auditor.publish(&host, 0..1, &format!(r#"{{"sleep_ms":{task_ms}}}"#));
    let limit = Duration::from_millis(task_ms) + crate::test_host::WAIT_LIMIT;
    wait_at_most(limit, "the redelivery", || {
        host.log().contains("is already in progress").then_some(())
    });
    daemon.wait_until_idle_for(limit);
    assert_eq!(auditor.starts(), 1, "the redelivered entry was run");
    let verdict = auditor.verdict(&host);
    verdict.assert_nothing_lost();
    assert_eq!(verdict.done, 1);
    daemon.stop();
}

#[test]
fn a_task_that_outlasts_the_acknowledgement_timeout_runs_once() {
    check_ack_timeout(10, 2_000, 30_000);
}

/// Uses the broker's default interval between two checks of the timeout, which is one minute.
#[test]
#[ignore = "minutes: `cargo xtask soak` runs it"]
fn soak_ack_timeout_of_a_minute_does_not_repeat_a_longer_task() {
    check_ack_timeout(60, 60_000, 180_000);
}
