//! The bus of fedora-messaging. The real Python library publishes to a topic exchange. The daemon
//! acknowledges a message only after the message is in the daemon's own queue.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use loopabull_testbed::{Rabbit, Vhost, python};
use serde_json::{Value, json};

use crate::test_host::{Daemon, TestHost, wait_at_most, wait_for};

const TOPIC: &str = "org.fedoraproject.prod.thing.new";
const QUEUE: &str = "00000000-0000-4000-8000-000000000001";

/// A Python process that publishes a message with the Python library for each command.
struct Publisher {
    process: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Publisher {
    fn start(host: &TestHost, url: &str) -> Self {
        host.write("publisher.toml", format!("amqp_url = '{url}'\n"));
        let script = include_str!("../../host/crates/fedora-messaging/tests/bus/publisher.py");
        let mut process = Command::new(python())
            .args(["-W", "ignore", "-c", script])
            .arg(host.path("publisher.toml"))
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

    /// Publishes a message, and returns its id.
    fn publish(&mut self, command: &Value) -> Option<String> {
        writeln!(self.commands, "{command}").unwrap();
        serde_json::from_str(&self.answers.next().unwrap().unwrap()).unwrap()
    }

    fn numbers(&mut self, numbers: std::ops::Range<u32>) -> BTreeSet<String> {
        let body = |number| json!({"topic": TOPIC, "body": {"n": number}});
        numbers.map(|number| self.publish(&body(number)).unwrap()).collect()
    }

    /// Publishes these bytes unchanged, with these properties.
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

/// Returns a test host with a task for the topic, the vhost of the bus, and a publisher on the bus.
fn start() -> (TestHost, Vhost, Publisher) {
    let vhost = Rabbit::shared().vhost();
    let host = TestHost::new();
    host.add_guest("thing", "org.fedoraproject.*.thing.new", "", "i32.const 0");
    // Consumers of fedora-messaging have a configuration file like this one.
    let url = vhost.url();
    let queue =
        format!("[queues.{QUEUE}]\ndurable = true\nauto_delete = false\nexclusive = false\n");
    let binding = format!(
        "[[bindings]]\nqueue = '{QUEUE}'\nexchange = 'amq.topic'\nrouting_keys = ['org.fedoraproject.#']\n"
    );
    let rest = "callback = 'x:y'\n[qos]\nprefetch_size = 0\nprefetch_count = 5\n";
    let file = format!("amqp_url = '{url}'\n{rest}{queue}arguments = {{}}\n{binding}");
    host.write("config.toml", file);
    let publisher = Publisher::start(&host, &url);
    (host, vhost, publisher)
}

/// Starts the daemon and waits until it consumes from the bus.
fn consume(host: &TestHost, arguments: &[&str]) -> Daemon {
    let daemon = host.start(&[&["--fedora-messaging", "config.toml"], arguments].concat());
    wait_for("the daemon to consume from the bus", || {
        let metrics = daemon.get("/metrics").1;
        let line = metrics.lines().find(|line| line.starts_with("loopabull_source_connected"))?;
        line.ends_with(" 1").then_some(())
    });
    daemon
}

fn ids(host: &TestHost) -> BTreeSet<String> {
    host.runs().iter().map(|run| run.message_id.to_string()).collect()
}

#[test]
fn each_message_of_the_bus_is_run_once_per_task() {
    let (host, vhost, mut publisher) = start();
    host.add_playbook(
        "headers",
        &format!("topics = ['{TOPIC}']"),
        "    - debug: { msg: \"{{ msg.n }} {{ loopabull.headers | flatten | join(' ') }}\" }\n",
    );
    let daemon = consume(&host, &[]);
    let mut sent = publisher.numbers(0..20);
    // A bridge or a reconnecting publisher may publish a message again, with the same id or with the year and
    // a dash before the id.
    let again = sent.first().unwrap().clone();
    for id in [again.clone(), format!("2026-{again}")] {
        publisher.raw(TOPIC, b"{\"n\": 0}", &json!({"message_id": id}));
    }
    sent.extend([publisher.publish(&json!({"topic": TOPIC, "body": {"n": 99}})).unwrap()]);
    wait_at_most(Duration::from_secs(300), "all runs", || {
        (daemon.count("runs") >= 2 * sent.len() as u64).then_some(())
    });
    daemon.wait_until_idle();
    let twice = daemon.metric("loopabull_entries_deduplicated_total");
    assert_eq!(twice, Some(4.0), "two duplicates for each of two tasks");
    daemon.stop();
    assert_eq!(ids(&host), sent);
    let runs = host.runs();
    assert_eq!(runs.len(), 2 * sent.len());
    let said = runs.iter().find(|run| run.task.as_str() == "headers").unwrap();
    assert!(said.output.text.contains("fedora_messaging_severity 20"), "{}", said.output.text);
    // The queue still exists and is empty, so all messages were acknowledged.
    assert!(vhost.list_queues().contains(&format!("{QUEUE}\t0")), "{}", vhost.list_queues());
}

/// The Python consumer would lose the first three of these messages, and exit at each delivery of the fourth.
#[test]
fn an_invalid_delivery_is_quarantined_with_its_reason_and_acknowledged() {
    let (host, vhost, mut publisher) = start();
    let daemon = consume(&host, &[]);
    publisher.raw(TOPIC, b"no JSON", &json!({"message_id": "m-1"}));
    publisher.raw(TOPIC, b"[1]", &json!({"message_id": "m-2"}));
    publisher.raw(TOPIC, b"\"\xff\"", &json!({"message_id": "m-3"}));
    publisher.raw(TOPIC, b"{}", &json!({"message_id": "m-4", "content_encoding": "hex"}));
    publisher.raw("org.fedoraproject.a/b", b"{}", &json!({"message_id": "m-5"}));
    let good = publisher.numbers(0..1);
    wait_for("the valid message to run", || (daemon.count("runs") == 1).then_some(()));
    let mut quarantined = Vec::new();
    for file in fs::read_dir(host.path("state/quarantine")).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let one: Value = serde_json::from_str(&text).unwrap();
        assert!(!one["reason"].as_str().unwrap().is_empty());
        quarantined.push((one["id"].as_str().unwrap().to_owned(), one["topic"].clone()));
    }
    quarantined.sort_by(|one, other| one.0.cmp(&other.0));
    let found: Vec<_> = quarantined.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(found, ["m-1", "m-2", "m-3", "m-4", "m-5"]);
    assert_eq!(daemon.count("rejected"), 5);
    daemon.stop();
    assert_eq!(ids(&host), good);
    assert!(vhost.list_queues().contains(&format!("{QUEUE}\t0")), "{}", vhost.list_queues());
}

/// The AMQP library has no depth limit for nested tables. Deep tables used to crash the daemon.
#[test]
fn a_deeply_nested_header_does_not_stop_the_daemon() {
    let (host, vhost, mut publisher) = start();
    let daemon = consume(&host, &[]);
    for levels in [1000, 20_000] {
        publisher.publish(&json!({"topic": TOPIC, "raw": "7b7d", "nested": levels}));
    }
    let good = publisher.numbers(0..1);
    wait_for("the valid message to run", || ids(&host).is_superset(&good).then_some(()));
    daemon.wait_until_idle();
    daemon.stop();
    assert!(vhost.list_queues().contains(&format!("{QUEUE}\t0")), "{}", vhost.list_queues());
}

#[test]
fn a_message_is_acknowledged_only_when_our_queue_has_it() {
    let (host, vhost, mut publisher) = start();
    let work = Rabbit::start();
    let url = work.vhost().url();
    let daemon = consume(&host, &["--amqp-url", &url]);
    let mut sent = publisher.numbers(0..3);
    wait_for("the first runs", || (daemon.count("runs") == 3).then_some(()));
    work.kill();
    sent.append(&mut publisher.numbers(3..13));
    wait_for("the problem to be reported", || {
        daemon.get("/readyz").1.contains("messages wait at the source").then_some(())
    });
    // Unacknowledged messages stay on the bus, even if the daemon dies now.
    assert!(vhost.list_queues().contains(&format!("{QUEUE}\t10")), "{}", vhost.list_queues());
    daemon.signal("KILL");
    daemon.wait();
    work.restart();
    let daemon = consume(&host, &["--amqp-url", &url]);
    wait_at_most(Duration::from_secs(300), "all runs", || (ids(&host) == sent).then_some(()));
    daemon.wait_until_idle();
    daemon.stop();
    assert_eq!(host.runs().len(), sent.len(), "a message was run twice");
    assert!(vhost.list_queues().contains(&format!("{QUEUE}\t0")), "{}", vhost.list_queues());
}

#[test]
fn the_daemon_starts_without_the_bus_and_connects_when_it_is_back() {
    let bus = Rabbit::start();
    let host = TestHost::new();
    host.add_guest("thing", TOPIC, "", "i32.const 0");
    let url = bus.vhost().url();
    let settings = format!(
        "[fedora_messaging]\namqp_url = '{url}'\nqueue = {{ name = '{QUEUE}' }}\n\
         bindings = [{{ exchange = 'amq.topic', routing_keys = ['{TOPIC}'] }}]\n"
    );
    host.write("loopabull.toml", settings);
    bus.kill();
    let daemon = host.start(&["--config", "loopabull.toml"]);
    wait_for("the status to report the failed connection", || {
        let said = host.run(&["status", "--state", "state"]);
        crate::test_host::text(&said.stdout).contains("connect").then_some(())
    });
    bus.restart();
    wait_for("the daemon to consume from the bus", || {
        let metrics = daemon.get("/metrics").1;
        let line = metrics.lines().find(|line| line.starts_with("loopabull_source_connected"))?;
        line.ends_with(" 1").then_some(())
    });
    let mut publisher = Publisher::start(&host, &url);
    let sent = publisher.numbers(0..1);
    wait_for("the run", || (ids(&host) == sent).then_some(()));
    daemon.stop();
}

#[test]
fn an_invalid_configuration_file_is_named_in_the_error() {
    let host = TestHost::new();
    host.write("config.toml", "amqp_urls = 'x'\n");
    let output = host.run(&["--fedora-messaging", "config.toml"]);
    let said = crate::test_host::text(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("config.toml") && said.contains("amqp_urls"), "{said}");
}
