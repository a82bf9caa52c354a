//! Several hosts that share a queue, and a cluster of three brokers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use loopabull_testbed::oracle::Verdict;
use loopabull_testbed::{Cluster, Proxy, Rabbit, Vhost};

use crate::auditor::Auditor;
use crate::test_host::{Daemon, wait_for};

/// Two hosts share a queue. In each round the first host is killed, and the second is frozen for longer than
/// the broker waits for a heartbeat. The messages that they had not settled are redelivered and may run
/// twice.
#[test]
fn nothing_is_lost_when_one_host_is_killed_and_another_is_frozen() {
    const MESSAGES: usize = 400;
    let vhost = Rabbit::shared().vhost();
    let url = vhost.url() + "?heartbeat=2";
    let auditor = Auditor::new(&["--amqp-url", &url], 10);
    let (one, two) = (auditor.host(), auditor.host());
    let first = auditor.start(&one, &["--workers", "3"]);
    let second = auditor.start(&two, &["--workers", "3"]);
    let (first, second) = auditor.publish_during(&one, MESSAGES, r#"{"sleep_ms":20}"#, || {
        let mut hosts = (first, second);
        for round in 1..=2 {
            auditor.wait_for_starts(round * MESSAGES / 4);
            hosts.0.signal("KILL");
            assert_eq!(hosts.0.wait(), None);
            hosts.1.signal("STOP");
            hosts.0 = auditor.start(&one, &["--workers", "3"]);
            // After three heartbeat intervals of 2 s the broker has closed the connection of the frozen host.
            std::thread::sleep(Duration::from_secs(6));
            hosts.1.signal("CONT");
        }
        hosts
    });
    first.wait_until_idle();
    second.wait_until_idle();
    let verdict = auditor.verdict(&one);
    println!("{verdict}");
    verdict.assert_nothing_lost();
    assert!(verdict.unexpected.is_empty() && verdict.over_limit.is_empty(), "{verdict}");
    // Each host has three workers. One host is killed twice, and the other is frozen twice.
    assert!(verdict.duplicated.len() <= 12, "{verdict}");
    assert!(verdict.confirmed >= MESSAGES && verdict.dead == 0, "{verdict}");
    first.stop();
    second.stop();
}

/// With an exclusive order, one host runs the messages and the other takes over. No two runs
/// overlap, and the order of the runs is the order of publishing.
#[test]
fn an_exclusive_order_is_kept_across_two_hosts() {
    let vhost = Rabbit::shared().vhost();
    let url = vhost.url();
    let auditor = Auditor::new(&["--amqp-url", &url], 10);
    let config = "[queues.serial]\nworkers = 1\nexclusive_order = true";
    let hosts = [auditor.host_with(config), auditor.host_with(config)];
    for host in &hosts {
        let manifest = std::fs::read_to_string(host.path("playbooks/record.toml")).unwrap();
        host.write("playbooks/record.toml", format!("queue = 'serial'\n{manifest}"));
    }
    let first = auditor.start(&hosts[0], &[]);
    let second = auditor.start(&hosts[1], &[]);
    auditor.publish(&hosts[0], 0..60, r#"{"sleep_ms":50}"#);
    auditor.wait_for_starts(20);
    // The active host is drained, and the other one continues.
    first.stop();
    second.wait_until_idle();
    second.stop();
    let oracle = auditor.oracle(&hosts[0]);
    let verdict = oracle.check(10);
    verdict.assert_nothing_lost();
    let logs = hosts.each_ref().map(crate::test_host::TestHost::log).join("\nsecond host:\n");
    assert!(verdict.duplicated.is_empty(), "{verdict}\n{:?}\nfirst host:\n{logs}", oracle.starts);
    let ids: Vec<_> = oracle.ends.iter().map(|end| end.run.id.clone()).collect();
    let expected: Vec<_> = (0..60).map(|number| format!("m-{number}")).collect();
    assert_eq!(ids, expected, "{:?}\nfirst host:\n{logs}", oracle.starts);
    for pair in oracle.starts.windows(2).zip(&oracle.ends) {
        let (starts, end) = pair;
        assert!(starts[1].at >= end.at, "two runs overlap: {pair:?}");
    }
}

/// Runs messages from a cluster of three nodes while `harm` disturbs the cluster for `seconds`. The daemon
/// connects to one address, behind which an [`Entrance`] selects a node for each connection.
fn check_cluster(
    cluster: &Cluster,
    vhost: &Vhost,
    seconds: u64,
    harm: impl Fn(usize) + Sync,
) -> Verdict {
    let proxies: Vec<Proxy> =
        (0..3).map(|node| Proxy::start(cluster.node(node).address())).collect();
    let entrance = Entrance::start(&proxies);
    let url = vhost.url_at(entrance.address) + "?heartbeat=3";
    let auditor = Auditor::new(&["--amqp-url", &url], 10);
    let host = auditor.host();
    let daemon = auditor.start(&host, &[]);
    let end = Instant::now() + Duration::from_secs(seconds);
    let messages = usize::try_from(seconds).unwrap() * 20;
    auditor.publish_during(&host, messages, r#"{"sleep_ms":20}"#, || {
        while Instant::now() < end {
            let leader = cluster.leader_of(vhost, "workers");
            harm(leader);
        }
    });
    finish(&auditor, &host, daemon)
}

fn finish(auditor: &Auditor, host: &crate::test_host::TestHost, daemon: Daemon) -> Verdict {
    wait_for("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
    daemon.wait_until_idle_for(Duration::from_secs(300));
    let verdict = auditor.verdict(host);
    println!("{verdict}");
    verdict.assert_nothing_lost();
    assert!(verdict.unexpected.is_empty() && verdict.over_limit.is_empty(), "{verdict}");
    assert!(verdict.duplicated.is_empty(), "{verdict}");
    assert!(verdict.done >= 100, "{verdict}");
    daemon.stop();
    verdict
}

/// One address for three nodes, like a load balancer. Each connection is forwarded to the first node that
/// answers. For each new connection, the search starts one node later.
struct Entrance {
    address: std::net::SocketAddr,
}

impl Entrance {
    fn start(proxies: &[Proxy]) -> Self {
        let targets: Vec<_> = proxies.iter().map(Proxy::address).collect();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for (turn, client) in listener.incoming().flatten().enumerate() {
                let targets = targets.clone();
                std::thread::spawn(move || forward(&client, &targets, turn));
            }
        });
        Self { address }
    }
}

/// Forwards a connection to the first node that answers. If a node is down, its proxy closes the
/// connection without an answer.
fn forward(client: &std::net::TcpStream, targets: &[std::net::SocketAddr], turn: usize) {
    use std::io::{Read, Write};
    let mut hello = [0; 8];
    if (&*client).read_exact(&mut hello).is_err() {
        return;
    }
    for target in targets.iter().cycle().skip(turn % 3).take(3) {
        let Ok(server) = std::net::TcpStream::connect(target) else { continue };
        server.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut first = [0; 1];
        if (&server).write_all(&hello).is_err() || (&server).read_exact(&mut first).is_err() {
            continue;
        }
        server.set_read_timeout(None).unwrap();
        if (&*client).write_all(&first).is_err() {
            return;
        }
        let (up, down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let pump = std::thread::spawn(move || {
            let _ends = std::io::copy(&mut &up, &mut &down);
            drop(down.shutdown(std::net::Shutdown::Both));
        });
        let _ends = std::io::copy(&mut &server, &mut &*client);
        drop(client.shutdown(std::net::Shutdown::Both));
        drop(pump.join());
        return;
    }
}

fn kill_leaders(seconds: u64) {
    let cluster = Cluster::start();
    let vhost = cluster.vhost();
    let rounds = AtomicUsize::new(0);
    check_cluster(&cluster, &vhost, seconds, |leader| {
        std::thread::sleep(Duration::from_secs(10));
        let node = cluster.node(leader);
        if rounds.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            node.kill();
            std::thread::sleep(Duration::from_secs(3));
            node.restart();
        } else {
            node.freeze();
            assert_ne!(cluster.leader_of(&vhost, "workers"), leader);
            node.thaw();
            // The other nodes have removed the node from the cluster while it was frozen. It joins the
            // cluster again only when RabbitMQ is restarted on it.
            node.stop_app();
            node.start_app();
        }
        cluster.wait_until_joined();
    });
}

#[test]
fn nothing_is_lost_when_leaders_of_a_cluster_are_killed() {
    kill_leaders(25);
}

#[test]
#[ignore = "minutes: `cargo xtask soak` runs it"]
fn soak_leader_kills() {
    kill_leaders(180);
}

/// This test needs root, because each node has its own network namespace.
#[test]
fn nothing_is_lost_when_the_leader_of_a_cluster_is_cut_off() {
    let cluster = Cluster::start_apart();
    let vhost = cluster.vhost();
    check_cluster(&cluster, &vhost, 15, |leader| {
        std::thread::sleep(Duration::from_secs(3));
        cluster.isolate(leader);
        cluster.wait_until_paused(leader);
        cluster.reconnect(leader);
    });
}
