//! A vhost with a bus, its consumer and its publisher.
#![expect(clippy::disallowed_methods, reason = "tests start programs")]
#![expect(clippy::print_stdout, reason = "the time of each reconnect is worth reading")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties};
use loopabull_fedora_messaging::{
    Argument, Binding, Bus, BusConfig, BusDelivery, BusLink, BusQueue, BusState, Settled,
};
use loopabull_testbed::{Rabbit, Vhost, python};
use tokio_util::sync::CancellationToken;

/// Timeout of each wait, long enough for two busy cores.
const WAIT_LIMIT: Duration = Duration::from_secs(60);
pub(crate) const QUEUE: &str = "00000000-0000-4000-8000-000000000000";
pub(crate) const PREFETCH: u16 = 3;

/// A Python program that answers each line of its input with one line.
pub(crate) struct Python {
    process: Child,
    commands: ChildStdin,
    answers: Receiver<String>,
}

impl Python {
    pub(crate) fn start(script: &str, argument: &Path) -> Self {
        let mut process = Command::new(python())
            .args(["-W", "ignore", "-c", script])
            .arg(argument)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let commands = process.stdin.take().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || {
            lines.map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { process, commands, answers }
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        writeln!(self.commands, "{line}").unwrap();
        self.answer()
    }

    fn answer(&mut self) -> String {
        self.answers.recv_timeout(WAIT_LIMIT).expect("the Python program answers within a minute")
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        drop((self.process.kill(), self.process.wait()));
    }
}

/// A publisher that uses the original fedora-messaging.
pub(crate) struct Publisher {
    python: Python,
    _folder: tempfile::TempDir,
}

impl Publisher {
    pub(crate) fn start(url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        std::fs::write(&file, format!("amqp_url = '{url}'\n")).unwrap();
        let mut python = Python::start(include_str!("publisher.py"), &file);
        assert_eq!(python.answer(), "ready");
        Self { python, _folder: folder }
    }

    /// Publishes the message that `command` describes, and returns the message id.
    pub(crate) fn publish(&mut self, command: &serde_json::Value) -> String {
        let id: Option<String> =
            serde_json::from_str(&self.python.ask(&command.to_string())).unwrap();
        id.unwrap_or_default()
    }

    /// Publishes a message with a number in its body, and returns the message id.
    pub(crate) fn number(&mut self, number: u32) -> String {
        self.publish(&serde_json::json!({"topic": "org.example.n", "body": {"n": number}}))
    }

    pub(crate) fn numbers(&mut self, numbers: impl IntoIterator<Item = u32>) {
        for number in numbers {
            self.number(number);
        }
    }
}

/// A vhost of a broker, with a publisher.
pub(crate) struct Fixture {
    pub(crate) rabbit: &'static Rabbit,
    pub(crate) vhost: Vhost,
    pub(crate) publisher: Publisher,
}

impl Fixture {
    pub(crate) fn shared() -> Self {
        Self::on(Rabbit::shared())
    }

    pub(crate) fn on(rabbit: &'static Rabbit) -> Self {
        let vhost = rabbit.vhost();
        let publisher = Publisher::start(&vhost.url());
        Self { rabbit, vhost, publisher }
    }

    pub(crate) fn config(&self) -> BusConfig {
        config(&self.vhost.url())
    }

    /// Starts a bus and waits until the bus consumes its queue.
    pub(crate) async fn start(&self, config: &BusConfig) -> Bus {
        let bus = Bus::start(config).unwrap();
        wait_for(&bus, BusState::is_consuming).await;
        bus
    }

    /// Returns the prefetch of each consumer in the vhost, as the broker reports it.
    pub(crate) fn prefetches(&self) -> String {
        let list =
            ["list_consumers", "--no-table-headers", "-p", &self.vhost.name, "prefetch_count"];
        self.rabbit.ctl(&list)
    }

    /// Publishes more messages than the prefetch. Checks that the broker has sent exactly as many as the
    /// prefetch. Then consumes all messages.
    pub(crate) async fn check_prefetch(&mut self, bus: &mut Bus) {
        let prefetch = u32::from(PREFETCH);
        self.publisher.numbers(1000..1002 + prefetch);
        let first = receive(bus).await;
        assert_eq!(number(&first), 1000);
        self.wait_for_ready(2).await;
        let taken = u32::from(first.ack().await == Settled::Sent);
        take(bus, 1000 + taken..1002 + prefetch).await;
    }

    /// Waits until the queue has `ready` undelivered messages.
    pub(crate) async fn wait_for_ready(&self, ready: u32) {
        let (start, channel) = (Instant::now(), self.channel().await);
        loop {
            let (found, _) = look(&channel).await;
            if found == ready {
                return;
            }
            assert!(
                start.elapsed() < WAIT_LIMIT,
                "the queue has {found} undelivered messages instead of {ready}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Closes a bus, and checks how many messages are left in the queue. The broker requeues unsettled
    /// messages.
    pub(crate) async fn end(&self, bus: Bus, left: u32) {
        bus.close().await;
        let (start, channel) = (Instant::now(), self.channel().await);
        loop {
            match look(&channel).await {
                (ready, 0) => return assert_eq!(ready, left),
                _ => assert!(start.elapsed() < WAIT_LIMIT, "the queue still has a consumer"),
            }
        }
    }

    pub(crate) async fn delete_queue(&self) {
        let options = QueueDeleteOptions::default();
        self.channel().await.queue_delete(QUEUE.into(), options).await.unwrap();
    }

    async fn channel(&self) -> Channel {
        let url = self.vhost.url();
        let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
        connection.create_channel().await.unwrap()
    }
}

/// Returns the number of undelivered messages and the number of consumers of the queue.
async fn look(channel: &Channel) -> (u32, u32) {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare(QUEUE.into(), options, FieldTable::default()).await.unwrap();
    (queue.message_count(), queue.consumer_count())
}

/// Returns settings with a durable queue that gets all messages of the exchange.
pub(crate) fn config(url: &str) -> BusConfig {
    BusConfig {
        amqp_url: url.to_owned(),
        queue: BusQueue {
            name: QUEUE.to_owned(),
            durable: true,
            auto_delete: false,
            exclusive: false,
            arguments: [("x-max-length".to_owned(), Argument::Integer(10_000))].into(),
        },
        bindings: vec![Binding::default()],
        prefetch: PREFETCH.try_into().unwrap(),
        ..BusConfig::default()
    }
}

/// Waits until the state of a bus satisfies a condition, and returns the time that this took.
pub(crate) async fn wait_for(bus: &Bus, mut is_reached: impl FnMut(&BusState) -> bool) -> Duration {
    let (start, mut state) = (Instant::now(), bus.state());
    let found = tokio::time::timeout(WAIT_LIMIT, state.wait_for(|state| is_reached(state))).await;
    assert!(found.is_ok_and(|state| state.is_ok()), "{:?}", bus.state().borrow());
    start.elapsed()
}

/// Waits until a bus has reconnected `times` times, and prints the time that this took.
pub(crate) async fn wait_for_reconnect(
    bus: &Bus,
    times: u64,
    what: &str,
    start: Instant,
) -> BusState {
    wait_for(bus, |state| state.is_consuming() && state.reconnects >= times).await;
    println!("reconnected after {what}: {} ms", start.elapsed().as_millis());
    bus.state().borrow().clone()
}

/// Waits until a bus has a problem whose text contains `part`, and returns the text.
pub(crate) async fn wait_for_problem(bus: &Bus, part: &str) -> String {
    let is_reached = |state: &BusState| matches!(&state.link, BusLink::Broken { reason } if reason.contains(part));
    wait_for(bus, is_reached).await;
    bus.state().borrow().problem().unwrap_or_default()
}

pub(crate) async fn receive(bus: &mut Bus) -> BusDelivery {
    let stop = CancellationToken::new();
    let delivery = tokio::time::timeout(WAIT_LIMIT, bus.receive(&stop)).await;
    delivery.unwrap_or_else(|_| panic!("no delivery arrived: {:?}", bus.state().borrow())).unwrap()
}

pub(crate) fn number(delivery: &BusDelivery) -> u32 {
    let body: serde_json::Value = serde_json::from_str(&delivery.text().unwrap()).unwrap();
    body["n"].as_u64().unwrap().try_into().unwrap()
}

/// Receives and acknowledges messages until each of `numbers` was acknowledged.
pub(crate) async fn take(bus: &mut Bus, numbers: impl IntoIterator<Item = u32>) {
    let mut missing: BTreeSet<u32> = numbers.into_iter().collect();
    while !missing.is_empty() {
        let delivery = receive(bus).await;
        let number = number(&delivery);
        if delivery.ack().await == Settled::Sent {
            missing.remove(&number);
        }
    }
}

/// Runs one test of this binary in a child process, with environment variables.
pub(crate) fn run_again(test: &str, variables: &[(&str, &str)]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test]).envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
