//! The bus that is alive: the real fedora-messaging publishes into a topic exchange, and each message
//! is acknowledged only when our own queue has it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use loopabull_testbed::{Rabbit, Vhost, python};
use serde_json::{Value, json};

use crate::bed::{Bed, Daemon, wait_at_most, wait_for};

const TOPIC: &str = "org.fedoraproject.prod.thing.new";
const QUEUE: &str = "00000000-0000-4000-8000-000000000001";

/// The original, which publishes what it is told.
struct Publisher {
    process: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Publisher {
    fn start(bed: &Bed, url: &str) -> Self {
        bed.write("publisher.toml", format!("amqp_url = '{url}'\n"));
        let script = include_str!("../../host/crates/fedora-messaging/tests/bus/publisher.py");
        let mut process = Command::new(python())
            .args(["-W", "ignore", "-c", script])
            .arg(bed.path("publisher.toml"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let commands = process.stdin.take().unwrap();
        let mut answers = BufReader::new(process.stdout.take().unwrap()).lines();
        assert_eq!(answers.next().unwrap().unwrap(), "ready");
        Self { process, commands, answers }
    }

    /// Publishes, and returns the id.
    fn publish(&mut self, command: &Value) -> Option<String> {
        writeln!(self.commands, "{command}").unwrap();
        serde_json::from_str(&self.answers.next().unwrap().unwrap()).unwrap()
    }

    fn numbers(&mut self, numbers: std::ops::Range<u32>) -> BTreeSet<String> {
        let body = |number| json!({"topic": TOPIC, "body": {"n": number}});
        numbers.map(|number| self.publish(&body(number)).unwrap()).collect()
    }

    /// Publishes bytes as they are, under these properties.
    fn raw(&mut self, topic: &str, body: &[u8], properties: &Value) {
        let hex: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
        self.publish(&json!({"topic": topic, "raw": hex, "properties": properties}));
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// A bus, its publisher, and a bed whose task wants its topic.
fn start() -> (Bed, Vhost, Publisher) {
    let vhost = Rabbit::shared().vhost();
    let bed = Bed::new();
    bed.add_guest("thing", "org.fedoraproject.*.thing.new", "", "i32.const 0");
    // The file that an operator of fedora-messaging has already.
    let url = vhost.url();
    let queue =
        format!("[queues.{QUEUE}]\ndurable = true\nauto_delete = false\nexclusive = false\n");
    let binding = format!(
        "[[bindings]]\nqueue = '{QUEUE}'\nexchange = 'amq.topic'\nrouting_keys = ['org.fedoraproject.#']\n"
    );
    let rest = "callback = 'x:y'\n[qos]\nprefetch_size = 0\nprefetch_count = 5\n";
    let file = format!("amqp_url = '{url}'\n{rest}{queue}arguments = {{}}\n{binding}");
    bed.write("config.toml", file);
    let publisher = Publisher::start(&bed, &url);
    (bed, vhost, publisher)
}

/// Starts the daemon and waits until it consumes.
fn consume(bed: &Bed, arguments: &[&str]) -> Daemon {
    let daemon = bed.start(&[&["--fedora-messaging", "config.toml"], arguments].concat());
    wait_for("the bus to be consumed", || {
        let metrics = daemon.get("/metrics").1;
        let line = metrics.lines().find(|line| line.starts_with("loopabull_source_connected"))?;
        line.ends_with(" 1").then_some(())
    });
    daemon
}

fn ids(bed: &Bed) -> BTreeSet<String> {
    bed.runs().iter().map(|run| run.message_id.to_string()).collect()
}

#[test]
fn messages_of_the_bus_are_run_once_each() {
    let (bed, vhost, mut publisher) = start();
    bed.add_playbook(
        "headers",
        &format!("topics = ['{TOPIC}']"),
        "    - debug: { msg: \"{{ msg.n }} {{ loopabull.headers | flatten | join(' ') }}\" }\n",
    );
    let daemon = consume(&bed, &[]);
    let mut sent = publisher.numbers(0..20);
    // The same message again, as a bridge or a reconnect would, and with the year of fedmsg.
    let again = sent.first().unwrap().clone();
    for id in [again.clone(), format!("2026-{again}")] {
        publisher.raw(TOPIC, b"{\"n\": 0}", &json!({"message_id": id}));
    }
    sent.extend([publisher.publish(&json!({"topic": TOPIC, "body": {"n": 99}})).unwrap()]);
    wait_at_most(Duration::from_secs(300), "all runs", || {
        (daemon.count("runs") >= 2 * sent.len() as u64).then_some(())
    });
    daemon.wait_until_idle();
    let twice = daemon.metric("loopabull_entries_duplicate_total");
    assert_eq!(twice, Some(4.0), "two messages for two tasks");
    daemon.stop();
    assert_eq!(ids(&bed), sent);
    let runs = bed.runs();
    assert_eq!(runs.len(), 2 * sent.len());
    let said = runs.iter().find(|run| run.task.as_str() == "headers").unwrap();
    assert!(said.output.text.contains("fedora_messaging_severity 20"), "{}", said.output.text);
    // All were acknowledged: the queue is empty, and stays.
    assert!(vhost.list_queues().contains(&format!("{QUEUE}\t0")), "{}", vhost.list_queues());
}

/// Python's consumer loses the first three, and ends at the fourth, again and again.
#[test]
fn what_cannot_be_used_is_parked_with_its_reason_and_does_not_come_again() {
    let (bed, vhost, mut publisher) = start();
    let daemon = consume(&bed, &[]);
    publisher.raw(TOPIC, b"no JSON", &json!({"message_id": "m-1"}));
    publisher.raw(TOPIC, b"[1]", &json!({"message_id": "m-2"}));
    publisher.raw(TOPIC, b"\"\xff\"", &json!({"message_id": "m-3"}));
    publisher.raw(TOPIC, b"{}", &json!({"message_id": "m-4", "content_encoding": "hex"}));
    publisher.raw("org.fedoraproject.a/b", b"{}", &json!({"message_id": "m-5"}));
    let good = publisher.numbers(0..1);
    wait_for("the good one", || (daemon.count("runs") == 1).then_some(()));
    let mut parked = Vec::new();
    for file in fs::read_dir(bed.path("state/parked")).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let one: Value = serde_json::from_str(&text).unwrap();
        assert!(!one["reason"].as_str().unwrap().is_empty());
        parked.push((one["id"].as_str().unwrap().to_owned(), one["topic"].clone()));
    }
    parked.sort_by(|one, other| one.0.cmp(&other.0));
    let found: Vec<_> = parked.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(found, ["m-1", "m-2", "m-3", "m-4", "m-5"]);
    assert_eq!(daemon.count("rejected"), 5);
    daemon.stop();
    assert_eq!(ids(&bed), good);
    assert!(vhost.list_queues().contains(&format!("{QUEUE}\t0")), "{}", vhost.list_queues());
}

/// The library that reads AMQP has no limit for tables in tables, and died of them.
#[test]
fn a_header_of_many_levels_ends_nothing() {
    let (bed, vhost, mut publisher) = start();
    let daemon = consume(&bed, &[]);
    for levels in [1000, 20_000] {
        publisher.publish(&json!({"topic": TOPIC, "raw": "7b7d", "nested": levels}));
    }
    let good = publisher.numbers(0..1);
    wait_for("the good one", || ids(&bed).is_superset(&good).then_some(()));
    daemon.wait_until_idle();
    daemon.stop();
    assert!(vhost.list_queues().contains(&format!("{QUEUE}\t0")), "{}", vhost.list_queues());
}

#[test]
fn a_message_is_acknowledged_only_when_our_queue_has_it() {
    let (bed, vhost, mut publisher) = start();
    let work = Rabbit::start();
    let url = work.vhost().url();
    let daemon = consume(&bed, &["--amqp-url", &url]);
    let mut sent = publisher.numbers(0..3);
    wait_for("the first runs", || (daemon.count("runs") == 3).then_some(()));
    work.kill();
    sent.append(&mut publisher.numbers(3..13));
    wait_for("the trouble", || {
        daemon.get("/readyz").1.contains("messages wait there").then_some(())
    });
    // What was not taken is the bus's, also if the daemon dies now.
    assert!(vhost.list_queues().contains(&format!("{QUEUE}\t10")), "{}", vhost.list_queues());
    daemon.signal("KILL");
    daemon.wait();
    work.restart();
    let daemon = consume(&bed, &["--amqp-url", &url]);
    wait_at_most(Duration::from_secs(300), "all runs", || (ids(&bed) == sent).then_some(()));
    daemon.wait_until_idle();
    daemon.stop();
    assert_eq!(bed.runs().len(), sent.len(), "one was run twice");
    assert!(vhost.list_queues().contains(&format!("{QUEUE}\t0")), "{}", vhost.list_queues());
}

#[test]
fn a_bus_that_is_away_is_no_reason_not_to_start_and_is_found_when_it_comes() {
    let bus = Rabbit::start();
    let bed = Bed::new();
    bed.add_guest("thing", TOPIC, "", "i32.const 0");
    let url = bus.vhost().url();
    let settings = format!(
        "[fedora_messaging]\namqp_url = '{url}'\nqueue = {{ name = '{QUEUE}' }}\n\
         bindings = [{{ exchange = 'amq.topic', routing_keys = ['{TOPIC}'] }}]\n"
    );
    bed.write("loopabull.toml", settings);
    bus.kill();
    let daemon = bed.start(&["--config", "loopabull.toml"]);
    wait_for("the trouble to be told", || {
        let said = bed.run(&["status", "--state", "state"]);
        crate::bed::text(&said.stdout).contains("connect").then_some(())
    });
    bus.restart();
    wait_for("the bus to be consumed", || {
        let metrics = daemon.get("/metrics").1;
        let line = metrics.lines().find(|line| line.starts_with("loopabull_source_connected"))?;
        line.ends_with(" 1").then_some(())
    });
    let mut publisher = Publisher::start(&bed, &url);
    let sent = publisher.numbers(0..1);
    wait_for("the run", || (ids(&bed) == sent).then_some(()));
    daemon.stop();
}

#[test]
fn a_configuration_file_that_cannot_be_used_is_named() {
    let bed = Bed::new();
    bed.write("config.toml", "amqp_urls = 'x'\n");
    let output = bed.run(&["--fedora-messaging", "config.toml"]);
    let said = crate::bed::text(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("config.toml") && said.contains("amqp_urls"), "{said}");
}
