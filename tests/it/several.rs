//! Several hosts on one queue, and a cluster of three brokers.

use std::time::{Duration, Instant};

use loopabull_testbed::oracle::Verdict;
use loopabull_testbed::{Cluster, Proxy, Rabbit, Vhost};

use crate::bed::{Daemon, wait_for};
use crate::witness::Witness;

/// Two hosts share a queue; in turn one is killed and one is frozen for longer than the broker waits
/// for its heartbeat. What it was working goes to the other one, and is then run twice.
#[test]
fn two_hosts_one_killed_and_one_frozen() {
    const MESSAGES: usize = 400;
    let vhost = Rabbit::shared().vhost();
    let url = vhost.url() + "?heartbeat=2";
    let witness = Witness::new(&["--amqp-url", &url], 10);
    let (one, two) = (witness.host(), witness.host());
    let first = witness.start(&one, &["--workers", "3"]);
    let second = witness.start(&two, &["--workers", "3"]);
    let (first, second) = witness.publish_during(&one, MESSAGES, r#"{"sleep_ms":20}"#, || {
        let mut hosts = (first, second);
        for round in 1..=2 {
            witness.wait_for_starts(round * MESSAGES / 4);
            hosts.0.signal("KILL");
            assert_eq!(hosts.0.wait(), None);
            hosts.1.signal("STOP");
            hosts.0 = witness.start(&one, &["--workers", "3"]);
            // Three heartbeats.
            std::thread::sleep(Duration::from_secs(6));
            hosts.1.signal("CONT");
        }
        hosts
    });
    first.wait_until_idle();
    second.wait_until_idle();
    let verdict = witness.verdict(&one);
    println!("{verdict}");
    verdict.assert_nothing_lost();
    assert!(verdict.unexpected.is_empty() && verdict.over_limit.is_empty(), "{verdict}");
    // Three workers of each host, killed and frozen twice.
    assert!(verdict.duplicated.len() <= 12, "{verdict}");
    assert_eq!((verdict.confirmed, verdict.dead), (MESSAGES, 0), "{verdict}");
    first.stop();
    second.stop();
}

/// With an exclusive order one host works and the other takes over: no two runs overlap, and the order
/// is that of publishing.
#[test]
fn an_exclusive_order_holds_over_two_hosts() {
    let vhost = Rabbit::shared().vhost();
    let url = vhost.url();
    let witness = Witness::new(&["--amqp-url", &url], 10);
    let config = "[queues.serial]\nworkers = 1\nexclusive_order = true";
    let hosts = [witness.host_with(config), witness.host_with(config)];
    for host in &hosts {
        let manifest = std::fs::read_to_string(host.path("playbooks/record.toml")).unwrap();
        host.write("playbooks/record.toml", format!("queue = 'serial'\n{manifest}"));
    }
    let first = witness.start(&hosts[0], &[]);
    let second = witness.start(&hosts[1], &[]);
    witness.publish(&hosts[0], 0..60, r#"{"sleep_ms":50}"#);
    witness.wait_for_starts(20);
    // The one that works is drained, and the other goes on.
    first.stop();
    second.wait_until_idle();
    second.stop();
    let oracle = witness.oracle(&hosts[0]);
    let verdict = oracle.check(10);
    verdict.assert_nothing_lost();
    assert!(verdict.duplicated.is_empty(), "{verdict}");
    let ids: Vec<_> = oracle.ends.iter().map(|end| end.run.id.clone()).collect();
    let expected: Vec<_> = (0..60).map(|number| format!("m-{number}")).collect();
    assert_eq!(ids, expected);
    for pair in oracle.starts.windows(2).zip(&oracle.ends) {
        let (starts, end) = pair;
        assert!(starts[1].at >= end.at, "two runs at a time: {pair:?}");
    }
}

/// Works messages from a cluster of three, by a proxy that leads to one node after the other, while
/// the cluster is harmed for so long.
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
    let witness = Witness::new(&["--amqp-url", &url], 10);
    let host = witness.host();
    let daemon = witness.start(&host, &[]);
    let end = Instant::now() + Duration::from_secs(seconds);
    let messages = usize::try_from(seconds).unwrap() * 20;
    witness.publish_during(&host, messages, r#"{"sleep_ms":20}"#, || {
        while Instant::now() < end {
            let leader = cluster.leader_of(vhost, "workers");
            harm(leader);
        }
    });
    finish(&witness, &host, daemon)
}

fn finish(witness: &Witness, host: &crate::bed::Bed, daemon: Daemon) -> Verdict {
    wait_for("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
    daemon.wait_until_idle_for(Duration::from_secs(300));
    let verdict = witness.verdict(host);
    println!("{verdict}");
    verdict.assert_nothing_lost();
    assert!(verdict.unexpected.is_empty() && verdict.over_limit.is_empty(), "{verdict}");
    assert!(verdict.duplicated.is_empty(), "{verdict}");
    assert!(verdict.done >= 100, "{verdict}");
    daemon.stop();
    verdict
}

/// One address for three nodes: each connection goes to the first that takes it, from another one on
/// each time, as with a list of hosts behind a load balancer.
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

/// Tries the nodes in turn: one that is down closes the proxy's connection before it says anything.
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
    check_cluster(&cluster, &vhost, seconds, |leader| {
        std::thread::sleep(Duration::from_secs(10));
        cluster.node(leader).kill();
        std::thread::sleep(Duration::from_secs(3));
        cluster.node(leader).restart();
        cluster.wait_until_joined();
    });
}

#[test]
fn the_leader_of_a_cluster_is_killed_again_and_again() {
    kill_leaders(25);
}

#[test]
#[ignore = "minutes: `cargo xtask soak` runs it"]
fn soak_leader_kills() {
    kill_leaders(180);
}

/// Needs root: each node has a network of its own.
#[test]
fn a_node_of_a_cluster_is_cut_off() {
    let cluster = Cluster::start_apart();
    let vhost = cluster.vhost();
    check_cluster(&cluster, &vhost, 15, |leader| {
        std::thread::sleep(Duration::from_secs(3));
        cluster.isolate(leader);
        cluster.wait_until_paused(leader);
        cluster.reconnect(leader);
    });
}
