//! A private RabbitMQ node.
//!
//! One node serves a whole run of tests: `cargo xtask test` starts it and names it in
//! [`Rabbit::ENVIRONMENT`]; a test binary started by hand finds no such name and starts its own.
//! Each test takes a vhost of its own.
#![expect(clippy::disallowed_methods, reason = "tests start servers")]

use std::fs;
use std::io::{self, Read};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The server itself. The wrapper in `/usr/sbin` would change to the user `rabbitmq`.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const CTL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";
/// A cold node on two busy cores.
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// Runs the node, and kills it with everything it started once standard input ends: it ends when
/// the test process does, by whatever way.
const KEEPER: &str = r#"
exec 3<&0
setsid "$1" </dev/null >"$2/out" 2>&1 &
server=$!
setsid epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 </dev/null >/dev/null 2>&1 &
epmd=$!
cat <&3 >/dev/null
kill -9 -"$server" "$epmd" 2>/dev/null
pkill -9 -f "$2/mnesia" 2>/dev/null
rm -rf "$2"
"#;

/// A private RabbitMQ node.
#[derive(Debug)]
pub struct Rabbit {
    base: PathBuf,
    ports: Ports,
    /// Open for as long as the node shall run; nothing to hold if another process started it.
    _keeper: Option<std::process::Child>,
}

/// A vhost of a node, made for one test.
#[derive(Debug)]
pub struct Vhost {
    rabbit: &'static Rabbit,
    pub name: String,
}

#[derive(Clone, Copy, Debug)]
struct Ports {
    amqp: u16,
    distribution: u16,
    epmd: u16,
}

impl Rabbit {
    /// The environment variable that names a node that is already running.
    pub const ENVIRONMENT: &str = "LOOPABULL_TEST_RABBITMQ";

    /// Returns the node of this run: the one named in the environment, else one of our own.
    ///
    /// # Panics
    ///
    /// If RabbitMQ is not installed or does not start; the text says what to do.
    pub fn shared() -> &'static Self {
        static NODE: OnceLock<Rabbit> = OnceLock::new();
        NODE.get_or_init(|| match std::env::var(Self::ENVIRONMENT) {
            Ok(name) => Self::running(&name),
            Err(_) => Self::start(),
        })
    }

    /// Starts a node.
    ///
    /// # Panics
    ///
    /// If RabbitMQ is not installed or does not start; the text says what to do.
    pub fn start() -> Self {
        assert!(
            Path::new(SERVER).exists(),
            "RabbitMQ is not installed; run `cargo xtask test`, or: apt-get install rabbitmq-server"
        );
        let ports = Ports { amqp: free_port(), distribution: free_port(), epmd: free_port() };
        let base = tempfile::Builder::new().prefix("loopabull-rabbit-").tempdir();
        let base = base.expect("a temporary folder").keep();
        prepare(&base, ports).expect("the temporary folder can be written");
        let mut keeper = Command::new("/bin/sh");
        keeper.args(["-c", KEEPER, "keeper", SERVER]).arg(&base).stdin(Stdio::piped());
        keeper.stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        environment(&mut keeper, &base, ports);
        let keeper = keeper.spawn().expect("there is a shell");
        let node = Self { base, ports, _keeper: Some(keeper) };
        node.wait_until_running();
        node
    }

    /// Returns the name for [`Rabbit::ENVIRONMENT`].
    pub fn name(&self) -> String {
        let Ports { amqp, distribution, epmd } = self.ports;
        format!("{amqp}:{distribution}:{epmd}:{}", self.base.display())
    }

    /// Makes a vhost for one test.
    pub fn vhost(&'static self) -> Vhost {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test-{}-{number}", std::process::id());
        self.ctl(&["add_vhost", &name]);
        self.ctl(&["set_permissions", "-p", &name, "guest", ".*", ".*", ".*"]);
        Vhost { rabbit: self, name }
    }

    /// Runs `rabbitmqctl` and returns what it printed.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        let output = self.try_ctl(arguments).expect("rabbitmqctl can be started");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "rabbitmqctl {arguments:?}: {stderr}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn running(name: &str) -> Self {
        let mut parts = name.splitn(4, ':');
        let mut port = || parts.next()?.parse().ok();
        let ports = (|| Some(Ports { amqp: port()?, distribution: port()?, epmd: port()? }))();
        let (ports, base) = ports.zip(parts.next()).expect("the name of a running node");
        Self { base: base.into(), ports, _keeper: None }
    }

    fn try_ctl(&self, arguments: &[&str]) -> io::Result<Output> {
        let mut command = Command::new(CTL);
        command.arg("--quiet").args(arguments).stdin(Stdio::null());
        environment(&mut command, &self.base, self.ports);
        command.output()
    }

    fn wait_until_running(&self) {
        let start = Instant::now();
        let pid = self.base.join("pid");
        let pid = pid.to_str().expect("temporary folders have plain names").to_owned();
        loop {
            let seconds = BOOT_LIMIT.as_secs().to_string();
            if let Ok(output) = self.try_ctl(&["wait", "--timeout", &seconds, &pid])
                && output.status.success()
            {
                return;
            }
            let mut log = String::new();
            drop(
                fs::File::open(self.base.join("out")).and_then(|mut f| f.read_to_string(&mut log)),
            );
            assert!(start.elapsed() < BOOT_LIMIT, "RabbitMQ did not start:\n{log}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Vhost {
    /// Returns the URL of the vhost.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/{}", self.rabbit.ports.amqp, self.name)
    }

    /// Waits until `rabbitmqctl list_queues` prints these lines of `name<TAB>messages`, sorted. A
    /// quorum queue tells the statistics its length only every few seconds.
    ///
    /// # Panics
    ///
    /// If it has not done so within a minute.
    pub fn wait_for_queues(&self, expected: &str) {
        let start = Instant::now();
        loop {
            let found = self.list_queues();
            if found == expected {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{found:?} is not {expected:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Returns what `rabbitmqctl list_queues` prints of the vhost, sorted.
    pub fn list_queues(&self) -> String {
        let text = self.rabbit.ctl(&["list_queues", "--no-table-headers", "-p", &self.name]);
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines.join("\n")
    }
}

fn prepare(base: &Path, ports: Ports) -> io::Result<()> {
    let home = base.join("home");
    fs::create_dir(&home)?;
    fs::write(home.join(".erlang.cookie"), "LOOPABULLTESTS")?;
    fs::set_permissions(home.join(".erlang.cookie"), fs::Permissions::from_mode(0o400))?;
    fs::write(base.join("enabled_plugins"), "[].\n")?;
    fs::write(base.join("env.conf"), "")?;
    let port = ports.amqp;
    let conf = format!("listeners.tcp.local = 127.0.0.1:{port}\ndisk_free_limit.absolute = 50MB\n");
    fs::write(base.join("rabbitmq.conf"), conf)
}

fn environment(command: &mut Command, base: &Path, ports: Ports) {
    let (amqp, distribution) = (ports.amqp.to_string(), ports.distribution.to_string());
    command
        .env("HOME", base.join("home"))
        .env("RABBITMQ_NODENAME", format!("loopabull{amqp}@localhost"))
        .env("RABBITMQ_MNESIA_BASE", base.join("mnesia"))
        .env("RABBITMQ_LOG_BASE", base.join("log"))
        .env("RABBITMQ_PID_FILE", base.join("pid"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", base.join("enabled_plugins"))
        .env("RABBITMQ_CONFIG_FILE", base.join("rabbitmq"))
        // An empty file of our own keeps /etc/rabbitmq/rabbitmq-env.conf out.
        .env("RABBITMQ_CONF_ENV_FILE", base.join("env.conf"))
        .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_NODE_PORT", amqp)
        .env("RABBITMQ_DIST_PORT", distribution)
        .env("ERL_EPMD_PORT", ports.epmd.to_string())
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}");
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback address can be bound");
    listener.local_addr().expect("a bound socket has an address").port()
}
