//! A network that can be cut: one network namespace for each host, joined by a bridge.
//!
//! The bridge is in a namespace of its own. Each namespace exists as long as a child process, which ends with
//! the test process. So nothing is left behind. The test process has an address in the network too, and can
//! reach every host even if the hosts cannot reach each other.
#![expect(clippy::disallowed_methods, reason = "tests start servers")]

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process;

/// Hosts behind one bridge.
#[derive(Debug)]
pub(crate) struct Network {
    hosts: Vec<Host>,
    /// The test process's own network device.
    device: String,
    address: Ipv4Addr,
    _bridge: Namespace,
}

/// A network namespace with an address.
#[derive(Debug)]
pub(crate) struct Host {
    namespace: Namespace,
    pub(crate) address: Ipv4Addr,
}

/// A network namespace. It exists as long as a child process, which is killed on drop.
#[derive(Debug)]
struct Namespace(Child);

impl Network {
    /// Makes a network with this many hosts.
    pub(crate) fn start(hosts: u8) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "only root can create a network that can be cut"
        );
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed) % 16;
        let pid = std::process::id();
        // RFC 2544 reserves the addresses 198.18.0.0/15 for tests. Each network uses 16 of them.
        let address = |host: u8| {
            let [_, _, high, low] = ((pid << 4 | number) << 4 | u32::from(host)).to_be_bytes();
            let middle = 18 + (pid >> 8 & 1) as u8;
            Ipv4Addr::new(198, middle, high, low)
        };
        let (ours, bridge) = (format!("lb{pid}n{number}"), Namespace::start());
        run(&format!(
            "ip link add {ours} type veth peer name ours netns {0}
             ip address add {1}/28 dev {ours}
             ip link set {ours} up",
            bridge.pid(),
            address(14),
        ));
        bridge.run("ip link add bridge type bridge\nip link set ours master bridge");
        bridge.run("ip link set bridge up\nip link set ours up");
        let start = |number: u8| {
            let host = Host { namespace: Namespace::start(), address: address(number + 1) };
            bridge.run(&format!(
                "ip link add host{number} type veth peer name cable netns {}
                 ip link set host{number} master bridge
                 ip link set host{number} up",
                host.namespace.pid()
            ));
            host.namespace.run(&format!(
                "ip link set lo up
                 ip address add {}/28 dev cable
                 ip link set cable up",
                host.address
            ));
            host
        };
        let hosts = (0..hosts).map(start).collect();
        Self { hosts, device: ours, address: address(14), _bridge: bridge }
    }

    pub(crate) fn host(&self, index: usize) -> &Host {
        &self.hosts[index]
    }

    /// Drops every packet between two hosts, without an error on either side.
    pub(crate) fn cut(&self, one: usize, other: usize) {
        // Sends the packets to an Ethernet address that no device has.
        self.on_both(one, other, "replace", "lladdr 02:00:00:00:00:01 nud permanent");
    }

    /// Undoes [`Network::cut`].
    pub(crate) fn mend(&self, one: usize, other: usize) {
        self.on_both(one, other, "delete", "");
    }

    /// Drops every packet between the test process and a host, without an error on either side.
    pub(crate) fn cut_us(&self, host: usize) {
        self.on_ours(host, "replace", "lladdr 02:00:00:00:00:01 nud permanent");
    }

    /// Undoes [`Network::cut_us`].
    pub(crate) fn mend_us(&self, host: usize) {
        self.on_ours(host, "delete", "");
    }

    fn on_ours(&self, host: usize, verb: &str, what: &str) {
        let host = &self.hosts[host];
        host.namespace.run(&format!("ip neighbour {verb} {} dev cable {what}", self.address));
        run(&format!("ip neighbour {verb} {} dev {} {what}", host.address, self.device));
    }

    fn on_both(&self, one: usize, other: usize, verb: &str, what: &str) {
        for (from, to) in [(one, other), (other, one)] {
            let (from, to) = (&self.hosts[from], self.hosts[to].address);
            from.namespace.run(&format!("ip neighbour {verb} {to} dev cable {what}"));
        }
    }
}

impl Host {
    /// Returns the id of a process that is in the namespace.
    pub(crate) fn pid(&self) -> u32 {
        self.namespace.pid()
    }
}

impl Namespace {
    fn start() -> Self {
        let mut holder = Command::new("unshare");
        // `cat` runs until its input is closed, at the latest when the test process ends.
        holder.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        let namespace = Self(holder.spawn().expect("util-linux is installed"));
        let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
        let pid = namespace.pid().to_string();
        process::wait_until("the namespace to be created", || {
            of(&pid).is_some_and(|ns| Some(ns) != of("self"))
        });
        namespace
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Runs lines of shell code in the namespace.
    fn run(&self, lines: &str) {
        let namespace = format!("--net=/proc/{}/ns/net", self.pid());
        succeed(Command::new("nsenter").args([&namespace, "--", "sh", "-ec", lines]), lines);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Both calls fail only if the process has already ended.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn run(lines: &str) {
    succeed(Command::new("sh").args(["-ec", lines]), lines);
}

fn succeed(command: &mut Command, what: &str) {
    let output = command.stdin(Stdio::null()).output().expect("the command can be started");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "these commands failed:\n{what}\n{stderr}(`ip` is in the package iproute2)"
    );
}
