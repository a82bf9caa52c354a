//! A cluster that loses a node, because the node is killed or freezes.

use loopabull_testbed::{Cluster, Vhost};

/// Declares a quorum queue that has a member on each node, and `leader` as its leader.
fn declare(cluster: &Cluster, vhost: &Vhost, leader: usize) {
    let declare = format!(
        "element(1, rabbit_amqqueue:declare({{resource, <<\"{}\">>, queue, <<\"q\">>}}, true, false, \
         [{{<<\"x-queue-type\">>, longstr, <<\"quorum\">>}}], none, <<\"guest\">>))",
        vhost.name
    );
    assert_eq!(cluster.node(leader).eval(&declare), "new");
    assert_eq!(cluster.leader_of(vhost, "q"), leader);
}

#[test]
fn another_node_becomes_leader_if_the_leader_is_killed_or_freezes() {
    let cluster = Cluster::start();
    let vhost = cluster.vhost();
    declare(&cluster, &vhost, 1);
    cluster.node(1).kill();
    let second = cluster.leader_of(&vhost, "q");
    assert_ne!(second, 1);
    cluster.node(1).restart();
    cluster.wait_until_joined();
    assert_eq!(vhost.on(cluster.node(1)).list_queues(), "q\t0");

    let silent = cluster.node(second);
    silent.freeze();
    assert_ne!(cluster.leader_of(&vhost, "q"), second);
    silent.thaw();
    // The node continues before it notices that it was away, so it never pauses and stays apart.
    silent.stop_app();
    silent.start_app();
    cluster.wait_until_joined();
    assert_eq!(vhost.on(silent).list_queues(), "q\t0");
}
