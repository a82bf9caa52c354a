//! A private RabbitMQ node.
//!
//! The tests of a run share one node, in which each test has its own vhost. `cargo xtask test` starts this
//! node and names it in [`Rabbit::ENVIRONMENT`]. If a test binary is started by hand, the variable is not
//! set, and the binary starts its own node. A test that kills, stops or blocks its node starts a separate
//! node.

mod faults;
mod keeper;
pub(crate) mod node;
pub(crate) mod vhost;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use self::keeper::Keeper;
use self::node::{Node, Ports};
use crate::{port, process};

/// The time limit for the start of a node, on two busy cores.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// A private RabbitMQ node.
///
/// The node is killed on drop, and when the test process ends.
#[derive(Debug)]
pub struct Rabbit {
    node: Node,
    /// The process that owns the node. `None` if another test process started the node.
    keeper: Option<Keeper>,
    /// The port for AMQP over TLS.
    tls: Option<u16>,
}

/// The PEM files of a node that accepts TLS.
#[derive(Clone, Copy, Debug)]
pub struct TlsNode<'a> {
    /// The certificate authority that must have signed the clients' certificates.
    pub authority: &'a Path,
    pub certificate: &'a Path,
    pub key: &'a Path,
}

impl Rabbit {
    /// The environment variable that names a node that is already running.
    pub const ENVIRONMENT: &str = "LOOPABULL_TEST_RABBITMQ";

    /// Returns the shared node: the node that [`Rabbit::ENVIRONMENT`] names, or else a node that this process
    /// starts.
    ///
    /// # Panics
    ///
    /// If RabbitMQ is not installed or does not start. The message says what to do.
    pub fn shared() -> &'static Self {
        static NODE: OnceLock<Rabbit> = OnceLock::new();
        NODE.get_or_init(|| match std::env::var(Self::ENVIRONMENT) {
            Ok(name) => {
                let node = Node::from_text(&name).expect("the environment names a running node");
                Self { node, keeper: None, tls: None }
            }
            Err(_) => Self::start(),
        })
    }

    /// Starts a node.
    ///
    /// # Panics
    ///
    /// If RabbitMQ is not installed or does not start. The message says what to do.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a node with additional settings of the application `rabbit`, as Erlang terms, for example
    /// `{consumer_timeout, 61000}`.
    ///
    /// # Panics
    ///
    /// In the same cases as [`Rabbit::start`].
    pub fn start_with(settings: &[&str]) -> Self {
        Self::start_node(Node::on_loopback(Ports::free()), settings)
    }

    /// Starts a node that also accepts TLS. A client needs a certificate, whose common name is the name of
    /// the user.
    ///
    /// # Panics
    ///
    /// In the same cases as [`Rabbit::start`].
    pub fn start_with_tls(files: TlsNode<'_>) -> Self {
        let port = port::free();
        let options = format!(
            "{{ssl_options, [{{cacertfile, {:?}}}, {{certfile, {:?}}}, {{keyfile, {:?}}}, \
             {{verify, verify_peer}}, {{fail_if_no_peer_cert, true}}]}}",
            files.authority, files.certificate, files.key,
        );
        let settings = [
            &*format!("{{ssl_listeners, [{{\"127.0.0.1\", {port}}}]}}"),
            &options,
            "{auth_mechanisms, ['EXTERNAL', 'PLAIN']}",
            "{ssl_cert_login_from, common_name}",
        ];
        let node = Node::on_loopback(Ports::free());
        let mut rabbit = Self::start_plugged(node, &settings, "rabbitmq_auth_mechanism_ssl");
        rabbit.tls = Some(port);
        rabbit
    }

    pub(crate) fn start_node(node: Node, settings: &[&str]) -> Self {
        Self::start_plugged(node, settings, "")
    }

    fn start_plugged(node: Node, settings: &[&str], plugins: &str) -> Self {
        assert!(
            Path::new(keeper::SERVER).exists(),
            "RabbitMQ is not installed; run `cargo xtask test`, or: apt-get install rabbitmq-server"
        );
        node.prepare(settings, plugins).expect("the temporary folder can be written");
        let keeper = Keeper::start(&node);
        keeper.start_server();
        let rabbit = Self { node, keeper: Some(keeper), tls: None };
        rabbit.wait_until_running();
        rabbit
    }

    /// Returns the text that names this node in [`Rabbit::ENVIRONMENT`].
    pub fn name(&self) -> String {
        self.node.to_text()
    }

    /// Returns the address for AMQP.
    pub fn address(&self) -> SocketAddr {
        self.node.amqp()
    }

    /// Returns the address for AMQP over TLS.
    ///
    /// # Panics
    ///
    /// If the node was not started by [`Rabbit::start_with_tls`].
    pub fn tls_address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.tls.expect("the node was started by `Rabbit::start_with_tls`")).into()
    }

    /// Runs `rabbitmqctl` and returns its standard output.
    ///
    /// # Panics
    ///
    /// If `rabbitmqctl` fails.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        succeed(&self.node, arguments)
    }

    /// Evaluates an Erlang expression on the node, and returns the value as Erlang prints it.
    ///
    /// # Panics
    ///
    /// If the node does not answer, or the expression fails.
    pub fn eval(&self, expression: &str) -> String {
        self.node.eval(expression).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Returns whether the node is older than RabbitMQ 3.12, so that a queue cannot have an acknowledgement
    /// timeout of its own. Older nodes than 3.10 have no quorum queues as we need them.
    pub fn lacks_queue_timeouts(&self) -> bool {
        let version = self.eval("rabbit_misc:version()");
        ["3.10.", "3.11."].iter().any(|old| version.contains(old))
    }

    /// Returns whether an Erlang expression has this value on the node. Returns false if the node does not
    /// answer.
    pub(crate) fn evals_to(&self, expression: &str, value: &str) -> bool {
        self.node.eval(expression).is_ok_and(|found| found == value)
    }

    /// Joins the cluster of the node with this name, after [`Rabbit::stop_app`].
    ///
    /// # Panics
    ///
    /// If the node cannot join the cluster.
    pub(crate) fn join(&self, name: &str) {
        // `rabbit_db_cluster` exists since 3.12.
        self.change(&format!(
            "case code:which(rabbit_db_cluster) of \
                non_existing -> rabbit_mnesia:join_cluster('{name}', disc); \
                _ -> rabbit_db_cluster:join('{name}', disc) \
             end"
        ));
    }

    /// Evaluates an expression that starts, stops or joins the node, and has the value `ok`.
    fn change(&self, expression: &str) {
        let limit = BOOT_LIMIT.as_secs().to_string();
        let changed = self.node.eval_within(&limit, expression);
        assert_eq!(changed.unwrap_or_else(|error| panic!("{error}")), "ok", "{expression}");
    }

    /// Returns the name of the node that is the leader of a quorum queue, as far as this node knows.
    pub(crate) fn leader_of(&self, vhost: &str, queue: &str) -> Option<String> {
        let leader = self.node.eval(&format!(
            "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{vhost}\">>, queue, <<\"{queue}\">>)), \
             {{_, Node}} = ra_leaderboard:lookup_leader(element(1, amqqueue:get_pid(Q))), Node"
        ));
        Some(leader.ok()?.trim_matches('\'').to_owned())
    }

    /// Returns the node's name in Erlang.
    pub(crate) fn erlang_name(&self) -> String {
        self.node.name()
    }

    /// Returns the process id of the Erlang VM.
    fn server(&self) -> u32 {
        keeper::server(self.node.base())
            .expect("the keeper has written the process id of the server")
    }

    fn wait_until_running(&self) {
        let start = Instant::now();
        loop {
            let answer = self.node.eval("rabbit:is_running()");
            if answer.as_ref().is_ok_and(|running| running == "true") {
                return;
            }
            let is_hopeless = start.elapsed() > BOOT_LIMIT || !process::is_alive(self.server());
            let log = fs::read_to_string(self.node.base().join("out")).unwrap_or_default();
            assert!(!is_hopeless, "RabbitMQ did not start ({answer:?}):\n{log}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

fn succeed(node: &Node, arguments: &[&str]) -> String {
    let output = node.ctl(arguments).expect("rabbitmqctl can be started");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "rabbitmqctl {arguments:?} failed: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
