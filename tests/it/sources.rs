//! The sources of messages. The daemon notices and replaces dead connections. It runs a message only once,
//! even if the message arrives several times.

use std::time::{Duration, Instant};

use loopabull_testbed::{FedmsgPublisher, Proxy};

use crate::test_host::{Daemon, Publisher, TestHost, message, wait_for};

const TOPIC: &str = "org.example.prod.demo.hello";

fn host() -> TestHost {
    let host = TestHost::new();
    host.add_guest("hello", TOPIC, "", "i32.const 0");
    host
}

fn send(publisher: &Publisher, id: &str) {
    let body = message(id, TOPIC, "{}");
    publisher.send(&[TOPIC.as_bytes(), body.as_bytes()]);
}

fn metric(daemon: &Daemon, name: &str) -> f64 {
    daemon.metric(name).unwrap_or_default()
}

fn of_endpoint(daemon: &Daemon, name: &str, endpoint: &str) -> f64 {
    metric(daemon, &format!("loopabull_{name}{{endpoint=\"{endpoint}\"}}"))
}

/// Publishes until the daemon has accepted one more message.
fn wait_for_one_more(publisher: &mut FedmsgPublisher, daemon: &Daemon) {
    let before = daemon.count("accepted");
    wait_for("a message", || {
        publisher.publish("demo", "hello", "{}", 1);
        (daemon.count("accepted") > before).then_some(())
    });
}

#[test]
fn messages_arrive_over_ipv6() {
    let listener = std::net::TcpListener::bind("[::1]:0").expect("this machine has IPv6");
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    drop(listener);
    let (host, publisher) = (host(), Publisher::start_at(endpoint));
    let daemon = host.start(&["--unsigned", "--fedmsg", &publisher.endpoint]);
    publisher.wait_for_subscriber();
    send(&publisher, "m-1");
    wait_for("the message to run", || (daemon.count("runs") == 1).then_some(()));
    daemon.stop();
}

#[test]
fn a_message_that_arrives_twice_is_run_once() {
    let host = host();
    let (one, other) = (Publisher::start(), Publisher::start());
    let endpoints = ["--unsigned", "--fedmsg", &one.endpoint, "--fedmsg", &other.endpoint];
    let daemon = host.start(&endpoints);
    one.wait_for_subscriber();
    other.wait_for_subscriber();
    // Each message arrives from two endpoints. It arrives a third time with an id without the year, as if it
    // came through a bridge from fedora-messaging.
    for number in 0..50 {
        send(&one, &format!("2026-{number}"));
        send(&other, &format!("2026-{number}"));
        send(&other, &format!("{number}"));
    }
    wait_for("all messages", || (daemon.count("accepted") == 150).then_some(()));
    daemon.wait_until_idle();
    assert_eq!(metric(&daemon, "loopabull_entries_deduplicated_total"), 100.0);
    daemon.stop();
    // The daemon still knows the ids after a restart.
    let daemon = host.start(&endpoints);
    wait_for("the run of the new message", || {
        send(&one, "2026-7");
        send(&one, "2026-50");
        (daemon.count("runs") > 0).then_some(())
    });
    daemon.wait_until_idle();
    daemon.stop();
    assert_eq!(host.tally(), [("hello success".to_owned(), 51)].into());
}

#[test]
fn without_a_deduplication_window_a_message_that_arrives_twice_is_run_twice() {
    let host = host();
    host.write("loopabull.toml", "[deduplication]\nwindow = '0s'\n");
    let publisher = Publisher::start();
    let source = ["--config", "loopabull.toml", "--unsigned", "--fedmsg", &publisher.endpoint];
    let daemon = host.start(&source);
    publisher.wait_for_subscriber();
    send(&publisher, "1");
    send(&publisher, "1");
    wait_for("the runs", || (daemon.count("runs") == 2).then_some(()));
    daemon.stop();
}

/// A frozen publisher keeps its connection open, but sends nothing.
#[test]
fn the_daemon_notices_a_frozen_publisher_and_reconnects() {
    let host = host();
    let mut publisher = FedmsgPublisher::start();
    let endpoint = publisher.endpoint();
    let settings = format!("endpoints = [{{ address = '{endpoint}', heartbeat = '1s' }}]");
    host.write("loopabull.toml", format!("[fedmsg]\nverify = 'off'\n{settings}\n"));
    let daemon = host.start(&["--config", "loopabull.toml"]);
    wait_for_one_more(&mut publisher, &daemon);
    assert_eq!(of_endpoint(&daemon, "source_connected", &endpoint), 1.0);
    freeze(&publisher, "STOP");
    wait_for("the loss of the connection", || {
        (of_endpoint(&daemon, "source_connected", &endpoint) == 0.0).then_some(())
    });
    let said = host.run(&["status"]);
    assert!(crate::test_host::text(&said.stdout).contains("the connection was lost"));
    freeze(&publisher, "CONT");
    wait_for_one_more(&mut publisher, &daemon);
    assert_eq!(of_endpoint(&daemon, "source_connected", &endpoint), 1.0);
    assert!(of_endpoint(&daemon, "source_disconnects_total", &endpoint) >= 1.0);
    daemon.stop();
}

fn freeze(publisher: &FedmsgPublisher, signal: &str) {
    let pid = publisher.id().to_string();
    let kill = std::process::Command::new("kill").args(["-s", signal, &pid]).status().unwrap();
    assert!(kill.success());
}

/// Without heartbeats, only the absence of messages shows that a connection is dead.
#[test]
fn a_silent_connection_is_replaced() {
    let host = host();
    let mut publisher = FedmsgPublisher::start();
    let target = publisher.endpoint();
    let proxy = Proxy::start(target.trim_start_matches("tcp://").parse().unwrap());
    let endpoint = format!("tcp://{}", proxy.address());
    let settings =
        format!("endpoints = [{{ address = '{endpoint}', heartbeat = 'off', idle = '2s' }}]");
    host.write("loopabull.toml", format!("[fedmsg]\nverify = 'off'\n{settings}\n"));
    let daemon = host.start(&["--config", "loopabull.toml"]);
    wait_for_one_more(&mut publisher, &daemon);
    let idle_reconnects = || of_endpoint(&daemon, "source_idle_reconnects_total", &endpoint);
    let before = idle_reconnects();
    let mut publish_for = |duration: Duration| {
        let start = Instant::now();
        while start.elapsed() < duration {
            publisher.publish("demo", "hello", "{}", 1);
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    publish_for(Duration::from_secs(5));
    assert_eq!(idle_reconnects(), before, "the connection was replaced while messages came");
    proxy.swallow(true);
    publish_for(Duration::from_secs(5));
    assert!(idle_reconnects() > before, "the connection was not replaced");
    assert_eq!(of_endpoint(&daemon, "source_connected", &endpoint), 0.0);
    proxy.swallow(false);
    wait_for_one_more(&mut publisher, &daemon);
    daemon.stop();
}

/// The daemon resolves the host name of an endpoint again if the name has no address, and if its address has
/// changed.
#[test]
fn a_host_name_is_resolved_again_until_it_leads_to_a_publisher() {
    let host = host();
    let hosts = Hosts::new("loopabull-test.invalid");
    let port = free_port();
    let endpoint = format!("tcp://{}:{port}", hosts.name);
    let settings = format!("endpoints = [{{ address = '{endpoint}', heartbeat = '1s' }}]");
    host.write("loopabull.toml", format!("[fedmsg]\nverify = 'off'\n{settings}\n"));
    let daemon = host.start(&["--config", "loopabull.toml"]);
    let at = |address: &str| Publisher::start_at(format!("tcp://{address}:{port}"));
    for (count, address) in [(1, "127.0.0.2"), (2, "127.0.0.3")] {
        // The publisher of the previous round no longer exists.
        let publisher = at(address);
        hosts.lead_to(address);
        publisher.wait_for_subscriber();
        send(&publisher, address);
        wait_for("the message to be accepted", || {
            (daemon.count("accepted") == count).then_some(())
        });
    }
    daemon.stop();
}

/// A line in `/etc/hosts`, which is removed on drop.
struct Hosts {
    name: String,
}

impl Hosts {
    const FILE: &str = "/etc/hosts";

    fn new(name: &str) -> Self {
        Self { name: format!("p{}.{name}", std::process::id()) }
    }

    fn lead_to(&self, address: &str) {
        let others = self.others();
        std::fs::write(Self::FILE, format!("{others}{address} {}\n", self.name)).unwrap();
    }

    fn others(&self) -> String {
        let text = std::fs::read_to_string(Self::FILE).unwrap();
        let others = text.lines().filter(|line| !line.ends_with(&self.name));
        others.map(|line| format!("{line}\n")).collect()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        drop(std::fs::write(Self::FILE, self.others()));
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
