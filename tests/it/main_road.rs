//! The whole path of a message: the real Python fedmsg publishes, the right task runs for each message, and
//! the journal has exactly one run for each message. The tests use the embedded queue and RabbitMQ.

use std::collections::BTreeMap;

use loopabull_model::Run;
use loopabull_testbed::{FedmsgPublisher, Rabbit};

use crate::test_host::{Daemon, TestHost, wait_for};

const GREETINGS: u32 = 40;
const HELLOS: u32 = 6;

fn host() -> TestHost {
    let host = TestHost::new();
    host.add_example("greet");
    let say = "    - debug: { msg: '{{ msg.from }} in {{ loopabull.topic }}' }\n";
    host.add_playbook("org.example.prod.demo.hello", "", say);
    host
}

/// Publishes pings until one of them arrives. A publisher drops all messages before it has received the
/// subscription.
fn wait_until_subscribed(publisher: &mut FedmsgPublisher, daemon: &Daemon) {
    wait_for("the first message", || {
        publisher.publish("test", "ping", "{}", 1);
        (daemon.count("accepted") > 0).then_some(())
    });
}

fn publish_everything(publisher: &mut FedmsgPublisher) -> BTreeMap<String, &'static str> {
    let greeting = r#"{"from":"ä {{ 7 * 7 }}","text":"one two three"}"#;
    let greetings = publisher.publish("greeting", "new", greeting, GREETINGS);
    let hellos = publisher.publish("demo", "hello", r#"{"from":"{{ 7 * 7 }}"}"#, HELLOS);
    publisher.publish("demo", "nobody.wants.this", "{}", 3);
    let greetings = greetings.into_iter().map(|id| (id, "greet"));
    greetings.chain(hellos.into_iter().map(|id| (id, "org.example.prod.demo.hello"))).collect()
}

fn check_journal(runs: &[Run], expected: &BTreeMap<String, &'static str>) {
    let found: Vec<(String, &str)> =
        runs.iter().map(|run| (run.message_id.to_string(), run.task.as_str())).collect();
    let distinct: BTreeMap<String, &str> = found.iter().cloned().collect();
    assert_eq!(found.len(), distinct.len(), "a message was run twice");
    let expected: BTreeMap<String, &str> =
        expected.iter().map(|(id, &task)| (id.clone(), task)).collect();
    assert_eq!(distinct, expected);
    assert!(runs.iter().all(|run| run.outcome.is_success() && run.attempt == 1));
    let greeting = runs.iter().find(|run| run.task.as_str() == "greet").unwrap();
    assert!(greeting.output.text.contains("ä {{ 7 * 7 }}"), "{}", greeting.output.text);
    let hello = runs.iter().find(|run| run.task.as_str() != "greet").unwrap();
    assert!(
        hello.output.text.contains("{{ 7 * 7 }} in org.example.prod.demo.hello"),
        "{}",
        hello.output.text
    );
}

#[test]
fn messages_of_the_real_fedmsg_are_run_once_through_rabbitmq() {
    let vhost = Rabbit::shared().vhost();
    let (host, url) = (host(), vhost.url());
    let mut publisher = FedmsgPublisher::start();
    let endpoint = publisher.endpoint();
    let daemon =
        host.start(&["--workers", "5", "--unsigned", "--fedmsg", &endpoint, "--amqp-url", &url]);
    wait_until_subscribed(&mut publisher, &daemon);
    let expected = publish_everything(&mut publisher);
    wait_for("all runs", || (daemon.count("runs") as usize >= expected.len()).then_some(()));
    assert!(vhost.list_queues().contains("workers\t"));
    daemon.wait_until_idle();
    daemon.stop();
    assert!(!host.log().contains("\"ERROR\""), "{}", host.log());
    let queues = [
        ".dead",
        ".held.greet",
        ".retry",
        ".wait.10m",
        ".wait.10s",
        ".wait.1h",
        ".wait.1m",
        ".wait.1s",
    ];
    let empty: String = queues.iter().map(|name| format!("\nworkers{name}\t0")).collect();
    vhost.wait_for_queues(&format!("workers\t0{empty}"));
    check_journal(&host.runs(), &expected);
}

/// With several machines, one host can receive messages and another host can run their tasks.
#[test]
fn one_host_ingests_messages_and_another_runs_their_tasks() {
    let vhost = Rabbit::shared().vhost();
    let (ingest_host, work_host, url) = (host(), host(), vhost.url());
    let mut publisher = FedmsgPublisher::start();
    let endpoint = publisher.endpoint();
    let source = ["--unsigned", "--fedmsg", &endpoint, "--amqp-url", &url];
    let ingest = ingest_host.start(&[&["--role", "ingest"], &source[..]].concat());
    let work = work_host.start(&[&["--role", "work"], &source[..]].concat());
    wait_until_subscribed(&mut publisher, &ingest);
    let expected = publish_everything(&mut publisher);
    wait_for("all runs", || (work.count("runs") as usize >= expected.len()).then_some(()));
    work.wait_until_idle();
    assert_eq!(work.count("accepted"), 0);
    work.stop();
    ingest.stop();
    assert!(ingest_host.runs().is_empty());
    check_journal(&work_host.runs(), &expected);
}

#[test]
fn messages_of_the_real_fedmsg_are_run_once_through_the_embedded_queue() {
    let host = host();
    let mut publisher = FedmsgPublisher::start();
    let endpoint = publisher.endpoint();
    let daemon = host.start(&["--workers", "5", "--unsigned", "--fedmsg", &endpoint]);
    wait_until_subscribed(&mut publisher, &daemon);
    let expected = publish_everything(&mut publisher);
    wait_for("all runs", || (daemon.count("runs") as usize >= expected.len()).then_some(()));
    daemon.wait_until_idle();
    assert_eq!(daemon.get("/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(daemon.get("/livez").0, 200);
    let published = daemon.metric("loopabull_entries_published_total{task=\"greet\"}");
    assert_eq!(published, Some(f64::from(GREETINGS)));
    assert!(daemon.count("unrouted") >= 3);
    daemon.stop();
    check_journal(&host.runs(), &expected);
}
