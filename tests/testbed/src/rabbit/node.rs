//! Where a node is, what it is configured with, and how its tools are called.
//!
//! Knows nothing of processes that live on; those are the keeper's.
#![expect(clippy::disallowed_methods, reason = "tests start servers")]

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::port;

const CTL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";

/// Where a node is, and by what name it goes.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    base: PathBuf,
    ports: Ports,
    address: Ipv4Addr,
    /// The process in whose network namespace the node lives.
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
    /// A node on the loopback address.
    pub(crate) fn on_loopback(ports: Ports) -> Self {
        Self { base: folder(), ports, address: Ipv4Addr::LOCALHOST, namespace: None }
    }

    /// A node that has an address and a network namespace of its own: that of a process.
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

    /// Returns the name that Erlang knows the node by.
    pub(crate) fn name(&self) -> String {
        match self.namespace {
            None => format!("loopabull{}@localhost", self.ports.amqp),
            Some(_) => format!("loopabull@{}", self.address),
        }
    }

    /// Writes the ports and the folder, for another process to find the node by.
    pub(super) fn to_text(&self) -> String {
        assert!(self.namespace.is_none(), "only a node on the loopback address can be shared");
        let Ports { amqp, distribution, epmd } = self.ports;
        format!("{amqp}:{distribution}:{epmd}:{}", self.base.display())
    }

    /// Reads what [`Node::to_text`] wrote.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ':');
        let mut port = || parts.next()?.parse().ok();
        let ports = Ports { amqp: port()?, distribution: port()?, epmd: port()? };
        let base = parts.next()?.into();
        Some(Self { base, ports, address: Ipv4Addr::LOCALHOST, namespace: None })
    }

    /// Makes the folder, with lines for `rabbitmq.conf` and the plugins to enable.
    pub(super) fn prepare(&self, conf: &str, plugins: &str) -> io::Result<()> {
        let base = &self.base;
        let cookie = base.join("home/.erlang.cookie");
        fs::create_dir(base.join("home"))?;
        fs::write(&cookie, "LOOPABULLTESTS")?;
        fs::set_permissions(&cookie, fs::Permissions::from_mode(0o400))?;
        fs::write(base.join("enabled_plugins"), format!("[{plugins}].\n"))?;
        fs::write(base.join("env.conf"), "")?;
        let amqp = self.amqp();
        let mut text =
            format!("listeners.tcp.local = {amqp}\ndisk_free_limit.absolute = 50MB\n{conf}\n");
        if self.namespace.is_some() {
            // To the node, the tests are not on the loopback address.
            text.push_str("loopback_users = none\n");
        }
        fs::write(base.join("rabbitmq.conf"), text)
    }

    /// Runs `rabbitmqctl`.
    pub(super) fn ctl(&self, arguments: &[&str]) -> io::Result<Output> {
        self.command(CTL).arg("--quiet").args(arguments).stdin(Stdio::null()).output()
    }

    /// Returns a command that runs where the node does, with the environment that its tools need.
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
            // An empty file of our own keeps /etc/rabbitmq/rabbitmq-env.conf out.
            .env("RABBITMQ_CONF_ENV_FILE", base.join("env.conf"))
            .env("RABBITMQ_NODE_IP_ADDRESS", &address)
            .env("RABBITMQ_NODE_PORT", self.ports.amqp.to_string())
            .env("RABBITMQ_DIST_PORT", self.ports.distribution.to_string())
            .env("ERL_EPMD_PORT", self.ports.epmd.to_string())
            .env("ERL_EPMD_ADDRESS", &address)
            .env("ERL_CRASH_DUMP", base.join("erl_crash.dump"))
            // With these two the script becomes the Erlang VM instead of waiting for it.
            .env("RABBITMQ_ALLOW_INPUT", "true")
            .env("RABBITMQ_SERVER_START_ARGS", "-noinput")
            // A node that falls silent is taken for dead after a quarter of a minute, not after a
            // whole one.
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                format!("-kernel inet_dist_use_interface {{{interface}}} -kernel net_ticktime 12"),
            );
        command
    }
}

fn folder() -> PathBuf {
    let base = tempfile::Builder::new().prefix("loopabull-rabbit-").tempdir();
    base.expect("a temporary folder").keep()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_read_as_it_was_written() {
        let name = "1:2:3:/tmp/a:b";
        let node = Node::from_text(name).unwrap();
        assert_eq!(node.amqp().to_string(), "127.0.0.1:1");
        assert_eq!(node.to_text(), name);
    }
}
