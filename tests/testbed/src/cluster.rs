//! A cluster of three RabbitMQ nodes.

use std::time::{Duration, Instant};

use crate::network::Network;
use crate::rabbit::node::{Node, Ports};
use crate::{Rabbit, Vhost};

const NODES: u8 = 3;
/// The time limit for an election, and for a node to notice that other nodes are up or down.
const LIMIT: Duration = Duration::from_secs(90);

/// A cluster of three RabbitMQ nodes. Nodes that are cut off from the majority pause.
///
/// The nodes are killed on drop, and when the test process ends.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Rabbit>,
    /// The network of the nodes. It is dropped after the nodes. `None` if the nodes share the loopback
    /// address.
    network: Option<Network>,
}

impl Cluster {
    /// Starts three nodes on the loopback address. Their connections cannot be cut.
    ///
    /// # Panics
    ///
    /// In the same cases as [`Rabbit::start`].
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts three nodes on the loopback address, with further settings as in [`Rabbit::start_with`].
    ///
    /// # Panics
    ///
    /// In the same cases as [`Rabbit::start`].
    pub fn start_with(settings: &[&str]) -> Self {
        // The nodes find each other through a shared epmd. Every keeper tries to start this epmd, and the
        // first keeper succeeds.
        let epmd = Ports::free().epmd;
        let node = |_| Node::on_loopback(Ports { epmd, ..Ports::free() });
        Self::join((0..NODES).map(node).collect(), None, settings)
    }

    /// Starts three nodes whose connections can be cut: each has its own address and network
    /// namespace. This needs root and iproute2.
    ///
    /// # Panics
    ///
    /// In the same cases as [`Rabbit::start`], and if the test is not root.
    pub fn start_apart() -> Self {
        Self::start_apart_with(&[])
    }

    /// Starts three nodes whose connections can be cut, with further settings as in
    /// [`Rabbit::start_with`].
    ///
    /// # Panics
    ///
    /// In the same cases as [`Cluster::start_apart`].
    pub fn start_apart_with(settings: &[&str]) -> Self {
        let network = Network::start(NODES);
        let node = |index| {
            let host = network.host(usize::from(index));
            Node::in_namespace(host.address, host.pid())
        };
        let nodes = (0..NODES).map(node).collect();
        Self::join(nodes, Some(network), settings)
    }

    fn join(nodes: Vec<Node>, network: Option<Network>, settings: &[&str]) -> Self {
        let settings = &[&["{cluster_partition_handling, pause_minority}"], settings].concat();
        let nodes: Vec<Rabbit> = std::thread::scope(|scope| {
            let start = |node| scope.spawn(move || Rabbit::start_node(node, settings));
            let started: Vec<_> = nodes.into_iter().map(start).collect();
            let wait = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join();
            started
                .into_iter()
                .map(|thread| wait(thread).expect("the thread that starts a node does not panic"))
                .collect()
        });
        let first = nodes[0].erlang_name();
        for node in &nodes[1..] {
            node.stop_app();
            node.join(&first);
            node.start_app();
        }
        let cluster = Self { nodes, network };
        cluster.wait_until_joined();
        cluster
    }

    /// Returns a node by its number, from 0 to 2.
    pub fn node(&self, index: usize) -> &Rabbit {
        &self.nodes[index]
    }

    /// Makes a vhost for one test, addressed through the first running node.
    pub fn vhost(&self) -> Vhost {
        let node = self.nodes.iter().find(|node| node.is_running());
        node.expect("at least one node runs").vhost()
    }

    /// Waits until a running node is the leader of the queue, and returns the number of that node. Any
    /// running node that answers may name the leader.
    ///
    /// # Panics
    ///
    /// If no running node leads the queue within 90 seconds.
    pub fn leader_of(&self, vhost: &Vhost, queue: &str) -> usize {
        wait("a leader", || {
            // A node that was cut off may still believe in an earlier leader, so two nodes must agree.
            let running = self.nodes.iter().filter(|node| node.is_running());
            let leaders: Vec<_> =
                running.filter_map(|node| node.leader_of(&vhost.name, queue)).collect();
            let leads = |node: &Rabbit| {
                let name = node.erlang_name();
                node.is_running() && leaders.iter().filter(|leader| **leader == name).count() > 1
            };
            self.nodes.iter().position(leads)
        })
    }

    /// Cuts a node off from the two other nodes, and returns at once. Packets are dropped without an error.
    /// After some seconds the other nodes consider the node dead, and the node pauses. The tests can still
    /// reach the node.
    ///
    /// # Panics
    ///
    /// If the cluster was not started by [`Cluster::start_apart`].
    pub fn isolate(&self, index: usize) {
        for other in self.others(index) {
            self.network().cut(index, other);
        }
    }

    /// Connects a node to the others again, and waits until the three are one cluster.
    ///
    /// # Panics
    ///
    /// If the nodes are not one cluster within 90 seconds.
    pub fn reconnect(&self, index: usize) {
        for other in self.others(index) {
            self.network().mend(index, other);
        }
        self.wait_until_joined();
    }

    /// Waits until the node has noticed that it is alone and has paused.
    ///
    /// # Panics
    ///
    /// If the node has not paused within 90 seconds.
    pub fn wait_until_paused(&self, index: usize) {
        wait("the node to pause", || {
            self.nodes[index].evals_to("rabbit:is_running()", "false").then_some(())
        });
    }

    /// Waits until every node runs and sees the two others.
    ///
    /// # Panics
    ///
    /// If a node does not see the two others within 90 seconds.
    pub fn wait_until_joined(&self) {
        let count = "length(rabbit_nodes:all_running())";
        let expected = self.nodes.len().to_string();
        for node in &self.nodes {
            wait("the nodes to see each other", || node.evals_to(count, &expected).then_some(()));
        }
    }

    fn network(&self) -> &Network {
        self.network.as_ref().expect("the cluster was started by `Cluster::start_apart`")
    }

    fn others(&self, index: usize) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(move |other| *other != index)
    }
}

fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < LIMIT, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
