//! A private RabbitMQ node.
//!
//! One node serves a whole run of tests: `cargo xtask test` starts it and names it in
//! [`Rabbit::ENVIRONMENT`]. A test binary that is started by hand has no such variable and starts
//! its own node. Each test has its own vhost. A test that kills, stops or blocks its node starts
//! one for itself.

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
/// It is killed on drop, and when the test process ends.
#[derive(Debug)]
pub struct Rabbit {
    node: Node,
    /// `None` if another process started the node.
    keeper: Option<Keeper>,
    management: Option<u16>,
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

    /// Returns the node of this run: the one that the environment names, or else one of this
    /// process.
    ///
    /// # Panics
    ///
    /// If RabbitMQ is not installed or does not start; the text says what to do.
    pub fn shared() -> &'static Self {
        static NODE: OnceLock<Rabbit> = OnceLock::new();
        NODE.get_or_init(|| match std::env::var(Self::ENVIRONMENT) {
            Ok(name) => {
                let node = Node::from_text(&name).expect("the name of a running node");
                Self { node, keeper: None, management: None, tls: None }
            }
            Err(_) => Self::start(),
        })
    }

    /// Starts a node.
    ///
    /// # Panics
    ///
    /// If RabbitMQ is not installed or does not start; the text says what to do.
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// Starts a node with further lines for `rabbitmq.conf`.
    ///
    /// # Panics
    ///
    /// As [`Rabbit::start`].
    pub fn start_with(conf: &str) -> Self {
        Self::start_node(Node::on_loopback(Ports::free()), conf)
    }

    /// Starts a node that has the management plugin.
    ///
    /// # Panics
    ///
    /// As [`Rabbit::start`].
    pub fn start_with_management() -> Self {
        let port = port::free();
        let conf = format!("management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {port}\n");
        let node = Node::on_loopback(Ports::free());
        let mut rabbit = Self::start_plugged(node, &conf, "rabbitmq_management");
        rabbit.management = Some(port);
        rabbit
    }

    /// Starts a node that also accepts TLS. Clients need a certificate, and its common name is
    /// their user name.
    ///
    /// # Panics
    ///
    /// As [`Rabbit::start`].
    pub fn start_with_tls(files: TlsNode<'_>) -> Self {
        let port = port::free();
        let conf = format!(
            "listeners.ssl.local = 127.0.0.1:{port}
ssl_options.cacertfile = {}
ssl_options.certfile = {}
ssl_options.keyfile = {}
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
auth_mechanisms.1 = EXTERNAL
auth_mechanisms.2 = PLAIN
ssl_cert_login_from = common_name
",
            files.authority.display(),
            files.certificate.display(),
            files.key.display(),
        );
        let node = Node::on_loopback(Ports::free());
        let mut rabbit = Self::start_plugged(node, &conf, "rabbitmq_auth_mechanism_ssl");
        rabbit.tls = Some(port);
        rabbit
    }

    pub(crate) fn start_node(node: Node, conf: &str) -> Self {
        Self::start_plugged(node, conf, "")
    }

    fn start_plugged(node: Node, conf: &str, plugins: &str) -> Self {
        assert!(
            Path::new(keeper::SERVER).exists(),
            "RabbitMQ is not installed; run `cargo xtask test`, or: apt-get install rabbitmq-server"
        );
        node.prepare(conf, plugins).expect("the temporary folder can be written");
        let keeper = Keeper::start(&node);
        keeper.start_server();
        let rabbit = Self { node, keeper: Some(keeper), management: None, tls: None };
        rabbit.wait_until_running();
        rabbit
    }

    /// Returns the name for [`Rabbit::ENVIRONMENT`].
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
        ([127, 0, 0, 1], self.tls.expect("this node has no TLS")).into()
    }

    /// Returns the URL of the management plugin, with the user and the password.
    ///
    /// # Panics
    ///
    /// If the node was not started by [`Rabbit::start_with_management`].
    pub fn management_url(&self) -> String {
        let port = self.management.expect("this node has no management plugin");
        format!("http://guest:guest@127.0.0.1:{port}")
    }

    /// Runs `rabbitmqctl` and returns its standard output.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        succeed(&self.node, arguments)
    }

    /// Runs `rabbitmqctl` and returns its standard output.
    ///
    /// # Errors
    ///
    /// If it fails, for example because the node does not run. The error is its standard error.
    pub fn try_ctl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.node.ctl(arguments).map_err(|error| error.to_string())?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Evaluates an Erlang expression on the node, and returns the value as Erlang prints it.
    ///
    /// # Panics
    ///
    /// If the node does not answer, or the expression fails.
    pub fn eval(&self, expression: &str) -> String {
        self.node.eval(expression).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Returns whether an Erlang expression has this value on the node. If the node does not
    /// answer, it returns false.
    pub(crate) fn evals_to(&self, expression: &str, value: &str) -> bool {
        self.node.eval(expression).is_ok_and(|found| found == value)
    }

    /// Returns the node's name in Erlang.
    pub(crate) fn erlang_name(&self) -> String {
        self.node.name()
    }

    /// Returns the process id of the Erlang VM.
    fn server(&self) -> u32 {
        keeper::server(self.node.base()).expect("the keeper has written it")
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
    assert!(output.status.success(), "rabbitmqctl {arguments:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
