//! A cable that goes dead without a word: neither end hears of it, and the publisher goes on. It is
//! noticed, heals by itself, and what was missed is asked of the archive.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use loopabull_testbed::{Cable, FedmsgPublisher};

use crate::archive::{Archive, now};
use crate::bed::{Bed, Daemon, wait_at_most, wait_for};

const TOPIC: &str = "org.example.prod.demo.hello";

/// A publisher behind a cable, and an archive that has all it ever published.
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
            // The other bus, whose archive it is, writes them without the year.
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

    /// Publishes until one more message came over the cable.
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
    let bed = Bed::new();
    bed.add_guest("hello", TOPIC, "", "i32.const 0");
    let mut sender = Sender::start();
    let endpoint = sender.publisher.endpoint();
    let source = format!("endpoints = [{{ address = '{endpoint}', heartbeat = '1s' }}]");
    let archive = sender.archive.settings();
    bed.write("loopabull.toml", format!("[fedmsg]\nverify = 'off'\n{source}\n{archive}"));
    let daemon = bed.start(&["--config", "loopabull.toml"]);
    let of_endpoint = |name: &str| {
        daemon.metric(&format!("loopabull_{name}{{endpoint=\"{endpoint}\"}}")).unwrap_or_default()
    };
    sender.wait_for_one_more(&daemon);
    sender.cable.cut();
    sender.publish_for(dead);
    assert_eq!(of_endpoint("source_connected"), 0.0, "it was not noticed");
    sender.cable.mend();
    sender.wait_for_one_more(&daemon);
    wait_for("the connection to be told", || {
        (of_endpoint("source_connected") == 1.0).then_some(())
    });
    assert!(of_endpoint("source_disconnects_total") >= 1.0, "the gap is not to be seen");
    let expected = sender.sent.len();
    wait_at_most(Duration::from_mins(3), "what was missed", || {
        (daemon.count("runs") as usize >= expected).then_some(())
    });
    daemon.wait_until_idle();
    daemon.stop();
    let ids: Vec<String> = bed.runs().iter().map(|run| run.message_id.to_string()).collect();
    // Over the cable each came with the year.
    let without_year = |id: &String| match id.split_once('-') {
        Some((year, rest)) if year.len() == 4 => rest.to_owned(),
        _ => id.clone(),
    };
    let found: BTreeSet<String> = ids.iter().map(without_year).collect();
    assert_eq!(found, sender.sent);
    assert_eq!(ids.len(), expected, "none is run twice");
}

#[test]
fn a_cable_that_was_dead_for_seconds_heals_and_nothing_is_missing() {
    check(Duration::from_secs(5));
}

#[test]
fn a_cable_that_was_dead_for_long_heals_and_nothing_is_missing() {
    check(Duration::from_secs(40));
}

#[test]
#[ignore = "five minutes: `cargo xtask soak` runs it"]
fn soak_a_cable_that_was_dead_for_minutes_heals_and_nothing_is_missing() {
    check(Duration::from_mins(5));
}
