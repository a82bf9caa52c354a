//! A publisher that uses the original fedmsg, in a Python process.
#![expect(clippy::disallowed_methods, reason = "tests start servers")]

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use tempfile::TempDir;

use crate::cable::Cable;
use crate::interpreter::python;
use crate::pki::Pki;

const SCRIPT: &str = include_str!("publisher.py");
/// The time limit for the start of Python and for one command, on two busy cores.
const LIMIT: Duration = Duration::from_secs(60);

/// A publisher that uses the original fedmsg library and a PUB socket.
///
/// Its topics begin with [`FedmsgPublisher::TOPIC_PREFIX`]. The publisher is killed on drop, and ends with
/// the test process.
#[derive(Debug)]
pub struct FedmsgPublisher {
    process: Child,
    commands: ChildStdin,
    answers: Receiver<String>,
    address: Ipv4Addr,
    port: u16,
    folder: TempDir,
}

impl FedmsgPublisher {
    /// The beginning of every topic: fedmsg's `topic_prefix` and `environment`.
    pub const TOPIC_PREFIX: &str = "org.example.prod";

    /// Starts a publisher that signs nothing, on a free port. The socket is bound when the function returns.
    ///
    /// # Panics
    ///
    /// If no installed Python has the module `fedmsg`, or the publisher does not start. The message says what
    /// to do.
    pub fn start() -> Self {
        Self::start_with(free_port(), "sign_messages=False")
    }

    /// Starts a publisher that signs with this certificate.
    ///
    /// # Panics
    ///
    /// In the same cases as [`FedmsgPublisher::start`].
    pub fn start_signed(pki: &Pki, certificate: &str) -> Self {
        let (folder, names) =
            (pki.folder().display(), format!("{{\"bench.localhost\": \"{certificate}\"}}"));
        Self::start_with(
            free_port(),
            &format!(
                "sign_messages=True, crypto_backend=\"x509\", ssldir=\"{folder}\", certnames={names}"
            ),
        )
    }

    /// Starts a publisher at the end of a cable that can be cut. It signs nothing.
    ///
    /// # Panics
    ///
    /// In the same cases as [`FedmsgPublisher::start`].
    pub fn start_behind(cable: &Cable) -> Self {
        let mut command = Command::new("nsenter");
        command.arg(cable.namespace()).arg("--").arg(python());
        Self::start_by(command, cable.address(), 4001, "sign_messages=False")
    }

    fn start_with(port: u16, signing: &str) -> Self {
        Self::start_by(Command::new(python()), Ipv4Addr::LOCALHOST, port, signing)
    }

    fn start_by(mut command: Command, address: Ipv4Addr, port: u16, signing: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("loopabull-fedmsg-").tempdir();
        let folder = folder.expect("a temporary folder can be created");
        configure(folder.path(), address, port, signing)
            .expect("the temporary folder can be written");
        let log =
            File::create(folder.path().join("log")).expect("a file can be created in a new folder");
        let mut process = command
            .args(["-c", SCRIPT])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("Python can be started");
        let commands = process.stdin.take().expect("standard input is piped");
        let stdout = process.stdout.take().expect("standard output is piped");
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let publisher = Self { process, commands, answers, address, port, folder };
        let ready = publisher.answer();
        assert_eq!(ready, "ready", "the publisher must first print `ready`");
        publisher
    }

    /// Returns the process id, for signals that stop and continue the publisher.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Returns the address to which a SUB socket connects.
    pub fn endpoint(&self) -> String {
        format!("tcp://{}:{}", self.address, self.port)
    }

    /// Publishes `count` messages with the topic `PREFIX.modname.topic` and the body `msg_json`,
    /// a JSON value, and returns their ids in order.
    ///
    /// A PUB socket drops messages while it has no subscriber. So a test that must not lose its first message
    /// first publishes to another topic, until one of these messages has reached the subscriber. Afterwards
    /// the subscriber loses messages only if more than a thousand wait.
    ///
    /// # Panics
    ///
    /// If `msg_json` is not JSON, or the publisher does not answer within a minute.
    pub fn publish(
        &mut self,
        modname: &str,
        topic: &str,
        msg_json: &str,
        count: u32,
    ) -> Vec<String> {
        let msg: serde_json::Value = serde_json::from_str(msg_json).expect("the body is JSON");
        let command = serde_json::json!({
            "modname": modname,
            "topic": topic,
            "msg": msg,
            "count": count,
        });
        if writeln!(self.commands, "{command}").is_err() {
            panic!("the publisher has ended:\n{}", self.log());
        }
        serde_json::from_str(&self.answer()).expect("the answer is a list of ids")
    }

    fn answer(&self) -> String {
        match self.answers.recv_timeout(LIMIT) {
            Ok(line) => line,
            Err(error) => panic!("no answer from the publisher ({error}):\n{}", self.log()),
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for FedmsgPublisher {
    fn drop(&mut self) {
        // Both calls fail only if the process has already ended.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn configure(folder: &Path, address: Ipv4Addr, port: u16, signing: &str) -> io::Result<()> {
    fs::create_dir(folder.join("fedmsg.d"))?;
    // `post_init_sleep` is the time for which fedmsg waits for subscribers. It is short, because the tests
    // wait for subscribers themselves.
    let config = format!(
        r#"config = dict(
    endpoints={{"bench.localhost": ["tcp://{address}:{port}"]}},
    topic_prefix="org.example",
    environment="prod",
    {signing},
    validate_signatures=False,
    post_init_sleep=0.01,
    high_water_mark=0,
)
"#
    );
    fs::write(folder.join("fedmsg.d/base.py"), config)
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback address can be bound");
    listener.local_addr().expect("a bound socket has an address").port()
}
