//! A cluster that loses a node, by death and by the network.

use loopabull_testbed::{Cluster, Vhost};

/// Declares a quorum queue with a member on each node, led by this one.
fn declare(cluster: &Cluster, vhost: &Vhost, leader: usize) {
    let declare = format!(
        "element(1, rabbit_amqqueue:declare({{resource, <<\"{}\">>, queue, <<\"q\">>}}, true, false, \
         [{{<<\"x-queue-type\">>, longstr, <<\"quorum\">>}}], none, <<\"guest\">>)).",
        vhost.name
    );
    assert_eq!(cluster.node(leader).ctl(&["eval", &declare]).trim(), "new");
    assert_eq!(cluster.leader_of(vhost, "q"), leader);
}

#[test]
fn another_node_leads_when_the_leader_is_killed() {
    let cluster = Cluster::start();
    let vhost = cluster.vhost();
    declare(&cluster, &vhost, 1);
    cluster.node(1).kill();
    let second = cluster.leader_of(&vhost, "q");
    assert_ne!(second, 1);
    cluster.node(1).restart();
    cluster.wait_until_joined();
    assert_eq!(vhost.on(cluster.node(1)).list_queues(), "q\t0");
}

#[test]
fn another_node_leads_when_the_leader_falls_silent() {
    let cluster = Cluster::start();
    let vhost = cluster.vhost();
    declare(&cluster, &vhost, 2);
    cluster.node(2).freeze();
    assert_ne!(cluster.leader_of(&vhost, "q"), 2);
    cluster.node(2).thaw();
    // It is back before it has seen that it was away, so it never pauses and stays parted.
    cluster.node(2).stop_app();
    cluster.node(2).start_app();
    cluster.wait_until_joined();
    assert_eq!(vhost.on(cluster.node(2)).list_queues(), "q\t0");
}

#[test]
fn node_that_is_cut_off_pauses_and_comes_back() {
    let cluster = Cluster::start_apart();
    let vhost = cluster.vhost();
    declare(&cluster, &vhost, 0);
    cluster.isolate(0);
    cluster.wait_until_paused(0);
    assert_ne!(cluster.leader_of(&vhost, "q"), 0);
    cluster.reconnect(0);
    assert_eq!(vhost.list_queues(), "q\t0");
}
