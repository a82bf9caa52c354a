//! A network cable that fails silently: neither the daemon nor the publisher gets an error, and the publisher
//! continues to publish. The daemon notices the fault, reconnects, and fetches the missed messages from the
//! archive.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use loopabull_testbed::{Cable, FedmsgPublisher};

use crate::archive::{Archive, now};
use crate::test_host::{Daemon, TestHost, wait_at_most, wait_for};

const TOPIC: &str = "org.example.prod.demo.hello";

/// A publisher behind a cable, and an archive of all its messages.
struct Sender {
    cable: Cable,
    publisher: FedmsgPublisher,
    archive: Archive,
    sent: BTreeSet<String>,
}

impl Sender {
    fn start() -> Self {
        let cable = Cable::start();
        let publisher = FedmsgPublisher::start_behind(&cable);
        Self { cable, publisher, archive: Archive::start(), sent: BTreeSet::new() }
    }

    fn publish(&mut self, count: u32) {
        for id in self.publisher.publish("demo", "hello", "{}", count) {
            // The archive stores the ids of fedora-messaging, which have no year.
            let (_, id) = id.split_once('-').unwrap();
            self.archive.add(now(), id, TOPIC);
            self.sent.insert(id.to_owned());
        }
    }

    fn publish_for(&mut self, duration: Duration) {
        let start = Instant::now();
        while start.elapsed() < duration {
            self.publish(2);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Publishes until one more message arrives over the cable.
    fn wait_for_one_more(&mut self, daemon: &Daemon) {
        let source = "loopabull_envelopes_received_total{source=\"fedmsg\"}";
        let came = || daemon.metric(source).unwrap_or_default();
        let before = came();
        wait_for("a message over the cable", || {
            self.publish(1);
            (came() > before).then_some(())
        });
    }
}

fn check(dead: Duration) {
    let host = TestHost::new();
    host.add_guest("hello", TOPIC, "", "i32.const 0");
    let mut sender = Sender::start();
    let endpoint = sender.publisher.endpoint();
    let source = format!("endpoints = [{{ address = '{endpoint}', heartbeat = '1s' }}]");
    let archive = sender.archive.settings();
    host.write("loopabull.toml", format!("[fedmsg]\nverify = 'off'\n{source}\n{archive}"));
    let daemon = host.start(&["--config", "loopabull.toml"]);
    let of_endpoint = |name: &str| {
        daemon.metric(&format!("loopabull_{name}{{endpoint=\"{endpoint}\"}}")).unwrap_or_default()
    };
    sender.wait_for_one_more(&daemon);
    sender.cable.cut();
    sender.publish_for(dead);
    assert_eq!(of_endpoint("source_connected"), 0.0, "the daemon did not notice the dead cable");
    sender.cable.mend();
    sender.wait_for_one_more(&daemon);
    wait_for("the metrics to show the connection", || {
        (of_endpoint("source_connected") == 1.0).then_some(())
    });
    assert!(of_endpoint("source_disconnects_total") >= 1.0, "the disconnect was not counted");
    let expected = sender.sent.len();
    wait_at_most(Duration::from_mins(3), "the missed messages to run", || {
        (daemon.count("runs") as usize >= expected).then_some(())
    });
    daemon.wait_until_idle();
    daemon.stop();
    let ids: Vec<String> = host.runs().iter().map(|run| run.message_id.to_string()).collect();
    // Only the ids of messages that arrived over the cable begin with the year.
    let without_year = |id: &String| match id.split_once('-') {
        Some((year, rest)) if year.len() == 4 => rest.to_owned(),
        _ => id.clone(),
    };
    let found: BTreeSet<String> = ids.iter().map(without_year).collect();
    assert_eq!(found, sender.sent);
    assert_eq!(ids.len(), expected, "a message was run twice");
}

#[test]
fn a_cable_dead_for_seconds_loses_no_message() {
    check(Duration::from_secs(5));
}

#[test]
fn a_cable_dead_for_forty_seconds_loses_no_message() {
    check(Duration::from_secs(40));
}

#[test]
#[ignore = "five minutes: `cargo xtask soak` runs it"]
fn soak_a_cable_dead_for_five_minutes_loses_no_message() {
    check(Duration::from_mins(5));
}
