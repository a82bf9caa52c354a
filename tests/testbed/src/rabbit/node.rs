//! The folder, the addresses and the configuration of a node. This module also calls the tools that query and
//! control the node.
//!
//! It does not start the server. The keeper does.
#![expect(clippy::disallowed_methods, reason = "tests start servers")]

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::port;

const CTL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";
/// A program of Erlang that queries a node in milliseconds. It is used where possible, because `rabbitmqctl`
/// takes a second of processor time.
const ERL_CALL: &str = "erl_call";
/// The time limit of one answer, in seconds. A frozen node does not answer.
const ERL_CALL_LIMIT: &str = "30";
const COOKIE: &str = "LOOPABULLTESTS";

/// The folder and the addresses of a node, which also determine its name.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    base: PathBuf,
    ports: Ports,
    address: Ipv4Addr,
    /// The id of a process in the node's network namespace. `None` for a node on the loopback address.
    namespace: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) amqp: u16,
    pub(crate) distribution: u16,
    pub(crate) epmd: u16,
}

impl Ports {
    pub(crate) fn free() -> Self {
        Self { amqp: port::free(), distribution: port::free(), epmd: port::free() }
    }
}

impl Node {
    /// Returns a node on the loopback address.
    pub(crate) fn on_loopback(ports: Ports) -> Self {
        Self { base: folder(), ports, address: Ipv4Addr::LOCALHOST, namespace: None }
    }

    /// Returns a node with its own address, in the network namespace of a process.
    pub(crate) fn in_namespace(address: Ipv4Addr, process: u32) -> Self {
        let ports = Ports { amqp: 5672, distribution: 25672, epmd: 4369 };
        Self { base: folder(), ports, address, namespace: Some(process) }
    }

    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    pub(crate) fn amqp(&self) -> SocketAddr {
        (self.address, self.ports.amqp).into()
    }

    pub(crate) fn epmd(&self) -> SocketAddr {
        (self.address, self.ports.epmd).into()
    }

    /// Returns the node's name in Erlang.
    pub(crate) fn name(&self) -> String {
        match self.namespace {
            None => format!("loopabull{}@localhost", self.ports.amqp),
            Some(_) => format!("loopabull@{}", self.address),
        }
    }

    /// Returns the ports and the folder of the node as text, for another process that uses the node.
    pub(super) fn to_text(&self) -> String {
        assert!(self.namespace.is_none(), "only a node on the loopback address can be shared");
        let Ports { amqp, distribution, epmd } = self.ports;
        format!("{amqp}:{distribution}:{epmd}:{}", self.base.display())
    }

    /// Parses the text that [`Node::to_text`] returns.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ':');
        let mut port = || parts.next()?.parse().ok();
        let ports = Ports { amqp: port()?, distribution: port()?, epmd: port()? };
        let base = parts.next()?.into();
        Some(Self { base, ports, address: Ipv4Addr::LOCALHOST, namespace: None })
    }

    /// Writes the configuration into the folder. `settings` are additional settings of the application
    /// `rabbit`, as Erlang terms. `plugins` names the plugins to enable.
    ///
    /// The configuration is not a `rabbitmq.conf`, because RabbitMQ takes 1.5 seconds of processor time at
    /// each start to translate such a file.
    pub(super) fn prepare(&self, settings: &[&str], plugins: &str) -> io::Result<()> {
        let base = &self.base;
        let cookie = base.join("home/.erlang.cookie");
        fs::create_dir(base.join("home"))?;
        fs::write(&cookie, COOKIE)?;
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400))?;
        fs::write(base.join("enabled_plugins"), format!("[{plugins}].\n"))?;
        fs::write(base.join("env.conf"), "")?;
        let listener =
            format!("{{tcp_listeners, [{{\"{}\", {}}}]}}", self.address, self.ports.amqp);
        let mut all = vec![&*listener, "{disk_free_limit, 50000000}"];
        if self.namespace.is_some() {
            // The user `guest` may connect only from the loopback address by default. The tests connect from
            // another network namespace.
            all.push("{loopback_users, []}");
        }
        all.extend(settings);
        fs::write(base.join("advanced.config"), format!("[{{rabbit, [{}]}}].\n", all.join(", ")))
    }

    /// Runs `rabbitmqctl`.
    pub(super) fn ctl(&self, arguments: &[&str]) -> io::Result<Output> {
        self.command(CTL).arg("--quiet").args(arguments).stdin(Stdio::null()).output()
    }

    /// Evaluates an Erlang expression on the node, and returns the value as Erlang prints it.
    ///
    /// # Errors
    ///
    /// If the node does not answer, or the expression fails.
    pub(super) fn eval(&self, expression: &str) -> io::Result<String> {
        self.eval_within(ERL_CALL_LIMIT, expression)
    }

    /// As [`Node::eval`], with a time limit in seconds.
    pub(super) fn eval_within(&self, limit: &str, expression: &str) -> io::Result<String> {
        let mut call = self.command("timeout");
        let address = format!("{}:{}", self.address, self.ports.distribution);
        // A node accepts only one connection from each client name at a time, so each call has its own name.
        static CALLS: AtomicU32 = AtomicU32::new(0);
        let name = format!("c{}n{}", std::process::id(), CALLS.fetch_add(1, Ordering::Relaxed));
        call.args([limit, ERL_CALL, "-address", &address, "-h", &name]);
        call.args(["-c", COOKIE, "-e"]);
        call.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = call.spawn()?;
        let expression = expression.trim_end_matches('.');
        let mut stdin = child.stdin.take().expect("standard input is piped");
        // `erl_call` prints only strings as Erlang does, so the value is formatted as a string first.
        writeln!(stdin, "lists:flatten(io_lib:format(\"~0p\", [begin {expression} end])).")?;
        drop(stdin);
        let output = child.wait_with_output()?;
        let [stdout, stderr] =
            [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        let value = stdout.strip_prefix("{ok, \"").and_then(|text| text.strip_suffix("\"}"));
        value.map(str::to_owned).ok_or_else(|| {
            io::Error::other(format!(
                "cannot evaluate `{expression}`: {}{}",
                stdout.trim(),
                stderr.trim()
            ))
        })
    }

    /// Returns a command in the node's network namespace, with the environment that its tools need.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = match self.namespace {
            None => Command::new(program),
            Some(process) => {
                let mut command = Command::new("nsenter");
                command.args([&format!("--net=/proc/{process}/ns/net"), "--", program]);
                command
            }
        };
        let (base, address) = (&self.base, self.address.to_string());
        let interface = address.replace('.', ",");
        command
            .env("HOME", base.join("home"))
            .env("RABBITMQ_NODENAME", self.name())
            .env("RABBITMQ_USE_LONGNAME", self.namespace.is_some().to_string())
            .env("RABBITMQ_MNESIA_BASE", base.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", base.join("log"))
            .env("RABBITMQ_PID_FILE", base.join("pid"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", base.join("enabled_plugins"))
            .env("RABBITMQ_CONFIG_FILE", base.join("rabbitmq"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", base.join("advanced.config"))
            // This empty file is read instead of /etc/rabbitmq/rabbitmq-env.conf.
            .env("RABBITMQ_CONF_ENV_FILE", base.join("env.conf"))
            .env("RABBITMQ_NODE_IP_ADDRESS", &address)
            .env("RABBITMQ_NODE_PORT", self.ports.amqp.to_string())
            .env("RABBITMQ_DIST_PORT", self.ports.distribution.to_string())
            .env("ERL_EPMD_PORT", self.ports.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", &address)
            .env("ERL_CRASH_DUMP", base.join("erl_crash.dump"))
            // With these two variables the script replaces itself by the Erlang VM and does not wait for the
            // Erlang VM as a child process.
            .env("RABBITMQ_ALLOW_INPUT", "true")
            .env("RABBITMQ_SERVER_START_ARGS", "-noinput")
            // `net_ticktime`: a silent node is considered dead after 15 seconds instead of a minute.
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                format!("-kernel inet_dist_use_interface {{{interface}}} -kernel net_ticktime 12"),
            );
        command
    }
}

fn folder() -> PathBuf {
    let base = tempfile::Builder::new().prefix("loopabull-rabbit-").tempdir();
    base.expect("a temporary folder can be created").keep()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_parsed_from_its_text() {
        let name = "1:2:3:/tmp/a:b";
        let node = Node::from_text(name).unwrap();
        assert_eq!(node.amqp().to_string(), "127.0.0.1:1");
        assert_eq!(node.to_text(), name);
    }
}
