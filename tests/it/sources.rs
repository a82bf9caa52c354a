//! Sources that never go silent: connections that die without a word are noticed and made anew, and what
//! comes twice is run once.

use std::time::{Duration, Instant};

use loopabull_testbed::{FedmsgPublisher, Proxy};

use crate::bed::{Bed, Daemon, Publisher, message, wait_for};

const TOPIC: &str = "org.example.prod.demo.hello";

fn bed() -> Bed {
    let bed = Bed::new();
    bed.add_guest("hello", TOPIC, "", "i32.const 0");
    bed
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

/// Publishes until one more message has been taken.
fn wait_for_one_more(publisher: &mut FedmsgPublisher, daemon: &Daemon) {
    let before = daemon.count("accepted");
    wait_for("a message", || {
        publisher.publish("demo", "hello", "{}", 1);
        (daemon.count("accepted") > before).then_some(())
    });
}

#[test]
fn what_comes_twice_is_run_once() {
    let bed = bed();
    let (one, other) = (Publisher::start(), Publisher::start());
    let endpoints = ["--unsigned", "--fedmsg", &one.endpoint, "--fedmsg", &other.endpoint];
    let daemon = bed.start(&endpoints);
    one.wait_for_subscriber();
    other.wait_for_subscriber();
    // From two endpoints, and by the bridge from the other bus, where ids have no year.
    for number in 0..50 {
        send(&one, &format!("2026-{number}"));
        send(&other, &format!("2026-{number}"));
        send(&other, &format!("{number}"));
    }
    wait_for("all messages", || (daemon.count("accepted") == 150).then_some(()));
    daemon.wait_until_idle();
    assert_eq!(metric(&daemon, "loopabull_entries_deduplicated_total"), 100.0);
    daemon.stop();
    // It is known after a restart too.
    let daemon = bed.start(&endpoints);
    wait_for("the new one", || {
        send(&one, "2026-7");
        send(&one, "2026-50");
        (daemon.count("runs") > 0).then_some(())
    });
    daemon.wait_until_idle();
    daemon.stop();
    assert_eq!(bed.tally(), [("hello success".to_owned(), 51)].into());
}

#[test]
fn without_a_window_what_comes_twice_is_run_twice() {
    let bed = bed();
    bed.write("loopabull.toml", "[deduplication]\nwindow = '0s'\n");
    let publisher = Publisher::start();
    let source = ["--config", "loopabull.toml", "--unsigned", "--fedmsg", &publisher.endpoint];
    let daemon = bed.start(&source);
    publisher.wait_for_subscriber();
    send(&publisher, "1");
    send(&publisher, "1");
    wait_for("the runs", || (daemon.count("runs") == 2).then_some(()));
    daemon.stop();
}

/// A publisher that hangs keeps its connection, and nothing of it is heard.
#[test]
fn a_frozen_publisher_is_noticed_and_found_again() {
    let bed = bed();
    let mut publisher = FedmsgPublisher::start();
    let endpoint = publisher.endpoint();
    let settings = format!("endpoints = [{{ address = '{endpoint}', heartbeat = '1s' }}]");
    bed.write("loopabull.toml", format!("[fedmsg]\nverify = 'off'\n{settings}\n"));
    let daemon = bed.start(&["--config", "loopabull.toml"]);
    wait_for_one_more(&mut publisher, &daemon);
    assert_eq!(of_endpoint(&daemon, "source_connected", &endpoint), 1.0);
    freeze(&publisher, "STOP");
    wait_for("the loss", || {
        (of_endpoint(&daemon, "source_connected", &endpoint) == 0.0).then_some(())
    });
    let said = bed.run(&["status"]);
    assert!(crate::bed::text(&said.stdout).contains("the connection was lost"));
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

/// Where the other side never answers a heartbeat, only silence tells.
#[test]
fn a_connection_on_which_nothing_comes_is_made_anew() {
    let bed = bed();
    let mut publisher = FedmsgPublisher::start();
    let target = publisher.endpoint();
    let proxy = Proxy::start(target.trim_start_matches("tcp://").parse().unwrap());
    let endpoint = format!("tcp://{}", proxy.address());
    let settings =
        format!("endpoints = [{{ address = '{endpoint}', heartbeat = 'off', idle = '2s' }}]");
    bed.write("loopabull.toml", format!("[fedmsg]\nverify = 'off'\n{settings}\n"));
    let daemon = bed.start(&["--config", "loopabull.toml"]);
    wait_for_one_more(&mut publisher, &daemon);
    let renewed = || of_endpoint(&daemon, "source_idle_reconnects_total", &endpoint);
    let before = renewed();
    let mut publish_for = |duration: Duration| {
        let start = Instant::now();
        while start.elapsed() < duration {
            publisher.publish("demo", "hello", "{}", 1);
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    publish_for(Duration::from_secs(5));
    assert_eq!(renewed(), before, "it was made anew while messages came");
    proxy.swallow(true);
    publish_for(Duration::from_secs(5));
    assert!(renewed() > before, "it was not made anew");
    proxy.swallow(false);
    wait_for_one_more(&mut publisher, &daemon);
    daemon.stop();
}

/// A name that leads nowhere is asked for again and again, and so is one that leads elsewhere by now.
#[test]
fn a_name_is_resolved_until_it_leads_to_a_publisher() {
    let bed = bed();
    let hosts = Hosts::new("loopabull-test.invalid");
    let port = free_port();
    let endpoint = format!("tcp://{}:{port}", hosts.name);
    let settings = format!("endpoints = [{{ address = '{endpoint}', heartbeat = '1s' }}]");
    bed.write("loopabull.toml", format!("[fedmsg]\nverify = 'off'\n{settings}\n"));
    let daemon = bed.start(&["--config", "loopabull.toml"]);
    let at = |address: &str| Publisher::start_at(format!("tcp://{address}:{port}"));
    for (count, address) in [(1, "127.0.0.2"), (2, "127.0.0.3")] {
        // The one before is gone by now.
        let publisher = at(address);
        hosts.lead_to(address);
        publisher.wait_for_subscriber();
        send(&publisher, address);
        wait_for("the message", || (daemon.count("accepted") == count).then_some(()));
    }
    daemon.stop();
}

/// A line of the list of hosts, for as long as the test runs.
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
