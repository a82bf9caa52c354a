//! Sources that never go silent: connections that die without a word are noticed and made anew, what
//! comes twice is run once, and what the queue cannot take waits on disk.

use std::time::{Duration, Instant};

use loopabull_testbed::{Cable, FedmsgPublisher, Proxy, Rabbit};

use crate::bed::{Bed, Daemon, Publisher, message, wait_at_most, wait_for};

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
    assert_eq!(metric(&daemon, "loopabull_entries_duplicate_total"), 100.0);
    daemon.stop();
    // It is known after a restart too.
    let daemon = bed.start(&endpoints);
    for id in ["2026-7", "2026-50"] {
        let before = daemon.count("accepted");
        wait_for("a message", || {
            send(&one, id);
            (daemon.count("accepted") > before).then_some(())
        });
    }
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
    proxy.swallow(true);
    let renewed = || of_endpoint(&daemon, "source_renewals_total", &endpoint);
    let before = renewed();
    wait_for("a new connection", || (renewed() > before).then_some(()));
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

/// The cable goes dead for so long while a publisher goes on.
fn check_cable(dead: Duration) {
    let bed = bed();
    let cable = Cable::start();
    let mut publisher = FedmsgPublisher::start_behind(&cable);
    let endpoint = publisher.endpoint();
    let settings = format!("endpoints = [{{ address = '{endpoint}', heartbeat = '2s' }}]");
    bed.write("loopabull.toml", format!("[fedmsg]\nverify = 'off'\n{settings}\n"));
    let daemon = bed.start(&["--config", "loopabull.toml"]);
    wait_for_one_more(&mut publisher, &daemon);
    cable.cut();
    let start = Instant::now();
    while start.elapsed() < dead {
        publisher.publish("demo", "hello", "{}", 5);
        std::thread::sleep(Duration::from_millis(100));
    }
    if dead > Duration::from_secs(10) {
        assert_eq!(of_endpoint(&daemon, "source_connected", &endpoint), 0.0, "it was noticed");
    }
    cable.mend();
    wait_for_one_more(&mut publisher, &daemon);
    wait_for("the connection to be told", || {
        (of_endpoint(&daemon, "source_connected", &endpoint) == 1.0).then_some(())
    });
    daemon.stop();
}

#[test]
fn a_cable_that_was_dead_for_seconds_heals() {
    check_cable(Duration::from_secs(5));
}

#[test]
fn a_cable_that_was_dead_for_long_heals() {
    check_cable(Duration::from_secs(40));
}

#[test]
#[ignore = "five minutes: `cargo xtask soak` runs it"]
fn soak_a_cable_that_was_dead_for_minutes_heals() {
    check_cable(Duration::from_mins(5));
}

/// Publishes numbered messages for so long, about so many a second. Returns how many there were.
fn flood(publisher: &Publisher, first: usize, seconds: u64, rate: u64, body: &str) -> usize {
    let (start, mut sent) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(seconds) {
        let due = start.elapsed().as_millis() as u64 * rate / 1000;
        while sent < due {
            let id = format!("m-{:06}", first + sent as usize);
            let body = message(&id, TOPIC, body);
            publisher.send(&[TOPIC.as_bytes(), body.as_bytes()]);
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    sent as usize
}

#[test]
fn nothing_is_lost_and_the_order_is_kept_while_the_broker_is_away() {
    let rabbit = Rabbit::start();
    let url = rabbit.vhost().url();
    let bed = Bed::new();
    bed.write("loopabull.toml", "[queues.ordered]\nworkers = 1\nexclusive_order = true\n");
    bed.add_guest("hello", TOPIC, "queue = 'ordered'", "i32.const 0");
    let publisher = Publisher::start();
    let daemon = bed.start(&[
        "--config",
        "loopabull.toml",
        "--amqp-url",
        &url,
        "--unsigned",
        "--fedmsg",
        &publisher.endpoint,
    ]);
    publisher.wait_for_subscriber();
    let mut sent = flood(&publisher, 0, 2, 200, "{}");
    rabbit.kill();
    sent += flood(&publisher, sent, 20, 200, "{}");
    assert!(metric(&daemon, "loopabull_spool_entries") > 100.0);
    assert_eq!(daemon.get("/readyz").0, 503);
    rabbit.restart();
    sent += flood(&publisher, sent, 2, 200, "{}");
    wait_at_most(Duration::from_secs(300), "all runs", || {
        (daemon.count("runs") as usize >= sent).then_some(())
    });
    daemon.wait_until_idle();
    assert_eq!(metric(&daemon, "loopabull_spool_entries"), 0.0);
    assert_eq!(metric(&daemon, "loopabull_entries_lost_total"), 0.0);
    daemon.stop();
    let ids: Vec<String> =
        bed.runs().into_iter().rev().map(|run| run.message_id.to_string()).collect();
    assert_eq!(ids.len(), sent);
    assert!(ids.is_sorted(), "the order was not kept");
}

#[test]
fn what_the_spool_has_no_room_for_is_counted() {
    let rabbit = Rabbit::start();
    let url = rabbit.vhost().url();
    let bed = bed();
    bed.write("loopabull.toml", "[fedmsg]\nspool = '1MB'\n");
    let publisher = Publisher::start();
    let daemon = bed.start(&[
        "--config",
        "loopabull.toml",
        "--amqp-url",
        &url,
        "--unsigned",
        "--fedmsg",
        &publisher.endpoint,
    ]);
    publisher.wait_for_subscriber();
    rabbit.kill();
    let body = format!("\"{}\"", "x".repeat(10_000));
    let sent = flood(&publisher, 0, 5, 50, &body);
    wait_for("all messages", || (daemon.count("accepted") as usize == sent).then_some(()));
    let lost = || metric(&daemon, "loopabull_entries_lost_total") as usize;
    wait_for("the spool to be full", || (lost() > 0).then_some(()));
    let ready = daemon.get("/readyz");
    assert!(ready.0 == 503 && ready.1.contains("ingest: "), "{ready:?}");
    rabbit.restart();
    wait_at_most(Duration::from_secs(300), "all runs", || {
        (daemon.count("runs") as usize + lost() == sent).then_some(())
    });
    // A megabyte of messages of ten kilobytes.
    assert!((80..120).contains(&(sent - lost())), "{} of {sent} were lost", lost());
    wait_for("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
    let told = bed.log().matches("messages are lost, ").count();
    assert_eq!(told, 1, "once a minute is enough");
    daemon.stop();
}
